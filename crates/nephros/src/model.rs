//! Which model to use.

use std::path::{Path, PathBuf};

use nephros_core::predictor::Predictor;
use nephros_train::config::Config;

use crate::{
    cli::{Global, ModelArgs},
    errors::CliError,
    output,
};

/// Loads the model that the options name, or the first of the usual places that holds one.
///
/// What is assumed about a model that does not say how it was trained is told on stderr.
pub fn load(args: &ModelArgs, global: &Global) -> anyhow::Result<Predictor> {
    let path = find(args.model.as_deref(), global)?;
    let predictor =
        Predictor::load_as(&path, args.preprocessing.map(Into::into), args.precision.map(Into::into))?;
    if let Some(assumption) = predictor.assumption() {
        output::note(&format!("note: {assumption}"));
    }
    Ok(predictor)
}

/// `--model`, else the bundle of the last training, else `model/`.
pub fn find(named: Option<&Path>, global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
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

fn trained_bundle(global: &Global) -> anyhow::Result<PathBuf> {
    let training = if global.config.is_file() {
        Config::load(&global.config)?.training.root_dir
    } else {
        "artifacts/training".into()
    };
    Ok(training.join("bundle"))
}
