//! Pipelines in folders of their own, and the real DVC beside us.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]
#![allow(clippy::print_stdout, reason = "what is left out is said")]

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use nephros_dvc::{
    DvcError, Event, Repo, Request, Shell, StageStatus, Summary, Watcher, config::Outside, repro, status,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder to run in; removed at the end.
pub struct Folder(TempDir);

/// Notes what happens.
#[derive(Default)]
pub struct Notes {
    lines: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Watcher for Notes {
    fn event(&self, event: Event) {
        let line = match event {
            Event::Unchanged { stage } => format!("unchanged {stage}"),
            Event::Restored { stage } => format!("restored {stage}"),
            Event::Running { stage } => format!("running {stage}"),
            Event::Depends { stage } => format!("depends {stage}"),
            Event::Frozen { stage } => format!("frozen {stage}"),
            _ => return,
        };
        self.lines.lock().unwrap().push(line);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

impl Folder {
    /// With a pipeline and some files.
    pub fn new(pipeline: &str, files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("dvc.yaml", pipeline);
        for (path, content) in files {
            folder.write(path, content);
        }
        folder
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub fn read(&self, below: &str) -> String {
        fs_err::read_to_string(self.path(below)).unwrap()
    }

    pub fn write(&self, below: &str, content: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    pub fn remove(&self, below: &str) {
        let path = self.path(below);
        if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) }.unwrap();
    }

    /// Removes what is no folder, whatever it is.
    pub fn remove_link(&self, below: &str) {
        fs_err::remove_file(self.path(below)).unwrap();
    }

    pub fn exists(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// With the configuration of nobody.
    pub fn try_repo(&self) -> Result<Repo, DvcError> {
        Repo::open(self.0.path(), &Outside::default())
    }

    pub fn repo(&self) -> Repo {
        self.try_repo().unwrap()
    }

    /// `repro`, and what happened to each stage.
    pub fn repro_with(&self, target: Option<&str>, force: bool, dry: bool) -> Result<Vec<String>, DvcError> {
        let shell = shell();
        let notes = Notes::default();
        repro(&self.try_repo()?, &Request { target, force, dry, shell: &shell }, &notes)?;
        Ok(notes.lines.into_inner().unwrap())
    }

    pub fn try_repro(&self) -> Result<Vec<String>, DvcError> {
        self.repro_with(None, false, false)
    }

    pub fn repro(&self) -> Vec<String> {
        self.try_repro().unwrap()
    }

    /// `repro` that is stopped once it has run for a while.
    pub fn stopped_repro(&self, after: std::time::Duration) -> Result<Summary, DvcError> {
        let (shell, notes) = (shell(), Notes::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(after);
                notes.stop.store(true, Ordering::SeqCst);
            });
            repro(&self.repo(), &Request { target: None, force: false, dry: false, shell: &shell }, &notes)
        })
    }

    pub fn try_status(&self) -> Result<Vec<StageStatus>, DvcError> {
        status(&self.try_repo()?, &|| false)
    }

    /// Stages that have changed.
    pub fn changed(&self) -> Vec<String> {
        let statuses = self.try_status().unwrap();
        let mut names: Vec<_> =
            statuses.into_iter().filter(StageStatus::is_changed).map(|status| status.stage).collect();
        names.sort();
        names
    }

    /// `git init`.
    pub fn git(&self) {
        self.run_git(&["init", "-q"]);
        self.run_git(&["config", "user.email", "test@example.org"]);
        self.run_git(&["config", "user.name", "test"]);
    }

    /// Everything so far.
    pub fn commit(&self) {
        self.run_git(&["add", "-A"]);
        self.run_git(&["commit", "-q", "-m", "all"]);
    }

    /// A command of git's.
    pub fn run_git(&self, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.0.path()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }
}

pub fn shell() -> Shell {
    Shell { program: "/bin/sh".into(), path: env::var_os("PATH").unwrap_or_default(), env: Vec::new() }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The real DVC, in one process that lives as long as the test.
pub struct Dvc {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What DVC keeps outside of repositories.
    outside: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
}

impl Dvc {
    /// `None`, with a plain line, where it is not installed.
    pub fn start(test: &str) -> Option<Self> {
        let python = workspace().join("target/interop/dvc/bin/python");
        if !python.is_file() {
            println!("left out: {test} beside the real DVC (run scripts/setup-interop)");
            return None;
        }
        let outside = tempfile::tempdir().unwrap();
        let mut child = Command::new(python)
            .arg(workspace().join("scripts/interop/dvc_server.py"))
            .env("DVC_SITE_CACHE_DIR", outside.path().join("site"))
            .env("DVC_GLOBAL_CONFIG_DIR", outside.path().join("global"))
            .env("DVC_SYSTEM_CONFIG_DIR", outside.path().join("system"))
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, stdin, stdout, outside })
    }

    /// Where the user's configuration and the machine's are.
    pub fn outside(&self) -> Outside {
        let file = |folder: &str| self.outside.path().join(folder).join("config");
        Outside { files: vec![file("system"), file("global")], home: None }
    }

    /// Runs a command.
    pub fn try_run(&mut self, folder: &Folder, arguments: &[&str]) -> Answer {
        let request = json!({ "cwd": folder.path(""), "args": arguments });
        writeln!(self.stdin.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        Answer { code: answer["code"].as_i64().unwrap(), stdout: text("stdout"), stderr: text("stderr") }
    }

    /// Runs a command that succeeds, and gives what it printed.
    pub fn run(&mut self, folder: &Folder, arguments: &[&str]) -> String {
        let answer = self.try_run(folder, arguments);
        assert_eq!(answer.code, 0, "dvc {arguments:?}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// Stages that have changed.
    pub fn changed(&mut self, folder: &Folder) -> Vec<String> {
        let text = self.run(folder, &["status", "--json"]);
        let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut names: Vec<String> = status.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    }
}

impl Drop for Dvc {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.stdin = None;
        let _ = self.child.wait();
    }
}
