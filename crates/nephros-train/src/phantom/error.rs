//! Why a cohort was not written.

use std::{io, path::PathBuf};

use nephros_core::hint::Hint;

use crate::progress::Cancelled;

/// Why a cohort was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhantomError {
    /// There would be nothing to write.
    #[error("a cohort needs at least 1 {what}, got 0")]
    Nothing {
        /// `patient` or `slice a patient`.
        what: &'static str,
    },
    /// Some class would have no patient.
    #[error("a cohort of {classes} classes needs at least {classes} patients, got {patients}")]
    TooFewPatients {
        /// Classes asked for.
        classes: usize,
        /// Patients asked for.
        patients: usize,
    },
    /// No class, or the same twice.
    #[error("a cohort needs one or more different classes, got `{found}`")]
    Classes {
        /// The list as given.
        found: String,
    },
    /// The images' side is out of range.
    #[error("image size must be 64 to 2048 pixels, got {size}")]
    Size {
        /// As given.
        size: usize,
    },
    /// Replacing the folder would delete somebody's files.
    #[error("`{}` is not empty and holds `{found}`, which is not from an earlier cohort", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// The first foreign entry.
        found: String,
    },
    /// The cohort would not fit.
    #[error(
        "the cohort needs about {} MiB, expected that much free space for `{}`, got {} MiB",
        needed >> 20, path.display(), available >> 20
    )]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Estimated bytes.
        needed: u64,
        /// Free bytes.
        available: u64,
    },
    /// A file or folder could not be read or written.
    #[error("`{}` cannot be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Stopped by the user; nothing is left behind.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl PhantomError {
    /// Wraps the system's reason with the path it concerns.
    pub(super) fn write(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Write { path: path.to_path_buf(), source }
    }
}

impl Hint for PhantomError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing { .. } => Some("40 patients with 12 slices each make a good small cohort".into()),
            Self::TooFewPatients { classes, .. } => Some(format!(
                "ask for a multiple of {classes} patients, at least {}, so that each class can be split",
                5 * classes
            )),
            Self::Classes { .. } => Some("name each of Normal, Tumor, Cyst and Stone at most once".into()),
            Self::Size { .. } => Some("a CT slice has 512".into()),
            Self::Occupied { .. } => Some("choose a new folder, or move those files away".into()),
            Self::NoSpace { .. } => {
                Some("free some space, choose another disk, or draw fewer patients or slices".into())
            }
            Self::Write { source, .. } => Some(match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "the disk is full; free some space or choose another one".into()
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a folder that you may write to".into()
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    "a part of this path is a file; choose another folder".into()
                }
                _ => "check that the folder exists and may be written".into(),
            }),
            Self::Cancelled(_) => None,
        }
    }
}
