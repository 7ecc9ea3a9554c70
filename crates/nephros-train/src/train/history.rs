//! What each epoch brought, as a CSV that plots are made from.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::files::write_atomic;

/// Figures of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Learning rate at the start of the epoch.
    pub learning_rate: f64,
    /// Mean cross-entropy of the training batches as they were learned, in nats.
    pub train_loss: f64,
    /// Accuracy on the training batches as they were learned.
    pub train_accuracy: f64,
    /// AUROC on the training batches as they were learned; empty when a class is absent.
    pub train_auroc: Option<f64>,
    /// Mean cross-entropy of the validation images after the epoch.
    pub validation_loss: f64,
    /// Accuracy on the validation images after the epoch.
    pub validation_accuracy: f64,
    /// AUROC on the validation images after the epoch.
    pub validation_auroc: Option<f64>,
    /// Wall-clock time of the epoch.
    pub seconds: f64,
}

/// Writes one line an epoch below a header.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, history: &[Epoch]) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for epoch in history {
        writer.serialize(epoch).map_err(io::Error::other)?;
    }
    write_atomic(path, &writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// The file cannot be read or is not a history.
pub fn read(path: &Path) -> io::Result<Vec<Epoch>> {
    let bytes = fs_err::read(path)?;
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    reader.deserialize().collect::<Result<_, _>>().map_err(io::Error::other)
}
