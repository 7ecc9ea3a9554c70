//! `dvc.lock`: what each stage read and left when it last ran.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    digest::{Algorithm, Oid},
    files,
    measure::Content,
    params::Values,
    pipeline::{Cmd, PARAMS_FILE},
    yaml::{self, Entry, Kind, Mark, Node, Value, YamlError},
};

/// Name of the file, beside its `dvc.yaml`.
pub const LOCK_FILE: &str = "dvc.lock";
/// The only version of the format since DVC 2.
const SCHEMA: &str = "2.0";
/// Keys of a file or folder. Those of data that only a cloud has are not supported.
const ITEM_KEYS: [&str; 6] = ["path", "hash", "md5", "size", "nfiles", "isexec"];

/// The file.
#[derive(Debug, Clone)]
pub struct Lock {
    path: PathBuf,
    /// Everything but the stages, in its order.
    head: Vec<(Value, Value)>,
    stages: Vec<(String, StageLock)>,
}

/// A stage as it last ran.
#[derive(Debug, Clone, PartialEq)]
pub struct StageLock {
    /// What was run, a string or a list.
    pub cmd: Value,
    /// What was read.
    pub deps: Vec<Item>,
    /// Parameters that were read, by file.
    pub params: Vec<(String, Values)>,
    /// What was left.
    pub outs: Vec<Item>,
}

/// A file or folder as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// As the stage names it.
    pub path: String,
    /// Its object; `None` where the lock has no hash.
    pub oid: Option<Oid>,
    /// How it was hashed.
    pub algorithm: Algorithm,
    /// Bytes.
    pub size: Option<u64>,
    /// Files of a folder.
    pub nfiles: Option<u64>,
    /// Whether it is a file that can be run.
    pub is_exec: bool,
}

/// Why a `dvc.lock` is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// No YAML.
    #[error("`{path}`:{source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: YamlError,
    },
    /// Another version of the format.
    #[error("`{path}`: expected schema '{SCHEMA}', got {got}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What stands there.
        got: String,
    },
    /// Something that DVC does not write.
    #[error("`{path}`:{at}: {what}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Line and column.
        at: Mark,
        /// What is wrong there.
        what: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LockError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        let again = "or delete the file: stages whose results are in the cache are not run again";
        match self {
            Self::Yaml { .. } | Self::Refused { .. } => {
                Some(format!("take the file from version control, {again}"))
            }
            Self::Schema { .. } => {
                Some(format!("`dvc` of the version that wrote it can migrate it; {again}"))
            }
            Self::Io(_) => None,
        }
    }
}

impl Item {
    /// Of what a path holds.
    pub fn of(path: &str, content: &Content) -> Self {
        Self {
            path: path.to_owned(),
            oid: Some(content.oid),
            algorithm: content.algorithm,
            size: Some(content.size),
            nfiles: content.tree.as_ref().map(|tree| tree.files().len() as u64),
            is_exec: content.is_exec,
        }
    }

    fn to_value(&self) -> Value {
        let mut entries = vec![("path", Value::text(&self.path))];
        if self.algorithm == Algorithm::Md5 && self.oid.is_some() {
            entries.push(("hash", Value::text("md5")));
        }
        entries.extend(self.oid.map(|oid| ("md5", Value::text(oid.to_string()))));
        entries.extend(self.size.map(|size| ("size", Value::Int(size.into()))));
        entries.extend(self.nfiles.map(|count| ("nfiles", Value::Int(count.into()))));
        if self.is_exec {
            entries.push(("isexec", Value::Bool(true)));
        }
        Value::map(entries)
    }
}

impl StageLock {
    /// What was left under a path.
    pub fn out(&self, path: &str) -> Option<&Item> {
        self.outs.iter().find(|item| item.path == path)
    }

    /// What was read under a path.
    pub fn dep(&self, path: &str) -> Option<&Item> {
        self.deps.iter().find(|item| item.path == path)
    }

    /// Parameters of a file.
    pub fn params(&self, path: &str) -> Option<&Values> {
        self.params.iter().find(|(file, _)| file == path).map(|(_, values)| values)
    }

    /// As DVC writes it: everything sorted, `params.yaml` first among the files of parameters.
    pub fn to_value(&self) -> Value {
        let items = |items: &[Item]| {
            let mut items: Vec<&Item> = items.iter().collect();
            items.sort_by(|left, right| left.path.cmp(&right.path));
            Value::List(items.into_iter().map(Item::to_value).collect())
        };
        let mut entries = vec![("cmd", self.cmd.clone())];
        if !self.deps.is_empty() {
            entries.push(("deps", items(&self.deps)));
        }
        if !self.params.is_empty() {
            let mut files: Vec<_> = self.params.iter().collect();
            files.sort_by_key(|(path, _)| (path != PARAMS_FILE, path));
            let file = |(path, values): &(String, Values)| {
                let mut values = values.clone();
                values.sort_by(|left, right| left.0.cmp(&right.0));
                let values = values.into_iter().map(|(key, value)| (Value::Text(key), value)).collect();
                (Value::text(path), Value::Map(values))
            };
            entries.push(("params", Value::Map(files.into_iter().map(file).collect())));
        }
        if !self.outs.is_empty() {
            entries.push(("outs", items(&self.outs)));
        }
        Value::map(entries)
    }

    /// Reads what [`StageLock::to_value`] gives; entries of the run cache have this form too.
    ///
    /// # Errors
    /// Where it is not what DVC writes, and what is wrong.
    pub fn from_node(node: &Node) -> Result<Self, (Mark, String)> {
        let mut stage = Self { cmd: Value::Null, deps: Vec::new(), params: Vec::new(), outs: Vec::new() };
        for entry in entries(node)? {
            match entry.key.as_text() {
                Some("cmd") => stage.cmd = entry.value.value(),
                Some("deps") => stage.deps = items(&entry.value)?,
                Some("outs") => stage.outs = items(&entry.value)?,
                Some("params") => {
                    for file in entries(&entry.value)? {
                        let values = entries(&file.value)?.iter();
                        let values =
                            values.map(|entry| Ok((text(&entry.key, entry.at)?, entry.value.value())));
                        stage.params.push((text(&file.key, file.at)?, values.collect::<Result<_, _>>()?));
                    }
                }
                _ => return Err((entry.at, format!("unknown key `{}`", name(&entry.key)))),
            }
        }
        match stage.cmd {
            Value::Text(_) | Value::List(_) => Ok(stage),
            _ => Err((node.at, "the stage has no `cmd`".into())),
        }
    }
}

impl From<&Cmd> for Value {
    fn from(cmd: &Cmd) -> Self {
        match cmd {
            Cmd::One(line) => Self::text(line),
            Cmd::Many(lines) => Self::List(lines.iter().map(Self::text).collect()),
        }
    }
}

fn name(key: &Value) -> &str {
    key.as_text().unwrap_or("?")
}

fn text(key: &Value, at: Mark) -> Result<String, (Mark, String)> {
    key.as_text().map(str::to_owned).ok_or_else(|| (at, "expected a string".into()))
}

fn entries(node: &Node) -> Result<&[Entry], (Mark, String)> {
    match &node.kind {
        Kind::Map(entries) => Ok(entries),
        _ => Err((node.at, format!("expected a mapping, got {}", node.describe()))),
    }
}

fn items(node: &Node) -> Result<Vec<Item>, (Mark, String)> {
    match &node.kind {
        Kind::List(items) => items.iter().map(item).collect(),
        _ => Err((node.at, format!("expected a list, got {}", node.describe()))),
    }
}

fn item(node: &Node) -> Result<Item, (Mark, String)> {
    let entries = entries(node)?;
    if let Some(entry) = entries.iter().find(|entry| !ITEM_KEYS.contains(&name(&entry.key))) {
        return Err((entry.at, format!("unknown key `{}`", name(&entry.key))));
    }
    let find = |key: &str| entries.iter().find(|entry| entry.key.as_text() == Some(key));
    let Some(path) = find("path") else { return Err((node.at, "expected a `path`".into())) };
    let path = text(&path.value.value(), path.value.at)?;
    let algorithm = match find("hash") {
        None => Algorithm::Dos2Unix,
        Some(entry) if entry.value.value().as_text() == Some("md5") => Algorithm::Md5,
        Some(entry) => return Err((entry.value.at, "expected the hash `md5`".into())),
    };
    let oid = match find("md5") {
        Some(entry) if !entry.value.is_null() => {
            let text = text(&entry.value.value(), entry.value.at)?;
            Some(text.parse().map_err(|what| (entry.value.at, what))?)
        }
        _ => None,
    };
    let number = |key: &str| match find(key) {
        None => Ok(None),
        Some(entry) => match entry.value.value().as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err((entry.value.at, format!("`{key}` is no number of bytes or files"))),
        },
    };
    let is_exec = find("isexec").is_some_and(|entry| entry.value.value() == Value::Bool(true));
    Ok(Item { path, oid, algorithm, size: number("size")?, nfiles: number("nfiles")?, is_exec })
}

impl Lock {
    /// Reads a lock; one that is not there has no stages.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn load(path: &Path) -> Result<Self, LockError> {
        match fs_err::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let head = vec![(Value::text("schema"), Value::text(SCHEMA))];
                Ok(Self { path: path.into(), head, stages: Vec::new() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, LockError> {
        let node = yaml::parse(text).map_err(|source| LockError::Yaml { path: path.into(), source })?;
        let refused = |(at, what)| LockError::Refused { path: path.into(), at, what };
        let mut lock = Self { path: path.into(), head: Vec::new(), stages: Vec::new() };
        let mut schema = "none".to_owned();
        for entry in entries(&node).map_err(refused)? {
            match entry.key.as_text() {
                Some("stages") => {
                    for stage in entries(&entry.value).map_err(refused)? {
                        let read = StageLock::from_node(&stage.value).map_err(refused)?;
                        lock.stages.push((name(&stage.key).to_owned(), read));
                    }
                }
                Some("schema") => {
                    schema = match entry.value.value() {
                        Value::Text(text) => format!("'{text}'"),
                        Value::Float(number) => format!("the number {number:?}"),
                        _ => entry.value.describe().to_owned(),
                    };
                    lock.head.push((entry.key.clone(), entry.value.value()));
                }
                Some("datasets") => lock.head.push((entry.key.clone(), entry.value.value())),
                // Without a schema this is the format of DVC 1, whose keys are stages.
                _ if schema == "none" => break,
                _ => return Err(refused((entry.at, format!("unknown key `{}`", name(&entry.key))))),
            }
        }
        if schema != format!("'{SCHEMA}'") {
            return Err(LockError::Schema { path: path.into(), got: schema });
        }
        Ok(lock)
    }

    /// What is known of a stage.
    pub fn stage(&self, name: &str) -> Option<&StageLock> {
        self.stages.iter().find(|(there, _)| there == name).map(|(_, stage)| stage)
    }

    /// Replaces what is known of a stage and writes the file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written; it is then as it was.
    pub fn record(&mut self, name: &str, stage: StageLock) -> Result<(), LockError> {
        match self.stages.iter_mut().find(|(there, _)| there == name) {
            Some((_, there)) if *there == stage => return Ok(()),
            Some((_, there)) => *there = stage,
            None => self.stages.push((name.to_owned(), stage)),
        }
        let stages = self.stages.iter().map(|(name, stage)| (Value::text(name), stage.to_value())).collect();
        let mut document = self.head.clone();
        document.push((Value::text("stages"), Value::Map(stages)));
        Ok(files::write_atomic(&self.path, yaml::dump(&Value::Map(document)).as_bytes())?)
    }
}
