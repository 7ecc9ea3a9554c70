//! Beside the real DVC: it goes on from what we wrote, and we from what it wrote.
//!
//! Needs the environment of `scripts/setup-interop`; without it the tests say what they leave out and pass.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]
#![cfg(unix)]

mod common;

use std::fmt::Write as _;

use common::{Dvc, Folder};
use nephros_dvc::config::Outside;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

const UP_TO_DATE: &str = "Data and pipelines are up to date.\n";

/// Two stages with all that ours have: a folder, a metric, plots, parameters of every kind.
const PIPELINE: &str = "\
stages:
  data:
    cmd: mkdir -p data/sub && cp source.txt data/x && printf '' > data/empty && cp source.txt 'data/sub/é b'
    deps: [source.txt]
    outs: [data]
  train:
    cmd: cat data/x > model && chmod +x model && echo '{\"accuracy\":0.5}' > scores.json && printf 'e,a\\n1,2\\n' > plot.csv
    deps: [data]
    params:
      - RATE
      - NESTED.b
      - other.yaml:
    outs: [model]
    metrics:
      - scores.json: {cache: false}
    plots:
      - plot.csv: {cache: false, x: e, y: a}
";
const PARAMS: &str = "RATE: 1e-3\nNESTED: {a: 1, b: [1, 2.5, x]}\nUNUSED: 1\n";
const OTHER: &str = "STR: \"1.0\"\nYES: \"yes\"\nNONE:\nBIG: 1.0e-5\nT: True\nMULTI: \"a: b #c\"\nLINES: \"a\\nb\"\n\
                     EMPTY: []\nQUOTE: \"it's\"\nLONG: this sentence has more words than a line of eighty columns has room for, by far\n";

fn ours() -> Folder {
    Folder::new(PIPELINE, &[("source.txt", "text\n"), ("params.yaml", PARAMS), ("other.yaml", OTHER)])
}

/// DVC skips every stage of a folder.
fn all_skipped(dvc: &mut Dvc, folder: &Folder) {
    assert_eq!(dvc.run(folder, &["status"]), UP_TO_DATE);
    let said = dvc.run(folder, &["repro"]);
    assert!(said.contains("didn't change, skipping") && !said.contains("Running"), "{said}");
}

#[test]
fn dvc_goes_on_from_what_we_wrote() {
    let Some(mut dvc) = Dvc::start("a pipeline that we ran") else { return };
    for with_git in [false, true] {
        let folder = ours();
        if with_git {
            folder.git();
        }
        assert_eq!(folder.repro(), ["running data", "running train"]);
        all_skipped(&mut dvc, &folder);
        let before = folder.read("dvc.lock");
        dvc.run(&folder, &["repro", "--force"]);
        assert_eq!(folder.read("dvc.lock"), before);
        assert_eq!(folder.changed(), [""; 0]);
        // The run cache is one: DVC finds our runs, and we find its.
        folder.write("source.txt", "other\n");
        assert_eq!(folder.repro(), ["running data", "running train"]);
        folder.write("source.txt", "text\n");
        let said = dvc.run(&folder, &["repro"]);
        assert_eq!(said.matches("is cached - skipping run").count(), 2, "{said}");
        folder.write("source.txt", "third\n");
        dvc.run(&folder, &["repro"]);
        folder.write("source.txt", "other\n");
        dvc.run(&folder, &["repro"]);
        folder.write("source.txt", "third\n");
        assert_eq!(folder.repro(), ["restored data", "restored train"]);
        all_skipped(&mut dvc, &folder);
    }
}

#[test]
fn we_go_on_from_what_dvc_wrote() {
    let Some(mut dvc) = Dvc::start("a pipeline that it ran") else { return };
    let folder = ours();
    dvc.run(&folder, &["init", "--no-scm", "-q"]);
    dvc.run(&folder, &["repro"]);
    assert_eq!(folder.changed(), [""; 0]);
    let lock = folder.read("dvc.lock");
    assert_eq!(folder.repro(), ["unchanged data", "unchanged train"]);
    // Running it again writes the same text.
    assert_eq!(folder.repro_with(None, true, false).unwrap(), ["running data", "running train"]);
    assert_eq!(folder.read("dvc.lock"), lock);
    folder.remove("data");
    folder.remove("model");
    assert_eq!(folder.repro(), ["restored data", "restored train"]);
    all_skipped(&mut dvc, &folder);
}

#[test]
fn its_other_commands_read_what_we_wrote() {
    let Some(mut dvc) = Dvc::start("metrics, parameters, plots, push and pull") else { return };
    let folder = ours();
    folder.git();
    folder.repro();
    folder.commit();
    let metrics = dvc.run(&folder, &["metrics", "show"]);
    assert!(metrics.contains("scores.json") && metrics.contains("0.5"), "{metrics}");
    folder.write("params.yaml", PARAMS.replace("1e-3", "1e-2"));
    let params = dvc.run(&folder, &["params", "diff"]);
    assert!(params.contains("RATE") && params.contains("0.001") && params.contains("0.01"), "{params}");
    let plots = dvc.run(&folder, &["plots", "show", "--json"]);
    let points = plotted(&plots, "plot.csv");
    assert_eq!(points.len(), 1, "{plots}");
    assert_eq!((&points[0]["e"], &points[0]["a"]), (&json!("1"), &json!("2")), "{plots}");
    dvc.run(&folder, &["plots", "show", "--out", "plots"]);
    let page = folder.read("plots/index.html");
    assert!(page.contains(r#""e": "1""#) && page.contains(r#""a": "2""#), "{page}");
    folder.write("params.yaml", PARAMS);
    let remote = tempfile::tempdir().unwrap();
    dvc.run(&folder, &["remote", "add", "-d", "here", remote.path().to_str().unwrap()]);
    let pushed = dvc.run(&folder, &["push", "--run-cache"]);
    // Three files of the data, two of which are the same, their list, the model, which is the same too,
    // the metric and the plot: 5 different objects.
    assert!(pushed.contains("pushed"), "{pushed}");
    for gone in [".dvc/cache", "data", "model"] {
        folder.remove(gone);
    }
    assert_eq!(folder.changed(), ["data", "train"]);
    dvc.run(&folder, &["pull"]);
    assert_eq!(folder.changed(), [""; 0]);
    all_skipped(&mut dvc, &folder);
}

/// The points that `dvc plots show --json` draws for a plot.
fn plotted(text: &str, plot: &str) -> Vec<Value> {
    let shown: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let plots = shown.get("data").unwrap_or(&shown)[plot].as_array().cloned().unwrap_or_default();
    let spec = plots.first().map(|plot| plot["content"].clone()).unwrap_or_default();
    let spec = spec.as_str().map_or(spec.clone(), |text| serde_json::from_str(text).unwrap());
    spec["data"]["values"].as_array().cloned().unwrap_or_default()
}

#[test]
fn an_out_that_git_tracks_is_refused_by_both() {
    let Some(mut dvc) = Dvc::start("outs that git tracks") else { return };
    let pipeline = "\
stages:
  first: {cmd: touch ran; cp in a, deps: [in], outs: [a]}
  second:
    cmd: mkdir -p 'd [1]' && cp a 'd [1]/x'
    deps: [a]
    outs: ['d [1]']
";
    let folder = Folder::new(pipeline, &[("in", "1")]);
    folder.git();
    folder.write("d [1]/x", "by hand");
    folder.commit();
    for dry in [true, false] {
        let error = folder.repro_with(None, false, dry).unwrap_err();
        let text = "the out `d [1]` of stage `second` is tracked by git, which DVC does not allow";
        assert_eq!(error.to_string(), text);
        assert!(
            error.hint().unwrap().starts_with("`git rm -r --cached 'd [1]'` takes it out of git"),
            "{error}"
        );
    }
    assert!(!folder.exists("ran"), "it is told before anything runs");
    assert_eq!(folder.read("d [1]/x"), "by hand");
    let answer = dvc.try_run(&folder, &["repro"]);
    assert!(answer.code != 0 && answer.stderr.contains("already tracked by SCM"), "{answer:?}");
    // What the hint says.
    folder.run_git(&["rm", "-q", "-r", "--cached", "d [1]"]);
    folder.repro();
    all_skipped(&mut dvc, &folder);
    // What is tracked and needs no run is left alone, as DVC leaves it.
    folder.run_git(&["add", "-f", "a"]);
    assert_eq!(folder.repro(), ["unchanged first", "unchanged second"]);
    all_skipped(&mut dvc, &folder);
    let error = folder.repro_with(None, true, false).unwrap_err();
    assert!(error.to_string().contains("`a` of stage `first` is tracked by git"), "{error}");
    // The other thing that the hint says: metrics belong to git.
    folder.write("dvc.yaml", pipeline.replace("outs: [a]", "outs: [a: {cache: false}]"));
    folder.repro();
    all_skipped(&mut dvc, &folder);
}

#[test]
fn configurations_of_machine_user_and_repository_are_read_in_dvcs_order() {
    let Some(mut dvc) = Dvc::start("configurations") else { return };
    let folder = ours();
    dvc.run(&folder, &["init", "--no-scm", "-q"]);
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let outside = dvc.outside();
    let repro = || {
        let repo = nephros_dvc::Repo::open(&folder.path(""), &outside).unwrap();
        let (shell, notes) = (common::shell(), common::Notes::default());
        let request = nephros_dvc::Request { target: None, force: true, dry: false, shell: &shell };
        nephros_dvc::repro(&repo, &request, &notes).unwrap();
    };
    // Each level has the word until the next one says something.
    for (level, name) in
        [("--system", "machine"), ("--global", "user"), ("--project", "repo"), ("--local", "own")]
    {
        dvc.run(&folder, &["config", level, "cache.dir", &at(name)]);
        repro();
        assert!(place.path().join(name).join("files/md5").is_dir(), "{level}");
        all_skipped(&mut dvc, &folder);
    }
    assert!(!folder.exists(".dvc/cache"));
    dvc.run(&folder, &["config", "--global", "cache.type", "symlink"]);
    dvc.run(&folder, &["config", "--global", "cache.shared", "group"]);
    dvc.run(&folder, &["config", "--local", "cache.dir", &at("shared")]);
    repro();
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::metadata(place.path().join(path)).unwrap().permissions().mode() & 0o7777
    };
    assert!(fs_err::symlink_metadata(folder.path("model")).unwrap().is_symlink());
    assert_eq!((mode("shared"), mode("shared/files/md5"), mode("shared/runs")), (0o2775, 0o2775, 0o2775));
    all_skipped(&mut dvc, &folder);
}

#[test]
fn both_draw_the_same_graph() {
    let Some(mut dvc) = Dvc::start("the graph") else { return };
    let folder = ours();
    folder.repro();
    let (_, graph) = folder.repo().pipeline().unwrap();
    assert_eq!(dvc.run(&folder, &["dag", "--mermaid"]).trim_end(), graph.to_mermaid());
    assert_eq!(dvc.run(&folder, &["dag", "--dot"]).trim(), graph.to_dot());
    assert_eq!(graph.to_text(), "data\ntrain  <- data");
}

#[test]
fn a_legacy_lock_is_read_as_dvc_reads_it() {
    let Some(mut dvc) = Dvc::start("a lock of DVC 2") else { return };
    let folder = Folder::new(
        "stages:\n  a: {cmd: cp in out, deps: [in], outs: [{out: {cache: false}}]}\n",
        &[("in", "a\r\nb\r\n")],
    );
    folder.repro();
    let current = folder.read("dvc.lock");
    // MD5 of a\nb\n, as DVC 2 counts text.
    let sum = nephros_dvc::digest::Md5Sum::of(b"a\nb\n").to_string();
    let other = nephros_dvc::digest::Md5Sum::of(b"a\r\nb\r\n").to_string();
    let legacy = current.replace("      hash: md5\n", "").replace(&other, &sum);
    assert_ne!(legacy, current);
    folder.write("dvc.lock", &legacy);
    assert_eq!(dvc.changed(&folder), [""; 0]);
    assert_eq!(folder.changed(), [""; 0]);
    assert_eq!(folder.repro(), ["unchanged a"]);
    folder.write("in", "a\nb\nc\n");
    assert_eq!((dvc.changed(&folder), folder.changed()), (vec!["a".to_owned()], vec!["a".to_owned()]));
    folder.repro();
    all_skipped(&mut dvc, &folder);
}

#[test]
fn link_types_and_another_cache_folder() {
    let Some(mut dvc) = Dvc::start("link types") else { return };
    for kind in ["hardlink", "symlink", "copy", "reflink,copy"] {
        let folder = ours();
        dvc.run(&folder, &["init", "--no-scm", "-q"]);
        dvc.run(&folder, &["config", "cache.type", kind]);
        dvc.run(&folder, &["config", "--local", "cache.dir", "elsewhere"]);
        folder.repro();
        assert!(folder.exists("elsewhere/files/md5") && !folder.exists(".dvc/cache"), "{kind}");
        let model = fs_err::symlink_metadata(folder.path("model")).unwrap();
        assert_eq!(model.is_symlink(), kind == "symlink");
        let links = std::os::unix::fs::MetadataExt::nlink(&model);
        assert_eq!(links > 1, kind == "hardlink", "{kind}: {links}");
        all_skipped(&mut dvc, &folder);
        // A stage that runs again does not write into the cache.
        folder.write("source.txt", "other\n");
        folder.repro();
        folder.write("source.txt", "text\n");
        assert_eq!(folder.repro(), ["restored data", "restored train"], "{kind}");
        assert_eq!(folder.read("data/x"), "text\n");
        all_skipped(&mut dvc, &folder);
    }
}

#[test]
fn below_a_folder_with_git() {
    let Some(mut dvc) = Dvc::start("a project below a folder with git") else { return };
    let outer = Folder::new("", &[]);
    outer.git();
    outer.write("below/dvc.yaml", PIPELINE);
    for (path, text) in [("source.txt", "text\n"), ("params.yaml", PARAMS), ("other.yaml", OTHER)] {
        outer.write(&format!("below/{path}"), text);
    }
    let repo = nephros_dvc::Repo::open(&outer.path("below"), &Outside::default()).unwrap();
    let (shell, notes) = (common::shell(), common::Notes::default());
    let request = nephros_dvc::Request { target: None, force: false, dry: false, shell: &shell };
    nephros_dvc::repro(&repo, &request, &notes).unwrap();
    let said = dvc.run(&outer, &["--cd", "below", "status"]);
    assert_eq!(said, UP_TO_DATE);
    assert_eq!(outer.read("below/.gitignore"), "/data\n/model\n");
}

#[test]
fn neither_touches_what_the_other_is_running() {
    let Some(mut dvc) = Dvc::start("both at once") else { return };
    let slow = "stages:\n  a: {cmd: 'touch begun; sleep 5; cp in out', deps: [in], outs: [out]}\n";
    let begun = |folder: &Folder| {
        while !folder.exists("begun") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    let folder = Folder::new(slow, &[("in", "1")]);
    dvc.run(&folder, &["init", "--no-scm", "-q"]);
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| dvc.run(&folder, &["repro"]));
        begun(&folder);
        let error = folder.try_repro().unwrap_err();
        assert!(error.to_string().contains("is in use by process"), "{error}");
        theirs.join().unwrap();
    });
    assert_eq!(folder.repro(), ["unchanged a"]);
    folder.remove("begun");
    folder.write("in", "2");
    std::thread::scope(|scope| {
        let ours = scope.spawn(|| folder.repro());
        begun(&folder);
        let answer = dvc.try_run(&folder, &["repro"]);
        assert!(answer.code != 0 && answer.stderr.contains("is busy"), "{answer:?}");
        assert_eq!(ours.join().unwrap(), ["running a"]);
    });
    all_skipped(&mut dvc, &folder);
}

/// A stage of a random pipeline: it copies what it reads into what it leaves.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of the file")]
struct Random {
    /// Positions among sources and the outs of stages before it.
    reads: Vec<usize>,
    params: Vec<usize>,
    is_dir: bool,
    has_metric: bool,
    persist: bool,
    always: bool,
    in_folder: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Source(usize, u8),
    Param(usize, u8),
    RemoveOut(usize),
    SpoilOut(usize),
    RemoveObjects(usize),
    Ours,
    Theirs,
}

const SOURCES: usize = 3;
const KEYS: [&str; 3] = ["A", "B.c", "D"];

fn stages() -> impl Strategy<Value = Vec<Random>> {
    let stage = (
        prop::collection::vec(any::<usize>(), 0..3),
        prop::collection::vec(0..KEYS.len(), 0..3),
        any::<bool>(),
        prop::bool::weighted(0.3),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.2)),
    );
    let stage = stage.prop_map(|(reads, params, is_dir, has_metric, (persist, always, in_folder))| Random {
        reads,
        params,
        is_dir,
        has_metric,
        persist,
        always,
        in_folder,
    });
    prop::collection::vec(stage, 1..4)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..SOURCES, 0..3_u8).prop_map(|(source, text)| Step::Source(source, text)),
        2 => (0..KEYS.len(), 0..3_u8).prop_map(|(key, value)| Step::Param(key, value)),
        1 => any::<usize>().prop_map(Step::RemoveOut),
        1 => any::<usize>().prop_map(Step::SpoilOut),
        1 => any::<usize>().prop_map(Step::RemoveObjects),
        2 => Just(Step::Ours),
        1 => Just(Step::Theirs),
    ];
    prop::collection::vec(step, 1..5)
}

fn out(number: usize, stages: &[Random]) -> String {
    let name = if stages[number].is_dir { format!("dir{number}") } else { format!("file{number}") };
    if stages[number].in_folder { format!("w{number}/{name}") } else { name }
}

fn pipeline(stages: &[Random]) -> String {
    let mut text = "stages:\n".to_owned();
    for (number, stage) in stages.iter().enumerate() {
        let own = out(number, stages);
        let (wdir, up, own) = match own.split_once('/') {
            Some((folder, own)) => (Some(folder.to_owned()), "../", own.to_owned()),
            None => (None, "", own),
        };
        let mut reads: Vec<String> = stage
            .reads
            .iter()
            .map(|read| match read % (SOURCES + number) {
                source if source < SOURCES => format!("{up}source{source}"),
                before => format!("{up}{}", out(before - SOURCES, stages)),
            })
            .collect();
        reads.sort();
        reads.dedup();
        // `find` reads files and folders alike.
        let content = match reads.as_slice() {
            [] => "true".to_owned(),
            reads => format!("find {} -type f | sort | xargs cat", reads.join(" ")),
        };
        let file = if stage.is_dir { format!("{own}/sub/x") } else { own.clone() };
        let parent = if stage.is_dir { format!("mkdir -p {own}/sub && ") } else { String::new() };
        let _ =
            writeln!(text, "  s{number}:\n    cmd: {parent}{content} > {file} && echo {number} >> {file}");
        if stage.has_metric {
            let line = text.pop();
            assert_eq!(line, Some('\n'));
            let _ = writeln!(text, " && echo '{{\"n\":{number}}}' > m{number}.json");
        }
        if let Some(folder) = wdir {
            let _ = writeln!(text, "    wdir: {folder}");
        }
        if !reads.is_empty() {
            let _ = writeln!(text, "    deps: [{}]", reads.join(", "));
        }
        if !stage.params.is_empty() {
            text += "    params:\n";
            let mut keys = stage.params.clone();
            keys.sort_unstable();
            keys.dedup();
            let keys: Vec<&str> = keys.into_iter().map(|key| KEYS[key]).collect();
            let _ = writeln!(text, "      - {up}params.yaml: [{}]", keys.join(", "));
        }
        let _ = writeln!(text, "    outs:\n      - {own}: {{persist: {}}}", stage.persist);
        if stage.has_metric {
            let _ = writeln!(text, "    metrics:\n      - m{number}.json: {{cache: false}}");
        }
        if stage.always {
            text += "    always_changed: true\n";
        }
    }
    text
}

fn params(values: [u8; 3]) -> String {
    let [a, b, d] = values;
    format!("A: {a}\nB: {{c: 0.{b}, d: 1}}\nD: [x, {d}]\n")
}

/// Spoils things at random and lets either program repair them; both always agree on what has changed.
fn agree(dvc: &mut Dvc, stages: &[Random], steps: &[Step]) {
    let mut values = [0, 0, 0];
    let folder = Folder::new(&pipeline(stages), &[("params.yaml", &params(values))]);
    for (number, stage) in stages.iter().enumerate() {
        if stage.in_folder {
            folder.write(&format!("w{number}/.keep"), "");
        }
    }
    for source in 0..SOURCES {
        folder.write(&format!("source{source}"), format!("{source}"));
    }
    let repair = |dvc: &mut Dvc, by_us: bool| {
        if by_us {
            folder.repro();
        } else {
            dvc.run(&folder, &["repro"]);
        }
        let always: Vec<String> = (0..stages.len())
            .filter(|&number| stages[number].always)
            .map(|number| format!("s{number}"))
            .collect();
        assert_eq!(
            dvc.changed(&folder),
            always,
            "by DVC, repaired by us: {by_us}\n{}",
            folder.read("dvc.lock")
        );
        assert_eq!(folder.changed(), always, "by us, repaired by us: {by_us}");
        for number in 0..stages.len() {
            assert!(folder.exists(&out(number, stages)), "s{number} has no out, repaired by us: {by_us}");
        }
    };
    repair(dvc, true);
    for step in steps {
        let path = |number: usize| folder.path(&out(number % stages.len(), stages));
        match *step {
            Step::Source(source, text) => folder.write(&format!("source{source}"), format!("text {text}")),
            Step::Param(key, value) => {
                values[key] = value;
                folder.write("params.yaml", params(values));
            }
            Step::RemoveOut(number) => {
                let path = path(number);
                // Nothing repairs what an earlier step removed until a step asks for it.
                match if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) } {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    removed => removed.unwrap(),
                }
            }
            Step::SpoilOut(number) => {
                let path = path(number);
                let file = if path.is_dir() { path.join("more") } else { path };
                fs_err::write(file, "spoilt").unwrap();
            }
            Step::RemoveObjects(number) => {
                let cache = folder.path(".dvc/cache/files/md5");
                let mut objects: Vec<_> =
                    fs_err::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
                objects.sort();
                fs_err::remove_dir_all(&objects[number % objects.len()]).unwrap();
                // Otherwise DVC would ask before it removes what it cannot bring back.
                repair(dvc, true);
            }
            Step::Ours | Step::Theirs => repair(dvc, matches!(step, Step::Ours)),
        }
        assert_eq!(dvc.changed(&folder), folder.changed(), "after {step:?}");
    }
    repair(dvc, true);
}

#[test]
fn random_pipelines_are_the_same_to_both() {
    let Some(mut dvc) = Dvc::start("random pipelines") else { return };
    let dvc = std::cell::RefCell::new(&mut dvc);
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    runner
        .run(&(stages(), steps()), |(stages, steps)| {
            agree(&mut dvc.borrow_mut(), &stages, &steps);
            Ok(())
        })
        .unwrap();
}
