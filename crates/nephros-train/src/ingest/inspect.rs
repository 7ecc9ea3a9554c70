//! Every file of the class folders read, hashed and decoded once.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use nephros_core::{digest, pixels};
use rayon::prelude::*;

use super::layout::{ClassFile, Layout};
use crate::progress::{self, Cancelled, Progress, Unit};

/// Larger files are no slices; they are not read into memory.
pub(crate) const MAX_FILE_BYTES: u64 = 512 << 20;

/// One file of a class folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Path and class.
    pub file: ClassFile,
    /// SHA-256 of the file, empty when it cannot be read.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Width and height, or why it is no usable image.
    pub size: Result<(usize, usize), String>,
}

/// Images with the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Twins {
    /// Groups within one class.
    pub duplicates: Vec<Vec<String>>,
    /// Groups with members in several classes.
    pub conflicts: Vec<Vec<String>>,
}

/// Decodes every file on all cores; the order is that of the layout.
///
/// # Errors
/// [`Cancelled`].
pub fn inspect(layout: &Layout, progress: &dyn Progress) -> Result<Vec<Inspected>, Cancelled> {
    let task = progress.task("check images", Some(layout.files.len() as u64), Unit::Items);
    let stopped = AtomicBool::new(false);
    let inspected: Vec<Inspected> = layout
        .files
        .par_iter()
        .filter_map(|file| {
            if stopped.load(Ordering::Relaxed) || progress::check(progress).is_err() {
                stopped.store(true, Ordering::Relaxed);
                return None;
            }
            let inspected = inspect_file(&layout.root.join(&file.path), file);
            task.advance(1);
            Some(inspected)
        })
        .collect();
    if stopped.into_inner() { Err(Cancelled) } else { Ok(inspected) }
}

fn inspect_file(path: &Path, file: &ClassFile) -> Inspected {
    let failed = |bytes, sha256, reason| Inspected { file: file.clone(), sha256, bytes, size: Err(reason) };
    let length = match fs_err::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) => return failed(0, String::new(), error.to_string()),
    };
    if length > MAX_FILE_BYTES {
        return failed(
            length,
            String::new(),
            format!("expected at most {MAX_FILE_BYTES} bytes, got {length}"),
        );
    }
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return failed(length, String::new(), error.to_string()),
    };
    let sha256 = digest::sha256(&bytes);
    match pixels::decode(&bytes) {
        Ok(image) => {
            let size = Ok((image.width(), image.height()));
            Inspected { file: file.clone(), sha256, bytes: length, size }
        }
        Err(error) => failed(length, sha256, error.to_string()),
    }
}

/// Groups usable images by their bytes.
pub fn twins(inspected: &[Inspected]) -> Twins {
    let mut groups: BTreeMap<&str, Vec<&Inspected>> = BTreeMap::new();
    for image in inspected.iter().filter(|image| image.size.is_ok()) {
        groups.entry(&image.sha256).or_default().push(image);
    }
    let mut twins = Twins::default();
    for group in groups.into_values().filter(|group| group.len() > 1) {
        let paths = group.iter().map(|image| image.file.path.clone()).collect();
        if group.iter().all(|image| image.file.class == group[0].file.class) {
            twins.duplicates.push(paths);
        } else {
            twins.conflicts.push(paths);
        }
    }
    twins.duplicates.sort();
    twins.conflicts.sort();
    twins
}

/// SHA-256 over the path and contents of every file of the layout.
///
/// # Errors
/// A file cannot be read.
pub fn fingerprint(layout: &Layout) -> io::Result<String> {
    let lines: Vec<String> = layout
        .files
        .par_iter()
        .map(|file| Ok(format!("{}\t{}\n", file.path, digest::sha256_file(&layout.root.join(&file.path))?)))
        .collect::<io::Result<_>>()?;
    Ok(digest::sha256(lines.concat().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, class: usize, sha256: &str) -> Inspected {
        let file = ClassFile { path: path.into(), class };
        Inspected { file, sha256: sha256.into(), bytes: 1, size: Ok((1, 1)) }
    }

    #[test]
    fn twins_in_one_class_and_across_classes_are_told_apart() {
        let broken = Inspected { size: Err("no image".into()), ..image("A/5", 0, "x") };
        let images =
            [image("A/1", 0, "x"), image("A/2", 0, "x"), image("A/3", 0, "y"), image("B/4", 1, "y"), broken];
        let twins = twins(&images);
        assert_eq!(twins.duplicates, [["A/1", "A/2"]]);
        assert_eq!(twins.conflicts, [["A/3", "B/4"]]);
    }
}
