//! Runs the built binary in a folder of its own.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

pub mod model;
#[cfg(unix)]
pub mod server;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

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
