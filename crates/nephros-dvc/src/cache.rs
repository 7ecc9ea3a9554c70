//! `.dvc/cache`: every file once, under its MD5.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use md5::{Digest as _, Md5};
use rayon::prelude::*;

use crate::{
    config::{Config, LinkType},
    digest::{Algorithm, Md5Sum, Oid},
    files,
    measure::{Content, FileError},
    tree::{Tree, TreeFile},
};

/// From here on a cache folder is listed once rather than asked for each file.
const MANY: usize = 512;

/// The cache of a repository.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    links: Vec<LinkType>,
    shared: bool,
    listed: Mutex<HashMap<(Algorithm, u8), HashSet<String>>>,
}

impl Cache {
    /// As configured; nothing is made before there is something to keep.
    pub fn new(config: &Config) -> Self {
        let (dir, links, shared) = (config.cache_dir.clone(), config.links.clone(), config.shared);
        Self { dir, links, shared, listed: Mutex::default() }
    }

    /// Makes a folder of the cache, and those around it; in a shared cache the group may write to each.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(parent)?;
        }
        match fs_err::create_dir(folder) {
            // Another thread or process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        if self.shared {
            share(folder)?;
        }
        Ok(())
    }

    /// Folder of the run cache.
    pub fn runs(&self) -> PathBuf {
        self.dir.join("runs")
    }

    /// Where an object is; those of before version 3 lie elsewhere.
    pub fn path(&self, oid: Oid, algorithm: Algorithm) -> PathBuf {
        let name = oid.to_string();
        self.folder(algorithm).join(&name[..2]).join(&name[2..])
    }

    fn folder(&self, algorithm: Algorithm) -> PathBuf {
        match algorithm {
            Algorithm::Md5 => self.dir.join("files/md5"),
            Algorithm::Dos2Unix => self.dir.clone(),
        }
    }

    /// Whether an object and, of a folder's, all its files are there.
    pub fn holds(&self, oid: Oid, algorithm: Algorithm) -> bool {
        if !oid.is_dir {
            return self.path(oid, algorithm).is_file();
        }
        let Some(tree) = self.tree(oid, algorithm) else { return false };
        let files = tree.files();
        if files.len() < MANY {
            return files.iter().all(|file| self.path(Oid::file(file.sum), algorithm).is_file());
        }
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().all(|file| {
            let first = file.sum.0[0];
            let names = listed.entry((algorithm, first)).or_insert_with(|| self.list(algorithm, first));
            names.contains(&file.sum.to_string()[2..])
        })
    }

    fn list(&self, algorithm: Algorithm, first: u8) -> HashSet<String> {
        let folder = self.folder(algorithm).join(format!("{first:02x}"));
        let Ok(entries) = fs_err::read_dir(folder) else { return HashSet::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// A folder's list of files; `None` if it is not there or damaged.
    pub fn tree(&self, oid: Oid, algorithm: Algorithm) -> Option<Tree> {
        let bytes = fs_err::read(self.path(oid, algorithm)).ok()?;
        if Md5Sum::of(&bytes) != oid.sum {
            return None;
        }
        Tree::from_bytes(&bytes)
    }

    /// Keeps what lies at `path` and was measured as `content`; a folder's list comes last, so that what
    /// has one is whole.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn keep(&self, path: &Path, content: &Content) -> Result<(), FileError> {
        match &content.tree {
            None => self.keep_file(path, content.oid.sum)?,
            Some(tree) => {
                let keep = |file: &TreeFile| self.keep_file(&path.join(&file.path), file.sum);
                tree.files().par_iter().try_for_each(keep)?;
                let object = self.path(content.oid, Algorithm::Md5);
                if !object.is_file() {
                    self.make_folder(files::folder_of(&object))?;
                    let mut new = files::temporary(files::folder_of(&object))?;
                    new.write_all(&tree.to_bytes())?;
                    finish(new, &object)?;
                }
            }
        }
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn keep_file(&self, path: &Path, sum: Md5Sum) -> Result<(), FileError> {
        let object = self.path(Oid::file(sum), Algorithm::Md5);
        if object.is_file() {
            return Ok(());
        }
        self.make_folder(files::folder_of(&object))?;
        let mut new = files::temporary(files::folder_of(&object))?;
        if reflink(path, new.as_file()) {
            let got = crate::digest::md5_file(new.path(), Algorithm::Md5)?;
            if got == sum {
                return Ok(finish(new, &object)?);
            }
            return Err(FileError::Changed { path: path.into() });
        }
        if copy(&mut fs_err::File::open(path)?, new.as_file_mut())? != sum {
            return Err(FileError::Changed { path: path.into() });
        }
        Ok(finish(new, &object)?)
    }

    /// Makes `path` what an object holds. What is in the way is replaced, one file at a time.
    ///
    /// # Errors
    /// See [`FileError`]; an object that is not there is an [`io::Error`] of that kind.
    pub fn restore(
        &self,
        oid: Oid,
        algorithm: Algorithm,
        path: &Path,
        links: &[LinkType],
    ) -> Result<(), FileError> {
        if !oid.is_dir {
            if path.is_dir() {
                files::remove(path)?;
            }
            return self.link(oid, algorithm, path, links);
        }
        let object = self.path(oid, algorithm);
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("`{}` is not in the cache", object.display()));
        let tree = self.tree(oid, algorithm).ok_or_else(missing)?;
        if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            files::remove(path)?;
        }
        remove_others(path, &tree)?;
        fs_err::create_dir_all(path)?;
        tree.files()
            .par_iter()
            .try_for_each(|file| self.link(Oid::file(file.sum), algorithm, &path.join(&file.path), links))
    }

    /// Link types of the configuration.
    pub fn links(&self) -> &[LinkType] {
        &self.links
    }

    /// Whether files in the workspace are the cache's own, which a stage must not write to.
    pub fn shares_files(&self) -> bool {
        matches!(self.links.first(), Some(LinkType::Hardlink | LinkType::Symlink))
    }

    /// Puts an object at `path` under a temporary name first.
    fn link(&self, oid: Oid, algorithm: Algorithm, path: &Path, links: &[LinkType]) -> Result<(), FileError> {
        let object = self.path(oid, algorithm);
        let folder = files::folder_of(path);
        fs_err::create_dir_all(folder)?;
        let mut failed = None;
        for link in links {
            let linked = match link {
                LinkType::Reflink => self::copied(&object, path, oid.sum, algorithm, true),
                LinkType::Copy => self::copied(&object, path, oid.sum, algorithm, false),
                LinkType::Hardlink => renamed(folder, path, |name| fs_err::hard_link(&object, name)),
                LinkType::Symlink => renamed(folder, path, |name| symlink(&object, name)),
            };
            match linked {
                Ok(()) => return Ok(()),
                Err(FileError::Io(error))
                    if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported) =>
                {
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let source = failed.unwrap_or_else(|| io::Error::other("`cache.type` names no link type"));
        Err(FileError::Link { path: path.into(), source })
    }
}

/// As DVC does it: whoever is of the group may write, and what is made inside is of the same group.
#[cfg(unix)]
fn share(folder: &Path) -> io::Result<()> {
    fs_err::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o2775))
}

#[cfg(not(unix))]
fn share(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Copies, and checks that the object is what its name says.
fn copied(
    object: &Path,
    path: &Path,
    sum: Md5Sum,
    algorithm: Algorithm,
    share: bool,
) -> Result<(), FileError> {
    let mut source = fs_err::File::open(object)?;
    let mut new = files::temporary(files::folder_of(path))?;
    if share {
        if !reflink(object, new.as_file()) {
            return Err(io::Error::from(io::ErrorKind::Unsupported).into());
        }
    } else {
        let got = copy(&mut source, new.as_file_mut())?;
        if got != sum && algorithm == Algorithm::Md5 {
            return Err(FileError::Damaged { path: object.into(), expected: sum, got });
        }
    }
    new.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn renamed(folder: &Path, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), FileError> {
    let name = files::free_name(folder)?;
    make(&name)?;
    // Where both are links to one file, a rename does nothing and leaves the temporary name.
    files::remove(path)?;
    Ok(fs_err::rename(&name, path)?)
}

#[cfg(unix)]
fn symlink(object: &Path, name: &Path) -> io::Result<()> {
    fs_err::os::unix::fs::symlink(fs_err::canonicalize(object)?, name)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Copies and hashes at once.
fn copy(source: &mut impl Read, target: &mut impl Write) -> io::Result<Md5Sum> {
    let mut hasher = Md5::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match source.read(&mut block) {
            Ok(0) => return Ok(Md5Sum(hasher.finalize().into())),
            Ok(count) => {
                hasher.update(&block[..count]);
                target.write_all(&block[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether `new` now shares the blocks of `source`.
#[cfg(target_os = "linux")]
fn reflink(source: &Path, new: &std::fs::File) -> bool {
    fs_err::File::open(source).is_ok_and(|source| rustix::fs::ioctl_ficlone(new, source).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn reflink(_: &Path, _: &std::fs::File) -> bool {
    false
}

/// Gives an object its name; nobody writes to it from then on.
fn finish(new: tempfile::NamedTempFile, object: &Path) -> io::Result<()> {
    let mut permissions = new.as_file().metadata()?.permissions();
    #[cfg(unix)]
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    #[cfg(not(unix))]
    permissions.set_readonly(true);
    new.as_file().set_permissions(permissions)?;
    new.persist(object).map_err(|error| error.error)?;
    Ok(())
}

/// Removes the files below `path` that are not in the list, and the folders that are empty then.
fn remove_others(path: &Path, tree: &Tree) -> Result<(), FileError> {
    if !path.is_dir() {
        return Ok(());
    }
    let wanted: HashSet<PathBuf> = tree.files().iter().map(|file| path.join(&file.path)).collect();
    let folders: HashSet<&Path> = wanted
        .iter()
        .flat_map(|file| file.ancestors().skip(1).take_while(|folder| *folder != path))
        .collect();
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() && folders.contains(entry.as_path()) {
                open.push(entry);
            } else if kind.is_dir() || !wanted.contains(&entry) {
                files::remove(&entry)?;
            }
        }
    }
    Ok(())
}

/// Turns links to cache objects into files of their own, which a stage may write to.
///
/// # Errors
/// A file cannot be read or written.
pub fn unprotect(path: &Path) -> Result<(), FileError> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    if metadata.is_dir() {
        for entry in fs_err::read_dir(path)? {
            unprotect(&entry?.path())?;
        }
        return Ok(());
    }
    let target = fs_err::metadata(path)?;
    if target.is_file() && (metadata.is_symlink() || is_shared(&target)) {
        let mut new = files::temporary(files::folder_of(path))?;
        copy(&mut fs_err::File::open(path)?, new.as_file_mut())?;
        new.persist(path).map_err(|error| error.error)?;
    }
    Ok(())
}

#[cfg(unix)]
fn is_shared(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) > 1
}

#[cfg(not(unix))]
fn is_shared(_: &std::fs::Metadata) -> bool {
    false
}
