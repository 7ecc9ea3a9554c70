//! What a path holds: its hash, size and number of files, by as many threads as there are.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;

use crate::{
    digest::{Algorithm, Md5Sum, Oid, md5_file},
    ignore_files::{IGNORE_FILE, IgnoreFiles},
    place::RepoPath,
    state::{Stamp, State},
    tree::{Tree, TreeFile},
};

/// What a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Name of its object.
    pub oid: Oid,
    /// How it was hashed.
    pub algorithm: Algorithm,
    /// Bytes, of all files of a folder.
    pub size: u64,
    /// Whether it is a file that can be run.
    pub is_exec: bool,
    /// The files of a folder.
    pub tree: Option<Tree>,
}

/// Why a path cannot be hashed, kept or brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A name that has no UTF-8 form has no place in a lock either.
    #[error("`{path}`: the name is not UTF-8")]
    Name {
        /// With what is not UTF-8 replaced.
        path: PathBuf,
    },
    /// A socket, pipe or device.
    #[error("`{path}` is neither a file nor a folder")]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// A link to something that is not there.
    #[error("`{path}` is a link to something that does not exist")]
    BrokenLink {
        /// The path.
        path: PathBuf,
    },
    /// A folder that is hashed must not say what of it counts.
    #[error("`{path}` lies inside a folder that is tracked")]
    IgnoreFileInside {
        /// The file.
        path: PathBuf,
    },
    /// It was written to while it was read.
    #[error("`{path}` changed while it was being read")]
    Changed {
        /// The path.
        path: PathBuf,
    },
    /// An object's bytes are not those its name says.
    #[error("the cache object `{path}` is damaged: expected {expected}, got {got}")]
    Damaged {
        /// The object.
        path: PathBuf,
        /// Its name.
        expected: Md5Sum,
        /// Hash of what it holds.
        got: Md5Sum,
    },
    /// No link type of the configuration works here.
    #[error("`{path}` cannot be linked from the cache")]
    Link {
        /// Where the link should be.
        path: PathBuf,
        /// What the last try said.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FileError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name { .. } => "rename it, or name it in `.dvcignore`".into(),
            Self::Special { .. } | Self::BrokenLink { .. } => "remove it, or name it in `.dvcignore`".into(),
            Self::IgnoreFileInside { .. } => "move its lines into the `.dvcignore` of a folder above".into(),
            Self::Changed { .. } => "wait until nothing writes to it any more, then try again".into(),
            Self::Damaged { .. } => {
                "delete the object; the stage makes it again, or `dvc pull` fetches it".into()
            }
            Self::Link { .. } => "add `copy` to `cache.type` in `.dvc/config`".into(),
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                "free some space, then run it again: what is done is kept".into()
            }
            Self::Stopped | Self::Io(_) => return None,
        })
    }
}

/// Hashes paths of a repository.
pub struct Measurer<'a> {
    root: &'a Path,
    ignored: IgnoreFiles,
    state: Mutex<State>,
    stopped: &'a (dyn Fn() -> bool + Sync),
}

/// A file that was found.
struct Found {
    /// From the repository's folder.
    place: String,
    path: PathBuf,
}

impl<'a> Measurer<'a> {
    /// Over a repository, with what is known from earlier; `stopped` is asked now and then.
    pub fn new(root: &'a Path, state: State, stopped: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { root, ignored: IgnoreFiles::new(root, IGNORE_FILE), state: Mutex::new(state), stopped }
    }

    /// Writes what is known.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        self.lock().save(path)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `.dvcignore` leaves a path out.
    pub fn ignores(&self, place: &RepoPath) -> bool {
        self.ignored.ignores(place, place.in_root(self.root).is_dir())
    }

    /// What a path holds; `None` if there is nothing.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn measure(&self, place: &RepoPath, algorithm: Algorithm) -> Result<Option<Content>, FileError> {
        let path = place.in_root(self.root);
        let metadata = match fs_err::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if path.is_symlink() { Err(FileError::BrokenLink { path }) } else { Ok(None) };
            }
            // A part of the path is a file.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            other => other?,
        };
        if metadata.is_dir() {
            return self.folder(place, &path, algorithm).map(Some);
        }
        let found = Found { place: place.as_str().into(), path };
        let (sum, stamp, is_exec) = self.file(&found, algorithm)?;
        if algorithm == Algorithm::Md5 && stamp.is_settled() {
            self.lock().set(place.as_str(), stamp, sum);
        }
        Ok(Some(Content { oid: Oid::file(sum), algorithm, size: stamp.size, is_exec, tree: None }))
    }

    /// Hash, stamp and whether it can be run.
    fn file(&self, found: &Found, algorithm: Algorithm) -> Result<(Md5Sum, Stamp, bool), FileError> {
        if (self.stopped)() {
            return Err(FileError::Stopped);
        }
        let metadata = match fs_err::metadata(&found.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && found.path.is_symlink() => {
                return Err(FileError::BrokenLink { path: found.path.clone() });
            }
            other => other?,
        };
        if !metadata.is_file() {
            return Err(FileError::Special { path: found.path.clone() });
        }
        let stamp = Stamp::of(&metadata);
        if algorithm == Algorithm::Md5
            && let Some(sum) = self.lock().get(&found.place, stamp)
        {
            return Ok((sum, stamp, is_exec(&metadata)));
        }
        let sum = md5_file(&found.path, algorithm)?;
        if Stamp::of(&fs_err::metadata(&found.path)?) != stamp {
            return Err(FileError::Changed { path: found.path.clone() });
        }
        Ok((sum, stamp, is_exec(&metadata)))
    }

    fn folder(&self, place: &RepoPath, path: &Path, algorithm: Algorithm) -> Result<Content, FileError> {
        let mut found = Vec::new();
        self.walk(place, path, &mut found)?;
        let measured: Vec<(Md5Sum, Stamp, bool)> =
            found.par_iter().map(|file| self.file(file, algorithm)).collect::<Result<_, _>>()?;
        let prefix = place.as_str().len() + usize::from(!place.as_str().is_empty());
        let files = found
            .iter()
            .zip(&measured)
            .map(|(file, (sum, ..))| TreeFile { path: file.place[prefix..].to_owned(), sum: *sum });
        let tree = Tree::new(files.collect());
        if algorithm == Algorithm::Md5 {
            self.remember(place, &found, &measured);
        }
        let size = measured.iter().map(|(_, stamp, _)| stamp.size).sum();
        Ok(Content { oid: tree.oid(), algorithm, size, is_exec: false, tree: Some(tree) })
    }

    /// Takes over what a walk found, and forgets the files below that it did not find.
    fn remember(&self, place: &RepoPath, found: &[Found], measured: &[(Md5Sum, Stamp, bool)]) {
        let mut state = self.lock();
        for (file, (sum, stamp, _)) in found.iter().zip(measured) {
            if stamp.is_settled() {
                state.set(&file.place, *stamp, *sum);
            }
        }
        if state.len() > found.len() {
            let there: std::collections::HashSet<&str> =
                found.iter().map(|file| file.place.as_str()).collect();
            state.retain(place, |path| there.contains(path));
        }
    }

    /// All files below; links to files are files, links to folders do not count.
    fn walk(&self, place: &RepoPath, path: &Path, found: &mut Vec<Found>) -> Result<(), FileError> {
        if (self.stopped)() {
            return Err(FileError::Stopped);
        }
        let patterns = self.ignored.patterns(place);
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(FileError::Name { path });
            };
            let kind = entry.file_type()?;
            let is_link_to_folder = kind.is_symlink() && path.is_dir();
            if patterns.ignore(&path, &name, kind.is_dir() || is_link_to_folder) || is_link_to_folder {
                continue;
            }
            let Some(place) = place.join_name(&name) else { continue };
            if kind.is_dir() {
                self.walk(&place, &path, found)?;
            } else if name == IGNORE_FILE {
                return Err(FileError::IgnoreFileInside { path });
            } else {
                found.push(Found { place: place.into_string(), path });
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn is_exec(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
}

#[cfg(not(unix))]
fn is_exec(_: &std::fs::Metadata) -> bool {
    false
}
