//! The limits outside which a picture gets no label, set on validation patients.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use nephros_core::{
    input_gate::{
        CaseUnit, Cases, FalseAlarms, InputGate, InputProfile, Limit, Orientation, Prints, Reason, Statistic,
        TrainingImages, Traits, Upright, pooled_features, reference_grey,
    },
    pixels::decode,
};
use rayon::prelude::*;

use crate::{
    manifest::Record,
    progress::{Progress, Unit as ProgressUnit, check},
    split::Unit,
    train::data::DataError,
};

/// Share of the validation images that each limit may leave outside.
pub const RATE: f64 = 0.01;
/// Which nearest training image the feature distance is measured to.
const NEIGHBOURS: usize = 5;
/// Bytes of training features that a bundle keeps.
const FEATURE_BYTES: usize = 768 << 10;
/// Bits in which the hash of a copy may differ at most: resizing and JPEG change a few.
const NEAR_COPY_BITS: u32 = 6;
/// Most training images that the way a slice lies is told by: 256 bytes each, and a millisecond for
/// all of them.
const PICTURES: usize = 1024;
/// Part of the range between its ends by which a limit is wider than what was seen: the next
/// patient differs from all that were measured.
const MARGIN: f64 = 0.25;

/// Images of one side of the split, as the gate sees them.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Of each image.
    pub traits: Vec<Traits>,
    /// Mean of each channel over the last feature map, `[images, channels]`; of training images,
    /// those that [`kept`] names.
    pub pooled: Vec<f32>,
}

/// Training images, and what is known of them.
#[derive(Debug, Clone)]
pub struct Training<'a> {
    /// The images.
    pub seen: Seen,
    /// Of each image, in the manifest.
    pub paths: Vec<&'a str>,
    /// Position of each image's class among the labels.
    pub labels: Vec<usize>,
    /// Case of each image, see [`cases`].
    pub cases: Vec<usize>,
    /// What a case is.
    pub case_unit: CaseUnit,
}

/// Validation images, and whose they are.
#[derive(Debug, Clone)]
pub struct Validation {
    /// The images.
    pub seen: Seen,
    /// Case of each image, numbered as in [`Training::cases`].
    pub cases: Vec<usize>,
    /// Group of each image; those that were kept together share it.
    pub groups: Vec<usize>,
    /// What a group is.
    pub unit: Unit,
}

/// Numbers from 1 on for the patients of images, or for what stands for them, and which of the two they
/// are: groups that the audit found, and single images where there are none either.
pub fn cases(records: &[Record]) -> (Vec<usize>, CaseUnit) {
    let known = records.iter().all(|record| !record.patient.is_empty());
    let mut numbers = BTreeMap::new();
    let number = |record: &Record| {
        let next = numbers.len() + 1;
        *numbers.entry(record.unit_name()).or_insert(next)
    };
    (records.iter().map(number).collect(), if known { CaseUnit::Patient } else { CaseUnit::Group })
}

/// Measures the files of images, which were read and checked before.
///
/// # Errors
/// See [`DataError`].
pub fn measure(
    root: &Path,
    records: &[(&Record, usize)],
    progress: &dyn Progress,
) -> Result<Vec<Traits>, DataError> {
    let task = progress.task("measuring images", Some(records.len() as u64), ProgressUnit::Items);
    records
        .par_iter()
        .map(|(record, _)| {
            check(progress)?;
            let path = root.join(&record.path);
            let image = decode(&fs_err::read(&path)?).map_err(|source| DataError::Decode { path, source })?;
            task.advance(1);
            Ok(Traits::of(&image))
        })
        .collect()
}

/// Positions of the training images whose features are kept, evenly spread over all.
pub fn kept(images: usize, channels: usize) -> Vec<usize> {
    spread(images, FEATURE_BYTES / (4 * channels.max(1)))
}

/// At most `most` positions, and at least one, evenly spread.
fn spread(images: usize, most: usize) -> Vec<usize> {
    let most = most.clamp(1, images.max(1));
    (0..most.min(images)).map(|position| position * images / most).collect()
}

/// Sets the limits; `input_side` is the shorter side of the network's input.
///
/// What compares a picture with single training images is measured on training images too, each
/// compared with those of other cases.
pub fn fit(
    training: &Training<'_>,
    validation: &Validation,
    channels: usize,
    input_side: usize,
) -> InputGate {
    let Training { seen: train, paths, .. } = training;
    let prints = train.traits.iter().zip(paths).map(|(traits, path)| (traits.hash(), (*path).to_owned()));
    let shown: Vec<usize> = spread(train.traits.len(), PICTURES);
    let shown: Vec<usize> =
        shown.into_iter().filter(|&image| train.traits[image].picture().is_some()).collect();
    let upright =
        Upright::new(shown.iter().filter_map(|&image| train.traits[image].picture()).copied().collect());
    let images = TrainingImages::new(&train.pooled, channels, Prints::new(prints))
        .with_upright(upright)
        .with_cases(numbered(training, channels));
    let grey = reference_grey(&train.traits);
    let mut limits = limits(&grey, &train.traits, &validation.seen.traits, input_side);
    let distances: Vec<f64> = validation
        .seen
        .pooled
        .chunks_exact(channels)
        .map(|pooled| images.distance(pooled, NEIGHBOURS))
        .collect();
    if !distances.is_empty() {
        let (_, high) = range(&distances);
        limits.insert(Statistic::FeatureDistance, Limit { low: None, high: Some(up(high * (1.0 + MARGIN))) });
    }
    limits.extend(orientation_limits(&images.upright, &shown, training, validation));
    let profile = InputProfile {
        sha256: String::new(),
        rate: RATE,
        neighbours: NEIGHBOURS,
        near_copy_bits: near_copy_bits(&images.prints, training, validation),
        case_unit: Some(training.case_unit),
        grey,
        limits,
        validation: FalseAlarms::count(&[], 0, validation.unit.to_string()),
    };
    let mut gate = InputGate { profile, images };
    gate.profile.validation = false_alarms(&gate, validation);
    gate
}

/// What the bundle keeps of whose the images are.
fn numbered(training: &Training<'_>, channels: usize) -> Cases {
    let short = |values: &[usize]| values.iter().map(|&value| value as u32).collect();
    let Training { seen, labels, cases, .. } = training;
    Cases { labels: short(labels), groups: short(cases), rows: short(&kept(seen.traits.len(), channels)) }
}

/// How much less a slice may resemble those of other cases than a turned one does: as much as all but
/// [`RATE`] of the training and of the validation images. `shown` are the images of `upright`.
fn orientation_limits(
    upright: &Upright,
    shown: &[usize],
    training: &Training<'_>,
    validation: &Validation,
) -> BTreeMap<Statistic, Limit> {
    let of_case: Vec<usize> = shown.iter().map(|&image| training.cases[image]).collect();
    let told = |(traits, case): (&Traits, usize)| {
        upright.orientation(traits.picture()?, |position| of_case[position] != case)
    };
    let trained: Vec<Orientation> = shown
        .par_iter()
        .filter_map(|&image| told((&training.seen.traits[image], training.cases[image])))
        .collect();
    let validated: Vec<Orientation> = validation
        .seen
        .traits
        .par_iter()
        .zip(&validation.cases)
        .filter_map(|(traits, &case)| told((traits, case)))
        .collect();
    let mut limits = BTreeMap::new();
    for side in [trained, validated] {
        let mut columns: BTreeMap<Statistic, Vec<f64>> = BTreeMap::new();
        for (statistic, value) in side.into_iter().flat_map(Statistic::of_orientation) {
            columns.entry(statistic).or_default().push(value);
        }
        for (statistic, values) in columns {
            let low = down(range(&values).0.min(0.0) - slack(statistic));
            let limit = limits.entry(statistic).or_insert(Limit { low: Some(low), high: None });
            limit.low = limit.low.map(|other| other.min(low));
        }
    }
    limits
}

/// Limits of what is measured without a network.
fn limits(
    grey: &[f32],
    train: &[Traits],
    validation: &[Traits],
    input_side: usize,
) -> BTreeMap<Statistic, Limit> {
    let column = |images: &[Traits], wanted| -> Vec<f64> {
        let values = images.iter().flat_map(|traits| traits.values(grey));
        values.filter(|&(statistic, _)| statistic == wanted).map(|(_, value)| value).collect()
    };
    let limit = |statistic| {
        let sides = [column(train, statistic), column(validation, statistic)];
        let seen: Vec<(f64, f64)> =
            sides.iter().filter(|side| !side.is_empty()).map(|side| range(side)).collect();
        let low = seen.iter().map(|&(low, _)| low).reduce(f64::min)?;
        let high = seen.iter().map(|&(_, high)| high).reduce(f64::max)?;
        Some((statistic, bounds(statistic, low, high, input_side)))
    };
    Statistic::OF_TRAITS.into_iter().filter_map(limit).collect()
}

/// The limit of a statistic whose values were seen between `low` and `high`.
fn bounds(statistic: Statistic, low: f64, high: f64, input_side: usize) -> Limit {
    let margin = (MARGIN * (high - low)).max(slack(statistic));
    let (below, above) = (Some(down(low - margin)), Some(up(high + margin)));
    match statistic {
        // A larger image is no worse, and a smaller one is stretched.
        Statistic::Side => Limit { low: Some((low.min(input_side as f64) / 2.0).floor()), high: None },
        Statistic::Surround | Statistic::Upright | Statistic::Unturned => Limit { low: below, high: None },
        Statistic::Chroma
        | Statistic::Window
        | Statistic::White
        | Statistic::Black
        | Statistic::FeatureDistance => Limit { low: None, high: above },
        Statistic::Detail
        | Statistic::BodyShare
        | Statistic::Aspect
        | Statistic::BrightRow
        | Statistic::BrightColumn => Limit { low: below, high: above },
    }
}

/// Least margin of a statistic, for data whose images are all alike in it.
fn slack(statistic: Statistic) -> f64 {
    match statistic {
        Statistic::Window => 2.0,
        Statistic::Detail | Statistic::Aspect => 0.1,
        Statistic::Surround | Statistic::Black | Statistic::BodyShare => 0.05,
        Statistic::BrightRow | Statistic::BrightColumn => 0.03,
        Statistic::Upright | Statistic::Unturned => 0.02,
        Statistic::Chroma | Statistic::White => 0.01,
        Statistic::Side | Statistic::FeatureDistance => 0.0,
    }
}

/// Values beyond which lie at most [`RATE`] of these on either side.
fn range(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let outside = (RATE * sorted.len() as f64).floor() as usize;
    (sorted[outside], sorted[sorted.len() - 1 - outside])
}

/// Six decimals are read back from JSON as they were written.
fn up(value: f64) -> f64 {
    (value * 1e6).ceil() / 1e6
}

fn down(value: f64) -> f64 {
    (value * 1e6).floor() / 1e6
}

/// The most bits at which at most [`RATE`] of the images resemble a training image of another case, of
/// which they are no copies.
fn near_copy_bits(prints: &Prints, training: &Training<'_>, validation: &Validation) -> Option<u32> {
    let trained = training.seen.traits.par_iter().zip(&training.cases);
    let validated = validation.seen.traits.par_iter().zip(&validation.cases);
    let nearest: Vec<u32> = trained
        .chain(validated)
        .filter_map(|(traits, case)| prints.nearest_of(traits.hash(), |image| training.cases[image] != *case))
        .map(|(bits, _)| bits)
        .collect();
    let allowed = (RATE * nearest.len() as f64).floor() as usize;
    (0..=NEAR_COPY_BITS).rev().find(|&most| nearest.iter().filter(|&&bits| bits <= most).count() <= allowed)
}

fn false_alarms(gate: &InputGate, validation: &Validation) -> FalseAlarms {
    let Validation { seen, groups, unit, .. } = validation;
    let reasons: Vec<Vec<Reason>> = seen
        .traits
        .iter()
        .zip(seen.pooled.chunks_exact(gate.images.channels()))
        .map(|(traits, pooled)| gate.reasons(traits, pooled))
        .collect();
    FalseAlarms::count(&reasons, groups.iter().collect::<BTreeSet<_>>().len(), unit.to_string())
}

/// Pools a batch of feature maps, `[images, height, width, channels]`.
pub fn pooled(features: &[f32], images: usize, channels: usize) -> Vec<f32> {
    let length = (features.len() / images.max(1)).max(1);
    features.chunks_exact(length).flat_map(|image| pooled_features(image, channels)).collect()
}
