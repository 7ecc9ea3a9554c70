//! `verify` and `store`: the receipts of predictions.

mod kept;
mod manage;
mod verify;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nephros_conv::Isa;
use nephros_core::{digest::sha256_file, predictor::Predictor};
use nephros_server::Provenance;
use nephros_store::{Database, MasterKey, Model, StoreConfig, StoreError};
use nephros_train::{
    config::{self, Config},
    progress::Cancelled,
};

pub use kept::Kept;
pub use manage::run as manage;
pub use verify::run as verify;

use crate::{cli::Global, interrupt};

/// Address of the database.
const DATABASE_URL: &str = "DATABASE_URL";
/// The master key itself.
const STORE_KEY: &str = "NEPHROS_STORE_KEY";

/// Section `store` of the project's configuration; the defaults outside of a project.
pub fn section(global: &Global) -> anyhow::Result<config::Store> {
    let in_project = global.config.is_file();
    Ok(if in_project { Config::load(&global.config)?.store } else { config::Store::default() })
}

/// How to open the store that `named`, the environment or the configuration says.
pub fn settings(named: Option<&str>, section: &config::Store) -> anyhow::Result<StoreConfig> {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    let database = match named.map(str::to_owned).or_else(|| variable(DATABASE_URL)) {
        Some(address) => address.parse()?,
        None => Database::Sqlite(section.path.clone()),
    };
    let master_key = match (variable(STORE_KEY), &section.master_key_file) {
        (Some(digits), _) => Some(MasterKey::from_hex(&digits, STORE_KEY).map_err(StoreError::from)?),
        (None, Some(path)) => Some(MasterKey::from_file(path).map_err(StoreError::from)?),
        (None, None) => None,
    };
    let (keep_images, checkpoint) = (section.keep_images, section.checkpoint_file.clone());
    Ok(StoreConfig { keep_images, master_key, checkpoint, ..StoreConfig::new(database) })
}

/// What it takes to repeat an answer of a loaded model; `path` is its bundle or Keras file.
pub fn provenance(predictor: &Predictor, path: &Path) -> anyhow::Result<Provenance> {
    let file = if path.is_dir() { path.join("bundle.json") } else { PathBuf::from(path) };
    Ok(Provenance {
        bundle_sha256: sha256_file(&file)?,
        preprocessing: serde_json::to_string(predictor.preprocessing())?,
        engine: format!("nephros {} {}", env!("CARGO_PKG_VERSION"), Isa::detect()),
    })
}

/// What a receipt says about a loaded model; `path` is its bundle or Keras file.
pub fn model(predictor: &Predictor, path: &Path) -> anyhow::Result<Model> {
    Ok(kept::model(predictor.id(), provenance(predictor, path)?, predictor.labels()))
}

/// Runs `work` to its end, or to Ctrl-C, which leaves the database as if it had not begun or as it is
/// when it has ended.
fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the store")?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = interrupt::wait() => Err(Cancelled.into()),
        }
    })
}
