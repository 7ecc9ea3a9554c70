//! Receipts a second, for docs/benchmarks.md: `throughput DATABASE [WRITERS] [SECONDS] [IMAGE_BYTES]`.
//!
//! Each writer waits for its receipt before it records the next prediction, as a request of the server
//! does. With image bytes, images are kept. The database is left behind.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

use nephros_store::{MasterKey, Model, NewPrediction, Store, StoreConfig};

fn prediction(image: &[u8]) -> NewPrediction {
    NewPrediction {
        subject: Some("a subject".into()),
        image: image.to_vec(),
        model: Model {
            id: "vgg16-1a2b3c4d".into(),
            bundle_sha256: "ab".repeat(32),
            preprocessing: r#"{"image_size":[224,224,3],"resample":"bilinear","normalization":"caffe"}"#
                .into(),
            engine: "nephros".into(),
            labels: vec!["Normal".into(), "Tumor".into()],
        },
        probabilities: vec![0.25, 0.75],
        label: "Tumor".into(),
        refer: None,
        reasons: Vec::new(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let database = arguments.first().ok_or("expected a database")?.parse()?;
    let (writers, seconds, bytes) = (number(1, 16)?, number(2, 5)?, number(3, 0)?);
    let keep_images = bytes > 0;
    let master_key = Some(MasterKey::from_hex(&"1".repeat(64), "the benchmark")?);
    let store = Store::open(StoreConfig { keep_images, master_key, ..StoreConfig::new(database) }).await?;
    let image = vec![7; usize::try_from(bytes.max(1))?];
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, image) = (store.clone(), image.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while start.elapsed() < Duration::from_secs(seconds) {
                    let asked = Instant::now();
                    store.record(prediction(&image)).await?;
                    waits.push(asked.elapsed());
                }
                Ok::<_, nephros_store::StoreError>(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let quantile = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!(
        "{writers} writers, {bytes} image bytes: {rate:.0} receipts/s, p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        quantile(50),
        quantile(99),
        quantile(100)
    );
    let checked = Instant::now();
    let found = store.verify(None).await?;
    let broken = found.broken.map_or("nothing".to_owned(), |broken| broken.to_string());
    println!(
        "verified {} entries in {:.2} s, broken: {broken}",
        found.entries,
        checked.elapsed().as_secs_f64()
    );
    store.close().await;
    Ok(())
}
