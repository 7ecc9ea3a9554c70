//! `.dvc/config` and `.dvc/config.local`, as far as they say where the cache is and how files come out of it.

use std::{
    io,
    path::{Path, PathBuf},
};

/// How a file gets from the cache into the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    /// A copy that shares its blocks until one of both is written; copied where the disk cannot do that.
    Reflink,
    /// The same file under a second name.
    Hardlink,
    /// A link by name.
    Symlink,
    /// Bytes of its own.
    Copy,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder of the cache.
    pub cache_dir: PathBuf,
    /// Link types in the order that they are tried.
    pub links: Vec<LinkType>,
    /// Whether the repository is in no version control.
    pub no_scm: bool,
}

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that DVC does not know, or this program does not.
    #[error("`{path}`:{line}: `{key}` is `{value}`, expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// `section.key`.
        key: String,
        /// As written.
        value: String,
        /// What can stand there.
        expected: &'static str,
    },
    /// Neither a section, a setting nor a comment.
    #[error("`{path}`:{line}: expected `key = value` or `[section]`, got `{text}`")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// As written.
        text: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ConfigError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Value { .. } | Self::Line { .. } => {
                Some("correct the line, or take it out: every setting has a default".into())
            }
            Self::Io(_) => None,
        }
    }
}

impl Config {
    /// Reads what is there of both files in `dvc_dir`, the local one last.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(dvc_dir: &Path) -> Result<Self, ConfigError> {
        let mut config = Self {
            cache_dir: dvc_dir.join("cache"),
            links: vec![LinkType::Reflink, LinkType::Copy],
            no_scm: false,
        };
        for name in ["config", "config.local"] {
            let path = dvc_dir.join(name);
            match fs_err::read_to_string(&path) {
                Ok(text) => config.apply(&path, &text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(config)
    }

    fn apply(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let mut section = String::new();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.trim_matches(['\'', '"']).clone_into(&mut section);
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(ConfigError::Line { path: path.into(), line: number, text: line.into() });
            };
            let (key, value) = (key.trim(), value.trim().trim_matches(['\'', '"']));
            self.set(&section, key, value).map_err(|expected| ConfigError::Value {
                path: path.into(),
                line: number,
                key: format!("{section}.{key}"),
                value: value.into(),
                expected,
            })?;
        }
        // Relative folders start where the file lies.
        if self.cache_dir.is_relative() {
            self.cache_dir = crate::files::folder_of(path).join(&self.cache_dir);
        }
        Ok(())
    }

    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), &'static str> {
        let flag = || match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("true or false"),
        };
        match (section, key) {
            ("cache", "dir") => self.cache_dir = PathBuf::from(value),
            ("cache", "type") => {
                let link = |name: &str| match name.trim() {
                    "reflink" => Ok(LinkType::Reflink),
                    "hardlink" => Ok(LinkType::Hardlink),
                    "symlink" => Ok(LinkType::Symlink),
                    "copy" => Ok(LinkType::Copy),
                    _ => Err("reflink, hardlink, symlink or copy, or several with commas between"),
                };
                self.links = value
                    .split(',')
                    .filter(|name| !name.trim().is_empty())
                    .map(link)
                    .collect::<Result<_, _>>()?;
            }
            ("core", "no_scm") => self.no_scm = flag()?,
            ("core", "hardlink_lock") if flag()? => {
                return Err("false: this program locks files by the system");
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_file_has_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let dvc_dir = folder.path().join(".dvc");
        fs_err::create_dir(&dvc_dir).unwrap();
        let shared = "[core]\n    remote = loc\n    no_scm = True\n['remote \"loc\"']\n    url = ../remote\n[cache]\n    dir = ../shared\n";
        fs_err::write(dvc_dir.join("config"), shared).unwrap();
        fs_err::write(dvc_dir.join("config.local"), "[cache]\n    type = hardlink,symlink\n").unwrap();
        let config = Config::load(&dvc_dir).unwrap();
        assert_eq!(config.links, [LinkType::Hardlink, LinkType::Symlink]);
        assert_eq!(config.cache_dir, dvc_dir.join("../shared"));
        assert!(config.no_scm);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("config"), "[cache]\ntype = magic\n").unwrap();
        let error = Config::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(":2: `cache.type` is `magic`, expected reflink"), "{error}");
    }
}
