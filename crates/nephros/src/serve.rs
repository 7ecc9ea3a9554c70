//! `serve`: the web page and the REST service.

mod served;
mod shelf;
mod traces;
mod watched;

use std::{
    env::{self, VarError},
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use nephros_core::{bundle::BundleError, explain::Explainer, network::Precision};
use nephros_server::{
    Classifier, Ledger, ServeError, ServeOptions, Server, Service, TrainFailure, Trained, Trainer,
};
use nephros_store::{Store, StoreConfig};
use nephros_train::stages::Project;

pub use self::{served::Served, watched::Watched};

use self::{shelf::Shelf, traces::Traces};
use crate::{
    cli::{Global, LogFormat, ServeArgs},
    errors::{self, CliError, Status},
    interrupt, model, output,
    progress::Display,
    receipts::{self, Kept},
    stages::{self, Stage},
};

/// How long the store is waited for at the end.
const CLOSING: Duration = Duration::from_secs(5);

/// Runs the command until it is stopped.
pub fn run(args: &ServeArgs, global: &Global) -> anyhow::Result<Status> {
    let in_project = global.config.is_file();
    let receipts =
        (!args.no_receipts).then(|| receipts::settings(None, &receipts::section(global)?)).transpose()?;
    let options = ServeOptions {
        address: resolve(&args.host, args.port)?,
        token: token()?,
        allow_unauthenticated: args.allow_unauthenticated,
        metrics_port: args.metrics_port,
        service: Service {
            model: load(args, global, in_project)?,
            trainer: in_project.then(|| trainer(global, args)),
            models: in_project.then(|| Shelf::shared(global)),
            batch_root: args.batch_root.clone(),
            ..Service::default()
        },
        ..ServeOptions::default()
    };
    serve(options, receipts, global)
}

/// Listens, says where, and serves until Ctrl-C or SIGTERM, which end it in good order. Predictions are
/// recorded where `receipts` says.
pub fn serve(
    mut options: ServeOptions,
    receipts: Option<StoreConfig>,
    global: &Global,
) -> anyhow::Result<Status> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the server's threads")?;
    let traces = Traces::start()?;
    options.service.tracing = traces.as_ref().map(Traces::tracing);
    let served: anyhow::Result<()> = runtime.block_on(async {
        let images = receipts.as_ref().is_some_and(|receipts| receipts.keep_images);
        let store = match receipts {
            Some(receipts) => Some(open(receipts).await?),
            None => None,
        };
        options.service.ledger =
            store.clone().map(|store| Arc::new(Kept::new(store, images)) as Arc<dyn Ledger>);
        let server = Server::bind(options).await?;
        let listening = format!("listening on http://{}", server.address());
        match global.log_format {
            LogFormat::Text => output::note(&listening),
            LogFormat::Json => tracing::info!("{listening}"),
        }
        if let Some(address) = server.metrics_address() {
            output::note(&format!("metrics on http://{address}/metrics"));
        }
        server.run(interrupt::wait()).await?;
        if let Some(store) = store {
            // What was answered is recorded; a training that still runs may hold the store longer.
            let _ = tokio::time::timeout(CLOSING, store.close()).await;
        }
        Ok(())
    });
    if let Some(traces) = traces {
        traces.close();
    }
    // A training that still runs has been asked to stop; it ends with the process.
    runtime.shutdown_background();
    served?;
    Ok(Status::Done)
}

async fn open(receipts: StoreConfig) -> anyhow::Result<Store> {
    let database = receipts.database.to_string();
    Store::open(receipts).await.map_err(|source| {
        if source.is_unavailable() { CliError::NoStore { database, source }.into() } else { source.into() }
    })
}

/// What callers must send, if NEPHROS_TOKEN is set; an unreadable token must not mean none.
pub fn token() -> anyhow::Result<Option<String>> {
    match env::var("NEPHROS_TOKEN") {
        Ok(token) => Ok(Some(token)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(ServeError::UnusableToken.into()),
    }
}

/// First address that `host` stands for.
pub fn resolve(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let no_such_host = |source| CliError::NoSuchHost { host: host.to_owned(), source };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (bare, port).to_socket_addrs().map_err(no_such_host)?;
    Ok(addresses.next().ok_or_else(|| no_such_host(io::ErrorKind::NotFound.into()))?)
}

/// In a project a server may start without a model: a training brings one.
fn load(args: &ServeArgs, global: &Global, in_project: bool) -> anyhow::Result<Option<Arc<dyn Classifier>>> {
    match model::load_current(&args.model, global, args.force) {
        Ok((explainer, path)) => Ok(Some(Arc::new(Served::new(explainer, &path)?))),
        Err(error) if in_project && matches!(error.downcast_ref(), Some(CliError::NoModel { .. })) => {
            tracing::warn!("no model yet: `nephros run` or POST /train makes one");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Runs the pipeline of the project and loads the model it made.
fn trainer(global: &Global, args: &ServeArgs) -> Trainer {
    let (global, force) = (global.clone(), args.force);
    let precision = args.model.precision.map(Into::into);
    Arc::new(move |run| {
        let project =
            stages::load(&global).map_err(|error| failure("the configuration cannot be used", error))?;
        retrain(&project, force, precision, &Watched::new(Display::new(&global), run))
    })
}

/// All four stages, and the model that they leave; it is served if the gate or `force` lets it.
///
/// A training writes f32 weights only. Where the server was asked for another `precision`, the new
/// model is served all the same, and says so.
pub fn retrain(
    project: &Project,
    force: bool,
    precision: Option<Precision>,
    progress: &Watched<'_>,
) -> Result<Trained, TrainFailure> {
    for stage in Stage::ALL {
        progress.stage(stage.name());
        let summary = stage
            .run(project, progress)
            .map_err(|error| failure(&format!("the stage `{}` failed", stage.name()), error))?;
        progress.log(&summary);
    }
    let bundle = project.bundle_dir();
    let explainer = Explainer::load(&bundle, None, None)
        .map_err(|error| failure("the new model cannot be loaded", error.into()))?;
    match model::admit(&bundle, explainer.predictor(), force) {
        Ok(()) => {
            let model = Served::new(explainer, &bundle)
                .map_err(|error| failure("the new model cannot be read again", error))?;
            let notice = (precision == Some(Precision::Int8)).then(|| IN_FLOATS.to_owned());
            Ok(Trained::Serve { model: Arc::new(model), notice })
        }
        Err(BundleError::Refused { gate, .. }) => {
            let model = explainer.predictor().id().to_owned();
            Ok(Trained::Refused { reason: format!("{model} failed the gate: {gate}"), model })
        }
        Err(error) => Err(failure("the new model cannot be marked as forced", error.into())),
    }
}

const IN_FLOATS: &str = "8 bits were asked for, but the model just trained has none and is served in f32: run \
    `nephros quantize` and start the server again";

/// What a remote client may read of a failure: no paths, no values.
fn failure(message: &str, error: anyhow::Error) -> TrainFailure {
    let hint = errors::hint(&error).map(|_| "the server's log says what failed and what to do".to_owned());
    TrainFailure { message: message.to_owned(), hint, source: Some(error.into()) }
}
