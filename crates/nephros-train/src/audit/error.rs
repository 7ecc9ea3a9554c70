//! Why there is nothing to audit.

use std::{io, path::PathBuf};

use nephros_core::hint::Hint;

use crate::{
    ingest::{extract::ExtractError, sidecar::SidecarError},
    manifest::ManifestError,
    progress::Cancelled,
};

/// Why an audit failed. Single images that cannot be read are listed and no failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// No such path.
    #[error("`{path}` does not exist")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// No image files.
    #[error("`{path}` holds no images")]
    NoImages {
        /// The path.
        path: PathBuf,
    },
    /// None that can be decoded.
    #[error("`{path}` holds no usable image: none of {broken} can be decoded")]
    NoUsable {
        /// The path.
        path: PathBuf,
        /// Image files.
        broken: usize,
    },
    /// The zip cannot be extracted.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The patients' CSV cannot be used.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Hint for AuditError {
    fn hint(&self) -> Option<String> {
        match self {
            // What the archive's own error advises is about config.yaml.
            Self::Missing { .. } | Self::Extract(ExtractError::NotZip { .. }) => Some(
                "name a folder of images, a zip of one, or the `manifest.csv` of `nephros ingest`".into(),
            ),
            Self::NoImages { .. } => {
                Some("JPEG, PNG, BMP, TIFF and WebP files are looked for, at any depth".into())
            }
            Self::NoUsable { .. } => Some("run with a folder of images that open elsewhere".into()),
            Self::Extract(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
            Self::Sidecar(error) => error.hint(),
            Self::Io(_) | Self::Cancelled(_) => None,
        }
    }
}
