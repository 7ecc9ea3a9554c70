//! Why a server did not do what it was asked.

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No connection, or none that lasted, after all attempts.
    #[error("`{url}` cannot be reached after {attempts} attempts")]
    Unreachable {
        /// Address of the server.
        url: String,
        /// Attempts made.
        attempts: u32,
        /// What the last one failed by.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server failed, again and again.
    #[error("`{url}` answered {status} to {attempts} attempts: {text}")]
    Failing {
        /// Address of the server.
        url: String,
        /// The status.
        status: u16,
        /// Attempts made.
        attempts: u32,
        /// Start of what it said.
        text: String,
    },
    /// The credentials are missing or wrong.
    #[error("`{url}` answered 401: {text}")]
    Unauthorized {
        /// Address of the server.
        url: String,
        /// Start of what it said.
        text: String,
    },
    /// The server does not let us.
    #[error("`{url}` answered 403: {text}")]
    Forbidden {
        /// Address of the server.
        url: String,
        /// Start of what it said.
        text: String,
    },
    /// A page for people where JSON was due.
    #[error("`{url}` answered {status} with a text that is no JSON: `{text}`")]
    NotJson {
        /// Address of the request.
        url: String,
        /// The status.
        status: u16,
        /// Start of what it said.
        text: String,
    },
    /// JSON without what it should hold.
    #[error("`{url}` answered without `{key}`")]
    Incomplete {
        /// Address of the request.
        url: String,
        /// What is missing.
        key: String,
    },
    /// There is no such part of MLflow's interface.
    #[error("`{url}` does not exist on this server")]
    NoEndpoint {
        /// Address of the request.
        url: String,
    },
    /// MLflow refused, and said why.
    #[error("`{url}` refused: {code}: {message}")]
    Refused {
        /// Address of the request.
        url: String,
        /// MLflow's code.
        code: String,
        /// MLflow's sentence.
        message: String,
    },
    /// The experiment was deleted.
    #[error("experiment `{name}` on `{url}` is deleted")]
    ExperimentDeleted {
        /// Its name.
        name: String,
        /// Address of the server.
        url: String,
    },
    /// The copy of a run was deleted.
    #[error("run `{run}` on `{url}` is deleted")]
    RunDeleted {
        /// Id of the run there.
        run: String,
        /// Address of the server.
        url: String,
    },
    /// Files are not served.
    #[error("`{url}` takes no files: artifacts are in `{location}`")]
    NoArtifacts {
        /// Address of the server.
        url: String,
        /// Where its artifacts are.
        location: String,
    },
    /// A downloaded file cannot be written, or one to upload not read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl ServerError {
    /// What to do about it, in a sentence.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => {
                "check MLFLOW_TRACKING_URI and that the server is up; everything is kept in mlflow.db, and `nephros \
                 runs sync` sends it later"
                    .into()
            }
            Self::Failing { .. } => {
                "look into the server's log; everything is kept in mlflow.db, and `nephros runs sync` sends it later"
                    .into()
            }
            Self::Unauthorized { .. } => "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
                MLFLOW_TRACKING_TOKEN; on DagsHub the password is an access token"
                .into(),
            Self::Forbidden { text, .. } if text.contains("Host") => {
                "start the server with `--allowed-hosts` naming the host of MLFLOW_TRACKING_URI".into()
            }
            Self::Forbidden { .. } => "this user may not do that: ask for the permission, or log in as another".into(),
            Self::NotJson { .. } => "MLFLOW_TRACKING_URI has to be the address of MLflow itself; a login page or a \
                proxy answers there"
                .into(),
            Self::NoEndpoint { .. } | Self::Incomplete { .. } => {
                "is MLFLOW_TRACKING_URI the address of MLflow 2 or 3, with its path?".into()
            }
            Self::ExperimentDeleted { name, .. } => format!(
                "restore it on the server, or set MLFLOW_EXPERIMENT_NAME to another than `{name}`"
            ),
            Self::RunDeleted { .. } => {
                "restore it on the server, or send it as a new one with `nephros runs sync --anew RUN`".into()
            }
            Self::NoArtifacts { .. } => "start the server with `--serve-artifacts`, its default; the files are below \
                mlruns on this machine"
                .into(),
            Self::Refused { .. } | Self::Io(_) => return None,
        })
    }

    /// Whether MLflow refused with this code.
    pub(crate) fn is_refusal(&self, expected: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == expected)
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failing { .. })
    }
}
