//! Registered models: their versions, who is champion, and what became of each.
//!
//! MLflow keeps which version an alias names now, and nothing of before. Every change made here is also
//! written as a tag of the version that it is about, named [`HISTORY`] and its time: the history is then
//! where the model is, for every client of that registry.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    run::{Entry, now_ms},
    server::ServerError,
    settings::SettingsError,
    store::StoreError,
};

/// Start of the names of the tags that hold a model's history; the time in milliseconds follows.
pub const HISTORY: &str = "nephros.history.";
/// Alias of the version in use, and the stage that MLflow had for it.
pub const CHAMPION: &str = "champion";
/// Alias of the version that may become champion.
pub const CHALLENGER: &str = "challenger";

/// A version of a registered model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelVersion {
    /// Name of the registered model.
    pub name: String,
    /// Number, from 1.
    pub version: u32,
    /// Run that the model came out of.
    pub run: Option<String>,
    /// Where the files are, as MLflow says it.
    pub source: String,
    /// Stage, `None` for no stage.
    pub stage: String,
    /// Aliases that name this version.
    pub aliases: Vec<String>,
    /// Tags.
    pub tags: Vec<Entry>,
    /// Begin, in milliseconds since 1970.
    pub created_ms: i64,
}

impl ModelVersion {
    /// Value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }
}

/// What a model is loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A version in the registry.
    Version(ModelVersion),
    /// A model of a run, by its id.
    Model(String),
    /// A folder of a run's artifacts.
    Run {
        /// Id of the run.
        run: String,
        /// Path below its artifacts.
        path: String,
    },
}

/// Where versions are kept: the embedded store, or a server.
pub trait Registry {
    /// Names of all registered models, sorted.
    ///
    /// # Errors
    /// See [`RegistryError`].
    fn names(&self) -> Result<Vec<String>, RegistryError>;

    /// All versions of a model, the first first.
    ///
    /// # Errors
    /// [`RegistryError::NoModel`]; see [`RegistryError`].
    fn versions(&self, name: &str) -> Result<Vec<ModelVersion>, RegistryError>;

    /// Makes an alias name this version and no other.
    ///
    /// # Errors
    /// See [`RegistryError`].
    fn set_alias(&self, name: &str, alias: &str, version: u32) -> Result<(), RegistryError>;

    /// Removes an alias.
    ///
    /// # Errors
    /// See [`RegistryError`].
    fn delete_alias(&self, name: &str, alias: &str) -> Result<(), RegistryError>;

    /// Puts a version into a stage; `archive` moves those that are in it to `Archived`. `false` where the
    /// registry has no stages.
    ///
    /// # Errors
    /// See [`RegistryError`].
    fn set_stage(&self, name: &str, version: u32, stage: &str, archive: bool) -> Result<bool, RegistryError>;

    /// Sets a tag of a version.
    ///
    /// # Errors
    /// See [`RegistryError`].
    fn set_tag(&self, name: &str, version: u32, tag: &Entry) -> Result<(), RegistryError>;

    /// The folder of a bundle, or the Keras file, that is in a model. It lies below `cache` if it had to be
    /// downloaded.
    ///
    /// # Errors
    /// See [`RegistryError`].
    fn fetch(&self, source: &Source, cache: &Path) -> Result<PathBuf, RegistryError>;
}

/// Why a model cannot be found, changed or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The embedded store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The address or the credentials.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file in the cache cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The text names no model.
    #[error("expected `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN/PATH`, got `{uri}`")]
    Uri {
        /// The text.
        uri: String,
    },
    /// No model of this name is registered.
    #[error("found no registered model `{name}`")]
    NoModel {
        /// The name.
        name: String,
    },
    /// The model has no such version.
    #[error("model `{name}` has no version {version}")]
    NoVersion {
        /// The name.
        name: String,
        /// The version.
        version: u32,
    },
    /// No version has this alias.
    #[error("no version of model `{name}` is `{alias}`")]
    NoAlias {
        /// The name.
        name: String,
        /// The alias.
        alias: String,
    },
    /// No version is in this stage.
    #[error("no version of model `{name}` is in stage `{stage}`")]
    NoStage {
        /// The name.
        name: String,
        /// The stage.
        stage: String,
    },
    /// The files are not where they should be, or not ones that can be loaded.
    #[error("`{source_uri}` holds no model that nephros can load: looked for {looked}")]
    NothingToLoad {
        /// Where the files are.
        source_uri: String,
        /// Files that were looked for.
        looked: String,
    },
}

impl RegistryError {
    /// What to do about it, in a sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Server(error) => error.hint(),
            Self::Settings(error) => error.hint(),
            Self::Io(_) => None,
            Self::Uri { .. } => {
                Some("such as `models:/VGG16Model@champion` or `models:/VGG16Model/3`".into())
            }
            Self::NoModel { .. } => Some(
                "`nephros models list` shows all; `nephros evaluate` registers a model that passes the gate"
                    .into(),
            ),
            Self::NoVersion { name, .. } | Self::NoStage { name, .. } => {
                Some(format!("`nephros models list --name {name}` shows its versions"))
            }
            Self::NoAlias { alias, .. } => {
                Some(format!("`nephros models promote VERSION --alias {alias}` sets it"))
            }
            Self::NothingToLoad { .. } => Some(
                "a model that nephros logged has a folder `bundle`; another needs `data/model.h5`".into(),
            ),
        }
    }
}

/// One change in the life of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// What was done.
    pub action: Action,
    /// The version that it was done to.
    #[serde(default)]
    pub version: u32,
    /// Alias that it got or lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Version that had the alias before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u32>,
    /// Who did it.
    pub user: String,
    /// Whether the gate said no and `--force` was given.
    #[serde(default)]
    pub forced: bool,
}

/// What can be done to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It came into being.
    Registered,
    /// It got an alias.
    Promoted,
    /// It lost an alias.
    Demoted,
}

/// The stage that MLflow had for what an alias says now.
fn stage_of(alias: &str) -> Option<&'static str> {
    match alias {
        CHAMPION => Some("Production"),
        CHALLENGER => Some("Staging"),
        _ => None,
    }
}

/// A version by its number.
///
/// # Errors
/// [`RegistryError::NoVersion`]; see [`RegistryError`].
pub fn version(registry: &dyn Registry, name: &str, number: u32) -> Result<ModelVersion, RegistryError> {
    let missing = || RegistryError::NoVersion { name: name.to_owned(), version: number };
    registry.versions(name)?.into_iter().find(|version| version.version == number).ok_or_else(missing)
}

/// The version that an alias names.
///
/// # Errors
/// [`RegistryError::NoAlias`]; see [`RegistryError`].
pub fn aliased(registry: &dyn Registry, name: &str, alias: &str) -> Result<ModelVersion, RegistryError> {
    let missing = || RegistryError::NoAlias { name: name.to_owned(), alias: alias.to_owned() };
    let has = |version: &ModelVersion| version.aliases.iter().any(|known| known == alias);
    registry.versions(name)?.into_iter().find(has).ok_or_else(missing)
}

/// Gives a version an alias, and the stage of it where there are stages. Whether it may have it is for the
/// caller to find out before.
///
/// # Errors
/// See [`RegistryError`].
pub fn promote(
    registry: &dyn Registry,
    name: &str,
    number: u32,
    alias: &str,
    user: &str,
    forced: bool,
) -> Result<Change, RegistryError> {
    let versions = registry.versions(name)?;
    if !versions.iter().any(|version| version.version == number) {
        return Err(RegistryError::NoVersion { name: name.to_owned(), version: number });
    }
    let had = |version: &&ModelVersion| version.aliases.iter().any(|known| known == alias);
    let before = versions.iter().find(had).map(|version| version.version);
    registry.set_alias(name, alias, number)?;
    if let Some(stage) = stage_of(alias) {
        registry.set_stage(name, number, stage, true)?;
    }
    let change = Change {
        time_ms: now_ms(),
        action: Action::Promoted,
        version: number,
        alias: Some(alias.to_owned()),
        instead_of: before.filter(|before| *before != number),
        user: user.to_owned(),
        forced,
    };
    record(registry, name, &change)?;
    Ok(change)
}

/// Takes an alias from the version that has it, which goes to stage `Archived` where there are stages.
///
/// # Errors
/// [`RegistryError::NoAlias`]; see [`RegistryError`].
pub fn demote(registry: &dyn Registry, name: &str, alias: &str, user: &str) -> Result<Change, RegistryError> {
    let version = aliased(registry, name, alias)?;
    registry.delete_alias(name, alias)?;
    if stage_of(alias) == Some(version.stage.as_str()) {
        registry.set_stage(name, version.version, "Archived", false)?;
    }
    let change = Change {
        time_ms: now_ms(),
        action: Action::Demoted,
        version: version.version,
        alias: Some(alias.to_owned()),
        instead_of: None,
        user: user.to_owned(),
        forced: false,
    };
    record(registry, name, &change)?;
    Ok(change)
}

/// Everything that became of the versions of a model, the latest last.
///
/// # Errors
/// See [`RegistryError`].
pub fn history(registry: &dyn Registry, name: &str) -> Result<Vec<Change>, RegistryError> {
    let mut changes = Vec::new();
    for version in registry.versions(name)? {
        let tags = version.tags.iter().filter(|tag| tag.key.starts_with(HISTORY));
        let told: Vec<Change> = tags.filter_map(|tag| serde_json::from_str(&tag.value).ok()).collect();
        if !told.iter().any(|change| change.action == Action::Registered) {
            // By another client, which leaves no note of who did it.
            let user = String::new();
            let (time_ms, version) = (version.created_ms, version.version);
            let action = Action::Registered;
            changes.push(Change {
                time_ms,
                action,
                version,
                alias: None,
                instead_of: None,
                user,
                forced: false,
            });
        }
        changes.extend(told);
    }
    changes.sort_by_key(|change| (change.time_ms, change.version));
    Ok(changes)
}

/// The tag that tells a change.
pub(crate) fn history_tag(change: &Change) -> Entry {
    // A struct of numbers and texts has a JSON form.
    let json = serde_json::to_string(change).unwrap_or_default();
    Entry::new(format!("{HISTORY}{}", change.time_ms), json)
}

fn record(registry: &dyn Registry, name: &str, change: &Change) -> Result<(), RegistryError> {
    registry.set_tag(name, change.version, &history_tag(change))
}
