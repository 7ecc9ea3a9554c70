//! The model bundle: everything that a prediction needs, with its checks.
//!
//! A folder of three files. `bundle.json` is a [`BundleMeta`], `weights.safetensors` holds the
//! arrays of [`crate::weights::Weights`], and `golden.safetensors` some resized images (`input`,
//! U8 `[images, height, width, 3]`) with the answers of the model that was saved
//! (`probabilities`, F32 `[images, labels]`). A bundle is loaded only when both hashes agree and
//! the goldens, run again, give the same answers. `nephros quantize` adds two files for 8 bits,
//! which are checked in the same way: see [`Quantization`]. A training also writes
//! `input_gate.safetensors`, with which a picture is compared before it gets a label: see
//! [`InputGate`]. An evaluation adds `evaluation.json`, its [`Evaluation`].

mod copy;
mod error;
mod evaluation;
mod golden;
mod input_gate;
mod quantization;

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::BundleError;
pub(crate) use evaluation::read as read_evaluation;
pub use evaluation::{Admission, Evaluation, Finding, FindingCode, Forced, Gate, admit, record_evaluation};
pub use golden::{GOLDEN_TOLERANCE, GOLDEN_TOLERANCE_INT8};
pub use quantization::{CalibrationSet, DistanceChange, Holdout, Quantization, Quantized};

use crate::{
    abstention::Abstention,
    calibration::Calibration,
    digest::{sha256, sha256_file},
    input_gate::{InputGate, InputProfile},
    network::{Architecture, Precision},
    patient::PatientReading,
    pixels::RgbImage,
    predictor::{ModelError, Origin, Predictor},
    preprocessing::Preprocessing,
    weights::{ArrayFile, Arrays, Weights, WeightsError, temporary_sibling, write_synced},
};
use golden::Golden;
use quantization::{GOLDEN_INT8_FILE, WEIGHTS_INT8_FILE};

/// Latest format that this version reads, written for a bundle with 8-bit weights.
pub const FORMAT_VERSION: u64 = 2;
/// Format of a bundle without 8-bit weights.
const PLAIN_VERSION: u64 = 1;

const META_FILE: &str = "bundle.json";
const WEIGHTS_FILE: &str = "weights.safetensors";
const GOLDEN_FILE: &str = "golden.safetensors";
const INPUT_GATE_FILE: &str = "input_gate.safetensors";

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleMeta {
    /// [`FORMAT_VERSION`] with `quantization`, 1 without.
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
    /// How all slices of a patient are read together; `None` leaves their mean as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<PatientReading>,
    /// Which pictures get no label; `None` labels all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_gate: Option<InputProfile>,
    /// The 8-bit weights, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
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
    /// How all slices of a patient are read together; `None` leaves their mean as it is.
    pub patient: Option<PatientReading>,
}

/// A loaded and verified bundle.
#[derive(Debug)]
pub struct Bundle {
    /// `bundle.json`.
    pub meta: BundleMeta,
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
        Self::save_with(dir, parts, weights, golden_images, None)
    }

    /// As [`Self::save`], with what decides which pictures get a label.
    ///
    /// # Errors
    /// See [`BundleError`]; what was at `dir` is then still there.
    pub fn save_with(
        dir: &Path,
        parts: BundleParts,
        weights: &Weights,
        golden_images: &[RgbImage],
        input_gate: Option<&InputGate>,
    ) -> Result<BundleMeta, BundleError> {
        if golden_images.is_empty() {
            return Err(BundleError::NoGolden);
        }
        check_labels(dir, &parts.labels, weights)?;
        let weight_bytes = weights.to_bytes()?;
        let weights_sha256 = sha256(&weight_bytes);
        let id = format!("{}-{}", parts.architecture, &weights_sha256[..8]);
        let predictor = build(&parts, weights, id.clone()).map_err(model_error(dir))?;
        let golden_bytes = Golden::record(&predictor, golden_images)?
            .to_bytes()
            .map_err(|source| BundleError::GoldenFormat { path: dir.join(GOLDEN_FILE), source })?;
        let mut meta = describe(parts, id, weights_sha256, sha256(&golden_bytes));
        let mut files = vec![(WEIGHTS_FILE, weight_bytes), (GOLDEN_FILE, golden_bytes)];
        if let Some(gate) = input_gate {
            let (profile, bytes) = input_gate::packed(dir, gate)?;
            meta.input_gate = Some(profile);
            files.push((INPUT_GATE_FILE, bytes));
        }
        files.push((META_FILE, meta_bytes(dir, &meta)?));
        replace_folder(dir, &files)?;
        Ok(meta)
    }

    /// Reads a bundle in its default precision, verifies its hashes and replays its goldens.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn load(dir: &Path) -> Result<Self, BundleError> {
        Self::load_as(dir, None)
    }

    /// As [`Self::load`]; `precision` takes the place of the bundle's own choice.
    ///
    /// Only the files of that precision are read. Arrays are read one by one, so that weights and
    /// networks are never both whole in memory, and hashed beside.
    ///
    /// # Errors
    /// See [`BundleError`]; [`BundleError::NotQuantized`] where 8-bit weights are asked for and
    /// not there.
    pub fn load_as(dir: &Path, precision: Option<Precision>) -> Result<Self, BundleError> {
        Self::load_with(dir, precision, |_| Ok(())).map(|(bundle, ())| bundle)
    }

    /// As [`Self::load_as`], with what `more` makes of the f32 weights while they are open; those of
    /// 8 bits are in another file.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub(crate) fn load_with<T: Send>(
        dir: &Path,
        precision: Option<Precision>,
        more: impl FnOnce(&Origin<'_>) -> Result<T, ModelError> + Send,
    ) -> Result<(Self, T), BundleError> {
        let meta = read_meta(dir)?;
        let files = meta.files(dir, precision)?;
        let weights = open(&dir.join(files.weights), files.weights_sha256)?;
        let golden_path = dir.join(files.golden);
        let golden = Golden::from_bytes(&read_verified(&golden_path, files.golden_sha256)?, &golden_path)?;
        let more = |weights: &dyn Arrays| more(&meta.origin(weights)).map_err(model_error(dir));
        let (predictor, made) = verified(&weights, &dir.join(files.weights), files.weights_sha256, || {
            check_labels(&dir.join(META_FILE), &meta.labels, &weights)?;
            check_reading(&dir.join(META_FILE), &meta)?;
            match files.precision {
                Precision::F32 => {
                    let built = build(&meta.parts(), &weights, meta.id.clone()).map_err(model_error(dir))?;
                    Ok((built, more(&weights)?))
                }
                Precision::Int8 => {
                    let built = quantization::build(&meta, &weights).map_err(model_error(dir))?;
                    Ok((built, quantization::with_floats(dir, &meta, more)?))
                }
            }
        })?;
        // The goldens are of the network itself, whatever is made of its answers.
        golden.replay(&predictor, golden::tolerance(files.precision), &golden_path)?;
        let predictor = predictor
            .with_input_gate(input_gate::read(dir, &meta, files.precision)?)
            .with_reading(meta.calibration.clone(), meta.abstention.clone(), meta.patient.clone())
            .with_evaluation(evaluation::read(dir, &meta)?);
        Ok((Self { meta, predictor }, made))
    }
}

/// The files of one precision.
struct Files<'a> {
    precision: Precision,
    weights: &'static str,
    weights_sha256: &'a str,
    golden: &'static str,
    golden_sha256: &'a str,
}

impl BundleMeta {
    fn files(&self, dir: &Path, precision: Option<Precision>) -> Result<Files<'_>, BundleError> {
        let default = self.quantization.as_ref().map_or(Precision::F32, |quantization| quantization.default);
        match (precision.unwrap_or(default), &self.quantization) {
            (Precision::F32, _) => Ok(Files {
                precision: Precision::F32,
                weights: WEIGHTS_FILE,
                weights_sha256: &self.weights_sha256,
                golden: GOLDEN_FILE,
                golden_sha256: &self.golden_sha256,
            }),
            (Precision::Int8, Some(quantization)) => Ok(Files {
                precision: Precision::Int8,
                weights: WEIGHTS_INT8_FILE,
                weights_sha256: &quantization.weights_sha256,
                golden: GOLDEN_INT8_FILE,
                golden_sha256: &quantization.golden_sha256,
            }),
            (Precision::Int8, None) => Err(BundleError::NotQuantized { path: dir.to_owned() }),
        }
    }

    /// What the model is built of, with its weights in f32.
    fn origin<'a>(&self, weights: &'a dyn Arrays) -> Origin<'a> {
        Origin {
            architecture: self.architecture,
            hidden_units: self.hidden_units,
            classes: self.labels.len(),
            image_size: self.preprocessing.image_size,
            weights,
        }
    }

    /// What the training knew, for saving the model again.
    pub fn parts(&self) -> BundleParts {
        let Self { labels, preprocessing, params, dataset_digest, split_digest, metrics, .. } = self.clone();
        let (calibration, abstention) = (self.calibration.clone(), self.abstention.clone());
        let patient = self.patient.clone();
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
            patient,
        }
    }
}

fn build(parts: &BundleParts, weights: &dyn Arrays, id: String) -> Result<Predictor, ModelError> {
    let (labels, preprocessing) = (parts.labels.clone(), parts.preprocessing.clone());
    Predictor::from_parts(parts.architecture, parts.hidden_units, labels, preprocessing, weights, id)
}

fn describe(parts: BundleParts, id: String, weights_sha256: String, golden_sha256: String) -> BundleMeta {
    BundleMeta {
        format_version: PLAIN_VERSION,
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
        patient: parts.patient,
        input_gate: None,
        quantization: None,
    }
}

fn meta_bytes(dir: &Path, meta: &BundleMeta) -> Result<Vec<u8>, BundleError> {
    json_bytes(&dir.join(META_FILE), meta)
}

fn json_bytes(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, BundleError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|source| BundleError::Meta { path: path.to_owned(), source })?;
    json.push(b'\n');
    Ok(json)
}

fn model_error(dir: &Path) -> impl Fn(ModelError) -> BundleError + '_ {
    |source| BundleError::Model { path: dir.to_owned(), source: Box::new(source) }
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
    let got = version.to_string();
    match version.as_u64() {
        Some(got) if got > FORMAT_VERSION => Err(BundleError::Newer { path, got }),
        Some(version @ PLAIN_VERSION..=FORMAT_VERSION) => {
            let read: BundleMeta = serde_json::from_slice(&bytes).map_err(meta)?;
            let expected = if read.quantization.is_some() { FORMAT_VERSION } else { PLAIN_VERSION };
            let fits = version == expected;
            if fits { Ok(read) } else { Err(BundleError::FormatVersion { path, expected, got }) }
        }
        _ => Err(BundleError::FormatVersion { path, expected: FORMAT_VERSION, got }),
    }
}

fn missing(error: io::Error, path: &Path) -> BundleError {
    match error.kind() {
        io::ErrorKind::NotFound => BundleError::MissingFile { path: path.to_owned() },
        _ => BundleError::Io(error),
    }
}

fn check_hash(path: &Path, expected: &str, got: String) -> Result<(), BundleError> {
    if got == expected {
        return Ok(());
    }
    Err(BundleError::Hash { path: path.to_owned(), expected: expected.to_owned(), got })
}

fn read_verified(path: &Path, expected: &str) -> Result<Vec<u8>, BundleError> {
    let bytes = fs_err::read(path).map_err(|error| missing(error, path))?;
    check_hash(path, expected, sha256(&bytes))?;
    Ok(bytes)
}

/// Opens a file of weights.
fn open(path: &Path, sha256: &str) -> Result<ArrayFile, BundleError> {
    match ArrayFile::open(path) {
        Err(WeightsError::Io(error)) => Err(missing(error, path)),
        Err(error) => {
            // That the file was changed says more than how it is broken now.
            check_hash(path, sha256, sha256_file(path)?)?;
            Err(error.into())
        }
        Ok(file) => Ok(file),
    }
}

/// Makes something of a file while it is hashed; what was made of a file with another hash is
/// never seen.
fn verified<T: Send>(
    file: &ArrayFile,
    path: &Path,
    sha256: &str,
    make: impl FnOnce() -> Result<T, BundleError> + Send,
) -> Result<T, BundleError> {
    let (made, got) = rayon::join(make, || file.sha256());
    check_hash(path, sha256, got?)?;
    made
}

fn check_labels(path: &Path, labels: &[String], weights: &dyn Arrays) -> Result<(), BundleError> {
    // A head that is missing altogether is told by the network, with its key.
    let outputs = weights.shape("head.weight").and_then(<[usize]>::first);
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
    let patient = meta.patient.as_ref();
    let calibrations = [
        ("calibration", meta.calibration.as_ref()),
        ("patient.calibration", patient.map(|patient| &patient.calibration)),
    ];
    for (key, calibration) in calibrations {
        if let Some(Calibration { temperature, .. }) = calibration.filter(|it| !it.is_usable()) {
            return refuse(key, format!("temperature {temperature}"));
        }
    }
    let abstentions = [
        ("abstention", meta.abstention.as_ref()),
        ("patient.abstention", patient.map(|patient| &patient.abstention)),
    ];
    for (key, abstention) in abstentions {
        let unusable = abstention.filter(|it| !it.is_usable(meta.labels.len()));
        if let Some(Abstention { thresholds, error_rate, .. }) = unusable {
            return refuse(key, format!("thresholds {thresholds:?} at error rate {error_rate}"));
        }
    }
    Ok(())
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

/// Gives the folder `fresh` the name `dir`; a folder that has it is moved aside first and removed last.
pub(crate) fn swap_in(fresh: &Path, dir: &Path) -> io::Result<()> {
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
