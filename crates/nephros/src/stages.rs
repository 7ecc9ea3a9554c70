//! `ingest`, `prepare`, `train` and `evaluate`, and all of them in one process.

use std::path::Path;

use nephros_train::{
    controls::Checks,
    crossval::crossval,
    ingest::{IngestSummary, ingest},
    prepare::prepare,
    progress::Progress,
    stages::Project,
};

use crate::{
    cli::{CrossvalArgs, Global},
    errors::Status,
    output,
    progress::Display,
    tracking,
};

/// A stage of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Images and manifest.
    Ingest,
    /// Base models.
    Prepare,
    /// Model bundle.
    Train,
    /// Scores, and what is asked beside them.
    Evaluate(Checks),
}

impl Stage {
    /// All four, in order.
    pub const ALL: [Self; 4] =
        [Self::Ingest, Self::Prepare, Self::Train, Self::Evaluate(Checks { gap: false, controls: false })];

    /// The command of the stage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Prepare => "prepare",
            Self::Train => "train",
            Self::Evaluate(_) => "evaluate",
        }
    }

    /// Runs the stage and gives a few lines for its user.
    pub fn run(self, project: &Project, progress: &dyn Progress) -> anyhow::Result<String> {
        tracing::info!("stage {} started", self.name());
        let summary = match self {
            Self::Ingest => describe(&ingest(project, progress)?),
            Self::Prepare => prepare(project, progress)?.to_string(),
            Self::Train => tracking::train(project, progress)?.to_string(),
            Self::Evaluate(checks) => tracking::evaluate(project, checks, progress)?.to_string(),
        };
        tracing::info!("stage {} completed", self.name());
        Ok(summary)
    }
}

/// A line of what there is, and one for each kind of file that was set aside or stands twice.
fn describe(summary: &IngestSummary) -> String {
    let classes: Vec<String> =
        summary.classes.iter().map(|(class, images)| format!("{images} {class}")).collect();
    let patients = match summary.patients {
        0 => "patients unknown".to_owned(),
        patients => format!("{patients} patients"),
    };
    let (images, root) = (summary.images, summary.root.display());
    let mut lines = vec![format!("{images} images ({}), {patients}, in `{root}`", classes.join(", "))];
    for (count, what) in [
        (summary.quarantined, "files are no usable images and were quarantined"),
        (summary.duplicates, "images are exact copies of another of their class"),
        (summary.conflicts, "images stand in several classes"),
    ] {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    }
    lines.join("\n")
}

/// Loads the project of the current folder.
pub fn load(global: &Global) -> anyhow::Result<Project> {
    load_in(Path::new("."), &global.config, &global.params)
}

/// Loads a project from its two files.
pub fn load_in(root: &Path, config: &Path, params: &Path) -> anyhow::Result<Project> {
    let project = Project::load(root, config, params)?;
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

/// Runs `crossval`.
pub fn cross_validate(args: &CrossvalArgs, global: &Global) -> anyhow::Result<Status> {
    let project = load(global)?;
    let result = crossval(&project, args.folds, args.checks.into(), &Display::new(global))?;
    let text = if args.json { serde_json::to_string(&result)? } else { result.to_string() };
    output::line(&text)?;
    Ok(Status::Done)
}
