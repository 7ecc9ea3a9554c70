//! A batch that forms under load says the same as each image alone, bit for bit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::{
    io::Cursor,
    sync::{Arc, Condvar, Mutex},
};

use bytes::Bytes;
use common::{image, labels, preprocessing, weights};
use nephros_core::{
    network::Architecture,
    pixels::{self, RgbImage},
    predictor::{Predictor, Prepared},
};
use nephros_serving::{Answered, Ask, BoxError, Classified, Classifier, Engine, Options};
use support::until;

#[path = "../../nephros-core/tests/common/mod.rs"]
mod common;
mod support;

const SIZE: [usize; 3] = [32, 32, 3];

/// A real network that waits before each batch until it may go on, and remembers how large they were.
struct Held {
    predictor: Predictor,
    batches: Mutex<Vec<usize>>,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Held {
    fn new(architecture: Architecture) -> Arc<Self> {
        let network = weights(architecture, 2, 0, SIZE);
        let (names, id) = (labels(&["Normal", "Tumor"]), "held".to_owned());
        let predictor =
            Predictor::from_parts(architecture, 0, names, preprocessing(SIZE), &network, id).unwrap();
        Arc::new(Self {
            predictor,
            batches: Mutex::default(),
            open: Mutex::new(false),
            opened: Condvar::new(),
        })
    }

    fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Classifier for Held {
    fn id(&self) -> &str {
        self.predictor.id()
    }

    fn labels(&self) -> &[String] {
        self.predictor.labels()
    }

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        self.predictor.prepare(image, similar)
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        self.batches.lock().unwrap().push(batch.len());
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        Classifier::classify(&self.predictor, batch)
    }
}

/// A PNG of noise, of a size of its own.
fn png(number: u32) -> Bytes {
    let picture = image(40 + number as usize, 50, number);
    let pixels = image::RgbImage::from_raw(40 + number, 50, picture.pixels().to_vec()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

fn bits(probabilities: &[f32]) -> Vec<u32> {
    probabilities.iter().map(|value| value.to_bits()).collect()
}

fn bits_of(answered: &Answered) -> Vec<u32> {
    bits(&answered.classified.probabilities)
}

async fn a_batch_says_what_each_image_alone_says(architecture: Architecture) {
    let model = Held::new(architecture);
    let engine = Engine::new(Options { batch: 8, decoders: 2, ..Options::default() });
    let lane = engine.lane(model.clone());
    let images: Vec<Bytes> = (0..17).map(png).collect();
    let ask = |image: &Bytes| {
        let (lane, ask) = (Arc::clone(&lane), Ask { image: image.clone(), similar: 0 });
        let place = lane.reserve(1).unwrap().pop().unwrap();
        tokio::spawn(async move { lane.answer(place, ask).await.unwrap() })
    };
    // The first is at work and waits; the others come meanwhile.
    let mut together = vec![ask(&images[0])];
    until(|| model.batches() == [1]).await;
    together.extend(images[1..].iter().map(&ask));
    until(|| lane.waiting() == 16).await;
    model.open();
    let mut in_batches = Vec::new();
    for answer in together {
        in_batches.push(answer.await.unwrap());
    }
    assert_eq!(model.batches(), [1, 8, 8]);
    assert_eq!(in_batches.iter().filter(|answered| answered.timings.batch == 8).count(), 16);
    for (image, in_batch) in images.iter().zip(&in_batches) {
        let alone = ask(image).await.unwrap();
        assert_eq!(alone.timings.batch, 1);
        assert_eq!(bits_of(&alone), bits_of(in_batch));
        // And neither is anything else than the engine without a queue.
        let direct = model.predictor.predict(&pixels::decode(image).unwrap()).unwrap();
        assert_eq!(bits(&direct.probabilities), bits_of(in_batch));
    }
    let mut different: Vec<_> = in_batches.iter().map(bits_of).collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 17, "the images have to tell answers apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_compact_says_what_each_image_alone_says() {
    a_batch_says_what_each_image_alone_says(Architecture::Compact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_vgg16_says_what_each_image_alone_says() {
    a_batch_says_what_each_image_alone_says(Architecture::Vgg16).await;
}
