//! Files that are either whole or absent.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Prefix of names that hold what is not finished; a crash may leave some.
pub const TEMPORARY: &str = ".nephros-";

/// The folder of a path.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes `bytes` under a temporary name beside `path`, then renames; makes the folder first.
///
/// # Errors
/// The folder or the file cannot be written; `path` is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = temporary(folder_of(path))?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A new file in `folder`, which is made first, that goes away unless it gets a name.
///
/// # Errors
/// Neither can be made.
pub fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    fs_err::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(TEMPORARY).tempfile_in(folder)
}

/// A name in `folder` that nothing has yet.
///
/// # Errors
/// The folder cannot be read.
pub fn free_name(folder: &Path) -> io::Result<PathBuf> {
    let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
    Ok(file.path().to_owned())
}

/// Removes a file, link or folder; what is not there is removed already.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs_err::remove_dir_all(path),
        Ok(_) => fs_err::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
