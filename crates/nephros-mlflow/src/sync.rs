//! A server is fed from the embedded store: every event of a run, in order, each once.
//!
//! How far a server is stands in the store and moves on after each event that the server took. What was
//! sent and not noted any more, because the machine went down in between, is sent again: every event leaves
//! the same there however often it comes.

use std::{
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    event::Event,
    models,
    run::{Batch, Entry, NewRun, RunRecord},
    server::{RemoteModel, RemoteRun, Server, ServerError},
    store::{Copy, Store, StoreError, artifact_path},
};

/// What a feeding did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fed {
    /// Id of the run on the server.
    pub remote: Option<String>,
    /// Events that the server took.
    pub sent: usize,
    /// Events that it cannot take, such as files where it serves no artifacts.
    pub left_out: usize,
    /// Why, the first time.
    pub reason: Option<String>,
    /// Whether another process is feeding the run.
    pub busy: bool,
}

/// Why a server does not have all of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A file of the run is gone.
    #[error("`{path}` of run `{run}` is gone")]
    Gone {
        /// The file.
        path: PathBuf,
        /// The run.
        run: String,
    },
    /// The server took longer than its client waits at the end of a command.
    #[error("the server has not taken everything within {seconds} s")]
    Late {
        /// The wait.
        seconds: u64,
    },
}

impl SyncError {
    /// What to do about it, in a sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Server(error) => error.hint(),
            Self::Gone { .. } => None,
            Self::Late { .. } => Some("`nephros runs sync` sends the rest".into()),
        }
    }
}

/// Sends a server what it does not have of a run.
///
/// # Errors
/// See [`SyncError`]; what was sent before stays sent, and the next feeding goes on after it.
pub fn feed(store: &Store, server: &Server, run: &str) -> Result<Fed, SyncError> {
    let Some(_lock) = store.lock_run(run)? else { return Ok(Fed { busy: true, ..Fed::default() }) };
    let copy = store.copy(run, server.url())?;
    let events = store.events_after(run, copy.cursor)?;
    if events.is_empty() {
        return Ok(Fed { remote: copy.remote, ..Fed::default() });
    }
    let record = store.run(run)?;
    let remote = match &copy.remote {
        Some(id) => server.run(id)?,
        None => server.copy_of_run(run, &as_new(&record), record.info.start_ms)?,
    };
    let mut feeding = Feeding { store, server, record, remote, copy, fed: Fed::default() };
    feeding.copy.remote = Some(feeding.remote.id.clone());
    store.set_copy(run, server.url(), &feeding.copy)?;
    for (number, event) in events {
        feeding.send(number, &event)?;
    }
    feeding.fed.remote = feeding.copy.remote;
    Ok(feeding.fed)
}

/// The run as it was begun; its tags are among its events.
fn as_new(record: &RunRecord) -> NewRun {
    let info = &record.info;
    let source = record.tag("mlflow.source.name").unwrap_or_default().to_owned();
    NewRun {
        experiment: info.experiment.clone(),
        name: info.name.clone(),
        user: info.user.clone(),
        source,
        tags: Vec::new(),
    }
}

struct Feeding<'a> {
    store: &'a Store,
    server: &'a Server,
    record: RunRecord,
    remote: RemoteRun,
    copy: Copy,
    fed: Fed,
}

impl Feeding<'_> {
    fn send(&mut self, number: i64, event: &Event) -> Result<(), SyncError> {
        match self.tell(event) {
            Ok(()) => self.fed.sent += 1,
            // Nothing of the run but these files is lost to the server.
            Err(error @ (SyncError::Server(ServerError::NoArtifacts { .. }) | SyncError::Gone { .. })) => {
                self.fed.left_out += 1;
                self.copy.left_out += 1;
                self.fed.reason.get_or_insert_with(|| error.to_string());
            }
            Err(error) => return Err(error),
        }
        self.copy.cursor = number;
        Ok(self.store.set_copy(&self.record.info.id, self.server.url(), &self.copy)?)
    }

    fn tell(&self, event: &Event) -> Result<(), SyncError> {
        let (server, run) = (self.server, self.remote.id.as_str());
        match event {
            Event::Batch(batch) => server.log_batch(run, batch)?,
            Event::Inputs { datasets } => server.log_inputs(run, datasets)?,
            Event::Status { status, end_ms } => server.set_status(run, *status, *end_ms)?,
            Event::Artifact { path } => {
                let file = self.store.run_folder(&self.record.info.id)?.join(artifact_path(path)?);
                self.upload(&self.remote.artifact_uri, path, file)?;
            }
            Event::Model { model } => self.send_model(model)?,
            Event::ModelFile { model, path } => {
                let file = self.model_folder(model)?.join(artifact_path(path)?);
                self.upload(&self.model_location(model)?, path, file)?;
            }
            Event::Version { name, model, version } => self.send_version(name, model, *version)?,
        }
        Ok(())
    }

    fn upload(&self, location: &str, path: &str, file: PathBuf) -> Result<(), SyncError> {
        if !file.is_file() {
            return Err(SyncError::Gone { path: file, run: self.record.info.id.clone() });
        }
        Ok(self.server.upload(location, path, &file)?)
    }

    fn send_model(&self, model: &str) -> Result<(), SyncError> {
        let folder = self.model_folder(model)?;
        let tags = self.store.model_tags(model)?;
        let name = self.model_name(model)?;
        let copy = self.server.copy_of_model(model, &self.remote, &name, &self.record.params, &tags)?;
        if let Some(copy) = &copy {
            self.store.set_remote_model(model, self.server.url(), &copy.id)?;
        }
        let location = self.model_location(model)?;
        for path in crate::store::files_below(&folder).map_err(StoreError::from)? {
            self.upload(&location, &path, folder.join(artifact_path(&path)?))?;
        }
        match &copy {
            Some(copy) => self.server.finish_model(&self.remote.id, &copy.id)?,
            None => self.note_models()?,
        }
        Ok(())
    }

    /// Tells MLflow 2 that folders of the run are models, as its own client does: its pages show no others.
    fn note_models(&self) -> Result<(), SyncError> {
        let mut models: Vec<(String, PathBuf)> = Vec::new();
        for (name, folder) in self.store.models_of(&self.record.info.id)? {
            // One of the same name took its place.
            models.retain(|(before, _)| *before != name);
            models.push((name, folder));
        }
        let described = models.iter().filter_map(|(name, folder)| {
            let mlmodel = fs_err::read_to_string(folder.join("MLmodel")).ok()?;
            Some(models::described(&mlmodel, &self.remote.id, name))
        });
        let value = Value::Array(described.collect()).to_string();
        let tags = vec![Entry::new(models::HISTORY_TAG, &value)];
        Ok(self.server.log_batch(&self.remote.id, &Batch { tags, ..Batch::default() })?)
    }

    fn send_version(&self, name: &str, model: &str, version: u32) -> Result<(), SyncError> {
        let versions = self.store.version_tags(name, version)?;
        let copy = self.remote_model(model)?;
        let folder = self.model_name(model)?;
        self.server.register(name, model, &self.remote, copy.as_ref(), &folder, &versions)?;
        Ok(())
    }

    /// The copy of a model; `None` on MLflow 2, where a model is a folder of its run.
    fn remote_model(&self, model: &str) -> Result<Option<RemoteModel>, SyncError> {
        let id = self.store.remote_model(model, self.server.url())?;
        Ok(id.map(|id| self.server.model(&id)).transpose()?)
    }

    fn model_location(&self, model: &str) -> Result<String, SyncError> {
        Ok(match self.remote_model(model)? {
            Some(copy) => copy.artifact_uri,
            None => format!("{}/{}", self.remote.artifact_uri, self.model_name(model)?),
        })
    }

    fn model_folder(&self, model: &str) -> Result<PathBuf, SyncError> {
        let logged = self.store.logged_model(model)?;
        let run = self.record.info.id.clone();
        Ok(logged.ok_or_else(|| SyncError::Gone { path: model.into(), run })?.folder)
    }

    fn model_name(&self, model: &str) -> Result<String, SyncError> {
        Ok(self.store.logged_model(model)?.map_or_else(|| "model".to_owned(), |model| model.name))
    }
}

/// Feeds one run while work goes on, in a thread of its own: a slow server does not slow the work, and a
/// dead one does not end it.
#[derive(Debug)]
pub struct Feeder {
    wake: SyncSender<Wake>,
    done: mpsc::Receiver<Result<Fed, SyncError>>,
}

enum Wake {
    More,
    End,
}

/// How long a failing server is left alone.
const PAUSE: Duration = Duration::from_secs(30);

impl Feeder {
    /// Starts feeding; `trouble` is told the first failure, in the thread.
    ///
    /// # Errors
    /// The store cannot be opened a second time.
    pub fn start(
        store: &Store,
        server: Server,
        run: &str,
        trouble: impl FnOnce(&SyncError) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let own = Store::open(store.path(), store.artifacts())?;
        let run = run.to_owned();
        // One wake that waits is enough: a feeding sends all there is.
        let (wake, wakes) = mpsc::sync_channel(1);
        let (report, done) = mpsc::channel();
        thread::spawn(move || {
            let mut trouble = Some(trouble);
            let mut total = Fed::default();
            let mut rest_until = None;
            loop {
                let last = !matches!(wakes.recv(), Ok(Wake::More));
                if !last && rest_until.is_some_and(|until| Instant::now() < until) {
                    continue;
                }
                match feed_alone(&own, &server, &run, last) {
                    Ok(fed) => {
                        total.remote = fed.remote.or(total.remote);
                        total.sent += fed.sent;
                        total.left_out += fed.left_out;
                        total.reason = total.reason.or(fed.reason);
                        total.busy = fed.busy;
                    }
                    Err(error) if last => {
                        // Nobody waits any more if it took too long.
                        let _ = report.send(Err(error));
                        return;
                    }
                    Err(error) => {
                        rest_until = Some(Instant::now() + PAUSE);
                        if let Some(trouble) = trouble.take() {
                            trouble(&error);
                        }
                    }
                }
                if last {
                    let _ = report.send(Ok(total));
                    return;
                }
            }
        });
        Ok(Self { wake, done })
    }

    /// Says that there is more to send.
    pub fn wake(&self) {
        // Full means that the thread will look anyway.
        let _ = self.wake.try_send(Wake::More);
    }

    /// Sends what is left, and waits for it at most as long as `patience`, and no longer than `stopped` says
    /// no.
    ///
    /// # Errors
    /// See [`SyncError`]; the rest is sent by the next feeding.
    pub fn finish(self, patience: Duration, stopped: impl Fn() -> bool) -> Result<Fed, SyncError> {
        let begun = Instant::now();
        let mut end = Some(Wake::End);
        loop {
            // Full while the thread is busy; a thread that ended has reported already.
            end = match end.map(|wake| self.wake.try_send(wake)) {
                Some(Err(TrySendError::Full(wake))) => Some(wake),
                _ => None,
            };
            match self.done.recv_timeout(Duration::from_millis(50)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if begun.elapsed() < patience && !stopped() => {}
                Err(_) => return Err(SyncError::Late { seconds: begun.elapsed().as_secs() }),
            }
        }
    }
}

/// Feeds; at the end, waits a while for another process that is feeding the same run.
fn feed_alone(store: &Store, server: &Server, run: &str, last: bool) -> Result<Fed, SyncError> {
    let begun = Instant::now();
    loop {
        let fed = feed(store, server, run)?;
        if !(fed.busy && last && begun.elapsed() < PAUSE) {
            return Ok(fed);
        }
        thread::sleep(Duration::from_millis(200));
    }
}
