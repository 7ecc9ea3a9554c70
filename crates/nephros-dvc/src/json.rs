//! JSON as Python's `json.dumps` writes it: `, ` and `: ` between, everything but ASCII escaped.

use crate::yaml::{Value, python_float};

/// A string in quotes.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for unit in text.encode_utf16() {
        match unit {
            0x22 => out.extend(b"\\\""),
            0x5c => out.extend(b"\\\\"),
            0x0a => out.extend(b"\\n"),
            0x0d => out.extend(b"\\r"),
            0x09 => out.extend(b"\\t"),
            0x08 => out.extend(b"\\b"),
            0x0c => out.extend(b"\\f"),
            0x20..=0x7e => out.push(unit as u8),
            // A delete is plain ASCII to Python.
            0x7f => out.push(0x7f),
            _ => out.extend(format!("\\u{unit:04x}").bytes()),
        }
    }
    out.push(b'"');
}

/// A value with sorted keys; `None` where Python refuses to write it, which is a date.
pub fn sorted(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(&mut out, value)?;
    Some(out)
}

fn write(out: &mut Vec<u8>, value: &Value) -> Option<()> {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(value) => out.extend(value.to_string().bytes()),
        Value::Int(value) => out.extend(value.to_string().bytes()),
        Value::Float(value) if value.is_nan() => out.extend(b"NaN"),
        Value::Float(value) if value.is_infinite() => {
            out.extend(if *value > 0.0 { &b"Infinity"[..] } else { &b"-Infinity"[..] });
        }
        Value::Float(value) => out.extend(python_float(*value).bytes()),
        Value::Text(text) => write_text(out, text),
        Value::Stamp(_) => return None,
        Value::List(items) => {
            out.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.extend(b", ");
                }
                write(out, item)?;
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            let mut sorted = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                // Python cannot sort keys of several kinds, and such a parameter has none here either.
                sorted.push((key.as_text()?, value));
            }
            sorted.sort_by_key(|(key, _)| *key);
            out.push(b'{');
            for (number, (key, value)) in sorted.into_iter().enumerate() {
                if number > 0 {
                    out.extend(b", ");
                }
                write_text(out, key);
                out.extend(b": ");
                write(out, value)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}
