//! Text to nodes that know their line and column.

use std::{collections::HashMap, fmt};

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Value, scalar};

/// Nodes of a file; more of them come from aliases that multiply.
const MOST_NODES: usize = 2_000_000;

/// A place in a file, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its start.
    pub at: Mark,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Neither of the others.
    Scalar(Value),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key, a scalar.
    pub key: Value,
    /// Where the key stands.
    pub at: Mark,
    /// The value.
    pub value: Node,
}

/// Why a text is no YAML that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct YamlError {
    /// Where.
    pub at: Mark,
    /// What is wrong there.
    pub what: String,
}

impl Node {
    /// The value alone.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::List(items.iter().map(Self::value).collect()),
            Kind::Map(entries) => {
                Value::Map(entries.iter().map(|entry| (entry.key.clone(), entry.value.value())).collect())
            }
        }
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Value::Null))
    }

    /// `null`, `a string`, `a list`, …, for messages.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(Value::Null) => "nothing",
            Kind::Scalar(Value::Bool(_)) => "a truth value",
            Kind::Scalar(Value::Int(_) | Value::Float(_)) => "a number",
            Kind::Scalar(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// Reads the one document of a text; an empty text is `null`.
///
/// # Errors
/// No YAML, several documents, a key that stands twice, a tag, or a number beyond 128 bits.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| YamlError {
            at: Mark { line: error.marker().line(), column: error.marker().col() + 1 },
            what: error.info(),
        })?;
        builder.take(event, span)?;
    }
    let nothing = Node { at: Mark { line: 1, column: 1 }, kind: Kind::Scalar(Value::Null) };
    Ok(builder.root.unwrap_or(nothing))
}

/// A collection that is still open.
struct Open {
    at: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, merged: Vec<Entry>, key: Option<(Value, Mark)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let at = Mark { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar_value(&text, style, tag.as_deref(), at)?;
                self.place(Node { at, kind: Kind::Scalar(value) }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", at)?;
                self.open.push(Open { at, anchor, content: Content::List(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", at)?;
                let content = Content::Map { entries: Vec::new(), merged: Vec::new(), key: None };
                self.open.push(Open { at, anchor, content });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id, at),
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(YamlError { at, what: "expected one document, got a second".into() })
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(Open { at, anchor, content }) = self.open.pop() else { return Ok(()) };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map { entries, mut merged, .. } => {
                merged.retain(|entry| !entries.iter().any(|there| there.key == entry.key));
                merged.extend(entries);
                Kind::Map(merged)
            }
        };
        self.place(Node { at, kind }, anchor)
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<(), YamlError> {
        let Some((node, nodes)) = self.anchors.get(&id).cloned() else {
            return Err(YamlError { at, what: "this alias stands inside its own anchor".into() });
        };
        self.nodes += nodes;
        self.place(Node { at, ..node }, 0)
    }

    fn place(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(YamlError { at: node.at, what: format!("more than {MOST_NODES} values") });
        }
        if anchor > 0 {
            let count = count(&node);
            self.anchors.insert(anchor, (node.clone(), count));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, merged, key }) => match key.take() {
                None => *key = Some(key_of(node)?),
                Some((name, _)) if name.as_text() == Some("<<") => merge(merged, node)?,
                Some((name, at)) => insert(entries, Entry { key: name, at, value: node })?,
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(_) => 1,
        Kind::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|entry| count(&entry.value)).sum::<usize>(),
    }
}

fn key_of(node: Node) -> Result<(Value, Mark), YamlError> {
    match node.kind {
        Kind::Scalar(value) => Ok((value, node.at)),
        _ => Err(YamlError { at: node.at, what: "expected a scalar as key".into() }),
    }
}

/// Adds the entries of a mapping, or of several, below `<<`; the first of a name counts.
fn merge(merged: &mut Vec<Entry>, node: Node) -> Result<(), YamlError> {
    let nodes = match node.kind {
        Kind::List(items) => items,
        _ => vec![node],
    };
    for node in nodes {
        let Kind::Map(entries) = node.kind else {
            return Err(YamlError { at: node.at, what: "expected a mapping to merge".into() });
        };
        for entry in entries {
            if !merged.iter().any(|there| there.key == entry.key) {
                merged.push(entry);
            }
        }
    }
    Ok(())
}

fn insert(entries: &mut Vec<Entry>, entry: Entry) -> Result<(), YamlError> {
    if let Some(first) = entries.iter().find(|there| there.key == entry.key) {
        let name = entry.key.as_text().unwrap_or("a key");
        let what = format!("`{name}` stands here a second time, first at {}", first.at);
        return Err(YamlError { at: entry.at, what });
    }
    entries.push(entry);
    Ok(())
}

fn refuse_tag(tag: Option<&Tag>, expected: &str, at: Mark) -> Result<(), YamlError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(expected) => {
            Err(YamlError { at, what: format!("the tag `{tag}` is not supported") })
        }
        _ => Ok(()),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Mark) -> Result<Value, YamlError> {
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str")) {
        return Ok(Value::text(text));
    }
    if let Some(tag) = tag {
        return Err(YamlError { at, what: format!("the tag `{tag}` is not supported") });
    }
    scalar::resolve(text).ok_or_else(|| YamlError { at, what: format!("`{text}` has more than 128 bits") })
}
