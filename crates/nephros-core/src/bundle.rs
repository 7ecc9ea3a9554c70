//! The model bundle: everything that a prediction needs, with its checks.
//!
//! A folder of three files. `bundle.json` is a [`BundleMeta`], `weights.safetensors` holds the
//! arrays of [`crate::weights::Weights`], and `golden.safetensors` some resized images (`input`,
//! U8 `[images, height, width, 3]`) with the answers of the model that was saved
//! (`probabilities`, F32 `[images, labels]`). A bundle is loaded only when both hashes agree and
//! the goldens, run again, give the same answers.

mod error;
mod evaluation;
mod golden;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::BundleError;
pub use evaluation::{Admission, Evaluation, Finding, FindingCode, Forced, Gate, admit, record_evaluation};
pub use golden::GOLDEN_TOLERANCE;

use crate::{
    abstention::Abstention,
    calibration::Calibration,
    digest::sha256,
    network::Architecture,
    pixels::RgbImage,
    predictor::{ModelError, Predictor},
    preprocessing::Preprocessing,
    weights::{Weights, replace_file, temporary_sibling, write_synced},
};
use golden::Golden;

/// Format that this version reads and writes.
pub const FORMAT_VERSION: u64 = 1;

const META_FILE: &str = "bundle.json";
const WEIGHTS_FILE: &str = "weights.safetensors";
const GOLDEN_FILE: &str = "golden.safetensors";

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleMeta {
    /// [`FORMAT_VERSION`].
    pub format_version: u64,
    /// Architecture and the start of the weights' SHA-256, such as `compact-1a2b3c4d`.
    pub id: String,
    /// Network.
    pub architecture: Architecture,
    /// Width of the hidden layer in the head; 0 for none.
    pub hidden_units: usize,
    /// Labels, in the order of the outputs.
    pub labels: Vec<String>,
    /// From a decoded image to network input.
    pub preprocessing: Preprocessing,
    /// SHA-256 of `weights.safetensors`.
    pub weights_sha256: String,
    /// SHA-256 of `golden.safetensors`.
    pub golden_sha256: String,
    /// The params.yaml of the training.
    pub params: Value,
    /// Digest of the dataset trained on.
    pub dataset_digest: String,
    /// Digest of the split trained with.
    pub split_digest: String,
    /// Scores at the end of the training.
    pub metrics: Value,
    /// Version of nephros that saved the bundle.
    pub crate_version: String,
    /// How probabilities are corrected; `None` leaves them as the network gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// When an image is for a radiologist; `None` answers always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abstention: Option<Abstention>,
    /// What the last evaluation found; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
}

/// What a training knows about its model; hashes, goldens and versions are added when saving.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleParts {
    /// Network.
    pub architecture: Architecture,
    /// Width of the hidden layer in the head; 0 for none.
    pub hidden_units: usize,
    /// Labels, in the order of the outputs.
    pub labels: Vec<String>,
    /// From a decoded image to network input.
    pub preprocessing: Preprocessing,
    /// The params.yaml of the training.
    pub params: Value,
    /// Digest of the dataset trained on.
    pub dataset_digest: String,
    /// Digest of the split trained with.
    pub split_digest: String,
    /// Scores at the end of the training.
    pub metrics: Value,
    /// How probabilities are corrected; `None` leaves them as the network gives them.
    pub calibration: Option<Calibration>,
    /// When an image is for a radiologist; `None` answers always.
    pub abstention: Option<Abstention>,
}

/// A loaded and verified bundle.
#[derive(Debug)]
pub struct Bundle {
    /// `bundle.json`.
    pub meta: BundleMeta,
    /// `weights.safetensors`.
    pub weights: Weights,
    /// The model, ready to use.
    pub predictor: Predictor,
}

impl Bundle {
    /// Writes a bundle to the folder `dir`, in place of the one that is there. Golden images may
    /// be of any size; their answers are computed here.
    ///
    /// The files are written to a folder beside `dir`, which then takes its name; a bundle that
    /// stood there is moved aside first and removed last.
    ///
    /// # Errors
    /// See [`BundleError`]; what was at `dir` is then still there.
    pub fn save(
        dir: &Path,
        parts: BundleParts,
        weights: &Weights,
        golden_images: &[RgbImage],
    ) -> Result<BundleMeta, BundleError> {
        if golden_images.is_empty() {
            return Err(BundleError::NoGolden);
        }
        check_labels(dir, &parts.labels, weights)?;
        let weight_bytes = weights.to_bytes()?;
        let weights_sha256 = sha256(&weight_bytes);
        let id = format!("{}-{}", parts.architecture, &weights_sha256[..8]);
        let model = |source| BundleError::Model { path: dir.to_owned(), source: Box::new(source) };
        let predictor = build(&parts, weights, id.clone()).map_err(model)?;
        let golden_bytes = Golden::record(&predictor, golden_images)?
            .to_bytes()
            .map_err(|source| BundleError::GoldenFormat { path: dir.join(GOLDEN_FILE), source })?;
        let meta = describe(parts, id, weights_sha256, sha256(&golden_bytes));
        let json =
            to_json(&meta).map_err(|source| BundleError::Meta { path: dir.join(META_FILE), source })?;
        let files = [(META_FILE, json), (WEIGHTS_FILE, weight_bytes), (GOLDEN_FILE, golden_bytes)];
        replace_folder(dir, &files)?;
        Ok(meta)
    }

    /// Reads a bundle, verifies its hashes and replays its goldens.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn load(dir: &Path) -> Result<Self, BundleError> {
        let meta = read_meta(dir)?;
        let weight_bytes = read_verified(dir.join(WEIGHTS_FILE), &meta.weights_sha256)?;
        let weights = Weights::from_bytes(&weight_bytes, &dir.join(WEIGHTS_FILE))?;
        drop(weight_bytes);
        let golden_path = dir.join(GOLDEN_FILE);
        let golden_bytes = read_verified(golden_path.clone(), &meta.golden_sha256)?;
        let golden = Golden::from_bytes(&golden_bytes, &golden_path)?;
        check_labels(&dir.join(META_FILE), &meta.labels, &weights)?;
        check_reading(&dir.join(META_FILE), &meta)?;
        let model = |source| BundleError::Model { path: dir.to_owned(), source: Box::new(source) };
        let predictor = build(&meta.parts(), &weights, meta.id.clone()).map_err(model)?;
        // The goldens are of the network itself, whatever is made of its answers.
        golden.replay(&predictor, &golden_path)?;
        let predictor = predictor.with_reading(
            meta.calibration.clone(),
            meta.abstention.clone(),
            meta.evaluation.clone(),
        );
        Ok(Self { meta, weights, predictor })
    }
}

impl BundleMeta {
    /// What the training knew, for saving the model again.
    pub fn parts(&self) -> BundleParts {
        let Self { labels, preprocessing, params, dataset_digest, split_digest, metrics, .. } = self.clone();
        let (calibration, abstention) = (self.calibration.clone(), self.abstention.clone());
        let (architecture, hidden_units) = (self.architecture, self.hidden_units);
        BundleParts {
            architecture,
            hidden_units,
            labels,
            preprocessing,
            params,
            dataset_digest,
            split_digest,
            metrics,
            calibration,
            abstention,
        }
    }
}

fn build(parts: &BundleParts, weights: &Weights, id: String) -> Result<Predictor, ModelError> {
    let (labels, preprocessing) = (parts.labels.clone(), parts.preprocessing.clone());
    Predictor::from_parts(parts.architecture, parts.hidden_units, labels, preprocessing, weights, id)
}

fn describe(parts: BundleParts, id: String, weights_sha256: String, golden_sha256: String) -> BundleMeta {
    BundleMeta {
        format_version: FORMAT_VERSION,
        id,
        architecture: parts.architecture,
        hidden_units: parts.hidden_units,
        labels: parts.labels,
        preprocessing: parts.preprocessing,
        weights_sha256,
        golden_sha256,
        params: parts.params,
        dataset_digest: parts.dataset_digest,
        split_digest: parts.split_digest,
        metrics: parts.metrics,
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        calibration: parts.calibration,
        abstention: parts.abstention,
        evaluation: None,
    }
}

/// The version is looked at first: a later format may have fields that this one refuses.
fn read_meta(dir: &Path) -> Result<BundleMeta, BundleError> {
    let path = dir.join(META_FILE);
    let bytes = fs_err::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BundleError::NotFound { path: dir.to_owned() },
        _ => BundleError::Io(error),
    })?;
    let meta = |source| BundleError::Meta { path: path.clone(), source };
    let version = serde_json::from_slice::<Value>(&bytes).map_err(meta)?["format_version"].clone();
    match version.as_u64() {
        Some(got) if got > FORMAT_VERSION => Err(BundleError::Newer { path, got }),
        Some(FORMAT_VERSION) => serde_json::from_slice(&bytes).map_err(meta),
        _ => Err(BundleError::FormatVersion { path, got: version.to_string() }),
    }
}

fn read_verified(path: PathBuf, expected: &str) -> Result<Vec<u8>, BundleError> {
    let bytes = match fs_err::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BundleError::MissingFile { path });
        }
        read => read?,
    };
    let got = sha256(&bytes);
    if got == expected {
        return Ok(bytes);
    }
    Err(BundleError::Hash { path, expected: expected.to_owned(), got })
}

fn check_labels(path: &Path, labels: &[String], weights: &Weights) -> Result<(), BundleError> {
    // A head that is missing altogether is told by the network, with its key.
    let outputs = weights.0.get("head.weight").and_then(|head| head.shape.first());
    match outputs {
        Some(&outputs) if outputs != labels.len() => {
            Err(BundleError::Labels { path: path.to_owned(), labels: labels.len(), outputs })
        }
        _ => Ok(()),
    }
}

/// What is made of the network's answers must be usable for these labels.
fn check_reading(path: &Path, meta: &BundleMeta) -> Result<(), BundleError> {
    let refuse = |key, got| Err(BundleError::Reading { path: path.to_owned(), key, got });
    match (&meta.calibration, &meta.abstention) {
        (Some(calibration), _) if !calibration.is_usable() => {
            refuse("calibration", format!("temperature {}", calibration.temperature))
        }
        (_, Some(abstention)) if !abstention.is_usable(meta.labels.len()) => {
            let (thresholds, rate) = (&abstention.thresholds, abstention.error_rate);
            refuse("abstention", format!("thresholds {thresholds:?} at error rate {rate}"))
        }
        _ => Ok(()),
    }
}

/// Changes `bundle.json` alone, by a new file that takes its name.
fn update_meta(dir: &Path, change: impl FnOnce(&mut BundleMeta)) -> Result<(), BundleError> {
    let mut meta = read_meta(dir)?;
    change(&mut meta);
    let path = dir.join(META_FILE);
    let json = to_json(&meta).map_err(|source| BundleError::Meta { path: path.clone(), source })?;
    Ok(replace_file(&path, &json)?)
}

fn to_json(meta: &BundleMeta) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(meta)?;
    json.push(b'\n');
    Ok(json)
}

fn replace_folder(dir: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let fresh = temporary_sibling(dir);
    let replaced = fill_folder(&fresh, files).and_then(|()| swap_in(&fresh, dir));
    if replaced.is_err() {
        // The first error is the one to tell; the folder may not even exist.
        let _ = fs_err::remove_dir_all(&fresh);
    }
    replaced
}

fn fill_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    fs_err::create_dir_all(folder)?;
    files.iter().try_for_each(|(name, bytes)| write_synced(&folder.join(name), bytes))
}

fn swap_in(fresh: &Path, dir: &Path) -> io::Result<()> {
    if !dir.try_exists()? {
        return fs_err::rename(fresh, dir);
    }
    let aside = temporary_sibling(dir);
    fs_err::rename(dir, &aside)?;
    if let Err(error) = fs_err::rename(fresh, dir) {
        fs_err::rename(&aside, dir)?;
        return Err(error);
    }
    fs_err::remove_dir_all(&aside)
}
