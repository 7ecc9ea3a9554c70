//! A DVC repository.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, Outside},
    error::DvcError,
    files, git,
    graph::Graph,
    ignore_files::IGNORE_FILE,
    lock::{LOCK_FILE, Lock},
    pipeline::Pipeline,
    place::RepoPath,
};

const IGNORE_TEXT: &str = "# Add patterns of files dvc should ignore, which could improve
# the performance. Learn more at
# https://dvc.org/doc/user-guide/dvcignore
";

/// The folder that holds `.dvc`, and the folder of the pipeline in it.
#[derive(Debug, Clone)]
pub struct Repo {
    root: PathBuf,
    folder: RepoPath,
    config: Config,
}

impl Repo {
    /// The repository that a folder is in; without one the folder itself, until [`Repo::init`]. `outside` is
    /// the configuration that is not the repository's own.
    ///
    /// # Errors
    /// See [`DvcError`].
    pub fn open(folder: &Path, outside: &Outside) -> Result<Self, DvcError> {
        let folder = fs_err::canonicalize(folder)?;
        let above = folder.ancestors().find(|folder| folder.join(".dvc").is_dir());
        let root = above.unwrap_or(&folder).to_owned();
        let config = Config::load(outside, &root.join(".dvc"))?;
        let Some(folder) = RepoPath::of(&root, &folder) else {
            return Err(DvcError::File(crate::measure::FileError::Name { path: folder }));
        };
        Ok(Self { root, folder, config })
    }

    /// Whether `.dvc` is there.
    pub fn is_initialised(&self) -> bool {
        self.dvc_dir().is_dir()
    }

    /// Makes what `dvc init` makes, with `--no-scm` where there is no git, or `--subdir` below its folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn init(&self) -> io::Result<()> {
        let dvc_dir = self.dvc_dir();
        fs_err::create_dir_all(dvc_dir.join("tmp"))?;
        let config = if git::root_of(&self.root).is_some() { "" } else { "[core]\n    no_scm = True\n" };
        for (path, text) in [
            (self.root.join(IGNORE_FILE), IGNORE_TEXT),
            (dvc_dir.join(".gitignore"), "/config.local\n/tmp\n/cache\n"),
            (dvc_dir.join("config"), config),
        ] {
            if !path.exists() {
                files::write_atomic(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The folder that paths of the lock and the cache are in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Folder of locks and other things that do not last.
    pub fn tmp(&self) -> PathBuf {
        self.dvc_dir().join("tmp")
    }

    /// File of remembered hashes.
    pub fn state_file(&self) -> PathBuf {
        self.tmp().join("nephros.state")
    }

    fn dvc_dir(&self) -> PathBuf {
        self.root.join(".dvc")
    }

    /// The pipeline of the folder, and the order of its stages.
    ///
    /// # Errors
    /// See [`DvcError`].
    pub fn pipeline(&self) -> Result<(Pipeline, Graph), DvcError> {
        let pipeline = Pipeline::load(&self.root, &self.folder)?;
        let graph = Graph::new(&pipeline)?;
        Ok((pipeline, graph))
    }

    /// The lock beside the pipeline.
    ///
    /// # Errors
    /// See [`DvcError`].
    pub fn lock(&self) -> Result<Lock, DvcError> {
        Ok(Lock::load(&self.folder.in_root(&self.root).join(LOCK_FILE))?)
    }
}
