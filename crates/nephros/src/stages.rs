//! `ingest`, `prepare`, `train`, `evaluate` and `run`.

use std::path::{Path, PathBuf};

use nephros_train::{
    config::{Config, Params},
    progress::Progress,
    stages::Project,
};

pub use crate::pending::Scores;
use crate::{cli::Global, demo::TestImage, errors::Status, output, progress::Display};

/// A stage of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Images and manifest.
    Ingest,
    /// Base models.
    Prepare,
    /// Model bundle.
    Train,
    /// Scores.
    Evaluate,
}

impl Stage {
    /// All four, in order.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Prepare, Self::Train, Self::Evaluate];

    /// The command of the stage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Prepare => "prepare",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
        }
    }

    /// Runs the stage and gives a few lines for its user.
    pub fn run(self, project: &Project, progress: &dyn Progress) -> anyhow::Result<String> {
        tracing::info!("stage {} started", self.name());
        let summary = match self {
            Self::Ingest => crate::pending::stage(project, progress)?.to_string(),
            Self::Prepare => crate::pending::stage(project, progress)?.to_string(),
            Self::Train => crate::pending::stage(project, progress)?.to_string(),
            Self::Evaluate => evaluate(project, progress)?.to_string(),
        };
        tracing::info!("stage {} completed", self.name());
        Ok(summary)
    }
}

/// Scores the trained model of a project on its test images.
pub fn evaluate(project: &Project, progress: &dyn Progress) -> anyhow::Result<Scores> {
    Ok(crate::pending::evaluate(project, progress)?)
}

/// The bundle that training leaves.
pub fn bundle(project: &Project) -> PathBuf {
    project.root.join(&project.config.training.root_dir).join("bundle")
}

/// The images that training never saw.
pub fn test_images(_project: &Project) -> anyhow::Result<Vec<TestImage>> {
    Err(crate::pending::Pending.into())
}

/// Loads the project of the current folder.
pub fn load(global: &Global) -> anyhow::Result<Project> {
    load_in(Path::new("."), &global.config, &global.params)
}

/// Loads a project from its two files.
pub fn load_in(root: &Path, config: &Path, params: &Path) -> anyhow::Result<Project> {
    let project =
        Project { root: root.to_owned(), config: Config::load(config)?, params: Params::load(params)? };
    tracing::info!("Configuration loaded successfully");
    Ok(project)
}

/// Runs stages in order; the first failure ends it.
pub fn run(stages: &[Stage], global: &Global) -> anyhow::Result<Status> {
    let project = load(global)?;
    let progress = Display::new(global);
    for stage in stages {
        let summary = stage.run(&project, &progress)?;
        if !global.quiet {
            output::line(summary.trim_end())?;
        }
    }
    Ok(Status::Done)
}
