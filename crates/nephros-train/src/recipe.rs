//! The training that params.yaml describes, on any part of a dataset: what cross-validation repeats
//! for every fold, and what the leakage gap and the controls ask their questions with.

use burn::tensor::Device;
use nephros_core::{pixels::RgbImage, weights::Weights};

use crate::{
    augment::AugmentationRanges,
    config::Params,
    controls::Mask,
    evaluate::metrics::Predictions,
    manifest::Record,
    prepare::add_head,
    pretrained,
    progress::{Progress, check},
    split::{Split, Subset, Unit, grouped},
    stages::{Dataset, Project},
    train::{
        FeatureStore, Fit, Inputs, Key, Layout, Sampler, TrainError, Trained, cached_features, class_weights,
        data::{Pipeline, Sample, read_images},
        draw, pretrained_on_drawn, trained_part,
    },
};

/// Everything that the trainings of one recipe share.
pub struct Recipe {
    params: Params,
    layout: Layout,
    trained: Trained,
    initial: Weights,
    pipeline: Pipeline,
    samples: Vec<Sample>,
    features: Option<(FeatureStore, Vec<Vec<Key>>)>,
    /// Group of each image: those of one patient share it.
    groups: Vec<usize>,
    /// Drawn slices that every training sees beside the data.
    drawn: Vec<Sample>,
}

impl Recipe {
    /// Reads all images of a dataset, as they are or with a part of each hidden.
    ///
    /// # Errors
    /// The starting weights or an image cannot be had, a class cannot be drawn, or the user stopped.
    pub fn load(
        project: &Project,
        dataset: &Dataset,
        params: Params,
        mask: Option<Mask>,
        progress: &dyn Progress,
    ) -> Result<Self, TrainError> {
        let classes = dataset.labels.len();
        let Params { architecture, image_size, seed, .. } = params;
        let cache = pretrained::cache_dir();
        let base = pretrained::load(architecture, image_size, &params.weights, seed, &cache, progress)?;
        let mut initial = base.weights;
        add_head(&mut initial, &params, classes);
        let preprocessing = params.preprocessing(base.normalization);
        let members: Vec<_> = dataset.records.iter().zip(dataset.targets.iter().copied()).collect();
        let framed = |image: &RgbImage, shown: &RgbImage| match mask {
            None => preprocessing.resize_as(image, shown),
            Some(mask) => mask.resize_as(image, shown, &preprocessing),
        };
        let sample = |record: &Record, label, image: &RgbImage| Sample {
            // Features are cached under this name.
            sha256: mask.map_or_else(|| record.sha256.clone(), |mask| mask.name_of(&record.sha256)),
            label,
            pixels: framed(image, image).pixels().to_vec(),
            lesion: None,
        };
        let samples = read_images(&dataset.root, &members, sample, progress)?;
        let drawn = draw(&params, &dataset.labels, &framed, progress)?;
        let layout = Layout { architecture, image_size, hidden_units: params.head_units(), classes };
        let pipeline = Pipeline { preprocessing, ranges: AugmentationRanges::from(&params), seed };
        let trained = trained_part(&params);
        let cache = project.path(&project.config.artifacts_root).join("cache");
        let initial = pretrained_on_drawn(&params, layout, &pipeline, &drawn, initial, &cache, progress)?;
        let features = if trained == Trained::Head {
            let path = cache.join("features.bin");
            let views = if params.augmentation { params.augmentation_views } else { 0 };
            let sets: [(&[Sample], usize); 2] = [(&samples, views), (&[], 0)];
            let (store, [keys, _]) = cached_features(&path, layout, &initial, &pipeline, sets, progress)?;
            Some((store, keys))
        } else {
            None
        };
        let groups = grouped(&dataset.records, Unit::of(&dataset.records, params.split_by));
        Ok(Self { params, layout, trained, initial, pipeline, samples, features, groups, drawn })
    }

    /// Gives every image another label, in the order of the dataset. Drawn slices keep theirs.
    pub fn relabel(&mut self, labels: &[usize]) {
        for (sample, &label) in self.samples.iter_mut().zip(labels) {
            sample.label = label;
        }
    }

    /// Trains on the training images of a split, chooses by its validation images where it has any,
    /// and answers for its test images, in their order. Nothing is calibrated.
    ///
    /// # Errors
    /// See [`TrainError`]; a split that leaks is one.
    pub fn round(&self, split: &Split, progress: &dyn Progress) -> Result<Predictions, TrainError> {
        check(progress)?;
        split.check_disjoint()?;
        let [train, validation, test] =
            [Subset::Train, Subset::Validation, Subset::Test].map(|subset| split.indices(subset));
        let labels: Vec<usize> = train.iter().map(|&position| self.samples[position].label).collect();
        let groups: Vec<usize> = train.iter().map(|&position| self.groups[position]).collect();
        let sampler = Sampler::new(&self.params, &labels, &groups)
            .with_drawn(self.drawn.len(), self.params.phantom_share);
        let fit = Fit {
            params: &self.params,
            layout: self.layout,
            trained: self.trained,
            initial: &self.initial,
            class_weights: class_weights(&self.params, &labels, self.layout.classes),
            sampler,
            train: self.inputs(&train, &self.drawn),
            validation: self.inputs(&validation, &[]),
            checkpoint: None,
        };
        let fitted = fit.run(&Device::flex(), progress)?;
        self.inputs(&test, &[]).predict(self.layout, &fitted.weights)
    }

    /// The answers of several rounds, by the positions of their images; no image is tested twice.
    ///
    /// # Errors
    /// As [`Self::round`].
    pub fn rounds(&self, rounds: &[Split], progress: &dyn Progress) -> Result<Predictions, TrainError> {
        let mut answers = Vec::new();
        for split in rounds {
            answers.push(self.round(split, progress)?);
        }
        Ok(in_order(rounds, answers))
    }

    fn inputs<'a>(&'a self, positions: &[usize], drawn: &'a [Sample]) -> Inputs<'a> {
        match &self.features {
            Some((store, keys)) => Inputs::Features {
                store,
                keys: positions.iter().map(|&position| keys[position].clone()).collect(),
                labels: positions.iter().map(|&position| self.samples[position].label).collect(),
            },
            None => Inputs::Images {
                samples: positions.iter().map(|&position| &self.samples[position]).chain(drawn).collect(),
                pipeline: &self.pipeline,
            },
        }
    }
}

/// Positions of the images that some rounds test, in the order of the dataset.
pub fn tested(rounds: &[Split]) -> Vec<usize> {
    let mut positions: Vec<usize> = rounds.iter().flat_map(|split| split.indices(Subset::Test)).collect();
    positions.sort_unstable();
    positions
}

/// The answers of each round as one, in the order of [`tested`].
pub fn in_order(rounds: &[Split], answers: Vec<Predictions>) -> Predictions {
    let positions = rounds.iter().flat_map(|split| split.indices(Subset::Test));
    let answers = answers.into_iter().flat_map(|round| round.labels.into_iter().zip(round.probabilities));
    let mut all: Vec<_> = positions.zip(answers).collect();
    all.sort_by_key(|(position, _)| *position);
    let mut predictions = Predictions::default();
    for (_, (label, probabilities)) in all {
        predictions.push(label, probabilities);
    }
    predictions
}
