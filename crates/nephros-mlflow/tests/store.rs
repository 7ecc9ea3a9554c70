//! The embedded store by itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::thread;

use common::{Project, log_model, metric, model_folder};
use nephros_mlflow::{
    models::ModelUri,
    registry::{self, Action, Registry as _, RegistryError},
    run::{Batch, Entry, RunStatus},
    store::{OTHER_FILE, Store, StoreError},
};

#[test]
fn what_was_logged_is_read_again() {
    let project = Project::new();
    let (store, run) = project.run();
    let metrics = vec![metric("loss", 2.0, 2), metric("loss", 1.0, 1), metric("nan", f64::NAN, 0)];
    let params = vec![Entry::new("EPOCHS", "3")];
    store.log(&run, Batch { metrics, params, tags: vec![Entry::new("a", "1")] }).unwrap();
    store.log(&run, Batch { tags: vec![Entry::new("a", "2")], ..Batch::default() }).unwrap();
    store.log_artifact(&run, &project.file("x.svg", "<svg/>"), "plots/x.svg").unwrap();
    store.set_status(&run, RunStatus::Finished).unwrap();
    let record = store.run(&run[..6]).unwrap();
    assert_eq!(record.params, [Entry::new("EPOCHS", "3")]);
    assert_eq!(record.tag("a"), Some("2"));
    assert_eq!(record.tag("mlflow.source.type"), Some("LOCAL"));
    // The value of the highest step, not the one logged last.
    assert_eq!(record.metric("loss"), Some(2.0));
    assert!(record.metric("nan").unwrap().is_nan());
    assert_eq!((record.info.status, record.info.end_ms.is_some()), (RunStatus::Finished, true));
    let steps: Vec<i64> = store.history(&run, "loss").unwrap().iter().map(|metric| metric.step).collect();
    assert_eq!(steps, [1, 2]);
    assert_eq!(store.artifact_paths(&run).unwrap(), ["plots/x.svg"]);
}

#[test]
fn an_epoch_that_is_run_again_is_logged_once() {
    let project = Project::new();
    let (store, run) = project.run();
    let batch = |value, step| Batch { metrics: vec![metric("loss", value, step)], ..Batch::default() };
    store.log_new_steps(&run, batch(0.5, 1)).unwrap();
    store.log_new_steps(&run, batch(0.6, 1)).unwrap();
    store.log_new_steps(&run, batch(0.4, 2)).unwrap();
    let values: Vec<f64> = store.history(&run, "loss").unwrap().iter().map(|metric| metric.value).collect();
    assert_eq!(values, [0.5, 0.4]);
}

#[test]
fn a_parameter_stays_what_it_is() {
    let project = Project::new();
    let (store, run) = project.run();
    let params = |value: &str| Batch { params: vec![Entry::new("EPOCHS", value)], ..Batch::default() };
    store.log(&run, params("1")).unwrap();
    store.log(&run, params("1")).unwrap();
    let error = store.log(&run, params("2")).unwrap_err();
    assert_eq!(error.to_string(), format!("parameter `EPOCHS` of run `{run}` is `1` and cannot become `2`"));
}

#[test]
fn a_file_of_another_version_is_left_alone() {
    let project = Project::new();
    drop(project.store());
    let database = rusqlite::Connection::open(project.path("mlflow.db")).unwrap();
    database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'", []).unwrap();
    drop(database);
    let before = fs_err::read(project.path("mlflow.db")).unwrap();
    let opened = Store::open_or_beside(&project.path("mlflow.db"), &project.path("mlruns")).unwrap();
    let error = opened.instead.unwrap();
    assert!(error.to_string().contains("revision `ffffffffffff`, expected `dc11669786a5`"), "{error}");
    assert!(error.hint().unwrap().contains("mlflow db upgrade"));
    assert_eq!(opened.store.path(), project.path(OTHER_FILE));
    opened.store.create_run(&common::new_run()).unwrap();
    assert_eq!(fs_err::read(project.path("mlflow.db")).unwrap(), before);
}

#[test]
fn a_write_that_a_crash_cut_off_is_undone_by_whoever_reads_next() {
    let project = Project::new();
    let (store, run) = project.run();
    drop(store);
    let database = rusqlite::Connection::open(project.path("mlflow.db")).unwrap();
    database.pragma_update(None, "cache_size", 1).unwrap();
    // More than the cache holds: half of it is in the file, and what was there before in the journal.
    database.execute_batch("BEGIN").unwrap();
    for number in 0..200 {
        let row = rusqlite::params![format!("tag{number}"), "x".repeat(4000), run];
        database.execute("INSERT INTO tags (key, value, run_uuid) VALUES (?1, ?2, ?3)", row).unwrap();
    }
    database.execute("UPDATE runs SET name = 'half'", []).unwrap();
    let crashed = Project::new();
    for name in ["mlflow.db", "mlflow.db-journal"] {
        fs_err::copy(project.path(name), crashed.path(name)).unwrap();
    }
    let file = crashed.path("mlflow.db");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let refused = rusqlite::Connection::open_with_flags(&file, flags).unwrap();
    let refused = refused.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0)).unwrap_err();
    assert!(refused.to_string().contains("readonly"), "there is nothing to undo: {refused}");
    let store = Store::open_existing(&file, &crashed.path("mlruns")).unwrap().unwrap();
    let record = store.run(&run).unwrap();
    assert_eq!((record.info.name.as_str(), record.tag("tag0")), ("train", None));
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    let project = Project::new();
    let path = project.file("mlflow.db", "run,loss\n1,0.5\n".repeat(300));
    let error = Store::open(&path, &project.path("mlruns")).unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
    assert!(error.hint().unwrap().contains("away"));
    let path = project.path("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    let error = Store::open(&path, &project.path("mlruns")).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    fs_err::create_dir_all(project.path("folder.db")).unwrap();
    let error = Store::open(&project.path("folder.db"), &project.path("mlruns")).unwrap_err();
    assert!(error.hint().unwrap().contains("writable"), "{error}");
}

#[test]
fn many_may_make_the_file_and_write_to_it_at_once() {
    let project = Project::new();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (path, artifacts) = (project.path("mlflow.db"), project.path("mlruns"));
            thread::spawn(move || {
                let store = Store::open(&path, &artifacts).unwrap();
                let run = store.create_run(&common::new_run()).unwrap();
                for step in 0..20 {
                    let metrics = vec![metric("loss", 0.5, step)];
                    store.log(&run, Batch { metrics, ..Batch::default() }).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let store = project.store();
    let runs = store.runs(Some("kidney")).unwrap();
    assert_eq!(runs.len(), 8);
    for run in runs {
        assert_eq!(store.history(&run.info.id, "loss").unwrap().len(), 20);
    }
}

#[test]
fn paths_do_not_leave_the_folder_of_artifacts() {
    let project = Project::new();
    let (store, run) = project.run();
    let file = project.file("a.txt", "a");
    for path in ["../a.txt", "/a.txt", "a/../../b", "a\\b", ""] {
        let error = store.log_artifact(&run, &file, path);
        assert!(matches!(error, Err(StoreError::ArtifactPath { .. })), "{path}: {error:?}");
    }
}

#[test]
fn runs_are_found_by_the_start_of_their_id() {
    let project = Project::new();
    let (store, run) = project.run();
    assert_eq!(store.run(&run[..4]).unwrap().info.id, run);
    assert!(matches!(store.run("xyz"), Err(StoreError::NoRun { .. })));
    store.create_run(&common::new_run()).unwrap();
    assert!(matches!(store.run(""), Err(StoreError::Ambiguous { count: 2, .. })));
}

#[test]
fn a_moved_project_still_has_its_files() {
    let project = Project::new();
    let (store, run) = project.run();
    store.log_artifact(&run, &project.file("a.txt", "a"), "a.txt").unwrap();
    drop(store);
    let target = tempfile::tempdir().unwrap();
    let moved = target.path().join("elsewhere");
    fs_err::rename(project.root(), &moved).unwrap();
    let store = Store::open(&moved.join("mlflow.db"), &moved.join("mlruns")).unwrap();
    assert_eq!(store.artifact_paths(&run).unwrap(), ["a.txt"]);
    fs_err::rename(&moved, project.root()).unwrap();
}

#[test]
fn a_version_becomes_champion_and_the_history_tells() {
    let project = Project::new();
    let (store, run) = project.run();
    let models = [(); 2].map(|()| log_model(&store, &run));
    let register = |model: &str| {
        store.register("VGG16Model", model, &[Entry::new("nephros.gate", "passed")], "jane", false)
    };
    assert_eq!(models.each_ref().map(|model| register(model).unwrap()), [1, 2]);
    assert_eq!(register(&models[0]).unwrap(), 1, "a model has one version of a name");
    registry::promote(&store, "VGG16Model", 1, "champion", "jane", false).unwrap();
    registry::promote(&store, "VGG16Model", 2, "champion", "joe", true).unwrap();
    let versions = store.versions("VGG16Model").unwrap();
    assert_eq!(versions[1].aliases, ["champion"]);
    assert_eq!((versions[0].stage.as_str(), versions[1].stage.as_str()), ("Archived", "Production"));
    registry::demote(&store, "VGG16Model", "champion", "joe").unwrap();
    let history = registry::history(&store, "VGG16Model").unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|change| (change.action, change.version, change.instead_of, change.forced))
        .collect();
    assert_eq!(told[..2], [(Action::Registered, 1, None, false), (Action::Registered, 2, None, false)]);
    assert_eq!(told[2..4], [(Action::Promoted, 1, None, false), (Action::Promoted, 2, Some(1), true)]);
    assert_eq!(told[4..], [(Action::Demoted, 2, None, false)]);
    let gone = registry::demote(&store, "VGG16Model", "champion", "joe");
    assert!(matches!(gone, Err(RegistryError::NoAlias { .. })));
    assert!(matches!(store.versions("Other"), Err(RegistryError::NoModel { .. })));
    assert!(matches!(
        registry::promote(&store, "VGG16Model", 9, "champion", "joe", false),
        Err(RegistryError::NoVersion { .. })
    ));
}

#[test]
fn a_model_is_found_by_each_of_its_names() {
    let project = Project::new();
    let (store, run) = project.run();
    let model = log_model(&store, &run);
    store.register("VGG16Model", &model, &[], "jane", false).unwrap();
    registry::promote(&store, "VGG16Model", 1, "champion", "jane", false).unwrap();
    let bundle = store.logged_model(&model).unwrap().unwrap().folder.join("bundle");
    for uri in [
        "models:/VGG16Model@champion".to_owned(),
        "models:/VGG16Model/1".to_owned(),
        "models:/VGG16Model/Production".to_owned(),
        "models:/VGG16Model/latest".to_owned(),
        format!("models:/{model}"),
        format!("runs:/{run}/model"),
    ] {
        let source = ModelUri::parse(&uri).unwrap().resolve(&store).unwrap();
        assert_eq!(store.fetch(&source, project.root()).unwrap(), bundle, "{uri}");
    }
    assert_eq!(fs_err::read_to_string(bundle.join("bundle.json")).unwrap(), model_folder()[1].1);
    for (uri, text) in [
        ("models:/VGG16Model@challenger", "no version of model `VGG16Model` is `challenger`"),
        ("models:/VGG16Model/7", "has no version 7"),
        ("models:/VGG16Model/Staging", "in stage `Staging`"),
        ("models:/Other/1", "found no registered model `Other`"),
    ] {
        let error = ModelUri::parse(uri).unwrap().resolve(&store).unwrap_err();
        assert!(error.to_string().contains(text), "{uri}: {error}");
        assert!(error.hint().is_some());
    }
    let nothing = ModelUri::parse(&format!("runs:/{run}/other")).unwrap().resolve(&store).unwrap();
    assert!(matches!(store.fetch(&nothing, project.root()), Err(RegistryError::NothingToLoad { .. })));
}
