//! YAML as DVC reads and writes it: version 1.2 by the rules of `ruamel.yaml`, whose scalars decide
//! whether a parameter has changed.

mod emit;
mod parse;
mod scalar;

pub use emit::{dump, python_float};
pub use parse::{Entry, Kind, Mark, Node, YamlError, parse};

/// A value without its place in a file.
#[derive(Debug, Clone)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A date or time, as it is written.
    Stamp(String),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping in the order of its file; keys are scalars.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A mapping with text keys.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (Self::text(key), value)).collect())
    }

    /// What a mapping holds under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, if it is one that fits.
    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Int(number) = self { u64::try_from(*number).ok() } else { None }
    }

    /// The number that Python would compare it as.
    fn number(&self) -> Option<Number> {
        match self {
            Self::Bool(value) => Some(Number::Int(i128::from(*value))),
            Self::Int(value) => Some(Number::Int(*value)),
            Self::Float(value) => Some(Number::Float(*value)),
            _ => None,
        }
    }
}

enum Number {
    Int(i128),
    Float(f64),
}

/// Equal as in Python, which is what DVC compares parameters by: `1`, `1.0` and `true` are, mappings
/// are whatever their order, and a NaN equals nothing.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Text(left), Self::Text(right)) | (Self::Stamp(left), Self::Stamp(right)) => left == right,
            (Self::List(left), Self::List(right)) => left == right,
            (Self::Map(left), Self::Map(right)) => {
                left.len() == right.len()
                    && left.iter().all(|(key, value)| {
                        right.iter().any(|(other_key, other)| key == other_key && value == other)
                    })
            }
            _ => match (self.number(), other.number()) {
                (Some(Number::Int(left)), Some(Number::Int(right))) => left == right,
                (Some(Number::Float(left)), Some(Number::Float(right))) => left == right,
                (Some(Number::Int(whole)), Some(Number::Float(float)))
                | (Some(Number::Float(float)), Some(Number::Int(whole))) => {
                    float.fract() == 0.0 && float.abs() < 1e38 && float as i128 == whole
                }
                _ => false,
            },
        }
    }
}
