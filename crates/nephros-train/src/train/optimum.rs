//! Fitting the head of a frozen network to the optimum of its loss, by L-BFGS.

use std::time::Instant;

use super::{
    TrainError,
    checkpoint::State,
    fit::{Fit, Fitted},
    history::Epoch,
    lbfgs::Minimum,
    logistic::{Answer, Logistic, Objective},
    network::{export_dense, export_head},
    regions::Regions,
};
use crate::{
    config::Pooling,
    progress::{Progress, Unit, check},
};
use nephros_core::weights::Weights;

/// Length of the gradient below which a point is taken for the optimum.
const FLAT: f64 = 1e-6;

impl Fit<'_> {
    /// Steps until the loss is at its minimum, or `EPOCHS` of them. Nothing is drawn at random, and
    /// all cached views of an image count in every step. No checkpoint is kept: a fit takes seconds,
    /// and done again it gives the same.
    pub(super) fn to_optimum(&self, progress: &dyn Progress) -> Result<Fitted, TrainError> {
        let (epochs, patience) = (self.params.epochs, self.params.early_stopping_patience);
        let task = progress.task("training", Some(epochs as u64), Unit::Items);
        let mut regression = self.regression();
        let mut start = vec![0.0; regression.len()];
        if self.params.pooling.asks_the_higher_half() {
            // Which half of a slice answers is told, to begin with, by weights that both learned on their own.
            start = optimum(&regression, start, epochs, progress)?;
            regression = regression.answered_by(Answer::Highest);
        }
        let function = |point: &[f64]| regression.slope(point);
        let mut minimum = Minimum::start(start, function);
        let mut state = State::default();
        let mut head = self.head(&regression, &minimum.point);
        for number in 1..=epochs {
            check(progress)?;
            let start = Instant::now();
            if number > 1 && minimum.steepness() < FLAT {
                break;
            }
            let step = match minimum.step(function) {
                Some(step) => step,
                // Features that do not differ leave nothing to learn.
                None if number == 1 && minimum.is_finite() => 0.0,
                None => break,
            };
            let weights = self.head(&regression, &minimum.point);
            let epoch = self.optimum_epoch(&regression, &minimum, &weights, (number, step), start)?;
            let remark = self.remark(&epoch);
            tracing::info!("step {number}/{epochs}: {remark}");
            task.advance(1);
            task.message(&remark);
            progress.epoch(&epoch);
            if state.record(epoch, patience) {
                head = weights;
            }
            if state.has_stopped(patience) {
                break;
            }
        }
        let State { history, best_epoch } = state;
        if history.is_empty() {
            let learning_rate = self.params.learning_rate;
            return Err(TrainError::Diverged { epoch: 1, learning_rate });
        }
        let mut weights = self.initial.clone();
        weights.0.extend(head.0);
        Ok(Fitted { weights, history, best_epoch, resumed_after: 0 })
    }

    fn regression(&self) -> Logistic<'_> {
        let frequencies = self.sampler.frequencies();
        let importance = |(position, frequency): (usize, &f64)| {
            frequency * f64::from(self.class_weights[self.train.label(position)])
        };
        let importance: Vec<f64> = frequencies.iter().enumerate().map(importance).collect();
        let objective = Objective {
            penalty: self.params.weight_decay,
            smoothing: self.params.label_smoothing,
            regions: self.regions(),
        };
        Logistic::new(&self.train, &importance, self.layout.classes, objective)
    }

    /// What of the map the head sees the mean of; `None` for each place on its own.
    fn regions(&self) -> Option<Regions> {
        let map = self.layout.architecture.feature_shape(self.layout.image_size);
        match self.params.pooling {
            Pooling::None => None,
            Pooling::Avg => Some(Regions::whole(map)),
            Pooling::Halves | Pooling::Mil => Some(Regions::halves(map)),
            Pooling::Asymmetry => Some(Regions::compared_halves(map)),
        }
    }

    fn head(&self, regression: &Logistic, point: &[f64]) -> Weights {
        let dense = regression.dense(point);
        let mut head = self.kept();
        match (self.regions(), self.params.pooling) {
            (None, _) => export_head(self.layout, "head", dense, &mut head),
            (Some(regions), pooling) if pooling.asks_the_higher_half() => {
                let (hidden, output) = regions.larger(&dense);
                export_head(self.layout, "head.hidden", hidden, &mut head);
                export_dense("head", output, &mut head);
            }
            (Some(regions), _) => export_head(self.layout, "head", regions.spread(dense), &mut head),
        }
        head
    }

    fn optimum_epoch(
        &self,
        regression: &Logistic,
        minimum: &Minimum,
        weights: &Weights,
        (number, step): (usize, f64),
        start: Instant,
    ) -> Result<Epoch, TrainError> {
        let classes = self.layout.classes;
        let train = regression.predictions(&minimum.point).metrics(classes);
        let validation = self.validation.predict(self.layout, weights)?.metrics(classes);
        Ok(Epoch {
            epoch: number,
            learning_rate: step,
            train_loss: train.loss,
            train_accuracy: train.accuracy,
            train_auroc: train.auroc,
            validation_loss: validation.loss,
            validation_accuracy: validation.accuracy,
            validation_auroc: validation.auroc,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

/// Where a regression is at its minimum, or after so many steps.
fn optimum(
    regression: &Logistic,
    start: Vec<f64>,
    steps: usize,
    progress: &dyn Progress,
) -> Result<Vec<f64>, TrainError> {
    let function = |point: &[f64]| regression.slope(point);
    let mut minimum = Minimum::start(start, function);
    for _ in 0..steps {
        check(progress)?;
        if minimum.steepness() < FLAT || minimum.step(function).is_none() {
            break;
        }
    }
    Ok(minimum.point)
}
