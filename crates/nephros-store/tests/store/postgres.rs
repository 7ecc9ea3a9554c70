//! A PostgreSQL server of the test's own, started from the programs on this machine.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// A running server; stopped and deleted when dropped.
pub struct Cluster {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
}

/// The cluster that tests of this process share while any of them runs.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The newest version below /usr/lib/postgresql.
fn programs() -> Option<PathBuf> {
    let versions = fs_err::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let programs = versions.map(|version| version.path().join("bin"));
    programs.filter(|folder| folder.join("initdb").is_file()).max()
}

/// Who may run a server: not root.
fn user() -> Option<&'static str> {
    let as_root = rustix::process::geteuid().is_root();
    let known = |name: &&str| {
        Command::new("id")
            .arg(name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|done| done.success())
    };
    as_root.then(|| ["postgres", "nobody"].into_iter().find(known)).flatten()
}

impl Cluster {
    /// The shared server; `None`, and a line that says so, where there is no PostgreSQL.
    pub fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// A server that no other test uses.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            println!("left out: the store on PostgreSQL (no initdb below /usr/lib/postgresql)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if let Some(user) = user() {
            let owned = Command::new("chown").arg(user).arg(folder.path()).status().unwrap();
            assert!(owned.success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { programs, folder, port, server: Mutex::new(None), databases: AtomicU32::new(0) };
        let mut initdb = cluster.program("initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ]);
        let made = initdb.arg(cluster.data()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster.run();
        Some(cluster)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = match user() {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).args(["--clear-groups", "--"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }

    /// Starts the server and waits until it answers.
    pub fn run(&self) {
        let log = fs_err::File::create(self.folder.path().join("log")).unwrap().into_file();
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k", ""]);
        postgres.args(["-c", "listen_addresses=127.0.0.1"]);
        *self.server.lock().unwrap() = Some(postgres.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let start = Instant::now();
        while !self.psql("postgres", "SELECT 1") {
            let log = || fs_err::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(start.elapsed() < Duration::from_mins(1), "no answer: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the server at once, as a crash would: it recovers at the next start.
    pub fn stop(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            let pid = rustix::process::Pid::from_child(&server);
            // SIGQUIT is PostgreSQL's immediate shutdown.
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
            server.wait().unwrap();
        }
    }

    fn psql(&self, database: &str, statement: &str) -> bool {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-d", &self.url(database), "-c", statement]);
        psql.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A new database.
    pub fn create(&self) -> String {
        let name = format!("receipts{}", self.databases.fetch_add(1, Ordering::Relaxed));
        assert!(self.psql("postgres", &format!("CREATE DATABASE {name}")));
        name
    }

    /// All files of the server, for a search in their bytes, after all is written to them.
    pub fn files(&self) -> PathBuf {
        assert!(self.psql("postgres", "CHECKPOINT"));
        self.data().join("base")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a text stands in any file below a folder.
pub fn stands_in(folder: &Path, text: &[u8]) -> bool {
    fs_err::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return stands_in(&path, text);
        }
        // A file that the server has just removed holds nothing.
        fs_err::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
    })
}
