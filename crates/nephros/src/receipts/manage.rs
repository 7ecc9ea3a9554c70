//! `store`: export, erasure, retention, keys, backup.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use nephros_store::{Erase, Erased, MasterKey, Store, StoreConfig, StoreError, backup, restore};
use nephros_train::config;
use serde_json::{Value, json};

use crate::{
    cli::{Global, StoreAction, StoreCommandArgs},
    errors::Status,
    output, receipts,
};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// Runs the command.
pub fn run(args: &StoreCommandArgs, global: &Global) -> anyhow::Result<Status> {
    let section = receipts::section(global)?;
    let settings = receipts::settings(args.store.store.as_deref(), &section)?;
    let settings = StoreConfig { create: false, ..settings };
    let (text, line) = receipts::wait(act(&args.action, settings, &section))?;
    output::line(&if args.store.json { line.to_string() } else { text })?;
    Ok(Status::Done)
}

/// What was done, for a reader and for a program.
type Told = (String, Value);

async fn act(action: &StoreAction, settings: StoreConfig, section: &config::Store) -> anyhow::Result<Told> {
    match action {
        StoreAction::Backup { target } => {
            let checkpoint = backup(settings, target).await?;
            let text =
                format!("`{}` holds the log up to entry {} or later", target.display(), checkpoint.position);
            return Ok((text, json!({ "path": target, "position": checkpoint.position })));
        }
        StoreAction::Restore { source } => {
            let found = restore(settings, source).await?;
            let text = format!("restored and verified {} entries, {} images", found.entries, found.images);
            return Ok((text, json!({ "entries": found.entries, "images": found.images })));
        }
        _ => {}
    }
    let store = Store::open(settings).await?;
    let told = with_store(action, &store, section).await;
    store.close().await;
    told
}

async fn with_store(action: &StoreAction, store: &Store, section: &config::Store) -> anyhow::Result<Told> {
    Ok(match action {
        StoreAction::Export { subject, out } => export(store, subject, out).await?,
        StoreAction::Erase { subject, receipt } => {
            let what = match (subject, receipt) {
                (Some(subject), _) => Erase::Subject(subject.clone()),
                (None, receipt) => Erase::Receipt(receipt.as_deref().unwrap_or_default().parse()?),
            };
            erased(&[store.erase(what).await?])?
        }
        StoreAction::Prune { days, image_days } => {
            let before = |days: u32| now_us().saturating_sub(DAY_US.saturating_mul(i64::from(days)));
            let images =
                image_days.or(section.image_retention_days).map(|days| Erase::ImagesBefore(before(days)));
            let all = days.or(section.retention_days).map(|days| Erase::Before(before(days)));
            let mut done = Vec::new();
            for what in [all, images].into_iter().flatten() {
                done.push(store.erase(what).await?);
            }
            erased(&done)?
        }
        StoreAction::Rotate { new_key_file } => {
            let new = MasterKey::from_file(new_key_file).map_err(StoreError::from)?;
            let fingerprint = new.fingerprint();
            let keys = store.rotate_master_key(new).await?;
            let text = format!(
                "{keys} keys are wrapped by the master key {fingerprint}: start servers again with it"
            );
            (text, json!({ "keys": keys, "master": fingerprint }))
        }
        StoreAction::Checkpoint => {
            let checkpoint = store.checkpoint().await?;
            let line = json!({ "checkpoint": checkpoint.to_string() });
            (checkpoint.to_string().trim_end().to_owned(), line)
        }
        // Both open a store of their own, see `act`.
        StoreAction::Backup { .. } | StoreAction::Restore { .. } => (String::new(), Value::Null),
    })
}

async fn export(store: &Store, subject: &str, out: &Path) -> anyhow::Result<Told> {
    let export = store.export(subject).await?;
    export.write_zip(out)?;
    let (entries, images) = (export.entries.len(), export.images.len());
    let text = format!("`{}` holds {entries} entries and {images} images", out.display());
    Ok((text, json!({ "path": out, "entries": entries, "images": images })))
}

fn erased(done: &[Erased]) -> anyhow::Result<Told> {
    let sum = |count: fn(&Erased) -> u64| done.iter().map(count).sum::<u64>();
    let (records, images, keys) = (sum(|done| done.records), sum(|done| done.images), sum(|done| done.keys));
    let scrubbed = done.iter().all(|done| done.scrubbed);
    let mut text = match done {
        [] => "nothing is to be erased: name `--days` or `--image-days`, or set them in config/config.yaml"
            .to_owned(),
        _ => format!("erased details or images of {records} records: {images} images, {keys} keys"),
    };
    if !scrubbed {
        text += "\nwhat was erased is still in the database's files, as a reader was in the way; erase again later";
    }
    let receipts: Vec<_> = done.iter().filter_map(|done| done.receipt.as_ref()).collect();
    let line = json!({
        "records": records,
        "images": images,
        "keys": keys,
        "scrubbed": scrubbed,
        "receipts": serde_json::to_value(receipts)?,
    });
    Ok((text, line))
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
