//! The images of each folder as one patient.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use nephros_core::{input_gate::refusal, predictor::Prediction};

use super::report::Predicted;

/// What is known of a patient's images.
#[derive(Debug, Default)]
pub struct Patient {
    /// The folder, as it was spelled first.
    pub folder: PathBuf,
    /// Predictions for the images that get a label.
    pub slices: Vec<Prediction>,
    /// Images that get none, or cannot be read.
    pub left_out: usize,
    /// Where the images lie, whatever they were called: an image counts once.
    seen: BTreeSet<PathBuf>,
}

/// Patients by where their folders lie.
#[derive(Debug, Default)]
pub struct Patients(BTreeMap<PathBuf, Patient>);

impl Patients {
    /// Adds what is known of the file at `path`; `None` where it is no image. What is no file, a folder that holds
    /// no image among it, is nobody's.
    pub fn add(&mut self, path: &Path, predicted: Option<&Predicted>) {
        let Some(place) = fs_err::canonicalize(path).ok().filter(|place| place.is_file()) else { return };
        let Some(home) = place.parent() else { return };
        let patient = self.0.entry(home.to_owned()).or_insert_with(|| Patient {
            folder: match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                // A file that was named alone lies in the working folder.
                _ => PathBuf::from("."),
            },
            ..Patient::default()
        });
        if !patient.seen.insert(place) {
            return;
        }
        match predicted {
            Some(predicted) if refusal(&predicted.reasons).is_none() => {
                patient.slices.push(predicted.prediction.clone());
            }
            _ => patient.left_out += 1,
        }
    }

    /// All of them, in the order of where their folders lie.
    pub fn all(&self) -> impl Iterator<Item = &Patient> {
        self.0.values()
    }
}
