//! A writing process that is killed: what it was given a receipt for is there, and nothing is torn.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use nephros_store::{Database, ReceiptId, Store, StoreConfig};

use crate::{
    bed::{Bed, master, prediction},
    postgres::Cluster,
};

/// Names the database in the environment of the process that is killed.
const WRITER: &str = "NEPHROS_TEST_WRITER";

fn config(database: Database) -> StoreConfig {
    StoreConfig { master_key: Some(master('1')), keep_images: true, ..StoreConfig::new(database) }
}

/// The process that is killed: this test program, run again for this test alone. It prints each receipt
/// when it has it.
#[tokio::test]
async fn the_writer_that_is_killed() {
    let Ok(url) = env::var(WRITER) else { return };
    let store = Store::open(config(url.parse().unwrap())).await.unwrap();
    let write = async |task: u32| {
        for number in 0.. {
            // Images of 20 kB, some of one subject, some of none.
            let subject = (number % 3 > 0).then_some("anna");
            let mut new = prediction(subject, number);
            new.image = vec![task as u8; 20_000];
            let receipt = store.record(new).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", receipt.id).and_then(|()| out.flush()).unwrap();
        }
    };
    tokio::join!(write(1), write(2), write(3), write(4));
}

/// Runs the writer, kills it after `delay`, and gives the receipts that it printed.
fn killed_after(url: &str, delay: Duration) -> Vec<ReceiptId> {
    let mut writer = Command::new(env::current_exe().unwrap());
    writer.args(["--exact", "crash::the_writer_that_is_killed", "--nocapture"]).env(WRITER, url);
    let mut writer = writer.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(writer.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        // A line that was cut off is no receipt.
        out.lines().map_while(Result::ok).filter_map(|line| line.parse().ok()).collect()
    });
    std::thread::sleep(delay);
    // SIGKILL.
    writer.kill().unwrap();
    assert!(!writer.wait().unwrap().success());
    reader.join().unwrap()
}

/// Kills a writer of each bed at a random point before `longest_ms`.
async fn survives(beds: impl Iterator<Item = Bed>, longest_ms: u64) {
    let (mut acknowledged, mut stored, mut points) = (0, 0, 0);
    for bed in beds {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let delay = Duration::from_millis(u64::from(u16::from_le_bytes(random)) % longest_ms);
        let database = bed.database();
        let url = match &database {
            Database::Sqlite(path) => path.to_str().unwrap().to_owned(),
            Database::Postgres(url) => url.to_string(),
        };
        let receipts = killed_after(&url, delay);
        let store = Store::open(config(database)).await.unwrap();
        let found = store.verify(None).await.unwrap();
        assert_eq!(found.broken, None, "killed after {delay:?}");
        assert_eq!(found.images, found.decrypted);
        for id in &receipts {
            let image = store.image(id).await.unwrap().unwrap();
            assert_eq!(image.len(), 20_000, "{id}, killed after {delay:?}");
        }
        assert!(found.predictions >= receipts.len() as u64);
        // The next process goes on.
        store.record(prediction(None, 1)).await.unwrap();
        assert_eq!(store.verify(None).await.unwrap().broken, None);
        store.close().await;
        points += 1;
        acknowledged += receipts.len();
        stored += found.predictions;
    }
    println!("killed at {points} points: {acknowledged} receipts acknowledged, {stored} predictions stored");
    assert!(points == 0 || acknowledged > points, "the writer wrote nothing before it was killed");
}

#[tokio::test]
async fn nothing_is_lost_when_a_writer_of_sqlite_is_killed_at_50_points() {
    survives((0..50).map(|_| Bed::sqlite()), 400).await;
}

#[tokio::test]
async fn nothing_is_lost_when_a_writer_of_postgres_is_killed_at_20_points() {
    // One server for all points.
    let _server = Cluster::shared();
    survives((0..20).filter_map(|_| Bed::postgres()), 1200).await;
}
