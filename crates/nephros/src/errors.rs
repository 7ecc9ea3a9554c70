//! What went wrong, why, what to do about it, and the exit status.

use std::{error::Error, io, path::PathBuf, process::ExitCode};

use nephros_core::{
    bundle::BundleError,
    explain::ExplainError,
    export::ExportError,
    hint::Hint,
    pixels::DecodeError,
    predictor::{ModelError, PredictError},
};
use nephros_dvc::DvcError;
use nephros_mlflow::{
    registry::RegistryError, server::ServerError, settings::SettingsError, store::StoreError, sync::SyncError,
};
use nephros_server::ServeError;
use nephros_store::StoreError as ReceiptError;
use nephros_train::{
    audit::AuditError, config::ConfigError, crossval::CrossvalError, evaluate::EvaluateError,
    ingest::IngestError, manifest::ManifestError, phantom::PhantomError, prepare::PrepareError,
    progress::Cancelled, quantize::QuantizeError, split::SplitError, train::TrainError,
};

use crate::{
    cli::LogFormat,
    interrupt, logging,
    output::{self, StdoutClosed},
    registry,
};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is done.
    Done,
    /// The work, or a part of it, failed.
    Failed,
    /// The command line or the configuration cannot be used.
    Usage,
    /// The user stopped it.
    Stopped,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Done => 0,
            Status::Failed => 1,
            Status::Usage => 2,
            Status::Stopped => interrupt::EXIT_STOPPED,
        })
    }
}

/// Errors of the command line itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// No model was named, and none is where models are.
    #[error("found no model: looked for {looked}")]
    NoModel {
        /// The places, quoted.
        looked: String,
    },
    /// The named model is not there.
    #[error("model `{path}` does not exist")]
    ModelMissing {
        /// The path given.
        path: PathBuf,
    },
    /// A project cannot be made there.
    #[error("`{path}` is a file, expected a folder")]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// A folder of images is not there.
    #[error("`{path}` is no folder")]
    NoSuchFolder {
        /// The path given.
        path: PathBuf,
    },
    /// A path to predict names nothing.
    #[error("no such file or folder")]
    NoSuchFile,
    /// A path names something that cannot be read as a file.
    #[error("neither a file nor a folder")]
    NotAFile,
    /// An image file is larger than any image we decode.
    #[error("the file is longer than {limit} bytes")]
    FileTooLarge {
        /// The limit.
        limit: u64,
    },
    /// A folder to predict holds no image.
    #[error("the folder holds no image file")]
    NoImages {
        /// Extensions that were looked for.
        extensions: String,
    },
    /// A class was named that the model does not know.
    #[error("the model has no class `{class}`; it knows {known}")]
    UnknownClass {
        /// As given.
        class: String,
        /// The model's classes.
        known: String,
    },
    /// A model cannot name similar training slices.
    #[error("`{model}` does not know whose its training images are")]
    NoCases {
        /// Its name.
        model: String,
    },
    /// An image has no lesion mask.
    #[error("found no lesion mask `{path}`")]
    NoMask {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A lesion mask is of another image.
    #[error("`{path}`: expected a mask of {expected} pixels as its image has, got {got}")]
    MaskSize {
        /// The mask.
        path: PathBuf,
        /// Size of the image.
        expected: String,
        /// Size of the mask.
        got: String,
    },
    /// A file of images holds less than a batch.
    #[error("`{path}`: expected {expected} floats for the batch, got {got}")]
    TooFewImages {
        /// The file.
        path: PathBuf,
        /// Floats in the batch.
        expected: usize,
        /// Floats in the file.
        got: usize,
    },
    /// The engine has no 16-bit floats.
    #[error("expected `--precision` f32 or int8, got bf16, which this engine does not have")]
    NoBf16,
    /// A registered model would be changed.
    #[error("`{name}` is a registered model, which is not changed")]
    RegisteredModel {
        /// As named.
        name: String,
    },
    /// The model of the last training is in no run.
    #[error("the model of the last training is in no run")]
    NotRecorded,
    /// The database of receipts is not available at the start of a server.
    #[error("cannot open the receipts in `{database}`")]
    NoStore {
        /// Without a password.
        database: String,
        /// Why.
        #[source]
        source: ReceiptError,
    },
    /// Nothing was recorded yet.
    #[error("found no runs: `{path}` does not exist")]
    NoRuns {
        /// The embedded store.
        path: PathBuf,
    },
    /// No server is set.
    #[error("expected the address of an MLflow server in {variable}, got none")]
    NoServer {
        /// The variable.
        variable: &'static str,
    },
    /// A variable of the environment cannot be used.
    #[error("expected {expected} in {name}, got `{got}`")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What can be used.
        expected: String,
        /// As set.
        got: String,
    },
    /// A host name that stands for no address.
    #[error("`{host}` is no address that can be listened on")]
    NoSuchHost {
        /// As given.
        host: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Hint for CliError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoModel { .. } => "make one with `nephros demo` or, in a project, `nephros run`; \
                 or name one with `--model`"
                .into(),
            Self::ModelMissing { .. } => {
                "`--model` takes a bundle folder or a Keras .h5 or .keras file".into()
            }
            Self::NotAFolder { .. } => "name another folder".into(),
            Self::NoSuchFolder { .. } => {
                "name a folder of images; relative paths start from the current folder".into()
            }
            Self::NoSuchFile => "check the path; relative paths start from the current folder".into(),
            Self::NotAFile | Self::FileTooLarge { .. } => "name an image file or a folder of images".into(),
            Self::NoImages { extensions } => {
                format!("files ending in {extensions} are looked for; name others one by one")
            }
            Self::UnknownClass { .. } => "name one of them with `--class`, spelled the same".into(),
            Self::NoCases { .. } => "train again: bundles of this version know, Keras files never do".into(),
            Self::NoMask { .. } | Self::MaskSize { .. } => {
                "`nephros phantom --masks` draws images with their masks; `--masks` takes its `masks` folder"
                    .into()
            }
            Self::TooFewImages { .. } => "an image is 3x224x224 floats; lower `--batch`".into(),
            Self::NoBf16 => {
                "take int8, which is faster than 16-bit floats would be, or f32, which is exact; \
                 docs/adr/0008-winograd.md has the figures"
                    .into()
            }
            Self::RegisteredModel { .. } => "name the bundle to write with `--out`".into(),
            Self::NotRecorded => "`nephros train` records one".into(),
            Self::NoStore { .. } => {
                "start the server again when the database answers, or with `--no-receipts`, which records nothing"
                    .into()
            }
            Self::NoRuns { .. } => "`nephros run` or `nephros train` records one".into(),
            Self::NoServer { variable } => format!("{variable}=http://127.0.0.1:5000 nephros runs sync"),
            Self::Variable { name, .. } => format!("unset {name}, or set it to one of these"),
            Self::NoSuchHost { .. } => "name an address of this machine, such as 127.0.0.1 or 0.0.0.0".into(),
        })
    }
}

/// Advice of the outermost error of the chain that has any.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(hint_of)
}

fn hint_of(error: &(dyn Error + 'static)) -> Option<String> {
    /// `Hint` is no supertrait of `Error`: each type that has advice is asked by name.
    macro_rules! first_hint {
        ($($kind:ty),* $(,)?) => {
            $(if let Some(error) = error.downcast_ref::<$kind>() { return error.hint(); })*
        };
    }
    first_hint!(
        BundleError,
        CliError,
        AuditError,
        ConfigError,
        CrossvalError,
        DecodeError,
        DvcError,
        EvaluateError,
        ExplainError,
        ExportError,
        IngestError,
        ManifestError,
        ModelError,
        PhantomError,
        PredictError,
        PrepareError,
        QuantizeError,
        ReceiptError,
        RegistryError,
        ServeError,
        ServerError,
        SettingsError,
        SplitError,
        StoreError,
        SyncError,
        TrainError,
    );
    None
}

/// Causes from the outermost on; a cause whose text its parent already quotes is left out.
pub fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !texts.last().is_some_and(|parent| parent.contains(&text)) {
            texts.push(text);
        }
    }
    texts
}

/// `error: …`, a `caused by: …` line for each cause, and `hint: …`.
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", causes(error).join("\n  caused by: "));
    if let Some(hint) = hint(error) {
        text += "\nhint: ";
        text += &hint;
    }
    text
}

/// Tells the user and the log about a failed command, once each, and gives its status.
pub fn report(error: &anyhow::Error, format: LogFormat) -> Status {
    if error.is::<StdoutClosed>() {
        return Status::Done;
    }
    if was_stopped(error) {
        tracing::warn!("stopped on request");
        return Status::Stopped;
    }
    if format == LogFormat::Text {
        output::note(&render(error));
    }
    let chain = causes(error).join(": ");
    if let Some(hint) = hint(error) {
        tracing::error!(target: logging::FAILURE, hint, "{chain}");
    } else {
        tracing::error!(target: logging::FAILURE, "{chain}");
    }
    status(error)
}

fn was_stopped(error: &anyhow::Error) -> bool {
    // A stage's error may pass `Cancelled` through transparently, which leaves its text only.
    interrupt::requested()
        && error.chain().any(|cause| cause.is::<Cancelled>() || cause.to_string() == Cancelled.to_string())
}

fn status(error: &anyhow::Error) -> Status {
    if error.chain().any(is_usage) { Status::Usage } else { Status::Failed }
}

/// Whether other arguments or another configuration are needed.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    use PhantomError::{Classes, Nothing, Size, TooFewPatients};
    let serve =
        |error: &ServeError| matches!(error, ServeError::Unprotected { .. } | ServeError::UnusableToken);
    let phantom = |error: &PhantomError| {
        matches!(error, Classes { .. } | Nothing { .. } | Size { .. } | TooFewPatients { .. })
    };
    let quantize = |error: &QuantizeError| {
        matches!(error, QuantizeError::Tolerance { .. } | QuantizeError::NotABundle { .. })
    };
    let gap = |error: &EvaluateError| matches!(error, EvaluateError::NoGap(_));
    let folds = |error: &CrossvalError| matches!(error, CrossvalError::NoGap(_));
    let argument = |error: &CliError| {
        use CliError::{NoBf16, NoServer, RegisteredModel, UnknownClass, Variable};
        matches!(
            error,
            UnknownClass { .. } | NoBf16 | RegisteredModel { .. } | NoServer { .. } | Variable { .. }
        )
    };
    let pipeline = |error: &DvcError| {
        use DvcError::{Config, Graph, Lock, NoDependency, NoParameter, Params, Pipeline};
        matches!(
            error,
            Config(_)
                | Graph(_)
                | Lock(_)
                | NoDependency { .. }
                | NoParameter { .. }
                | Params(_)
                | Pipeline(_)
        )
    };
    let receipts = |error: &ReceiptError| {
        use ReceiptError::{Address, Key, NoMasterKey, OtherMasterKey};
        matches!(error, Address { .. } | Key(_) | NoMasterKey | OtherMasterKey { .. })
    };
    error.is::<ConfigError>()
        || error.downcast_ref().is_some_and(receipts)
        || error.is::<SettingsError>()
        || error.downcast_ref().is_some_and(registry::is_usage)
        || error.downcast_ref().is_some_and(pipeline)
        || error.downcast_ref().is_some_and(quantize)
        || error.downcast_ref().is_some_and(gap)
        || error.downcast_ref().is_some_and(folds)
        || error.downcast_ref().is_some_and(argument)
        || error.downcast_ref().is_some_and(serve)
        || error.downcast_ref().is_some_and(phantom)
}
