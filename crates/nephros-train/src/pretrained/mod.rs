//! Published weights: found, downloaded, verified, read.

mod file;
mod published;
mod random;

use std::path::{Path, PathBuf};

use nephros_core::{
    digest,
    hint::Hint,
    keras::KerasError,
    network::Architecture,
    preprocessing::Normalization,
    weights::{Weights, WeightsError},
};

pub use published::{Published, fetch, published};

use crate::{
    config::WeightsSource,
    ingest::download::{DownloadError, Downloader},
    progress::{Cancelled, Progress},
};

/// Weights of a feature extractor, without a head.
#[derive(Debug, Clone, PartialEq)]
pub struct Pretrained {
    /// One array for each key of [`Architecture::expected_feature_shapes`], nothing else.
    pub weights: Weights,
    /// The convention of the pixels that the weights were trained with.
    pub normalization: Normalization,
    /// Where they come from, for people: an address, a path or a seed.
    pub source: String,
    /// SHA-256 of the file; of the safetensors form for random weights.
    pub sha256: String,
}

/// No weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// `WEIGHTS: imagenet` with a network that nobody published weights for.
    #[error("no ImageNet weights are published for `ARCHITECTURE: {architecture}`")]
    NotPublished {
        /// The network.
        architecture: Architecture,
    },
    /// Published weights that are neither cached nor to be had.
    #[error("`{url}` cannot be downloaded to `{destination}`")]
    Unavailable {
        /// Address.
        url: String,
        /// Where the file belongs.
        destination: PathBuf,
        /// Its checksum, for people: `md5 6d6b…`.
        checksum: String,
        /// Why not.
        source: Box<DownloadError>,
    },
    /// Stopped while downloading.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file of a kind that cannot be read.
    #[error("`{path}`: expected weights as `.h5`, `.pth` or `.safetensors`")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// A Keras file that cannot be read.
    #[error(transparent)]
    Keras(#[from] KerasError),
    /// A PyTorch file that cannot be read.
    #[error("`{path}` is not a PyTorch checkpoint of a state dict")]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: Box<burn_store::pytorch::PytorchError>,
    },
    /// An array of a PyTorch file with another type than float32.
    #[error("`{path}`: expected `{key}` as F32, got {got:?}")]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The array.
        key: String,
        /// Its type.
        got: burn_store::pytorch_reader::DType,
    },
    /// Arrays that do not fit the network.
    #[error("`{path}` does not hold the weights of `ARCHITECTURE: {architecture}`")]
    Weights {
        /// The file.
        path: PathBuf,
        /// The network.
        architecture: Architecture,
        /// What does not fit.
        source: WeightsError,
    },
    /// The network cannot take images of this size.
    #[error("`IMAGE_SIZE: {got:?}` is too small for `ARCHITECTURE: {architecture}`, or not RGB")]
    ImageSize {
        /// The network.
        architecture: Architecture,
        /// Height, width and channels.
        got: [usize; 3],
    },
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Hint for PretrainedError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotPublished { .. } => {
                Some("set `WEIGHTS: none` to train it from scratch, or `ARCHITECTURE: vgg16`".to_owned())
            }
            Self::Unavailable { destination, checksum, .. } => Some(format!(
                "put the file ({checksum}) at `{}`, or set `WEIGHTS: none`, which starts from random \
                 weights and goes better with `ARCHITECTURE: compact`",
                destination.display()
            )),
            Self::Kind { .. } => Some("`WEIGHTS` is `imagenet`, `none` or the path of a file".to_owned()),
            Self::Keras(error) => error.hint(),
            Self::Pytorch { .. } => {
                Some("save the weights with `torch.save(model.state_dict(), \"weights.pth\")`".to_owned())
            }
            Self::ElementType { .. } => Some("save the weights after `model.float()`".to_owned()),
            Self::Weights { source, .. } => source.hint(),
            Self::ImageSize { .. } => Some("`IMAGE_SIZE` is [height, width, 3], at least 32 each".to_owned()),
            Self::Cancelled(_) | Self::Io(_) => None,
        }
    }
}

/// The weights that `WEIGHTS` names.
///
/// `imagenet` takes a verified file of `cache_dir` or downloads one to it; `none` draws from `seed`
/// (He et al., 2015), the same on every machine; a path is read as what its extension says.
/// `image_size` is only checked: features do not depend on it.
///
/// VGG16 from a Keras file is [`Normalization::Caffe`], from other files
/// [`Normalization::Torchvision`]; compact networks and random weights are [`Normalization::Unit`],
/// as nothing was published that says otherwise.
///
/// # Errors
/// See [`PretrainedError`].
pub fn load(
    architecture: Architecture,
    image_size: [usize; 3],
    source: &WeightsSource,
    seed: u64,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<Pretrained, PretrainedError> {
    if image_size[2] != 3 || image_size[0].min(image_size[1]) < architecture.least_side() {
        return Err(PretrainedError::ImageSize { architecture, got: image_size });
    }
    match source {
        WeightsSource::Imagenet => {
            let (url, path) =
                fetch(architecture, &published(architecture), Downloader::default(), cache_dir, progress)?;
            Ok(Pretrained { source: url, ..read(architecture, &path)? })
        }
        WeightsSource::None => {
            let weights = random::he_normal(architecture, seed);
            let bytes = weights.to_bytes();
            let bytes = bytes.map_err(|source| PretrainedError::Weights {
                path: PathBuf::from("none"),
                architecture,
                source,
            })?;
            Ok(Pretrained {
                weights,
                normalization: Normalization::Unit,
                source: format!("random, seed {seed}"),
                sha256: digest::sha256(&bytes),
            })
        }
        WeightsSource::File(path) => read(architecture, Path::new(path)),
    }
}

fn read(architecture: Architecture, path: &Path) -> Result<Pretrained, PretrainedError> {
    let (weights, normalization) = file::read(architecture, path)?;
    Ok(Pretrained {
        weights,
        normalization,
        source: path.display().to_string(),
        sha256: digest::sha256_file(path)?,
    })
}

/// Where downloaded weights are kept for all projects of a user: `$NEPHROS_CACHE`, else `nephros`
/// in the user's cache folder, else `.nephros-cache` here.
pub fn cache_dir() -> PathBuf {
    let folder =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("NEPHROS_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("nephros")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/nephros")))
        .unwrap_or_else(|| ".nephros-cache".into())
}
