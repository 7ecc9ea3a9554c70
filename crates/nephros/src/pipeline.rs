//! `repro`, `status` and `dag`: the pipeline of `dvc.yaml`, and `run` where there is one.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use nephros_dvc::{
    Change, DvcError, Event, Repo, Request, Shell, StageStatus, Summary, Watcher, config::Outside,
    pipeline::PIPELINE_FILE, repro, status,
};
use nephros_train::progress::Cancelled;

use crate::{
    cli::{DagArgs, Global, LogFormat, ReproArgs},
    errors::Status,
    interrupt, output,
    stages::{self, Stage},
};

/// Options of a `repro` that its stages, `nephros` again, take over; their command lines are fixed.
const HANDED_DOWN: &str = "NEPHROS_HANDED_DOWN";

/// The repository of the current folder, with the user's own configuration.
fn open() -> Result<Repo, DvcError> {
    Repo::open(Path::new("."), &Outside::of_user(|name| env::var_os(name)))
}

/// Runs `repro`.
pub fn reproduce(args: &ReproArgs, global: &Global) -> anyhow::Result<Status> {
    let repo = open()?;
    let shell = shell(global)?;
    let request = Request { target: args.stage.as_deref(), force: args.force, dry: args.dry, shell: &shell };
    let summary = repro(&repo, &request, &Teller::new(global)).map_err(stopped_as_others)?;
    Teller::new(global).tell(&describe(&summary, args.dry));
    Ok(Status::Done)
}

/// Runs `run`: `repro` of all stages where a `dvc.yaml` says what they read, and all of them elsewhere.
pub fn run(global: &Global) -> anyhow::Result<Status> {
    // A `dvc.yaml` says what depends on the files of these names, and on no others.
    let default =
        global.config == Path::new("config/config.yaml") && global.params == Path::new("params.yaml");
    if default && Path::new(PIPELINE_FILE).is_file() {
        return reproduce(&ReproArgs { stage: None, force: false, dry: false }, global);
    }
    stages::run(&Stage::ALL, global)
}

/// Runs `status`.
pub fn show_status(global: &Global) -> anyhow::Result<Status> {
    let repo = open()?;
    let statuses = status(&repo, &interrupt::requested).map_err(stopped_as_others)?;
    let changed: Vec<_> = statuses.iter().filter(|status| status.is_changed()).collect();
    if global.quiet {
        return Ok(if changed.is_empty() { Status::Done } else { Status::Failed });
    }
    for status in &changed {
        output::text_block(&changes(status))?;
    }
    if changed.is_empty() {
        output::line("Data and pipelines are up to date.")?;
    }
    Ok(Status::Done)
}

/// Runs `dag`.
pub fn dag(args: &DagArgs) -> anyhow::Result<Status> {
    let (_, graph) = open()?.pipeline()?;
    let text = match (args.mermaid, args.dot) {
        (true, _) => graph.to_mermaid(),
        (_, true) => graph.to_dot(),
        _ => graph.to_text(),
    };
    output::line(&text)?;
    Ok(Status::Done)
}

/// Takes over what a `repro` that runs this process was told.
pub fn take_over(global: &mut Global) {
    let Ok(options) = env::var(HANDED_DOWN) else { return };
    for option in options.split(' ') {
        match option {
            "json" => global.log_format = LogFormat::Json,
            "quiet" => global.quiet |= global.verbose == 0,
            "verbose" => global.verbose += u8::from(!global.quiet),
            _ => {}
        }
    }
}

/// The user's shell, in which `nephros` is this program.
fn shell(global: &Global) -> anyhow::Result<Shell> {
    let program =
        env::var_os("SHELL").filter(|shell| !shell.is_empty()).map_or("/bin/sh".into(), PathBuf::from);
    let own = env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(own.into_iter().chain(env::split_paths(&path)))?;
    let mut options = vec!["verbose"; global.verbose.into()];
    options.extend(global.quiet.then_some("quiet"));
    options.extend((global.log_format == LogFormat::Json).then_some("json"));
    let env = vec![(OsString::from(HANDED_DOWN), OsString::from(options.join(" ")))];
    Ok(Shell { program, path, env })
}

/// A stop looks the same whatever was stopped.
fn stopped_as_others(error: DvcError) -> anyhow::Error {
    match error {
        DvcError::Stopped => Cancelled.into(),
        error => error.into(),
    }
}

/// Tells on stderr what happens; stdout is for the stages.
struct Teller {
    quiet: bool,
    format: LogFormat,
}

impl Teller {
    fn new(global: &Global) -> Self {
        Self { quiet: global.quiet, format: global.log_format }
    }

    fn tell(&self, text: &str) {
        match self.format {
            // Whoever reads stderr as JSON expects nothing else there.
            LogFormat::Json => tracing::info!("{text}"),
            LogFormat::Text if !self.quiet => output::note(text),
            LogFormat::Text => {}
        }
    }
}

impl Watcher for Teller {
    fn event(&self, event: Event) {
        self.tell(&match event {
            Event::Initialised { root } => format!("made a DVC repository in `{}`", root.display()),
            Event::Unchanged { stage } => format!("{stage}: unchanged"),
            Event::Frozen { stage } => format!("{stage}: frozen, what it reads is not looked at"),
            Event::Restored { stage } => format!("{stage}: restored from the cache"),
            Event::Running { stage } => format!("{stage}: running"),
            Event::Command { cmd } => format!("> {cmd}"),
            Event::Depends { stage } => format!("{stage}: runs if what it reads changes"),
        });
    }

    fn is_stopped(&self) -> bool {
        interrupt::requested()
    }
}

fn describe(summary: &Summary, dry: bool) -> String {
    let Summary { run, restored, unchanged } = summary;
    if (*run, *restored) == (0, 0) {
        return "everything is up to date".into();
    }
    let would = if dry { "would be " } else { "" };
    format!("{run} stages {would}run, {restored} {would}restored, {unchanged} unchanged")
}

/// What has changed, in DVC's words.
fn changes(status: &StageStatus) -> String {
    let mut lines = vec![format!("{}:", status.stage)];
    let mut list = |title: &str, indent: usize, changes: &[(String, Change)]| {
        lines.push(format!("{:width$}{title}:", "", width = indent - 2));
        for (path, change) in changes {
            let name = format!("{}:", change.name());
            lines.push(format!("{:indent$}{name:<20}{path}", ""));
        }
    };
    if status.reads_changed() {
        list("changed deps", 4, &status.deps);
        for (file, changes) in &status.params {
            list(file, 6, changes);
        }
    }
    if !status.outs.is_empty() {
        list("changed outs", 4, &status.outs);
    }
    lines.extend(status.always.then(|| "  always changed".to_owned()));
    lines.extend(status.command.then(|| "  changed command".to_owned()));
    lines.join("\n") + "\n"
}
