//! Paths inside a repository.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A path from the repository's folder: parts with `/` between, none of them `.` or `..`. The empty
/// path is the folder itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RepoPath(String);

impl RepoPath {
    /// The repository's folder.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of `folder`, which must lie below `root`; both are absolute.
    pub fn of(root: &Path, folder: &Path) -> Option<Self> {
        let below = folder.strip_prefix(root).ok()?;
        let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
        Some(Self(parts?.join("/")))
    }

    /// Follows a relative path from here; `None` where it is absolute, leaves the repository or names
    /// another machine.
    pub fn join(&self, path: &str) -> Option<Self> {
        if path.starts_with('/') || path.contains("://") || path.contains('\0') || has_drive(path) {
            return None;
        }
        let mut parts: Vec<&str> = self.0.split('/').filter(|part| !part.is_empty()).collect();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        Some(Self(parts.join("/")))
    }

    /// An entry of this folder. A name is taken as it is, but for those that are no entry's.
    pub fn join_name(&self, name: &str) -> Option<Self> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return None;
        }
        Some(Self(if self.0.is_empty() { name.to_owned() } else { format!("{}/{name}", self.0) }))
    }

    /// As text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// On disk.
    pub fn in_root(&self, root: &Path) -> PathBuf {
        if self.0.is_empty() { root.to_owned() } else { root.join(&self.0) }
    }

    /// Whether one is the other or lies inside it.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// Whether `other` is this path or lies inside it.
    pub fn contains(&self, other: &Self) -> bool {
        match other.0.strip_prefix(&self.0) {
            Some(rest) => rest.is_empty() || self.0.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The path from `folder` to here, as DVC writes it: `../` for each level that is left.
    pub fn from_folder(&self, folder: &Self) -> String {
        let split = |path: &Self| -> Vec<String> {
            path.0.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let (to, from) = (split(self), split(folder));
        let shared = to.iter().zip(&from).take_while(|(left, right)| left == right).count();
        let up = std::iter::repeat_n("..", from.len() - shared);
        let parts: Vec<&str> = up.chain(to[shared..].iter().map(String::as_str)).collect();
        if parts.is_empty() { ".".into() } else { parts.join("/") }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

/// `C:\…`, which is absolute on one system and a file name on another.
fn has_drive(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && matches!(bytes[2], b'\\' | b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let folder = RepoPath::root().join("a/b").unwrap();
        assert_eq!(folder.join("./c//d/../e").unwrap().as_str(), "a/b/c/e");
        assert_eq!(folder.join("../../x").unwrap().as_str(), "x");
        for path in ["../../../x", "/etc/passwd", "s3://bucket/x", "C:\\x", "c:/x", "a\0b"] {
            assert_eq!(folder.join(path), None, "{path}");
        }
    }

    #[test]
    fn relative_paths_lead_back() {
        let path = |text: &str| RepoPath::root().join(text).unwrap();
        assert_eq!(path("a/b").from_folder(&path("a")), "b");
        assert_eq!(path("a/b").from_folder(&path("c/d")), "../../a/b");
        assert_eq!(path("a").from_folder(&path("a")), ".");
        assert!(path("a").overlaps(&path("a/b")) && !path("a").overlaps(&path("ab")));
    }
}
