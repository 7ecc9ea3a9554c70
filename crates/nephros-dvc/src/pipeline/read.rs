//! From YAML to stages; what is not known is refused by name, with its line and column.

use std::path::Path;

use super::{
    Cmd, Dep, Out, OutKind, PARAMS_FILE, ParamsOf, PipelineError, Stage,
    template::{self, Context},
};
use crate::{
    place::RepoPath,
    yaml::{self, Entry, Kind, Mark, Node, Value},
};

/// Keys of the whole file; all but the first two are read by other tools.
const FILE_KEYS: [&str; 7] = ["stages", "vars", "params", "metrics", "plots", "artifacts", "datasets"];
const STAGE_KEYS: [&str; 11] =
    ["cmd", "wdir", "deps", "params", "outs", "metrics", "plots", "frozen", "always_changed", "desc", "meta"];
const OUT_KEYS: [&str; 8] = ["cache", "persist", "desc", "type", "labels", "meta", "remote", "push"];
const PLOT_KEYS: [&str; 7] = ["x", "y", "x_label", "y_label", "title", "template", "header"];

/// Where reading takes place, for paths and messages.
pub(super) struct Reader<'a> {
    pub(super) root: &'a Path,
    pub(super) folder: &'a RepoPath,
    file: &'a Path,
}

/// All stages of the text of a `dvc.yaml`.
pub(super) fn stages(
    root: &Path,
    folder: &RepoPath,
    file: &Path,
    text: &str,
) -> Result<Vec<Stage>, PipelineError> {
    let reader = Reader { root, folder, file };
    let node = yaml::parse(text).map_err(|source| PipelineError::Yaml { path: file.into(), source })?;
    let entries = reader.entries(&node, "stages and their settings")?;
    reader.only(entries, &FILE_KEYS, "`dvc.yaml`")?;
    let vars = entries.iter().find(|entry| entry.key.as_text() == Some("vars"));
    let context = Context::of_file(&reader, vars.map(|entry| &entry.value))?;
    let mut stages = Vec::new();
    if let Some(entry) = entries.iter().find(|entry| entry.key.as_text() == Some("stages")) {
        for entry in reader.entries(&entry.value, "stages by name")? {
            let name = reader.name(entry)?;
            for (name, node) in template::expand(&reader, &context, name, entry)? {
                stages.push(reader.stage(name, entry.at, &node)?);
            }
        }
    }
    Ok(stages)
}

impl Reader<'_> {
    pub(super) fn refuse(&self, at: Mark, what: impl Into<String>) -> PipelineError {
        PipelineError::Refused { path: self.file.into(), at, what: what.into(), hint: None }
    }

    pub(super) fn refuse_with(&self, at: Mark, what: impl Into<String>, hint: &str) -> PipelineError {
        PipelineError::Refused { path: self.file.into(), at, what: what.into(), hint: Some(hint.into()) }
    }

    pub(super) fn entries<'n>(&self, node: &'n Node, what: &str) -> Result<&'n [Entry], PipelineError> {
        match &node.kind {
            Kind::Map(entries) => Ok(entries),
            _ if node.is_null() => Ok(&[]),
            _ => Err(self.refuse(node.at, format!("expected a mapping of {what}, got {}", node.describe()))),
        }
    }

    fn only(&self, entries: &[Entry], known: &[&str], of: &str) -> Result<(), PipelineError> {
        for entry in entries {
            let key = entry.key.as_text().unwrap_or_default();
            if !known.contains(&key) {
                let hint = format!("{of} takes {}", known.join(", "));
                return Err(self.refuse_with(entry.at, format!("unknown key `{key}` in {of}"), &hint));
            }
        }
        Ok(())
    }

    fn name<'n>(&self, entry: &'n Entry) -> Result<&'n str, PipelineError> {
        let name = entry.key.as_text().unwrap_or_default();
        let allowed = |character: char| !character.is_ascii_punctuation() || matches!(character, '_' | '-');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(self.refuse_with(
                entry.at,
                format!("`{name}` cannot be the name of a stage"),
                "letters, digits, `_` and `-` can be in one",
            ));
        }
        Ok(name)
    }

    fn stage(&self, name: String, at: Mark, node: &Node) -> Result<Stage, PipelineError> {
        let entries = self.entries(node, "a stage's settings")?;
        self.only(entries, &STAGE_KEYS, "a stage")?;
        let find = |key: &str| {
            entries.iter().find(|entry| entry.key.as_text() == Some(key)).map(|entry| &entry.value)
        };
        let Some(cmd) = find("cmd") else {
            return Err(self.refuse(at, format!("stage `{name}` has no `cmd`")));
        };
        let cmd = self.cmd(cmd)?;
        let wdir = match find("wdir") {
            Some(node) => self.place(self.folder, self.text(node, "a folder")?, node.at, "wdir")?,
            None => self.folder.clone(),
        };
        let mut stage = Stage {
            name,
            at,
            cmd,
            wdir,
            deps: Vec::new(),
            params: Vec::new(),
            outs: Vec::new(),
            frozen: self.flag(find("frozen"))?,
            always_changed: self.flag(find("always_changed"))?,
            desc: find("desc").and_then(|node| node.value().as_text().map(str::to_owned)),
        };
        self.deps(&mut stage, find("deps"))?;
        self.params(&mut stage, find("params"))?;
        for (key, kind) in [("outs", OutKind::Out), ("metrics", OutKind::Metric), ("plots", OutKind::Plot)] {
            self.outs(&mut stage, find(key), kind)?;
        }
        Ok(stage)
    }

    fn cmd(&self, node: &Node) -> Result<Cmd, PipelineError> {
        let line = |node: &Node| {
            let text = self.text(node, "a command")?;
            if text.trim().is_empty() {
                return Err(self.refuse(node.at, "expected a command, got nothing"));
            }
            Ok(text.to_owned())
        };
        match &node.kind {
            Kind::List(items) if !items.is_empty() => {
                Ok(Cmd::Many(items.iter().map(line).collect::<Result<_, _>>()?))
            }
            _ => Ok(Cmd::One(line(node)?)),
        }
    }

    pub(super) fn text<'n>(&self, node: &'n Node, what: &str) -> Result<&'n str, PipelineError> {
        match &node.kind {
            Kind::Scalar(Value::Text(text)) => Ok(text),
            _ => Err(self.refuse(node.at, format!("expected {what}, got {}", node.describe()))),
        }
    }

    fn flag(&self, node: Option<&Node>) -> Result<bool, PipelineError> {
        match node.map(|node| (&node.kind, node.at)) {
            None => Ok(false),
            Some((Kind::Scalar(Value::Bool(value)), _)) => Ok(*value),
            Some((_, at)) => Err(self.refuse(at, "expected true or false")),
        }
    }

    /// Items of a list; nothing is an empty one.
    pub(super) fn items<'n>(&self, node: Option<&'n Node>, what: &str) -> Result<&'n [Node], PipelineError> {
        match node {
            Some(node) => match &node.kind {
                Kind::List(items) => Ok(items),
                _ if node.is_null() => Ok(&[]),
                _ => Err(self.refuse(node.at, format!("expected a list of {what}, got {}", node.describe()))),
            },
            None => Ok(&[]),
        }
    }

    /// A path from `folder` that stays in the repository.
    pub(super) fn place(
        &self,
        folder: &RepoPath,
        path: &str,
        at: Mark,
        what: &str,
    ) -> Result<RepoPath, PipelineError> {
        folder.join(path).ok_or_else(|| {
            self.refuse_with(
                at,
                format!("`{path}` in {what} leads out of the repository"),
                "paths are relative, and stay below the folder that holds `.dvc`; fetch other files in a stage",
            )
        })
    }

    fn deps(&self, stage: &mut Stage, node: Option<&Node>) -> Result<(), PipelineError> {
        for item in self.items(node, "paths in `deps`")? {
            let text = self.text(item, "a path in `deps`")?;
            let place = self.place(&stage.wdir, text, item.at, "`deps`")?;
            let path = place.from_folder(&stage.wdir);
            if stage.deps.iter().any(|dep| dep.place == place) {
                return Err(self.refuse(item.at, format!("`{path}` stands twice in `deps`")));
            }
            stage.deps.push(Dep { path, place, at: item.at });
        }
        Ok(())
    }

    fn params(&self, stage: &mut Stage, node: Option<&Node>) -> Result<(), PipelineError> {
        for item in self.items(node, "parameters")? {
            let Kind::Map(files) = &item.kind else {
                let key = self.param(item)?;
                self.add_params(stage, PARAMS_FILE, item.at, vec![key], false)?;
                continue;
            };
            for file in files {
                let path = file.key.as_text().unwrap_or_default();
                let keys = self.items(Some(&file.value), "parameters")?;
                let keys = keys.iter().map(|key| self.param(key)).collect::<Result<Vec<_>, _>>()?;
                let whole = keys.is_empty();
                self.add_params(stage, path, file.at, keys, whole)?;
            }
        }
        Ok(())
    }

    fn param(&self, node: &Node) -> Result<String, PipelineError> {
        self.text(node, "the name of a parameter").map(str::to_owned)
    }

    /// Joins what several entries say of one file; the whole file is more than any of its keys.
    fn add_params(
        &self,
        stage: &mut Stage,
        path: &str,
        at: Mark,
        keys: Vec<String>,
        whole: bool,
    ) -> Result<(), PipelineError> {
        let place = self.place(&stage.wdir, path, at, "`params`")?;
        let path = place.from_folder(&stage.wdir);
        match stage.params.iter_mut().find(|there| there.place == place) {
            Some(there) if whole || there.keys.is_empty() => there.keys.clear(),
            Some(there) => {
                for key in keys {
                    if !there.keys.contains(&key) {
                        there.keys.push(key);
                    }
                }
            }
            None => stage.params.push(ParamsOf { path, place, keys, at }),
        }
        Ok(())
    }

    fn outs(&self, stage: &mut Stage, node: Option<&Node>, kind: OutKind) -> Result<(), PipelineError> {
        let what = match kind {
            OutKind::Out => "`outs`",
            OutKind::Metric => "`metrics`",
            OutKind::Plot => "`plots`",
        };
        for item in self.items(node, &format!("paths in {what}"))? {
            let Kind::Map(entries) = &item.kind else {
                let path = self.text(item, &format!("a path in {what}"))?;
                self.add_out(stage, (path, item.at), None, (kind, what))?;
                continue;
            };
            for entry in entries {
                let path = entry.key.as_text().unwrap_or_default();
                self.add_out(stage, (path, entry.at), Some(&entry.value), (kind, what))?;
            }
        }
        Ok(())
    }

    fn add_out(
        &self,
        stage: &mut Stage,
        (path, at): (&str, Mark),
        flags: Option<&Node>,
        (kind, what): (OutKind, &str),
    ) -> Result<(), PipelineError> {
        let place = self.place(&stage.wdir, path, at, what)?;
        let path = place.from_folder(&stage.wdir);
        if place.contains(&stage.wdir) {
            return Err(self.refuse(at, format!("`{path}` in {what} holds the stage's own folder")));
        }
        let entries = match flags {
            Some(node) => self.entries(node, "settings of an out")?,
            None => &[],
        };
        let known: Vec<&str> = match kind {
            OutKind::Plot => OUT_KEYS.iter().chain(&PLOT_KEYS).copied().collect(),
            OutKind::Out | OutKind::Metric => OUT_KEYS.to_vec(),
        };
        self.only(entries, &known, what)?;
        let find = |key: &str| {
            entries.iter().find(|entry| entry.key.as_text() == Some(key)).map(|entry| &entry.value)
        };
        let cache = find("cache").map_or(Ok(true), |node| self.flag(Some(node)))?;
        let persist = self.flag(find("persist"))?;
        stage.outs.push(Out { path, place, at, kind, cache, persist });
        Ok(())
    }
}
