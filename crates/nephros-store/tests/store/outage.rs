//! A full disk, a locked and a dead database: told as what they are, and over when they are over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nephros_store::{Filter, Page, Receipt, Store, StoreConfig, StoreError};

use crate::{
    bed::{Bed, prediction},
    disk::SmallDisk,
    postgres::Cluster,
};

crate::on_both!(a_locked_database_is_waited_for_and_told);

fn reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

async fn all_there(store: &Store, receipts: &[Receipt]) {
    for receipt in receipts {
        assert_eq!(store.entry(&receipt.id).await.unwrap().receipt, *receipt);
    }
    assert_eq!(store.verify(None).await.unwrap().broken, None);
}

async fn a_locked_database_is_waited_for_and_told(bed: Bed) {
    let config = StoreConfig { patience: Duration::from_millis(400), ..bed.config() };
    let store = Store::open(config).await.unwrap();
    let first = store.record(prediction(None, 1)).await.unwrap();
    let by_hand = bed.by_hand().await;
    let mut lock = by_hand.begin().await.unwrap();
    sqlx::query("UPDATE receipt_head SET position = position").execute(&mut *lock).await.unwrap();
    let start = Instant::now();
    let error = store.record(prediction(None, 2)).await.unwrap_err();
    assert_eq!(reason(&error), "another process holds it locked");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Readers are not in its way.
    assert_eq!(store.history(Filter::default(), Page::default()).await.unwrap().len(), 1);
    lock.rollback().await.unwrap();
    let second = store.record(prediction(None, 3)).await.unwrap();
    all_there(&store, &[first, second]).await;
    by_hand.close().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_over_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let filler = disk.path().join("filler");
    fs_err::write(&filler, vec![0; 1 << 20]).unwrap();
    let database = disk.path().join("receipts.db").to_str().unwrap().parse().unwrap();
    let store = Store::open(StoreConfig::new(database)).await.unwrap();
    let mut receipts = Vec::new();
    let error = loop {
        match store.record(prediction(None, 1)).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => break error,
        }
        assert!(receipts.len() < 10_000);
    };
    assert!(["its disk is full", "its disk cannot be read or written"].contains(&reason(&error)), "{error}");
    assert!(store.record(prediction(None, 2)).await.unwrap_err().is_unavailable());
    assert!(receipts.len() > 20, "{}", receipts.len());
    all_there(&store, &receipts).await;

    fs_err::remove_file(&filler).unwrap();
    for number in 0..20 {
        receipts.push(store.record(prediction(None, number)).await.unwrap());
    }
    all_there(&store, &receipts).await;
    store.close().await;
}

#[tokio::test]
async fn a_dead_server_is_told_and_over_when_it_is_back() {
    let Some(cluster) = Cluster::start().map(Arc::new) else { return };
    let database = cluster.url(&cluster.create()).parse().unwrap();
    let config = StoreConfig { patience: Duration::from_secs(1), ..StoreConfig::new(database) };
    let store = Store::open(config).await.unwrap();
    let mut receipts = vec![store.record(prediction(None, 1)).await.unwrap()];
    for _ in 0..2 {
        cluster.stop();
        let start = Instant::now();
        let error = store.record(prediction(None, 2)).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        let error = store.history(Filter::default(), Page::default()).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        cluster.run();
        receipts.push(store.record(prediction(None, 3)).await.unwrap());
        all_there(&store, &receipts).await;
    }
    store.close().await;
}
