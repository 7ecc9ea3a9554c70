//! The progress of a training, shown here and told to the server's clients.

use nephros_server::{Metrics, TaskProgress, TrainingEvent, TrainingRun};
use nephros_train::{
    progress::{Progress, Task, Training, Unit},
    train::history::Epoch,
};

use crate::progress::Display;

/// Both of where progress goes to.
pub struct Watched<'a> {
    shown: Display,
    run: &'a TrainingRun,
}

impl<'a> Watched<'a> {
    /// Shows progress on `shown` and tells it to `run`.
    pub fn new(shown: Display, run: &'a TrainingRun) -> Self {
        Self { shown, run }
    }

    /// A stage begins.
    pub fn stage(&self, name: &str) {
        self.run.tell(TrainingEvent::Stage { name: name.to_owned() });
    }

    /// What a stage says of itself, line by line.
    pub fn log(&self, text: &str) {
        for line in text.lines() {
            self.run.tell(TrainingEvent::Log { line: line.to_owned() });
        }
    }
}

impl Progress for Watched<'_> {
    fn task(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        Box::new(Both { shown: self.shown.task(name, total, unit), told: self.run.task(name, total) })
    }

    fn is_cancelled(&self) -> bool {
        self.run.is_cancelled() || self.shown.is_cancelled()
    }

    fn training(&self, training: &Training<'_>) {
        self.shown.training(training);
    }

    fn epoch(&self, epoch: &Epoch) {
        self.shown.epoch(epoch);
        self.run.tell(TrainingEvent::Epoch(Metrics {
            epoch: epoch.epoch,
            learning_rate: epoch.learning_rate,
            train_loss: epoch.train_loss,
            train_accuracy: epoch.train_accuracy,
            validation_loss: epoch.validation_loss,
            validation_accuracy: epoch.validation_accuracy,
            validation_auroc: epoch.validation_auroc,
            seconds: epoch.seconds,
        }));
    }
}

struct Both {
    shown: Box<dyn Task>,
    told: TaskProgress,
}

impl Task for Both {
    fn advance(&self, amount: u64) {
        self.shown.advance(amount);
        self.told.advance(amount);
    }

    fn message(&self, text: &str) {
        self.shown.message(text);
    }
}
