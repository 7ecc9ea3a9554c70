//! Files that are whole or absent.

use std::{
    io::{self, Write as _},
    path::Path,
};

/// Writes a file under another name and renames it; its bytes are on the disk before its name is.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Whether so many bytes can be written beside `path`; what is written has no name and is gone at once.
pub(crate) fn check_room(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(folder(path))?;
    file.write_all(&vec![0; bytes])?;
    file.sync_data()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
