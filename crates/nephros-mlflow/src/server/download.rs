//! Models of a server, downloaded once.

use std::{
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Server, ServerError, artifacts::Listed};
use crate::{
    digest::sha256,
    models::{BUNDLE, KERAS},
    store::artifact_path,
};

/// The file of a bundle that holds the digests of the others.
const META: &str = "bundle.json";

/// The folder of a bundle below `cache`, or a Keras file, downloaded if it is not there yet.
pub(super) fn fetch_model(
    server: &Server,
    location: &str,
    cache: &Path,
) -> Result<Option<PathBuf>, ServerError> {
    fs_err::create_dir_all(cache)?;
    for folder in [BUNDLE, ""] {
        if let Some(bundle) = fetch_bundle(server, location, folder, cache)? {
            return Ok(Some(bundle));
        }
    }
    fetch_keras(server, location, cache)
}

/// A bundle's folder is named by the digest of its `bundle.json`: the same content is downloaded once.
fn fetch_bundle(
    server: &Server,
    location: &str,
    folder: &str,
    cache: &Path,
) -> Result<Option<PathBuf>, ServerError> {
    let files: Vec<String> = server.list(location, folder)?.iter().filter_map(name).collect();
    if !files.iter().any(|file| file == META) {
        return Ok(None);
    }
    let fresh = fresh_folder(cache)?;
    let download = |file: &str| {
        let path = if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        server.download(location, &path, &fresh.path().join(file))
    };
    download(META)?;
    let target = cache.join(sha256(&fs_err::read(fresh.path().join(META))?));
    let known = target.is_dir();
    for file in files.iter().filter(|file| *file != META) {
        // The verdict of an evaluation may have come after the last download; weights have a digest.
        let may_change = Path::new(file).extension().is_some_and(|extension| extension == "json");
        if !known || may_change {
            download(file)?;
        }
        if known && may_change {
            fs_err::rename(fresh.path().join(file), target.join(file))?;
        }
    }
    if !known {
        settle(fresh, &target)?;
    }
    Ok(Some(target))
}

fn fetch_keras(server: &Server, location: &str, cache: &Path) -> Result<Option<PathBuf>, ServerError> {
    let (folder, wanted) = KERAS.rsplit_once('/').unwrap_or(("", KERAS));
    let listed = server.list(location, folder)?;
    let Some(file) = listed.iter().find(|file| name(file).as_deref() == Some(wanted)) else {
        return Ok(None);
    };
    // MLflow tells no digest: the same place and length are taken for the same file.
    let about = format!("{} {location} {:?}", server.url(), file.file_size);
    let target = cache.join(sha256(about.as_bytes()));
    if !target.is_dir() {
        let fresh = fresh_folder(cache)?;
        server.download(location, KERAS, &fresh.path().join(wanted))?;
        settle(fresh, &target)?;
    }
    Ok(Some(target.join(wanted)))
}

/// The name of a file that was listed, unless it would leave its folder.
fn name(file: &Listed) -> Option<String> {
    let name = file.path.rsplit('/').next()?;
    (!file.is_dir && artifact_path(name).is_ok()).then(|| name.to_owned())
}

fn fresh_folder(cache: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix(".download-").tempdir_in(cache)
}

/// Gives a finished download its name; one that another process finished first is as good.
fn settle(fresh: TempDir, target: &Path) -> io::Result<()> {
    let folder = fresh.keep();
    if let Err(error) = fs_err::rename(&folder, target) {
        fs_err::remove_dir_all(&folder)?;
        if !target.is_dir() {
            return Err(error);
        }
    }
    Ok(())
}
