//! The images of each folder as one patient.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use nephros_core::{input_gate::refusal, predictor::Prediction};

use super::report::Predicted;

/// What is known of a patient's images.
#[derive(Debug, Default)]
pub struct Patient {
    /// Predictions for the images that get a label.
    pub slices: Vec<Prediction>,
    /// Images that get none, or cannot be read.
    pub left_out: usize,
}

/// Patients by their folders.
#[derive(Debug, Default)]
pub struct Patients(pub BTreeMap<PathBuf, Patient>);

impl Patients {
    /// Adds what is known of the image at `path`; `None` where it cannot be read.
    pub fn add(&mut self, path: &Path, predicted: Option<&Predicted>) {
        let folder = match path.parent() {
            // A file that was named alone lies in the working folder.
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => path,
        };
        let patient = self.0.entry(folder.to_owned()).or_default();
        match predicted {
            Some(predicted) if refusal(&predicted.reasons).is_none() => {
                patient.slices.push(predicted.prediction.clone());
            }
            _ => patient.left_out += 1,
        }
    }
}
