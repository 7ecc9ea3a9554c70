//! The table of published weights and the cache folder.

use std::{
    io,
    path::{Path, PathBuf},
};

use nephros_core::{digest, network::Architecture};

use super::PretrainedError;
use crate::{
    ingest::download::{Checksum, DownloadError, Downloader, md5_file},
    progress::Progress,
};

/// A file of published weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Address.
    pub url: String,
    /// What the file hashes to.
    pub checksum: Checksum,
}

/// Files of ImageNet weights for an architecture, the one to download first.
///
/// Checksums: `keras/applications/vgg16.py` and the file name of
/// `torchvision/models/vgg.py`.
pub fn published(architecture: Architecture) -> Vec<Published> {
    match architecture {
        Architecture::Vgg16 | Architecture::Vgg16Hypercolumn => vec![
            Published {
                url: "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/\
                      vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
                    .to_owned(),
                checksum: Checksum::Md5("6d6bbae143d832006294945121d1f1fc".to_owned()),
            },
            // Ten times the size, as its 1000-class head is in it: used where somebody put it.
            Published {
                url: "https://download.pytorch.org/models/vgg16-397923af.pth".to_owned(),
                checksum: Checksum::Sha256Prefix("397923af".to_owned()),
            },
        ],
        Architecture::Compact | Architecture::CompactPlaces => Vec::new(),
    }
}

/// Address and path of the first file of `published` that is in `cache_dir` and verified;
/// otherwise the first one is downloaded to it.
///
/// # Errors
/// [`PretrainedError::NotPublished`] if the list is empty, [`PretrainedError::Unavailable`] and
/// [`PretrainedError::Cancelled`].
pub fn fetch(
    architecture: Architecture,
    published: &[Published],
    downloader: Downloader,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<(String, PathBuf), PretrainedError> {
    let Some(preferred) = published.first() else {
        return Err(PretrainedError::NotPublished { architecture });
    };
    for file in published {
        let path = file.path(cache_dir);
        if path.is_file() && is_verified(&path, &file.checksum)? {
            tracing::info!(path = %path.display(), "pretrained weights found in the cache");
            return Ok((file.url.clone(), path));
        }
    }
    let destination = preferred.path(cache_dir);
    fs_err::create_dir_all(cache_dir)?;
    match downloader.download(&preferred.url, &destination, Some(&preferred.checksum), progress) {
        Ok(_) => Ok((preferred.url.clone(), destination)),
        Err(DownloadError::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(source) => Err(PretrainedError::Unavailable {
            url: preferred.url.clone(),
            destination,
            checksum: describe(&preferred.checksum),
            source: Box::new(source),
        }),
    }
}

impl Published {
    fn path(&self, cache_dir: &Path) -> PathBuf {
        cache_dir.join(self.url.rsplit('/').next().unwrap_or_default())
    }
}

fn is_verified(path: &Path, checksum: &Checksum) -> io::Result<bool> {
    Ok(match checksum {
        Checksum::Sha256(digits) => digest::sha256_file(path)?.eq_ignore_ascii_case(digits),
        Checksum::Sha256Prefix(digits) => digest::sha256_file(path)?.starts_with(&digits.to_lowercase()),
        Checksum::Md5(digits) => md5_file(path)?.eq_ignore_ascii_case(digits),
    })
}

fn describe(checksum: &Checksum) -> String {
    match checksum {
        Checksum::Sha256(digits) => format!("sha256 {digits}"),
        Checksum::Sha256Prefix(digits) => format!("sha256 starts with {digits}"),
        Checksum::Md5(digits) => format!("md5 {digits}"),
    }
}
