//! One model after the other, while clients ask.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{image, labels, preprocessing, weights};
use nephros_core::{
    bundle::{Bundle, BundleParts},
    network::Architecture,
    predictor::Predictor,
};
use nephros_serving::{Ask, Engine, Options, Slot};
use support::{RedModel, answer, begin, png, red, until};

#[path = "../../nephros-core/tests/common/mod.rs"]
mod common;
mod support;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_of_model_loses_no_request_and_mixes_no_batch() {
    let engine = Engine::new(Options { queue: 1 << 12, ..Options::default() });
    let models: Vec<_> = (0..20).map(|number| RedModel::new(number.to_string())).collect();
    let slot = Arc::new(Slot::new(Some(engine.lane(models[0].clone()))));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8_u8)
        .map(|client| {
            let (slot, done) = (Arc::clone(&slot), Arc::clone(&done));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !done.load(Ordering::Acquire) {
                    let lane = slot.current().unwrap();
                    let sent = client * 30 + (answers.len() % 30) as u8;
                    assert_eq!(red(&answer(&lane, sent).await.unwrap()), sent);
                    answers.push((lane.model().id().to_owned(), sent));
                }
                answers
            })
        })
        .collect();
    for model in &models[1..] {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        slot.replace(engine.lane(model.clone()));
    }
    done.store(true, Ordering::Release);
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.unwrap());
    }
    // Every answer that a client got from a lane was computed by that lane's model, and nothing else was.
    for model in models {
        let id = nephros_serving::Classifier::id(model.as_ref()).to_owned();
        let mut computed = model.batches().concat();
        let mut asked: Vec<u8> = told.iter().filter(|(model, _)| *model == id).map(|(_, red)| *red).collect();
        computed.sort_unstable();
        asked.sort_unstable();
        assert_eq!(computed, asked, "model {id}");
    }
    assert!(told.len() > 100, "{}", told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_lane_finishes_what_it_took_and_goes() {
    let engine = Engine::new(Options::default());
    let old = RedModel::new("old");
    let slot = Slot::new(Some(engine.lane(old.clone())));
    old.close();
    let waiting: Vec<_> = (1..=3).map(|red| begin(&slot.current().unwrap(), red)).collect();
    until(|| old.batches().len() == 1).await;
    let lane = Arc::downgrade(&slot.current().unwrap());
    // The one before the current one is kept for a roll back, the one before that is not.
    slot.replace(engine.lane(RedModel::new("between")));
    slot.replace(engine.lane(RedModel::new("new")));
    assert_eq!(red(&answer(&slot.current().unwrap(), 9).await.unwrap()), 9);
    assert!(lane.upgrade().is_some());
    old.open();
    for (expected, waiting) in (1..).zip(waiting) {
        assert_eq!(red(&waiting.await.unwrap().unwrap()), expected);
    }
    until(|| lane.upgrade().is_none()).await;
    assert_eq!(Arc::strong_count(&old), 1, "the model goes with its lane");
}

#[tokio::test]
async fn a_roll_back_is_undone_by_another() {
    let engine = Engine::new(Options::default());
    let slot = Slot::new(Some(engine.lane(RedModel::new("first"))));
    assert!(slot.roll_back().is_none());
    slot.replace(engine.lane(RedModel::new("second")));
    for expected in ["first", "second", "first"] {
        assert_eq!(slot.roll_back().unwrap().model().id(), expected);
        assert_eq!(slot.current().unwrap().model().id(), expected);
    }
}

const SIZE: [usize; 3] = [64, 64, 3];

fn save(bundle: &Path) {
    let parts = BundleParts {
        architecture: Architecture::Compact,
        hidden_units: 0,
        labels: labels(&["Normal", "Tumor"]),
        preprocessing: preprocessing(SIZE),
        params: serde_json::json!({}),
        dataset_digest: "d".repeat(64),
        split_digest: "5".repeat(64),
        metrics: serde_json::json!({}),
        calibration: None,
        abstention: None,
        patient: None,
    };
    let weights = weights(Architecture::Compact, 2, 0, SIZE);
    Bundle::save(bundle, parts, &weights, &[image(64, 64, 1)]).unwrap();
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = fs_err::read_to_string("/proc/self/statm").unwrap();
    // Pages of 4 KiB on every machine that the tests run on.
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_reloads_of_a_bundle_leak_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    save(&bundle);
    let file = fs_err::metadata(bundle.join("weights.safetensors")).unwrap().len();
    let engine = Engine::new(Options::default());
    let slot = Slot::new(None);
    let mut first = None;
    let mut before = 0;
    for round in 0..260 {
        let lane = engine.lane(Arc::new(Predictor::load(&bundle, None).unwrap()));
        lane.warm_up().unwrap();
        let gone = slot.previous().as_ref().map(Arc::downgrade);
        slot.replace(lane);
        let lane = slot.current().unwrap();
        let place = lane.reserve(1).unwrap().pop().unwrap();
        let answered = lane.answer(place, Ask { image: png(200), similar: 0 }).await.unwrap();
        let probabilities = answered.classified.probabilities;
        assert_eq!(first.get_or_insert_with(|| probabilities.clone()), &probabilities);
        until(|| gone.as_ref().is_none_or(|gone| gone.upgrade().is_none())).await;
        // What the allocator keeps for later, for each thread, settles in the first rounds.
        if round == 59 {
            before = resident();
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 * file, "grew by {grown} bytes in 200 reloads of {file} bytes of weights");
}
