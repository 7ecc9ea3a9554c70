//! Files that are either whole or absent.

use std::{
    io,
    path::{Path, PathBuf},
};

use nephros_core::hint::Hint;

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
    let mut builder = tempfile::Builder::new();
    // As any other new file: a bundle is read by servers that run as another user.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".nephros-").tempfile_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The disk is too small for what is to be written.
#[derive(Debug, thiserror::Error)]
#[error("not enough space in `{folder}`: expected {needed} bytes free, got {available}")]
pub struct NoSpace {
    /// Folder on the full disk.
    pub folder: PathBuf,
    /// Bytes needed, with a reserve.
    pub needed: u64,
    /// Bytes free.
    pub available: u64,
}

impl Hint for NoSpace {
    fn hint(&self) -> Option<String> {
        Some("free some space, or move `artifacts_root` to a larger disk".into())
    }
}

/// Bytes that stay free, so that logs and manifests can still be written.
const RESERVE: u64 = 64 << 20;

/// Refuses when `bytes` more would fill the disk that `path` is on; `path` need not exist. Where
/// the system does not tell its free space, nothing is refused.
///
/// # Errors
/// [`NoSpace`].
pub fn ensure_space(path: &Path, bytes: u64) -> Result<(), NoSpace> {
    let folder = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let needed = bytes.saturating_add(RESERVE);
    match fs4::available_space(folder) {
        Ok(available) if available < needed => Err(NoSpace { folder: folder.into(), needed, available }),
        _ => Ok(()),
    }
}
