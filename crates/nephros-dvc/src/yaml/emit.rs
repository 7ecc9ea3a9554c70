//! Values to text in the form that DVC gives its files, so that the two rewrite each other's without
//! a difference that a reader of the history would have to look at.

use std::fmt::Write as _;

use super::{Value, scalar};

/// Columns after which words move to the next line.
const WIDTH: usize = 80;

/// A document in block style, two spaces a level.
pub fn dump(value: &Value) -> String {
    let mut writer = Writer::default();
    match value {
        Value::Map(entries) if !entries.is_empty() => writer.map(entries, 0, false),
        Value::List(items) if !items.is_empty() => writer.list(items, 0, false),
        _ => {
            writer.inline(value, 2);
            writer.line_break();
        }
    }
    writer.out
}

#[derive(Default)]
struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn line_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn indent(&mut self, columns: usize) {
        self.put(&" ".repeat(columns - self.column));
    }

    /// Entries at `indent`; the first one goes on where the line is.
    fn map(&mut self, entries: &[(Value, Value)], indent: usize, started: bool) {
        for (number, (key, value)) in entries.iter().enumerate() {
            if number > 0 || !started {
                self.indent(indent);
            }
            self.key(key);
            self.put(":");
            match value {
                Value::Map(inner) if !inner.is_empty() => {
                    self.line_break();
                    self.map(inner, indent + 2, false);
                }
                // A list in a mapping stands below its key without an indent.
                Value::List(items) if !items.is_empty() => {
                    self.line_break();
                    self.list(items, indent, false);
                }
                _ => {
                    self.inline(value, indent + 2);
                    self.line_break();
                }
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize, started: bool) {
        for (number, item) in items.iter().enumerate() {
            if number > 0 || !started {
                self.indent(indent);
            }
            self.put("-");
            match item {
                Value::Map(entries) if !entries.is_empty() => {
                    self.put(" ");
                    self.map(entries, indent + 2, true);
                }
                Value::List(inner) if !inner.is_empty() => {
                    self.put(" ");
                    self.list(inner, indent + 2, true);
                }
                _ => {
                    self.inline(item, indent + 2);
                    self.line_break();
                }
            }
        }
    }

    fn key(&mut self, key: &Value) {
        match key {
            Value::Text(text) => match style(text) {
                Style::Plain => self.put(text),
                Style::Single => self.put(&format!("'{text}'")),
                Style::Double => self.put(&double_quoted(text)),
            },
            other => self.put(&atom(other)),
        }
    }

    /// A scalar or an empty collection after a space; `indent` is that of its further lines.
    fn inline(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Text(text) => match style(text) {
                Style::Plain => self.plain(text, indent),
                Style::Single => self.single_quoted(text, indent),
                Style::Double => self.put(&format!(" {}", double_quoted(text))),
            },
            Value::Null => {}
            other => self.put(&format!(" {}", atom(other))),
        }
    }

    fn plain(&mut self, text: &str, indent: usize) {
        self.put(" ");
        let words: Vec<&str> = text.split(' ').collect();
        for (number, word) in words.iter().enumerate() {
            if number > 0 {
                let single = !word.is_empty() && !words[number - 1].is_empty();
                // A break stands for a single space.
                if single && self.column >= WIDTH {
                    self.line_break();
                    self.indent(indent);
                } else {
                    self.put(" ");
                }
            }
            // A word that is too long for the rest of the line gets the next one, and leaves its space.
            if word.chars().count() + self.column > WIDTH && self.column > indent {
                self.line_break();
                self.indent(indent);
            }
            self.put(word);
        }
    }

    fn single_quoted(&mut self, text: &str, indent: usize) {
        self.put(" '");
        let words: Vec<&str> = text.split(' ').collect();
        for (number, word) in words.iter().enumerate() {
            if number > 0 {
                let single = !word.is_empty() && !words[number - 1].is_empty();
                if single && self.column > WIDTH {
                    self.line_break();
                    self.indent(indent);
                } else {
                    self.put(" ");
                }
            }
            self.put(word);
        }
        self.put("'");
    }
}

/// A scalar that is no string, or an empty collection.
fn atom(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if value.is_nan() => ".nan".into(),
        Value::Float(value) if value.is_infinite() => if *value > 0.0 { ".inf" } else { "-.inf" }.into(),
        Value::Float(value) => python_float(*value),
        Value::Text(text) | Value::Stamp(text) => text.clone(),
        Value::List(_) => "[]".into(),
        Value::Map(_) => "{}".into(),
    }
}

/// A finite float as Python's `repr` writes it: the fewest digits that give it back.
pub fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value:?}")
}

enum Style {
    Plain,
    Single,
    Double,
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn style(text: &str) -> Style {
    let special = |character: char| {
        !matches!(character, '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
            || character == '\u{feff}'
    };
    if text.contains(special) || text.contains(['\'', '\n']) && !is_plain(text) {
        return Style::Double;
    }
    if is_plain(text) {
        return Style::Plain;
    }
    // Other breaks than a line feed are rare enough to be always escaped.
    if text.contains(is_break) { Style::Double } else { Style::Single }
}

fn is_plain(text: &str) -> bool {
    let space_after = |index: usize| text[index..].chars().nth(1).is_none_or(|next| " \t\r\n".contains(next));
    let first = text.chars().next().unwrap_or(' ');
    let leading = ",[]{}#&*!|>'\"%@`".contains(first) || "?:-".contains(first) && space_after(0);
    let inner = text.char_indices().any(|(index, character)| {
        index > 0
            && (character == ':' && space_after(index)
                || character == '#' && text[..index].ends_with([' ', '\t', '\r', '\n']))
    });
    let spaced = text.starts_with(' ') || text.ends_with(' ');
    let document = text.starts_with("---") || text.starts_with("...");
    !(leading || inner || spaced || document || text.contains(is_break) || scalar::is_ambiguous(text))
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        let escape = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\0' => "\\0",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\u{b}' => "\\v",
            '\u{c}' => "\\f",
            '\r' => "\\r",
            '\u{1b}' => "\\e",
            '\u{85}' => "\\N",
            '\u{a0}' => "\\_",
            '\u{2028}' => "\\L",
            '\u{2029}' => "\\P",
            '\u{7f}'..='\u{9f}' | '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\x{:02X}", u32::from(character));
                continue;
            }
            '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(character));
                continue;
            }
            _ => {
                quoted.push(character);
                continue;
            }
        };
        quoted.push_str(escape);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::parse;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.01, "0.01"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1.5e300, "1.5e+300"),
            (0.0, "0.0"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(python_float(value), expected);
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z:#'\" \\-\n\té漢]{0,12}",
            "[a-z]{1,12}( [a-z'/.]{1,14}){0,16}",
            Just("yes".to_owned()),
            Just("1.0".to_owned()),
            Just("null".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|value| Value::Int(value.into())),
            (-1e20..1e20).prop_map(Value::Float),
            text.prop_map(Value::Text),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map("[a-z #:.\\-]{1,8}", inner, 0..4).prop_map(|entries| {
                    Value::Map(entries.into_iter().map(|(key, value)| (Value::Text(key), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(value in values()) {
            let text = dump(&value);
            let read = parse(&text).map(|node| node.value());
            prop_assert_eq!(read.as_ref(), Ok(&value), "{}", text);
        }
    }
}
