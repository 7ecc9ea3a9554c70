//! Which files to predict, and their pixels.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use nephros_core::pixels::{self, RgbImage};
use walkdir::{DirEntry, WalkDir};

use super::report::Failure;
use crate::errors::CliError;

/// No image within the decoder's pixel limit needs a larger file.
const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp"];

/// One line of the output to come.
#[derive(Debug)]
pub struct Input {
    /// As given, or below the folder as given.
    pub path: PathBuf,
    /// Why it cannot be read, where walking showed that already.
    failure: Option<Failure>,
}

/// The file itself, or the image files below a folder, sorted.
pub fn list(path: &Path) -> Vec<Input> {
    if !path.is_dir() {
        return vec![Input { path: path.to_owned(), failure: None }];
    }
    let inputs: Vec<Input> = WalkDir::new(path).sort_by_file_name().into_iter().filter_map(walked).collect();
    if inputs.is_empty() {
        let extensions = EXTENSIONS.map(|extension| format!(".{extension}")).join(", ");
        let failure = anyhow::Error::new(CliError::NoImages { extensions }).into();
        return vec![Input { path: path.to_owned(), failure: Some(failure) }];
    }
    inputs
}

fn walked(entry: walkdir::Result<DirEntry>) -> Option<Input> {
    match entry {
        Ok(entry) => {
            let path = entry.into_path();
            (has_image_extension(&path) && path.is_file()).then_some(Input { path, failure: None })
        }
        Err(error) => {
            let path = error.path().unwrap_or(Path::new("")).to_owned();
            Some(Input { path, failure: Some(anyhow::Error::new(error).into()) })
        }
    }
}

fn has_image_extension(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// The image files below a folder, sorted.
///
/// # Errors
/// The first part of the folder that cannot be walked, and [`CliError::NoImages`].
pub fn below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let path = entry?.into_path();
        if has_image_extension(&path) && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let extensions = EXTENSIONS.map(|extension| format!(".{extension}")).join(", ");
        return Err(CliError::NoImages { extensions }.into());
    }
    Ok(paths)
}

impl Input {
    /// Reads and decodes the file.
    pub fn read(&self) -> Result<RgbImage, Failure> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => read_image(&self.path).map_err(Failure::from),
        }
    }
}

fn read_image(path: &Path) -> anyhow::Result<RgbImage> {
    let metadata = match fs_err::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CliError::NoSuchFile.into()),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Err(CliError::NotAFile.into());
    }
    // The file may grow while it is read, or be larger than its metadata says.
    let mut bytes = Vec::with_capacity(metadata.len().min(MAX_FILE_BYTES) as usize);
    fs_err::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CliError::FileTooLarge { limit: MAX_FILE_BYTES }.into());
    }
    Ok(pixels::decode(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let below = |input: Input| input.path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        list(folder).into_iter().map(below).collect()
    }

    #[test]
    fn folders_are_walked_in_order_and_other_files_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpg", "notes.txt", "no_extension", "deep/er/c.webp"] {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        assert_eq!(names(folder.path()), ["a.jpg", "b.PNG", "deep/er/c.webp"]);
        let named = list(&folder.path().join("notes.txt"));
        assert!(named[0].failure.is_none(), "a file that is named is read whatever it is called");
    }

    #[test]
    fn a_folder_without_images_is_a_failure_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = list(folder.path());
        assert_eq!(inputs.len(), 1);
        assert_eq!(inputs[0].read().unwrap_err().error, "the folder holds no image file");
    }
}
