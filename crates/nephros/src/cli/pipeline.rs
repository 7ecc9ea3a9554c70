//! Arguments of the pipeline: `init`, `repro`, `dag`, `audit`, `evaluate` and `crossval`.

use std::path::PathBuf;

use clap::Args;
use nephros_train::controls::Checks;

/// Arguments of `repro`.
#[derive(Debug, Args)]
pub struct ReproArgs {
    /// Stage to bring up to date, with all that it needs; by default all
    #[arg(value_name = "STAGE")]
    pub stage: Option<String>,
    /// Run stages though nothing has changed
    #[arg(long)]
    pub force: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry: bool,
}

/// Arguments of `dag`.
#[derive(Debug, Args)]
pub struct DagArgs {
    /// Print a flowchart for Mermaid
    #[arg(long, conflicts_with = "dot")]
    pub mermaid: bool,
    /// Print a graph for Graphviz
    #[arg(long)]
    pub dot: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder of the project
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Folder of images, zip of one, or the manifest.csv of `nephros ingest`
    #[arg(value_name = "DIR|FILE.zip|manifest.csv")]
    pub path: PathBuf,
    /// CSV of groups to write
    #[arg(long, value_name = "FILE", default_value = "artifacts/audit/groups.csv")]
    pub out: PathBuf,
    /// Model bundle (a folder), Keras model (.h5) or registered model whose features are further evidence
    #[arg(long, value_name = "BUNDLE|FILE.h5|models:/…")]
    pub model: Option<PathBuf>,
    /// Print one JSON line
    #[arg(long)]
    pub json: bool,
}

/// What to ask beside the scores.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckArgs {
    /// Score the same recipe on a random split of the same images too, and state the difference
    #[arg(long)]
    pub gap: bool,
    /// Train on shuffled labels, on images whose body is hidden, and on images in which the middle of
    /// the body is hidden: what these score above chance is leakage or a shortcut
    #[arg(long)]
    pub controls: bool,
}

impl From<CheckArgs> for Checks {
    fn from(CheckArgs { gap, controls }: CheckArgs) -> Self {
        Self { gap, controls }
    }
}

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// What to ask beside the scores
    #[command(flatten)]
    pub checks: CheckArgs,
}

/// Arguments of `crossval`.
#[derive(Debug, Args)]
pub struct CrossvalArgs {
    /// Number of folds
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub folds: usize,
    /// What to ask beside the scores
    #[command(flatten)]
    pub checks: CheckArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
