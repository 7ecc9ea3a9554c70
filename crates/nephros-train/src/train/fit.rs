//! The training loop: epochs, validation, early stopping, checkpoints.

use std::time::Instant;

use burn::{
    module::Module,
    nn::BatchNormConfig,
    optim::{
        AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig,
        momentum::MomentumConfig,
    },
    tensor::{Device, Tensor, TensorData, activation::log_softmax},
};
use nephros_core::weights::Weights;

use super::{
    TrainError,
    checkpoint::{Checkpoint, State},
    cpu::CpuGradients,
    history::Epoch,
    inputs::Inputs,
    network::{Classifier, Layout, Said, Trained},
    places::Known,
    sampling::Sampler,
};
use crate::{
    config::{LearningRateSchedule, Optimizer, Params},
    evaluate::metrics::Predictions,
    progress::{Progress, Unit, check},
};

/// Images of an epoch by which running statistics are measured anew after it.
const SETTLING_IMAGES: usize = 256;

/// What is fitted, on what, and where its checkpoints go.
pub struct Fit<'a> {
    /// `params.yaml`.
    pub params: &'a Params,
    /// Network.
    pub layout: Layout,
    /// Part that learns.
    pub trained: Trained,
    /// Where to start.
    pub initial: &'a Weights,
    /// Weight of each class in the loss.
    pub class_weights: Vec<f32>,
    /// Which of them an epoch sees.
    pub sampler: Sampler,
    /// Training images or features.
    pub train: Inputs<'a>,
    /// Validation images or features, never augmented.
    pub validation: Inputs<'a>,
    /// Where to keep a checkpoint each epoch; `None` keeps none.
    pub checkpoint: Option<Checkpoint>,
}

/// A fitted model.
#[derive(Debug)]
pub struct Fitted {
    /// Weights of the epoch that was kept, the frozen ones among them.
    pub weights: Weights,
    /// All epochs.
    pub history: Vec<Epoch>,
    /// Epoch that was kept, from 1.
    pub best_epoch: usize,
    /// Epoch that a checkpoint let the training go on after, 0 for none.
    pub resumed_after: usize,
}

/// How the weights follow the gradient of a batch. L-BFGS is not among these: it has its own loop.
#[derive(Debug, Clone, Copy)]
enum Descent {
    Sgd { momentum: f64 },
    Adam,
}

impl Descent {
    fn optimizer(self, weight_decay: f32) -> ModuleOptimizer {
        match self {
            Self::Sgd { momentum } => {
                let mut config = SgdConfig::new();
                if momentum > 0.0 {
                    let momentum = MomentumConfig::new().with_momentum(momentum).with_dampening(0.0);
                    config = config.with_momentum(Some(momentum));
                }
                if weight_decay > 0.0 {
                    config = config.with_weight_decay(Some(WeightDecayConfig::new(weight_decay)));
                }
                config.init()
            }
            Self::Adam => AdamWConfig::new().with_weight_decay(weight_decay).init(),
        }
    }
}

/// Everything that changes from epoch to epoch.
struct Session {
    model: Classifier,
    optimizer: ModuleOptimizer,
    /// Where convolutions learn on the CPU.
    kernels: Option<CpuGradients>,
    state: State,
    best: Weights,
}

impl Fit<'_> {
    /// Trains on `device`. The order of the images, their views and the start depend on `SEED`
    /// alone, so a training that is resumed ends as one that never stopped.
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn run(&self, device: &Device, progress: &dyn Progress) -> Result<Fitted, TrainError> {
        let descent = match self.params.optimizer {
            Optimizer::Lbfgs => return self.to_optimum(progress),
            Optimizer::Sgd => Descent::Sgd { momentum: self.params.momentum },
            Optimizer::Adam => Descent::Adam,
        };
        let device = device.clone().autodiff();
        let mut session = self.start(descent, &device)?;
        let resumed_after = session.state.history.len();
        session.state.history.iter().for_each(|epoch| progress.epoch(epoch));
        let epochs = self.params.epochs;
        let task = progress.task("training", Some(epochs as u64), Unit::Items);
        task.advance(resumed_after as u64);
        for number in resumed_after + 1..=epochs {
            if session.state.has_stopped(self.params.early_stopping_patience) {
                break;
            }
            let epoch = self.epoch(&mut session, number, &device, progress)?;
            let remark = self.remark(&epoch);
            tracing::info!("epoch {number}/{epochs}: {remark}");
            task.advance(1);
            task.message(&remark);
            progress.epoch(&epoch);
            if let Some(checkpoint) = &self.checkpoint {
                checkpoint.save(&session.model, &session.optimizer, &session.state, &session.best)?;
            }
        }
        let State { history, best_epoch } = session.state;
        let mut weights = self.initial.clone();
        weights.0.extend(session.best.0);
        Ok(Fitted { weights, history, best_epoch, resumed_after })
    }

    /// The figures of an epoch in a line; without validation images those of training alone.
    pub(super) fn remark(&self, epoch: &Epoch) -> String {
        let train = format!("train loss {:.4}, accuracy {:.3}", epoch.train_loss, epoch.train_accuracy);
        if self.validation.is_empty() {
            return train;
        }
        let Epoch { validation_loss: loss, validation_accuracy: accuracy, .. } = epoch;
        let auroc = epoch.validation_auroc.map_or("undefined".to_owned(), |value| format!("{value:.3}"));
        format!("{train}; validation loss {loss:.4}, accuracy {accuracy:.3}, AUROC {auroc}")
    }

    /// What the weights of an epoch are laid over. A frozen base stays out of them: it is validated
    /// on cached features, and need not be copied into every checkpoint.
    pub(super) fn kept(&self) -> Weights {
        match self.trained {
            Trained::Head => Weights::default(),
            Trained::Layers { .. } => self.initial.clone(),
        }
    }

    fn start(&self, descent: Descent, device: &Device) -> Result<Session, TrainError> {
        let model = Classifier::new(self.layout, self.trained, self.initial, device)?;
        let kernels = match self.trained {
            // The kernels know a chain of layers.
            Trained::Layers { last }
                if *device == Device::flex() && self.layout.architecture.tap().is_none() =>
            {
                Some(CpuGradients::new(self.layout, last, self.initial)?)
            }
            _ => None,
        };
        let fresh = Session {
            model,
            optimizer: descent.optimizer(self.params.weight_decay as f32),
            kernels,
            state: State::default(),
            best: Weights::default(),
        };
        let Some(checkpoint) = &self.checkpoint else { return Ok(fresh) };
        let Some(saved) = checkpoint.load()? else { return Ok(fresh) };
        Ok(Session {
            model: fresh.model.try_load_record(saved.model).map_err(TrainError::record)?,
            optimizer: fresh.optimizer.load_record(saved.optimizer),
            kernels: fresh.kernels,
            state: saved.state,
            best: saved.best,
        })
    }

    /// Rate of a step; the cosine runs over all steps of all epochs.
    fn learning_rate(&self, step: usize, steps: usize) -> f64 {
        let rate = self.params.learning_rate;
        match self.params.learning_rate_schedule {
            LearningRateSchedule::Constant => rate,
            LearningRateSchedule::Cosine => {
                rate * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos())
            }
        }
    }

    fn epoch(
        &self,
        session: &mut Session,
        number: usize,
        device: &Device,
        progress: &dyn Progress,
    ) -> Result<Epoch, TrainError> {
        let start = Instant::now();
        let order = self.sampler.epoch(self.params.seed, number);
        let batches = order.len().div_ceil(self.params.batch_size);
        let steps = batches * self.params.epochs;
        let first_step = (number - 1) * batches;
        let mut seen = Predictions::default();
        let mut loss_sum = 0.0;
        for (position, batch) in order.chunks(self.params.batch_size).enumerate() {
            check(progress)?;
            let rate = self.learning_rate(first_step + position, steps);
            let loss = self.step(session, batch, number, rate, device, &mut seen)?;
            loss_sum += loss * batch.len() as f64;
        }
        let classes = self.layout.classes;
        let train = seen.metrics(classes);
        if !loss_sum.is_finite() {
            return Err(TrainError::Diverged { epoch: number, learning_rate: self.params.learning_rate });
        }
        self.settle(session, &order, number, device)?;
        let weights = session.model.to_weights(self.layout, self.trained, self.kept());
        let validation = self.validation.predict(self.layout, &weights)?.metrics(classes);
        let epoch = Epoch {
            epoch: number,
            learning_rate: self.learning_rate(first_step, steps),
            train_loss: loss_sum / order.len() as f64,
            train_accuracy: train.accuracy,
            train_auroc: train.auroc,
            validation_loss: validation.loss,
            validation_accuracy: validation.accuracy,
            validation_auroc: validation.auroc,
            seconds: start.elapsed().as_secs_f64(),
        };
        if session.state.record(epoch, self.params.early_stopping_patience) {
            session.best = weights;
        }
        Ok(epoch)
    }

    /// Measures the running statistics of batch norms anew, by the weights as they are now and some of the images
    /// of the epoch. Those that moved along are of the weights of ten steps before; where a step is large they
    /// shift all logits, and an epoch is validated as bad that is not. Source: <https://arxiv.org/abs/2105.07576>.
    fn settle(
        &self,
        session: &mut Session,
        order: &[usize],
        epoch: usize,
        device: &Device,
    ) -> Result<(), TrainError> {
        if !session.model.has_running_statistics() {
            return Ok(());
        }
        let size = self.params.batch_size.min(order.len()).max(1);
        // A last, smaller batch would count as much as the others.
        for (before, batch) in order.chunks_exact(size).take(SETTLING_IMAGES.div_ceil(size)).enumerate() {
            // So that they are the mean over all batches in the end.
            session.model.set_momentum(1.0 / (before + 1) as f64);
            let values = self.train.batch(batch, Some(epoch as u64));
            if let Some(kernels) = &mut session.kernels {
                kernels.observe(&session.model, &values, batch.len())?;
            } else {
                let input = self.images(values, batch.len(), device);
                let _said = session.model.forward(self.layout.architecture, input);
            }
        }
        session.model.set_momentum(BatchNormConfig::new(1).momentum);
        Ok(())
    }

    /// Images `[batch, height, width, channels]` on a device.
    fn images(&self, values: Vec<f32>, batch: usize, device: &Device) -> Tensor<4> {
        let [height, width, channels] = self.layout.image_size;
        Tensor::from_data(TensorData::new(values, [batch, height, width, channels]), device)
    }

    /// One step of the optimizer; returns the mean loss of the batch.
    fn step(
        &self,
        session: &mut Session,
        batch: &[usize],
        epoch: usize,
        rate: f64,
        device: &Device,
        seen: &mut Predictions,
    ) -> Result<f64, TrainError> {
        let values = self.train.batch(batch, Some(epoch as u64));
        let labels: Vec<usize> = batch.iter().map(|&position| self.train.label(position)).collect();
        let known = Known::of(self.layout, &self.train, batch, &labels, epoch as u64);
        let loss = |said: Said| {
            let places = said.evidence.zip(known).map(|(evidence, known)| known.loss(evidence, device));
            let image = self.loss(said.logits, &labels, device, seen);
            places.map_or(image.clone(), |places| image + places)
        };
        let (loss, gradients) = match (&mut session.kernels, self.trained) {
            (Some(kernels), _) => kernels.gradients(&session.model, &values, batch.len(), device, loss)?,
            (None, Trained::Head) => {
                let shape = [batch.len(), values.len() / batch.len()];
                let data = TensorData::new(values, shape);
                let logits = session.model.forward_head(Tensor::from_data(data, device));
                let loss = loss(Said { logits, evidence: None });
                (loss.clone(), GradientsParams::from_grads(loss.backward(), &session.model))
            }
            (None, Trained::Layers { .. }) => {
                let input = self.images(values, batch.len(), device);
                let loss = loss(session.model.forward(self.layout.architecture, input));
                (loss.clone(), GradientsParams::from_grads(loss.backward(), &session.model))
            }
        };
        session.model = session.optimizer.step(rate, session.model.clone(), gradients);
        Ok(f64::from(loss.into_scalar::<f32>()))
    }

    /// Mean cross-entropy of logits `[batch, classes]`; the probabilities are noted in `seen`.
    fn loss(
        &self,
        logits: Tensor<2>,
        labels: &[usize],
        device: &Device,
        seen: &mut Predictions,
    ) -> Tensor<1> {
        let log_probabilities = log_softmax(logits, 1); // [batch, classes]
        let rows: Vec<f32> = log_probabilities.clone().into_data().iter::<f32>().collect();
        for (row, &label) in rows.chunks_exact(self.layout.classes).zip(labels) {
            seen.push(label, row.iter().map(|log| log.exp()).collect());
        }
        let targets = Tensor::from_data(self.targets(labels), device);
        (log_probabilities * targets).sum().neg() / labels.len() as f32
    }

    /// Target distribution of each image times the weight of its class, `[batch, classes]`.
    fn targets(&self, labels: &[usize]) -> TensorData {
        let classes = self.layout.classes;
        let smoothing = self.params.label_smoothing as f32;
        let mut targets = vec![0.0; labels.len() * classes];
        for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
            row.fill(self.class_weights[label] * smoothing / classes as f32);
            row[label] += self.class_weights[label] * (1.0 - smoothing);
        }
        TensorData::new(targets, [labels.len(), classes])
    }
}
