//! Listening, and stopping without losing what was taken.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use nephros_core::hint::Hint;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    access::Access,
    app, app_without_metrics, metrics_app,
    state::{AppState, Service},
};

/// How to serve.
#[derive(Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What callers send as `Authorization: Bearer` (`NEPHROS_TOKEN`).
    pub token: Option<String>,
    /// Serve on any address without a token; warned about at every start.
    pub allow_unauthenticated: bool,
    /// Where `/metrics` is served instead, on the same address; port 0 lets the system choose.
    pub metrics_port: Option<u16>,
    /// How long running requests may take after the signal to stop.
    pub drain: Duration,
    /// What is served.
    pub service: Service,
}

impl Default for ServeOptions {
    /// 127.0.0.1:8080, no token, no model.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            token: None,
            allow_unauthenticated: false,
            metrics_port: None,
            drain: Duration::from_secs(30),
            service: Service::default(),
        }
    }
}

// Not derived: a derived text would hold the token.
impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeOptions")
            .field("address", &self.address)
            .field("token", &self.token.is_some())
            .field("allow_unauthenticated", &self.allow_unauthenticated)
            .field("metrics_port", &self.metrics_port)
            .field("drain", &self.drain)
            .field("service", &self.service)
            .finish()
    }
}

/// Why a server does not start or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address that others reach, and no token.
    #[error("will not serve on `{address}` without a token: others than this machine can reach it")]
    Unprotected {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A token that no client can send.
    #[error("the token is empty or holds characters other than visible ASCII")]
    UnusableToken,
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The listener broke.
    #[error("the server stopped")]
    Stopped(#[source] io::Error),
}

impl Hint for ServeError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unprotected { .. } => {
                "set NEPHROS_TOKEN to a long random text, or pass `--allow-unauthenticated` where something else \
                 keeps strangers out"
            }
            Self::UnusableToken => "make one with `openssl rand -hex 32`, or unset NEPHROS_TOKEN",
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another program listens there; choose a free port with `--port`"
            }
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges; choose another with `--port`"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl ServeOptions {
    /// Whether these options may be served, and to whom.
    ///
    /// # Errors
    /// [`ServeError::Unprotected`] and [`ServeError::UnusableToken`].
    pub fn check(&self) -> Result<Access, ServeError> {
        let loopback = self.address.ip().to_canonical().is_loopback();
        match &self.token {
            Some(token) if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(ServeError::UnusableToken)
            }
            Some(token) => Ok(Access::token(token)),
            None if loopback => Ok(Access::loopback()),
            None if self.allow_unauthenticated => Ok(Access::open()),
            None => Err(ServeError::Unprotected { address: self.address }),
        }
    }
}

/// A server that listens already: its address is known before it runs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<(TcpListener, SocketAddr)>,
    drain: Duration,
    state: AppState,
}

impl Server {
    /// Checks the options and starts to listen.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(options: ServeOptions) -> Result<Self, ServeError> {
        let access = options.check()?;
        let (listener, address) = listen(options.address).await?;
        let metrics = match options.metrics_port {
            Some(port) => Some(listen(SocketAddr::new(options.address.ip(), port)).await?),
            None => None,
        };
        if options.allow_unauthenticated && options.token.is_none() {
            tracing::warn!(
                "--allow-unauthenticated: whoever reaches {address} can predict and start trainings without a token"
            );
        }
        let state = AppState::new(options.service, access);
        Ok(Self { listener, address, metrics, drain: options.drain, state })
    }

    /// The address listened on, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that `/metrics` is served on, where it has one of its own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// What the handlers share.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Serves until `shutdown` is ready, then finishes the requests it took, for the time of
    /// [`ServeOptions::drain`] at most. Threads that still train or predict after that end with the process.
    ///
    /// # Errors
    /// [`ServeError::Stopped`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        tracing::info!("serving on http://{}", self.address);
        let (sender, mut stopping) = watch::channel(());
        let state = self.state.clone();
        let signal = async move {
            shutdown.await;
            tracing::info!("stopping: finishing the running requests");
            state.stop();
            drop(sender);
        };
        let warming = self.state.clone();
        tokio::task::spawn_blocking(move || match warming.warm_up() {
            Ok(()) => tracing::info!("ready"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the model fails: not ready");
            }
        });
        let routes = match self.metrics {
            Some((listener, address)) => {
                tracing::info!("metrics on http://{address}/metrics");
                let metrics = metrics_app(self.state.clone());
                let mut stopping = stopping.clone();
                let served = axum::serve(listener, metrics).with_graceful_shutdown(async move {
                    // An error means that the sender is gone, which is the signal.
                    let _ = stopping.changed().await;
                });
                tokio::spawn(async move { served.await });
                app_without_metrics(self.state)
            }
            None => app(self.state),
        };
        let server = axum::serve(self.listener, routes).with_graceful_shutdown(signal);
        let deadline = async {
            // An error means that the sender is gone, which is the signal.
            let _ = stopping.changed().await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            result = server => result.map_err(ServeError::Stopped),
            () = deadline => {
                tracing::warn!("stopped with requests unfinished after {} s", self.drain.as_secs());
                Ok(())
            }
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// [`Server::bind`] and [`Server::run`].
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    Server::bind(options).await?.run(shutdown).await
}
