//! What an evaluation takes of the images, each decoded once.

use std::collections::BTreeSet;

use nephros_core::{
    input_gate::{FalseAlarms, Traits},
    predictor::Predictor,
};

use super::{EvaluateError, metrics::Predictions};
use crate::{
    augment::AugmentationRanges,
    controls::picture,
    manifest::Record,
    orientation::Plane,
    progress::{Progress, Silent, Unit as Count, check},
    split::{Split, Subset},
    stages::Dataset,
    train::data::{Pipeline, Sample, View, read_images},
};

/// Images in memory at a time.
const GROUP: usize = 64;

/// What came of them.
pub(super) struct Looked {
    /// What the model says of each test image.
    pub answers: Predictions,
    /// How many test images get no label; `None` for a model that labels all pictures.
    pub input_gate: Option<FalseAlarms>,
    /// Plane that each test image suggests.
    pub planes: Vec<Option<Plane>>,
    /// A small grey picture of every image.
    pub pictures: Vec<Vec<u8>>,
}

/// A test image.
struct Seen {
    sample: Sample,
    traits: Option<Traits>,
    plane: Option<Plane>,
    picture: Vec<u8>,
}

pub(super) fn look(
    predictor: &Predictor,
    dataset: &Dataset,
    split: &Split,
    progress: &dyn Progress,
) -> Result<Looked, EvaluateError> {
    let preprocessing = predictor.preprocessing().clone();
    let pipeline = Pipeline { preprocessing, ranges: AugmentationRanges::default(), seed: 0 };
    let (members, places) = (dataset.subset(split, Subset::Test), split.indices(Subset::Test));
    let take = |record: &Record, label, image: &_| Seen {
        sample: Sample::of(record, label, image, &pipeline.preprocessing),
        traits: predictor.traits(image),
        plane: Plane::estimate(image),
        picture: picture(image),
    };
    let mut pictures = vec![Vec::new(); dataset.records.len()];
    let (mut answers, mut planes, mut reasons) = (Predictions::default(), Vec::new(), Vec::new());
    let task = progress.task("evaluating", Some(members.len() as u64), Count::Items);
    for (group, places) in members.chunks(GROUP).zip(places.chunks(GROUP)) {
        check(progress)?;
        let seen = read_images(&dataset.root, group, take, &Silent)?;
        let input = pipeline.batch(&seen.iter().map(|seen| &seen.sample).collect::<Vec<_>>(), View::Plain);
        let features = predictor.features(&input, seen.len())?;
        let predictions = predictor.predict_features(&features, seen.len())?;
        let own = features.chunks_exact(features.len() / seen.len());
        for (((seen, answer), own), &place) in seen.into_iter().zip(predictions).zip(own).zip(places) {
            answers.push(seen.sample.label, answer.probabilities);
            reasons.push(predictor.reasons(seen.traits.as_ref(), own));
            planes.push(seen.plane);
            pictures[place] = seen.picture;
        }
        task.advance(group.len() as u64);
    }
    drop(task);
    let tested: BTreeSet<usize> = places.into_iter().collect();
    let others: Vec<usize> = (0..dataset.records.len()).filter(|place| !tested.contains(place)).collect();
    let rest: Vec<_> =
        others.iter().map(|&place| (&dataset.records[place], dataset.targets[place])).collect();
    let taken = read_images(&dataset.root, &rest, |_, _, image| picture(image), progress)?;
    for (place, picture) in others.into_iter().zip(taken) {
        pictures[place] = picture;
    }
    let groups: BTreeSet<usize> = split.groups(&dataset.records, Subset::Test).into_iter().collect();
    let count = |_| FalseAlarms::count(&reasons, groups.len(), split.unit.to_string());
    let input_gate = predictor.input_gate().map(count);
    Ok(Looked { answers, input_gate, planes, pictures })
}
