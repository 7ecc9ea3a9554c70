//! A model whose answer can be read off the image, which waits where a test wants it to.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    io::Cursor,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use nephros_core::{pixels::RgbImage, predictor::Prepared};
use nephros_serving::{Answered, Ask, BoxError, Classified, Classifier, Lane, ServingError};
use tokio::task::JoinHandle;

/// A red from which on the model panics, and one where it reports an error.
pub const PANICS: u8 = 255;
pub const FAILS: u8 = 254;

/// Says the red of the first pixel over 255.
pub struct RedModel {
    id: String,
    labels: Vec<String>,
    /// Reds of each batch that was begun.
    batches: Mutex<Vec<Vec<u8>>>,
    gate: Mutex<bool>,
    opened: Condvar,
}

impl RedModel {
    pub fn new(id: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            labels: vec!["Normal".to_owned(), "Tumor".to_owned()],
            batches: Mutex::default(),
            gate: Mutex::new(true),
            opened: Condvar::new(),
        })
    }

    /// From now on a batch waits for [`Self::open`].
    pub fn close(&self) {
        *self.gate.lock().unwrap() = false;
    }

    pub fn open(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub fn batches(&self) -> Vec<Vec<u8>> {
        self.batches.lock().unwrap().clone()
    }
}

impl Classifier for RedModel {
    fn id(&self) -> &str {
        &self.id
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        Prepared { input: vec![f32::from(image.pixels()[0])], traits: None, similar }
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        let reds: Vec<u8> = batch.iter().map(|image| image.input[0] as u8).collect();
        self.batches.lock().unwrap().push(reds.clone());
        let gate = self.gate.lock().unwrap();
        drop(self.opened.wait_while(gate, |open| !*open).unwrap());
        assert!(!reds.contains(&PANICS), "a red that panics");
        if reds.contains(&FAILS) {
            return Err("a red that fails".into());
        }
        let classified = |red: u8| {
            let tumor = f32::from(red) / 255.0;
            Classified { probabilities: vec![1.0 - tumor, tumor], ..Classified::default() }
        };
        Ok(reds.into_iter().map(classified).collect())
    }
}

/// A 3×2 PNG of one red value.
pub fn png(red: u8) -> Bytes {
    let image = image::RgbImage::from_pixel(3, 2, image::Rgb([red, 7, 9]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

pub fn ask(red: u8) -> Ask {
    Ask { image: png(red), similar: 0 }
}

pub type Answer = JoinHandle<Result<Answered, ServingError>>;

/// Begins to ask, with a place of the lane.
pub fn begin(lane: &Arc<Lane>, red: u8) -> Answer {
    let place = lane.reserve(1).unwrap().pop().unwrap();
    let lane = Arc::clone(lane);
    tokio::spawn(async move { lane.answer(place, ask(red)).await })
}

pub async fn answer(lane: &Arc<Lane>, red: u8) -> Result<Answered, ServingError> {
    begin(lane, red).await.unwrap()
}

/// The red that an answer was made of.
pub fn red(answered: &Answered) -> u8 {
    (answered.classified.probabilities[1] * 255.0).round() as u8
}

/// Waits for what happens on other threads; a minute is more than it ever takes.
pub async fn until(happened: impl Fn() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited for too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
