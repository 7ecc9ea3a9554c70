//! A copy of a running store is a store.

use nephros_store::{Fault, Store, StoreConfig, StoreError, backup, restore};

use crate::bed::{Bed, master, prediction};

crate::on_both!(
    a_backup_taken_in_use_is_restored,
    a_backup_that_does_not_verify_is_refused,
    nothing_is_written_over,
);

fn config(bed: &Bed) -> StoreConfig {
    StoreConfig { master_key: Some(master('1')), keep_images: true, ..bed.config() }
}

async fn a_backup_taken_in_use_is_restored(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let receipt = store.record(prediction(Some("anna"), 1)).await.unwrap();
    let writing = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 2..60 {
                store.record(prediction(Some("bert"), number)).await.unwrap();
            }
        })
    };
    let copy = bed.folder.path().join("copy");
    let checkpoint = backup(config(&bed), &copy).await.unwrap();
    writing.await.unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs_err::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let target = StoreConfig { database: bed.another(), ..config(&bed) };
    let found = restore(target.clone(), &copy).await.unwrap();
    assert!(found.entries >= checkpoint.position && found.images == found.decrypted, "{found:?}");
    let restored = Store::open(target).await.unwrap();
    assert_eq!(restored.verify(Some(&checkpoint)).await.unwrap().broken, None);
    assert_eq!(restored.image(&receipt.id).await.unwrap().unwrap(), prediction(None, 1).image);
    // It goes on where the copy ended, and no nonce is used twice.
    let next = restored.record(prediction(Some("anna"), 3)).await.unwrap();
    assert_eq!(next.position, found.entries + 1);
    assert_eq!(restored.verify(None).await.unwrap().broken, None);
    // The older state is not the log's latest: its checkpoint says so.
    let latest = store.checkpoint().await.unwrap();
    if latest.position > next.position {
        let broken = restored.verify(Some(&latest)).await.unwrap().broken.unwrap();
        assert_eq!(broken.fault, Fault::Truncated);
    }
}

async fn a_backup_that_does_not_verify_is_refused(bed: Bed) {
    let store = bed.open().await;
    for number in 0..3 {
        store.record(prediction(None, number)).await.unwrap();
    }
    let by_hand = bed.by_hand().await;
    sqlx::query("UPDATE receipt_entries SET time_us = 0 WHERE position = 2").execute(&by_hand).await.unwrap();
    by_hand.close().await;
    let copy = bed.folder.path().join("copy");
    backup(bed.config(), &copy).await.unwrap();
    let target = StoreConfig { database: bed.another(), ..bed.config() };
    let error = restore(target.clone(), &copy).await.unwrap_err();
    assert!(matches!(&error, StoreError::BadBackup { fault } if fault.contains("record 2")), "{error}");
    if let nephros_store::Database::Sqlite(path) = target.database {
        assert!(!path.exists());
    }
}

async fn nothing_is_written_over(bed: Bed) {
    let store = bed.open().await;
    let copy = bed.folder.path().join("copy");
    fs_err::write(&copy, "something").unwrap();
    assert!(matches!(backup(bed.config(), &copy).await, Err(StoreError::Exists { .. })));
    fs_err::remove_file(&copy).unwrap();
    backup(bed.config(), &copy).await.unwrap();
    let error = restore(bed.config(), &copy).await.unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. } | StoreError::NotEmpty), "{error}");
    let missing = StoreConfig { database: bed.another(), ..bed.config() };
    let error = restore(missing, &bed.folder.path().join("no copy")).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert_eq!(store.verify(None).await.unwrap().broken, None);
}
