//! The input gate of a bundle: limits in `bundle.json`, arrays in a file of their own.

use std::path::Path;

use super::{BundleError, BundleMeta, INPUT_GATE_FILE, META_FILE, read_verified};
use crate::{
    digest::sha256,
    input_gate::{InputGate, InputProfile, Limit, Statistic, TrainingImages},
    network::Precision,
};

/// What goes into `bundle.json` and into the file.
pub(super) fn packed(dir: &Path, gate: &InputGate) -> Result<(InputProfile, Vec<u8>), BundleError> {
    let path = || dir.join(INPUT_GATE_FILE);
    let bytes = gate
        .images
        .to_bytes()
        .map_err(|source| BundleError::InputGate { path: path(), got: source.to_string() })?;
    Ok((InputProfile { sha256: sha256(&bytes), ..gate.profile.clone() }, bytes))
}

/// The gate that `bundle.json` speaks of, verified, with the limits of a precision.
pub(super) fn read(
    dir: &Path,
    meta: &BundleMeta,
    precision: Precision,
) -> Result<Option<InputGate>, BundleError> {
    let Some(mut profile) = meta.input_gate.clone() else { return Ok(None) };
    let quantized = meta.quantization.as_ref().filter(|_| precision == Precision::Int8);
    if let Some(change) = quantized.and_then(|quantization| quantization.holdout.feature_distance.as_ref()) {
        let limit = Limit { low: None, high: Some(change.limit_int8) };
        profile.limits.insert(Statistic::FeatureDistance, limit);
    }
    if !profile.is_usable() {
        let got = "limits that are no numbers or fit no picture".to_owned();
        return Err(BundleError::Reading { path: dir.join(META_FILE), key: "input_gate", got });
    }
    let path = dir.join(INPUT_GATE_FILE);
    let bytes = read_verified(&path, &profile.sha256)?;
    let channels = meta.architecture.feature_shape(meta.preprocessing.image_size).channels;
    match TrainingImages::from_bytes(&bytes, channels) {
        Ok(images) => Ok(Some(InputGate { profile, images })),
        Err(got) => Err(BundleError::InputGate { path, got }),
    }
}
