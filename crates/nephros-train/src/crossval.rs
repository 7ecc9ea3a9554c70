//! Stratified group k-fold cross-validation: every image is scored once, by a model that never saw
//! its patient.

mod doubt;

use std::{collections::BTreeMap, fmt, io};

use nephros_core::hint::Hint;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    config::Params,
    controls::{self, Case, Checks, Control, Findings, Gap, NoGap, picture},
    evaluate::{
        AbstentionScores, CalibrationScores, Doubt, PatientScores,
        interval::{Intervals, Resampler, bootstrap},
        metrics::{Metrics, Predictions},
        table,
    },
    files::write_atomic,
    manifest::{ManifestError, Record},
    progress::Progress,
    recipe::{Recipe, in_order},
    split::{Split, SplitError, Subset, Unit, grouped},
    stages::{Dataset, Project},
    train::{TrainError, data::read_images},
};

/// What cross-validation found; written to `artifacts/crossval/crossval.json`, and beside it the answers for
/// all images, before calibration, to `predictions.csv`.
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
    /// Of patients, each answered for by all of its images and read as the other folds say; `None` when
    /// one is unknown.
    pub by_patient: Option<PatientScores>,
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
    /// Whether probabilities mean what they say once each fold's are corrected by the other folds.
    pub calibration: CalibrationScores,
    /// How often a model would refer to a radiologist, its thresholds set by the other folds.
    pub abstention: Option<AbstentionScores>,
    /// What random folds would have claimed, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The nearest pixels, and the other controls where they were asked for.
    #[serde(default)]
    pub controls: Vec<Control>,
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
        if let Some(sensitivity) = self.metrics.sensitivity_at_90_specificity {
            write!(f, "\n  sensitivity {sensitivity:.3} at a specificity of 0.9")?;
        }
        if let Some(mean) = self.mean_fold_auroc {
            write!(f, "\n  AUROC of the folds, on average {mean:.3}")?;
        }
        write!(
            f,
            "\neach fold corrected by the others:\n{}",
            Doubt(&self.calibration, self.abstention.as_ref(), "slices")
        )?;
        if let Some(patients) = &self.by_patient {
            write!(f, "\n{patients}")?;
        }
        write!(f, "{}", controls::Text(self.gap.as_ref(), &self.controls))
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
    /// There is no gap to be told.
    #[error(transparent)]
    NoGap(#[from] NoGap),
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
            Self::NoGap(error) => error.hint(),
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
pub fn crossval(
    project: &Project,
    folds: usize,
    checks: Checks,
    progress: &dyn Progress,
) -> Result<Crossval, CrossvalError> {
    let dataset = Dataset::load(project)?;
    let params = Params { early_stopping_patience: 0, ..project.params.clone() };
    let unit = Unit::of(&dataset.records, params.split_by);
    checks.fit(unit)?;
    let rounds = rounds(&dataset, unit, folds, params.seed)?;
    let random =
        if checks.gap { self::rounds(&dataset, Unit::Image, folds, params.seed)? } else { Vec::new() };
    let (answers, results) = score(project, &dataset, &params, &rounds, progress)?;
    let members: Vec<_> = dataset.records.iter().zip(dataset.targets.iter().copied()).collect();
    let pictures = read_images(&dataset.root, &members, |_, _, image| picture(image), progress)
        .map_err(TrainError::from)?;
    let (params, dataset) = (&params, &dataset);
    let case = Case {
        project,
        dataset,
        params,
        rounds: &rounds,
        random: &random,
        answers: &answers,
        pictures: &pictures,
    };
    let Findings { gap, controls } = case.examine(checks.controls, progress)?;
    let result = Crossval { gap, controls, ..pool(dataset, params, (unit, &rounds), &answers, results) };
    let folder = project.path(&project.config.artifacts_root).join("crossval");
    let fold_of = doubt::fold_of(&rounds, members.len());
    let table = table(&dataset.labels, &members, &answers, Some(&fold_of))?;
    write_atomic(&folder.join("predictions.csv"), &table)?;
    write_atomic(
        &folder.join("crossval.json"),
        &serde_json::to_vec_pretty(&result).map_err(io::Error::from)?,
    )?;
    Ok(result)
}

/// The answers for all images, each by the model of its fold, and the figures of each fold.
fn score(
    project: &Project,
    dataset: &Dataset,
    params: &Params,
    rounds: &[Split],
    progress: &dyn Progress,
) -> Result<(Predictions, Vec<Fold>), TrainError> {
    let recipe = Recipe::load(project, dataset, params.clone(), None, progress)?;
    let (mut answers, mut results) = (Vec::new(), Vec::new());
    for (index, split) in rounds.iter().enumerate() {
        let predictions = recipe.round(split, progress)?;
        let metrics = predictions.metrics(dataset.labels.len());
        tracing::info!("fold {} of {}: {metrics:?}", index + 1, rounds.len());
        results.push(Fold {
            n_train: split.indices(Subset::Train).len(),
            n_test: predictions.len(),
            patients: split.patients(Subset::Test).into_iter().map(String::from).collect(),
            metrics,
        });
        answers.push(predictions);
    }
    Ok((in_order(rounds, answers), results))
}

/// The split of each fold, tested on its images and trained on all others.
fn rounds(dataset: &Dataset, unit: Unit, folds: usize, seed: u64) -> Result<Vec<Split>, CrossvalError> {
    let fold_of = assign(dataset, unit, folds, seed)?;
    let round = |fold| {
        let side = |&of: &usize| if of == fold { Subset::Test } else { Subset::Train };
        let subsets: Vec<Subset> = fold_of.iter().map(side).collect();
        Split::from_subsets(&dataset.records, &subsets, unit)
    };
    Ok((0..folds).map(round).collect())
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

fn pool(
    dataset: &Dataset,
    params: &Params,
    (unit, rounds): (Unit, &[Split]),
    predictions: &Predictions,
    folds: Vec<Fold>,
) -> Crossval {
    let classes = dataset.labels.len();
    let units: Vec<String> = dataset.records.iter().map(Record::unit_name).collect();
    let mut patients: Vec<&str> = dataset.records.iter().map(|record| record.patient.as_str()).collect();
    patients.retain(|patient| !patient.is_empty());
    patients.sort_unstable();
    patients.dedup();
    let fold_aurocs: Vec<f64> = folds.iter().filter_map(|fold| fold.metrics.auroc).collect();
    let mean = fold_aurocs.iter().sum::<f64>() / fold_aurocs.len() as f64;
    let resampler = Resampler::new(predictions, &units, params.seed);
    let (calibration, abstention, by_patient) =
        doubt::doubt(dataset, params, unit, rounds, predictions, (&units, &resampler));
    Crossval {
        mean_fold_auroc: (!fold_aurocs.is_empty()).then_some(mean),
        by_patient,
        metrics: predictions.metrics(classes),
        interval_95: bootstrap(predictions, &resampler, classes),
        majority_accuracy: predictions.majority_accuracy(classes),
        n: predictions.len(),
        n_patients: (!patients.is_empty()).then_some(patients.len()),
        split_by: unit,
        seed: params.seed,
        confusion_matrix: predictions.confusion(classes),
        labels: dataset.labels.clone(),
        folds,
        calibration,
        abstention,
        gap: None,
        controls: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::Manifest;

    /// `patients` of two classes in turn, patient `n` with `n % 4 + 1` images.
    pub(super) fn dataset(patients: usize) -> Dataset {
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
                    orientation: String::new(),
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
