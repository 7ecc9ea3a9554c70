//! Where runs go, from MLflow's own variables and `~/.mlflow/credentials`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use url::Url;

use crate::store;

/// Names the embedded store's file or a server.
pub const TRACKING_URI: &str = "MLFLOW_TRACKING_URI";
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";
/// Names the experiment.
pub const EXPERIMENT: &str = "MLFLOW_EXPERIMENT_NAME";

/// Where runs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// File of the embedded store; relative paths start from the project folder.
    pub store: PathBuf,
    /// The server that is fed from it.
    pub server: Option<Address>,
    /// Name of the experiment, if one is set.
    pub experiment: Option<String>,
}

/// A server and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where its paths begin, without a final slash and without credentials.
    pub url: String,
    /// How to log in.
    pub login: Login,
}

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// By HTTP basic authentication.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// By a token.
    Bearer(String),
}

/// Secrets stay out of logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Variables that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The address is none.
    #[error("MLFLOW_TRACKING_URI is `{uri}`, expected an address such as http://127.0.0.1:5000: {what}")]
    Uri {
        /// As it is set.
        uri: String,
        /// What is wrong with it.
        what: String,
    },
    /// A folder of MLflow's file store.
    #[error("MLFLOW_TRACKING_URI is `{uri}`, a file store, which MLflow 3 does not open either")]
    FileStore {
        /// As it is set.
        uri: String,
    },
    /// Another kind of store.
    #[error("MLFLOW_TRACKING_URI is `{uri}`: expected http, https or sqlite, got `{scheme}`")]
    Scheme {
        /// As it is set.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
    /// The file of credentials cannot be read.
    #[error("`{path}` cannot be read")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SettingsError {
    /// What to do about it, in a sentence.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Uri { .. } => "correct it, or unset it to keep runs in mlflow.db".into(),
            Self::FileStore { .. } => {
                "unset it: runs are kept in mlflow.db, where `mlflow ui` looks for them; \
                `mlflow migrate-filestore` converts what is in the folder"
                    .into()
            }
            Self::Scheme { .. } => {
                "start `mlflow server` on that store and name its http address, or use sqlite:///mlflow.db"
                    .into()
            }
            Self::Credentials { .. } => format!("make it readable, or set {USERNAME} and {PASSWORD}"),
        })
    }
}

impl Settings {
    /// What is used where nothing is set: the embedded store alone.
    pub fn embedded() -> Self {
        Self { store: store::FILE.into(), server: None, experiment: None }
    }

    /// Reads MLflow's variables through `variable`, and `.mlflow/credentials` below `home`. Variables win.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(
        variable: impl Fn(&str) -> Option<String>,
        home: Option<&Path>,
    ) -> Result<Self, SettingsError> {
        let set = |name: &str| {
            variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let settings = Self { experiment: set(EXPERIMENT), ..Self::embedded() };
        let Some(uri) = set(TRACKING_URI) else { return Ok(settings) };
        if let Some(path) = uri.strip_prefix("sqlite:///") {
            let path = path.split('?').next().unwrap_or_default();
            let wrong = || SettingsError::Uri { uri: uri.clone(), what: "it names no file".into() };
            let store = Some(path).filter(|path| !path.is_empty()).ok_or_else(wrong)?.into();
            return Ok(Self { store, ..settings });
        }
        let url = parse(&uri)?;
        let login = login(&url, &set, home)?;
        Ok(Self { server: Some(Address { url: plain(url), login }), ..settings })
    }
}

fn parse(uri: &str) -> Result<Url, SettingsError> {
    let wrong = |what: &str| SettingsError::Uri { uri: uri.to_owned(), what: what.to_owned() };
    let Some((scheme, rest)) = uri.split_once(':') else {
        return Err(SettingsError::FileStore { uri: uri.to_owned() });
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" if !rest.starts_with("//") => Err(wrong("`//` is missing after the colon")),
        "http" | "https" => {
            let url = Url::parse(uri).map_err(|error| wrong(&error.to_string()))?;
            if url.query().is_some() || url.fragment().is_some() {
                return Err(wrong("it has a query"));
            }
            Ok(url)
        }
        "file" => Err(SettingsError::FileStore { uri: uri.to_owned() }),
        _ if rest.starts_with("//") => {
            Err(SettingsError::Scheme { uri: uri.to_owned(), scheme: scheme.to_owned() })
        }
        "databricks" | "uc" | "databricks-uc" => {
            Err(SettingsError::Scheme { uri: uri.to_owned(), scheme: scheme.to_owned() })
        }
        _ => Err(wrong("it begins with no scheme that is known")),
    }
}

/// As MLflow does: user and password of the variables, else of the file, else of the address, then the token.
fn login(
    url: &Url,
    set: &impl Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Result<Login, SettingsError> {
    let (mut user, mut password) = (set(USERNAME), set(PASSWORD));
    if user.is_none() || password.is_none() {
        let file = home.map(credentials).transpose()?.unwrap_or_default();
        user = user.or(file.0);
        password = password.or(file.1);
    }
    if let (Some(user), Some(password)) = (user, password) {
        return Ok(Login::Basic { user, password });
    }
    if let Some(token) = set(TOKEN) {
        return Ok(Login::Bearer(token));
    }
    Ok(match url.password() {
        Some(password) => Login::Basic { user: decoded(url.username()), password: decoded(password) },
        None => Login::None,
    })
}

fn decoded(text: &str) -> String {
    // Of an address, so that `+` is no space.
    let text = text.replace('+', "%2B");
    url::form_urlencoded::parse(text.as_bytes()).next().map_or(String::new(), |(text, _)| text.into_owned())
}

/// The address without user and password, which would end up in messages.
fn plain(mut url: Url) -> String {
    // Only an address without a host refuses these, and http has one.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// User and password of the section `[mlflow]`.
fn credentials(home: &Path) -> Result<(Option<String>, Option<String>), SettingsError> {
    let path = home.join(".mlflow/credentials");
    let text = match fs_err::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
        other => other.map_err(|source| SettingsError::Credentials { path, source })?,
    };
    let mut found = (None, None);
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[mlflow]";
        } else if let Some((key, value)) = line.split_once(['=', ':']).filter(|_| inside) {
            match key.trim().to_ascii_lowercase().as_str() {
                "mlflow_tracking_username" => found.0 = Some(value.trim().to_owned()),
                "mlflow_tracking_password" => found.1 = Some(value.trim().to_owned()),
                _ => {}
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], home: Option<&Path>) -> Result<Settings, SettingsError> {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::new(find, home)
    }

    fn server(variables: &[(&str, &str)], home: Option<&Path>) -> Address {
        settings(variables, home).unwrap().server.unwrap()
    }

    fn basic(user: &str, password: &str) -> Login {
        Login::Basic { user: user.into(), password: password.into() }
    }

    #[test]
    fn nothing_set_is_the_file_that_mlflow_ui_opens() {
        assert_eq!(settings(&[], None).unwrap(), Settings::embedded());
        assert_eq!(settings(&[(TRACKING_URI, " ")], None).unwrap(), Settings::embedded());
        let named = settings(&[(TRACKING_URI, "sqlite:///runs/a.db"), (EXPERIMENT, "kidney")], None).unwrap();
        assert_eq!(named.store, Path::new("runs/a.db"));
        assert_eq!(named.experiment.as_deref(), Some("kidney"));
        let absolute = settings(&[(TRACKING_URI, "sqlite:////srv/a.db")], None).unwrap();
        assert_eq!(absolute.store, Path::new("/srv/a.db"));
    }

    #[test]
    fn a_dagshub_address_keeps_its_path() {
        let uri = "https://dagshub.com/jane/kidney-ct.mlflow/";
        let address = server(&[(TRACKING_URI, uri), (USERNAME, "jane"), (PASSWORD, "t0ken")], None);
        assert_eq!(address.url, "https://dagshub.com/jane/kidney-ct.mlflow");
        assert_eq!(address.login, basic("jane", "t0ken"));
    }

    #[test]
    fn variables_win_over_the_file_and_both_over_the_token() {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(home.path().join(".mlflow")).unwrap();
        let text = "[other]\nmlflow_tracking_username = no\n[mlflow]\nMLFLOW_TRACKING_USERNAME = file\n\
                    mlflow_tracking_password: secret\n";
        fs_err::write(home.path().join(".mlflow/credentials"), text).unwrap();
        let uri = (TRACKING_URI, "http://localhost:5000");
        assert_eq!(server(&[uri, (TOKEN, "t")], Some(home.path())).login, basic("file", "secret"));
        assert_eq!(server(&[uri, (USERNAME, "env")], Some(home.path())).login, basic("env", "secret"));
        assert_eq!(server(&[uri, (TOKEN, "t")], None).login, Login::Bearer("t".into()));
        assert_eq!(server(&[uri], None).login, Login::None);
    }

    #[test]
    fn credentials_in_an_address_are_used_and_not_shown() {
        let address = server(&[(TRACKING_URI, "http://me:p%40ss@host:5000/")], None);
        assert_eq!((address.url.as_str(), &address.login), ("http://host:5000", &basic("me", "p@ss")));
        assert!(!format!("{address:?}").contains("p@ss"));
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        for (uri, text) in [
            ("http:/host", "`//` is missing"),
            ("https://", "empty host"),
            ("http://host:99999", "invalid port"),
            ("http://host/?a=b", "it has a query"),
            ("localhost:5000", "no scheme"),
            ("./mlruns", "a file store"),
            ("file:///srv/mlruns", "a file store"),
            ("postgresql://host/db", "got `postgresql`"),
            ("databricks://profile", "got `databricks`"),
            ("sqlite:///", "names no file"),
        ] {
            let error = settings(&[(TRACKING_URI, uri)], None).unwrap_err();
            assert!(error.to_string().contains(text), "{uri}: {error}");
            assert!(error.hint().is_some());
        }
    }
}
