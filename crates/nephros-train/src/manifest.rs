//! `manifest.csv`: one line for each image that can be used.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Path relative to the folder of the class folders, with `/`.
    pub path: String,
    /// Name of the class folder.
    pub class: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Patient (or series), empty when unknown.
    pub patient: String,
}

/// All usable images, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Folder of the class folders.
    pub root: PathBuf,
    /// One record an image.
    pub records: Vec<Record>,
}
