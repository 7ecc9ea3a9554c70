//! Training on drawn patients alone, before the data is seen.
//!
//! A network that judges places has to know what a lesion looks like before it can find one in slices of which
//! only the label is known; begun from random weights, it finds what else tells the patients apart.

use std::path::Path;

use burn::tensor::Device;
use nephros_core::{digest::sha256, weights::Weights};

use super::{
    Fit, Inputs, Layout, Sampler, TrainError, Trained,
    data::{Pipeline, Sample},
};
use crate::{
    config::{Params, Sampling, SplitBy},
    files::write_atomic,
    progress::Progress,
};

/// `initial` after `PHANTOM_EPOCHS` epochs on `drawn`; as it is for 0. `cache` is a folder that keeps the weights,
/// so that a training on other patients of the data begins at once.
///
/// # Errors
/// See [`TrainError`].
pub fn pretrained_on_drawn(
    params: &Params,
    layout: Layout,
    pipeline: &Pipeline,
    drawn: &[Sample],
    initial: Weights,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<Weights, TrainError> {
    if params.phantom_epochs == 0 || drawn.is_empty() {
        return Ok(initial);
    }
    let file =
        cache.join(format!("phantoms-{}.safetensors", &digest(params, pipeline, drawn, &initial)?[..16]));
    if file.exists() {
        return Ok(Weights::load(&file)?);
    }
    let params = Params { epochs: params.phantom_epochs, early_stopping_patience: 0, ..params.clone() };
    let fit = Fit {
        params: &params,
        layout,
        trained: Trained::Layers { last: layout.architecture.layers().len() },
        initial: &initial,
        class_weights: vec![1.0; layout.classes],
        sampler: Sampler::each_once(drawn.len()),
        train: Inputs::Images { samples: drawn.iter().collect(), pipeline },
        validation: Inputs::Images { samples: Vec::new(), pipeline },
        checkpoint: None,
    };
    tracing::info!("training on {} drawn slices first", drawn.len());
    let weights = fit.run(&Device::flex(), progress)?.weights;
    fs_err::create_dir_all(cache)?;
    write_atomic(&file, &weights.to_bytes()?)?;
    Ok(weights)
}

/// Of all that the weights depend on, and nothing that changes from fold to fold.
fn digest(
    params: &Params,
    pipeline: &Pipeline,
    drawn: &[Sample],
    initial: &Weights,
) -> Result<String, TrainError> {
    let params = Params {
        epochs: 0,
        split_by: SplitBy::default(),
        sampling: Sampling::default(),
        phantom_share: 0.0,
        validation_split: 0.0,
        test_split: 0.0,
        conformal_error_rate: 0.0,
        early_stopping_patience: 0,
        ..params.clone()
    };
    let params = serde_json::to_string(&params).map_err(std::io::Error::from)?;
    let preprocessing = serde_json::to_string(&pipeline.preprocessing).map_err(std::io::Error::from)?;
    let mut all =
        vec![params, preprocessing, sha256(&initial.to_bytes()?), env!("CARGO_PKG_VERSION").to_owned()];
    // What is shown of a slice, not what it was drawn as: a control hides a part of it.
    for Sample { label, pixels, lesion, .. } in drawn {
        let share = lesion.as_ref().map_or(&[][..], |lesion| &lesion.share);
        all.push(format!("{label} {} {}", sha256(pixels), sha256(share)));
    }
    Ok(sha256(all.join("\n").as_bytes()))
}
