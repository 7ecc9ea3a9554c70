//! Trainings and evaluations, recorded as runs of MLflow while they happen.
//!
//! What cannot be recorded is told once and ends no training.

mod facts;
mod folder;
mod note;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nephros_core::{
    bundle::{self, Admission, BundleError},
    predictor::Predictor,
};
use nephros_mlflow::{
    run::{Entry, NewRun, RunStatus},
    server::{Patience, Server},
    settings::Settings,
    store::{ARTIFACTS, Store, StoreError},
    sync::{Feeder, SyncError},
};
use nephros_train::{
    controls::Checks,
    evaluate::{EvaluateError, Scores},
    progress::{Progress, Task, Training, Unit},
    stages::Project,
    train::{TrainError, TrainSummary, history::Epoch},
};

use self::note::Note;
use crate::{interrupt, output};

/// Name of the model in its run.
pub const MODEL: &str = "model";
/// How long a server may take for what is left at the end of a stage.
const LAST_WAIT: Duration = Duration::from_mins(5);

/// Where runs go, from the environment of this process.
pub fn settings() -> Result<Settings, nephros_mlflow::settings::SettingsError> {
    let home = env::var_os("HOME").map(PathBuf::from);
    Settings::new(|name| env::var(name).ok(), home.as_deref())
}

/// As [`settings`]; those that cannot be used are told, and runs are kept in the embedded store.
fn usable_settings() -> Settings {
    settings().unwrap_or_else(|error| {
        warn("runs are kept in mlflow.db only", &error, error.hint());
        Settings::embedded()
    })
}

/// The server of the settings.
pub fn server(settings: &Settings) -> Option<Server> {
    settings.server.as_ref().map(|address| Server::new(address, Patience::default()))
}

/// Who runs this.
pub fn user() -> String {
    let named = |variable| env::var(variable).ok().filter(|name| !name.is_empty());
    named("USER")
        .or_else(|| named("LOGNAME"))
        .or_else(|| named("USERNAME"))
        .unwrap_or_else(|| "unknown".into())
}

fn warn(what: &str, error: &dyn std::error::Error, hint: Option<String>) {
    let mut told = vec![what.to_owned(), error.to_string()];
    let mut cause = error.source();
    while let Some(inner) = cause {
        told.push(inner.to_string());
        cause = inner.source();
    }
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    tracing::warn!("{}{hint}", told.join(": "));
}

fn open(project: &Project, settings: &Settings) -> Result<Store, StoreError> {
    let opened = Store::open_or_beside(&project.root.join(&settings.store), &project.root.join(ARTIFACTS))?;
    if let Some(error) = &opened.instead {
        let path = opened.store.path().display();
        warn(&format!("runs are kept in `{path}` instead"), error, error.hint());
    }
    Ok(opened.store)
}

/// A run that is being recorded.
struct Recording {
    store: Store,
    run: String,
    feeder: Option<Feeder>,
}

impl Recording {
    fn new(store: Store, run: String, settings: &Settings) -> Result<Self, StoreError> {
        let trouble = |error: &SyncError| {
            warn("the run goes on, but a server does not get it now", error, error.hint());
        };
        let feeder =
            server(settings).map(|server| Feeder::start(&store, server, &run, trouble)).transpose()?;
        Ok(Self { store, run, feeder })
    }

    fn wake(&self) {
        if let Some(feeder) = &self.feeder {
            feeder.wake();
        }
    }

    /// Waits for the server, if there is one.
    fn finish(self) {
        let Some(feeder) = self.feeder else { return };
        match feeder.finish(LAST_WAIT, interrupt::requested) {
            Ok(fed) if fed.busy => tracing::warn!("another process is sending this run to the server"),
            Ok(fed) => {
                if let Some(reason) = fed.reason {
                    tracing::warn!("{} files stay on this machine: {reason}", fed.left_out);
                }
                tracing::info!("run {} is on the server", fed.remote.unwrap_or_default());
            }
            Err(error) => warn("the server does not have all of the run", &error, error.hint()),
        }
    }
}

enum State {
    Waiting,
    Recording(Box<Recording>),
    /// Recording failed, and that was told.
    Off,
}

/// Shows the progress of a training as `shown` does, and records it.
struct Recorder<'a> {
    project: &'a Project,
    settings: Settings,
    shown: &'a dyn Progress,
    state: Mutex<State>,
}

impl Progress for Recorder<'_> {
    fn task(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        self.shown.task(name, total, unit)
    }

    fn is_cancelled(&self) -> bool {
        self.shown.is_cancelled()
    }

    fn training(&self, training: &Training<'_>) {
        self.shown.training(training);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match self.begin(training) {
            Ok(recording) => State::Recording(Box::new(recording)),
            Err(error) => off(&error),
        };
    }

    fn epoch(&self, epoch: &Epoch) {
        self.shown.epoch(epoch);
        self.record(|recording| {
            recording.store.log_new_steps(&recording.run, facts::epoch(epoch))?;
            recording.wake();
            Ok(())
        });
    }
}

fn off(error: &StoreError) -> State {
    warn("this run is not recorded", error, error.hint());
    State::Off
}

impl Recorder<'_> {
    /// The run of this training that was interrupted, or a new one.
    fn begin(&self, training: &Training<'_>) -> Result<Recording, StoreError> {
        let store = open(self.project, &self.settings)?;
        let interrupted = Note::read(self.project).filter(|note| note.training == training.digest);
        let interrupted = interrupted.and_then(|note| store.run_info(&note.run).ok());
        let run = if let Some(run) = interrupted.filter(|run| run.status != RunStatus::Finished) {
            store.set_status(&run.id, RunStatus::Running)?;
            tracing::info!("run {} goes on", run.id);
            run.id
        } else {
            let run = store.create_run(&new_run(self.project, &self.settings, "train"))?;
            tracing::info!("run {run} is kept in `{}`", store.path().display());
            run
        };
        Note { run: run.clone(), training: training.digest.to_owned(), ..Note::default() }
            .write(self.project)?;
        store.log(&run, facts::training(self.project, training))?;
        store.log_inputs(&run, facts::inputs(self.project, training))?;
        let recording = Recording::new(store, run, &self.settings)?;
        recording.wake();
        Ok(recording)
    }

    /// Does something with the run; the first failure is told and ends the recording.
    fn record(&self, what: impl FnOnce(&Recording) -> Result<(), StoreError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = match &*state {
            State::Recording(recording) => what(recording),
            State::Waiting | State::Off => return,
        };
        if let Err(error) = recorded {
            *state = off(&error);
        }
    }

    fn finish(self) {
        if let State::Recording(recording) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner) {
            recording.finish();
        }
    }
}

fn new_run(project: &Project, settings: &Settings, name: &str) -> NewRun {
    let configured = || project.config.mlflow.experiment_name.clone();
    NewRun {
        experiment: settings.experiment.clone().unwrap_or_else(configured),
        name: name.to_owned(),
        user: user(),
        source: "nephros".to_owned(),
        tags: facts::origin(&project.root),
    }
}

/// Trains, and records that.
///
/// # Errors
/// Those of the training.
pub fn train(project: &Project, progress: &dyn Progress) -> Result<TrainSummary, TrainError> {
    let (settings, state) = (usable_settings(), Mutex::new(State::Waiting));
    let recorder = Recorder { project, settings, shown: progress, state };
    let trained = nephros_train::train::train(project, &recorder);
    recorder.record(|recording| match &trained {
        Ok(summary) => end(project, recording, summary),
        Err(error) => {
            let stopped = matches!(error, TrainError::Cancelled(_));
            let status = if stopped { RunStatus::Killed } else { RunStatus::Failed };
            recording.store.set_status(&recording.run, status)
        }
    });
    recorder.finish();
    trained
}

fn end(project: &Project, recording: &Recording, summary: &TrainSummary) -> Result<(), StoreError> {
    let Recording { store, run, .. } = recording;
    store.log(run, facts::trained(summary))?;
    let model = store.begin_model(run, MODEL)?;
    let tags = [Entry::new("nephros.model", &summary.model)];
    let logged = match folder::write(project, &model) {
        Ok(()) => {
            store.finish_model(&model, &tags)?;
            Some(model.id)
        }
        Err(error) => {
            tracing::warn!("the run gets no model: {error:#}");
            None
        }
    };
    let training = Note::read(project).unwrap_or_default().training;
    Note { run: run.clone(), training, model: summary.model.clone(), logged }.write(project)?;
    store.set_status(run, RunStatus::Finished)
}

/// Evaluates, records that in the run that the model came out of, and registers a model that passes the gate.
///
/// # Errors
/// Those of the evaluation.
pub fn evaluate(project: &Project, checks: Checks, progress: &dyn Progress) -> Result<Scores, EvaluateError> {
    let scores = nephros_train::evaluate::evaluate(project, checks, progress)?;
    let settings = usable_settings();
    if let Err(error) = record_scores(project, &settings, &scores) {
        warn("this evaluation is not recorded", &error, error.hint());
    }
    Ok(scores)
}

fn record_scores(project: &Project, settings: &Settings, scores: &Scores) -> Result<(), StoreError> {
    let store = open(project, settings)?;
    let note =
        Note::read(project).filter(|note| !note.model.is_empty() && scores.model.starts_with(&note.model));
    let known = note.as_ref().is_some_and(|note| store.run_info(&note.run).is_ok());
    let (run, logged) = if let Some(note) = note.filter(|_| known) {
        (note.run, note.logged)
    } else {
        // A bundle from elsewhere.
        (store.create_run(&new_run(project, settings, "evaluate"))?, None)
    };
    let recording = Recording::new(store, run, settings)?;
    let store = &recording.store;
    store.log(&recording.run, facts::scores(scores))?;
    log_files(project, store, &recording.run)?;
    if let Some(logged) = logged {
        add_verdict(project, store, &logged)?;
        register_admitted(project, store, &logged, scores)?;
    }
    store.set_status(&recording.run, RunStatus::Finished)?;
    recording.finish();
    Ok(())
}

/// Scores, plots and the report.
fn log_files(project: &Project, store: &Store, run: &str) -> Result<(), StoreError> {
    let folder = project.path(&project.config.artifacts_root).join("evaluation");
    for (file, path) in [
        (project.root.join("scores.json"), "scores.json"),
        (folder.join("gate.json"), "gate.json"),
        (folder.join("plots"), "plots"),
    ] {
        if file.exists() {
            store.log_artifact(run, &file, path)?;
        }
    }
    let report = folder.join("report.html");
    match (report.is_file(), project.config.mlflow.upload_report) {
        (false, _) => Ok(()),
        (true, true) => store.log_artifact(run, &report, "report.html"),
        (true, false) => store.keep_artifact(run, &report, "report.html"),
    }
}

/// What came into the bundle after its model was logged: the verdict of the evaluation, and that it was
/// overlooked.
fn add_verdict(project: &Project, store: &Store, logged: &str) -> Result<(), StoreError> {
    for name in ["evaluation.json", "forced.json"] {
        let file = project.bundle_dir().join(name);
        if file.is_file() {
            store.replace_model_file(logged, &file, &format!("{}/{name}", folder::BUNDLE))?;
        }
    }
    Ok(())
}

fn register_admitted(
    project: &Project,
    store: &Store,
    logged: &str,
    scores: &Scores,
) -> Result<(), StoreError> {
    let name = &project.config.mlflow.registered_model_name;
    if scores.gate.refuses() {
        tracing::warn!(
            "`{name}` gets no new version: the model failed the gate; `nephros models register --force` \
                        registers it all the same"
        );
        return Ok(());
    }
    let version = store.register(name, logged, &facts::version(scores, false), &user(), false)?;
    tracing::info!("registered as version {version} of `{name}`");
    Ok(())
}

/// Registers the model of the last training; with `force` also one that the gate refuses.
///
/// # Errors
/// The model was not recorded, or the gate refuses it.
pub fn register(project: &Project, force: bool) -> anyhow::Result<(String, u32)> {
    let settings = settings()?;
    let store = open(project, &settings)?;
    let recorded = Note::read(project).and_then(|note| note.logged.map(|logged| (note.run, logged)));
    let (run, logged) = recorded.ok_or(crate::errors::CliError::NotRecorded)?;
    let bundle = project.bundle_dir();
    let predictor = Predictor::load(&bundle, None)?;
    let forced = admitted(&bundle, &predictor, force)?;
    add_verdict(project, &store, &logged)?;
    let name = project.config.mlflow.registered_model_name.clone();
    let gate = predictor
        .evaluation()
        .map_or_else(|| "not evaluated".into(), |evaluation| evaluation.gate.to_string());
    let version = store.register(&name, &logged, &facts::gate(&gate, forced), &user(), forced)?;
    Recording::new(store, run, &settings)?.finish();
    Ok((name, version))
}

/// Whether a model had to be forced past the gate.
///
/// # Errors
/// [`BundleError::Refused`] without `force`.
pub fn admitted(bundle: &Path, predictor: &Predictor, force: bool) -> Result<bool, BundleError> {
    Ok(match bundle::admit(bundle, predictor.evaluation(), force)? {
        Admission::Passed => false,
        Admission::Forced => true,
        Admission::NotEvaluated => {
            output::note("warning: this model was never evaluated");
            false
        }
    })
}
