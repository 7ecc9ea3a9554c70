//! The state after an epoch, on disk, so that a killed training goes on where it was.

use std::{io, path::PathBuf};

use burn::{
    module::Module as _,
    optim::{ModuleOptimizer, OptimizerRecord},
    store::ModuleRecord,
};
use nephros_core::weights::Weights;
use serde::{Deserialize, Serialize};

use super::{TrainError, history::Epoch, network::Classifier};

/// What the loop remembers beside the model and the optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Finished epochs.
    pub history: Vec<Epoch>,
    /// Epoch whose weights are kept, from 1; 0 before the first.
    pub best_epoch: usize,
}

impl State {
    /// Adds an epoch; whether its weights are the ones to keep. With early stopping these are of the
    /// lowest validation loss, without it (`patience` 0) the last.
    pub fn record(&mut self, epoch: Epoch, patience: usize) -> bool {
        let best = self.history.get(self.best_epoch.wrapping_sub(1)).map(|best| best.validation_loss);
        let keep = patience == 0 || best.is_none_or(|best| epoch.validation_loss < best);
        if keep {
            self.best_epoch = epoch.epoch;
        }
        self.history.push(epoch);
        keep
    }

    /// Whether the best epoch lies `patience` or more epochs back.
    pub fn has_stopped(&self, patience: usize) -> bool {
        patience > 0 && self.history.len() >= self.best_epoch + patience
    }
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Digest of everything that the training depends on.
    run: String,
    state: State,
}

/// A loaded checkpoint.
pub struct Loaded {
    /// The model.
    pub model: ModuleRecord,
    /// The optimizer.
    pub optimizer: OptimizerRecord,
    /// The loop.
    pub state: State,
    /// Weights of the best epoch.
    pub best: Weights,
}

/// A folder that holds the last finished epoch of one training.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
    run: String,
}

const STATE: &str = "state.json";
const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const BEST: &str = "best.safetensors";

impl Checkpoint {
    /// `run` is a digest of the data, the split, the parameters and the start: a checkpoint of
    /// another training is not resumed.
    pub fn new(folder: PathBuf, run: String) -> Self {
        Self { folder, run }
    }

    /// Replaces the checkpoint: the new one is written beside it and takes its name last.
    ///
    /// # Errors
    /// The files cannot be written; the old checkpoint is then still there.
    pub fn save(
        &self,
        model: &Classifier,
        optimizer: &ModuleOptimizer,
        state: &State,
        best: &Weights,
    ) -> Result<(), TrainError> {
        let (new, old) = (self.folder.with_extension("new"), self.folder.with_extension("old"));
        remove(&new)?;
        fs_err::create_dir_all(&new)?;
        model.clone().into_record().save(new.join(MODEL)).map_err(TrainError::record)?;
        optimizer.save(new.join(OPTIMIZER)).map_err(TrainError::record)?;
        best.save(&new.join(BEST))?;
        let saved = Saved { run: self.run.clone(), state: state.clone() };
        fs_err::write(new.join(STATE), serde_json::to_vec_pretty(&saved).map_err(io::Error::from)?)?;
        remove(&old)?;
        if self.folder.exists() {
            fs_err::rename(&self.folder, &old)?;
        }
        fs_err::rename(&new, &self.folder)?;
        Ok(remove(&old)?)
    }

    /// The checkpoint of this training, if there is one.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn load(&self) -> Result<Option<Loaded>, TrainError> {
        // A crash between the two renames of `save` leaves only the old one, under its other name.
        let old = self.folder.with_extension("old");
        let folder = if self.folder.exists() { &self.folder } else { &old };
        if !folder.join(STATE).exists() {
            return Ok(None);
        }
        let saved: Saved =
            serde_json::from_slice(&fs_err::read(folder.join(STATE))?).map_err(io::Error::from)?;
        if saved.run != self.run {
            tracing::info!("the checkpoint in `{}` is of another training: starting anew", folder.display());
            return Ok(None);
        }
        Ok(Some(Loaded {
            model: ModuleRecord::load(folder.join(MODEL)).map_err(TrainError::record)?,
            optimizer: OptimizerRecord::load(folder.join(OPTIMIZER)).map_err(TrainError::record)?,
            state: saved.state,
            best: Weights::load(&folder.join(BEST))?,
        }))
    }

    /// Removes the checkpoint, once the training is done.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        remove(&self.folder.with_extension("new"))?;
        remove(&self.folder.with_extension("old"))?;
        remove(&self.folder)
    }
}

fn remove(folder: &PathBuf) -> io::Result<()> {
    if folder.exists() { fs_err::remove_dir_all(folder) } else { Ok(()) }
}
