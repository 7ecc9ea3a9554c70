//! DVC's configuration, as far as it says where the cache is and how files come out of it: that of the machine,
//! of the user, `.dvc/config` and `.dvc/config.local`, the later before the earlier.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

/// Name of a file of configuration.
const FILE: &str = "config";

/// What of the configuration lies outside of repositories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outside {
    /// Files, the one with the last word last; those that are not there say nothing.
    pub files: Vec<PathBuf>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

impl Outside {
    /// Where DVC looks on this system, by the variables that it reads.
    pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = folder(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let (system, global) = if cfg!(windows) {
            let below = |name: &str| folder(name).map(|folder| folder.join("iterative").join("dvc"));
            (below("PROGRAMDATA"), below("LOCALAPPDATA"))
        } else if cfg!(target_os = "macos") {
            let global = home.as_ref().map(|home| home.join("Library/Application Support/dvc"));
            (Some("/Library/Application Support/dvc".into()), global)
        } else {
            let listed = variable("XDG_CONFIG_DIRS").filter(|value| !value.is_empty());
            let first = listed.and_then(|listed| std::env::split_paths(&listed).next());
            let own = folder("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
            let below = |folder: PathBuf| folder.join("dvc");
            (Some(below(first.unwrap_or_else(|| "/etc/xdg".into()))), own.map(below))
        };
        let folders =
            [folder("DVC_SYSTEM_CONFIG_DIR").or(system), folder("DVC_GLOBAL_CONFIG_DIR").or(global)];
        Self { files: folders.into_iter().flatten().map(|folder| folder.join(FILE)).collect(), home }
    }
}

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
    /// Whether folders of the cache are for the group to write to.
    pub shared: bool,
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
    /// Reads what is there of all files; those in `dvc_dir` come last.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(outside: &Outside, dvc_dir: &Path) -> Result<Self, ConfigError> {
        let mut config = Self {
            cache_dir: dvc_dir.join("cache"),
            links: vec![LinkType::Reflink, LinkType::Copy],
            shared: false,
            no_scm: false,
        };
        let own = [FILE, "config.local"].map(|name| dvc_dir.join(name));
        for path in outside.files.iter().chain(&own) {
            match fs_err::read_to_string(path) {
                Ok(text) => config.apply(path, &text, outside.home.as_deref())?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(config)
    }

    fn apply(&mut self, path: &Path, text: &str, home: Option<&Path>) -> Result<(), ConfigError> {
        let mut section = String::new();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
                section = name.trim().trim_matches(['\'', '"']).to_ascii_lowercase();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(ConfigError::Line { path: path.into(), line: number, text: line.into() });
            };
            let (key, value) = (key.trim().to_ascii_lowercase(), unquoted(value));
            let set = if (section.as_str(), key.as_str()) == ("cache", "dir") {
                located(value, path, home).map(|dir| self.cache_dir = dir)
            } else {
                self.set(&section, &key, value)
            };
            set.map_err(|expected| ConfigError::Value {
                path: path.into(),
                line: number,
                key: format!("{section}.{key}"),
                value: value.into(),
                expected,
            })?;
        }
        Ok(())
    }

    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), &'static str> {
        let flag = || match value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("true or false"),
        };
        match (section, key) {
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
            ("cache", "shared") if value.eq_ignore_ascii_case("group") => self.shared = true,
            ("cache", "shared") => return Err("group"),
            ("core", "no_scm") => self.no_scm = flag()?,
            ("core", "hardlink_lock") if flag()? => {
                return Err("false: this program locks files by the system");
            }
            _ => {}
        }
        Ok(())
    }
}

/// A value without its quotes, or without the remark behind it.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner;
        }
    }
    value.split('#').next().unwrap_or_default().trim_end()
}

/// The folder that a value names: relative ones start where the file lies.
fn located(value: &str, file: &Path, home: Option<&Path>) -> Result<PathBuf, &'static str> {
    if value.contains("://") {
        return Err("a folder of this machine");
    }
    match (value.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            Ok(home.join(rest.trim_start_matches('/')))
        }
        (Some(_), _) => Err("a folder, or one below the home folder as `~/…`"),
        // An absolute one stays as it is.
        (None, _) => Ok(crate::files::folder_of(file).join(value)),
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
        let config = Config::load(&Outside::default(), &dvc_dir).unwrap();
        assert_eq!(config.links, [LinkType::Hardlink, LinkType::Symlink]);
        assert_eq!(config.cache_dir, dvc_dir.join("../shared"));
        assert!(config.no_scm);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("[cache]\ntype = magic\n", ":2: `cache.type` is `magic`, expected reflink"),
            ("[cache]\ndir = s3://bucket\n", ":2: `cache.dir` is `s3://bucket`, expected a folder of this"),
            ("[cache]\ndir = ~other/x\n", ":2: `cache.dir` is `~other/x`, expected a folder"),
            ("[cache]\n\nshared = all\n", ":3: `cache.shared` is `all`, expected group"),
            ("[core]\nno_scm = yes\n", ":2: `core.no_scm` is `yes`, expected true or false"),
            ("[core]\nhardlink_lock = true\n", "expected false: this program locks"),
            ("[core]\nremote\n", ":2: expected `key = value` or `[section]`, got `remote`"),
        ] {
            fs_err::write(folder.path().join("config"), text).unwrap();
            let error = Config::load(&Outside::default(), folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_read_as_dvc_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let home = Some(PathBuf::from("/home/jane"));
        for (text, expected) in [
            ("dir = /data/cache  # on the large disk", "/data/cache"),
            ("dir = \"/data/cache #1\"  # quoted", "/data/cache #1"),
            ("DIR = '~/cache'", "/home/jane/cache"),
            ("dir = ~", "/home/jane"),
        ] {
            fs_err::write(folder.path().join("config"), format!("[Cache] ; all\n{text}\n")).unwrap();
            let outside = Outside { files: Vec::new(), home: home.clone() };
            assert_eq!(
                Config::load(&outside, folder.path()).unwrap().cache_dir,
                Path::new(expected),
                "{text}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_outside_are_looked_for_where_dvc_looks() {
        let files = |set: &[(&str, &str)]| {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            let files = Outside::of_user(variable).files;
            files.iter().map(|file| file.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(files(&[("HOME", "/h")]), ["/etc/xdg/dvc/config", "/h/.config/dvc/config"]);
        let xdg = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_CONFIG_DIRS", "/a:/b")];
        assert_eq!(files(&xdg), ["/a/dvc/config", "/c/dvc/config"]);
        let own = [("HOME", "/h"), ("DVC_SYSTEM_CONFIG_DIR", "/s"), ("DVC_GLOBAL_CONFIG_DIR", "/g")];
        assert_eq!(files(&own), ["/s/config", "/g/config"]);
    }
}
