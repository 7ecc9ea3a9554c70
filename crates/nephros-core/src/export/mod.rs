//! Models for other programs: ONNX, Keras, safetensors, and folders for MLflow.
//!
//! Every file is of the network itself, in f32, with the arrays as they are in the bundle: batch norm is
//! not folded, so that training can go on. The input is an image after the preprocessing and the
//! output is before the calibration; [`About`] in each file says what both are.

mod about;
mod error;
pub mod mlflow;
pub mod onnx;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;

pub use about::About;
pub use error::ExportError;

use crate::{
    bundle::{Bundle, Evaluation, read_evaluation},
    digest::sha256,
    keras::{self, KerasModel, ModelFile, Optimizer},
    network::{Architecture, NetworkError},
    predictor::{ModelError, assumed_labels, assumption, check_labels},
    preprocessing::{Normalization, Preprocessing},
    weights::{Arrays as _, Tensor, Weights, replace_file},
};

/// Step size that Keras goes on with; training there chooses its own.
const LEARNING_RATE: f64 = 0.01;

/// The kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ONNX, for onnxruntime and other engines.
    Onnx,
    /// The archive of Keras 3.
    Keras,
    /// HDF5 that TensorFlow 2.12 and Keras 3 load.
    H5,
    /// The arrays alone.
    Safetensors,
}

/// A model to be exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    about: About,
    hidden_units: usize,
    weights: Weights,
    /// Whether the features were kept as they were loaded.
    frozen: bool,
    evaluation: Option<Evaluation>,
    assumption: Option<String>,
    /// The folder that it comes from, where it is a bundle.
    bundle: Option<PathBuf>,
}

impl Model {
    /// Reads the f32 weights of a bundle folder, whatever its default, or a Keras file.
    ///
    /// `normalization` says how the images of a Keras file were scaled, as in
    /// [`Predictor::load`](crate::predictor::Predictor::load).
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn load(path: &Path, normalization: Option<Normalization>) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::of_keras(path, normalization);
        }
        let (meta, file) = Bundle::open_weights(path)?;
        let expected = meta.preprocessing.normalization;
        if let Some(got) = normalization.filter(|got| *got != expected) {
            return Err(ModelError::Normalization { path: path.to_owned(), expected, got });
        }
        check_labels(&meta.labels)?;
        let evaluation = read_evaluation(path, &meta)?;
        let size = meta.preprocessing.image_size;
        let mut weights = Weights::default();
        for (key, shape) in meta.architecture.expected_shapes(meta.labels.len(), meta.hidden_units, size) {
            let values = file.array(&key, &shape).map_err(NetworkError::from)?.into_owned();
            weights.0.insert(key, Tensor { shape, values });
        }
        Ok(Self {
            hidden_units: meta.hidden_units,
            weights,
            frozen: frozen(meta.architecture, &meta.params),
            about: About::of_bundle(meta, evaluation.as_ref()),
            evaluation,
            assumption: None,
            bundle: Some(path.to_owned()),
        })
    }

    fn of_keras(path: &Path, normalization: Option<Normalization>) -> Result<Self, ModelError> {
        if !keras::is_named_so(path) {
            return Err(ModelError::NotAModel { path: path.to_owned() });
        }
        let KerasModel { architecture, hidden_units, classes, image_size, weights, .. } =
            keras::read_model(path)?;
        let labels = assumed_labels(classes);
        let preprocessing = Preprocessing::new(image_size, normalization.unwrap_or(Normalization::Unit));
        let digest = sha256(&weights.to_bytes().map_err(NetworkError::from)?);
        let id = format!("{architecture}-{}", &digest[..8]);
        Ok(Self {
            hidden_units,
            weights,
            frozen: frozen(architecture, &Value::Null),
            evaluation: None,
            assumption: Some(assumption(path, normalization, &labels)),
            bundle: None,
            about: About::of_keras(id, architecture, labels, preprocessing, normalization.is_some()),
        })
    }

    /// What every file of it says about it.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What the last evaluation of the bundle found.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// What had to be assumed because the model's file does not say it.
    pub fn assumption(&self) -> Option<&str> {
        self.assumption.as_deref()
    }

    /// Writes the model to a file, in place of the one that is there; folders on the way are made.
    ///
    /// # Errors
    /// See [`ExportError`]; the file at `path` is then as it was.
    pub fn write(&self, format: Format, path: &Path) -> Result<(), ExportError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs_err::create_dir_all(folder)?;
        }
        let about = self.about.to_json();
        match format {
            Format::Onnx => replace_file(path, &onnx::encode(self)?)?,
            Format::Keras => keras::write_archive(path, &self.keras(), &about)?,
            Format::H5 => keras::write_model_about(path, &self.keras(), &about)?,
            Format::Safetensors => replace_file(path, &self.weights.to_bytes_about(&about)?)?,
        }
        Ok(())
    }

    fn keras(&self) -> ModelFile<'_> {
        ModelFile {
            architecture: self.about.architecture,
            image_size: self.about.preprocessing.image_size,
            hidden_units: self.hidden_units,
            classes: Some(self.about.labels.len()),
            weights: &self.weights,
            frozen: self.frozen,
            // It has no state that a file would lack.
            optimizer: Optimizer::Sgd { momentum: 0.0 },
            learning_rate: LEARNING_RATE,
        }
    }
}

/// Bytes of a file, or of all files below a folder.
///
/// # Errors
/// The file or folder cannot be read.
pub fn bytes(path: &Path) -> io::Result<u64> {
    if !path.is_dir() {
        return Ok(fs_err::metadata(path)?.len());
    }
    fs_err::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum()
}

/// Whether only the head of a network learns, by its `params.yaml` or as is usual.
fn frozen(architecture: Architecture, params: &Value) -> bool {
    architecture.is_published() && params["FREEZE_ALL"] != Value::Bool(false)
}
