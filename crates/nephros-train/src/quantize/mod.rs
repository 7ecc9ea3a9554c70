//! 8-bit weights for a bundle: calibrated on some images, compared with f32 on others.

mod error;
mod images;

use std::path::{Path, PathBuf};

use nephros_conv::Calibration;
use nephros_core::{
    bundle::{Bundle, CalibrationSet, DistanceChange, Holdout, Quantized},
    input_gate::{InputGate, Statistic, pooled_features},
    network::Precision,
    pixels,
    predictor::Predictor,
    preprocessing::Preprocessing,
};
use rayon::prelude::*;
use serde::Serialize;

pub use error::QuantizeError;
pub use images::{CALIBRATION_IMAGES, FEWEST_IMAGES};
use images::{Image, Parts};

use crate::{
    evaluate::metrics::Predictions,
    input_gate::RATE,
    progress::{Progress, Task, Unit, check},
};

/// Images whose maps are measured together, which bounds the memory.
const CALIBRATION_GROUP: usize = 8;
/// Images that are compared together.
const HOLDOUT_GROUP: usize = 32;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct QuantizeRequest<'a> {
    /// The bundle.
    pub model: &'a Path,
    /// The bundle to write; may be the same.
    pub out: &'a Path,
    /// Folder of class folders, or of images without classes.
    pub folder: &'a Path,
    /// The image files below the folder.
    pub images: &'a [PathBuf],
    /// Largest share of changed labels with which 8 bits become the default, 0 to 1.
    pub tolerance: f64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeSummary {
    /// The bundle written.
    pub bundle: PathBuf,
    /// Id of the 8-bit model.
    pub model: String,
    /// Precision of the bundle unless one is asked for.
    pub default: Precision,
    /// What the maps were measured on.
    pub calibration: CalibrationSet,
    /// What 8 bits change.
    pub holdout: Holdout,
    /// Files that could not be used.
    pub unreadable: Vec<Unreadable>,
}

/// A file that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: String,
}

/// Quantises a bundle and writes the result with the measured change.
///
/// The images are divided once, by patient where `patients.csv` or a manifest tells them and by
/// image otherwise, in the order of their digests: the same images give the same bundle.
///
/// # Errors
/// See [`QuantizeError`]; the bundle `out` is then as it was, unless writing itself failed.
pub fn quantize(
    request: &QuantizeRequest<'_>,
    progress: &dyn Progress,
) -> Result<QuantizeSummary, QuantizeError> {
    check_request(request)?;
    let floats = Bundle::load_as(request.model, Some(Precision::F32))?;
    let labels = &floats.meta.labels;
    let mut unreadable = Vec::new();
    let images = images::list(request, labels, &mut unreadable, progress)?;
    // Both models answer as their networks do, before calibration.
    let floating = floats.predictor.uncalibrated();
    let Parts { calibration, holdout } = images::divide(images)?;
    let (maxima, calibration) = calibrate(request.model, &calibration, &mut unreadable, progress)?;
    let quantized = Quantized::new(request.model, &maxima)?;
    let models = [&floating, &quantized.predictor];
    let answers = compare(models, &holdout, &mut unreadable, progress)?;
    let calibration = CalibrationSet {
        images: calibration.len(),
        patients: images::patients(&calibration),
        digest: images::digest(&calibration),
    };
    let holdout = Holdout {
        feature_distance: floating.input_gate().and_then(|gate| distance_change(gate, &answers.distances)),
        ..measure(&answers, holdout.len(), request.tolerance, labels.len())?
    };
    let meta = quantized.save(request.model, request.out, calibration.clone(), holdout.clone())?;
    Ok(QuantizeSummary {
        bundle: request.out.to_owned(),
        model: quantized.predictor.id().to_owned(),
        default: meta.quantization.map_or(Precision::F32, |quantization| quantization.default),
        calibration,
        holdout,
        unreadable,
    })
}

fn check_request(request: &QuantizeRequest<'_>) -> Result<(), QuantizeError> {
    if !(0.0..=1.0).contains(&request.tolerance) {
        return Err(QuantizeError::Tolerance { got: request.tolerance });
    }
    if request.model.is_file() {
        return Err(QuantizeError::NotABundle { path: request.model.to_owned() });
    }
    Ok(())
}

/// The largest values of the f32 network's maps, and the images that they are of.
fn calibrate(
    model: &Path,
    images: &[Image],
    unreadable: &mut Vec<Unreadable>,
    progress: &dyn Progress,
) -> Result<(Calibration, Vec<Image>), QuantizeError> {
    let (meta, weights) = Bundle::open_weights(model)?;
    let mut calibrator = meta.architecture.calibrator(&weights, meta.preprocessing.image_size)?;
    let task = progress.task("calibrating", Some(images.len() as u64), Unit::Items);
    let mut used = Vec::new();
    for group in images.chunks(CALIBRATION_GROUP) {
        check(progress)?;
        let (inputs, read) = inputs(group, &meta.preprocessing, unreadable);
        calibrator.add(&inputs.concat(), inputs.len())?;
        used.extend(read);
        task.advance(group.len() as u64);
    }
    if used.is_empty() {
        return Err(QuantizeError::Undecodable { part: "calibration", images: images.len() });
    }
    Ok((calibrator.finish(), used))
}

/// Answers of the two models for the same images.
struct Answers {
    /// Images that could be decoded.
    images: Vec<Image>,
    floats: Vec<Vec<f32>>,
    int8: Vec<Vec<f32>>,
    /// Of the features in f32 and in 8 bits from those trained on; none without an input gate.
    distances: Vec<[f64; 2]>,
}

fn compare(
    [floats, int8]: [&Predictor; 2],
    images: &[Image],
    unreadable: &mut Vec<Unreadable>,
    progress: &dyn Progress,
) -> Result<Answers, QuantizeError> {
    let mut answers =
        Answers { images: Vec::new(), floats: Vec::new(), int8: Vec::new(), distances: Vec::new() };
    let task: Box<dyn Task> = progress.task("comparing", Some(images.len() as u64), Unit::Items);
    for group in images.chunks(HOLDOUT_GROUP) {
        check(progress)?;
        let (inputs, read) = inputs(group, floats.preprocessing(), unreadable);
        let (values, count) = (inputs.concat(), inputs.len());
        let features = [floats.features(&values, count)?, int8.features(&values, count)?];
        let answer = |model: &Predictor, features: &[f32]| model.predict_features(features, count);
        answers.floats.extend(answer(floats, &features[0])?.into_iter().map(|answer| answer.probabilities));
        answers.int8.extend(answer(int8, &features[1])?.into_iter().map(|answer| answer.probabilities));
        if let Some(gate) = floats.input_gate() {
            answers.distances.extend(distances(gate, &features, count));
        }
        answers.images.extend(read);
        task.advance(group.len() as u64);
    }
    Ok(answers)
}

/// How far the features of each image are from those trained on, in f32 and in 8 bits.
fn distances(gate: &InputGate, [floats, int8]: &[Vec<f32>; 2], images: usize) -> Vec<[f64; 2]> {
    let length = (floats.len() / images.max(1)).max(1);
    let distance = |features: &[f32]| {
        gate.images.distance(&pooled_features(features, gate.images.channels()), gate.profile.neighbours)
    };
    let pairs = floats.par_chunks_exact(length).zip(int8.par_chunks_exact(length));
    pairs.map(|(floats, int8)| [distance(floats), distance(int8)]).collect()
}

/// The limit of f32 with room for what 8 bits add for all but [`RATE`] of the images; `None` where
/// the gate does not look at features.
fn distance_change(gate: &InputGate, distances: &[[f64; 2]]) -> Option<DistanceChange> {
    let limit_f32 = gate.profile.limits.get(&Statistic::FeatureDistance)?.high?;
    let mut changes: Vec<f64> = distances.iter().map(|[floats, int8]| int8 - floats).collect();
    changes.sort_by(f64::total_cmp);
    let outside = (RATE * changes.len() as f64).floor() as usize;
    let added = changes.iter().rev().nth(outside).copied()?.max(0.0);
    // As many decimals as the limits of f32 have.
    let limit_int8 = ((limit_f32 + added) * 1e6).ceil() / 1e6;
    let beyond = |precision: usize, limit: f64| {
        distances.iter().filter(|distances| distances[precision] > limit).count()
    };
    Some(DistanceChange {
        limit_f32,
        limit_int8,
        beyond_f32: beyond(0, limit_f32),
        beyond_f32_in_int8: beyond(1, limit_f32),
        beyond_int8: beyond(1, limit_int8),
        mean_change: changes.iter().sum::<f64>() / changes.len().max(1) as f64,
    })
}

/// Network input of the images that can be decoded, and those images.
fn inputs(
    group: &[Image],
    preprocessing: &Preprocessing,
    unreadable: &mut Vec<Unreadable>,
) -> (Vec<Vec<f32>>, Vec<Image>) {
    let read = |image: &Image| -> Result<Vec<f32>, String> {
        let bytes = fs_err::read(&image.path).map_err(|error| error.to_string())?;
        let decoded = pixels::decode(&bytes).map_err(|error| error.to_string())?;
        Ok(preprocessing.apply(&decoded))
    };
    let results: Vec<_> = group.par_iter().map(read).collect();
    let (mut inputs, mut images) = (Vec::new(), Vec::new());
    for (image, result) in group.iter().zip(results) {
        match result {
            Ok(input) => {
                inputs.push(input);
                images.push(image.clone());
            }
            Err(error) => unreadable.push(Unreadable { path: image.path.clone(), error }),
        }
    }
    (inputs, images)
}

fn measure(
    answers: &Answers,
    asked: usize,
    tolerance: f64,
    classes: usize,
) -> Result<Holdout, QuantizeError> {
    let count = answers.images.len();
    if count == 0 {
        return Err(QuantizeError::Undecodable { part: "hold-out", images: asked });
    }
    let pairs = || answers.floats.iter().zip(&answers.int8);
    let changes: Vec<f64> = pairs()
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max))
        .collect();
    let [floats, int8] = [&answers.floats, &answers.int8].map(|answers| with_labels(answers, &[]));
    let changed = floats.predicted().into_iter().zip(int8.predicted()).filter(|(a, b)| a != b).count();
    let labels: Option<Vec<usize>> = answers.images.iter().map(|image| image.label).collect();
    let auroc = |answers: &[Vec<f32>]| {
        labels.as_deref().and_then(|labels| with_labels(answers, labels).metrics(classes).auroc)
    };
    Ok(Holdout {
        images: count,
        patients: images::patients(&answers.images),
        digest: images::digest(&answers.images),
        largest_change: changes.iter().copied().fold(0.0, f64::max),
        mean_change: changes.iter().sum::<f64>() / count as f64,
        labels_changed: changed,
        share_changed: changed as f64 / count as f64,
        tolerance,
        auroc_f32: auroc(&answers.floats),
        auroc_int8: auroc(&answers.int8),
        feature_distance: None,
    })
}

fn with_labels(answers: &[Vec<f32>], labels: &[usize]) -> Predictions {
    Predictions { labels: labels.to_vec(), probabilities: answers.to_vec() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nephros_core::input_gate::{FalseAlarms, InputProfile, Limit, Prints, TrainingImages};

    use super::*;

    fn image(number: usize, label: Option<usize>) -> Image {
        Image { path: PathBuf::new(), sha256: format!("{number:064}"), label, patient: None }
    }

    fn answers(labels: [Option<usize>; 4]) -> Answers {
        let images = labels.into_iter().enumerate().map(|(number, label)| image(number, label)).collect();
        let row = |tumor: f32| vec![1.0 - tumor, tumor];
        Answers {
            images,
            floats: [0.25, 0.375, 0.5625, 0.75].map(row).into(),
            int8: [0.25, 0.5625, 0.4375, 0.8125].map(row).into(),
            distances: Vec::new(),
        }
    }

    #[test]
    fn the_change_is_measured() {
        let labels = [Some(0), Some(1), Some(0), Some(1)];
        let got = measure(&answers(labels), 4, 0.25, 2).unwrap();
        assert_eq!(got.images, 4);
        // |0.375 - 0.5625| = 3/16; the mean of 0, 3/16, 2/16 and 1/16 is 6/64.
        assert!((got.largest_change - 0.1875).abs() < 1e-6, "{got:?}");
        assert!((got.mean_change - 0.093_75).abs() < 1e-6, "{got:?}");
        // The second goes above one half, the third below: 2/4.
        assert_eq!((got.labels_changed, got.share_changed), (2, 0.5));
        // Pairs (Tumor, Normal) in order: f32 3/4 (0.375 < 0.5625), int8 4/4.
        assert_eq!((got.auroc_f32, got.auroc_int8), (Some(0.75), Some(1.0)));
        assert_eq!(got.default_precision(), Precision::F32, "0.5 of the labels, tolerance 0.25");
        let tolerant = Holdout { tolerance: 0.5, ..got };
        assert_eq!(tolerant.default_precision(), Precision::Int8);
    }

    #[test]
    fn the_limit_of_8_bits_has_room_for_what_they_add() {
        let limits = [(Statistic::FeatureDistance, Limit { low: None, high: Some(1.0) })];
        let gate = InputGate {
            profile: InputProfile {
                sha256: String::new(),
                rate: RATE,
                neighbours: 1,
                near_copy_bits: None,
                case_unit: None,
                grey: vec![0.5; 32],
                limits: limits.into(),
                validation: FalseAlarms {
                    images: 0,
                    groups: 0,
                    unit: "patient".into(),
                    refused: 0,
                    share: 0.0,
                    by_code: BTreeMap::new(),
                },
            },
            images: TrainingImages::new(&[0.0, 1.0], 1, Prints::default()),
        };
        // 100 images, each 1/8 farther in 8 bits; one is 8 farther, which is 1 % and left outside.
        let mut distances = vec![[0.5, 0.625]; 97];
        distances.extend([[0.9375, 1.0625], [1.5, 1.625], [0.5, 8.5]]);
        let got = distance_change(&gate, &distances).unwrap();
        assert_eq!((got.limit_f32, got.limit_int8), (1.0, 1.125));
        assert_eq!((got.beyond_f32, got.beyond_f32_in_int8, got.beyond_int8), (1, 3, 2));
        // (99/8 + 8) / 100
        assert!((got.mean_change - 0.203_75).abs() < 1e-12, "{got:?}");
        // What 8 bits bring nearer leaves the limit as it is.
        let got = distance_change(&gate, &[[0.5, 0.25], [0.75, 0.5]]).unwrap();
        assert_eq!((got.limit_f32, got.limit_int8), (1.0, 1.0));
        assert_eq!(distance_change(&gate, &[]), None);
    }

    #[test]
    fn without_classes_there_is_no_auroc() {
        for labels in [[None; 4], [Some(0), Some(1), None, Some(1)], [Some(1); 4]] {
            let got = measure(&answers(labels), 4, 0.0, 2).unwrap();
            assert_eq!((got.auroc_f32, got.auroc_int8), (None, None), "{labels:?}");
        }
    }
}
