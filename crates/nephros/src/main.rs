//! The `nephros` binary: parses arguments, wires the libraries, renders errors.

mod audit;
mod bench;
mod cli;
mod demo;
mod errors;
mod explain;
mod export;
mod healthcheck;
mod init;
mod interrupt;
mod logging;
mod model;
mod output;
mod phantom;
mod pipeline;
mod predict;
mod progress;
mod quantize;
mod receipts;
mod registry;
mod runs;
mod serve;
mod stages;
mod table;
mod tracking;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};

use crate::{
    cli::{Cli, Command, CompletionsArgs},
    errors::Status,
    stages::Stage,
};

/// Training takes and frees large buffers all the time; the system's allocator gives each back to
/// the kernel and pays for its pages again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    pipeline::take_over(&mut cli.global);
    let status = run(&cli).unwrap_or_else(|error| errors::report(&error, cli.global.log_format));
    status.into()
}

fn run(cli: &Cli) -> anyhow::Result<Status> {
    logging::start(&cli.global, log_folder(cli).as_deref())?;
    interrupt::listen()?;
    let global = &cli.global;
    match &cli.command {
        Command::Init(args) => init::run(args),
        Command::Ingest => stages::run(&[Stage::Ingest], global),
        Command::Audit(args) => audit::run(args, global),
        Command::Prepare => stages::run(&[Stage::Prepare], global),
        Command::Train => stages::run(&[Stage::Train], global),
        Command::Evaluate(args) => stages::run(&[Stage::Evaluate(args.checks.into())], global),
        Command::Crossval(args) => stages::cross_validate(args, global),
        Command::Run => pipeline::run(global),
        Command::Repro(args) => pipeline::reproduce(args, global),
        Command::Status => pipeline::show_status(global),
        Command::Dag(args) => pipeline::dag(args),
        Command::Predict(args) => predict::run(args, global),
        Command::Quantize(args) => quantize::run(args, global),
        Command::Export(args) => export::run(args, global),
        Command::Explain(args) => explain::run(args, global),
        Command::Serve(args) => serve::run(args, global),
        Command::Phantom(args) => phantom::run(args, global),
        Command::Demo(args) => demo::run(args, global),
        Command::Bench(args) => bench::run(args),
        Command::Runs(args) => runs::run(args, global),
        Command::Models(args) => registry::run(args, global),
        Command::Verify(args) => receipts::verify(args, global),
        Command::Store(args) => receipts::manage(args, global),
        Command::Completions(args) => completions(args),
        Command::Healthcheck(args) => healthcheck::run(args),
    }
}

/// The project that the log file belongs to: what is run elsewhere leaves no file behind.
fn log_folder(cli: &Cli) -> Option<PathBuf> {
    match &cli.command {
        Command::Demo(args) => Some(args.dir.clone()),
        Command::Init(_) | Command::Bench(_) | Command::Completions(_) | Command::Healthcheck(_) => None,
        _ => cli.global.config.is_file().then(|| Path::new(".").to_owned()),
    }
}

fn completions(args: &CompletionsArgs) -> anyhow::Result<Status> {
    // Through memory, because the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nephros", &mut script);
    output::text_block(&String::from_utf8_lossy(&script))?;
    Ok(Status::Done)
}
