//! The images of a batch: files of a folder below the root, or entries of a zip file.

use std::{
    borrow::Cow,
    io::{self, Cursor, Read, Seek},
    path::{Component, Path, PathBuf},
};

use axum::body::Bytes;
use fs_err::File;
use zip::{ZipArchive, result::ZipError};

use crate::{
    error::{ApiError, Code},
    state::Limits,
};

/// Names of files that are images.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp"];

/// Where the images of a batch come from.
pub(super) enum Source {
    /// Paths below a folder, which they are named by.
    Folder { folder: PathBuf, files: Vec<PathBuf> },
    /// A zip file on this machine.
    File { archive: Box<ZipArchive<File>>, entries: Vec<usize> },
    /// A zip file that was sent.
    Sent { archive: Box<ZipArchive<Cursor<Bytes>>>, entries: Vec<usize> },
}

/// An image, and what it is called in the results.
pub(super) struct Item {
    pub(super) path: String,
    pub(super) bytes: Result<Bytes, ApiError>,
}

impl Source {
    /// What `path` below `root` names. Blocks.
    ///
    /// # Errors
    /// [`ApiError::OutsideRoot`], and those of what is found.
    pub(super) fn open(root: &Path, path: &str, limits: &Limits) -> Result<Self, ApiError> {
        let missing = || ApiError::Missing(Code::NoSuchBatch);
        let relative = Path::new(path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(plain) || path.contains('\0') {
            return Err(ApiError::OutsideRoot);
        }
        let root = fs_err::canonicalize(root).map_err(|_| missing())?;
        let found = fs_err::canonicalize(root.join(relative)).map_err(|_| missing())?;
        // A link inside of the root may lead out of it.
        if !found.starts_with(&root) {
            return Err(ApiError::OutsideRoot);
        }
        if found.is_dir() {
            return folder(found, limits);
        }
        if !found.is_file() {
            return Err(missing());
        }
        let file = File::open(&found).map_err(|_| ApiError::UnreadableFile)?;
        let mut archive = ZipArchive::new(file).map_err(|error| match error {
            ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => ApiError::UnreadableFile,
            _ => ApiError::NotAZip,
        })?;
        let entries = entries(&mut archive, limits)?;
        Ok(Self::File { archive: Box::new(archive), entries })
    }

    /// A zip file that was sent. Blocks.
    ///
    /// # Errors
    /// [`ApiError::NotAZip`], and those of what is found.
    pub(super) fn sent(bytes: Bytes, limits: &Limits) -> Result<Self, ApiError> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| ApiError::NotAZip)?;
        let entries = entries(&mut archive, limits)?;
        Ok(Self::Sent { archive: Box::new(archive), entries })
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Folder { files, .. } => files.len(),
            Self::File { entries, .. } | Self::Sent { entries, .. } => entries.len(),
        }
    }

    /// Reads one image after the other until `take` says that it wants no more. Blocks.
    pub(super) fn read(self, most_bytes: usize, mut take: impl FnMut(usize, Item) -> bool) {
        match self {
            Self::Folder { folder, files } => {
                for (index, file) in files.into_iter().enumerate() {
                    let path =
                        file.strip_prefix(&folder).unwrap_or(&file).to_string_lossy().replace('\\', "/");
                    let bytes = File::open(&file).map_err(|_| ApiError::UnreadableFile);
                    let bytes = bytes.and_then(|file| read_at_most(file, most_bytes));
                    if !take(index, Item { path, bytes }) {
                        return;
                    }
                }
            }
            Self::File { archive, entries } => read_entries(*archive, &entries, most_bytes, take),
            Self::Sent { archive, entries } => read_entries(*archive, &entries, most_bytes, take),
        }
    }
}

fn is_image(name: &Path) -> bool {
    let extension = name.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// All image files below a folder, by path. Links are not followed.
fn folder(folder: PathBuf, limits: &Limits) -> Result<Source, ApiError> {
    let walk = walkdir::WalkDir::new(&folder).sort_by_file_name().into_iter().filter_map(Result::ok);
    let images = walk.filter(|entry| entry.file_type().is_file() && is_image(entry.path()));
    let files: Vec<PathBuf> = images.map(walkdir::DirEntry::into_path).take(limits.job_images + 1).collect();
    check(files.len(), limits)?;
    Ok(Source::Folder { folder, files })
}

fn check(images: usize, limits: &Limits) -> Result<(), ApiError> {
    match images {
        0 => Err(ApiError::Missing(Code::NoSuchBatch)),
        images if images > limits.job_images => Err(ApiError::TooManyImages { limit: limits.job_images }),
        _ => Ok(()),
    }
}

/// Indexes of the images of a zip file, whose headers must not say that they are too much.
fn entries<R: Read + Seek>(archive: &mut ZipArchive<R>, limits: &Limits) -> Result<Vec<usize>, ApiError> {
    let (mut entries, mut bytes) = (Vec::new(), 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|_| ApiError::NotAZip)?;
        let name = entry.name().map_err(|_| ApiError::NotAZip)?;
        if entry.is_file() && is_image(Path::new(name.as_ref())) {
            bytes = bytes.saturating_add(entry.size());
            entries.push(index);
        }
    }
    if bytes > limits.unpacked_bytes {
        return Err(ApiError::DecompressedTooLarge { limit: limits.unpacked_bytes });
    }
    check(entries.len(), limits)?;
    Ok(entries)
}

fn read_entries<R: Read + Seek>(
    mut archive: ZipArchive<R>,
    entries: &[usize],
    most_bytes: usize,
    mut take: impl FnMut(usize, Item) -> bool,
) {
    for (index, &entry) in entries.iter().enumerate() {
        // The name can be read of an entry that is encrypted or packed in an unknown way, too.
        let name = archive.by_index_raw(entry).ok().and_then(|entry| entry.name().ok().map(Cow::into_owned));
        let path = name.unwrap_or_else(|| format!("entry {index}"));
        let bytes = archive.by_index(entry).map_err(|_| ApiError::UnreadableFile);
        // What the header says of the size may be a lie.
        let item = Item { path, bytes: bytes.and_then(|entry| read_at_most(entry, most_bytes)) };
        if !take(index, item) {
            return;
        }
    }
}

fn read_at_most(reader: impl Read, limit: usize) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    // The entry is torn, or the disk fails.
    reader.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|_| ApiError::UnreadableFile)?;
    if bytes.len() > limit { Err(ApiError::BodyTooLarge { limit }) } else { Ok(bytes.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_is_named_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "c.png"] {
            fs_err::write(folder.path().join(name), name).unwrap();
        }
        let files = ["a.png", "b.png", "c.png"].map(|name| folder.path().join(name)).into();
        let source = Source::Folder { folder: folder.path().to_owned(), files };
        let mut read = Vec::new();
        source.read(100, |index, Item { path, bytes }| {
            read.push((index, path, bytes.map_err(|error| error.code())));
            true
        });
        let expected = [
            (0, "a.png", Ok("a.png".into())),
            (1, "b.png", Err(Code::UnreadableFile)),
            (2, "c.png", Ok("c.png".into())),
        ];
        assert_eq!(read, expected.map(|(index, path, bytes)| (index, path.to_owned(), bytes)));
    }
}
