//! What can be wrong with a configuration file, and where.

use std::{
    io,
    path::{Path, PathBuf},
};

use nephros_core::hint::Hint;
use serde_saphyr::Error as YamlError;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such file.
    #[error("`{path}` does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not YAML, or not the shape of this file.
    #[error("`{path}` line {line}, column {column}: {detail}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong, and the lines around it.
        detail: String,
    },
    /// A key that this file does not have.
    #[error("`{path}` line {line}, column {column}: expected one of {expected}, got unknown key `{key}`")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The key.
        key: String,
        /// All keys that may stand there.
        expected: String,
        /// The key that was probably meant.
        similar: Option<&'static str>,
    },
    /// A key without a default is not there.
    #[error("`{path}`: expected key `{key}`, got none")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A key that stands there twice.
    #[error("`{path}` line {line}, column {column}: expected `{key}` once, got it again")]
    DuplicateKey {
        /// The file.
        path: PathBuf,
        /// Line of the second, from 1.
        line: u64,
        /// Its column, from 1.
        column: u64,
        /// The key.
        key: String,
    },
    /// A value of the wrong type or out of range.
    #[error("`{path}`{}: {source}", line.map(|line| format!(" line {line}")).unwrap_or_default())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: Option<u64>,
        /// Key, expected and got.
        source: InvalidValue,
    },
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: expected {expected}, got {got}")]
pub struct InvalidValue {
    /// The key, as in the file.
    pub key: String,
    /// What may stand there.
    pub expected: String,
    /// What stands there.
    pub got: String,
    /// What to do about it.
    pub advice: Option<&'static str>,
}

impl InvalidValue {
    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts alike are given")]
    pub(super) fn new(key: &str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self { key: key.into(), expected: expected.into(), got: got.to_string(), advice: None }
    }

    pub(super) fn advise(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

impl Hint for InvalidValue {
    fn hint(&self) -> Option<String> {
        self.advice.map(str::to_owned)
    }
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("`nephros init` writes one, or name another with `--config` or `--params`".into())
            }
            Self::Io(_) => None,
            Self::Syntax { detail, .. } if detail.contains("tab") => Some("indent with spaces".into()),
            Self::Syntax { .. } => Some("the file is YAML 1.2: `KEY: value`, one a line".into()),
            Self::UnknownKey { similar, .. } => Some(match similar {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "remove it; `nephros init` writes a file with every key explained".into(),
            }),
            Self::MissingKey { key, .. } => {
                Some(format!("add a line `{key}: …`; `nephros init` shows an example"))
            }
            Self::DuplicateKey { .. } => Some("keep one of the two lines".into()),
            Self::Invalid { source, .. } => source.hint(),
        }
    }
}

impl ConfigError {
    /// What serde-saphyr says, in the words of this project.
    pub(super) fn from_yaml(path: &Path, text: &str, error: &YamlError) -> Self {
        let path = path.to_owned();
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        match error.without_snippet() {
            YamlError::SerdeUnknownField { field, expected, .. } => Self::UnknownKey {
                path,
                line,
                column,
                key: field.clone(),
                expected: code_list(expected),
                similar: most_similar(field, expected),
            },
            YamlError::SerdeMissingField { field, .. } => Self::MissingKey { path, key: field },
            YamlError::DuplicateMappingKey { key, .. } => {
                Self::DuplicateKey { path, line, column, key: key.clone().unwrap_or_default() }
            }
            inner => match expectation(inner).zip(key_and_value(text, line)) {
                Some((expected, (key, value))) => {
                    Self::Invalid { path, line: Some(line), source: InvalidValue::new(&key, expected, value) }
                }
                None => Self::Syntax { path, line, column, detail: detail(error, text) },
            },
        }
    }

    /// A value that breaks a rule; the line is that of the key.
    pub(super) fn from_value(path: &Path, text: &str, source: InvalidValue) -> Self {
        let line =
            (1..).zip(text.lines()).find(|(_, line)| is_key(line, &source.key)).map(|(number, _)| number);
        Self::Invalid { path: path.to_owned(), line, source }
    }
}

/// The parser's message, then its picture of the lines around.
fn detail(error: &YamlError, text: &str) -> String {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return "expected keys with values, got an empty file".into();
    }
    let rendered = error.render();
    // `error: line 3 column 11: message`, ` --> file:3:11`, picture.
    let (first, picture) = rendered.split_once('\n').unwrap_or((&rendered, ""));
    let message = first.trim_start_matches("error: ");
    let message = message
        .split_once(": ")
        .filter(|(place, _)| place.starts_with("line "))
        .map_or(message, |(_, rest)| rest);
    let picture: Vec<&str> = picture.lines().filter(|line| !line.trim_start().starts_with("--> ")).collect();
    format!("{message}\n{}", picture.join("\n")).trim_end().into()
}

/// What a value should have been, for errors about one value.
fn expectation(error: &YamlError) -> Option<String> {
    match error {
        YamlError::InvalidScalar { ty, .. } => Some(type_words(ty)),
        YamlError::SerdeInvalidType { expected, .. }
        | YamlError::SerdeInvalidValue { expected, .. }
        | YamlError::SerdeInvalidLength { expected, .. } => Some(type_words(expected)),
        YamlError::SerdeUnknownVariant { expected, .. } => Some(format!("one of {}", code_list(expected))),
        YamlError::InvalidBooleanStrict { .. } => Some("`True` or `False`".into()),
        YamlError::NullIntoString { .. } => Some("a text".into()),
        YamlError::Unexpected { expected, .. } => Some(type_words(expected)),
        _ => None,
    }
}

/// Rust's type names in a reader's words.
fn type_words(name: &str) -> String {
    match name.trim_start_matches("a ").trim_start_matches("an ") {
        "bool" | "boolean" => "`True` or `False`".into(),
        "usize" | "u64" | "u32" | "unsigned integer" => "a whole number, 0 or more".into(),
        "f64" | "f32" | "float" => "a number".into(),
        "string" => "a text".into(),
        "array of length 3" => "3 numbers such as `[224, 224, 3]`".into(),
        "sequence start" | "sequence" => "a list such as `[a, b]`".into(),
        other => other.into(),
    }
}

fn code_list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn is_key(line: &str, key: &str) -> bool {
    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// Key and value of a line `KEY: value  # comment`.
fn key_and_value(text: &str, line: u64) -> Option<(String, String)> {
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let (key, value) = line.split_once(':')?;
    let value = value.split(" #").next().unwrap_or_default().trim();
    let key = key.trim();
    let got = if value.is_empty() { "nothing".into() } else { format!("`{value}`") };
    (!key.is_empty() && !key.starts_with(['#', '-'])).then(|| (key.into(), got))
}

/// The candidate within a third of its letters of `key`, by Levenshtein distance without case.
fn most_similar(key: &str, candidates: &[&'static str]) -> Option<&'static str> {
    let distance = |candidate: &str| edit_distance(&key.to_lowercase(), &candidate.to_lowercase());
    let nearest = candidates.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(nearest) * 3 <= nearest.len()).then_some(nearest)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("epoch", "epochs"), 1); // one letter added
        assert_eq!(edit_distance("kitten", "sitting"), 3); // k to s, e to i, g added
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn only_near_keys_are_suggested() {
        assert_eq!(most_similar("EPOCH", &["EPOCHS", "CLASSES"]), Some("EPOCHS"));
        assert_eq!(most_similar("epochs", &["EPOCHS", "CLASSES"]), Some("EPOCHS"));
        assert_eq!(most_similar("DROPOUT", &["EPOCHS", "CLASSES"]), None);
    }
}
