//! Files that are either whole or absent.

use std::{io, path::Path};

/// Writes `bytes` under a temporary name beside `path`, then renames; makes the folder first.
///
/// # Errors
/// The folder or the file cannot be written; `path` is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".nephros-").tempfile_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
