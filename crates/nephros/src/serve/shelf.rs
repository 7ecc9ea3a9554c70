//! Models that a server can load: the bundle of the last training, and what is registered.

use std::{path::PathBuf, sync::Arc};

use nephros_core::{bundle::BundleError, explain::Explainer};
use nephros_mlflow::registry::ModelVersion;
use nephros_server::{BoxError, Classifier, ModelEntry, ModelKind, ModelStore, ModelsError};

use super::Served;
use crate::{cli::Global, errors::CliError, model, registry as models};

/// Name of the bundle of the last training.
const BUNDLE: &str = "bundle";

/// The models of a project.
pub struct Shelf {
    global: Global,
}

impl Shelf {
    /// The models of the project of the current folder.
    pub fn shared(global: &Global) -> Arc<dyn ModelStore> {
        Arc::new(Self { global: global.clone() })
    }

    fn path(&self, name: &str) -> Result<PathBuf, ModelsError> {
        if name == BUNDLE {
            let bundle =
                model::trained_bundle(&self.global).map_err(unusable("the configuration cannot be read"))?;
            return if bundle.is_dir() { Ok(bundle) } else { Err(ModelsError::NoSuchModel) };
        }
        // Only what the list names: a client may not fetch what it likes from a tracking server.
        version(name)?;
        models::fetch(name).map_err(unusable("the registered model cannot be fetched"))
    }
}

impl ModelStore for Shelf {
    fn list(&self) -> Result<Vec<ModelEntry>, ModelsError> {
        let mut entries = Vec::new();
        if self.path(BUNDLE).is_ok() {
            entries.push(ModelEntry {
                name: BUNDLE.to_owned(),
                kind: ModelKind::Bundle,
                registered: None,
                version: None,
                aliases: Vec::new(),
                gate: None,
                created: None,
            });
        }
        entries.extend(registered()?.iter().map(entry));
        Ok(entries)
    }

    fn load(&self, name: &str, force: bool) -> Result<Arc<dyn Classifier>, ModelsError> {
        let path = self.path(name)?;
        let explainer = Explainer::load(&path, None, None)
            .map_err(|error| unusable("it cannot be loaded or fails its own check")(error.into()))?;
        match model::admit(&path, explainer.predictor(), force) {
            Ok(()) => Ok(Arc::new(Served::new(explainer, &path).map_err(unusable("it is gone"))?)),
            Err(BundleError::Refused { gate, .. }) => Err(ModelsError::Refused { reason: gate.to_string() }),
            Err(error) => Err(unusable("it cannot be marked as forced")(error.into())),
        }
    }

    fn promote(&self, name: &str, force: bool) -> Result<ModelEntry, ModelsError> {
        let version = version(name)?;
        models::make_champion(&version, force).map_err(|error| match error.downcast::<BundleError>() {
            Ok(BundleError::Refused { gate, .. }) => ModelsError::Refused { reason: gate.to_string() },
            Ok(error) => unusable("it cannot be promoted")(error.into()),
            Err(error) => unusable("it cannot be promoted")(error),
        })?;
        Ok(entry(&self::version(name)?))
    }
}

/// The version of a name that the list gives.
fn version(name: &str) -> Result<ModelVersion, ModelsError> {
    registered()?.into_iter().find(|version| name_of(version) == name).ok_or(ModelsError::NoSuchModel)
}

/// All versions of all registered models; none where nothing was registered yet.
fn registered() -> Result<Vec<ModelVersion>, ModelsError> {
    match models::all_versions() {
        Ok(versions) => Ok(versions),
        Err(error) if matches!(error.downcast_ref(), Some(CliError::NoRuns { .. })) => Ok(Vec::new()),
        Err(error) => Err(unusable("the registry cannot be read")(error)),
    }
}

fn name_of(version: &ModelVersion) -> String {
    format!("models:/{}/{}", version.name, version.version)
}

fn entry(version: &ModelVersion) -> ModelEntry {
    ModelEntry {
        name: name_of(version),
        kind: ModelKind::Registry,
        registered: Some(version.name.clone()),
        version: Some(version.version),
        aliases: version.aliases.clone(),
        gate: models::gate(version).map(str::to_owned),
        created: jiff::Timestamp::from_millisecond(version.created_ms).ok().map(|time| time.to_string()),
    }
}

fn unusable(reason: &'static str) -> impl Fn(anyhow::Error) -> ModelsError {
    move |error| {
        let source: BoxError = error.into();
        ModelsError::Unusable { reason: reason.to_owned(), source }
    }
}
