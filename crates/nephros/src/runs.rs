//! `runs`: what is in the embedded store, and sending it to a server.

use std::collections::BTreeMap;

use nephros_mlflow::{
    run::{Metric, RunRecord},
    settings::{Settings, TRACKING_URI},
    store::{ARTIFACTS, OTHER_FILE, Store, StoreError},
    sync::{self, Fed},
};
use serde_json::{Value, json};

use crate::{
    cli::{Global, RunsAction, RunsArgs},
    errors::{CliError, Status},
    interrupt, output,
    table::columns,
    tracking,
};

/// Metrics in the list, with their heads.
const SHOWN: [(&str, &str); 3] =
    [("validation_loss", "val. loss"), ("test_accuracy", "accuracy"), ("test_auroc", "AUROC")];
/// Digits of an id in a table; enough to name a run by.
const SHORT: usize = 8;

/// Runs the command.
pub fn run(args: &RunsArgs, global: &Global) -> anyhow::Result<Status> {
    let settings = tracking::settings()?;
    match &args.action {
        RunsAction::List { experiment, json } => list(&settings, experiment.as_deref(), *json),
        RunsAction::Show { run, json } => show(&settings, run, *json),
        RunsAction::Compare { runs, json } => compare(&settings, runs, *json),
        RunsAction::Sync { runs, anew, json } => send(&settings, runs, *anew, *json, global),
    }
}

/// The store of this folder, to read; `None` where nothing was recorded yet.
pub fn existing(settings: &Settings) -> Result<Option<Store>, StoreError> {
    match Store::open_existing(&settings.store, ARTIFACTS.as_ref()) {
        Err(error) if error.is_other_file() => {
            match Store::open_existing(&settings.store.with_file_name(OTHER_FILE), ARTIFACTS.as_ref())? {
                Some(store) => Ok(Some(store)),
                None => Err(error),
            }
        }
        other => other,
    }
}

fn stored(settings: &Settings) -> anyhow::Result<Store> {
    let path = settings.store.clone();
    Ok(existing(settings)?.ok_or(CliError::NoRuns { path })?)
}

fn list(settings: &Settings, experiment: Option<&str>, json: bool) -> anyhow::Result<Status> {
    let runs = match existing(settings)? {
        Some(store) => store.runs(experiment)?,
        None => Vec::new(),
    };
    if json {
        for run in &runs {
            output::line(&serde_json::to_string(&flat(run))?)?;
        }
        return Ok(Status::Done);
    }
    if runs.is_empty() {
        output::note("no runs yet: `nephros run` or `nephros train` records one");
        return Ok(Status::Done);
    }
    let heads = ["run", "name", "experiment", "status", "begun"].into_iter();
    let mut rows = vec![heads.chain(SHOWN.map(|(_, head)| head)).map(str::to_owned).collect()];
    rows.extend(runs.iter().map(|run| {
        let info = &run.info;
        let mut row = vec![short(&info.id), info.name.clone(), info.experiment.clone()];
        row.extend([info.status.to_string(), time(info.start_ms)]);
        row.extend(SHOWN.map(|(key, _)| run.metric(key).map_or_else(|| "-".into(), figure)));
        row
    }));
    output::line(&columns(&rows))?;
    Ok(Status::Done)
}

fn show(settings: &Settings, id: &str, json: bool) -> anyhow::Result<Status> {
    let store = stored(settings)?;
    let run = store.run(id)?;
    let artifacts = store.artifact_paths(&run.info.id)?;
    if json {
        let mut value = flat(&run);
        let histories = run.metrics.iter().map(|metric| {
            Ok((metric.key.clone(), serde_json::to_value(store.history(&run.info.id, &metric.key)?)?))
        });
        value["history"] = Value::Object(histories.collect::<anyhow::Result<_>>()?);
        value["artifacts"] = artifacts.into();
        output::line(&value.to_string())?;
        return Ok(Status::Done);
    }
    let info = &run.info;
    let end = info.end_ms.map_or_else(String::new, |end| format!(" to {}", time(end)));
    let mut text = format!(
        "run {} `{}` of experiment `{}`\n{}, {}{end}, by {}\n",
        info.id,
        info.name,
        info.experiment,
        info.status,
        time(info.start_ms),
        info.user
    );
    let entries = |entries: &[nephros_mlflow::run::Entry]| {
        entries.iter().map(|entry| vec![entry.key.clone(), entry.value.clone()]).collect::<Vec<_>>()
    };
    let metrics = run
        .metrics
        .iter()
        .map(|metric| vec![metric.key.clone(), figure(metric.value), format!("step {}", metric.step)]);
    let datasets =
        run.datasets.iter().map(|data| vec![data.context.clone(), data.name.clone(), data.digest.clone()]);
    let plain = |lines: Vec<String>| lines.into_iter().map(|line| vec![line]).collect::<Vec<_>>();
    for (head, rows) in [
        ("parameters", entries(&run.params)),
        ("metrics", metrics.collect()),
        ("tags", entries(&run.tags)),
        ("data", datasets.collect()),
        ("models", plain(run.models.clone())),
        ("files", plain(artifacts)),
    ] {
        if !rows.is_empty() {
            text += &["\n", head, "\n", &columns(&rows), "\n"].concat();
        }
    }
    output::line(text.trim_end())?;
    Ok(Status::Done)
}

/// What differs between runs: a row for each parameter and metric.
fn compare(settings: &Settings, ids: &[String], json: bool) -> anyhow::Result<Status> {
    let store = stored(settings)?;
    let runs = ids.iter().map(|id| store.run(id)).collect::<Result<Vec<_>, _>>()?;
    let params = differing(&runs, |run| {
        run.params.iter().map(|param| (param.key.clone(), param.value.clone())).collect()
    });
    let metrics = differing(&runs, |run| {
        run.metrics.iter().map(|metric| (metric.key.clone(), figure(metric.value))).collect()
    });
    if json {
        let ids: Vec<&str> = runs.iter().map(|run| run.info.id.as_str()).collect();
        output::line(&json!({ "runs": ids, "params": params, "metrics": metrics }).to_string())?;
        return Ok(Status::Done);
    }
    let head = std::iter::once(String::new()).chain(runs.iter().map(|run| short(&run.info.id)));
    let mut rows = vec![head.collect::<Vec<_>>()];
    for (key, values) in params.into_iter().chain(metrics) {
        let values = values.into_iter().map(|value| value.unwrap_or_else(|| "-".into()));
        rows.push(std::iter::once(key).chain(values).collect());
    }
    if rows.len() == 1 {
        output::note("the runs have the same parameters and metrics");
        return Ok(Status::Done);
    }
    output::line(&columns(&rows))?;
    Ok(Status::Done)
}

fn differing(
    runs: &[RunRecord],
    values: impl Fn(&RunRecord) -> BTreeMap<String, String>,
) -> BTreeMap<String, Vec<Option<String>>> {
    let all: Vec<BTreeMap<String, String>> = runs.iter().map(values).collect();
    let keys = all.iter().flat_map(BTreeMap::keys);
    let rows = keys.map(|key| (key.clone(), all.iter().map(|run| run.get(key).cloned()).collect::<Vec<_>>()));
    rows.filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// Sends what a server does not have yet.
fn send(
    settings: &Settings,
    ids: &[String],
    anew: bool,
    json: bool,
    global: &Global,
) -> anyhow::Result<Status> {
    let server = tracking::server(settings).ok_or(CliError::NoServer { variable: TRACKING_URI })?;
    let store = match existing(settings)? {
        // To write how far the server is.
        Some(store) => Store::open(store.path(), store.artifacts())?,
        None => return Ok(nothing_to_send(global)),
    };
    let runs = if ids.is_empty() {
        store.unsent_runs(server.url())?
    } else {
        ids.iter().map(|id| Ok(store.run(id)?.info.id)).collect::<Result<Vec<_>, StoreError>>()?
    };
    if runs.is_empty() {
        return Ok(nothing_to_send(global));
    }
    let mut failed = false;
    for run in runs {
        if interrupt::requested() {
            return Err(nephros_train::progress::Cancelled.into());
        }
        if anew {
            store.forget_copy(&run, server.url())?;
        }
        match sync::feed(&store, &server, &run) {
            Ok(fed) => output::line(&told(&run, &fed, json))?,
            // What is wrong with the server is wrong for all of them.
            Err(error @ sync::SyncError::Server(_)) if !is_of_one_run(&error) => return Err(error.into()),
            Err(error) => {
                failed = true;
                output::note(&format!("run {run}: {}", crate::errors::render(&error.into())));
            }
        }
    }
    Ok(if failed { Status::Failed } else { Status::Done })
}

fn is_of_one_run(error: &sync::SyncError) -> bool {
    use nephros_mlflow::server::ServerError::{ExperimentDeleted, Refused, RunDeleted};
    matches!(error, sync::SyncError::Server(RunDeleted { .. } | ExperimentDeleted { .. } | Refused { .. }))
}

fn nothing_to_send(global: &Global) -> Status {
    if !global.quiet {
        output::note("the server has all runs");
    }
    Status::Done
}

fn told(run: &str, fed: &Fed, json: bool) -> String {
    let remote = fed.remote.as_deref().unwrap_or_default();
    if json {
        let Fed { sent, left_out, reason, busy, .. } = fed;
        return json!({ "run": run, "remote": remote, "sent": sent, "left_out": left_out, "reason": reason,
                       "busy": busy })
        .to_string();
    }
    if fed.busy {
        return format!("{}: another process is sending it", short(run));
    }
    let left_out = match &fed.reason {
        Some(reason) => format!("; {} files left out: {reason}", fed.left_out),
        None => String::new(),
    };
    format!("{}: {} events sent, run {remote} on the server{left_out}", short(run), fed.sent)
}

/// A run as JSON, with parameters, metrics and tags by name.
fn flat(run: &RunRecord) -> Value {
    let entries = |entries: &[nephros_mlflow::run::Entry]| {
        entries
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone().into()))
            .collect::<serde_json::Map<_, _>>()
    };
    let number = |metric: &Metric| match metric.value {
        value if value.is_finite() => value.into(),
        value => Value::String(value.to_string()),
    };
    let metrics = run.metrics.iter().map(|metric| (metric.key.clone(), number(metric)));
    let info = &run.info;
    json!({
        "id": info.id, "name": info.name, "experiment": info.experiment, "status": info.status, "user": info.user,
        "start_ms": info.start_ms, "end_ms": info.end_ms, "artifact_uri": info.artifact_uri,
        "params": entries(&run.params), "metrics": metrics.collect::<serde_json::Map<_, _>>(),
        "tags": entries(&run.tags), "datasets": run.datasets, "models": run.models,
    })
}

fn short(id: &str) -> String {
    id.chars().take(SHORT).collect()
}

/// A figure in a table: whole numbers as they are.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value}") } else { format!("{value:.4}") }
}

/// A time of this machine, to the minute.
pub fn time(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}
