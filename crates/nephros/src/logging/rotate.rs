//! A log file that starts anew when it has grown, with a bounded number of old ones kept.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err as fs;
use tracing_subscriber::fmt::MakeWriter;

/// Appends to `path`; once `max_bytes` are reached the file becomes `path.1`, that `path.2`, and
/// so on up to `path.<kept>`. Several processes may append at a time; each line is one write.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    kept: usize,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: fs::File,
    bytes: u64,
}

impl RotatingFile {
    /// Opens or creates the file and its folder.
    pub fn open(path: &Path, max_bytes: u64, kept: usize) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let open = Mutex::new(append_to(path)?);
        Ok(Self { path: path.to_owned(), max_bytes, kept, open })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.bytes > 0 && open.bytes + line.len() as u64 > self.max_bytes {
            self.rotate()?;
            *open = append_to(&self.path)?;
        }
        open.file.write_all(line)?;
        open.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.kept).rev() {
            let from = numbered(&self.path, number);
            if from.exists() {
                fs::rename(from, numbered(&self.path, number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))
    }
}

fn append_to(path: &Path) -> io::Result<Open> {
    let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// One event's writer.
#[derive(Debug, Clone, Copy)]
pub struct LineWriter<'a>(&'a RotatingFile);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for RotatingFile {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_moves_aside_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/running_logs.log");
        // Room for two lines of 4 bytes.
        let log = RotatingFile::open(&path, 8, 2).unwrap();
        for number in 0..7 {
            log.make_writer().write_all(format!("l {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "l 6\n");
        assert_eq!(fs::read_to_string(numbered(&path, 1)).unwrap(), "l 4\nl 5\n");
        assert_eq!(fs::read_to_string(numbered(&path, 2)).unwrap(), "l 2\nl 3\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_second_process_goes_on_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running_logs.log");
        for line in ["one\n", "two\n"] {
            let log = RotatingFile::open(&path, 100, 2).unwrap();
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_line_longer_than_the_limit_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running_logs.log");
        let log = RotatingFile::open(&path, 4, 2).unwrap();
        log.make_writer().write_all(b"longer than four\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "longer than four\n");
    }
}
