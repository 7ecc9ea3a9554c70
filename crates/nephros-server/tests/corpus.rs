//! What fuzzing kept, once more: the inputs of `fuzz/corpus`, and those of `fuzz/findings` that something died of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail as tests do, and what they share with the fuzzer prints"
)]

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

#[path = "../../../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "a part of it is for the fuzzer alone")]
mod nephros_fuzz;

use nephros_fuzz::{TARGETS, expand};

/// Files of a target; none where there is no such folder.
fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind).join(target);
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What a run of the fuzzer has reached more with, by name, from the archive of a target that has one.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(format!("{target}.zip"));
    let Ok(file) = fs_err::File::open(path) else { return Vec::new() };
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let entries = archive.len();
    let input = |index| {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (format!("{target}.zip: {}", entry.name().unwrap()), bytes)
    };
    (0..entries).map(input).collect()
}

/// One at a time: a process has one hook for panics.
static REPLAY: Mutex<()> = Mutex::new(());

fn replay(target: &str) {
    let _alone = REPLAY.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let panics = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&panics);
    nephros_fuzz::on_own_panics(move |text| list.lock().unwrap().push(text));
    let corpus = files("corpus", target);
    assert!(!corpus.is_empty(), "`fuzz/corpus/{target}` is empty");
    let mut found = Vec::new();
    let whole = corpus.into_iter().chain(files("findings", target));
    let whole = whole.map(|file| (file.display().to_string(), fs_err::read(&file).unwrap()));
    for (file, input) in whole.chain(kept(target)) {
        let ended = std::panic::catch_unwind(|| run(&input)).is_ok();
        let panics = std::mem::take(&mut *panics.lock().unwrap());
        if !ended || !panics.is_empty() {
            found.push(format!("`{file}`: {panics:?}"));
        }
    }
    drop(std::panic::take_hook());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn image_files() {
    replay("decode");
}

#[test]
fn request_bodies() {
    replay("body");
}

#[test]
fn zip_files() {
    replay("batch");
}

#[test]
fn bundles() {
    replay("bundle");
}

#[test]
fn keras_files() {
    replay("keras");
}

#[test]
fn an_input_stands_for_a_larger_file() {
    let file = [&[1, 0, 2][..], &[0; 4000], b"zeros", &[0; 31]].concat();
    let input = expand::pack(&file);
    // 3 + marker and count + 5 + 31.
    assert_eq!(input.len(), 3 + (6 + 4) + 5 + 31);
    assert_eq!(expand::expand(&input).unwrap(), file);
    let too_long = [expand::ZEROS, &[0xff; 4]].concat();
    assert_eq!(expand::expand(&too_long), None);
}
