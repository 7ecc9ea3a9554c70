//! `vars`, `${…}`, `foreach` and `matrix`.

use super::{PARAMS_FILE, PipelineError, read::Reader};
use crate::yaml::{self, Entry, Kind, Mark, Node, Value};

/// Values that `${…}` finds, the innermost first.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    values: Vec<(String, Value)>,
}

impl Context {
    /// `params.yaml`, where there is one, and what `vars` of the whole file names.
    pub(super) fn of_file(reader: &Reader, vars: Option<&Node>) -> Result<Self, PipelineError> {
        let mut context = Self::default();
        let default = reader.folder.in_root(reader.root).join(PARAMS_FILE);
        if default.is_file() {
            let named_again = reader.items(vars, "variables")?.iter().any(|item| {
                matches!(&item.kind, Kind::Scalar(Value::Text(text)) if text.split(':').next() == Some(PARAMS_FILE))
            });
            if !named_again {
                context.load(reader, PARAMS_FILE, Mark { line: 1, column: 1 })?;
            }
        }
        context.extend(reader, vars)?;
        Ok(context)
    }

    fn extend(&mut self, reader: &Reader, vars: Option<&Node>) -> Result<(), PipelineError> {
        for item in reader.items(vars, "variables")? {
            match &item.kind {
                Kind::Map(entries) => {
                    for entry in entries {
                        self.set(entry.key.as_text().unwrap_or_default(), entry.value.value());
                    }
                }
                _ => self.load(reader, reader.text(item, "a file of variables")?, item.at)?,
            }
        }
        Ok(())
    }

    /// `FILE` or `FILE:KEY,KEY`.
    fn load(&mut self, reader: &Reader, named: &str, at: Mark) -> Result<(), PipelineError> {
        let (file, keys) = named.split_once(':').map_or((named, None), |(file, keys)| (file, Some(keys)));
        let place = reader.place(reader.folder, file, at, "`vars`")?;
        let text = fs_err::read_to_string(place.in_root(reader.root))?;
        let node = yaml::parse(&text)
            .map_err(|source| PipelineError::Yaml { path: place.in_root(reader.root), source })?;
        let Value::Map(entries) = node.value() else {
            return if node.is_null() {
                Ok(())
            } else {
                Err(reader.refuse(at, format!("`{file}` holds no mapping")))
            };
        };
        let wanted: Option<Vec<&str>> = keys.map(|keys| keys.split(',').collect());
        for (key, value) in entries {
            let Some(name) = key.as_text() else { continue };
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&name)) {
                self.set(name, value);
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value) {
        self.values.retain(|(there, _)| there != name);
        self.values.push((name.to_owned(), value));
    }

    /// What `a.b[0].c` stands for.
    fn find(&self, path: &str) -> Option<Value> {
        let normal = path.replace('[', ".").replace(']', "");
        let mut parts = normal.split('.').map(str::trim);
        let first = parts.next()?;
        let (_, value) = self.values.iter().find(|(name, _)| name == first)?;
        let mut value = value.clone();
        for part in parts {
            value = match &value {
                Value::List(items) => items.get(part.parse::<usize>().ok()?)?.clone(),
                other => other.get(part)?.clone(),
            };
        }
        Some(value)
    }

    /// Replaces every `${…}` of a node.
    fn fill(&self, reader: &Reader, node: &Node) -> Result<Node, PipelineError> {
        let kind = match &node.kind {
            Kind::Scalar(Value::Text(text)) => Kind::Scalar(self.fill_text(reader, text, node.at)?),
            Kind::Scalar(value) => Kind::Scalar(value.clone()),
            Kind::List(items) => {
                Kind::List(items.iter().map(|item| self.fill(reader, item)).collect::<Result<_, _>>()?)
            }
            Kind::Map(entries) => {
                let fill = |entry: &Entry| {
                    let key = match &entry.key {
                        Value::Text(text) => self.fill_text(reader, text, entry.at)?,
                        other => other.clone(),
                    };
                    Ok(Entry { key, at: entry.at, value: self.fill(reader, &entry.value)? })
                };
                Kind::Map(entries.iter().map(fill).collect::<Result<_, PipelineError>>()?)
            }
        };
        Ok(match kind {
            Kind::Scalar(value) => node_of(&value, node.at),
            kind => Node { at: node.at, kind },
        })
    }

    fn fill_text(&self, reader: &Reader, text: &str, at: Mark) -> Result<Value, PipelineError> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            // A backslash before it keeps it as it is.
            if let Some(before) = rest[..start].strip_suffix('\\') {
                filled += before;
                filled += "${";
                rest = &rest[start + 2..];
                continue;
            }
            let Some(length) = rest[start..].find('}') else {
                return Err(reader.refuse(at, format!("`{text}` has a `${{` without its `}}`")));
            };
            let name = rest[start + 2..start + length].trim();
            let Some(value) = self.find(name) else {
                return Err(reader.refuse_with(
                    at,
                    format!("`${{{name}}}` stands for nothing"),
                    "`vars`, `params.yaml` and, in a foreach, `item` and `key` give values",
                ));
            };
            if start == 0 && length + 1 == text.len() {
                return Ok(value);
            }
            filled += &rest[..start];
            filled += &self::text(reader, name, &value, at)?;
            rest = &rest[start + length + 1..];
        }
        Ok(Value::Text(filled + rest))
    }
}

/// A value within a string, as DVC writes it there.
fn text(reader: &Reader, name: &str, value: &Value, at: Mark) -> Result<String, PipelineError> {
    Ok(match value {
        Value::Null => "None".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => yaml::python_float(*value),
        Value::Text(text) | Value::Stamp(text) => text.clone(),
        Value::List(_) | Value::Map(_) => {
            return Err(
                reader.refuse(at, format!("`${{{name}}}` is a collection, which a string cannot hold"))
            );
        }
    })
}

fn node_of(value: &Value, at: Mark) -> Node {
    let kind = match value {
        Value::List(items) => Kind::List(items.iter().map(|item| node_of(item, at)).collect()),
        Value::Map(entries) => {
            let entry =
                |(key, value): &(Value, Value)| Entry { key: key.clone(), at, value: node_of(value, at) };
            Kind::Map(entries.iter().map(entry).collect())
        }
        scalar => Kind::Scalar(scalar.clone()),
    };
    Node { at, kind }
}

/// The stages that one entry of `stages` stands for, each with its name.
pub(super) fn expand(
    reader: &Reader,
    context: &Context,
    name: &str,
    entry: &Entry,
) -> Result<Vec<(String, Node)>, PipelineError> {
    let entries = reader.entries(&entry.value, "a stage's settings")?;
    let find = |key: &str| entries.iter().find(|entry| entry.key.as_text() == Some(key));
    if let Some(foreach) = find("foreach") {
        let Some(body) = find("do") else {
            return Err(reader.refuse(foreach.at, format!("`{name}` has `foreach` but no `do`")));
        };
        if let Some(other) =
            entries.iter().find(|entry| !matches!(entry.key.as_text(), Some("foreach" | "do")))
        {
            let key = other.key.as_text().unwrap_or_default();
            return Err(
                reader.refuse(other.at, format!("`{key}` stands beside `foreach`, expected it below `do`"))
            );
        }
        let items = foreach_items(reader, context, foreach)?;
        return items
            .into_iter()
            .map(|(suffix, local)| one(reader, local, format!("{name}@{suffix}"), &body.value))
            .collect();
    }
    if let Some(matrix) = find("matrix") {
        let items = matrix_items(reader, context, matrix)?;
        return items
            .into_iter()
            .map(|(suffix, local)| one(reader, local, format!("{name}@{suffix}"), &entry.value))
            .collect();
    }
    Ok(vec![one(reader, context.clone(), name.to_owned(), &entry.value)?])
}

/// A stage with the variables of its own filled in.
fn one(
    reader: &Reader,
    mut context: Context,
    name: String,
    node: &Node,
) -> Result<(String, Node), PipelineError> {
    let entries = reader.entries(node, "a stage's settings")?;
    let vars = entries.iter().find(|entry| entry.key.as_text() == Some("vars"));
    context.extend(reader, vars.map(|entry| &entry.value))?;
    let own = entries.iter().filter(|entry| !matches!(entry.key.as_text(), Some("vars" | "matrix")));
    let kind = Kind::Map(own.cloned().collect());
    Ok((name, context.fill(reader, &Node { at: node.at, kind })?))
}

fn foreach_items(
    reader: &Reader,
    context: &Context,
    foreach: &Entry,
) -> Result<Vec<(String, Context)>, PipelineError> {
    let node = context.fill(reader, &foreach.value)?;
    let with = |key: Option<&str>, item: Value| {
        let mut local = context.clone();
        if let Some(key) = key {
            local.set("key", Value::text(key));
        }
        local.set("item", item);
        local
    };
    match node.value() {
        Value::List(items) => items
            .into_iter()
            .enumerate()
            .map(|(number, item)| {
                let suffix = match &item {
                    Value::List(_) | Value::Map(_) => number.to_string(),
                    scalar => text(reader, "item", scalar, node.at)?,
                };
                Ok((suffix, with(None, item)))
            })
            .collect(),
        Value::Map(entries) => entries
            .into_iter()
            .map(|(key, item)| {
                let key = text(reader, "key", &key, node.at)?;
                Ok((key.clone(), with(Some(&key), item)))
            })
            .collect(),
        _ => Err(reader
            .refuse(node.at, format!("expected a list or mapping in `foreach`, got {}", node.describe()))),
    }
}

/// One of the combinations: the parts of its name, and the value chosen for each key.
type Combination = (Vec<String>, Vec<(Value, Value)>);

/// Every combination, the last name counting fastest.
fn matrix_items(
    reader: &Reader,
    context: &Context,
    matrix: &Entry,
) -> Result<Vec<(String, Context)>, PipelineError> {
    let node = context.fill(reader, &matrix.value)?;
    let mut combinations = vec![Combination::default()];
    for entry in reader.entries(&node, "lists in `matrix`")? {
        let name = entry.key.as_text().unwrap_or_default();
        let items = reader.items(Some(&entry.value), "values in `matrix`")?;
        let mut more = Vec::new();
        for (suffixes, chosen) in &combinations {
            for (number, item) in items.iter().enumerate() {
                let suffix = match item.value() {
                    Value::List(_) | Value::Map(_) => format!("{name}{number}"),
                    scalar => text(reader, name, &scalar, item.at)?,
                };
                let with = |list: &Vec<String>| list.iter().cloned().chain([suffix.clone()]).collect();
                let pair = (entry.key.clone(), item.value());
                more.push((with(suffixes), chosen.iter().cloned().chain([pair]).collect()));
            }
        }
        combinations = more;
    }
    Ok(combinations
        .into_iter()
        .map(|(suffixes, chosen)| {
            let mut local = context.clone();
            local.set("item", Value::Map(chosen));
            local.set("key", Value::text(suffixes.join("-")));
            (suffixes.join("-"), local)
        })
        .collect())
}
