//! Names of models: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/NAME/STAGE`, `runs:/RUN/PATH`; and
//! what is in the folder of one.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::registry::{self, Registry, RegistryError, Source};

/// The tag of a run in which MLflow 2 keeps what is known of the run's models.
pub(crate) const HISTORY_TAG: &str = "mlflow.log-model.history";

/// What of a model folder nephros loads, in order: its own bundle, or a Keras file.
pub(crate) const BUNDLE: &str = "bundle";
/// The Keras file of a model folder.
pub(crate) const KERAS: &str = "data/model.h5";

/// A model as it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelUri {
    /// By alias.
    Alias {
        /// Registered model.
        name: String,
        /// Alias.
        alias: String,
    },
    /// By number.
    Version {
        /// Registered model.
        name: String,
        /// Number.
        version: u32,
    },
    /// By stage, or `latest` for the highest number.
    Stage {
        /// Registered model.
        name: String,
        /// Stage.
        stage: String,
    },
    /// By the id of the model itself.
    Model(String),
    /// As a folder of a run.
    Run {
        /// Run.
        run: String,
        /// Folder below its artifacts.
        path: String,
    },
}

/// Whether a text is meant to name a model in a registry rather than a file.
pub fn is_uri(text: &str) -> bool {
    text.starts_with("models:") || text.starts_with("runs:")
}

impl ModelUri {
    /// Reads a name.
    ///
    /// # Errors
    /// [`RegistryError::Uri`].
    pub fn parse(uri: &str) -> Result<Self, RegistryError> {
        let wrong = || RegistryError::Uri { uri: uri.to_owned() };
        if let Some(rest) = uri.strip_prefix("runs:/") {
            let (run, path) = rest.trim_matches('/').split_once('/').ok_or_else(wrong)?;
            return Ok(Self::Run { run: run.to_owned(), path: path.to_owned() });
        }
        let rest = uri.strip_prefix("models:/").ok_or_else(wrong)?.trim_matches('/');
        let text = |text: &str| if text.is_empty() { Err(wrong()) } else { Ok(text.to_owned()) };
        if let Some((name, alias)) = rest.rsplit_once('@') {
            return Ok(Self::Alias { name: text(name)?, alias: text(alias)? });
        }
        match rest.rsplit_once('/') {
            None if rest.starts_with("m-") => Ok(Self::Model(rest.to_owned())),
            None => Err(wrong()),
            Some((name, last)) => match last.parse() {
                Ok(version) => Ok(Self::Version { name: text(name)?, version }),
                Err(_) => Ok(Self::Stage { name: text(name)?, stage: text(last)? }),
            },
        }
    }

    /// Finds what is named.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn resolve(&self, registry: &dyn Registry) -> Result<Source, RegistryError> {
        Ok(match self {
            Self::Alias { name, alias } => Source::Version(registry::aliased(registry, name, alias)?),
            Self::Version { name, version } => Source::Version(registry::version(registry, name, *version)?),
            Self::Stage { name, stage } => {
                let missing = || RegistryError::NoStage { name: name.clone(), stage: stage.clone() };
                let fits = |version: &registry::ModelVersion| {
                    stage.eq_ignore_ascii_case("latest") || version.stage.eq_ignore_ascii_case(stage)
                };
                let versions = registry.versions(name)?.into_iter();
                Source::Version(versions.rev().find(fits).ok_or_else(missing)?)
            }
            Self::Model(id) => Source::Model(id.clone()),
            Self::Run { run, path } => Source::Run { run: run.clone(), path: path.clone() },
        })
    }
}

/// A model as it stands in [`HISTORY_TAG`], from its file `MLmodel`: which flavors it has, and since when.
pub(crate) fn described(mlmodel: &str, run: &str, path: &str) -> Value {
    let field = |name: &str| {
        let mut lines = mlmodel.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.next().map_or("", |value| value.trim().trim_matches(['"', '\''])).to_owned()
    };
    let below = mlmodel.lines().skip_while(|line| line.trim_end() != "flavors:").skip(1);
    let flavors: Map<String, Value> = below
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| !name.starts_with(' '))
        .map(|name| (name.to_owned(), json!({})))
        .collect();
    json!({
        "run_id": run,
        "artifact_path": path,
        "utc_time_created": field("utc_time_created"),
        "model_uuid": field("model_uuid"),
        "flavors": flavors,
    })
}

/// What can be loaded of a model folder on this machine.
pub(crate) fn loadable(folder: &Path) -> Result<PathBuf, RegistryError> {
    let candidates = [folder.join(BUNDLE), folder.to_owned()];
    let bundle = candidates.into_iter().find(|folder| folder.join("bundle.json").is_file());
    let keras = Some(folder.join(KERAS)).filter(|file| file.is_file());
    bundle.or(keras).ok_or_else(|| nothing_to_load(&folder.display().to_string()))
}

pub(crate) fn nothing_to_load(source_uri: &str) -> RegistryError {
    let looked = format!("`{BUNDLE}/bundle.json` and `{KERAS}`");
    RegistryError::NothingToLoad { source_uri: source_uri.to_owned(), looked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_read_as_mlflow_reads_them() {
        let (name, text) = ("VGG16Model".to_owned(), str::to_owned);
        for (uri, expected) in [
            ("models:/VGG16Model@champion", ModelUri::Alias { name: name.clone(), alias: text("champion") }),
            ("models:/VGG16Model/3", ModelUri::Version { name: name.clone(), version: 3 }),
            ("models:/VGG16Model/Production", ModelUri::Stage { name, stage: text("Production") }),
            ("models:/m-0123", ModelUri::Model(text("m-0123"))),
            ("runs:/abc/model", ModelUri::Run { run: text("abc"), path: text("model") }),
        ] {
            assert_eq!(ModelUri::parse(uri).unwrap(), expected);
        }
        for uri in
            ["models:/VGG16Model", "models:/@champion", "models:VGG16Model/3", "runs:/abc", "models:/x@"]
        {
            assert!(matches!(ModelUri::parse(uri), Err(RegistryError::Uri { .. })), "{uri}");
        }
    }
}
