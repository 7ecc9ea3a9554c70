//! Arguments of `runs` and `models`.

use clap::{Args, Subcommand};

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// What to do
    #[command(subcommand)]
    pub action: RunsAction,
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub enum RunsAction {
    /// All runs, the latest first
    List {
        /// Runs of this experiment only
        #[arg(long, value_name = "NAME")]
        experiment: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// All that was recorded of a run
    Show {
        /// Id of the run, or the start of it
        run: String,
        /// Print one JSON line, with every value of every metric
        #[arg(long)]
        json: bool,
    },
    /// The parameters and metrics that differ
    Compare {
        /// Ids of the runs, or their starts
        #[arg(required = true, num_args = 2..)]
        runs: Vec<String>,
        /// Print one JSON line
        #[arg(long)]
        json: bool,
    },
    /// Send what the server in MLFLOW_TRACKING_URI does not have
    Sync {
        /// Ids of the runs, or their starts; by default all
        runs: Vec<String>,
        /// Send them as new runs, for those that were deleted on the server
        #[arg(long, requires = "runs")]
        anew: bool,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Registered model; by default registered_model_name of config/config.yaml, and all for `list`
    #[arg(long, global = true, value_name = "NAME")]
    pub name: Option<String>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub action: ModelsAction,
}

/// What can be done with registered models.
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// All versions
    List,
    /// Register the model of the last training
    Register {
        /// Register a model that failed the gate; version and bundle record that
        #[arg(long)]
        force: bool,
    },
    /// Give a version an alias: champion, if the gate of its evaluation lets it
    Promote {
        /// Number of the version
        version: u32,
        /// The alias
        #[arg(long, value_name = "ALIAS", default_value = "champion")]
        alias: String,
        /// Promote a model that failed the gate; version and bundle record that
        #[arg(long)]
        force: bool,
    },
    /// Take an alias from the version that has it
    Demote {
        /// The alias
        #[arg(long, value_name = "ALIAS", default_value = "champion")]
        alias: String,
    },
    /// What became of the versions, the latest last
    History,
}
