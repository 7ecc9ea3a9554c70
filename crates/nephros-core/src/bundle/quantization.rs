//! The 8-bit weights of a bundle: two more files, and what is known about them.
//!
//! `weights.int8.safetensors` is what [`Architecture::quantize`] writes and is enough to predict
//! with; `golden.int8.safetensors` holds the golden images with the answers of the 8-bit model.
//!
//! [`Architecture::quantize`]: crate::network::Architecture::quantize

use std::{io, path::Path};

use nephros_conv::{Calibration, Options};
use serde::{Deserialize, Serialize};

use super::{
    Bundle, BundleError, BundleMeta, FORMAT_VERSION, GOLDEN_FILE, INPUT_GATE_FILE, META_FILE, PLAIN_VERSION,
    WEIGHTS_FILE,
    evaluation::{EVALUATION_FILE, FORCED_FILE},
    golden::Golden,
    meta_bytes, model_error, open, read_meta, read_verified, verified,
};
use crate::{
    digest::sha256,
    network::Precision,
    predictor::{Head, ModelError, Predictor},
    weights::{ArrayFile, Arrays, replace_file},
};

pub(super) const WEIGHTS_INT8_FILE: &str = "weights.int8.safetensors";
pub(super) const GOLDEN_INT8_FILE: &str = "golden.int8.safetensors";

/// `quantization` in `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Precision of a prediction that does not ask for one.
    pub default: Precision,
    /// SHA-256 of `weights.int8.safetensors`.
    pub weights_sha256: String,
    /// SHA-256 of `golden.int8.safetensors`.
    pub golden_sha256: String,
    /// What the maps were measured on.
    pub calibration: CalibrationSet,
    /// What 8 bits change on other images.
    pub holdout: Holdout,
    /// Version of nephros that quantised.
    pub crate_version: String,
}

/// The images that the ranges of the 8-bit maps come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationSet {
    /// Images.
    pub images: usize,
    /// Patients; `None` where they are not known and images were divided one by one.
    pub patients: Option<usize>,
    /// SHA-256 of the images' sorted SHA-256 digests, one a line.
    pub digest: String,
}

/// The 8-bit model beside the f32 model, on images that it was not calibrated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// Images.
    pub images: usize,
    /// Patients; `None` as in [`CalibrationSet::patients`].
    pub patients: Option<usize>,
    /// SHA-256 as in [`CalibrationSet::digest`].
    pub digest: String,
    /// Largest difference of a probability as the networks give it, before calibration.
    pub largest_change: f64,
    /// Mean, over images, of the largest difference of an image's probabilities.
    pub mean_change: f64,
    /// Images whose most probable label differs.
    pub labels_changed: usize,
    /// The same as a share of the images.
    pub share_changed: f64,
    /// Largest share with which the 8-bit model becomes the default.
    pub tolerance: f64,
    /// Area under the ROC curve in f32; `None` where the classes are not known or one is missing.
    pub auroc_f32: Option<f64>,
    /// The same in 8 bits.
    pub auroc_int8: Option<f64>,
    /// What 8 bits do to the input gate; `None` for a bundle without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_distance: Option<DistanceChange>,
}

/// The distance of features from those trained on, in f32 and in 8 bits. The training images'
/// features are those of f32 in both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceChange {
    /// Limit in f32.
    pub limit_f32: f64,
    /// Limit in 8 bits.
    pub limit_int8: f64,
    /// Images beyond the limit of f32, in f32.
    pub beyond_f32: usize,
    /// The same images in 8 bits, beyond the limit of f32.
    pub beyond_f32_in_int8: usize,
    /// Images in 8 bits beyond their own limit.
    pub beyond_int8: usize,
    /// Mean difference, in 8 bits less in f32.
    pub mean_change: f64,
}

impl Holdout {
    /// The precision that the figures allow as default.
    pub fn default_precision(&self) -> Precision {
        if self.share_changed <= self.tolerance { Precision::Int8 } else { Precision::F32 }
    }
}

/// An 8-bit model that is not in a bundle yet.
#[derive(Debug)]
pub struct Quantized {
    /// The model, ready to use: built from the bytes that a bundle will hold.
    pub predictor: Predictor,
    weights: Vec<u8>,
}

impl Bundle {
    /// The description of a bundle and its f32 weights, verified, to be read one by one.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn open_weights(dir: &Path) -> Result<(BundleMeta, ArrayFile), BundleError> {
        let meta = read_meta(dir)?;
        let path = dir.join(WEIGHTS_FILE);
        let file = open(&path, &meta.weights_sha256)?;
        verified(&file, &path, &meta.weights_sha256, || Ok(()))?;
        Ok((meta, file))
    }
}

/// What `make` makes of the f32 weights, which it gets to see before they are known to be whole.
pub(super) fn with_floats<T: Send>(
    dir: &Path,
    meta: &BundleMeta,
    make: impl FnOnce(&dyn Arrays) -> Result<T, BundleError> + Send,
) -> Result<T, BundleError> {
    let path = dir.join(WEIGHTS_FILE);
    let file = open(&path, &meta.weights_sha256)?;
    verified(&file, &path, &meta.weights_sha256, || make(&file))
}

impl Quantized {
    /// Quantises the model of the bundle `dir`.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn new(dir: &Path, calibration: &Calibration) -> Result<Self, BundleError> {
        let (meta, file) = Bundle::open_weights(dir)?;
        let head = (meta.labels.len(), meta.hidden_units);
        let size = meta.preprocessing.image_size;
        let weights = meta
            .architecture
            .quantize(&file, size, head, calibration)
            .map_err(|error| model_error(dir)(error.into()))?;
        let file = ArrayFile::from_bytes(weights.clone(), &dir.join(WEIGHTS_INT8_FILE))?;
        Ok(Self { predictor: build(&meta, &file).map_err(model_error(dir))?, weights })
    }

    /// Writes the model into the bundle `to`, which is the bundle `from` or becomes a copy of it.
    ///
    /// Other files in `to` stay. Whatever happens on the way, `to` is a whole bundle or none:
    /// while the files of 8-bit weights are replaced, its `bundle.json` does not speak of them.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn save(
        &self,
        from: &Path,
        to: &Path,
        calibration: CalibrationSet,
        holdout: Holdout,
    ) -> Result<BundleMeta, BundleError> {
        let meta = read_meta(from)?;
        let golden_path = from.join(GOLDEN_FILE);
        let golden = Golden::from_bytes(&read_verified(&golden_path, &meta.golden_sha256)?, &golden_path)?;
        let golden = golden
            .answered_by(&self.predictor)?
            .to_bytes()
            .map_err(|source| BundleError::GoldenFormat { path: to.join(GOLDEN_INT8_FILE), source })?;
        prepare(from, to, &meta)?;
        replace_file(&to.join(WEIGHTS_INT8_FILE), &self.weights)?;
        replace_file(&to.join(GOLDEN_INT8_FILE), &golden)?;
        let quantization = Quantization {
            default: holdout.default_precision(),
            weights_sha256: sha256(&self.weights),
            golden_sha256: sha256(&golden),
            calibration,
            holdout,
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let meta = BundleMeta { format_version: FORMAT_VERSION, quantization: Some(quantization), ..meta };
        replace_file(&to.join(META_FILE), &meta_bytes(to, &meta)?)?;
        Ok(meta)
    }
}

/// Makes `to` a bundle without 8-bit weights, or, where it is another folder than `from`, none with
/// all files of one but `bundle.json`.
fn prepare(from: &Path, to: &Path, meta: &BundleMeta) -> Result<(), BundleError> {
    fs_err::create_dir_all(to)?;
    if fs_err::canonicalize(from)? == fs_err::canonicalize(to)? {
        if meta.quantization.is_some() {
            let plain = BundleMeta { format_version: PLAIN_VERSION, quantization: None, ..meta.clone() };
            replace_file(&to.join(META_FILE), &meta_bytes(to, &plain)?)?;
        }
        return Ok(());
    }
    match fs_err::remove_file(to.join(META_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut files = vec![(WEIGHTS_FILE, &meta.weights_sha256), (GOLDEN_FILE, &meta.golden_sha256)];
    files.extend(meta.input_gate.iter().map(|profile| (INPUT_GATE_FILE, &profile.sha256)));
    for (name, digest) in files {
        replace_file(&to.join(name), &read_verified(&from.join(name), digest)?)?;
    }
    [EVALUATION_FILE, FORCED_FILE].iter().try_for_each(|name| copy(&from.join(name), &to.join(name)))
}

/// Makes `to` what `from` is, missing if that is.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), BundleError> {
    match fs_err::read(from) {
        Ok(bytes) => Ok(replace_file(to, &bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs_err::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The 8-bit model of a bundle.
pub(super) fn build(meta: &BundleMeta, file: &ArrayFile) -> Result<Predictor, ModelError> {
    let (architecture, size) = (meta.architecture, meta.preprocessing.image_size);
    let features = architecture.build_quantized_features(file, size, Options::default())?;
    let head = Head::new(architecture, meta.hidden_units, meta.labels.len(), size, file)?;
    let (labels, preprocessing) = (meta.labels.clone(), meta.preprocessing.clone());
    let id = format!("{}-{}", meta.id, Precision::Int8);
    Predictor::assemble(id, labels, preprocessing, features, head)
}
