//! One log line: `[2025-10-25 10:30:15,123: INFO: common]: Configuration loaded successfully`, or
//! the same as a JSON object.

use std::fmt::{self, Write as _};

use jiff::Zoned;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::cli::LogFormat;

/// Formats an event as one line.
#[derive(Debug, Clone, Copy)]
pub struct Line(pub LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = level_name(*metadata.level());
        let module = module(metadata.target());
        let line = match self.0 {
            LogFormat::Text => text_line(&Zoned::now(), level, module, &fields),
            LogFormat::Json => json_line(&Zoned::now(), level, module, fields),
        };
        writeln!(writer, "{line}")
    }
}

/// Message and other fields of an event, in the order given.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
}

fn text_line(time: &Zoned, level: &str, module: &str, fields: &Fields) -> String {
    let mut line = format!("[{}: {level}: {module}]: ", time.strftime("%Y-%m-%d %H:%M:%S,%3f"));
    push_escaped(&mut line, &fields.message);
    for (name, value) in &fields.others {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        // Writing to a String cannot fail.
        let _ = write!(line, " {name}=");
        push_escaped(&mut line, &value);
    }
    line
}

fn json_line(time: &Zoned, level: &str, module: &str, fields: Fields) -> String {
    let mut object = Map::new();
    object.insert("time".into(), time.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string().into());
    object.insert("level".into(), level.into());
    object.insert("module".into(), module.into());
    object.insert("message".into(), fields.message.into());
    if !fields.others.is_empty() {
        object.insert("fields".into(), Value::Object(fields.others));
    }
    Value::Object(object).to_string()
}

/// An event stays on its line: what a stranger named a file must not forge a second one.
fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

/// Names of the levels as Python's logging has them.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn module(target: &str) -> &str {
    target.rsplit("::").next().unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_past_ten() -> Zoned {
        "2025-10-25T10:30:15.123456+02:00[+02:00]".parse().unwrap()
    }

    #[test]
    fn the_line_is_the_references() {
        let fields = Fields { message: "Configuration loaded successfully".into(), others: Map::new() };
        assert_eq!(
            text_line(&half_past_ten(), level_name(Level::INFO), module("nephros_train::common"), &fields),
            "[2025-10-25 10:30:15,123: INFO: common]: Configuration loaded successfully"
        );
    }

    #[test]
    fn fields_follow_the_message_and_control_characters_are_escaped() {
        let mut fields = Fields { message: "read\n[forged]".into(), others: Map::new() };
        fields.others.insert("images".into(), Value::from(3));
        fields.others.insert("name".into(), Value::from("a\u{1b}b"));
        assert_eq!(
            text_line(&half_past_ten(), "WARNING", "ingest", &fields),
            r"[2025-10-25 10:30:15,123: WARNING: ingest]: read\n[forged] images=3 name=a\u{1b}b"
        );
    }

    #[test]
    fn json_keeps_types() {
        let mut fields = Fields { message: "epoch".into(), others: Map::new() };
        fields.others.insert("loss".into(), Value::from(0.5));
        assert_eq!(
            json_line(&half_past_ten(), "INFO", "train", fields),
            r#"{"time":"2025-10-25T10:30:15.123+02:00","level":"INFO","module":"train","message":"epoch","fields":{"loss":0.5}}"#
        );
    }
}
