//! One file over http(s): resumed where it broke, verified, and whole or absent.
//!
//! Bytes go to `NAME.part`; `NAME.part.origin` beside it holds the address and the server's
//! validator (RFC 9110 section 8.8), without which a later run could glue two different files
//! together. Only a verified file gets its own name.

use std::{
    ffi::OsString,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err::File;
use md5::{Digest, Md5};
use nephros_core::{digest, hint::Hint};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, header},
};

use super::google_drive::GoogleDriveError;
use crate::{
    files::{self, NoSpace},
    progress::{self, Cancelled, Progress, Task, Unit},
};

/// What a file must hash to, in hexadecimal of either case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// All 64 digits.
    Sha256(String),
    /// The first digits, as in the names of torchvision's weights (`vgg16-397923af.pth`).
    Sha256Prefix(String),
    /// All 32 digits.
    Md5(String),
}

/// A verified file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The text is not an http(s) address.
    #[error("`{url}` is not an address to download from")]
    Address {
        /// The text.
        url: String,
        /// What the client says.
        source: Box<ureq::Error>,
    },
    /// No connection, or none that lasted, after all attempts.
    #[error("`{url}` cannot be reached after {attempts} attempts")]
    Unreachable {
        /// The address.
        url: String,
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        source: Box<ureq::Error>,
    },
    /// An answer other than the file.
    #[error("`{url}` answered {status}, expected 200 OK")]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// The body ended early in every attempt.
    #[error("download of `{url}` broke off: expected {expected} bytes, got {got}")]
    Truncated {
        /// The address.
        url: String,
        /// Size that the server announced.
        expected: u64,
        /// Size of the `.part` file.
        got: u64,
        /// Where the bytes so far lie.
        part: PathBuf,
    },
    /// The whole file is another than expected; it was deleted.
    #[error("`{url}`: expected {algorithm} `{expected}`, got `{got}`")]
    Checksum {
        /// The address.
        url: String,
        /// `SHA-256` or `MD5`.
        algorithm: &'static str,
        /// Digits expected.
        expected: String,
        /// Digits of the file.
        got: String,
    },
    /// HTML where a file was due.
    #[error("`{url}` answered with a web page titled `{title}`, expected a file")]
    WebPage {
        /// The address.
        url: String,
        /// The page's title, possibly empty.
        title: String,
    },
    /// Google Drive's page dance ended elsewhere than at the file.
    #[error(transparent)]
    GoogleDrive(#[from] GoogleDriveError),
    /// The file does not fit on the disk.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// Another process is writing the same file.
    #[error("`{part}` is being written by another process")]
    Busy {
        /// The locked file.
        part: PathBuf,
    },
    /// The user stopped it; what came so far is kept and the next run goes on there.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Hint for DownloadError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Address { .. } => "an address starts with `https://` or `http://`".into(),
            Self::Unreachable { .. } => {
                "check the network and HTTPS_PROXY, or download the file elsewhere and give its path".into()
            }
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => "the server wants a login; download the file in a browser and give its path".into(),
                404 | 410 => "the address is out of date or misspelt; open it in a browser".into(),
                429 => "the server asks for fewer requests; wait an hour and run again".into(),
                _ => "the fault is at the server; run again later, the download resumes".into(),
            },
            Self::Truncated { part, .. } => format!("run again: the download goes on from `{}`", part.display()),
            Self::Checksum { .. } => {
                "the file was deleted; check the expected value, or that the file at the address is the one you mean".into()
            }
            Self::WebPage { .. } => {
                "the address shows a page about the file; give the address of the file itself".into()
            }
            Self::GoogleDrive(error) => return error.hint(),
            Self::NoSpace(error) => return error.hint(),
            Self::Busy { .. } => "wait until the other run ends".into(),
            Self::Cancelled(_) => "run again: the download goes on where it stopped".into(),
            Self::Io(_) => return None,
        })
    }
}

/// Downloads `url` to `destination`.
///
/// A file that is already there and has the checksum is kept without asking the server; without a
/// checksum it is replaced. A `.part` file of the same address is resumed if the server still has
/// the same version.
///
/// # Errors
/// See [`DownloadError`]; `destination` is then as it was.
pub fn download(
    url: &str,
    destination: &Path,
    checksum: Option<&Checksum>,
    progress: &dyn Progress,
) -> Result<Downloaded, DownloadError> {
    Downloader::default().download(url, destination, checksum, progress)
}

/// Patience of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloader {
    /// Attempts before giving up; each goes on where the last one broke.
    pub attempts: u32,
    /// Pause after the first failure; it doubles after each, up to 30 seconds.
    pub first_pause: Duration,
    /// Longest silence of the server.
    pub read_timeout: Duration,
}

impl Default for Downloader {
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_millis(500), read_timeout: Duration::from_mins(1) }
    }
}

impl Downloader {
    /// [`download`] with this patience.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub fn download(
        &self,
        url: &str,
        destination: &Path,
        checksum: Option<&Checksum>,
        progress: &dyn Progress,
    ) -> Result<Downloaded, DownloadError> {
        let agent = self.agent(concat!("nephros/", env!("CARGO_PKG_VERSION")));
        self.fetch(url, destination, checksum, progress, &|range| {
            range.apply(agent.get(url)).call().map_err(|error| OpenError::Client(Box::new(error)))
        })
    }

    /// A client with this patience that leaves the status to its caller.
    pub(super) fn agent(&self, user_agent: &str) -> Agent {
        Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(user_agent)
            // A compressed transfer would make lengths and ranges count something else.
            .accept_encoding("identity")
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(self.read_timeout))
            .timeout_per_read(Some(self.read_timeout))
            .build()
            .into()
    }

    /// The loop around `open`, which asks for the file from some byte on.
    pub(super) fn fetch(
        &self,
        url: &str,
        destination: &Path,
        checksum: Option<&Checksum>,
        progress: &dyn Progress,
        open: &Open<'_>,
    ) -> Result<Downloaded, DownloadError> {
        if let Some(checksum) = checksum
            && destination.is_file()
            && checksum.compare(destination)?.is_none()
        {
            return downloaded(destination);
        }
        let mut part = Part::open(url, destination)?;
        let name = destination.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut resumed = self.transfer(url, &mut part, &name, progress, open)?;
        if resumed && checksum.map(|sum| sum.compare(&part.path)).transpose()?.flatten().is_some() {
            // The older bytes may be the wrong ones: once more from the start.
            part.restart()?;
            resumed = self.transfer(url, &mut part, &name, progress, open)?;
        }
        tracing::debug!(url, resumed, "download complete");
        part.file.sync_all()?;
        if let Some((algorithm, expected, got)) =
            checksum.map(|sum| sum.compare(&part.path)).transpose()?.flatten()
        {
            part.delete()?;
            return Err(DownloadError::Checksum { url: url.into(), algorithm, expected, got });
        }
        part.publish(destination)?;
        downloaded(destination)
    }

    /// Fills `part`; whether some of it came from an earlier attempt.
    fn transfer(
        &self,
        url: &str,
        part: &mut Part,
        name: &str,
        progress: &dyn Progress,
        open: &Open<'_>,
    ) -> Result<bool, DownloadError> {
        let mut resumed = false;
        let mut pause = self.first_pause;
        for attempt in 1.. {
            progress::check(progress)?;
            resumed |= part.length > 0;
            let failure = match attempt_once(url, part, name, progress, open)? {
                Attempt::Complete => return Ok(resumed),
                Attempt::Failed(failure) => failure,
            };
            if attempt >= self.attempts {
                return Err(failure.into_error(url, attempt, part));
            }
            tracing::warn!(url, attempt, "download interrupted, trying again: {failure}");
            wait(failure.retry_after().unwrap_or(pause), progress)?;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Ok(resumed)
    }
}

const MAX_PAUSE: Duration = Duration::from_secs(30);
const BLOCK: usize = 256 * 1024;

/// Asks for the file from some byte on.
pub(super) type Open<'a> = dyn Fn(&Range) -> Result<Response<Body>, OpenError> + 'a;

/// Why there is no answer to read a body from.
pub(super) enum OpenError {
    /// The client failed: worth another attempt, unless the address is wrong.
    Client(Box<ureq::Error>),
    /// Google Drive said why not.
    GoogleDrive(GoogleDriveError),
}

/// From which byte on, and of which version.
pub(super) struct Range(Option<(u64, String)>);

impl Range {
    /// Adds `Range` and `If-Range` unless the whole file is wanted.
    pub(super) fn apply<S>(&self, request: ureq::RequestBuilder<S>) -> ureq::RequestBuilder<S> {
        match &self.0 {
            None => request,
            Some((from, validator)) => request
                .header(header::RANGE, format!("bytes={from}-"))
                .header(header::IF_RANGE, validator.as_str()),
        }
    }
}

enum Attempt {
    Complete,
    Failed(Failure),
}

/// A failure that another attempt may cure.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Client(Box<ureq::Error>),
    #[error("the server answered {0}")]
    Status(StatusCode, Option<Duration>),
    #[error("{got} of {expected} bytes came")]
    Truncated { expected: u64, got: u64 },
    #[error("the connection broke: {0}")]
    Read(io::Error),
    #[error("the server does not continue the file")]
    Range,
}

impl Failure {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(_, after) => after.map(|after| after.min(MAX_PAUSE)),
            _ => None,
        }
    }

    fn into_error(self, url: &str, attempts: u32, part: &Part) -> DownloadError {
        let url = url.to_owned();
        match self {
            Self::Client(source) => DownloadError::Unreachable { url, attempts, source },
            Self::Status(status, _) => DownloadError::Status { url, status },
            Self::Truncated { expected, got } => {
                DownloadError::Truncated { url, expected, got, part: part.path.clone() }
            }
            Self::Read(error) => {
                DownloadError::Unreachable { url, attempts, source: Box::new(ureq::Error::Io(error)) }
            }
            Self::Range => DownloadError::Status { url, status: StatusCode::RANGE_NOT_SATISFIABLE },
        }
    }
}

fn attempt_once(
    url: &str,
    part: &mut Part,
    name: &str,
    progress: &dyn Progress,
    open: &Open<'_>,
) -> Result<Attempt, DownloadError> {
    let response = match open(&part.range()) {
        Ok(response) => response,
        Err(OpenError::GoogleDrive(error)) => return Err(error.into()),
        Err(OpenError::Client(error)) => {
            return match *error {
                ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                    Err(DownloadError::Address { url: url.into(), source: error })
                }
                _ => Ok(Attempt::Failed(Failure::Client(error))),
            };
        }
    };
    if let Some(attempt) = judge(url, part, &response)? {
        return Ok(attempt);
    }
    if response.body().mime_type() == Some("text/html") {
        part.delete()?;
        return Err(DownloadError::WebPage { url: url.into(), title: page_title(response) });
    }
    receive(response, part, name, progress)
}

/// What the status means; `None` when the body is to be read.
fn judge(url: &str, part: &mut Part, response: &Response<Body>) -> Result<Option<Attempt>, DownloadError> {
    let status = response.status();
    let headers = response.headers();
    let range = content_range(headers);
    let failed = |failure| Ok(Some(Attempt::Failed(failure)));
    match status {
        StatusCode::OK => {
            part.begin(url, headers)?;
            Ok(None)
        }
        StatusCode::PARTIAL_CONTENT if range.as_ref().and_then(|range| range.first) == Some(part.length) => {
            Ok(None)
        }
        // The file was whole already.
        StatusCode::RANGE_NOT_SATISFIABLE
            if part.length > 0 && range.as_ref().and_then(|range| range.total) == Some(part.length) =>
        {
            Ok(Some(Attempt::Complete))
        }
        // Another part than asked for, or the file has become shorter.
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            part.restart()?;
            failed(Failure::Range)
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            failed(Failure::Status(status, retry_after(headers)))
        }
        _ if status.is_server_error() => failed(Failure::Status(status, retry_after(headers))),
        _ => Err(DownloadError::Status { url: url.into(), status }),
    }
}

/// Appends the body to `part`.
fn receive(
    response: Response<Body>,
    part: &mut Part,
    name: &str,
    progress: &dyn Progress,
) -> Result<Attempt, DownloadError> {
    let length = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let expected = length.map(|length| part.length.saturating_add(length));
    files::ensure_space(&part.path, length.unwrap_or(0))?;
    let task = progress.task(&format!("download {name}"), expected, Unit::Bytes);
    task.advance(part.length);
    let mut body = response.into_body().into_reader();
    let mut block = vec![0; BLOCK];
    loop {
        progress::check(progress)?;
        match body.read(&mut block) {
            Ok(0) => break,
            Ok(count) => part.append(&block[..count], task.as_ref())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Ok(Attempt::Failed(match expected {
                    Some(expected) => Failure::Truncated { expected, got: part.length },
                    None => Failure::Read(error),
                }));
            }
        }
    }
    match expected {
        Some(expected) if part.length != expected => {
            Ok(Attempt::Failed(Failure::Truncated { expected, got: part.length }))
        }
        _ => Ok(Attempt::Complete),
    }
}

/// The unfinished file, locked while it is open.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    /// Strong ETag or date of the version that the bytes belong to.
    validator: Option<String>,
}

impl Part {
    fn open(url: &str, destination: &Path) -> Result<Self, DownloadError> {
        if let Some(folder) = destination.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let path = with_suffix(destination, ".part");
        let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(DownloadError::Busy { part: path }),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        let validator = fs_err::read_to_string(with_suffix(&path, ".origin"))
            .ok()
            .and_then(|text| text.strip_prefix(url)?.strip_prefix('\n').map(str::to_owned))
            .filter(|validator| !validator.is_empty());
        let mut part = Self { length: file.metadata()?.len(), path, file, validator };
        if part.validator.is_none() {
            part.restart()?;
        }
        part.file.seek(SeekFrom::End(0))?;
        Ok(part)
    }

    fn range(&self) -> Range {
        Range(self.validator.clone().filter(|_| self.length > 0).map(|validator| (self.length, validator)))
    }

    /// A whole file follows.
    fn begin(&mut self, url: &str, headers: &HeaderMap) -> io::Result<()> {
        self.restart()?;
        self.validator = validator(headers);
        if let Some(validator) = &self.validator {
            files::write_atomic(&self.origin(), format!("{url}\n{validator}").as_bytes())?;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], task: &dyn Task) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        task.advance(bytes.len() as u64);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.validator = None;
        remove_if_there(&self.origin())?;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        Ok(())
    }

    fn delete(&mut self) -> io::Result<()> {
        remove_if_there(&self.origin())?;
        remove_if_there(&self.path)
    }

    fn publish(&self, destination: &Path) -> io::Result<()> {
        fs_err::rename(&self.path, destination)?;
        remove_if_there(&self.origin())
    }

    fn origin(&self) -> PathBuf {
        with_suffix(&self.path, ".origin")
    }
}

impl Checksum {
    /// `None` when the file is right, else the algorithm, the expected digits and the file's.
    pub(super) fn compare(&self, path: &Path) -> io::Result<Option<(&'static str, String, String)>> {
        let (algorithm, expected, got) = match self {
            Self::Sha256(expected) | Self::Sha256Prefix(expected) => {
                ("SHA-256", expected, digest::sha256_file(path)?)
            }
            Self::Md5(expected) => ("MD5", expected, md5_file(path)?),
        };
        let expected = expected.to_ascii_lowercase();
        let right = match self {
            Self::Sha256Prefix(_) => !expected.is_empty() && got.starts_with(&expected),
            Self::Sha256(_) | Self::Md5(_) => got == expected,
        };
        Ok((!right).then_some((algorithm, expected, got)))
    }
}

/// MD5 of a file, lower-case hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn md5_file(path: &Path) -> io::Result<String> {
    let mut hasher = Md5::new();
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(digest::hex(&hasher.finalize())),
            count => hasher.update(&block[..count]),
        }
    }
}

pub(super) fn downloaded(path: &Path) -> Result<Downloaded, DownloadError> {
    let bytes = fs_err::metadata(path)?.len();
    Ok(Downloaded { path: path.into(), bytes, sha256: digest::sha256_file(path)? })
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What `If-Range` accepts: a strong ETag, else the date (RFC 9110 section 13.1.5).
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(header::ETAG)
        .filter(|etag| !etag.starts_with("W/"))
        .or_else(|| text(header::LAST_MODIFIED))
        .map(str::to_owned)
}

struct ContentRange {
    first: Option<u64>,
    total: Option<u64>,
}

/// `bytes 5-9/10` or `bytes */10`.
fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-').and_then(|(first, _)| first.parse().ok());
    Some(ContentRange { first, total: total.parse().ok() })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn page_title(response: Response<Body>) -> String {
    let page = read_page(response).unwrap_or_default();
    super::google_drive::title(&page)
}

/// The first MiB of a page; undecodable bytes are replaced.
pub(super) fn read_page(response: Response<Body>) -> io::Result<String> {
    let mut bytes = Vec::new();
    response.into_body().into_reader().take(1 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wait(pause: Duration, progress: &dyn Progress) -> Result<(), Cancelled> {
    const STEP: Duration = Duration::from_millis(50);
    let mut left = pause;
    while !left.is_zero() {
        progress::check(progress)?;
        let step = left.min(STEP);
        std::thread::sleep(step);
        left -= step;
    }
    Ok(())
}
