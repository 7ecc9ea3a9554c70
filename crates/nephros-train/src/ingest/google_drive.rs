//! Google Drive's page dance: from a sharing link to the file's bytes.
//!
//! `GET /uc?id=ID` answers with the file (it then has a `Content-Disposition`), with a page whose
//! form or link leads on to it, or with a page that says why not. Each of the latter is an error of
//! its own, because each asks for something else from the user.

use std::path::Path;

use nephros_core::hint::Hint;
use scraper::{Html, Selector};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, header},
};
use url::Url;

use super::download::{Checksum, DownloadError, Downloaded, Downloader, OpenError, Range, read_page};
use crate::progress::Progress;

/// Where Google Drive is.
pub const BASE: &str = "https://drive.google.com";

// Drive answers clients that it does not know with other pages.
const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

/// Warning page, file; one more in case of another interposed page.
const MAX_PAGES: usize = 4;
const MAX_REDIRECTS: usize = 10;

/// A file on Google Drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveFile {
    /// The file's identifier.
    pub id: String,
    /// Second half of the secret in links made before 2021.
    pub resource_key: Option<String>,
}

/// Why Google Drive does not give the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoogleDriveError {
    /// A Google Drive address without a file in it.
    #[error("Google Drive link `{link}` names no file")]
    Link {
        /// The address.
        link: String,
    },
    /// A link to a folder.
    #[error("Google Drive link `{link}` is a folder, expected a file")]
    Folder {
        /// The address.
        link: String,
    },
    /// Too many downloads of the file by anybody.
    #[error("Google Drive refuses `{id}`, its download quota is used up: {message}")]
    Quota {
        /// The file.
        id: String,
        /// What the page says.
        message: String,
    },
    /// The file is not public.
    #[error("Google Drive wants a sign-in for `{id}`: the file is not shared with everyone")]
    SignIn {
        /// The file.
        id: String,
    },
    /// The file is shared with others only.
    #[error("Google Drive denies access to `{id}`")]
    Denied {
        /// The file.
        id: String,
    },
    /// No such file, or deleted.
    #[error("Google Drive has no file `{id}`")]
    NotFound {
        /// The file.
        id: String,
    },
    /// This network asked too often.
    #[error("Google Drive refuses further requests from this network (asked for `{id}`)")]
    TooManyRequests {
        /// The file.
        id: String,
    },
    /// An error page with a text of its own.
    #[error("Google Drive refuses `{id}`: {message}")]
    Refused {
        /// The file.
        id: String,
        /// What the page says.
        message: String,
    },
    /// A page without a file, a way to it, or a known reason.
    #[error("Google Drive answered for `{id}` with a page titled `{title}`, expected the file")]
    UnknownPage {
        /// The file.
        id: String,
        /// The page's title, possibly empty.
        title: String,
    },
}

impl Hint for GoogleDriveError {
    fn hint(&self) -> Option<String> {
        let by_hand = "download it in a browser and set `source_URL` to the file's path";
        Some(match self {
            Self::Link { .. } => {
                "use the link of the file's Share button: `https://drive.google.com/file/d/…/view`".into()
            }
            Self::Folder { .. } => "share one zip file, or download the folder and give its path".into(),
            Self::Quota { .. } => format!("wait up to 24 hours, or {by_hand}"),
            Self::SignIn { .. } | Self::Denied { .. } => {
                format!("ask its owner to share it with anyone who has the link, or {by_hand}")
            }
            Self::NotFound { .. } => "check the link in `source_URL`; the file may have been deleted".into(),
            Self::TooManyRequests { .. } => format!("wait an hour, or {by_hand}"),
            Self::Refused { .. } | Self::UnknownPage { .. } => by_hand.into(),
        })
    }
}

impl DriveFile {
    /// The file of a sharing link in any of its forms; `None` when the address is not Google
    /// Drive's.
    ///
    /// # Errors
    /// [`GoogleDriveError::Link`] and [`GoogleDriveError::Folder`].
    pub fn from_link(link: &str) -> Result<Option<Self>, GoogleDriveError> {
        let Ok(url) = Url::parse(link.trim()) else { return Ok(None) };
        let hosts = ["drive.google.com", "docs.google.com", "drive.usercontent.google.com"];
        if !url.host_str().is_some_and(|host| hosts.contains(&host)) {
            return Ok(None);
        }
        let query =
            |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let segments: Vec<&str> = url.path_segments().into_iter().flatten().collect();
        let in_path = segments.iter().position(|segment| *segment == "d").and_then(|at| segments.get(at + 1));
        let id = in_path.map(ToString::to_string).or_else(|| query("id")).filter(|id| is_id(id));
        match id {
            Some(id) => Ok(Some(Self { id, resource_key: query("resourcekey") })),
            None if segments.contains(&"folders") => Err(GoogleDriveError::Folder { link: link.into() }),
            None => Err(GoogleDriveError::Link { link: link.into() }),
        }
    }

    /// Downloads the file; `base` is [`BASE`] but for tests.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub fn download(
        &self,
        base: &str,
        downloader: &Downloader,
        destination: &Path,
        checksum: Option<&Checksum>,
        progress: &dyn Progress,
    ) -> Result<Downloaded, DownloadError> {
        let agent = downloader.agent(USER_AGENT);
        let start = self.start(base)?;
        downloader.fetch(start.as_str(), destination, checksum, progress, &|range| {
            self.open(&agent, start.clone(), range)
        })
    }

    fn start(&self, base: &str) -> Result<Url, GoogleDriveError> {
        let link = || GoogleDriveError::Link { link: base.into() };
        let mut url = Url::parse(base).and_then(|base| base.join("/uc")).map_err(|_| link())?;
        url.query_pairs_mut().append_pair("id", &self.id);
        if let Some(key) = &self.resource_key {
            url.query_pairs_mut().append_pair("resourcekey", key);
        }
        Ok(url)
    }

    /// Walks the pages until one is the file.
    fn open(&self, agent: &Agent, start: Url, range: &Range) -> Result<Response<Body>, OpenError> {
        let mut url = start;
        let mut cookies = Cookies::default();
        let mut title = String::new();
        for _ in 0..MAX_PAGES {
            let (at, response) = follow(agent, &mut cookies, url, range)?;
            if is_file(&response) || response.status().is_server_error() {
                return Ok(response);
            }
            let status = response.status();
            let text =
                read_page(response).map_err(|error| OpenError::Client(Box::new(ureq::Error::Io(error))))?;
            let page = Page { status, at, document: Html::parse_document(&text), text };
            if let Some(error) = self.error_of(&page) {
                return Err(OpenError::GoogleDrive(error));
            }
            title = page.title();
            match page.way_on() {
                Some(next) => url = next,
                None => break,
            }
        }
        Err(OpenError::GoogleDrive(GoogleDriveError::UnknownPage { id: self.id.clone(), title }))
    }

    /// What the page complains about, if it does.
    fn error_of(&self, page: &Page) -> Option<GoogleDriveError> {
        let id = self.id.clone();
        let title = page.title().to_lowercase();
        let message =
            page.first_text("p.uc-error-subcaption").or_else(|| page.first_text("p.uc-error-caption"));
        if page.status == StatusCode::TOO_MANY_REQUESTS || page.text.contains("unusual traffic") {
            return Some(GoogleDriveError::TooManyRequests { id });
        }
        if title.contains("quota exceeded")
            || message.as_deref().is_some_and(|text| text.contains("Too many users"))
        {
            return Some(GoogleDriveError::Quota { id, message: message.unwrap_or_else(|| page.title()) });
        }
        if let Some(message) = message {
            return Some(GoogleDriveError::Refused { id, message });
        }
        if page.at.host_str() == Some("accounts.google.com")
            || page.at.path().contains("ServiceLogin")
            || page.first("#gaia_loginform").is_some()
            || title.contains("sign-in")
        {
            return Some(GoogleDriveError::SignIn { id });
        }
        if page.status == StatusCode::NOT_FOUND || page.status == StatusCode::GONE {
            return Some(GoogleDriveError::NotFound { id });
        }
        let denied = matches!(page.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)
            || title.contains("access denied")
            || page.text.contains("You need access");
        denied.then_some(GoogleDriveError::Denied { id })
    }
}

/// Asks for `url` and follows redirects, with cookies on every hop; the last address comes back too.
fn follow(
    agent: &Agent,
    cookies: &mut Cookies,
    mut url: Url,
    range: &Range,
) -> Result<(Url, Response<Body>), OpenError> {
    let client = |error| OpenError::Client(Box::new(error));
    for _ in 0..MAX_REDIRECTS {
        let mut request = range.apply(agent.get(url.as_str()));
        if let Some(value) = cookies.header(&url) {
            request = request.header(header::COOKIE, value);
        }
        // The client's own redirects would lose the cookies of the hops between.
        let response = request.config().max_redirects(0).build().call().map_err(client)?;
        cookies.store(&url, response.headers());
        let target = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        match target.and_then(|target| web_address(&url, target)) {
            Some(next) if response.status().is_redirection() => url = next,
            _ => return Ok((url, response)),
        }
    }
    Err(client(ureq::Error::TooManyRedirects))
}

/// Cookies of one dance: `(domain, name, value)`. Paths and dates do not matter for that long.
#[derive(Debug, Default)]
struct Cookies(Vec<(String, String, String)>);

impl Cookies {
    fn store(&mut self, url: &Url, headers: &HeaderMap) {
        let Some(host) = url.host_str() else { return };
        for cookie in headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let mut parts = cookie.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let domain = parts
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.eq_ignore_ascii_case("domain"))
                .map(|(_, domain)| domain.trim_start_matches('.').to_lowercase())
                // A host may only set cookies for itself and the domains above it.
                .filter(|domain| domain.contains('.') && covers(domain, host))
                .unwrap_or_else(|| host.to_owned());
            self.0.retain(|(at, key, _)| (at, key.as_str()) != (&domain, name));
            self.0.push((domain, name.to_owned(), value.to_owned()));
        }
    }

    fn header(&self, url: &Url) -> Option<String> {
        let host = url.host_str()?;
        let pairs: Vec<String> = self
            .0
            .iter()
            .filter(|(domain, ..)| covers(domain, host))
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

/// Whether `host` is `domain` or below it.
fn covers(domain: &str, host: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn web_address(base: &Url, target: &str) -> Option<Url> {
    base.join(target).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// The title of an HTML page, possibly empty.
pub(super) fn title(page: &str) -> String {
    first_text(&Html::parse_document(page), "title").unwrap_or_default()
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
}

fn is_file(response: &Response<Body>) -> bool {
    let status = response.status();
    status == StatusCode::RANGE_NOT_SATISFIABLE
        || (status.is_success()
            && (response.headers().contains_key(header::CONTENT_DISPOSITION)
                || response.body().mime_type() != Some("text/html")))
}

struct Page {
    status: StatusCode,
    at: Url,
    document: Html,
    text: String,
}

impl Page {
    fn first(&self, css: &str) -> Option<scraper::ElementRef<'_>> {
        first(&self.document, css)
    }

    fn first_text(&self, css: &str) -> Option<String> {
        first_text(&self.document, css)
    }

    fn title(&self) -> String {
        self.first_text("title").unwrap_or_default()
    }

    /// The address that the page's form, link or script leads to.
    fn way_on(&self) -> Option<Url> {
        self.form_target().or_else(|| self.link_target()).or_else(|| self.script_target())
    }

    /// The virus scan warning's form, sent as a browser sends it: hidden inputs as the query.
    fn form_target(&self) -> Option<Url> {
        let form = self.first("form#download-form")?;
        let mut url = self.join(form.attr("action")?)?;
        let hidden = Selector::parse("input[type=hidden][name]").ok()?;
        let inputs: Vec<(&str, &str)> = form
            .select(&hidden)
            .filter_map(|input| Some((input.attr("name")?, input.attr("value").unwrap_or(""))))
            .collect();
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .into_owned()
            .filter(|(key, _)| !inputs.iter().any(|(name, _)| name == key))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(inputs);
        Some(url)
    }

    fn link_target(&self) -> Option<Url> {
        self.join(self.first(r#"a[href^="/uc?export=download"]"#)?.attr("href")?)
    }

    /// `"downloadUrl":"…"` of the viewer's script, a JSON string.
    fn script_target(&self) -> Option<Url> {
        let start = self.text.find(r#""downloadUrl":""#)? + r#""downloadUrl":"#.len();
        let rest = &self.text[start..];
        let end = rest.get(1..)?.find('"')? + 2;
        self.join(&serde_json::from_str::<String>(rest.get(..end)?).ok()?)
    }

    fn join(&self, target: &str) -> Option<Url> {
        web_address(&self.at, target)
    }
}

fn first<'a>(document: &'a Html, css: &str) -> Option<scraper::ElementRef<'a>> {
    document.select(&Selector::parse(css).ok()?).next()
}

fn first_text(document: &Html, css: &str) -> Option<String> {
    let text: String = first(document, css)?.text().collect();
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_form_gives_the_id() {
        let id = "1vlhZ5c7abUKF8xXERIw6m9Te8fW7ohw3";
        for link in [
            format!("https://drive.google.com/file/d/{id}/view?usp=sharing"),
            format!("https://drive.google.com/file/u/0/d/{id}/view"),
            format!("https://drive.google.com/open?id={id}"),
            format!("https://drive.google.com/uc?id={id}"),
            format!("https://drive.google.com/uc?export=download&id={id}"),
            format!("https://drive.google.com/uc?/export=download&id={id}"),
            format!("https://drive.usercontent.google.com/download?id={id}&export=download"),
        ] {
            let file = DriveFile::from_link(&link).unwrap().unwrap();
            assert_eq!(file, DriveFile { id: id.into(), resource_key: None }, "{link}");
        }
    }

    #[test]
    fn a_resource_key_is_kept() {
        let file = DriveFile::from_link("https://drive.google.com/file/d/AbC/view?resourcekey=0-xy")
            .unwrap()
            .unwrap();
        assert_eq!(file.start(BASE).unwrap().as_str(), "https://drive.google.com/uc?id=AbC&resourcekey=0-xy");
    }

    #[test]
    fn other_addresses_are_not_google_drive() {
        assert_eq!(DriveFile::from_link("https://example.org/file/d/abc/view").unwrap(), None);
        assert_eq!(DriveFile::from_link("data/kidney.zip").unwrap(), None);
    }

    #[test]
    fn links_without_a_file_are_refused() {
        let folder = DriveFile::from_link("https://drive.google.com/drive/folders/1abc?usp=sharing");
        assert!(matches!(folder, Err(GoogleDriveError::Folder { .. })));
        for link in ["https://drive.google.com/drive/my-drive", "https://drive.google.com/uc?id=a/../b"] {
            assert!(matches!(DriveFile::from_link(link), Err(GoogleDriveError::Link { .. })), "{link}");
        }
    }
}
