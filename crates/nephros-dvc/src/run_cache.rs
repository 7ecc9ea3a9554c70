//! `.dvc/cache/runs`: what stages left for what they read, however long ago.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use crate::{
    cache::Cache,
    files, json,
    lock::StageLock,
    pipeline::Stage,
    yaml::{self, Value},
};

/// Whether DVC remembers runs of a stage.
pub fn remembers(stage: &Stage) -> bool {
    let reads = !stage.deps.is_empty() || !stage.params.is_empty();
    !stage.always_changed && reads && !stage.outs.is_empty() && !stage.outs.iter().any(|out| out.persist)
}

/// The newest run of a stage that read the same; `recorded` needs the paths of its outs only.
pub fn find(runs: &Path, recorded: &StageLock) -> Option<StageLock> {
    let folder = folder(runs, &key(recorded)?);
    let modified = |path: &PathBuf| {
        fs_err::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let entries = fs_err::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let finished =
        |path: &PathBuf| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let newest = entries.filter(finished).max_by_key(modified)?;
    let node = yaml::parse(&fs_err::read_to_string(newest).ok()?).ok()?;
    StageLock::from_node(&node).ok()
}

/// Remembers a run.
///
/// # Errors
/// It cannot be written.
pub fn save(cache: &Cache, recorded: &StageLock) -> io::Result<()> {
    let (Some(key), Some(value)) = (key(recorded), digest(&without_sizes(&recorded.to_value()))) else {
        return Ok(());
    };
    let folder = folder(&cache.runs(), &key);
    let path = folder.join(value);
    if path.is_file() {
        return Ok(());
    }
    cache.make_folder(&folder)?;
    files::write_atomic(&path, yaml::dump(&recorded.to_value()).as_bytes())
}

fn folder(runs: &Path, key: &str) -> PathBuf {
    runs.join(&key[..2]).join(key)
}

/// SHA-256 of what was run and read, and of where it left something.
fn key(recorded: &StageLock) -> Option<String> {
    let Value::Map(mut entries) = without_sizes(&recorded.to_value()) else { return None };
    let mut paths: Vec<&str> = recorded.outs.iter().map(|item| item.path.as_str()).collect();
    paths.sort_unstable();
    let paths = Value::List(paths.into_iter().map(Value::text).collect());
    entries.retain(|(key, _)| key.as_text() != Some("outs"));
    entries.push((Value::text("outs"), paths));
    digest(&Value::Map(entries))
}

fn digest(value: &Value) -> Option<String> {
    let mut text = String::new();
    for byte in Sha256::digest(json::sorted(value)?) {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

/// DVC leaves `size` and `nfiles` out of the hash, and parameters of these names too.
fn without_sizes(value: &Value) -> Value {
    match value {
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .filter(|(key, _)| !matches!(key.as_text(), Some("size" | "nfiles")))
                .map(|(key, value)| (key.clone(), without_sizes(value)))
                .collect(),
        ),
        Value::List(items) => Value::List(items.iter().map(without_sizes).collect()),
        other => other.clone(),
    }
}
