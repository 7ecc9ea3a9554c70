//! How often the database is asked. A program of its own: the count is of all that the process asks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stdout, reason = "what is left out is said")]

use std::sync::atomic::{AtomicUsize, Ordering};

use bed::{Bed, prediction};
use nephros_store::{Opinion, ReceiptId, Store, Verdict};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::Registry,
};

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "store/bed.rs"]
mod bed;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "store/postgres.rs"]
mod postgres;

static QUERIES: AtomicUsize = AtomicUsize::new(0);

/// Counts what the driver says of each statement that it has sent, but for those that set a new connection: the
/// pool opens one where the last is still on its way back.
struct Count;

/// The first words of a statement.
#[derive(Default)]
struct Summary(String);

impl Visit for Summary {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Layer<Registry> for Count {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, Registry>) {
        if event.metadata().target() != "sqlx::query" {
            return;
        }
        let mut summary = Summary::default();
        event.record(&mut summary);
        assert!(!summary.0.is_empty(), "the driver calls it otherwise now");
        if !summary.0.starts_with("PRAGMA") && !summary.0.starts_with("SET ") {
            QUERIES.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn agrees(comment: String) -> Verdict {
    Verdict { opinion: Opinion::Agrees, label: None, reader: None, comment: Some(comment) }
}

/// The page and the queries that it took.
async fn counted(
    store: &Store,
    before: Option<&ReceiptId>,
    limit: u32,
) -> (Vec<(String, Vec<String>)>, usize) {
    let earlier = QUERIES.load(Ordering::Relaxed);
    let page = store.predictions(before, limit).await.unwrap();
    let queries = QUERIES.load(Ordering::Relaxed) - earlier;
    let comment = |word: &nephros_store::Entry| word.details.as_ref().unwrap().comment.clone().unwrap();
    let told = page
        .iter()
        .map(|(entry, words)| (entry.receipt.id.to_string(), words.iter().map(comment).collect::<Vec<_>>()));
    (told.collect(), queries)
}

async fn a_page_takes_the_same_queries_however_long_it_is(bed: Bed) {
    let store = bed.open().await;
    let mut expected = Vec::new();
    for number in 0..60 {
        let receipt = store.record(prediction(None, number)).await.unwrap();
        expected.push((receipt.id.clone(), Vec::new()));
        // Words about this one and an earlier one, so that they do not stand in the order of the predictions.
        for about in [number / 2, number] {
            let (id, words) = &mut expected[about as usize];
            let word = format!("word {number} about {about}");
            store.feedback(id, agrees(word.clone())).await.unwrap();
            words.push(word);
        }
    }
    // More about one than is listed: the latest are.
    let (id, words) = &mut expected[30];
    for number in 0..nephros_store::WORDS {
        store.feedback(id, agrees(number.to_string())).await.unwrap();
        words.push(number.to_string());
    }
    words.drain(..words.len() - nephros_store::WORDS as usize);
    let before = expected[50].0.clone();
    let expected: Vec<_> = expected.into_iter().rev().map(|(id, words)| (id.to_string(), words)).collect();

    let (all, queries) = counted(&store, None, 1000).await;
    assert_eq!(all, expected);
    // Predictions, and words.
    assert_eq!(queries, 2);
    assert_eq!(counted(&store, None, 1).await, (expected[..1].to_vec(), 2));
    // Where the page begins, predictions, and words.
    assert_eq!(counted(&store, Some(&before), 45).await, (expected[10..55].to_vec(), 3));
    assert_eq!(counted(&store, Some(&before), 2).await, (expected[10..12].to_vec(), 3));
    store.close().await;
}

#[tokio::test]
async fn a_page_takes_the_same_queries_on_both_databases() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Count)).unwrap();
    a_page_takes_the_same_queries_however_long_it_is(Bed::sqlite()).await;
    if let Some(bed) = Bed::postgres() {
        a_page_takes_the_same_queries_however_long_it_is(bed).await;
    }
}
