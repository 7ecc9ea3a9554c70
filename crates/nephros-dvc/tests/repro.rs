//! What is run, what is skipped and what is brought back, without DVC.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![cfg(unix)]

mod common;

use std::{process::Command, time::Duration};

use common::Folder;
use nephros_dvc::{Change, DvcError, digest::Algorithm, measure::Measurer, state::State};

const CHAIN: &str = "\
stages:
  last: {cmd: cat middle > last, deps: [middle], outs: [last]}
  first: {cmd: cat in > first, deps: [in], outs: [first]}
  middle: {cmd: head -c 3 first > middle, deps: [first], outs: [middle]}
";

fn chain() -> Folder {
    Folder::new(CHAIN, &[("in", "abcdef")])
}

#[test]
fn only_what_changed_runs_and_what_it_reaches() {
    let folder = chain();
    assert_eq!(folder.repro(), ["running first", "running middle", "running last"]);
    assert_eq!(folder.repro(), ["unchanged first", "unchanged middle", "unchanged last"]);
    // The first three bytes stay: the last stage reads what it read before.
    folder.write("in", "abcxyz");
    assert_eq!(folder.repro(), ["running first", "running middle", "unchanged last"]);
    folder.write("in", "abcdef");
    assert_eq!(folder.repro(), ["restored first", "restored middle", "unchanged last"]);
    assert_eq!(folder.read("first"), "abcdef");
}

#[test]
fn a_target_brings_what_it_needs() {
    let folder = chain();
    assert_eq!(folder.repro_with(Some("middle"), false, false).unwrap(), ["running first", "running middle"]);
    assert!(!folder.exists("last"));
    let error = folder.repro_with(Some("median"), false, false).unwrap_err();
    assert!(error.to_string().contains("has no stage `median`"), "{error}");
    assert_eq!(error.hint().unwrap(), "it has `last`, `first`, `middle`");
}

#[test]
fn force_runs_everything_and_dry_nothing() {
    let folder = chain();
    let dry = folder.repro_with(None, false, true).unwrap();
    assert_eq!(dry, ["running first", "running middle", "running last"]);
    assert!(!folder.exists("first") && !folder.exists(".dvc") && !folder.exists("dvc.lock"));
    folder.repro();
    folder.write("in", "ABC");
    let dry = folder.repro_with(None, false, true).unwrap();
    assert_eq!(dry, ["running first", "depends middle", "depends last"]);
    assert_eq!(folder.read("first"), "abcdef");
    folder.write("in", "abcdef");
    let forced = folder.repro_with(None, true, false).unwrap();
    assert_eq!(forced, ["running first", "running middle", "running last"]);
}

#[test]
fn an_out_that_is_gone_or_spoilt_comes_back() {
    let folder = Folder::new(
        "stages:\n  a: {cmd: mkdir -p d/e && cp in d/e/x && cp in d/y, deps: [in], outs: [d]}\n",
        &[("in", "abc")],
    );
    folder.repro();
    folder.remove("d");
    assert_eq!(folder.repro(), ["restored a"]);
    folder.write("d/e/x", "spoilt");
    folder.write("d/more/z", "too much");
    folder.remove("d/y");
    let status = folder.try_status().unwrap();
    assert_eq!(status[0].outs, [("d".to_owned(), Change::Modified)]);
    assert_eq!(folder.repro(), ["restored a"]);
    assert_eq!((folder.read("d/e/x"), folder.read("d/y")), ("abc".into(), "abc".into()));
    assert!(!folder.exists("d/more"));
}

#[test]
fn an_object_that_is_gone_is_made_again() {
    let folder = chain();
    folder.repro();
    folder.remove(".dvc/cache/files");
    let status = folder.try_status().unwrap();
    assert_eq!(status[0].outs, [("first".to_owned(), Change::NotInCache)]);
    // The last stage leaves the same bytes as the one before: their object is there again by then.
    assert_eq!(folder.repro(), ["running first", "running middle", "unchanged last"]);
    assert_eq!(folder.changed(), [""; 0]);
}

#[test]
fn a_damaged_object_is_not_restored() {
    let folder = chain();
    folder.repro();
    let sum = nephros_dvc::digest::Md5Sum::of(b"abcdef").to_string();
    let object = folder.path(".dvc/cache/files/md5").join(&sum[..2]).join(&sum[2..]);
    fs_err::remove_file(&object).unwrap();
    fs_err::write(&object, "abXdef").unwrap();
    folder.remove("first");
    let error = folder.try_repro().unwrap_err();
    assert!(error.to_string().contains("is damaged") && error.hint().unwrap().contains("delete"), "{error}");
    assert!(!folder.exists("first"));
    fs_err::remove_file(&object).unwrap();
    assert_eq!(folder.repro()[0], "running first");
}

#[test]
fn objects_are_read_only() {
    let folder = chain();
    folder.repro();
    let find = Command::new("find")
        .args([".dvc/cache/files", "-type", "f", "!", "-perm", "0444"])
        .current_dir(folder.path(""))
        .output();
    assert_eq!(String::from_utf8(find.unwrap().stdout).unwrap(), "");
}

#[test]
fn frozen_and_always_changed() {
    let pipeline = "\
stages:
  frozen: {cmd: cp in a, deps: [in], outs: [a], frozen: true}
  always: {cmd: echo >> log, always_changed: true, outs: [log: {persist: true}]}
";
    let folder = Folder::new(&pipeline.replace(", frozen: true", ""), &[("in", "1")]);
    folder.repro();
    folder.write("dvc.yaml", pipeline);
    folder.write("in", "2");
    assert_eq!(folder.changed(), ["always"]);
    assert_eq!(folder.repro(), ["frozen frozen", "unchanged frozen", "running always"]);
    assert_eq!((folder.read("a"), folder.read("log")), ("1".into(), "\n\n".into()));
}

#[test]
fn stages_written_by_templates() {
    let folder = Folder::new(
        "\
vars:
  - names: {small: 1, large: 2}
  - extra.yaml
stages:
  each:
    foreach: ${names}
    do:
      cmd: echo ${item} ${word} \\${HOME} > ${key}
      outs: [\"${key}\"]
  grid:
    matrix: {model: [x, y], size: [1, 2]}
    cmd: echo ${item.model} ${item.size} > ${key}
    outs: [\"${key}\"]
  list:
    foreach: [u, v]
    do: {cmd: \"cat small > ${item}\", deps: [small], outs: [\"${item}\"]}
",
        &[("extra.yaml", "word: w\n"), ("params.yaml", "A: 1\n")],
    );
    let done = folder.repro();
    let expected =
        ["each@small", "each@large", "grid@x-1", "grid@x-2", "grid@y-1", "grid@y-2", "list@u", "list@v"];
    assert_eq!(done, expected.map(|name| format!("running {name}")));
    assert_eq!(folder.read("y-2"), "y 2\n");
    assert!(folder.read("small").starts_with("1 w /"), "{}", folder.read("small"));
    let group = folder.repro_with(Some("grid"), true, false).unwrap();
    assert_eq!(group.len(), 4);
}

#[test]
fn several_lines_and_a_folder_of_its_own() {
    let folder = Folder::new(
        "\
stages:
  list: {cmd: [echo 1 > a, echo 2 >> a], outs: [a]}
  lines:
    cmd: |
      echo \"$DVC_STAGE\" > b
      basename \"$DVC_ROOT\" >> b
    wdir: sub
    deps: [../a]
    outs: [b]
",
        &[("sub/.keep", "")],
    );
    folder.repro();
    assert_eq!(folder.read("a"), "1\n2\n");
    let name = folder.path("").canonicalize().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(folder.read("sub/b"), format!("lines\n{name}\n"));
    let (_, graph) = folder.repo().pipeline().unwrap();
    assert_eq!(graph.order(), [0, 1]);
}

#[test]
fn a_stop_leaves_what_is_finished() {
    let folder = Folder::new(
        "\
stages:
  quick: {cmd: echo 1 > a, outs: [a]}
  slow: {cmd: 'trap \"echo stopped > seen; exit 130\" INT; sleep 60 & wait', deps: [a], outs: [b]}
",
        &[],
    );
    let begun = std::time::Instant::now();
    let error = folder.stopped_repro(Duration::from_secs(2)).unwrap_err();
    assert!(matches!(error, DvcError::Stopped), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(50), "it waited for the sleep");
    assert_eq!(folder.read("seen"), "stopped\n");
    assert_eq!(folder.changed(), ["slow"]);
    folder.write("dvc.yaml", folder.read("dvc.yaml").replace("sleep 60 & wait", "echo 2 > b"));
    assert_eq!(folder.repro(), ["unchanged quick", "running slow"]);
}

#[test]
fn a_file_that_is_changed_while_it_is_read_is_read_again() {
    let folder = Folder::new(
        "stages:\n  a: {cmd: 'cp in out; echo later > in', deps: [in], outs: [out]}\n",
        &[("in", "first\n")],
    );
    folder.repro();
    assert_eq!((folder.read("out"), folder.changed()), ("first\n".into(), vec!["a".to_owned()]));
    folder.repro();
    assert_eq!((folder.read("out"), folder.changed()), ("later\n".into(), vec![]));
}

#[test]
fn a_second_run_is_refused_even_when_the_first_was_killed() {
    let folder = Folder::new("stages:\n  a: {cmd: 'touch begun; sleep 3; echo 1 > a', outs: [a]}\n", &[]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| folder.try_repro());
        while !folder.exists("begun") {
            std::thread::sleep(Duration::from_millis(10));
        }
        let error = folder.try_repro().unwrap_err();
        assert!(error.to_string().contains("another `nephros` is running"), "{error}");
        first.join().unwrap().unwrap();
    });
    // As a command does whose parent was killed: it keeps the lock as its standard input.
    folder.remove("begun");
    let lock =
        fs_err::OpenOptions::new().read(true).write(true).open(folder.path(".dvc/tmp/nephros.lock")).unwrap();
    let lock = lock.into_file();
    lock.try_lock().unwrap();
    let mut orphan = Command::new("sleep").arg("60").stdin(lock).spawn().unwrap();
    let error = folder.try_repro().unwrap_err();
    assert!(matches!(error, DvcError::Busy(_)), "{error}");
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    assert_eq!(folder.repro(), ["unchanged a"]);
}

#[test]
fn a_full_disk_leaves_a_state_to_go_on_from() {
    let folder = chain();
    folder.repro();
    let lock = folder.read("dvc.lock");
    folder.write("in", "other");
    // Everything written to this device fails as on a full disk.
    folder.write("dvc.yaml", CHAIN.replace("cat in > first", "cat in > first; cat in > /dev/full"));
    let error = folder.try_repro().unwrap_err();
    assert!(matches!(error, DvcError::Command { .. }), "{error}");
    assert_eq!(folder.read("dvc.lock"), lock);
    folder.write("dvc.yaml", CHAIN);
    assert_eq!(folder.repro()[0], "running first");
    assert_eq!(folder.changed(), [""; 0]);
}

#[test]
fn the_cache_on_a_full_disk_leaves_a_state_to_go_on_from() {
    let folder = chain();
    folder.repro();
    let lock = folder.read("dvc.lock");
    // A mounted file system of 64 KiB; needs root, which containers that run tests have.
    let small = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(small.path()).output();
    if !mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).is_ok_and(|output| output.status.success()) {
        println!("left out: a cache on a full disk (mounting needs root)");
        return;
    }
    folder.write(".dvc/config.local", format!("[cache]\n    dir = {}\n", small.path().display()));
    folder.write("in", "x".repeat(200_000));
    let error = folder.try_repro().unwrap_err();
    let leftovers = walk(small.path());
    let unmounted = Command::new("umount").arg(small.path()).status().unwrap();
    assert!(unmounted.success());
    assert!(error.hint().unwrap().contains("free some space"), "{error}");
    assert_eq!(leftovers, 0, "nothing half-written is left");
    assert_eq!(folder.read("dvc.lock"), lock);
    folder.remove(".dvc/config.local");
    assert_eq!(folder.repro(), ["running first", "running middle", "running last"]);
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

/// 465 slices, when they lie beside the checkout.
#[test]
fn the_published_folder_has_its_published_hash() {
    let zip = "../../../shared/data/kidney-ct-scan-image.zip";
    let zip = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(zip);
    let folder = tempfile::tempdir().unwrap();
    let unzip = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])";
    if !zip.is_file()
        || !Command::new("python3")
            .args(["-c", unzip])
            .arg(&zip)
            .arg(folder.path())
            .status()
            .is_ok_and(|status| status.success())
    {
        println!("left out: the hash of the published images (no `shared/data/kidney-ct-scan-image.zip`)");
        return;
    }
    let running = || false;
    let root = folder.path().canonicalize().unwrap();
    let measurer = Measurer::new(&root, State::default(), &running);
    let place = nephros_dvc::RepoPath::root().join("kidney-ct-scan-image").unwrap();
    let content = measurer.measure(&place, Algorithm::Md5).unwrap().unwrap();
    assert_eq!(content.oid.to_string(), "33ed59dbe5dec8ce2bb8e489b55203e4.dir");
    assert_eq!((content.size, content.tree.unwrap().files().len()), (58_936_381, 465));
}
