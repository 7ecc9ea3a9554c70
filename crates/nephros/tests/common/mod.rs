//! Runs the built binary in a folder of its own.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "../../../nephros-mlflow/tests/common/real.rs"]
pub mod mlflow;
pub mod model;
#[cfg(unix)]
pub mod server;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to run in; removed at the end.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with a project in it.
    pub fn project() -> Self {
        let folder = Self::new();
        assert_eq!(folder.run(&["init"]).code, 0);
        folder
    }

    /// A project whose images are 40 drawn slices of 20 patients; `more` is added to its parameters.
    pub fn drawn_project(epochs: usize, more: &str) -> Self {
        let folder = Self::project();
        let drawn = ["phantom", "--patients", "20", "--slices", "2", "--seed", "3", "--size", "64"];
        assert_eq!(folder.run(&[&drawn[..], &["--out", "cohort"]].concat()).code, 0);
        let config = folder.read("config/config.yaml");
        let source = config.lines().find(|line| line.trim_start().starts_with("source_URL:")).unwrap();
        folder.write("config/config.yaml", config.replace(source, "  source_URL: cohort"));
        folder.write(
            "params.yaml",
            format!(
                "AUGMENTATION: True\nIMAGE_SIZE: [64, 64, 3]\nBATCH_SIZE: 8\nINCLUDE_TOP: False\n\
                 EPOCHS: {epochs}\nCLASSES: 2\nWEIGHTS: none\nLEARNING_RATE: 0.002\nARCHITECTURE: compact\n\
                 OPTIMIZER: adam\nCROP: body\nSAMPLING: patient\nPHANTOM_PATIENTS: 8\n{more}"
            ),
        );
        folder
    }

    /// A project of 80 discs of 40 patients, bright in one class and dark in the other: any training tells
    /// them apart, and its 16 test patients are enough for the gate.
    pub fn easy_project() -> Self {
        let folder = Self::project();
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut csv = "path,class,patient\n".to_owned();
        for (class, grey) in [("Normal", 60), ("Tumor", 190)] {
            for image in 0..40 {
                let radius = 20 + random(8);
                let (x, y) = (28 + random(8), 28 + random(8));
                let disc = bmp(|column, row| {
                    let inside = column.abs_diff(x).pow(2) + row.abs_diff(y).pow(2) < radius * radius;
                    if inside { (grey + random(50)) as u8 } else { 0 }
                });
                folder.write(&format!("cohort/{class}/{image}.bmp"), disc);
                writeln!(csv, "{class}/{image}.bmp,{class},{class}{}", image / 2).unwrap();
            }
        }
        folder.write("cohort/patients.csv", csv);
        folder.set("config/config.yaml", "  source_URL", "cohort");
        for (key, value) in [
            ("IMAGE_SIZE", "[64, 64, 3]"),
            ("WEIGHTS", "none"),
            ("OPTIMIZER", "adam"),
            ("LEARNING_RATE", "0.001"),
            ("AUGMENTATION", "False"),
            ("EPOCHS", "6"),
            ("BATCH_SIZE", "8"),
            ("TEST_SPLIT", "0.4"),
        ] {
            folder.set("params.yaml", key, value);
        }
        folder
    }

    /// Gives a key of a YAML file another value.
    pub fn set(&self, path: &str, key: &str, value: &str) {
        let text = self.read(path);
        let start = format!("{key}:");
        let line = text.lines().find(|line| line.starts_with(&start)).unwrap();
        self.write(path, text.replacen(line, &format!("{key}: {value}"), 1));
    }

    /// The JSON objects that a command prints, a line each.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {}", run.stderr);
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only run that is kept, in full.
    pub fn only_run(&self) -> Value {
        let runs = self.lines(&["runs", "list", "--json"]);
        assert_eq!(runs.len(), 1, "{runs:?}");
        let id = runs[0]["id"].as_str().unwrap().to_owned();
        self.lines(&["runs", "show", &id[..6], "--json"]).remove(0)
    }

    /// A path below it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// The root of it.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// Content of a text file below it.
    pub fn read(&self, below: &str) -> String {
        fs_err::read_to_string(self.path(below)).unwrap()
    }

    /// Writes a file below it, and the folders on the way.
    pub fn write(&self, below: &str, content: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    /// The command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nephros"));
        command
            .args(arguments)
            .current_dir(self.root())
            .env_remove("NEPHROS_TOKEN")
            .env_remove("COLUMNS")
            .env_remove("MLFLOW_TRACKING_URI")
            .env_remove("MLFLOW_EXPERIMENT_NAME")
            .env_remove("DATABASE_URL")
            .env_remove("NEPHROS_STORE_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::from(self.command(arguments).output().unwrap())
    }

    /// Starts and goes on.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }
}

/// A grey picture of 64 by 64 pixels, as an uncompressed BMP.
fn bmp(mut grey: impl FnMut(u64, u64) -> u8) -> Vec<u8> {
    const SIDE: u32 = 64;
    let size = 3 * SIDE * SIDE;
    let mut bytes = b"BM".to_vec();
    for value in [54 + size, 0, 54, 40, SIDE, SIDE, 24 << 16 | 1, 0, size, 2835, 2835, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    // Rows stand from the bottom up.
    for row in (0..SIDE).rev() {
        for column in 0..SIDE {
            bytes.extend([grey(column.into(), row.into()); 3]);
        }
    }
    bytes
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Run {
    /// Exit status; -1 when a signal ended it.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Log lines and remarks.
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Sends a signal, such as `INT`, to a process.
#[cfg(unix)]
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
