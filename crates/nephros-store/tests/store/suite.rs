//! Recording, reading back, erasing.

use std::collections::HashSet;

use nephros_store::{
    Checkpoint, Erase, Filter, Kind, NewPrediction, Opinion, Page, ReceiptId, Store, StoreConfig, StoreError,
    Verdict,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::bed::{Bed, master, prediction};

crate::on_both!(
    a_prediction_is_read_back_bit_for_bit,
    the_history_is_filtered_and_paged,
    feedback_is_about_a_prediction,
    what_cannot_be_stored_is_refused,
    two_stores_write_one_log,
    images_are_kept_only_if_configured,
    a_kept_image_is_encrypted_and_comes_back,
    an_erased_subject_is_gone_and_the_log_verifies,
    an_erased_receipt_takes_its_feedback_along,
    old_records_are_pruned,
    the_master_key_is_rotated,
    an_export_is_all_of_a_subject,
    a_checkpoint_is_kept_beside,
    a_reader_makes_no_database,
    whatever_is_done_the_log_verifies,
);

async fn verified(store: &Store) -> u64 {
    let found = store.verify(None).await.unwrap();
    assert_eq!(found.broken, None, "{found:?}");
    found.entries
}

async fn a_prediction_is_read_back_bit_for_bit(bed: Bed) {
    let store = bed.open().await;
    let bits = [0x3dcc_cccd, 0x8000_0000, 0x0000_0001, 0x7fc0_1234];
    let mut new = prediction(Some("Müller, 1"), 1);
    new.probabilities = bits.map(f32::from_bits).to_vec();
    new.model.labels = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let receipt = store.record(new.clone()).await.unwrap();
    store.close().await;

    let store = bed.open().await;
    let entry = store.entry(&receipt.id).await.unwrap();
    let details = entry.details.unwrap();
    assert_eq!((entry.receipt.clone(), entry.kind), (receipt, Kind::Prediction));
    assert_eq!(details.probabilities.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
    assert_eq!(entry.model.unwrap(), new.model);
    assert_eq!((details.subject, details.label), (new.subject, Some(new.label)));
    assert_eq!((details.refer, details.reasons), (new.refer, new.reasons));
    // printf 'the pixels of image 1' | sha256sum
    let digest = details.image_sha256.unwrap();
    assert_eq!(digest[..4], [0x36, 0xcb, 0x7b, 0x6d]);
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64
        - entry.receipt.time_us;
    assert!((0..60_000_000).contains(&age), "{age}");
    assert_eq!(verified(&store).await, 1);
}

async fn the_history_is_filtered_and_paged(bed: Bed) {
    let store = bed.open().await;
    let mut receipts = Vec::new();
    for number in 0..12 {
        let mut new = prediction(Some(["anna", "bert", "carl"][number as usize % 3]), number);
        if number >= 6 {
            new.model.id = "vgg16-00000000".into();
        }
        if number == 11 {
            new.label = "Tumor".into();
        }
        receipts.push(store.record(new).await.unwrap());
    }
    let positions = async |filter: Filter, page: Page| -> Vec<u64> {
        let entries = store.history(filter, page).await.unwrap();
        entries.iter().map(|entry| entry.receipt.position).collect()
    };
    let all = Page::default();
    let filter = |text: &str| Filter { subject: Some(text.to_owned()), ..Filter::default() };
    assert_eq!(positions(Filter::default(), all).await, (1..=12).rev().collect::<Vec<_>>());
    assert_eq!(positions(filter("bert"), all).await, [11, 8, 5, 2]);
    assert_eq!(positions(filter("bert"), Page { before: Some(8), limit: 1 }).await, [5]);
    assert_eq!(positions(filter("dora' OR 1=1"), all).await, [0; 0]);
    let model = Filter { model: Some("vgg16-00000000".into()), ..filter("anna") };
    assert_eq!(positions(model, all).await, [10, 7]);
    let label = Filter { label: Some("Tumor".into()), ..Filter::default() };
    assert_eq!(positions(label, all).await, [12]);
    let times = Filter {
        since_us: Some(receipts[3].time_us),
        until_us: Some(receipts[5].time_us),
        ..Filter::default()
    };
    let found = positions(times, all).await;
    assert!(found.contains(&4) && !found.contains(&6) && !found.contains(&1), "{found:?}");
    let feedback = Filter { kind: Some(Kind::Feedback), ..Filter::default() };
    assert_eq!(positions(feedback, all).await, [0; 0]);
}

async fn feedback_is_about_a_prediction(bed: Bed) {
    let store = bed.open().await;
    let receipt = store.record(prediction(Some("anna"), 1)).await.unwrap();
    let verdict = Verdict {
        opinion: Opinion::Corrects,
        label: Some("Tumor".into()),
        reader: Some("Dr. Berg".into()),
        comment: Some("lower pole".into()),
    };
    let said = store.feedback(&receipt.id, verdict.clone()).await.unwrap();
    let filter = Filter { about: Some(receipt.id.clone()), ..Filter::default() };
    let entries = store.history(filter, Page::default()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].receipt, entries[0].kind), (&said, Kind::Feedback));
    let details = entries[0].details.clone().unwrap();
    assert_eq!(details.subject.as_deref(), Some("anna"));
    assert_eq!((details.opinion, details.label), (Some(Opinion::Corrects), Some("Tumor".into())));
    assert_eq!((details.reader, details.comment), (verdict.reader.clone(), verdict.comment.clone()));

    let unknown: ReceiptId = "0".repeat(32).parse().unwrap();
    for id in [&unknown, &said.id] {
        let error = store.feedback(id, verdict.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::UnknownReceipt { .. }), "{error}");
    }
    let odd = Verdict { opinion: Opinion::Agrees, ..verdict };
    assert!(matches!(
        store.feedback(&receipt.id, odd).await,
        Err(StoreError::Invalid { field: "label", .. })
    ));
    assert_eq!(verified(&store).await, 2);
}

async fn what_cannot_be_stored_is_refused(bed: Bed) {
    let store = bed.open().await;
    let refused = async |change: fn(&mut NewPrediction), field: &str| {
        let mut new = prediction(Some("anna"), 1);
        change(&mut new);
        let error = store.record(new).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { field: got, .. } if got == field), "{field}: {error}");
    };
    refused(|new| new.subject = Some(String::new()), "subject").await;
    refused(|new| new.subject = Some("a\0b".into()), "subject").await;
    refused(|new| new.label = "x".repeat(65_537), "label").await;
    refused(|new| new.probabilities = vec![1.0], "probabilities").await;
    // A zero byte in a list is written as an escape, which both databases take.
    let mut new = prediction(None, 1);
    new.reasons[0].sentence = "a\0b".into();
    let receipt = store.record(new.clone()).await.unwrap();
    let details = store.entry(&receipt.id).await.unwrap().details.unwrap();
    assert_eq!(details.reasons, new.reasons);
    for text in ["", "12", &"g".repeat(32), &"A".repeat(32)] {
        assert!(text.parse::<ReceiptId>().is_err(), "{text}");
    }
    assert_eq!(verified(&store).await, 1);
}

async fn two_stores_write_one_log(bed: Bed) {
    let stores = [bed.open().await, bed.open().await];
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = stores[task % 2].clone();
            tokio::spawn(async move {
                let mut positions = Vec::new();
                for number in 0..25 {
                    positions.push(store.record(prediction(None, number)).await.unwrap().position);
                }
                positions
            })
        })
        .collect();
    let mut positions = HashSet::new();
    for task in tasks {
        let mine = task.await.unwrap();
        assert!(mine.is_sorted());
        positions.extend(mine);
    }
    // 8 · 25
    assert_eq!(positions, (1..=200).collect());
    assert_eq!(verified(&stores[0]).await, 200);
}

async fn images_are_kept_only_if_configured(bed: Bed) {
    let store = bed.open().await;
    let receipt = store.record(prediction(Some("anna"), 1)).await.unwrap();
    assert_eq!(store.image(&receipt.id).await.unwrap(), None);
    assert!(!store.entry(&receipt.id).await.unwrap().details.unwrap().image_kept);
    store.close().await;
    assert!(!bed.stands_in_files(b"the pixels of"));
    let config = StoreConfig { keep_images: true, ..bed.config() };
    assert!(matches!(Store::open(config).await, Err(StoreError::NoMasterKey)));
}

async fn a_kept_image_is_encrypted_and_comes_back(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let of_anna = store.record(prediction(Some("anna"), 1)).await.unwrap();
    let again = store.record(prediction(Some("anna"), 2)).await.unwrap();
    let of_nobody = store.record(prediction(None, 3)).await.unwrap();
    for (receipt, number) in [(&of_anna, 1), (&again, 2), (&of_nobody, 3)] {
        let image = store.image(&receipt.id).await.unwrap().unwrap();
        assert_eq!(image, prediction(None, number).image);
    }
    let by_hand = bed.by_hand().await;
    let keys: (i64,) = sqlx::query_as("SELECT COUNT(*) FROM receipt_keys").fetch_one(&by_hand).await.unwrap();
    assert_eq!(keys.0, 2);
    by_hand.close().await;
    let found = store.verify(None).await.unwrap();
    assert_eq!((found.broken, found.images, found.decrypted), (None, 3, 3));
    store.close().await;
    assert!(!bed.stands_in_files(b"the pixels of"));

    // Without the key the log verifies, and the images do not open.
    let store = bed.open().await;
    let found = store.verify(None).await.unwrap();
    assert_eq!((found.broken, found.images, found.decrypted), (None, 3, 0));
    assert!(matches!(store.image(&of_anna.id).await, Err(StoreError::NoMasterKey)));
    store.close().await;
    let config = StoreConfig { master_key: Some(master('2')), ..bed.config() };
    assert!(matches!(Store::open(config).await, Err(StoreError::OtherMasterKey { .. })));
}

async fn an_erased_subject_is_gone_and_the_log_verifies(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let mut anna = Vec::new();
    for number in 0..4 {
        anna.push(store.record(prediction(Some("anna the first"), number)).await.unwrap());
        store.record(prediction(Some("bert"), number)).await.unwrap();
    }
    let comment = Verdict {
        opinion: Opinion::Agrees,
        label: None,
        reader: Some("Dr. Berg".into()),
        comment: Some("as dictated on monday".into()),
    };
    store.feedback(&anna[0].id, comment.clone()).await.unwrap();
    let by_hand = bed.by_hand().await;
    let query = "SELECT k.wrapped, i.sealed FROM receipt_keys k JOIN receipt_images i ON i.key_id = k.id \
         WHERE k.subject = 'anna the first' ORDER BY i.position";
    let secrets: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(query).fetch_all(&by_hand).await.unwrap();
    by_hand.close().await;
    assert_eq!(secrets.len(), 4);

    let erased = store.erase(Erase::Subject("anna the first".into())).await.unwrap();
    assert_eq!((erased.records, erased.images, erased.keys, erased.scrubbed), (5, 4, 1, true));
    // One entry of the key, 8 predictions, one comment, one erasure.
    let found = store.verify(None).await.unwrap();
    assert_eq!((found.broken, found.entries, found.predictions, found.erased), (None, 11, 8, 5));
    let entry = store.entry(&anna[0].id).await.unwrap();
    assert_eq!(entry.receipt, anna[0]);
    assert_eq!((entry.model.unwrap().id.as_str(), entry.details), ("compact-1a2b3c4d", None));
    assert_eq!(store.image(&anna[0].id).await.unwrap(), None);
    let error = store.feedback(&anna[0].id, comment).await.unwrap_err();
    assert!(matches!(error, StoreError::Erased { .. }), "{error}");
    let none = store.erase(Erase::Subject("anna the first".into())).await.unwrap();
    assert_eq!((none.records, none.receipt), (0, None));

    store.close().await;
    for text in ["anna the first", "as dictated on monday"] {
        assert!(!bed.stands_in_files(text.as_bytes()), "{text}");
    }
    for (wrapped, sealed) in secrets {
        assert!(!bed.stands_in_files(&wrapped));
        // PostgreSQL leaves what nobody can decrypt any more until its place is used again.
        assert!(bed.cluster.is_some() || !bed.stands_in_files(&sealed));
    }
    assert!(bed.stands_in_files(b"bert"));
    let store = bed.open_with(&master('1')).await;
    // She may come again: with a new key.
    store.record(prediction(Some("anna the first"), 9)).await.unwrap();
    assert_eq!(verified(&store).await, 12);
}

async fn an_erased_receipt_takes_its_feedback_along(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let first = store.record(prediction(None, 1)).await.unwrap();
    let second = store.record(prediction(None, 2)).await.unwrap();
    let agrees = Verdict { opinion: Opinion::Agrees, label: None, reader: None, comment: None };
    store.feedback(&first.id, agrees).await.unwrap();
    let erased = store.erase(Erase::Receipt(first.id.clone())).await.unwrap();
    assert_eq!((erased.records, erased.images, erased.keys), (2, 1, 1));
    assert_eq!(store.image(&first.id).await.unwrap(), None);
    assert!(store.image(&second.id).await.unwrap().is_some());
    verified(&store).await;
}

async fn old_records_are_pruned(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let old = store.record(prediction(Some("anna"), 1)).await.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let young = store.record(prediction(Some("anna"), 2)).await.unwrap();
    assert_eq!(store.erase(Erase::Before(old.time_us)).await.unwrap().records, 0);

    let erased = store.erase(Erase::ImagesBefore(young.time_us)).await.unwrap();
    // The key still has an image.
    assert_eq!((erased.records, erased.images, erased.keys), (1, 1, 0));
    assert_eq!(store.image(&old.id).await.unwrap(), None);
    assert!(store.entry(&old.id).await.unwrap().details.unwrap().image_kept);
    verified(&store).await;

    let erased = store.erase(Erase::Before(young.time_us)).await.unwrap();
    assert_eq!((erased.records, erased.images), (1, 0));
    assert_eq!(store.entry(&old.id).await.unwrap().details, None);
    assert!(store.image(&young.id).await.unwrap().is_some());
    verified(&store).await;
    let erased = store.erase(Erase::Before(i64::MAX)).await.unwrap();
    assert_eq!((erased.records, erased.images, erased.keys), (1, 1, 1));
    assert_eq!(verified(&store).await, 6);
}

async fn the_master_key_is_rotated(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let mut receipts = Vec::new();
    for number in 0..3 {
        let subject = format!("subject {number}");
        receipts.push(store.record(prediction(Some(&subject), number)).await.unwrap());
    }
    let elsewhere = bed.open_with(&master('1')).await;
    assert_eq!(store.rotate_master_key(master('2')).await.unwrap(), 3);
    assert!(store.image(&receipts[0].id).await.unwrap().is_some());
    store.record(prediction(Some("subject 0"), 7)).await.unwrap();
    // A server that runs with the old key writes nothing under it.
    let error = elsewhere.record(prediction(Some("subject 0"), 8)).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherMasterKey { .. }), "{error}");
    assert!(elsewhere.image(&receipts[0].id).await.is_err());
    elsewhere.close().await;
    store.close().await;

    let config = StoreConfig { master_key: Some(master('1')), ..bed.config() };
    assert!(matches!(Store::open(config).await, Err(StoreError::OtherMasterKey { .. })));
    let store = bed.open_with(&master('2')).await;
    let found = store.verify(None).await.unwrap();
    // Two entries of keys and four predictions.
    assert_eq!((found.broken, found.entries, found.decrypted), (None, 6, 4));
    store.close().await;
    let without = bed.open().await;
    assert!(matches!(without.rotate_master_key(master('3')).await, Err(StoreError::NoMasterKey)));
}

async fn an_export_is_all_of_a_subject(bed: Bed) {
    let store = bed.open_with(&master('1')).await;
    let mut image = b"\x89PNG and more".to_vec();
    let receipt =
        store.record(NewPrediction { image: image.clone(), ..prediction(Some("anna"), 1) }).await.unwrap();
    store.record(prediction(Some("bert"), 2)).await.unwrap();
    let agrees = Verdict { opinion: Opinion::Agrees, label: None, reader: None, comment: None };
    store.feedback(&receipt.id, agrees).await.unwrap();
    let export = store.export("anna").await.unwrap();
    assert_eq!(
        export.entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(),
        [Kind::Prediction, Kind::Feedback]
    );
    assert_eq!(export.images, [(receipt.id.clone(), image.clone())]);

    let path = bed.folder.path().join("anna.zip");
    export.write_zip(&path).unwrap();
    let mut zip = zip::ZipArchive::new(fs_err::File::open(&path).unwrap()).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut zip.by_name(name).unwrap(), &mut bytes).unwrap();
        bytes
    };
    let entries: serde_json::Value = serde_json::from_slice(&read("entries.json")).unwrap();
    assert_eq!(entries["entries"][0]["id"], receipt.id.as_str());
    assert_eq!(entries["entries"][0]["details"]["subject"], "anna");
    assert_eq!(entries["entries"].as_array().unwrap().len(), 2);
    assert_eq!(read(&format!("images/{}.png", receipt.id)), std::mem::take(&mut image));
    assert_eq!(store.export("nobody").await.unwrap().entries, []);
}

async fn a_checkpoint_is_kept_beside(bed: Bed) {
    let path = bed.folder.path().join("checkpoint");
    let config = StoreConfig { checkpoint: Some(path.clone()), ..bed.config() };
    let store = Store::open(config).await.unwrap();
    for number in 0..3 {
        store.record(prediction(None, number)).await.unwrap();
    }
    let head = store.checkpoint().await.unwrap();
    store.close().await;
    let kept: Checkpoint = fs_err::read_to_string(&path).unwrap().parse().unwrap();
    assert_eq!((kept.position, &kept), (3, &head));
    let store = bed.open().await;
    store.record(prediction(None, 4)).await.unwrap();
    assert_eq!(store.verify(Some(&kept)).await.unwrap().broken, None);
}

async fn a_reader_makes_no_database(bed: Bed) {
    let config = StoreConfig { create: false, ..bed.config() };
    let error = Store::open(config.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    bed.open().await.close().await;
    Store::open(config).await.unwrap();
}

/// What a store is asked for in a random order.
#[derive(Debug, Clone)]
enum Step {
    Record(u8),
    Feedback(usize),
    EraseSubject(u8),
    EraseReceipt(usize),
    PruneAll(usize),
    PruneImages(usize),
    Rotate,
}

async fn step(store: &Store, step: Step, receipts: &mut Vec<nephros_store::Receipt>, key: &mut u32) {
    let subject = |number: u8| format!("subject {}", number % 4);
    let which = |at: usize| receipts.get(at % receipts.len().max(1)).cloned();
    match step {
        Step::Record(number) => {
            let of = subject(number);
            let new = prediction((number % 5 > 0).then_some(&of), number.into());
            receipts.push(store.record(new).await.unwrap());
        }
        Step::Feedback(at) => {
            let Some(receipt) = which(at) else { return };
            let said = Verdict {
                opinion: Opinion::Disagrees,
                label: None,
                reader: None,
                comment: Some("no".into()),
            };
            match store.feedback(&receipt.id, said).await {
                Ok(_) | Err(StoreError::Erased { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Step::EraseSubject(number) => drop(store.erase(Erase::Subject(subject(number))).await.unwrap()),
        Step::EraseReceipt(at) => {
            let Some(receipt) = which(at) else { return };
            store.erase(Erase::Receipt(receipt.id)).await.unwrap();
        }
        Step::PruneAll(at) => {
            let Some(receipt) = which(at) else { return };
            store.erase(Erase::Before(receipt.time_us)).await.unwrap();
        }
        Step::PruneImages(at) => {
            let Some(receipt) = which(at) else { return };
            store.erase(Erase::ImagesBefore(receipt.time_us)).await.unwrap();
        }
        Step::Rotate => {
            *key += 1;
            store.rotate_master_key(master(char::from_digit(*key % 10, 10).unwrap())).await.unwrap();
        }
    }
}

async fn whatever_is_done_the_log_verifies(bed: Bed) {
    let any_step = prop_oneof![
        6 => any::<u8>().prop_map(Step::Record),
        2 => any::<usize>().prop_map(Step::Feedback),
        1 => any::<u8>().prop_map(Step::EraseSubject),
        1 => any::<usize>().prop_map(Step::EraseReceipt),
        1 => any::<usize>().prop_map(Step::PruneAll),
        1 => any::<usize>().prop_map(Step::PruneImages),
        1 => Just(Step::Rotate),
    ];
    let store = bed.open_with(&master('0')).await;
    let state = std::sync::Mutex::new((Vec::new(), 0));
    let cases = if bed.cluster.is_some() { 5 } else { 30 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    let property = move |steps: Vec<Step>| {
        let mut state = state.lock().unwrap();
        let (receipts, key) = &mut *state;
        handle.block_on(async {
            for next in steps {
                step(&store, next, receipts, key).await;
            }
            let found = store.verify(None).await.unwrap();
            prop_assert_eq!(found.broken, None);
            prop_assert_eq!(found.images, found.decrypted);
            // All that was ever acknowledged has its place still.
            for receipt in receipts.iter() {
                prop_assert_eq!(&store.entry(&receipt.id).await.unwrap().receipt, receipt);
            }
            Ok(())
        })
    };
    let steps = prop::collection::vec(any_step, 1..12);
    tokio::task::spawn_blocking(move || runner.run(&steps, property)).await.unwrap().unwrap();
}
