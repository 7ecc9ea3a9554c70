//! `verify`: whether the log is whole, and whether predictions come out again as they were.

use std::path::Path;

use nephros_core::{pixels, predictor::Predictor};
use nephros_store::{Checkpoint, Entry, Filter, Kind, Model, Page, Store, StoreConfig, Verification};
use serde::Serialize;
use serde_json::json;

use crate::{
    cli::{Global, Replay, VerifyArgs},
    errors::{CliError, Status},
    model, output, receipts,
};

/// Runs the command.
pub fn run(args: &VerifyArgs, global: &Global) -> anyhow::Result<Status> {
    let section = receipts::section(global)?;
    let settings = receipts::settings(args.store.store.as_deref(), &section)?;
    let configured = section.checkpoint_file.as_deref().filter(|path| path.is_file());
    let checkpoint = args.checkpoint.as_deref().or(configured).map(read_checkpoint).transpose()?;
    // A reader leaves no checkpoint.
    let settings = StoreConfig { create: false, keep_images: false, checkpoint: None, ..settings };
    receipts::wait(async {
        let store = Store::open(settings).await?;
        let found = store.verify(checkpoint.as_ref()).await?;
        let head = store.checkpoint().await?;
        let replays =
            if found.broken.is_none() { replay(&store, args, global).await? } else { Replays::default() };
        store.close().await;
        tell(args, &found, &head, &replays)
    })
}

fn read_checkpoint(path: &Path) -> anyhow::Result<Checkpoint> {
    Ok(fs_err::read_to_string(path)?.parse()?)
}

/// What came of repeating predictions.
#[derive(Debug, Default, Serialize)]
struct Replays {
    /// Predictions that came out again bit for bit.
    replayed: usize,
    /// Those that did not.
    differing: Vec<Differing>,
    /// Those of the model at hand whose images were kept, and that were not tried.
    untried: u64,
    /// Why none was repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

/// A prediction that came out otherwise.
#[derive(Debug, Serialize)]
struct Differing {
    position: u64,
    receipt: String,
    recorded: Vec<f32>,
    repeated: Vec<f32>,
    /// Engine of the record, where it is another one than that here.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
}

async fn replay(store: &Store, args: &VerifyArgs, global: &Global) -> anyhow::Result<Replays> {
    let skipped = |why: &str| Ok(Replays { skipped: Some(why.to_owned()), ..Replays::default() });
    let most = match args.replay {
        Replay::Newest(0) if args.receipt.is_none() => return skipped("not asked for"),
        Replay::Newest(most) => most,
        Replay::All => usize::MAX,
    };
    let mut entries = match &args.receipt {
        Some(id) => vec![store.entry(&id.parse()?).await?],
        None => kept(store, None).await?,
    };
    if entries.is_empty() {
        return skipped("no images were kept");
    }
    let loaded = model::find(args.model.model.as_deref(), global).and_then(|path| {
        let precision = args.model.precision.map(Into::into);
        let predictor = Predictor::load_as(&path, args.model.preprocessing.map(Into::into), precision)?;
        Ok((receipts::model(&predictor, &path)?, predictor))
    });
    let (here, predictor) = match loaded {
        Err(error)
            if matches!(error.downcast_ref(), Some(CliError::NoModel { .. })) && args.receipt.is_none() =>
        {
            return skipped("there is no model here");
        }
        other => other?,
    };
    let mut replays = Replays::default();
    while let Some(last) = entries.last().map(|entry| entry.receipt.position) {
        for entry in &entries {
            if !is_of(&here, entry) {
                continue;
            }
            if replays.replayed + replays.differing.len() < most.max(1) {
                repeat(store, entry, &here, &predictor, &mut replays).await?;
            } else {
                replays.untried += 1;
            }
        }
        entries = if args.receipt.is_some() { Vec::new() } else { kept(store, Some(last)).await? };
    }
    if replays.replayed + replays.differing.len() == 0 {
        replays.skipped = Some(format!("no kept image was predicted on by {}", here.id));
    }
    Ok(replays)
}

/// Predictions whose images were kept, the newest first, a page before that position; none where no more are.
async fn kept(store: &Store, mut before: Option<u64>) -> anyhow::Result<Vec<Entry>> {
    loop {
        let filter = Filter { kind: Some(Kind::Prediction), ..Filter::default() };
        let mut entries = store.history(filter, Page { before, limit: nephros_store::MOST }).await?;
        let Some(last) = entries.last().map(|entry| entry.receipt.position) else { return Ok(entries) };
        entries.retain(|entry| entry.details.as_ref().is_some_and(|details| details.image_kept));
        if !entries.is_empty() {
            return Ok(entries);
        }
        before = Some(last);
    }
}

/// Whether the model at hand predicted it.
fn is_of(here: &Model, entry: &Entry) -> bool {
    entry.model.as_ref().is_some_and(|model| model.bundle_sha256 == here.bundle_sha256 && model.id == here.id)
}

async fn repeat(
    store: &Store,
    entry: &Entry,
    here: &Model,
    predictor: &Predictor,
    replays: &mut Replays,
) -> anyhow::Result<()> {
    let (Some(model), Some(details)) = (&entry.model, &entry.details) else { return Ok(()) };
    let Some(image) = store.image(&entry.receipt.id).await? else { return Ok(()) };
    let repeated = predictor.predict(&pixels::decode(&image)?)?.probabilities;
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    if bits(&repeated) == bits(&details.probabilities) {
        replays.replayed += 1;
    } else {
        replays.differing.push(Differing {
            position: entry.receipt.position,
            receipt: entry.receipt.id.to_string(),
            recorded: details.probabilities.clone(),
            repeated,
            engine: (model.engine != here.engine).then(|| model.engine.clone()),
        });
    }
    Ok(())
}

fn tell(
    args: &VerifyArgs,
    found: &Verification,
    head: &Checkpoint,
    replays: &Replays,
) -> anyhow::Result<Status> {
    let sound = found.broken.is_none() && replays.differing.is_empty();
    if args.store.json {
        let mut line = serde_json::to_value(found)?;
        line["checkpoint"] = json!(head.to_string());
        line["replay"] = serde_json::to_value(replays)?;
        output::line(&line.to_string())?;
    } else {
        sentences(found, replays).iter().try_for_each(|sentence| output::line(sentence))?;
    }
    Ok(if sound { Status::Done } else { Status::Failed })
}

fn sentences(found: &Verification, replays: &Replays) -> Vec<String> {
    let Verification { entries, predictions, erased, images, decrypted, broken } = found;
    if let Some(broken) = broken {
        return vec![
            format!("BROKEN at {broken}"),
            format!("{entries} entries before it are as they were recorded"),
        ];
    }
    let mut told = vec![
        format!(
            "{entries} entries are as they were recorded: {predictions} predictions, {erased} entries erased since"
        ),
        format!("{images} images are kept; {decrypted} were decrypted and are those that were predicted on"),
    ];
    told.push(match &replays.skipped {
        Some(why) => format!("no prediction was repeated: {why}"),
        None => format!("{} predictions came out again bit for bit", replays.replayed),
    });
    if replays.untried > 0 {
        told.push(format!("{} older ones were not tried: `--replay all` repeats them, too", replays.untried));
    }
    told.extend(replays.differing.iter().map(|differing| {
        let engine =
            differing.engine.as_ref().map_or_else(String::new, |engine| format!("; recorded by {engine}"));
        format!(
            "DIFFERENT at record {} ({}): recorded {:?}, repeated {:?}{engine}",
            differing.position, differing.receipt, differing.recorded, differing.repeated
        )
    }));
    told
}
