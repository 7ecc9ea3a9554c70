//! `.dvcignore`: what of a folder does not count.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::place::RepoPath;

/// Name of the file.
pub const IGNORE_FILE: &str = ".dvcignore";

/// Folders that never count.
const NEVER: [&str; 3] = [".dvc", ".git", ".hg"];

/// The patterns of a repository, each folder's read once.
#[derive(Debug)]
pub struct IgnoreFiles {
    root: PathBuf,
    name: &'static str,
    read: Mutex<HashMap<RepoPath, Option<Arc<Gitignore>>>>,
}

/// Patterns that hold in one folder, the outermost file's first.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Arc<Gitignore>>);

impl IgnoreFiles {
    /// Of the files of one name below `root`.
    pub fn new(root: &Path, name: &'static str) -> Self {
        Self { root: root.into(), name, read: Mutex::default() }
    }

    /// What holds for the entries of a folder.
    pub fn patterns(&self, folder: &RepoPath) -> Patterns {
        let mut patterns = Vec::new();
        let mut here = RepoPath::root();
        patterns.extend(self.of(&here));
        for part in folder.as_str().split('/').filter(|part| !part.is_empty()) {
            let Some(next) = here.join_name(part) else { break };
            here = next;
            patterns.extend(self.of(&here));
        }
        Patterns(patterns)
    }

    /// Whether a path, or a folder around it, does not count.
    pub fn ignores(&self, place: &RepoPath, is_dir: bool) -> bool {
        let parts: Vec<&str> = place.as_str().split('/').filter(|part| !part.is_empty()).collect();
        let mut folder = RepoPath::root();
        for (number, part) in parts.iter().enumerate() {
            let is_dir = is_dir || number + 1 < parts.len();
            let Some(path) = folder.join_name(part) else { return false };
            if self.patterns(&folder).ignore(&path.in_root(&self.root), part, is_dir) {
                return true;
            }
            folder = path;
        }
        false
    }

    fn of(&self, folder: &RepoPath) -> Option<Arc<Gitignore>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || {
            let folder = folder.in_root(&self.root);
            let file = folder.join(self.name);
            if !file.is_file() {
                return None;
            }
            let mut builder = GitignoreBuilder::new(&folder);
            // A line that is no pattern is left out, as git does it.
            let _ = builder.add(&file);
            builder.build().ok().filter(|patterns| !patterns.is_empty()).map(Arc::new)
        };
        read.entry(folder.clone()).or_insert_with(load).clone()
    }
}

impl Patterns {
    /// Whether an entry of the folder does not count; `name` is the last part of `path`.
    pub fn ignore(&self, path: &Path, name: &str, is_dir: bool) -> bool {
        if NEVER.contains(&name) && (is_dir || name == ".git") {
            return true;
        }
        for patterns in self.0.iter().rev() {
            let matched = patterns.matched(path, is_dir);
            if !matched.is_none() {
                return matched.is_ignore();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gits() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs_err::create_dir_all(root.join("a/b")).unwrap();
        fs_err::write(root.join(IGNORE_FILE), "# why\n*.tmp\n/only\nlogs/\n").unwrap();
        fs_err::write(root.join("a").join(IGNORE_FILE), "!keep.tmp\n").unwrap();
        let files = IgnoreFiles::new(root, IGNORE_FILE);
        let ignores = |path: &str, is_dir| files.ignores(&RepoPath::root().join(path).unwrap(), is_dir);
        assert!(ignores("x.tmp", false) && ignores("a/b/x.tmp", false) && ignores("logs/x", false));
        assert!(ignores("only", false) && !ignores("a/only", false));
        assert!(!ignores("a/keep.tmp", false) && ignores("keep.tmp", false));
        assert!(ignores(".dvc/tmp/x", false) && ignores("a/.git", false) && !ignores(".dvc", false));
    }
}
