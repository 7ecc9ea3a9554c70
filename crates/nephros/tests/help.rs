//! Help, usage errors and completion scripts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use common::Folder;

const COMMANDS: &[&str] = &[
    "init",
    "ingest",
    "audit",
    "prepare",
    "train",
    "evaluate",
    "crossval",
    "run",
    "repro",
    "status",
    "dag",
    "predict",
    "quantize",
    "export",
    "explain",
    "serve",
    "phantom",
    "demo",
    "bench",
    "runs",
    "models",
    "completions",
];

#[test]
fn help_of_the_program() {
    let run = Folder::new().run(&["--help"]);
    assert_eq!(run.code, 0);
    insta::assert_snapshot!("help", run.stdout);
}

#[test]
fn help_of_each_command() {
    let folder = Folder::new();
    for &command in COMMANDS {
        let run = folder.run(&[command, "--help"]);
        assert_eq!(run.code, 0, "{command}: {}", run.stderr);
        assert!(run.stdout.contains("Examples:"), "{command} has no examples");
        insta::assert_snapshot!(format!("help_{command}"), run.stdout);
    }
}

#[test]
fn usage_errors_end_with_2() {
    let folder = Folder::new();
    let cases: [(&str, &[&str]); 8] = [
        ("no command", &[]),
        ("unknown command", &["predcit"]),
        ("unknown option", &["predict", "--jsn", "a.png"]),
        ("no path", &["predict"]),
        ("port", &["serve", "--port", "65536"]),
        ("both", &["-v", "-q", "run"]),
        ("no patients", &["phantom", "--patients", "0", "--slices", "1", "--seed", "1", "--out", "x"]),
        (
            "bf16",
            &["bench", "forward", "--precision", "bf16", "--weights", "w.safetensors", "--input", "x.f32"],
        ),
    ];
    let mut texts = Vec::new();
    for (name, arguments) in cases {
        let run = folder.run(arguments);
        assert_eq!(run.code, 2, "{name}");
        assert!(run.stdout.is_empty(), "{name}: {}", run.stdout);
        if !arguments.is_empty() {
            texts.push(format!("## {name}\n{}\n", run.stderr));
        }
    }
    insta::assert_snapshot!("usage_errors", texts.concat());
}

#[test]
fn a_script_for_each_shell() {
    let folder = Folder::new();
    for (shell, expected) in [
        ("bash", "complete -F _nephros"),
        ("zsh", "#compdef nephros"),
        ("fish", "complete -c nephros"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion:arg-completer[nephros]"),
    ] {
        let run = folder.run(&["completions", shell]);
        assert_eq!(run.code, 0, "{shell}");
        assert!(run.stdout.contains(expected), "{shell}");
        assert!(run.stderr.is_empty(), "{shell}: {}", run.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    let mut child = folder.start(&["completions", "zsh"]);
    drop(child.stdout.take());
    let run = common::Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
