//! Stratified group k-fold cross-validation: every image is scored once, by a model that never saw
//! its patient.

use std::{collections::BTreeMap, fmt, io};

use burn::tensor::Device;
use nephros_core::{hint::Hint, weights::Weights};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    augment::AugmentationRanges,
    config::Params,
    evaluate::{
        interval::{Intervals, Resampler, bootstrap},
        metrics::{Metrics, Predictions},
    },
    files::write_atomic,
    manifest::{ManifestError, Record},
    prepare::add_head,
    pretrained::{self, PretrainedError},
    progress::{Progress, check},
    split::{Split, SplitError, Subset, Unit, grouped},
    stages::{Dataset, Project},
    train::{
        FeatureStore, Fit, Inputs, Key, Layout, Sampler, TrainError, Trained, cached_features, class_weights,
        data::{Pipeline, Sample, load_images},
        draw, trained_part,
    },
};

/// What cross-validation found; written to `artifacts/crossval/crossval.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crossval {
    /// Of all images together, each scored by the model of its fold.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// 95 % intervals by bootstrap over patients.
    pub interval_95: Intervals,
    /// Accuracy of always naming the larger class.
    pub majority_accuracy: f64,
    /// Mean AUROC of the folds that hold both classes, each ranked by one model alone.
    pub mean_fold_auroc: Option<f64>,
    /// Of patients, each scored by the mean probability of its images; `None` when unknown.
    pub by_patient: Option<Metrics>,
    /// Images.
    pub n: usize,
    /// Patients; `None` when unknown.
    pub n_patients: Option<usize>,
    /// What stayed in one fold.
    pub split_by: Unit,
    /// `SEED`.
    pub seed: u64,
    /// Rows are true classes, columns predicted ones.
    pub confusion_matrix: Vec<Vec<usize>>,
    /// Class names.
    pub labels: Vec<String>,
    /// Each fold on its own.
    pub folds: Vec<Fold>,
}

/// One fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// Images trained on.
    pub n_train: usize,
    /// Images scored.
    pub n_test: usize,
    /// Patients scored, empty when unknown.
    pub patients: Vec<String>,
    /// Figures of this fold alone.
    pub metrics: Metrics,
}

impl fmt::Display for Crossval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auroc =
            |metrics: &Metrics| metrics.auroc.map_or("undefined".into(), |auroc| format!("{auroc:.3}"));
        writeln!(f, "fold  train  test  accuracy  AUROC")?;
        for (index, fold) in self.folds.iter().enumerate() {
            let (train, test, accuracy) = (fold.n_train, fold.n_test, fold.metrics.accuracy);
            writeln!(
                f,
                "{:>4}  {train:>5}  {test:>4}  {accuracy:>8.3}  {}",
                index + 1,
                auroc(&fold.metrics)
            )?;
        }
        let [low, high] = self.interval_95.accuracy;
        let range =
            self.interval_95.auroc.map_or(String::new(), |[low, high]| format!(" ({low:.3} to {high:.3})"));
        let patients = self.n_patients.map_or(String::new(), |patients| format!(" of {patients} patients"));
        writeln!(
            f,
            "all {} images{patients}, each scored by a model that never saw its {}:",
            self.n,
            self.unit()
        )?;
        writeln!(
            f,
            "  accuracy {:.3} ({low:.3} to {high:.3}), {:.3} by always naming the larger class",
            self.metrics.accuracy, self.majority_accuracy
        )?;
        write!(
            f,
            "  AUROC {}{range}, sensitivity {:.3}, specificity {:.3}",
            auroc(&self.metrics),
            self.metrics.sensitivity,
            self.metrics.specificity
        )?;
        if let Some(mean) = self.mean_fold_auroc {
            write!(f, "\n  AUROC of the folds, on average {mean:.3}")?;
        }
        match &self.by_patient {
            Some(metrics) => write!(
                f,
                "\nby patient, the mean of all images: AUROC {}, accuracy {:.3}",
                auroc(metrics),
                metrics.accuracy
            ),
            None => Ok(()),
        }
    }
}

impl Crossval {
    fn unit(&self) -> &'static str {
        match self.split_by {
            Unit::Patient => "patient",
            Unit::Group => "group of like images (groups are found, no patient is known)",
            Unit::Run => "run of file numbers (no patient is known)",
            Unit::Image => "file, though it may have seen the same patient",
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrossvalError {
    /// More folds than patients, or fewer than two.
    #[error("expected 2 to {most} folds, because class `{class}` has {most} {unit}, got {got}")]
    Folds {
        /// Class with the fewest units.
        class: String,
        /// Units of that class.
        most: usize,
        /// What is kept together, in the plural.
        unit: &'static str,
        /// Folds asked for.
        got: usize,
    },
    /// The manifest is missing or broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The weights cannot be had.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// A fold leaks.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A fold cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The result cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Hint for CrossvalError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Folds { .. } => Some("choose fewer `--folds`".into()),
            Self::Manifest(error) => error.hint(),
            Self::Pretrained(error) => error.hint(),
            Self::Split(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Io(_) => None,
        }
    }
}

/// Cross-validates the parameters of a project on its ingested images.
///
/// Every fold trains for `EPOCHS` epochs and keeps the last, so that nothing is chosen by the
/// images that are scored.
///
/// # Errors
/// See [`CrossvalError`].
pub fn crossval(project: &Project, folds: usize, progress: &dyn Progress) -> Result<Crossval, CrossvalError> {
    let dataset = Dataset::load(project)?;
    let params = Params { early_stopping_patience: 0, ..project.params.clone() };
    let unit = Unit::of(&dataset.records, params.split_by);
    let fold_of = assign(&dataset, unit, folds, params.seed)?;
    let material = Material::load(project, &dataset, params, progress)?;
    let mut answers: Vec<Option<Vec<f32>>> = vec![None; dataset.records.len()];
    let mut results = Vec::new();
    for fold in 0..folds {
        check(progress).map_err(TrainError::from)?;
        let side = |&of: &usize| if of == fold { Subset::Test } else { Subset::Train };
        let subsets: Vec<Subset> = fold_of.iter().map(side).collect();
        let split = Split::from_subsets(&dataset.records, &subsets, unit);
        split.check_disjoint()?;
        let (train, test) = (split.indices(Subset::Train), split.indices(Subset::Test));
        let predictions = material.fold(&train, &test, progress)?;
        results.push(Fold {
            n_train: train.len(),
            n_test: test.len(),
            patients: split.patients(Subset::Test).into_iter().map(String::from).collect(),
            metrics: predictions.metrics(dataset.labels.len()),
        });
        tracing::info!("fold {} of {folds}: {:?}", fold + 1, results[fold].metrics);
        for (position, probabilities) in test.into_iter().zip(predictions.probabilities) {
            answers[position] = Some(probabilities);
        }
    }
    let result = pool(&dataset, unit, project.params.seed, answers, results);
    let path = project.path(&project.config.artifacts_root).join("crossval/crossval.json");
    write_atomic(&path, &serde_json::to_vec_pretty(&result).map_err(io::Error::from)?)?;
    Ok(result)
}

/// Fold of each image: within each class the units go, largest first, to the fold with the fewest
/// images of that class; units of equal size in the order of the seed.
fn assign(dataset: &Dataset, unit: Unit, folds: usize, seed: u64) -> Result<Vec<usize>, CrossvalError> {
    let groups = grouped(&dataset.records, unit);
    let mut by_class: BTreeMap<usize, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    for (position, &group) in groups.iter().enumerate() {
        by_class.entry(dataset.targets[group]).or_default().entry(group).or_default().push(position);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut fold_of = vec![0; groups.len()];
    for (class, units) in by_class {
        if folds < 2 || units.len() < folds {
            let unit = match unit {
                Unit::Patient => "patients",
                Unit::Group => "groups",
                Unit::Run => "runs",
                Unit::Image => "images",
            };
            let class = dataset.labels[class].clone();
            return Err(CrossvalError::Folds { class, most: units.len(), unit, got: folds });
        }
        let mut units: Vec<Vec<usize>> = units.into_values().collect();
        units.shuffle(&mut rng);
        units.sort_by_key(|unit| std::cmp::Reverse(unit.len()));
        let mut sizes = vec![0; folds];
        for unit in units {
            let fold = (0..folds).min_by_key(|&fold| sizes[fold]).unwrap_or(0);
            sizes[fold] += unit.len();
            for position in unit {
                fold_of[position] = fold;
            }
        }
    }
    Ok(fold_of)
}

/// Everything that the folds share.
struct Material {
    params: Params,
    layout: Layout,
    trained: Trained,
    initial: Weights,
    pipeline: Pipeline,
    samples: Vec<Sample>,
    features: Option<(FeatureStore, Vec<Vec<Key>>)>,
    /// Group of each image: those of one patient share it.
    groups: Vec<usize>,
    /// Drawn slices that every fold trains on.
    drawn: Vec<Sample>,
}

impl Material {
    fn load(
        project: &Project,
        dataset: &Dataset,
        params: Params,
        progress: &dyn Progress,
    ) -> Result<Self, CrossvalError> {
        let classes = dataset.labels.len();
        let Params { architecture, image_size, seed, .. } = params;
        let base = pretrained::load(
            architecture,
            image_size,
            &params.weights,
            seed,
            &pretrained::cache_dir(),
            progress,
        )?;
        let mut initial = base.weights;
        add_head(&mut initial, &params, classes);
        let preprocessing = params.preprocessing(base.normalization);
        let members: Vec<_> = dataset.records.iter().zip(dataset.targets.iter().copied()).collect();
        let samples =
            load_images(&dataset.root, &members, &preprocessing, progress).map_err(TrainError::from)?;
        let layout = Layout { architecture, image_size, hidden_units: params.hidden_units, classes };
        let pipeline = Pipeline { preprocessing, ranges: AugmentationRanges::from(&params), seed };
        let trained = trained_part(&params);
        let features = if trained == Trained::Head {
            let path = project.path(&project.config.artifacts_root).join("cache/features.bin");
            let views = if params.augmentation { params.augmentation_views } else { 0 };
            let sets: [(&[Sample], usize); 2] = [(&samples, views), (&[], 0)];
            let (store, [keys, _]) = cached_features(&path, layout, &initial, &pipeline, sets, progress)?;
            Some((store, keys))
        } else {
            None
        };
        let drawn = draw(&params, &dataset.labels, &pipeline.preprocessing, progress)?;
        let groups = grouped(&dataset.records, Unit::of(&dataset.records, params.split_by));
        Ok(Self { params, layout, trained, initial, pipeline, samples, features, groups, drawn })
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

    fn fold(
        &self,
        train: &[usize],
        test: &[usize],
        progress: &dyn Progress,
    ) -> Result<Predictions, TrainError> {
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
            train: self.inputs(train, &self.drawn),
            // Nothing is chosen by validation, so that no image is spent on it.
            validation: self.inputs(&[], &[]),
            checkpoint: None,
        };
        let fitted = fit.run(&Device::flex(), progress)?;
        self.inputs(test, &[]).predict(self.layout, &fitted.weights)
    }
}

fn pool(
    dataset: &Dataset,
    unit: Unit,
    seed: u64,
    answers: Vec<Option<Vec<f32>>>,
    folds: Vec<Fold>,
) -> Crossval {
    let classes = dataset.labels.len();
    let mut predictions = Predictions::default();
    for (&label, answer) in dataset.targets.iter().zip(answers) {
        predictions.push(label, answer.unwrap_or_else(|| vec![1.0 / classes as f32; classes]));
    }
    let units: Vec<String> = dataset.records.iter().map(Record::unit_name).collect();
    let mut patients: Vec<&str> = dataset.records.iter().map(|record| record.patient.as_str()).collect();
    patients.retain(|patient| !patient.is_empty());
    patients.sort_unstable();
    patients.dedup();
    let fold_aurocs: Vec<f64> = folds.iter().filter_map(|fold| fold.metrics.auroc).collect();
    let mean = fold_aurocs.iter().sum::<f64>() / fold_aurocs.len() as f64;
    Crossval {
        mean_fold_auroc: (!fold_aurocs.is_empty()).then_some(mean),
        by_patient: (!patients.is_empty()).then(|| predictions.by_unit(&units).metrics(classes)),
        metrics: predictions.metrics(classes),
        interval_95: bootstrap(&predictions, &Resampler::new(&predictions, &units, seed), classes),
        majority_accuracy: predictions.majority_accuracy(classes),
        n: predictions.len(),
        n_patients: (!patients.is_empty()).then_some(patients.len()),
        split_by: unit,
        seed,
        confusion_matrix: predictions.confusion(classes),
        labels: dataset.labels.clone(),
        folds,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::Manifest;

    /// `patients` of two classes in turn, patient `n` with `n % 4 + 1` images.
    fn dataset(patients: usize) -> Dataset {
        let mut records = Vec::new();
        for patient in 0..patients {
            let class = if patient.is_multiple_of(2) { "Normal" } else { "Tumor" };
            for slice in 0..=patient % 4 {
                records.push(Record {
                    path: format!("{class}/{patient:02}-{slice}.png"),
                    class: class.into(),
                    sha256: format!("{patient}-{slice}"),
                    bytes: 1,
                    width: 1,
                    height: 1,
                    patient: format!("P{patient}"),
                    group: String::new(),
                });
            }
        }
        records.sort_by(|a, b| a.path.cmp(&b.path));
        Dataset::new(Manifest { root: ".".into(), records }, &crate::testing::params()).unwrap()
    }

    #[test]
    fn every_fold_has_both_classes_and_no_patient_is_in_two() {
        let dataset = dataset(20);
        let fold_of = assign(&dataset, Unit::Patient, 5, 7).unwrap();
        let mut homes: BTreeMap<&str, usize> = BTreeMap::new();
        for (record, &fold) in dataset.records.iter().zip(&fold_of) {
            assert_eq!(*homes.entry(&record.patient).or_insert(fold), fold, "{}", record.patient);
        }
        for fold in 0..5 {
            let members = dataset.records.iter().zip(&fold_of).filter(|(_, of)| **of == fold);
            let classes: BTreeSet<&str> = members.map(|(record, _)| record.class.as_str()).collect();
            assert_eq!(classes, BTreeSet::from(["Normal", "Tumor"]), "fold {fold}");
        }
        assert_ne!(fold_of, assign(&dataset, Unit::Patient, 5, 8).unwrap());
    }

    #[test]
    fn more_folds_than_patients_of_a_class_are_refused() {
        let error = assign(&dataset(8), Unit::Patient, 5, 1).unwrap_err();
        let expected = "expected 2 to 4 folds, because class `Normal` has 4 patients, got 5";
        assert_eq!(error.to_string(), expected);
    }
}
