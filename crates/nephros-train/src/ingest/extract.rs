//! A zip of unknown origin into a folder that nothing leaves.
//!
//! The whole table of contents is judged before the first byte is written, and lengths are counted
//! again while writing, because the table may lie.

use std::{
    collections::HashSet,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use nephros_core::hint::Hint;
use zip::{ZipArchive, result::ZipError};

use crate::{
    files::{self, NoSpace},
    progress::{self, Cancelled, Progress, Unit},
};

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub max_files: usize,
    /// Bytes after extraction.
    pub max_bytes: u64,
    /// Bytes after extraction for each byte of the archive.
    pub max_ratio: u64,
}

impl Default for Limits {
    /// A million files, 256 GiB, 200 to 1: DEFLATE reaches 1032 to 1, images stay below 50 to 1.
    fn default() -> Self {
        Self { max_files: 1_000_000, max_bytes: 256 << 30, max_ratio: 200 }
    }
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extracted {
    /// Files written.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
}

/// Why an archive is not extracted; nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// Another kind of file.
    #[error("`{zip}` is not a zip archive: it starts with `{start}`")]
    NotZip {
        /// The file.
        zip: PathBuf,
        /// Its first bytes, printable ones as they are.
        start: String,
    },
    /// The table of contents at the end is missing or damaged.
    #[error("`{zip}` is cut off or damaged: its table of contents cannot be read")]
    Truncated {
        /// The file.
        zip: PathBuf,
        /// What the reader says.
        source: ZipError,
    },
    /// An entry's data is damaged.
    #[error("`{zip}` is damaged at `{entry}`")]
    Damaged {
        /// The file.
        zip: PathBuf,
        /// The entry.
        entry: String,
        /// What the reader says, such as a wrong CRC-32.
        source: io::Error,
    },
    /// A password is needed.
    #[error("`{zip}` is encrypted (`{entry}`), expected an open archive")]
    Encrypted {
        /// The file.
        zip: PathBuf,
        /// The first encrypted entry.
        entry: String,
    },
    /// A compression method that is not built in.
    #[error("`{zip}` holds `{entry}` in an unsupported compression, expected Store or Deflate")]
    Compression {
        /// The file.
        zip: PathBuf,
        /// The entry.
        entry: String,
        /// What the reader says.
        source: ZipError,
    },
    /// A path that leads out of the folder, or may on some system.
    #[error("`{zip}` holds the unsafe path `{entry}`: {reason}")]
    UnsafePath {
        /// The file.
        zip: PathBuf,
        /// The entry.
        entry: String,
        /// Why it is unsafe.
        reason: &'static str,
    },
    /// A link, device or pipe.
    #[error("`{zip}` holds `{entry}`, which is a {kind}, expected only files and folders")]
    Special {
        /// The file.
        zip: PathBuf,
        /// The entry.
        entry: String,
        /// Kind of the entry.
        kind: &'static str,
    },
    /// Two entries with one path.
    #[error("`{zip}` holds `{entry}` twice")]
    Duplicate {
        /// The file.
        zip: PathBuf,
        /// The entry.
        entry: String,
    },
    /// More than the limits allow.
    #[error("`{zip}` looks like a zip bomb: expected at most {limit} {what}, got {got}")]
    TooLarge {
        /// The file.
        zip: PathBuf,
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The archive's figure.
        got: u64,
    },
    /// The disk is too small.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// The user stopped it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Hint for ExtractError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotZip { start, .. } if start.trim_start().starts_with('<') => {
                "the server answered with a web page; download the file in a browser and set `source_URL` to its path"
                    .into()
            }
            Self::NotZip { .. } => "pack the class folders into a zip, or give the folder itself".into(),
            Self::Truncated { zip, .. } | Self::Damaged { zip, .. } => {
                format!("delete `{}` and fetch it again", zip.display())
            }
            Self::Encrypted { .. } => "extract it by hand and set `source_URL` to the folder".into(),
            Self::Compression { .. } => {
                "extract it by hand and set `source_URL` to the folder, or pack it again with `zip -r`".into()
            }
            Self::UnsafePath { .. } | Self::Special { .. } | Self::Duplicate { .. } | Self::TooLarge { .. } => {
                "do not trust this archive; if you know its maker, extract it by hand and set `source_URL` to the folder"
                    .into()
            }
            Self::NoSpace(error) => return error.hint(),
            Self::Cancelled(_) | Self::Io(_) => return None,
        })
    }
}

/// Extracts all files of `zip` into `folder`, which must not exist; it appears whole or not at all.
/// Archives within the archive stay closed.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract(
    zip: &Path,
    folder: &Path,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<Extracted, ExtractError> {
    let mut archive = open(zip)?;
    let entries = judge(zip, &mut archive, limits)?;
    let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    files::ensure_space(folder, total)?;
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(parent)?;
    let staging = tempfile::Builder::new().prefix(".extract-").tempdir_in(parent)?;
    let task = progress.task("extract", Some(total), Unit::Bytes);
    for entry in &entries {
        let path = staging.path().join(&entry.path);
        write_entry(zip, &mut archive, entry, &path, progress)?;
        task.advance(entry.bytes);
    }
    fs_err::rename(staging.path(), folder)?;
    // The staging name is gone; nothing is left to delete on drop.
    let _ = staging.keep();
    Ok(Extracted { files: entries.len(), bytes: total })
}

/// Opens the archive and reads its table of contents.
///
/// # Errors
/// [`ExtractError::NotZip`], [`ExtractError::Truncated`] and [`ExtractError::Io`].
pub fn open(zip: &Path) -> Result<ZipArchive<BufReader<File>>, ExtractError> {
    let mut file = File::open(zip)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(16).read_to_end(&mut start)?;
    // Local file header, or the end record of an empty archive (APPNOTE 4.3.7 and 4.3.16).
    if !start.starts_with(b"PK\x03\x04") && !start.starts_with(b"PK\x05\x06") {
        return Err(ExtractError::NotZip { zip: zip.into(), start: printable(&start) });
    }
    ZipArchive::new(BufReader::new(file)).map_err(|source| match source {
        ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => error.into(),
        source => ExtractError::Truncated { zip: zip.into(), source },
    })
}

struct Entry {
    index: usize,
    name: String,
    path: PathBuf,
    bytes: u64,
}

/// Checks every entry; folders are left out, since files make them.
fn judge(zip: &Path, archive: &mut ZipArchive<BufReader<File>>, limits: &Limits) -> Result<Vec<Entry>, ExtractError> {
    let too_large = |what, limit, got| ExtractError::TooLarge { zip: zip.into(), what, limit, got };
    if archive.len() > limits.max_files {
        return Err(too_large("files", limits.max_files as u64, archive.len() as u64));
    }
    let mut entries = Vec::new();
    let mut paths = HashSet::new();
    let mut total = 0_u64;
    for index in 0..archive.len() {
        let entry = archive
            .by_index_data(index)
            .map_err(|source| ExtractError::Truncated { zip: zip.into(), source })?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let name = entry.name().map_or(name, std::borrow::Cow::into_owned);
        if entry.encrypted() {
            return Err(ExtractError::Encrypted { zip: zip.into(), entry: name });
        }
        if let Some(kind) = special_kind(entry.unix_mode(), entry.is_symlink()) {
            return Err(ExtractError::Special { zip: zip.into(), entry: name, kind });
        }
        let path = safe_path(&name).map_err(|reason| ExtractError::UnsafePath {
            zip: zip.into(),
            entry: name.clone(),
            reason,
        })?;
        if entry.is_dir() {
            continue;
        }
        if !paths.insert(path.clone()) {
            return Err(ExtractError::Duplicate { zip: zip.into(), entry: name });
        }
        total = total.saturating_add(entry.size());
        entries.push(Entry { index, name, path, bytes: entry.size() });
    }
    if archive.has_duplicate_names() {
        return Err(ExtractError::Duplicate { zip: zip.into(), entry: "a name".into() });
    }
    if total > limits.max_bytes {
        return Err(too_large("bytes", limits.max_bytes, total));
    }
    let size = fs_err::metadata(zip)?.len().max(1);
    if total / size > limits.max_ratio {
        return Err(too_large("bytes for each byte of the archive", limits.max_ratio, total / size));
    }
    Ok(entries)
}

fn write_entry(
    zip: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    entry: &Entry,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(), ExtractError> {
    let damaged = |source| ExtractError::Damaged { zip: zip.into(), entry: entry.name.clone(), source };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let mut target = match fs_err::OpenOptions::new().write(true).create_new(true).open(path) {
        // On a file system that ignores case, `A.jpg` and `a.jpg` are one file.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ExtractError::Duplicate { zip: zip.into(), entry: entry.name.clone() });
        }
        other => other?,
    };
    let reader = archive.by_index(entry.index).map_err(|source| match source {
        ZipError::Io(error) => damaged(error),
        source @ (ZipError::CompressionMethodNotSupported(_) | ZipError::UnsupportedArchive(_)) => {
            ExtractError::Compression { zip: zip.into(), entry: entry.name.clone(), source }
        }
        source => damaged(io::Error::other(source)),
    })?;
    // One byte more than announced is enough to tell a lie.
    let mut reader = reader.take(entry.bytes.saturating_add(1));
    let mut block = vec![0; 1 << 16];
    let mut written = 0_u64;
    loop {
        progress::check(progress)?;
        let count = reader.read(&mut block).map_err(damaged)?;
        if count == 0 {
            break;
        }
        target.write_all(&block[..count])?;
        written += count as u64;
    }
    if written != entry.bytes {
        let text = format!("expected {} bytes, got {written} or more", entry.bytes);
        return Err(damaged(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    Ok(())
}

/// The name as a relative path, or why it is unsafe on some system.
fn safe_path(name: &str) -> Result<PathBuf, &'static str> {
    if name.contains('\0') {
        return Err("it contains a zero byte");
    }
    if name.contains('\\') {
        return Err("it contains a backslash");
    }
    if name.starts_with('/') {
        return Err("it is absolute");
    }
    if name.contains(':') {
        return Err("it names a drive or stream");
    }
    let mut path = PathBuf::new();
    for part in name.split('/') {
        match part {
            ".." => return Err("it leads out of the folder"),
            "" | "." => {}
            part => path.push(part),
        }
    }
    if path.as_os_str().is_empty() { Err("it is empty") } else { Ok(path) }
}

/// Kind of an entry that is neither file nor folder, by the type bits of `st_mode`.
fn special_kind(mode: Option<u32>, is_symlink: bool) -> Option<&'static str> {
    match mode.unwrap_or(0) & 0o170_000 {
        0o120_000 => Some("symbolic link"),
        _ if is_symlink => Some("symbolic link"),
        0 | 0o100_000 | 0o040_000 => None,
        0o060_000 | 0o020_000 => Some("device"),
        0o010_000 => Some("named pipe"),
        0o140_000 => Some("socket"),
        _ => Some("special file"),
    }
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_become_relative_paths() {
        assert_eq!(safe_path("a/Normal/Normal- (7).jpg"), Ok("a/Normal/Normal- (7).jpg".into()));
        assert_eq!(safe_path("./a//b/"), Ok("a/b".into()));
        assert_eq!(safe_path("a/..b/c.."), Ok("a/..b/c..".into()));
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../x", "a/../../x", "a/..", "/etc/passwd", "C:/x", "C:x", "a\\..\\x", "a\0b", "", "./"] {
            assert!(safe_path(name).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_the_folder(name in "[a./:\\\\]{0,12}") {
            if let Ok(path) = safe_path(&name) {
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{name:?}");
            }
        }
    }
}
