//! A stage's command, run as DVC runs it: each line by the user's shell, which reads no settings.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// How commands are run.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The program, `$SHELL` or `/bin/sh`.
    pub program: PathBuf,
    /// Folders that programs are looked for in.
    pub path: OsString,
    /// More of the environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How often a command is asked whether it is done.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(20);

impl Shell {
    /// Runs a line in a folder and waits for its end. When `stopped` says so, the command is
    /// interrupted once, as by Ctrl-C, and waited for.
    ///
    /// # Errors
    /// The shell cannot be started.
    pub fn run(
        &self,
        line: &str,
        folder: &Path,
        env: &[(&str, &str)],
        stdin: &File,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> io::Result<ExitStatus> {
        let name = self.program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut command = Command::new(&self.program);
        match name {
            "bash" => command.args(["--noprofile", "--norc"]),
            "zsh" => command.arg("--no-rcs"),
            "fish" => command.arg("--no-config"),
            _ => &mut command,
        };
        command.arg("-c").arg(line).current_dir(folder).env("PATH", &self.path);
        command.envs(self.env.iter().map(|(key, value)| (key, value))).envs(env.iter().copied());
        command.stdin(Stdio::from(stdin.try_clone()?));
        // Ctrl-C at a terminal goes to us alone, and from here to the command: once, however it came.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        wait(command.spawn()?, stopped)
    }
}

fn wait(mut child: Child, stopped: &(dyn Fn() -> bool + Sync)) -> io::Result<ExitStatus> {
    let mut pause = SHORTEST;
    let mut interrupted = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if !interrupted && stopped() {
            interrupt(&mut child)?;
            interrupted = true;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}

/// The shell and all that it has started.
#[cfg(unix)]
fn interrupt(child: &mut Child) -> io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process_group};
    match i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        Some(group) => match kill_process_group(group, Signal::INT) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        },
        None => Ok(()),
    }
}

#[cfg(not(unix))]
fn interrupt(child: &mut Child) -> io::Result<()> {
    child.kill()
}

/// `exit status 3` or `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    format!("exit status {}", status.code().unwrap_or(-1))
}
