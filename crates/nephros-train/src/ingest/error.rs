//! Why there is no checked dataset.

use std::{io, path::PathBuf};

use nephros_core::hint::Hint;

use super::{download::DownloadError, extract::ExtractError, layout::LayoutError, sidecar::SidecarError};
use crate::{files::NoSpace, manifest::ManifestError, progress::Cancelled};

/// Why stage `ingest` failed; nothing that looks like its result is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// Neither an address nor a path that exists.
    #[error("`source_URL`: expected a Google Drive link, an http(s) address, a zip or a folder, got `{source_url}`")]
    NoSource {
        /// The value.
        source_url: String,
    },
    /// The source and the destination are one tree.
    #[error("`source_URL`: expected a folder apart from `{destination}`, where `ingest` writes, got `{source_url}`")]
    Overlap {
        /// The value.
        source_url: String,
        /// Folder of the class folders.
        destination: PathBuf,
    },
    /// The download failed.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The zip is another than the configured one.
    #[error("`{source_url}`: expected {algorithm} `{expected}`, got `{got}`")]
    Checksum {
        /// `source_URL`.
        source_url: String,
        /// `SHA-256` or `MD5`.
        algorithm: &'static str,
        /// Digits expected.
        expected: String,
        /// Digits of the file.
        got: String,
    },
    /// The zip cannot be extracted.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// There are no usable class folders.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The patients' CSV cannot be used.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// A class with fewer images than can be split.
    #[error("`{source_url}`: expected at least 2 usable images in class `{class}`, got {usable} among {files} files")]
    TooFewImages {
        /// `source_URL`.
        source_url: String,
        /// The class.
        class: String,
        /// Images that can be decoded.
        usable: usize,
        /// Files in the class folder.
        files: usize,
        /// `quarantine.csv`.
        quarantine: PathBuf,
    },
    /// A class with fewer patients than can be split.
    #[error("`{source_url}`: expected at least 2 patients in class `{class}`, got {patients} with {images} images")]
    TooFewPatients {
        /// `source_URL`.
        source_url: String,
        /// The class.
        class: String,
        /// Different patients.
        patients: usize,
        /// Usable images.
        images: usize,
    },
    /// Another process ingests into the same folder.
    #[error("another `ingest` is at work in `{folder}`")]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The manifest cannot be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
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

impl From<serde_json::Error> for IngestError {
    fn from(error: serde_json::Error) -> Self {
        Self::Io(error.into())
    }
}

impl Hint for IngestError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSource { .. } => "relative paths start at the project folder".into(),
            Self::Overlap { .. } => "move the images to a folder of their own, such as `data/`".into(),
            Self::Checksum { .. } => {
                "correct `sha256` or `md5` in config.yaml, or fetch the file that they belong to".into()
            }
            Self::TooFewImages { usable, files, quarantine, .. } if usable < files => {
                format!("`{}` says why each of the others cannot be used", quarantine.display())
            }
            Self::TooFewImages { .. } => "training and test need an image of each class".into(),
            Self::TooFewPatients { .. } => {
                "add patients; `SPLIT_BY: random` works too, but its scores say nothing about new patients".into()
            }
            Self::Busy { .. } => "wait until it ends".into(),
            Self::Download(error) => return error.hint(),
            Self::Extract(error) => return error.hint(),
            Self::Layout(error) => return error.hint(),
            Self::Sidecar(error) => return error.hint(),
            Self::Manifest(error) => return error.hint(),
            Self::NoSpace(error) => return error.hint(),
            Self::Cancelled(_) | Self::Io(_) => return None,
        })
    }
}
