//! Values of parameters.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    pipeline::ParamsOf,
    yaml::{self, Value, YamlError},
};

/// Parameters of one file by key.
pub type Values = Vec<(String, Value)>;

/// Why a file of parameters is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// A format that is not read.
    #[error("`{path}`: parameters in `.{extension}` files are not supported, expected YAML or JSON")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its ending.
        extension: String,
    },
    /// No YAML.
    #[error("`{path}`:{source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: YamlError,
    },
    /// No keys.
    #[error("`{path}`: expected a mapping of parameters")]
    NoMapping {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ParamsError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Format { .. } => Some("write the parameters as YAML, or name the file in `deps`".into()),
            Self::Yaml { .. } | Self::NoMapping { .. } | Self::Io(_) => None,
        }
    }
}

/// The values that a stage reads of a file, those that are there; `None` if the file is not.
///
/// # Errors
/// See [`ParamsError`].
pub fn read(root: &Path, params: &ParamsOf) -> Result<Option<Values>, ParamsError> {
    let path = params.place.in_root(root);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if matches!(extension, "toml" | "py") {
        return Err(ParamsError::Format { extension: extension.into(), path });
    }
    let text = match fs_err::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let node = yaml::parse(&text).map_err(|source| ParamsError::Yaml { path: path.clone(), source })?;
    let file = match node.value() {
        Value::Null => Value::Map(Vec::new()),
        value @ Value::Map(_) => value,
        _ => return Err(ParamsError::NoMapping { path }),
    };
    if params.keys.is_empty() {
        let Value::Map(entries) = file else { return Ok(Some(Vec::new())) };
        let entries = entries.into_iter().filter_map(|(key, value)| Some((key.as_text()?.to_owned(), value)));
        return Ok(Some(entries.collect()));
    }
    let found = |key: &String| Some((key.clone(), find(&file, key)?.clone()));
    Ok(Some(params.keys.iter().filter_map(found).collect()))
}

/// What `a.b.0` stands for.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(value, |value, part| match value {
        Value::List(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}
