//! `models`: versions of registered models, and models that are named by them.

use std::path::PathBuf;

use nephros_core::predictor::Predictor;
use nephros_mlflow::{
    models::ModelUri,
    registry::{self, Action, CHAMPION, Change, ModelVersion, Registry, RegistryError, Source},
    store::Store,
};
use nephros_train::{config::Config, pretrained::cache_dir};
use serde_json::json;

use crate::{
    cli::{Global, ModelsAction, ModelsArgs},
    errors::{CliError, Status},
    output, runs, stages,
    table::columns,
    tracking,
};

/// Runs the command.
pub fn run(args: &ModelsArgs, global: &Global) -> anyhow::Result<Status> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None if global.config.is_file() => Config::load(&global.config)?.mlflow.registered_model_name,
        None => nephros_train::config::Mlflow::default().registered_model_name,
    };
    match &args.action {
        ModelsAction::List => list(args),
        ModelsAction::Register { force } => {
            let (name, version) = tracking::register(&stages::load(global)?, *force)?;
            output::line(&if args.json {
                json!({ "name": name, "version": version }).to_string()
            } else {
                format!("version {version} of `{name}` in the embedded store")
            })?;
            Ok(Status::Done)
        }
        ModelsAction::Promote { version, alias, force } => promote(args, &name, *version, alias, *force),
        ModelsAction::Demote { alias } => {
            let change = registry::demote(open(Use::Change)?.as_ref(), &name, alias, &tracking::user())?;
            tell(args, &name, &change)
        }
        ModelsAction::History => history(args, &name),
    }
}

/// What is done with a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Change,
}

/// The server's registry where there is a server, else that of the embedded store, which has to be there.
fn open(purpose: Use) -> anyhow::Result<Box<dyn Registry>> {
    let settings = tracking::settings()?;
    if let Some(server) = tracking::server(&settings) {
        return Ok(Box::new(server));
    }
    let path = settings.store.clone();
    let store = runs::existing(&settings)?.ok_or(CliError::NoRuns { path })?;
    Ok(Box::new(match purpose {
        Use::Read => store,
        Use::Change => Store::open(store.path(), store.artifacts())?,
    }))
}

/// The bundle or Keras file of a model that is named as `models:/…` or `runs:/…`.
pub fn fetch(uri: &str) -> anyhow::Result<PathBuf> {
    let registry = open(Use::Read)?;
    let source = ModelUri::parse(uri)?.resolve(registry.as_ref())?;
    Ok(registry.fetch(&source, &cache_dir().join("models"))?)
}

fn list(args: &ModelsArgs) -> anyhow::Result<Status> {
    let versions = match open(Use::Read) {
        Ok(registry) => versions(args, registry.as_ref())?,
        Err(error) if matches!(error.downcast_ref(), Some(CliError::NoRuns { .. })) => Vec::new(),
        Err(error) => return Err(error),
    };
    if args.json {
        for version in &versions {
            output::line(&serde_json::to_string(version)?)?;
        }
        return Ok(Status::Done);
    }
    if versions.is_empty() {
        output::note("no model is registered yet: `nephros evaluate` registers one that passes the gate");
        return Ok(Status::Done);
    }
    let heads = ["model", "version", "aliases", "stage", "run", "gate", "registered"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(versions.iter().map(|version| {
        let run = version.run.as_deref().map_or("-", |run| run.get(..8).unwrap_or(run));
        let gate = gate(version).unwrap_or("-");
        vec![
            version.name.clone(),
            version.version.to_string(),
            if version.aliases.is_empty() { "-".into() } else { version.aliases.join(", ") },
            version.stage.clone(),
            run.to_owned(),
            gate.to_owned(),
            runs::time(version.created_ms),
        ]
    }));
    output::line(&columns(&rows))?;
    Ok(Status::Done)
}

/// What the evaluation of a version said, where its tags tell.
pub fn gate(version: &ModelVersion) -> Option<&'static str> {
    match (version.tag("nephros.gate"), version.tag("nephros.forced")) {
        (_, Some(_)) => Some("forced"),
        (Some("passed"), None) => Some("passed"),
        (Some("not evaluated"), None) => Some("not evaluated"),
        (Some(_), None) => Some("refused"),
        (None, None) => None,
    }
}

/// All versions of all registered models.
pub fn all_versions() -> anyhow::Result<Vec<ModelVersion>> {
    let registry = open(Use::Read)?;
    let mut versions = Vec::new();
    for name in registry.names()? {
        versions.extend(registry.versions(&name)?);
    }
    Ok(versions)
}

/// Makes a version the champion of its model, if the gate or `force` lets it.
pub fn make_champion(version: &ModelVersion, force: bool) -> anyhow::Result<Change> {
    let registry = open(Use::Change)?;
    let forced = champion_forced(registry.as_ref(), version.clone(), force)?;
    let (name, number) = (&version.name, version.version);
    Ok(registry::promote(registry.as_ref(), name, number, CHAMPION, &tracking::user(), forced)?)
}

/// Whether only `force` lets a version be champion.
fn champion_forced(registry: &dyn Registry, version: ModelVersion, force: bool) -> anyhow::Result<bool> {
    let path = registry.fetch(&Source::Version(version), &cache_dir().join("models"))?;
    let predictor = Predictor::load(&path, None)?;
    Ok(tracking::admitted(&path, &predictor, force)?)
}

fn versions(args: &ModelsArgs, registry: &dyn Registry) -> Result<Vec<ModelVersion>, RegistryError> {
    let names = match &args.name {
        Some(name) => vec![name.clone()],
        None => registry.names()?,
    };
    let mut versions = Vec::new();
    for name in names {
        versions.extend(registry.versions(&name)?);
    }
    Ok(versions)
}

/// The gate decides by the version's own bundle who may be champion.
fn promote(args: &ModelsArgs, name: &str, number: u32, alias: &str, force: bool) -> anyhow::Result<Status> {
    let registry = open(Use::Change)?;
    let version = registry::version(registry.as_ref(), name, number)?;
    let forced = alias == CHAMPION && champion_forced(registry.as_ref(), version, force)?;
    let change = registry::promote(registry.as_ref(), name, number, alias, &tracking::user(), forced)?;
    tell(args, name, &change)
}

fn history(args: &ModelsArgs, name: &str) -> anyhow::Result<Status> {
    for change in registry::history(open(Use::Read)?.as_ref(), name)? {
        tell(args, name, &change)?;
    }
    Ok(Status::Done)
}

fn tell(args: &ModelsArgs, name: &str, change: &Change) -> anyhow::Result<Status> {
    output::line(&if args.json { serde_json::to_string(change)? } else { sentence(name, change) })?;
    Ok(Status::Done)
}

fn sentence(name: &str, change: &Change) -> String {
    let Change { time_ms, action, version, alias, instead_of, user, forced } = change;
    let alias = alias.as_deref().unwrap_or_default();
    let done = match (action, instead_of) {
        (Action::Registered, _) => "registered".to_owned(),
        (Action::Promoted, None) => format!("is `{alias}` now"),
        (Action::Promoted, Some(before)) => format!("is `{alias}` now instead of version {before}"),
        (Action::Demoted, _) => format!("is `{alias}` no more"),
    };
    let forced = if *forced { ", with --force" } else { "" };
    let by = if user.is_empty() { String::new() } else { format!(" by {user}") };
    format!("{}  version {version} of `{name}` {done}{by}{forced}", runs::time(*time_ms))
}

/// Whether the registry says what is asked of it; for errors of usage.
pub fn is_usage(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Uri { .. } | RegistryError::Settings(_))
}
