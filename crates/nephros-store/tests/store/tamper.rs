//! A database changed by hand is found, and the first broken record named.

use nephros_store::{Broken, Checkpoint, Erase, Fault, Opinion, Store, Verdict};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyPool, Row as _};

use crate::bed::{Bed, master, prediction};

crate::on_both!(
    each_change_is_named,
    any_change_of_a_row_is_found,
    a_rewritten_tail_is_found_by_its_checkpoint,
    images_that_change_places_are_found,
    a_record_with_a_hash_of_its_own_is_found,
);

/// Entries 1: key, 2 to 5: predictions of anna and bert, 6: feedback, 7: anna erased, 8: prediction of bert.
async fn filled(bed: &Bed) -> Store {
    let store = bed.open_with(&master('1')).await;
    let mut bert = None;
    for number in 0..4 {
        let subject = ["anna", "bert"][number as usize % 2];
        let receipt = store.record(prediction(Some(subject), number)).await.unwrap();
        bert = Some(receipt.id);
    }
    let verdict = Verdict { opinion: Opinion::Agrees, label: None, reader: Some("B".into()), comment: None };
    store.feedback(&bert.unwrap(), verdict).await.unwrap();
    store.erase(Erase::Subject("anna".into())).await.unwrap();
    store.record(prediction(Some("bert"), 5)).await.unwrap();
    assert_eq!(broken(&store).await, None);
    store
}

async fn broken(store: &Store) -> Option<Broken> {
    store.verify(None).await.unwrap().broken
}

async fn by_hand(pool: &AnyPool, statement: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(pool).await.unwrap();
}

/// Copies of all tables, put back after each change.
struct Copies(AnyPool);

const TABLES: [&str; 5] =
    ["receipt_entries", "receipt_details", "receipt_images", "receipt_keys", "receipt_head"];

impl Copies {
    async fn of(pool: &AnyPool) -> Self {
        for table in TABLES {
            by_hand(pool, &format!("CREATE TABLE copy_of_{table} AS SELECT * FROM {table}")).await;
        }
        Self(pool.clone())
    }

    async fn put_back(&self) {
        for table in TABLES {
            by_hand(
                &self.0,
                &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM copy_of_{table}"),
            )
            .await;
        }
    }
}

async fn each_change_is_named(bed: Bed) {
    let store = filled(&bed).await;
    let pool = bed.by_hand().await;
    let copies = Copies::of(&pool).await;
    let swap = "UPDATE receipt_entries SET position = 100 WHERE position = 4; \
        UPDATE receipt_entries SET position = 4 WHERE position = 5; \
        UPDATE receipt_entries SET position = 5 WHERE position = 100";
    let insert = "INSERT INTO receipt_entries (position, id, kind, time_us, previous, hash) \
        SELECT 9, 'ffffffffffffffffffffffffffffffff', kind, time_us, hash, hash FROM receipt_entries WHERE position = 8";
    let changes = [
        ("UPDATE receipt_entries SET time_us = time_us - 1 WHERE position = 4", 4, Fault::Changed),
        ("UPDATE receipt_entries SET model = 'vgg16-00000000' WHERE position = 2", 2, Fault::Changed),
        ("UPDATE receipt_entries SET note = NULL WHERE position = 7", 2, Fault::DetailsMissing),
        ("UPDATE receipt_entries SET hash = previous WHERE position = 8", 8, Fault::Changed),
        ("DELETE FROM receipt_entries WHERE position = 1", 1, Fault::Missing),
        ("DELETE FROM receipt_entries WHERE position = 5", 5, Fault::Missing),
        ("DELETE FROM receipt_entries WHERE position >= 8", 8, Fault::Truncated),
        ("DELETE FROM receipt_entries", 1, Fault::Truncated),
        (swap, 4, Fault::Reordered),
        ("UPDATE receipt_entries SET position = 0 WHERE position = 1", 0, Fault::Inserted),
        ("UPDATE receipt_entries SET position = 30 WHERE position = 8", 8, Fault::Reordered),
        (insert, 9, Fault::Changed),
        ("UPDATE receipt_details SET label = 'Tumor' WHERE position = 3", 3, Fault::DetailsChanged),
        ("UPDATE receipt_details SET reader = 'C' WHERE position = 6", 6, Fault::DetailsChanged),
        ("UPDATE receipt_details SET refer = NULL WHERE position = 5", 5, Fault::DetailsChanged),
        ("DELETE FROM receipt_details WHERE position = 8", 8, Fault::DetailsMissing),
        (
            "INSERT INTO receipt_details (position, salt) SELECT 4, salt FROM receipt_details WHERE position = 3",
            4,
            Fault::DetailsInserted,
        ),
        (
            "INSERT INTO receipt_details (position, salt) SELECT 7, salt FROM receipt_details WHERE position = 3",
            7,
            Fault::DetailsInserted,
        ),
        (
            "INSERT INTO receipt_details (position, salt) SELECT 40, salt FROM receipt_details WHERE position = 3",
            40,
            Fault::DetailsInserted,
        ),
        ("UPDATE receipt_images SET sealed = nonce WHERE position = 5", 5, Fault::ImageChanged),
        ("DELETE FROM receipt_images WHERE position = 5", 5, Fault::ImageMissing),
        ("UPDATE receipt_images SET position = 4 WHERE position = 5", 4, Fault::ImageInserted),
        ("UPDATE receipt_images SET position = 40 WHERE position = 8", 8, Fault::ImageMissing),
        ("UPDATE receipt_keys SET wrapped = nonce", 3, Fault::ImageUnreadable),
        ("UPDATE receipt_keys SET subject = 'carl'", 3, Fault::KeyMissing),
        ("DELETE FROM receipt_keys", 3, Fault::KeyMissing),
        (
            "INSERT INTO receipt_keys (id, nonce, wrapped) SELECT nonce, id, wrapped FROM receipt_keys",
            0,
            Fault::KeyInserted,
        ),
        ("UPDATE receipt_head SET position = 7", 8, Fault::Inserted),
        ("UPDATE receipt_head SET position = 9", 9, Fault::Truncated),
        ("UPDATE receipt_head SET hash = log", 8, Fault::Rewritten),
        ("UPDATE receipt_head SET master = 'another'", 8, Fault::HeadChanged),
    ];
    for (statement, position, fault) in changes {
        by_hand(&pool, statement).await;
        let found = broken(&store).await.unwrap_or_else(|| panic!("not found: {statement}"));
        assert_eq!((found.position, found.fault), (position, fault), "{statement}");
        copies.put_back().await;
        assert_eq!(broken(&store).await, None);
    }
    pool.close().await;
}

/// A column of a row, by number.
async fn change_one(pool: &AnyPool, table: &str, row: usize, column: usize, with: u8) -> String {
    let key = if table == "receipt_keys" {
        "id"
    } else if table == "receipt_head" {
        "one"
    } else {
        "position"
    };
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM {table} ORDER BY {key}")))
        .fetch_all(pool)
        .await
        .unwrap();
    let row = &rows[row % rows.len()];
    // The only column of no meaning: it holds a 1, and nothing else fits.
    let columns: Vec<_> =
        row.columns().iter().filter(|column| sqlx::Column::name(*column) != "one").collect();
    let column = sqlx::Column::name(columns[column % columns.len()]);
    let place = |value: usize| format!("UPDATE {table} SET {column} = ${value} WHERE {key} = ${}", value + 1);
    let sql = sqlx::AssertSqlSafe(place(1));
    let query = sqlx::query(sql);
    let query = if let Ok(Some(number)) = row.try_get::<Option<i64>, _>(column) {
        query.bind(number + 1 + i64::from(with) * 1000)
    } else if let Ok(Some(text)) = row.try_get::<Option<String>, _>(column) {
        query.bind(format!("{text}{}", char::from(b'a' + with % 26)))
    } else if let Ok(Some(mut bytes)) = row.try_get::<Option<Vec<u8>>, _>(column) {
        let at = usize::from(with) % bytes.len();
        bytes[at] ^= 1 << (with % 8);
        query.bind(bytes)
    } else if ["commitment", "image_sha256", "image_seal", "probabilities"].contains(&column) {
        query.bind(vec![with])
    } else {
        query.bind(char::from(b'a' + with % 26).to_string())
    };
    let query = match key {
        "id" => query.bind(row.get::<Vec<u8>, _>("id")),
        "one" => query.bind(1_i64),
        _ => query.bind(row.get::<i64, _>("position")),
    };
    query.execute(pool).await.unwrap();
    format!("{table}.{column}")
}

async fn any_change_of_a_row_is_found(bed: Bed) {
    let store = filled(&bed).await;
    let pool = bed.by_hand().await;
    let copies = Copies::of(&pool).await;
    let change = (prop::sample::select(&TABLES[..]), 0_usize..100, 0_usize..100, any::<u8>(), 0_u8..4);
    let cases = if bed.cluster.is_some() { 100 } else { 400 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    // The property is checked on a thread that may wait for the runtime of the test.
    let done = tokio::task::spawn_blocking(move || {
        runner.run(&change, |(table, row, column, with, delete)| {
            handle.block_on(async {
                let what = if delete == 0 && table != "receipt_head" {
                    let key = if table == "receipt_keys" { "id" } else { "position" };
                    let count = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")));
                    let count: i64 = count.fetch_one(&copies.0).await.unwrap().get(0);
                    let nth = format!(
                        "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {})",
                        row as i64 % count
                    );
                    by_hand(&copies.0, &nth).await;
                    nth
                } else {
                    change_one(&copies.0, table, row, column, with).await
                };
                let found = broken(&store).await;
                copies.put_back().await;
                prop_assert!(found.is_some(), "not found: {what}");
                prop_assert_eq!(broken(&store).await, None);
                Ok(())
            })
        })
    });
    done.await.unwrap().unwrap();
}

/// A tail that was cut, and the head with it, or written anew with all hashes.
async fn a_rewritten_tail_is_found_by_its_checkpoint(bed: Bed) {
    let store = filled(&bed).await;
    let kept = store.checkpoint().await.unwrap();
    let pool = bed.by_hand().await;
    by_hand(
        &pool,
        "DELETE FROM receipt_entries WHERE position = 8; DELETE FROM receipt_details WHERE position = 8; \
         DELETE FROM receipt_images WHERE position = 8; UPDATE receipt_head SET position = 7, \
         hash = (SELECT hash FROM receipt_entries WHERE position = 7)",
    )
    .await;
    // Nothing in the database tells.
    assert_eq!(broken(&store).await, None);
    let verify = async |checkpoint: &Checkpoint| store.verify(Some(checkpoint)).await.unwrap().broken;
    let found = verify(&kept).await.unwrap();
    assert_eq!((found.position, found.fault), (8, Fault::Truncated));
    // Another record in its place: the log goes on, and is not the one of the checkpoint.
    store.record(prediction(Some("bert"), 6)).await.unwrap();
    assert_eq!(broken(&store).await, None);
    let found = verify(&kept).await.unwrap();
    assert_eq!((found.position, found.fault), (8, Fault::Checkpoint));
    let another = Checkpoint { log: "0".repeat(32), ..kept };
    assert_eq!(verify(&another).await.unwrap().fault, Fault::Checkpoint);
    pool.close().await;
}

async fn images_that_change_places_are_found(bed: Bed) {
    let store = filled(&bed).await;
    let pool = bed.by_hand().await;
    by_hand(
        &pool,
        "UPDATE receipt_images SET position = 100 WHERE position = 3; \
         UPDATE receipt_images SET position = 3 WHERE position = 5; \
         UPDATE receipt_images SET position = 5 WHERE position = 100",
    )
    .await;
    let found = broken(&store).await.unwrap();
    assert_eq!((found.position, found.fault), (3, Fault::ImageChanged));
    pool.close().await;
}

/// The hash of an entry as docs/guides/store.md gives it, written a second time.
fn hash_by_hand(row: &sqlx::any::AnyRow, model: &str) -> Vec<u8> {
    let text = |column: &str| row.get::<Option<String>, _>(column).map(String::into_bytes);
    let number = |column: &str| Some(row.get::<i64, _>(column).to_le_bytes().to_vec());
    let fields = [
        Some(b"nephros-entry-v1".to_vec()),
        row.get("previous"),
        number("position"),
        text("id"),
        text("kind"),
        number("time_us"),
        Some(model.as_bytes().to_vec()),
        text("bundle"),
        text("preprocessing"),
        text("engine"),
        text("labels"),
        text("about"),
        text("note"),
        row.get("commitment"),
    ];
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update(field.as_ref().map_or(u64::MAX, |field| field.len() as u64).to_le_bytes());
        hasher.update(field.unwrap_or_default());
    }
    hasher.finalize().to_vec()
}

async fn a_record_with_a_hash_of_its_own_is_found(bed: Bed) {
    let store = filled(&bed).await;
    let pool = bed.by_hand().await;
    for (position, named) in [(4_i64, 4), (8, 8)] {
        let query = "SELECT * FROM receipt_entries WHERE position = $1";
        let row = sqlx::query(query).bind(position).fetch_one(&pool).await.unwrap();
        assert_eq!(hash_by_hand(&row, "compact-1a2b3c4d"), row.get::<Vec<u8>, _>("hash"));
        let change = async |model: &str| {
            sqlx::query("UPDATE receipt_entries SET model = $1, hash = $2 WHERE position = $3")
                .bind(model.to_owned())
                .bind(hash_by_hand(&row, model))
                .bind(position)
                .execute(&pool)
                .await
                .unwrap();
        };
        change("vgg16-00000000").await;
        let found = broken(&store).await.unwrap();
        assert_eq!((found.position, found.fault), (named, Fault::Rewritten));
        assert_eq!(found.id, row.get::<Option<String>, _>("id"));
        change("compact-1a2b3c4d").await;
        assert_eq!(broken(&store).await, None);
    }
    pool.close().await;
}
