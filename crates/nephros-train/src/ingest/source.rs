//! What `source_URL` names, and the zip or folder it becomes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    IngestError, Network,
    download::{Checksum, Downloaded},
    extract,
    google_drive::DriveFile,
};
use crate::{config::DataIngestion, files::write_atomic, progress::Progress};

/// What `source_URL` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Drive(DriveFile),
    Web(String),
    Zip(PathBuf),
    Folder(PathBuf),
}

/// What there is to read images from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Zip { path: PathBuf, sha256: String },
    Folder { path: PathBuf },
}

/// Lies beside a downloaded zip and says what it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Receipt {
    source: String,
    bytes: u64,
    sha256: String,
}

impl Source {
    /// Tells the kinds apart; `root` is where relative paths start.
    pub(super) fn of(text: &str, root: &Path) -> Result<Self, IngestError> {
        let text = text.trim();
        if let Some(file) = DriveFile::from_link(text).map_err(|error| IngestError::Download(error.into()))? {
            return Ok(Self::Drive(file));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Web(text.into()));
        }
        let path = root.join(text.strip_prefix("file://").unwrap_or(text));
        if path.is_dir() {
            Ok(Self::Folder(path))
        } else if path.is_file() {
            Ok(Self::Zip(path))
        } else {
            Err(IngestError::NoSource { source_url: text.into() })
        }
    }

    /// Fetches what is remote and verifies what is a zip.
    pub(super) fn fetch(
        &self,
        config: &DataIngestion,
        zip: &Path,
        network: &Network,
        progress: &dyn Progress,
    ) -> Result<Origin, IngestError> {
        let checksums = checksums(config);
        let path = match self {
            Self::Folder(path) => return Ok(Origin::Folder { path: path.clone() }),
            Self::Zip(path) => path.clone(),
            Self::Drive(_) | Self::Web(_) => {
                if let Some(sha256) = kept(zip, &config.source_url, &checksums) {
                    return Ok(Origin::Zip { path: zip.into(), sha256 });
                }
                return self.download(config, zip, &checksums, network, progress);
            }
        };
        let downloaded = verify(&path, &config.source_url, &checksums)?;
        Ok(Origin::Zip { path, sha256: downloaded.sha256 })
    }

    fn download(
        &self,
        config: &DataIngestion,
        zip: &Path,
        checksums: &[Checksum],
        network: &Network,
        progress: &dyn Progress,
    ) -> Result<Origin, IngestError> {
        let first = checksums.first();
        match self {
            Self::Drive(file) => file.download(&network.drive, &network.downloader, zip, first, progress)?,
            _ => network.downloader.download(&config.source_url, zip, first, progress)?,
        };
        let checked = verify(zip, &config.source_url, checksums).and_then(|downloaded| {
            extract::open(zip)?;
            Ok(downloaded)
        });
        if checked.is_err() {
            // A later run must not take it for the dataset.
            fs_err::remove_file(zip)?;
        }
        let downloaded = checked?;
        let receipt = Receipt {
            source: config.source_url.clone(),
            bytes: downloaded.bytes,
            sha256: downloaded.sha256.clone(),
        };
        write_atomic(&receipt_path(zip), serde_json::to_string_pretty(&receipt)?.as_bytes())?;
        Ok(Origin::Zip { path: zip.into(), sha256: downloaded.sha256 })
    }
}

/// SHA-256 of an earlier download of the same source that is still as it was, or of a zip that the
/// user put there.
fn kept(zip: &Path, source: &str, checksums: &[Checksum]) -> Option<String> {
    if !zip.is_file() {
        return None;
    }
    let downloaded = verify(zip, source, checksums).ok()?;
    let receipt =
        fs_err::read(receipt_path(zip)).ok().and_then(|text| serde_json::from_slice::<Receipt>(&text).ok());
    let usable = match receipt {
        Some(receipt) => receipt.source == source && receipt.sha256 == downloaded.sha256,
        None => extract::open(zip).is_ok(),
    };
    if usable {
        tracing::info!("`{}` is there already, not downloaded again", zip.display());
    }
    usable.then_some(downloaded.sha256)
}

fn checksums(config: &DataIngestion) -> Vec<Checksum> {
    let sha256 = config.sha256.clone().map(Checksum::Sha256);
    sha256.into_iter().chain(config.md5.clone().map(Checksum::Md5)).collect()
}

fn verify(path: &Path, source: &str, checksums: &[Checksum]) -> Result<Downloaded, IngestError> {
    let downloaded = super::download::downloaded(path)?;
    for checksum in checksums {
        if let Some((algorithm, expected, got)) = checksum.compare(path)? {
            return Err(IngestError::Checksum { source_url: source.into(), algorithm, expected, got });
        }
    }
    Ok(downloaded)
}

fn receipt_path(zip: &Path) -> PathBuf {
    super::download::with_suffix(zip, ".json")
}
