//! Files of runs and models, through the server's own artifact service.

use std::{fmt::Write as _, io, path::Path};

use serde::Deserialize;
use serde_json::Value;
use ureq::http::Method;

use super::{
    Server, ServerError,
    client::{quote, read},
};

/// Path of the artifact service.
const SERVICE: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// A file or folder in a folder of artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Listed {
    /// Name, or path from the folder that was listed.
    pub(super) path: String,
    /// Whether it is a folder.
    #[serde(default)]
    pub(super) is_dir: bool,
    /// Bytes.
    #[serde(default)]
    pub(super) file_size: Option<u64>,
}

impl Server {
    /// Uploads a file to `path` below an artifact location.
    ///
    /// # Errors
    /// [`ServerError::NoArtifacts`] where the server does not serve them; see [`ServerError`].
    pub fn upload(&self, location: &str, path: &str, file: &Path) -> Result<(), ServerError> {
        let target = format!("{SERVICE}/{}", encoded(&format!("{}/{path}", self.below(location)?)));
        let length = fs_err::metadata(file)?.len();
        let answer = self.client.send(|| {
            let head = self.client.request(&Method::PUT, &target).header("content-length", length);
            let head = head.header("content-type", "application/octet-stream");
            head.body(fs_err::File::open(file)?.into_parts().0).map_err(io::Error::other)
        });
        let response = match answer {
            Err(ServerError::Failing { status: 503, .. }) => return Err(self.no_artifacts(location)),
            other => other?,
        };
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(());
        }
        let (url, text) = (format!("{}{target}", self.url()), read(response));
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if value["message"].is_string() => Err(ServerError::Refused {
                url,
                code: value["error_code"].as_str().unwrap_or_default().to_owned(),
                message: value["message"].as_str().unwrap_or_default().to_owned(),
            }),
            _ if status == 404 => Err(self.no_artifacts(location)),
            _ => Err(ServerError::NotJson { url, status, text: quote(&text) }),
        }
    }

    /// What is in the folder `path` of an artifact location; nothing where there is no such folder.
    pub(super) fn list(&self, location: &str, path: &str) -> Result<Vec<Listed>, ServerError> {
        let folder = self.below(location)?;
        let folder = if path.is_empty() { folder } else { format!("{folder}/{path}") };
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("path", &folder).finish();
        let answer = match self.client.json(&Method::GET, &format!("{SERVICE}?{query}"), None) {
            Err(ServerError::Failing { status: 503, .. }) => return Err(self.no_artifacts(location)),
            other => other?,
        };
        Ok(answer.get("files").and_then(|files| Vec::deserialize(files).ok()).unwrap_or_default())
    }

    /// Downloads the file `path` of an artifact location to `target`; `false` where there is none.
    pub(super) fn download(&self, location: &str, path: &str, target: &Path) -> Result<bool, ServerError> {
        let source = format!("{SERVICE}/{}", encoded(&format!("{}/{path}", self.below(location)?)));
        let response = self
            .client
            .send(|| self.client.request(&Method::GET, &source).body(()).map_err(io::Error::other));
        let response = match response {
            // MLflow 3 says 500 for a file that is not there.
            Err(ServerError::Failing { status: 503, .. }) => return Err(self.no_artifacts(location)),
            other => other?,
        };
        if response.status() == 404 {
            return Ok(false);
        }
        let status = response.status().as_u16();
        if status >= 400 {
            let url = format!("{}{source}", self.url());
            return Err(ServerError::NotJson { url, status, text: quote(&read(response)) });
        }
        if let Some(folder) = target.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let mut file = fs_err::File::create(target)?;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        io::copy(&mut body, &mut file)?;
        file.sync_all()?;
        Ok(true)
    }

    /// The path in the artifact service that a location names.
    fn below(&self, location: &str) -> Result<String, ServerError> {
        let rest = location.strip_prefix("mlflow-artifacts:").ok_or_else(|| self.no_artifacts(location))?;
        // `mlflow-artifacts://host:port/path` names a server; it is the one that said so.
        let path = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
            None => rest,
        };
        Ok(path.trim_matches('/').to_owned())
    }

    fn no_artifacts(&self, location: &str) -> ServerError {
        ServerError::NoArtifacts { url: self.url().to_owned(), location: location.to_owned() }
    }
}

/// A path with every byte escaped that has a meaning in an address.
fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
