//! The queue, its batches, and what becomes of work that nobody waits for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use nephros_core::{digest::sha256, pixels::DecodeError};
use nephros_serving::{Ask, Engine, Lane, Options, ServingError};
use support::{FAILS, PANICS, RedModel, answer, ask, begin, png, red, until};

mod support;

fn lane(options: Options) -> (Arc<Lane>, Arc<RedModel>) {
    let model = RedModel::new("red");
    (Engine::new(options).lane(model.clone()), model)
}

/// All answers that are begun wait at the model or before it, the last in the queue.
async fn queued(lane: &Arc<Lane>, count: usize) {
    // A job is in the queue once its place before the queue is given back; the one at work holds none.
    until(|| lane.waiting() == count).await;
}

#[tokio::test]
async fn an_answer_is_of_its_own_image() {
    let (lane, _) = lane(Options::default());
    let answered = answer(&lane, 204).await.unwrap();
    // 204/255, which is divided once: the nearest f32 of 0.8.
    assert_eq!(answered.classified.probabilities[1].to_bits(), 0.8_f32.to_bits());
    assert_eq!((answered.top, answered.timings.batch), (1, 1));
    assert_eq!(answered.sha256, sha256(&png(204)));
    assert_eq!(lane.taken(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_becomes_one_batch_and_no_more_than_a_batch() {
    let (lane, model) = lane(Options { batch: 3, ..Options::default() });
    model.close();
    let first = begin(&lane, 1);
    until(|| model.batches().len() == 1).await;
    let others: Vec<_> = (2..=6).map(|red| begin(&lane, red)).collect();
    queued(&lane, 5).await;
    model.open();
    assert_eq!(first.await.unwrap().unwrap().timings.batch, 1);
    for (expected, other) in (2..).zip(others) {
        assert_eq!(red(&other.await.unwrap().unwrap()), expected);
    }
    let mut batches = model.batches();
    // One, then three and two of the five that waited, in the order in which they were decoded.
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 2]);
    let mut reds = batches.split_off(1).concat();
    reds.sort_unstable();
    assert_eq!(reds, [2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_again() {
    let (lane, model) = lane(Options { queue: 3, ..Options::default() });
    lane.warm_up().unwrap();
    model.close();
    let running: Vec<_> = (1..=2).map(|red| begin(&lane, red)).collect();
    // Two of three places are taken: two images of one request are refused both.
    let full = lane.reserve(2).unwrap_err();
    assert_eq!(full.waiting, 2);
    assert_eq!(full.retry_after, Duration::from_secs_f64(2.0 * lane.seconds_an_image()));
    let last = lane.reserve(1).unwrap();
    assert_eq!(lane.reserve(1).unwrap_err().waiting, 3);
    drop(last);
    model.open();
    for answer in running {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(lane.reserve(3).unwrap().len(), 3);
    assert_eq!(lane.taken(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_answered_too_late_is_not_taken() {
    let (lane, model) = lane(Options { deadline: Duration::from_millis(400), ..Options::default() });
    model.close();
    let slow = begin(&lane, 1);
    until(|| model.batches().len() == 1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    model.open();
    slow.await.unwrap().unwrap();
    // At 0.15 s an image or more the third would be answered after 0.4 s.
    assert!(lane.seconds_an_image() >= 0.15);
    assert!(lane.reserve(1).is_ok());
    assert!(lane.reserve(3).is_ok(), "nobody waits: a slow model still gets work");
    let _taken = lane.reserve(1).unwrap();
    assert_eq!(lane.reserve(2).unwrap_err().waiting, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_client_that_left_is_not_begun() {
    let (lane, model) = lane(Options::default());
    model.close();
    let first = begin(&lane, 1);
    until(|| model.batches().len() == 1).await;
    let gone = begin(&lane, 2);
    let stays = begin(&lane, 3);
    queued(&lane, 2).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    model.open();
    first.await.unwrap().unwrap();
    assert_eq!(red(&stays.await.unwrap().unwrap()), 3);
    assert_eq!(model.batches(), [[1], [3]]);
    until(|| lane.taken() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_wait_and_the_work() {
    let (lane, model) = lane(Options { deadline: Duration::from_millis(100), ..Options::default() });
    model.close();
    let first = begin(&lane, 1);
    until(|| model.batches().len() == 1).await;
    let second = begin(&lane, 2);
    for late in [first, second] {
        assert!(matches!(late.await.unwrap(), Err(ServingError::Deadline { .. })));
    }
    model.open();
    until(|| lane.taken() == 0).await;
    assert_eq!(red(&answer(&lane, 3).await.unwrap()), 3);
    assert_eq!(model.batches(), [[1], [3]], "the second was never begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_breaks_the_model_breaks_no_other() {
    for bad in [PANICS, FAILS] {
        let (lane, model) = lane(Options::default());
        model.close();
        let first = begin(&lane, 1);
        until(|| model.batches().len() == 1).await;
        let others: Vec<_> = [2, bad, 3].into_iter().map(|red| (red, begin(&lane, red))).collect();
        queued(&lane, 3).await;
        model.open();
        first.await.unwrap().unwrap();
        for (sent, other) in others {
            match other.await.unwrap() {
                Ok(answered) => assert_eq!(red(&answered), sent),
                Err(ServingError::Panicked { text }) => {
                    assert_eq!((sent, text.as_str()), (PANICS, "a red that panics"));
                }
                Err(ServingError::Model(error)) => {
                    assert_eq!((sent, error.to_string().as_str()), (FAILS, "a red that fails"));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(red(&answer(&lane, 4).await.unwrap()), 4);
    }
}

#[tokio::test]
async fn what_is_no_image_never_reaches_the_model() {
    let (lane, model) = lane(Options { pixels: 5, ..Options::default() });
    for (bytes, too_large) in [("not an image".into(), false), (png(1), true)] {
        let place = lane.reserve(1).unwrap().pop().unwrap();
        let refused = lane.answer(place, Ask { image: bytes, similar: 0 }).await.unwrap_err();
        let ServingError::Image(error) = refused else { panic!("{refused}") };
        assert_eq!(matches!(error, DecodeError::TooLarge { .. }), too_large, "{error}");
    }
    assert!(model.batches().is_empty());
    assert_eq!(lane.taken(), 0);
}

#[tokio::test]
async fn a_model_that_fails_is_told_before_it_has_a_client() {
    let (lane, model) = lane(Options::default());
    lane.warm_up().unwrap();
    assert!(lane.seconds_an_image() > 0.0);
    // The grey of the picture.
    assert_eq!(model.batches(), [[128]]);
    assert!(answer(&lane, FAILS).await.is_err());
    drop(ask(1));
}
