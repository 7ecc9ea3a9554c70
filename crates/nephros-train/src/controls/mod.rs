//! Whether a score is more than leakage and shortcuts: the same recipe on a random split, and on
//! questions that a model which looks at kidneys cannot answer.
//!
//! Nothing here changes the main figures, which never come from a random split.

mod chance;
mod mask;
mod nearest;
mod shuffle;
#[cfg(test)]
mod tests;

use std::fmt;

use nephros_core::hint::Hint;
use serde::{Deserialize, Serialize};

use self::{chance::chance, nearest::nearest, shuffle::shuffled};
use crate::{
    config::{Params, SplitBy},
    evaluate::{
        interval::{Interval, Intervals, Resampler, bootstrap},
        metrics::{Metrics, Predictions},
    },
    manifest::Record,
    progress::{Progress, Unit as Count},
    recipe::{Recipe, tested},
    split::{Split, Unit, grouped},
    stages::{Dataset, Project},
    train::TrainError,
};

pub use mask::Mask;
pub use nearest::picture;

/// What is asked beside the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checks {
    /// What a random split of the same images would have claimed.
    pub gap: bool,
    /// The controls that take a training each.
    pub controls: bool,
}

/// Headline figures of one set of answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Images.
    pub n: usize,
    /// Share of images whose most probable class is right.
    pub accuracy: f64,
    /// As in [`Metrics`].
    pub auroc: Option<f64>,
    /// As in [`Metrics`].
    pub sensitivity: f64,
    /// As in [`Metrics`].
    pub specificity: f64,
    /// Accuracy of always naming the larger class.
    pub majority_accuracy: f64,
    /// 95 % intervals by bootstrap over patients.
    pub interval_95: Intervals,
}

impl Figures {
    fn of(predictions: &Predictions, units: &[String], classes: usize, seed: u64) -> Self {
        let Metrics { accuracy, auroc, sensitivity, specificity, .. } = predictions.metrics(classes);
        Self {
            n: predictions.len(),
            accuracy,
            auroc,
            sensitivity,
            specificity,
            majority_accuracy: predictions.majority_accuracy(classes),
            interval_95: bootstrap(predictions, &Resampler::new(predictions, units, seed), classes),
        }
    }
}

/// What a random split of the same images, with sides of the same sizes, claims of the same recipe.
///
/// Both sides are without calibration, which changes no label, and no AUROC of two classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// What the split of the main figures keeps together.
    pub split_by: Unit,
    /// On that split.
    pub by_split: Figures,
    /// On the random split.
    pub random_split: Figures,
    /// The random split's less the other's: what leakage adds.
    pub difference: Difference,
}

/// Differences of headline figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Of the accuracy.
    pub accuracy: f64,
    /// Of the AUROC; `None` where either is undefined.
    pub auroc: Option<f64>,
    /// Of the sensitivity.
    pub sensitivity: f64,
    /// Of the specificity.
    pub specificity: f64,
}

impl Gap {
    fn new(split_by: Unit, by_split: Figures, random_split: Figures) -> Self {
        let difference = Difference {
            accuracy: random_split.accuracy - by_split.accuracy,
            auroc: random_split.auroc.zip(by_split.auroc).map(|(random, other)| random - other),
            sensitivity: random_split.sensitivity - by_split.sensitivity,
            specificity: random_split.specificity - by_split.specificity,
        };
        Self { split_by, by_split, random_split, difference }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { split_by, by_split, random_split, difference } = self;
        write!(
            f,
            "leakage gap: AUROC {} on a random split, {} by {split_by}, difference {}; accuracy {:.3}, {:.3}, {:+.3}",
            known(random_split.auroc),
            known(by_split.auroc),
            difference.auroc.map_or("undefined".into(), |auroc| format!("{auroc:+.3}")),
            random_split.accuracy,
            by_split.accuracy,
            difference.accuracy
        )
    }
}

/// Which control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlKind {
    /// A vote of the five nearest training images on 64×64 raw pixels, without any training.
    NearestPixels,
    /// The recipe on labels that were dealt anew among the patients.
    ShuffledLabels,
    /// The recipe on images whose body is hidden.
    BorderOnly,
    /// The recipe on images in which the middle of the body is hidden.
    CentreMasked,
}

impl ControlKind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::NearestPixels => "nearest pixels",
            Self::ShuffledLabels => "shuffled labels",
            Self::BorderOnly => "border only",
            Self::CentreMasked => "centre masked",
        }
    }

    /// Who scored above chance, and what follows from it.
    fn suspicion(self) -> [&'static str; 2] {
        match self {
            Self::NearestPixels => [
                "a vote of the five nearest images on raw pixels",
                "images of one class resemble each other whatever their kidneys show, and a part of the model's \
                 score may be that",
            ],
            Self::ShuffledLabels => [
                "the same recipe on labels shuffled among patients does not fall to chance: it",
                "test images are not independent of training images, and no figure here can be believed",
            ],
            Self::BorderOnly => [
                "a model that sees only what lies outside the body",
                "something that is not the patient tells the classes apart, and a part of the model's score may \
                 be that",
            ],
            Self::CentreMasked => [
                "a model from which the middle of the body is hidden",
                "something other than the kidneys tells the classes apart, and a part of the model's score may be \
                 that",
            ],
        }
    }
}

/// What one control scored. By chance the AUROC is 0.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Which.
    pub control: ControlKind,
    /// On the split of the main figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The range of 95 % of AUROCs that answers of no worth have on these patients; `None` where it
    /// cannot be told.
    pub chance_auroc_95: Option<Interval>,
    /// The same control on the random split of the gap, where that was asked for.
    pub random_split: Option<Figures>,
    /// What a score above chance means, where it is one.
    pub warning: Option<String>,
}

impl Control {
    fn new(control: ControlKind, figures: Figures, chance_auroc_95: Option<Interval>) -> Self {
        let above = figures.auroc.zip(chance_auroc_95).filter(|(auroc, [_, high])| auroc > high);
        let warning = above.map(|(auroc, [_, high])| {
            let [who, what] = control.suspicion();
            format!("{who} scores AUROC {auroc:.3}, where chance gives 0.500 and seldom more than {high:.3}: {what}")
        });
        Self { control, figures, chance_auroc_95, random_split: None, warning }
    }
}

/// What was found beside the score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    /// Where it was asked for.
    pub gap: Option<Gap>,
    /// The nearest pixels always, the others where they were asked for.
    pub controls: Vec<Control>,
}

/// A line for the gap, and one for each control.
pub(crate) struct Text<'a>(pub Option<&'a Gap>, pub &'a [Control]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gap) = self.0 {
            write!(f, "\n{gap}")?;
        }
        for Control { control, figures, chance_auroc_95, random_split, .. } in self.1 {
            let (auroc, accuracy, majority) =
                (known(figures.auroc), figures.accuracy, figures.majority_accuracy);
            let chance =
                chance_auroc_95.map_or("not known".into(), |[low, high]| format!("{low:.3} to {high:.3}"));
            write!(f, "\ncontrol, {}: AUROC {auroc} (by chance {chance}), ", control.name())?;
            write!(f, "accuracy {accuracy:.3} ({majority:.3} by the larger class)")?;
            if let Some(random) = random_split {
                write!(f, "; on the random split {}, {:.3}", known(random.auroc), random.accuracy)?;
            }
        }
        let warnings = self.1.iter().filter_map(|control| control.warning.as_ref());
        warnings.into_iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

fn known(value: Option<f64>) -> String {
    value.map_or("undefined".into(), |value| format!("{value:.3}"))
}

/// There is no gap between a random split and a random split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the leakage gap is of a split that keeps patients together, got one of single images")]
pub struct NoGap;

impl Hint for NoGap {
    fn hint(&self) -> Option<String> {
        Some("set `SPLIT_BY: patient` and train again, or leave `--gap` out".into())
    }
}

impl Checks {
    /// Refuses what cannot be asked of a split, before any work.
    ///
    /// # Errors
    /// [`NoGap`].
    pub fn fit(self, unit: Unit) -> Result<(), NoGap> {
        if self.gap && unit == Unit::Image { Err(NoGap) } else { Ok(()) }
    }
}

/// A score that is looked into.
pub struct Case<'a> {
    /// The project.
    pub project: &'a Project,
    /// Its images.
    pub dataset: &'a Dataset,
    /// How the model of the score was trained.
    pub params: &'a Params,
    /// The split of the score, or one for each fold.
    pub rounds: &'a [Split],
    /// Random ones of the same sizes, for the gap; none where that is not asked for.
    pub random: &'a [Split],
    /// What the model says of the images that the rounds test, in the order of the dataset, without
    /// calibration.
    pub answers: &'a Predictions,
    /// Grey pictures of all images, as [`picture`] makes them.
    pub pictures: &'a [Vec<u8>],
}

impl Case<'_> {
    /// Computes the nearest pixels, the gap where there are random splits, and with `controls` the
    /// controls that are trained.
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn examine(&self, controls: bool, progress: &dyn Progress) -> Result<Findings, TrainError> {
        let mut findings = Findings { gap: None, controls: vec![self.nearest_pixels(progress)?] };
        let steps = u64::from(!self.random.is_empty()) + if controls { 3 } else { 0 };
        if steps == 0 {
            return Ok(findings);
        }
        let task = progress.task("gap and controls", Some(steps), Count::Items);
        let load = |mask| Recipe::load(self.project, self.dataset, self.params.clone(), mask, progress);
        let mut recipe = load(None)?;
        if !self.random.is_empty() {
            task.message("random split");
            let random = self.figures(&recipe.rounds(self.random, progress)?, self.random);
            let by_split = self.figures(self.answers, self.rounds);
            findings.gap = Some(Gap::new(self.rounds[0].unit, by_split, random));
            task.advance(1);
        }
        if controls {
            task.message("shuffled labels");
            recipe.relabel(&shuffled(&self.units(), &self.dataset.targets, self.rounds, self.params.seed));
            findings.controls.push(self.control(ControlKind::ShuffledLabels, &recipe, progress)?);
            task.advance(1);
            // Two sets of images are not in memory at once.
            drop(recipe);
            for (kind, mask) in
                [(ControlKind::BorderOnly, Mask::Body), (ControlKind::CentreMasked, Mask::Centre)]
            {
                task.message(kind.name());
                findings.controls.push(self.control(kind, &load(Some(mask))?, progress)?);
                task.advance(1);
            }
        }
        Ok(findings)
    }

    fn nearest_pixels(&self, progress: &dyn Progress) -> Result<Control, TrainError> {
        let Self { dataset, pictures, .. } = self;
        let votes = |rounds| nearest(pictures, &dataset.targets, dataset.labels.len(), rounds, progress);
        let control = self.judge(ControlKind::NearestPixels, &votes(self.rounds)?);
        let random_split = match self.random {
            [] => None,
            random => Some(self.figures(&votes(random)?, random)),
        };
        Ok(Control { random_split, ..control })
    }

    fn control(
        &self,
        kind: ControlKind,
        recipe: &Recipe,
        progress: &dyn Progress,
    ) -> Result<Control, TrainError> {
        Ok(self.judge(kind, &recipe.rounds(self.rounds, progress)?))
    }

    fn judge(&self, kind: ControlKind, answers: &Predictions) -> Control {
        let units = self.units();
        let units: Vec<usize> = tested(self.rounds).into_iter().map(|position| units[position]).collect();
        let chance = chance(answers, &units, self.dataset.labels.len(), self.params.seed);
        Control::new(kind, self.figures(answers, self.rounds), chance)
    }

    fn figures(&self, answers: &Predictions, rounds: &[Split]) -> Figures {
        let name = |position: usize| Record::unit_name(&self.dataset.records[position]);
        let units: Vec<String> = tested(rounds).into_iter().map(name).collect();
        Figures::of(answers, &units, self.dataset.labels.len(), self.params.seed)
    }

    /// The patient of each image as a number, whatever the split keeps together; what likely is one
    /// where patients are unknown.
    fn units(&self) -> Vec<usize> {
        let records = &self.dataset.records;
        grouped(records, Unit::of(records, SplitBy::Patient))
    }
}
