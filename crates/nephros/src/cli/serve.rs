//! Arguments of `serve` and `healthcheck`.

use std::path::PathBuf;

use clap::Args;

use super::ModelArgs;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Model to use
    #[command(flatten)]
    pub model: ModelArgs,
    /// Serve other machines without a token; logged as a warning at every start
    #[arg(long)]
    pub allow_unauthenticated: bool,
    /// Serve /metrics on this port instead, of the same host; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Folder whose images and zip files clients may have predicted as batches
    #[arg(long, value_name = "DIR")]
    pub batch_root: Option<PathBuf>,
    /// Record no predictions; without it each has a receipt in the database of DATABASE_URL or config.yaml
    #[arg(long)]
    pub no_receipts: bool,
    /// Serve a model that failed the gate of its evaluation, now and after POST /train; its bundle
    /// records that
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Port of the server
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}
