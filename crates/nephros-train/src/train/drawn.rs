//! Drawn slices that are trained on beside the data.
//!
//! A few patients do not show what a tumour is, apart from what else those patients have in common.
//! Drawn patients differ in everything else, as many as are wanted.

use nephros_core::{digest::sha256, pixels::RgbImage};
use rayon::prelude::*;

use super::{TrainError, data::Sample};
use crate::{
    config::Params,
    phantom::{Cohort, Patient, PhantomClass, slice},
    progress::{Progress, Unit, check},
};

/// Slices of each drawn patient.
const SLICES: usize = 4;

/// `PHANTOM_PATIENTS` patients of the classes of the data, as `resized` makes them of the network's
/// input size.
///
/// # Errors
/// [`TrainError::Undrawable`] for a class that cannot be drawn.
pub fn draw(
    params: &Params,
    labels: &[String],
    resized: &(dyn Fn(&RgbImage) -> RgbImage + Sync),
    progress: &dyn Progress,
) -> Result<Vec<Sample>, TrainError> {
    if params.phantom_patients == 0 {
        return Ok(Vec::new());
    }
    let classes = labels.iter().map(|label| class_named(label)).collect::<Result<Vec<_>, _>>()?;
    let cohort = Cohort {
        patients: params.phantom_patients,
        slices: SLICES,
        seed: cohort_seed(params.seed),
        classes,
        size: drawing_size(params.image_size),
        ..Cohort::default()
    };
    let total = (cohort.patients * SLICES) as u64;
    let task = progress.task("drawing slices", Some(total), Unit::Items);
    let patients: Vec<Vec<Sample>> = (0..cohort.patients)
        .into_par_iter()
        .map(|index| {
            check(progress)?;
            let samples = draw_patient(&cohort, index, resized);
            task.advance(samples.len() as u64);
            Ok(samples)
        })
        .collect::<Result<_, TrainError>>()?;
    Ok(patients.concat())
}

fn draw_patient(cohort: &Cohort, index: usize, resized: &dyn Fn(&RgbImage) -> RgbImage) -> Vec<Sample> {
    let patient = Patient::new(cohort, index);
    let (center, width) = patient.window();
    let draw = |number: usize| {
        let grey = slice(&patient, number).windowed(center, width);
        let rgb = grey.iter().flat_map(|value| [*value; 3]).collect();
        let image = RgbImage::new(cohort.size, cohort.size, rgb)?;
        Some(Sample {
            sha256: sha256(image.pixels()),
            label: index % cohort.classes.len(),
            pixels: resized(&image).pixels().to_vec(),
        })
    };
    (0..cohort.slices).filter_map(draw).collect()
}

fn class_named(label: &str) -> Result<PhantomClass, TrainError> {
    let known = [PhantomClass::Normal, PhantomClass::Tumor, PhantomClass::Cyst, PhantomClass::Stone];
    known
        .into_iter()
        .find(|class| class.name().eq_ignore_ascii_case(label))
        .ok_or_else(|| TrainError::Undrawable { class: label.to_owned() })
}

/// Not `SEED` itself: a cohort that `nephros phantom` drew by the same number, to be tested on, must
/// not be trained on.
fn cohort_seed(seed: u64) -> u64 {
    let digest = sha256(format!("training phantoms {seed}").as_bytes());
    u64::from_str_radix(&digest[..16], 16).unwrap_or(seed)
}

/// Drawn at twice the input's size or so, so that it is shrunk as a real slice is.
fn drawing_size([height, width, _]: [usize; 3]) -> usize {
    if height.max(width) <= 160 { 256 } else { 512 }
}

#[cfg(test)]
mod tests {
    use nephros_core::preprocessing::{Normalization, Preprocessing};

    use super::*;
    use crate::progress::Silent;

    fn drawn(patients: usize, labels: &[&str]) -> Result<Vec<Sample>, TrainError> {
        let image_size = [32, 32, 3];
        let params = Params { phantom_patients: patients, image_size, ..crate::testing::params() };
        let labels: Vec<String> = labels.iter().map(|&label| label.into()).collect();
        let preprocessing = Preprocessing::new(image_size, Normalization::Unit);
        draw(&params, &labels, &|image| preprocessing.resize(image), &Silent)
    }

    #[test]
    fn patients_take_turns_through_the_classes_of_the_data() {
        let samples = drawn(4, &["tumor", "Normal"]).unwrap();
        let labels: Vec<usize> = samples.iter().map(|sample| sample.label).collect();
        assert_eq!(labels, [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]);
        assert!(samples.iter().all(|sample| sample.pixels.len() == 32 * 32 * 3));
        assert!(drawn(0, &["Normal", "Tumor"]).unwrap().is_empty());
    }

    #[test]
    fn a_class_that_cannot_be_drawn_is_named() {
        let error = drawn(4, &["Normal", "Abscess"]).unwrap_err();
        assert!(matches!(error, TrainError::Undrawable { class } if class == "Abscess"));
    }

    #[test]
    fn another_cohort_is_drawn_than_by_the_command_of_the_same_seed() {
        let params = crate::testing::params();
        assert_ne!(cohort_seed(params.seed), params.seed);
    }
}
