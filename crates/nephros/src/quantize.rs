//! `quantize`: 8-bit weights for a bundle, and what they change.

use std::path::Path;

use anyhow::Context as _;
use nephros_core::network::Precision;
use nephros_train::quantize::{QuantizeRequest, QuantizeSummary, quantize};

use crate::{
    cli::{Global, QuantizeArgs},
    errors::{CliError, Status},
    model, output,
    predict::inputs,
    progress::Display,
};

/// Runs the command; [`Status::Failed`] when f32 stays the default.
pub fn run(args: &QuantizeArgs, global: &Global) -> anyhow::Result<Status> {
    let folder = args.calibrate.as_path();
    if !folder.is_dir() {
        return Err(anyhow::Error::new(CliError::NoSuchFolder { path: folder.to_owned() }));
    }
    if let (Some(named), None) = (args.model.as_deref().and_then(Path::to_str), &args.out)
        && nephros_mlflow::models::is_uri(named)
    {
        return Err(CliError::RegisteredModel { name: named.to_owned() }.into());
    }
    let model = model::find(args.model.as_deref(), global)?;
    let images =
        inputs::below(folder).with_context(|| format!("cannot calibrate on `{}`", folder.display()))?;
    let request = QuantizeRequest {
        model: &model,
        out: args.out.as_deref().unwrap_or(&model),
        folder,
        images: &images,
        tolerance: args.tolerance,
    };
    let summary = quantize(&request, &Display::new(global))?;
    for file in &summary.unreadable {
        output::note(&format!("note: `{}` is left out: {}", file.path.display(), file.error));
    }
    output::line(&if args.json { serde_json::to_string(&summary)? } else { describe(&summary) })?;
    Ok(if summary.default == Precision::Int8 { Status::Done } else { Status::Failed })
}

fn describe(summary: &QuantizeSummary) -> String {
    let QuantizeSummary { bundle, model, calibration, holdout, .. } = summary;
    let count = |images: usize, patients: Option<usize>| match patients {
        Some(patients) => format!("{images} images of {patients} patients"),
        None => format!("{images} images"),
    };
    let auroc = match (holdout.auroc_f32, holdout.auroc_int8) {
        (Some(floats), Some(int8)) => format!("AUROC {floats:.4} in f32, {int8:.4} in 8 bits"),
        _ => "AUROC unknown: the classes are not known, or one is missing".to_owned(),
    };
    let (changed, images) = (holdout.labels_changed, holdout.images);
    let (share, tolerance) = (100.0 * holdout.share_changed, 100.0 * holdout.tolerance);
    let verdict = match summary.default {
        Precision::Int8 => "8 bits are the default now; `--precision f32` selects the f32 weights".to_owned(),
        Precision::F32 => format!(
            "8 bits are stored, but f32 stays the default: {share:.1} % of the labels change, {tolerance:.1} % may; \
             `--precision int8` selects the 8-bit weights"
        ),
    };
    format!(
        "{model} in `{}`\ncalibrated on {}, compared on {}\n{changed} of {images} labels change; a probability \
         changes by {:.4} at most, {:.4} on average\n{auroc}\n{verdict}",
        bundle.display(),
        count(calibration.images, calibration.patients),
        count(holdout.images, holdout.patients),
        holdout.largest_change,
        holdout.mean_change,
    )
}
