//! Which model to use.

use std::path::{Path, PathBuf};

use nephros_core::{
    abstention::Abstention,
    bundle::{self, Admission, BundleError, Evaluation},
    explain::Explainer,
    predictor::Predictor,
};
use nephros_train::config::Config;

use crate::{
    cli::{Global, ModelArgs},
    errors::CliError,
    output, registry,
};

/// Loads the model that the options name, or the first of the usual places that holds one.
///
/// What is assumed about a model that does not say how it was trained is told on stderr, and so is
/// what its evaluation said against it, or that there was none.
pub fn load(args: &ModelArgs, global: &Global) -> anyhow::Result<Predictor> {
    let path = find(args.model.as_deref(), global)?;
    let predictor = read(args, &path, global.quiet)?;
    tell_evaluation(predictor.evaluation(), global.quiet);
    Ok(predictor)
}

/// Tells on stderr what an evaluation said against a model, or that there was none.
pub fn tell_evaluation(evaluation: Option<&Evaluation>, quiet: bool) {
    match evaluation {
        Some(evaluation) if evaluation.gate.refuses() => {
            output::note(&format!("warning: this model failed the gate: {}", evaluation.gate));
        }
        None if !quiet => output::note(&format!("warning: {NOT_EVALUATED}")),
        Some(_) | None => {}
    }
}

/// Loads the model to serve, unless its evaluation speaks against it, and says where it was.
///
/// # Errors
/// [`nephros_core::bundle::BundleError::Refused`] without `force`.
pub fn load_current(args: &ModelArgs, global: &Global, force: bool) -> anyhow::Result<(Explainer, PathBuf)> {
    let path = find(args.model.as_deref(), global)?;
    let explainer =
        Explainer::load(&path, args.preprocessing.map(Into::into), args.precision.map(Into::into))?;
    tell(explainer.predictor(), global.quiet);
    admit(&path, explainer.predictor(), force)?;
    Ok((explainer, path))
}

/// Lets a model be served, with a warning in the log where the gate did not say yes.
///
/// # Errors
/// As [`bundle::admit`].
pub fn admit(path: &Path, predictor: &Predictor, force: bool) -> Result<(), BundleError> {
    match bundle::admit(path, predictor.evaluation(), force)? {
        Admission::Passed => {}
        Admission::Forced => tracing::warn!("--force: serving a model that failed the gate"),
        Admission::NotEvaluated => tracing::warn!("{NOT_EVALUATED}"),
    }
    Ok(())
}

/// Whether a model can name similar training slices, for which it must know them.
///
/// # Errors
/// [`CliError::NoCases`].
pub fn check_cases(predictor: &Predictor) -> Result<(), CliError> {
    if predictor.knows_cases() { Ok(()) } else { Err(CliError::NoCases { model: predictor.id().to_owned() }) }
}

const NOT_EVALUATED: &str =
    "this model was never evaluated: `nephros evaluate` says whether it can be believed";

const NO_INPUT_GATE: &str = "this model does not know its training images, so every picture gets a label; \
     train again for an input gate";

fn read(args: &ModelArgs, path: &Path, quiet: bool) -> anyhow::Result<Predictor> {
    let predictor =
        Predictor::load_as(path, args.preprocessing.map(Into::into), args.precision.map(Into::into))?;
    tell(&predictor, quiet);
    Ok(predictor)
}

/// Tells on stderr what a model does not say of itself, or never does.
fn tell(predictor: &Predictor, quiet: bool) {
    let shortage = predictor.abstention().and_then(Abstention::shortage);
    let shortage = shortage.map(|shortage| format!("every image is referred to a radiologist: {shortage}"));
    // A Keras file says even less, which its assumption tells.
    let ungated = !quiet && predictor.input_gate().is_none() && predictor.assumption().is_none();
    let ungated = ungated.then(|| NO_INPUT_GATE.to_owned());
    for note in predictor.assumption().map(str::to_owned).into_iter().chain(shortage).chain(ungated) {
        output::note(&format!("note: {note}"));
    }
}

/// `--model`, a path or a name in a registry; else the bundle of the last training, else `model/`.
pub fn find(named: Option<&Path>, global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        if let Some(uri) = path.to_str().filter(|text| nephros_mlflow::models::is_uri(text)) {
            return registry::fetch(uri);
        }
        let path = path.to_owned();
        return if path.exists() { Ok(path) } else { Err(CliError::ModelMissing { path }.into()) };
    }
    let candidates =
        [trained_bundle(global)?.join("bundle.json"), "model/bundle.json".into(), "model/model.h5".into()];
    for candidate in &candidates {
        if candidate.is_file() {
            let is_bundle = candidate.ends_with("bundle.json");
            return Ok(if is_bundle { candidate.with_file_name("") } else { candidate.clone() });
        }
    }
    let looked = candidates.map(|path| format!("`{}`", path.display())).join(", ");
    Err(CliError::NoModel { looked }.into())
}

/// The bundle of the last training, whether it is there or not.
pub fn trained_bundle(global: &Global) -> anyhow::Result<PathBuf> {
    let training = if global.config.is_file() {
        Config::load(&global.config)?.training.root_dir
    } else {
        "artifacts/training".into()
    };
    Ok(training.join("bundle"))
}
