//! Drawn slices that are trained on beside the data.
//!
//! A few patients do not show what a tumour is, apart from what else those patients have in common.
//! Drawn patients differ in everything else, as many as are wanted.

use nephros_core::{digest::sha256, pixels::RgbImage};
use rayon::prelude::*;

use super::{
    TrainError,
    data::{Lesion, Sample},
};
use crate::{
    config::Params,
    phantom::{Cohort, Patient, PhantomClass, slice},
    progress::{Progress, Unit, check},
};

/// Slices of each drawn patient.
const SLICES: usize = 4;

/// `PHANTOM_PATIENTS` patients of the classes of the data, as `framed` makes them of the network's
/// input size; it is given a picture and what to show of it, which is the picture itself or its lesion.
///
/// A network that judges places is shown patients of all kinds, and where their lesions are. Those of a kind that
/// is no class have the first label: what looks like a lesion and is not one that is asked for.
///
/// # Errors
/// [`TrainError::Undrawable`] for a class that cannot be drawn, [`TrainError::FirstClass`] where healthy kidneys
/// are to give evidence.
pub fn draw(
    params: &Params,
    labels: &[String],
    framed: &Framed<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Sample>, TrainError> {
    let healthy = |label: &String| label.eq_ignore_ascii_case(PhantomClass::Normal.name());
    if params.architecture.judges_places() && labels.iter().skip(1).any(healthy) {
        return Err(TrainError::FirstClass { labels: labels.to_vec() });
    }
    if params.phantom_patients == 0 {
        return Ok(Vec::new());
    }
    let mut classes = labels.iter().map(|label| class_named(label)).collect::<Result<Vec<_>, _>>()?;
    if params.architecture.judges_places() {
        let others = KNOWN.into_iter().filter(|kind| !classes.contains(kind)).collect::<Vec<_>>();
        classes.extend(others);
    }
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
            let samples = draw_patient(&cohort, labels.len(), index, framed);
            task.advance(samples.len() as u64);
            Ok(samples)
        })
        .collect::<Result<_, TrainError>>()?;
    Ok(patients.concat())
}

fn draw_patient(cohort: &Cohort, labels: usize, index: usize, framed: &Framed<'_>) -> Vec<Sample> {
    let patient = Patient::new(cohort, index);
    let kind = index % cohort.classes.len();
    let (center, width) = patient.window();
    let draw = |number: usize| {
        let drawn = slice(&patient, number);
        let picture = |grey: Vec<u8>| {
            RgbImage::new(cohort.size, cohort.size, grey.iter().flat_map(|value| [*value; 3]).collect())
        };
        let image = picture(drawn.windowed(center, width))?;
        let lesion = picture(drawn.lesion.iter().map(|inside| u8::from(*inside) * 255).collect())?;
        let shares = framed(&image, &lesion);
        Some(Sample {
            sha256: sha256(image.pixels()),
            label: if kind < labels { kind } else { 0 },
            pixels: framed(&image, &image).pixels().to_vec(),
            lesion: Some(Lesion {
                label: (kind < labels).then_some(kind),
                share: shares.pixels().as_chunks::<3>().0.iter().map(|pixel| pixel[0]).collect(),
            }),
        })
    };
    (0..cohort.slices).filter_map(draw).collect()
}

/// What of a picture, the first one, is shown to the network: the second, framed as the first is.
pub type Framed<'a> = dyn Fn(&RgbImage, &RgbImage) -> RgbImage + Sync + 'a;

/// What can be drawn.
const KNOWN: [PhantomClass; 4] =
    [PhantomClass::Normal, PhantomClass::Tumor, PhantomClass::Cyst, PhantomClass::Stone];

fn class_named(label: &str) -> Result<PhantomClass, TrainError> {
    KNOWN
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
    use nephros_core::{
        network::Architecture,
        preprocessing::{Normalization, Preprocessing},
    };

    use super::*;
    use crate::progress::Silent;

    fn drawn(patients: usize, labels: &[&str]) -> Result<Vec<Sample>, TrainError> {
        let image_size = [32, 32, 3];
        let params = Params { phantom_patients: patients, image_size, ..crate::testing::params() };
        let labels: Vec<String> = labels.iter().map(|&label| label.into()).collect();
        let preprocessing = Preprocessing::new(image_size, Normalization::Unit);
        draw(&params, &labels, &|image, shown| preprocessing.resize_as(image, shown), &Silent)
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
    fn a_network_that_judges_places_sees_all_kinds_and_their_lesions() {
        let image_size = [64, 64, 3];
        let architecture = Architecture::CompactPlaces;
        let params = Params { phantom_patients: 4, image_size, architecture, ..crate::testing::params() };
        let preprocessing = Preprocessing::new(image_size, Normalization::Unit);
        let draw = |labels: &[&str]| {
            let labels: Vec<String> = labels.iter().map(|&label| label.into()).collect();
            draw(&params, &labels, &|image, shown| preprocessing.resize_as(image, shown), &Silent)
        };
        let samples = draw(&["Normal", "Tumor"]).unwrap();
        let lesions = samples.chunks_exact(SLICES).map(|slices| {
            let lesions = slices.iter().filter_map(|slice| slice.lesion.as_ref());
            let inside = lesions.clone().any(|lesion| lesion.share.contains(&255));
            (slices[0].label, lesions.map(|lesion| lesion.label).next().unwrap(), inside)
        });
        // Normal, Tumor, and what is no class: a cyst and a stone, which is too small to fill a pixel.
        let expected = [(0, Some(0), false), (1, Some(1), true), (0, None, true)];
        assert_eq!(lesions.take(3).collect::<Vec<_>>(), expected);
        assert_eq!(samples.len(), 4 * SLICES);
        let error = draw(&["Tumor", "Normal"]).unwrap_err();
        assert!(matches!(error, TrainError::FirstClass { .. }), "{error}");
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
