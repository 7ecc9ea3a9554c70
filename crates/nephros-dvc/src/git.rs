//! What DVC keeps is not for git: `.gitignore`, and what git has already.

use std::{io, path::Path, process::Command};

use crate::{error::DvcError, files, ignore_files::IgnoreFiles, pipeline::Stage, place::RepoPath};

const GITIGNORE: &str = ".gitignore";

/// The folder that holds `.git`, here or above.
pub fn root_of(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.join(".git").exists())
}

/// Those of `places` that git keeps, or has something of below them. Where there is no git, or it does not
/// answer, there are none.
///
/// # Errors
/// `git` cannot be started, though it is there.
pub fn tracked(root: &Path, places: &[&RepoPath]) -> io::Result<Vec<RepoPath>> {
    if places.is_empty() || root_of(root).is_none() {
        return Ok(Vec::new());
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["--literal-pathspecs", "ls-files", "-z", "--"]);
    git.args(places.iter().map(|place| place.as_str()));
    let output = match git.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    if !output.status.success() {
        return Ok(Vec::new());
    }
    let listed: Vec<RepoPath> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|name| RepoPath::root().join(std::str::from_utf8(name).ok()?))
        .collect();
    let has = |place: &RepoPath| listed.iter().any(|file| place.contains(file));
    Ok(places.iter().filter(|place| has(place)).map(|place| (*place).clone()).collect())
}

/// The first out of a stage's that is for the cache and that git has.
pub fn tracked_out<'s>(stage: &'s Stage, tracked: &[RepoPath]) -> Option<&'s RepoPath> {
    let mut outs = stage.outs.iter().filter(|out| out.cache).map(|out| &out.place);
    outs.find(|place| tracked.contains(place))
}

/// Refuses a stage that has such an out.
///
/// # Errors
/// [`DvcError::TrackedOut`].
pub fn refuse_tracked(stage: &Stage, tracked: &[RepoPath]) -> Result<(), DvcError> {
    tracked_out(stage, tracked).map_or(Ok(()), |place| {
        Err(DvcError::TrackedOut { stage: stage.name.clone(), path: place.to_string() })
    })
}

/// Adds a line for `path` to the `.gitignore` beside it, unless git ignores it already or is not used.
/// `is_dir` says what will be there.
///
/// # Errors
/// The file cannot be read or written.
pub fn ignore(path: &Path, is_dir: bool) -> io::Result<()> {
    let folder = files::folder_of(path);
    let (Some(root), Some(name)) = (root_of(folder), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let Some(place) = RepoPath::of(root, path) else { return Ok(()) };
    if IgnoreFiles::new(root, GITIGNORE).ignores(&place, is_dir) {
        return Ok(());
    }
    let file = folder.join(GITIGNORE);
    let mut text = match fs_err::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push('/');
    for character in name.chars() {
        if "*?[]!#\\".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('\n');
    files::write_atomic(&file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs_err::create_dir_all(root.join("a")).unwrap();
        ignore(&root.join("a/out"), true).unwrap();
        assert!(!root.join("a/.gitignore").exists(), "there is no git");
        fs_err::create_dir(root.join(".git")).unwrap();
        fs_err::write(root.join(".gitignore"), "/ignored/").unwrap();
        for _ in 0..2 {
            ignore(&root.join("a/out"), true).unwrap();
            ignore(&root.join("a/b[1]"), false).unwrap();
            ignore(&root.join("ignored"), true).unwrap();
        }
        assert_eq!(fs_err::read_to_string(root.join("a/.gitignore")).unwrap(), "/out\n/b\\[1\\]\n");
        assert_eq!(fs_err::read_to_string(root.join(".gitignore")).unwrap(), "/ignored/");
    }
}
