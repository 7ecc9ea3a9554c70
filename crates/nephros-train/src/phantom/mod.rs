//! Drawn abdominal CT cohorts: scans of patients who never lived, for demonstrations and tests.
//!
//! Every patient is an invented anatomy in Hounsfield units, cut at neighbouring levels through one
//! kidney. The class is a property of the patient. It decides what is painted on the kidney and
//! nothing else: body, level, contrast phase, noise and table are drawn before it is looked at.

mod body;
mod canvas;
mod cohort;
mod draw;
mod encode;
mod error;
mod kidney;
mod lesion;
mod noise;
mod patient;
mod scanner;
mod shape;
mod spine;
mod tissue;
mod vessels;
mod viscera;

use nephros_core::pixels::RgbImage;
use serde::{Deserialize, Serialize};

pub(crate) use self::cohort::{MARKER, MASKS};
pub use self::{
    cohort::{CohortSummary, write_cohort},
    error::PhantomError,
    patient::{Patient, slice},
    tissue::Phase,
};

/// What a patient's slices show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PhantomClass {
    /// Two kidneys without a finding.
    Normal,
    /// A solid, unevenly enhancing mass of 8 to 92 mm.
    Tumor,
    /// A round collection of water of the same sizes.
    Cyst,
    /// Stones in the renal sinus.
    Stone,
}

impl PhantomClass {
    /// The name of the class folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Tumor => "Tumor",
            Self::Cyst => "Cyst",
            Self::Stone => "Stone",
        }
    }
}

/// How slices are stored; 8-bit grey in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Quality 90, as exported from a viewer.
    #[default]
    Jpeg,
    /// Without loss.
    Png,
}

impl ImageFormat {
    /// The ending of file names, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
        }
    }
}

/// What to draw. The same cohort gives the same bytes, on any number of threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cohort {
    /// Number of patients; the classes take turns.
    pub patients: usize,
    /// Slices of each patient.
    pub slices: usize,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// The classes, each once.
    pub classes: Vec<PhantomClass>,
    /// File format.
    pub format: ImageFormat,
    /// Columns and rows of a slice, 64 to 2048.
    pub size: usize,
    /// Whether lesion masks are written beside the images, as `masks/<class>/<name>.png`.
    pub masks: bool,
}

impl Default for Cohort {
    /// 40 patients of 12 slices, Normal and Tumor, as 512×512 JPEG.
    fn default() -> Self {
        Self {
            patients: 40,
            slices: 12,
            seed: 42,
            classes: vec![PhantomClass::Normal, PhantomClass::Tumor],
            format: ImageFormat::Jpeg,
            size: 512,
            masks: false,
        }
    }
}

impl Cohort {
    /// The class of patient `index`: the classes take turns.
    pub fn class_of(&self, index: usize) -> PhantomClass {
        match self.classes.len() {
            0 => PhantomClass::Normal,
            classes => self.classes[index % classes],
        }
    }
}

/// One axial slice, seen from the feet: the patient's right is on the image's left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Hounsfield units, `[height, width]`.
    pub hu: Vec<i16>,
    /// Whether a pixel belongs to the lesion, `[height, width]`.
    pub lesion: Vec<bool>,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Slice {
    /// Grey values through a window of `center` and `width` Hounsfield units.
    ///
    /// Source: DICOM PS3.3 C.11.2.1.2.1, the linear function.
    pub fn windowed(&self, center: f32, width: f32) -> Vec<u8> {
        let scale = 255.0 / (width - 1.0).max(1.0);
        self.hu
            .iter()
            // A cast truncates and saturates, so the added half rounds.
            .map(|hu| ((f32::from(*hu) - (center - 0.5)) * scale + 128.0) as u8)
            .collect()
    }
}

/// A slice of a normal patient and one of a patient with a tumour, 512×512 and always the same:
/// inputs whose answers a model bundle records without holding any real patient's pixels.
pub fn golden_images() -> Vec<RgbImage> {
    let cohort = Cohort { patients: 2, slices: 1, seed: 0, ..Cohort::default() };
    (0..cohort.patients)
        .filter_map(|index| {
            let patient = Patient::new(&cohort, index);
            let (center, width) = patient.window();
            let grey = slice(&patient, 0).windowed(center, width);
            RgbImage::new(cohort.size, cohort.size, grey.iter().flat_map(|value| [*value; 3]).collect())
        })
        .collect()
}
