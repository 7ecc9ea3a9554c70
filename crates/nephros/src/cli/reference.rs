//! `docs/cli.md`, written from the commands themselves and checked to be fresh.

use std::{env, fmt::Write as _, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

const INTRODUCTION: &str = "# Command line

<!-- Written by a test from crates/nephros/src/cli.rs. After a change there:
     NEPHROS_UPDATE_DOCS=1 cargo test -p nephros the_reference_is_fresh -->
";

#[test]
fn the_reference_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let fresh = reference();
    if env::var_os("NEPHROS_UPDATE_DOCS").is_some() {
        nephros_train::files::write_atomic(&path, fresh.as_bytes()).unwrap();
    }
    let written = fs_err::read_to_string(&path).unwrap();
    assert!(written == fresh, "docs/cli.md is stale; set NEPHROS_UPDATE_DOCS=1 and run this test again");
}

#[test]
fn the_commands_are_consistent() {
    Cli::command().debug_assert();
}

fn reference() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, 2, &mut root.clone());
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        section(&mut text, 2, &mut command.clone());
    }
    text
}

fn section(text: &mut String, depth: usize, command: &mut Command) {
    let is_root = command.has_subcommands();
    let name = command.get_bin_name().unwrap_or("nephros").to_owned();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    write!(text, "\n{} {name}\n\n{about}\n\n```text\n{usage}\n```\n", "#".repeat(depth)).unwrap();
    if is_root {
        commands(text, command);
    }
    // The global options stand once, under the root.
    let shown = |arg: &&Arg| is_root || !arg.is_global_set();
    let known = |arg: &&Arg| !matches!(arg.get_id().as_str(), "help" | "version");
    arguments(text, command.get_arguments().filter(shown).filter(known));
    if let Some(examples) = command.get_after_help() {
        after_help(text, &examples.to_string());
    }
}

fn commands(text: &mut String, root: &Command) {
    text.push_str("\n| command | |\n|---|---|\n");
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "| [`{name}`](#nephros-{name}) | {about} |").unwrap();
    }
}

fn arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let rows: Vec<String> = arguments.map(row).collect();
    if !rows.is_empty() {
        text.push_str("\n| argument | meaning | default |\n|---|---|---|\n");
        text.push_str(&rows.concat());
    }
}

fn row(arg: &Arg) -> String {
    let mut forms: Vec<String> = Vec::new();
    forms.extend(arg.get_short().map(|short| format!("-{short}")));
    forms.extend(arg.get_long().map(|long| format!("--{long}")));
    let mut form = forms.join(", ");
    if arg.get_action().takes_values() {
        let names: Vec<&str> =
            arg.get_value_names().into_iter().flatten().map(clap::builder::Str::as_str).collect();
        form = format!("{form} <{}>", names.join("> <")).trim_start().replace('|', "\\|");
    }
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("<br>`{}`: {}", value.get_name(), help.to_string().replace('|', "\\|")),
            None => format!("<br>`{}`", value.get_name()),
        })
        .collect();
    let required = if arg.is_required_set() { "required" } else { "" };
    let default: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    let default = if arg.get_action().takes_values() { default.join(", ") } else { String::new() };
    format!("| `{form}` | {help}{} | {required}{default} |\n", values.concat())
}

fn after_help(text: &mut String, after: &str) {
    for paragraph in after.split("\n\n") {
        match paragraph.split_once(":\n") {
            Some((title, block)) => {
                let block: Vec<&str> =
                    block.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
                write!(text, "\n{title}:\n\n```text\n{}\n```\n", block.join("\n")).unwrap();
            }
            None => write!(text, "\n{paragraph}\n").unwrap(),
        }
    }
}
