//! One process at a time: our own lock, and both of DVC's.
//!
//! `.dvc/tmp/nephros.lock` is held from the first look at the pipeline to the end, and by the command of a
//! stage too, which has it as its standard input: a command that outlives a killed parent still keeps a
//! second run away. `.dvc/tmp/lock` is what DVC locks; as DVC does, it is let go while a command runs.
//! What a running command reads and writes then stands in `.dvc/tmp/rwlock`.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use crate::files;

/// A process that starts a command holds, for the moment between `fork` and `exec`, every lock of the
/// process that started it.
const PATIENCE_OWN: Duration = Duration::from_millis(500);
/// DVC gives up after this time too.
const PATIENCE: Duration = Duration::from_secs(3);
/// After a command that may have run for hours, a `dvc push` is waited for.
const PATIENCE_AFTER: Duration = Duration::from_hours(1);

/// Why another process is in the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusyError {
    /// Another run of ours.
    #[error(
        "another `nephros` is running this pipeline: expected `{lock}` to be free, process {pid} holds it"
    )]
    Nephros {
        /// The lock.
        lock: PathBuf,
        /// Who holds it, as it says itself.
        pid: String,
    },
    /// A run of DVC.
    #[error("`dvc` is at work in this repository: expected `{lock}` to be free, process {pid} holds it")]
    Dvc {
        /// The lock.
        lock: PathBuf,
        /// Who holds it, as it says itself.
        pid: String,
    },
    /// A stage of DVC's that reads or writes the same.
    #[error("`{path}` is in use by process {pid}, `{cmd}`")]
    Path {
        /// What is read or written.
        path: String,
        /// By whom.
        pid: u64,
        /// Its command line.
        cmd: String,
    },
    /// A lock cannot be made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl BusyError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io(_) => None,
            _ => Some("wait until it is done, or end it; a lock goes with its process".into()),
        }
    }
}

/// Held while stages are looked at and run.
#[derive(Debug)]
pub struct Guard {
    tmp: PathBuf,
    own: File,
    dvc: Option<File>,
}

impl Guard {
    /// Takes both locks in `tmp`; does not wait for our own.
    ///
    /// # Errors
    /// See [`BusyError`].
    pub fn take(tmp: &Path) -> Result<Self, BusyError> {
        fs_err::create_dir_all(tmp)?;
        let path = tmp.join("nephros.lock");
        let own = lock(&path, PATIENCE_OWN)?.map_err(|pid| BusyError::Nephros { lock: path, pid })?;
        Ok(Self { tmp: tmp.into(), own, dvc: Some(lock_for_dvc(&tmp.join("lock"), PATIENCE)?) })
    }

    /// Whether a stage of DVC's reads or writes what is to be read and written.
    ///
    /// # Errors
    /// See [`BusyError`].
    pub fn check(&self, reads: &[PathBuf], writes: &[PathBuf]) -> Result<(), BusyError> {
        let entries = Entries::new(reads, writes);
        edit(&self.tmp, |readers, writers| entries.check_all(readers, writers))
    }

    /// Lets DVC in while `work` runs, except at what it reads and writes; `work` is handed our lock.
    ///
    /// # Errors
    /// [`BusyError`], or what `work` fails with.
    pub fn while_running<T, E: From<BusyError>>(
        &mut self,
        reads: &[PathBuf],
        writes: &[PathBuf],
        work: impl FnOnce(&File) -> Result<T, E>,
    ) -> Result<T, E> {
        let entries = Entries::new(reads, writes);
        entries.add(&self.tmp)?;
        self.dvc = None;
        let result = work(&self.own);
        let locked = lock_for_dvc(&self.tmp.join("lock"), PATIENCE_AFTER);
        entries.remove(&self.tmp)?;
        self.dvc = Some(locked?);
        result
    }
}

/// The locked file, or who still holds it when patience is at its end.
fn lock(path: &Path, patience: Duration) -> io::Result<Result<File, String>> {
    let begun = Instant::now();
    loop {
        match try_lock(path)? {
            Err(_) if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(50)),
            result => return Ok(result),
        }
    }
}

fn try_lock(path: &Path) -> io::Result<Result<File, String>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {
            let mut file = file;
            file.rewind()?;
            // The form of `zc.lockfile`, which DVC uses.
            writeln!(file, " {}", process::id())?;
            let end = file.stream_position()?;
            file.set_len(end)?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).read_to_string(&mut pid);
            Ok(Err(pid.trim().to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn lock_for_dvc(path: &Path, patience: Duration) -> Result<File, BusyError> {
    lock(path, patience)?.map_err(|pid| BusyError::Dvc { lock: path.into(), pid })
}

/// What a command reads and writes, in `rwlock`.
struct Entries {
    info: Value,
    reads: Vec<String>,
    writes: Vec<String>,
}

impl Entries {
    fn new(reads: &[PathBuf], writes: &[PathBuf]) -> Self {
        let text = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        let info = json!({ "pid": process::id(), "cmd": "nephros repro" });
        Self { info, reads: text(reads), writes: text(writes) }
    }

    fn add(&self, tmp: &Path) -> Result<(), BusyError> {
        edit(tmp, |readers, writers| {
            self.check_all(readers, writers)?;
            for path in &self.reads {
                if let Value::Array(list) = readers.entry(path).or_insert_with(|| json!([])) {
                    list.push(self.info.clone());
                }
            }
            for path in &self.writes {
                writers.insert(path.clone(), self.info.clone());
            }
            Ok(())
        })
    }

    fn remove(&self, tmp: &Path) -> Result<(), BusyError> {
        edit(tmp, |readers, writers| {
            for path in &self.reads {
                if let Some(Value::Array(list)) = readers.get_mut(path) {
                    list.retain(|info| *info != self.info);
                }
            }
            readers.retain(|_, list| *list != json!([]));
            writers.retain(|_, info| *info != self.info);
            Ok(())
        })
    }

    /// What is written elsewhere must not be touched, what is read elsewhere not be written.
    fn check_all(
        &self,
        readers: &mut Map<String, Value>,
        writers: &mut Map<String, Value>,
    ) -> Result<(), BusyError> {
        self.check(writers, &self.reads.iter().chain(&self.writes))?;
        self.check(readers, &self.writes.iter())
    }

    /// Whether a process that lives has an entry that overlaps; those of dead ones are removed.
    fn check<'p>(
        &self,
        entries: &mut Map<String, Value>,
        paths: &(impl Iterator<Item = &'p String> + Clone),
    ) -> Result<(), BusyError> {
        let mut free = Vec::new();
        for (there, infos) in &mut *entries {
            let Some(path) = paths.clone().find(|path| overlap(path, there)) else { continue };
            let infos = match infos {
                Value::Array(infos) => std::mem::take(infos),
                info => vec![info.take()],
            };
            for info in infos {
                let pid = info["pid"].as_u64().unwrap_or(0);
                if info != self.info && is_alive(pid) {
                    let cmd = info["cmd"].as_str().unwrap_or("?").to_owned();
                    return Err(BusyError::Path { path: path.clone(), pid, cmd });
                }
            }
            free.push(there.clone());
        }
        entries.retain(|path, _| !free.contains(path));
        Ok(())
    }
}

fn overlap(left: &str, right: &str) -> bool {
    Path::new(left).starts_with(right) || Path::new(right).starts_with(left)
}

/// Changes `rwlock`, nothing if `change` fails.
fn edit(
    tmp: &Path,
    change: impl FnOnce(&mut Map<String, Value>, &mut Map<String, Value>) -> Result<(), BusyError>,
) -> Result<(), BusyError> {
    let _lock = lock_for_dvc(&tmp.join("rwlock.lock"), PATIENCE)?;
    let path = tmp.join("rwlock");
    let read = fs_err::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    // DVC writes it in place: one that is cut off belongs to a process that was killed.
    let mut all = read.unwrap_or_default();
    let mut part = |name: &str| match all.get_mut(name).map(Value::take) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    };
    let (mut readers, mut writers) = (part("read"), part("write"));
    change(&mut readers, &mut writers)?;
    let text = json!({ "read": readers, "write": writers }).to_string();
    Ok(files::write_atomic(&path, text.as_bytes())?)
}

#[cfg(unix)]
fn is_alive(pid: u64) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        // Not being allowed to is an answer too: there is such a process.
        rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
    })
}

#[cfg(not(unix))]
fn is_alive(_: u64) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let first = Guard::take(folder.path()).unwrap();
        let error = Guard::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&process::id().to_string()), "{error}");
        drop(first);
        Guard::take(folder.path()).unwrap();
    }

    #[test]
    fn dvc_at_work_is_waited_for_and_then_named() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(&folder.path().join("lock"), Duration::ZERO).unwrap().unwrap();
        let error = Guard::take(folder.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("`dvc` is at work") && error.contains(&process::id().to_string()),
            "{error}"
        );
        drop(held);
        Guard::take(folder.path()).unwrap();
    }

    #[test]
    fn entries_of_the_dead_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let entry =
            |pid: u32| json!({ "read": {}, "write": { "/data": { "pid": pid, "cmd": "dvc repro" } } });
        let write = |pid| fs_err::write(folder.path().join("rwlock"), entry(pid).to_string()).unwrap();
        let mut guard = Guard::take(folder.path()).unwrap();
        let mut run =
            |path: &str| guard.while_running::<_, BusyError>(&[PathBuf::from(path)], &[], |_| Ok(()));
        // The largest process number of Linux is 2^22.
        write(1 << 23);
        run("/data/x").unwrap();
        write(process::id());
        let error = run("/data/x").unwrap_err().to_string();
        assert!(error.contains("`dvc repro`"), "{error}");
        run("/database").unwrap();
        fs_err::write(folder.path().join("rwlock"), "{\"read\": {").unwrap();
        run("/data/x").unwrap();
        assert_eq!(
            fs_err::read_to_string(folder.path().join("rwlock")).unwrap(),
            "{\"read\":{},\"write\":{}}"
        );
    }
}
