//! `verify` and `store`, over a store of real predictions of a small random model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

mod common;

use common::{
    Folder, Run,
    model::{bitmap, save_bundle},
    server::{Server, ask},
};
use nephros_store::{Database, MasterKey, NewPrediction, Store, StoreConfig};
use serde_json::{Value, json as value};

/// Who judges predictions.
const READER: &str = "Dr. Grauwert";
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A project with a model, a master key, and a store of the predictions of three images that were kept.
fn prepared() -> (Folder, Vec<String>) {
    let folder = Folder::project();
    save_bundle(&folder.path("artifacts/training/bundle"));
    folder.write("store/master.key", KEY);
    restrict(&folder, "store/master.key");
    let config = folder.read("config/config.yaml");
    let config = config
        .replace("# master_key_file:", "master_key_file:")
        .replace("keep_images: False", "keep_images: True");
    folder.write("config/config.yaml", config);
    let receipts = record(&folder);
    (folder, receipts)
}

fn restrict(folder: &Folder, below: &str) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::set_permissions(folder.path(below), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Predictions of three images of two subjects, by a server.
fn record(folder: &Folder) -> Vec<String> {
    let server = Server::start(folder, &[]);
    let images = [("anna", [10, 10, 10]), ("anna", [90, 90, 90]), ("bert", [250, 200, 150])];
    let receipts = images.map(|(subject, color)| {
        let headers = format!("Content-Type: image/bmp\r\nX-Nephros-Subject: {subject}\r\n");
        let answer = ask(&server.address, "POST /api/v1/predictions", &headers, &bitmap(32, color));
        body(&answer)["receipt"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    });
    server.stop();
    receipts.into()
}

/// The JSON of an answer.
fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1)
        .unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Whether a text stands in any file of the store.
fn stands_in_store(folder: &Folder, text: &str) -> bool {
    fs_err::read_dir(folder.path("store")).unwrap().any(|file| {
        let bytes = fs_err::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// Changes the database as someone with a client does.
fn by_hand(folder: &Folder, statement: &str) {
    let connection = rusqlite::Connection::open(folder.path("store/receipts.db")).unwrap();
    connection.execute(statement, []).unwrap();
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn a_sound_log_verifies_and_its_predictions_come_out_again() {
    let (folder, receipts) = prepared();
    let run = folder.run(&["verify"]);
    assert_eq!(run.code, 0, "{run:?}");
    insta::assert_snapshot!(run.stdout, @r"
    4 entries are as they were recorded: 3 predictions, 0 entries erased since
    3 images are kept; 3 were decrypted and are those that were predicted on
    3 predictions came out again bit for bit
    ");
    let line = json(&folder.run(&["verify", "--receipt", &receipts[1], "--json"]));
    assert_eq!(line["broken"], Value::Null);
    assert_eq!((&line["entries"], &line["replay"]["replayed"]), (&4.into(), &1.into()));
    let unknown = folder.run(&["verify", "--receipt", &"0".repeat(32)]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("no prediction has the receipt"), "{}", unknown.stderr);
}

/// Works on the store as the library does, beside no server; `images` says whether it keeps them.
fn with_store<T>(folder: &Folder, images: bool, work: impl AsyncFnOnce(&Store) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::Sqlite(folder.path("store/receipts.db"));
        let master_key = Some(MasterKey::from_hex(KEY, "a test").unwrap());
        let config = StoreConfig { keep_images: images, master_key, ..StoreConfig::new(database) };
        let store = Store::open(config).await.unwrap();
        let done = work(&store).await;
        store.close().await;
        done
    })
}

/// The prediction with that receipt, as it could be recorded again.
async fn again(store: &Store, receipt: &str) -> NewPrediction {
    let id = receipt.parse().unwrap();
    let entry = store.entry(&id).await.unwrap();
    let details = entry.details.unwrap();
    NewPrediction {
        subject: details.subject,
        image: store.image(&id).await.unwrap().unwrap(),
        model: entry.model.unwrap(),
        probabilities: details.probabilities,
        label: details.label.unwrap(),
        refer: details.refer,
        reasons: details.reasons,
    }
}

#[test]
fn a_prediction_that_comes_out_otherwise_is_told_with_both_values() {
    let (folder, receipts) = prepared();
    // A record in good order, of a machine that computed one bit otherwise.
    let (id, recorded) = with_store(&folder, true, async |store| {
        let mut otherwise = again(store, &receipts[1]).await;
        otherwise.probabilities[0] = f32::from_bits(otherwise.probabilities[0].to_bits() ^ 1);
        otherwise.model.engine = "another engine".to_owned();
        let recorded = otherwise.probabilities.clone();
        (store.record(otherwise).await.unwrap().id.to_string(), recorded)
    });
    let run = folder.run(&["verify"]);
    assert_eq!(run.code, 1, "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("5 entries are as they were recorded: 4 predictions"), "{run:?}");
    assert_eq!(lines[2], "3 predictions came out again bit for bit");
    let told = format!("DIFFERENT at record 5 ({id}): recorded {recorded:?}, repeated [");
    assert!(lines[3].starts_with(&told) && lines[3].ends_with("]; recorded by another engine"), "{run:?}");
    let run = folder.run(&["verify", "--receipt", &id, "--json"]);
    let line = json(&run);
    let differing = &line["replay"]["differing"][0];
    assert_eq!((run.code, &line["broken"], &differing["position"]), (1, &Value::Null, &5.into()));
    let bits = |values: &Value| -> Vec<u32> {
        values.as_array().unwrap().iter().map(|value| (value.as_f64().unwrap() as f32).to_bits()).collect()
    };
    let (recorded, repeated) = (bits(&differing["recorded"]), bits(&differing["repeated"]));
    assert_eq!((recorded[0] ^ 1, recorded[1]), (repeated[0], repeated[1]));
    assert_eq!(folder.run(&["verify", "--replay", "0"]).code, 0);
}

#[test]
fn the_oldest_prediction_of_a_long_log_is_repeated_and_what_is_not_is_told() {
    let (folder, receipts) = prepared();
    // More than a page of the store, of which nothing can be repeated.
    with_store(&folder, false, async |store| {
        let new = again(store, &receipts[0]).await;
        let mut work = tokio::task::JoinSet::new();
        for _ in 0..1100 {
            let (store, new) = (store.clone(), new.clone());
            work.spawn(async move { store.record(new).await.unwrap() });
        }
        assert_eq!(work.join_all().await.len(), 1100);
    });
    let run = folder.run(&["verify", "--replay", "all"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.ends_with("\n3 predictions came out again bit for bit\n"), "{run:?}");
    let run = folder.run(&["verify", "--replay", "1"]);
    let told = "\n1 predictions came out again bit for bit\n\
                2 older ones were not tried: `--replay all` repeats them, too\n";
    assert!(run.code == 0 && run.stdout.ends_with(told), "{run:?}");
    let line = json(&folder.run(&["verify", "--replay", "2", "--json"]));
    assert_eq!((&line["replay"]["replayed"], &line["replay"]["untried"]), (&2.into(), &1.into()));
    assert_eq!(folder.run(&["verify", "--replay", "many"]).code, 2);
}

#[test]
fn a_change_by_hand_is_named() {
    let (folder, receipts) = prepared();
    by_hand(&folder, "UPDATE receipt_entries SET time_us = time_us + 1 WHERE position = 3");
    let run = folder.run(&["verify"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stdout.starts_with(&format!("BROKEN at record 3 ({}): it was changed\n", receipts[1])),
        "{run:?}"
    );
    let run = folder.run(&["verify", "--json"]);
    let line = json(&run);
    assert_eq!(
        (run.code, &line["broken"]["position"], &line["broken"]["fault"]),
        (1, &3.into(), &"changed".into())
    );
}

#[test]
fn a_cut_end_is_found_by_the_checkpoint() {
    let (folder, _) = prepared();
    let checkpoint = folder.run(&["store", "checkpoint"]);
    assert_eq!(checkpoint.code, 0, "{checkpoint:?}");
    folder.write("kept", &checkpoint.stdout);
    assert_eq!(folder.run(&["verify", "--checkpoint", "kept"]).code, 0);
    for table in ["entries", "details", "images"] {
        by_hand(&folder, &format!("DELETE FROM receipt_{table} WHERE position = 4"));
    }
    by_hand(&folder, "DELETE FROM receipt_keys WHERE subject = 'bert'");
    by_hand(
        &folder,
        "UPDATE receipt_head SET position = 3, hash = (SELECT hash FROM receipt_entries WHERE position = 3)",
    );
    assert_eq!(folder.run(&["verify"]).code, 0);
    let run = folder.run(&["verify", "--checkpoint", "kept"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("record 4: it and all after it are missing"), "{run:?}");
    folder.write("kept", "no checkpoint");
    assert_eq!(folder.run(&["verify", "--checkpoint", "kept"]).code, 1);
}

#[test]
fn a_prediction_of_another_model_is_not_repeated() {
    let (folder, _) = prepared();
    let bundle = folder.path("artifacts/training/bundle/bundle.json");
    let text = fs_err::read_to_string(&bundle).unwrap();
    fs_err::write(&bundle, format!("{text}\n")).unwrap();
    let line = json(&folder.run(&["verify", "--json"]));
    assert_eq!(line["replay"]["replayed"], 0);
    assert!(
        line["replay"]["skipped"].as_str().unwrap().starts_with("no kept image was predicted on by compact-")
    );
}

#[test]
fn a_subject_is_exported_and_erased() {
    let (folder, _) = prepared();
    let run = folder.run(&["store", "export", "anna", "--out", "anna.zip", "--json"]);
    let line = json(&run);
    assert_eq!((run.code, &line["entries"], &line["images"]), (0, &2.into(), &2.into()));
    assert!(folder.path("anna.zip").is_file());
    let line = json(&folder.run(&["store", "erase", "--subject", "anna", "--json"]));
    assert_eq!((&line["records"], &line["images"], &line["keys"]), (&2.into(), &2.into(), &1.into()));
    assert_eq!(line["scrubbed"], true);
    let run = folder.run(&["verify"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.stdout.contains("5 entries are as they were recorded: 3 predictions, 2 entries erased"),
        "{run:?}"
    );
    assert_eq!(folder.run(&["store", "erase"]).code, 2);
    // Nothing is older than a day, and nothing is configured.
    let line = json(&folder.run(&["store", "prune", "--days", "1", "--json"]));
    assert_eq!(line["records"], 0);
    assert!(folder.run(&["store", "prune"]).stdout.starts_with("nothing is to be erased"));
}

#[test]
fn keys_are_rotated_and_stores_restored() {
    let (folder, _) = prepared();
    folder.write("store/next.key", "f".repeat(64));
    let open = folder.run(&["store", "rotate", "--new-key-file", "store/next.key"]);
    assert_eq!(open.code, 2);
    assert!(open.stderr.contains("expected permissions 0600, got 0644\nhint: chmod 600"), "{}", open.stderr);
    restrict(&folder, "store/next.key");
    let run = folder.run(&["store", "rotate", "--new-key-file", "store/next.key"]);
    assert!(run.code == 0 && run.stdout.starts_with("2 keys are wrapped"), "{run:?}");
    let old = folder.run(&["verify"]);
    assert_eq!(old.code, 2);
    assert!(old.stderr.contains("expected the master key with the fingerprint"), "{}", old.stderr);
    let config = folder.read("config/config.yaml").replace("store/master.key", "store/next.key");
    folder.write("config/config.yaml", config);
    assert_eq!(folder.run(&["verify"]).code, 0);

    let run = folder.run(&["store", "backup", "copy.db"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(folder.run(&["store", "restore", "copy.db"]).code, 1);
    fs_err::rename(folder.path("store/receipts.db"), folder.path("store/lost.db")).unwrap();
    let gone = folder.run(&["verify"]);
    assert!(gone.code == 1 && gone.stderr.contains("found no receipts in `store/receipts.db`"), "{gone:?}");
    let run = folder.run(&["store", "restore", "copy.db"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stdout, "restored and verified 5 entries, 3 images\n");
    assert_eq!(folder.run(&["verify"]).code, 0);
}

#[test]
fn the_server_lists_what_it_recorded_and_what_readers_say() {
    let (folder, receipts) = prepared();
    let server = Server::start(&folder, &[]);
    assert_eq!(body(&ask(&server.address, "GET /health", "", b""))["records"], "images");
    let history = || body(&ask(&server.address, "GET /api/v1/history", "", b""));
    let listed = history();
    let listed: Vec<&str> =
        listed.as_array().unwrap().iter().map(|entry| entry["receipt"].as_str().unwrap()).collect();
    assert_eq!(listed, [&receipts[2], &receipts[1], &receipts[0]]);
    let say = |receipt: &str, said: &str| {
        let asked = format!("POST /api/v1/history/{receipt}/feedback");
        ask(&server.address, &asked, "Content-Type: application/json\r\n", said.as_bytes())
    };
    let corrected = value!({"verdict": "corrects", "label": "Normal", "comment": "a cyst", "reader": READER});
    assert!(say(&receipts[1], &corrected.to_string()).starts_with("HTTP/1.1 204"));
    assert!(say(&receipts[1], r#"{"verdict": "agrees"}"#).starts_with("HTTP/1.1 204"));
    assert!(say(&receipts[1], r#"{"verdict": "agrees", "label": "Normal"}"#).contains("invalid_field"));
    for unknown in ["0".repeat(32), "unknown".into()] {
        assert!(say(&unknown, r#"{"verdict": "agrees"}"#).contains("no_such_receipt"), "{unknown}");
    }
    let expected = value!([corrected, {"verdict": "agrees"}]);
    assert_eq!(history()[1]["feedback"], expected);
    assert!(stands_in_store(&folder, READER));
    let older = format!("GET /api/v1/history?limit=1&before={}", receipts[1]);
    let older = body(&ask(&server.address, &older, "", b""));
    assert_eq!((older.as_array().unwrap().len(), &older[0]["receipt"]), (1, &Value::from(&*receipts[0])));

    // An erasure beside the running server; it takes along who said something.
    assert_eq!(folder.run(&["store", "erase", "--subject", "anna"]).code, 0);
    assert!(!stands_in_store(&folder, READER));
    let left = history();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["receipt"]), (1, &Value::from(&*receipts[2])));
    assert!(say(&receipts[1], r#"{"verdict": "agrees"}"#).contains("no_such_receipt"));
    assert!(!server.stop().contains(READER));
    assert_eq!(folder.run(&["verify"]).code, 0);
}

#[test]
fn no_receipts_are_written_where_none_are_wanted() {
    let folder = Folder::project();
    save_bundle(&folder.path("artifacts/training/bundle"));
    let server = Server::start(&folder, &["--no-receipts"]);
    let headers = "Content-Type: image/bmp\r\n";
    let answer = body(&ask(&server.address, "POST /api/v1/predictions", headers, &bitmap(32, [9, 9, 9])));
    assert_eq!(answer["receipt"], Value::Null);
    assert!(ask(&server.address, "GET /api/v1/history", "", b"").contains("no_history"));
    assert_eq!(body(&ask(&server.address, "GET /health", "", b""))["records"], "nothing");
    server.stop();
    assert!(!folder.path("store").exists());
}

#[test]
fn an_address_that_is_none_is_a_usage_error() {
    let folder = Folder::new();
    let run = folder.run(&["verify", "--store", "mysql://user:secret@host/db"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("got `mysql://…`") && !run.stderr.contains("secret"), "{}", run.stderr);
}
