//! `.gitignore`: what DVC keeps is not for git.

use std::{io, path::Path};

use crate::{files, ignore_files::IgnoreFiles, place::RepoPath};

const GITIGNORE: &str = ".gitignore";

/// The folder that holds `.git`, here or above.
pub fn root_of(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.join(".git").exists())
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
