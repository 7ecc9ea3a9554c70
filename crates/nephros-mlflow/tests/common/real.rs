//! The real MLflow of `scripts/setup-interop`, and its servers.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python of an environment, if it is there.
pub fn python(environment: &str) -> Option<PathBuf> {
    let python = root().join("target/interop").join(environment).join("bin/python");
    if python.exists() {
        return Some(python);
    }
    let missing = format!("left out: MLflow in {environment} (run scripts/setup-interop)");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
    println!("{missing}");
    None
}

/// A server of MLflow; killed at the end.
pub struct Mlflow {
    process: Child,
    port: u16,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    python: PathBuf,
    folder: PathBuf,
}

impl Mlflow {
    /// `mlflow server` with a database of its own in `folder`.
    pub fn start(python: &Path, folder: &Path, arguments: &[&str]) -> Self {
        let own = ["server", "--backend-store-uri", "sqlite:///server.db"];
        Self::run(python, folder, &[&own[..], arguments].concat(), &[])
    }

    /// Any command that serves, with more of the environment.
    pub fn run(python: &Path, folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self {
            process: Command::new("true").spawn().unwrap(),
            port,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            python: python.to_owned(),
            folder: folder.to_owned(),
        };
        server.restart();
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn restart(&mut self) {
        self.process.wait().unwrap();
        fs_err::create_dir_all(&self.folder).unwrap();
        // Beside the folder, whose content is the project's in some tests.
        let path = self.folder.with_extension("server.log");
        let log = fs_err::File::create(&path).unwrap().into_parts().0;
        let mut command = Command::new(self.python.with_file_name("mlflow"));
        command
            .args(&self.arguments)
            .args(["--workers", "1", "--port", &self.port.to_string()])
            .current_dir(&self.folder)
            .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
            .env_remove("MLFLOW_TRACKING_URI")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log));
        // The server starts others: all of them are ended together.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.process = command.spawn().unwrap();
        let begun = Instant::now();
        while ureq::get(format!("{}/health", self.url())).call().is_err() {
            let log = || fs_err::read_to_string(&path).unwrap();
            assert!(self.process.try_wait().unwrap().is_none(), "the server ended: {}", log());
            assert!(begun.elapsed() < Duration::from_mins(4), "the server does not answer: {}", log());
            thread::sleep(Duration::from_millis(300));
        }
    }

    pub fn stop(&mut self) {
        let group = format!("-{}", self.process.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
        assert!(killed.unwrap().success() || self.process.try_wait().unwrap().is_some());
        self.process.wait().unwrap();
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}
