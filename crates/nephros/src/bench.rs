//! `bench`: how fast the engine is on this machine, and how near to another engine's results.

use std::{io::Read as _, path::Path, time::Instant};

use nephros_conv::{Isa, Network, Options, Timing, peak_memory_mb};
use nephros_core::{
    network::{Architecture, Features},
    weights::{ArrayFile, Arrays as _},
};
use nephros_train::files::write_atomic;
use serde::Serialize;

use crate::{
    cli::{BenchArgs, BenchPrecision, Benchmark, Precision},
    errors::{CliError, Status},
    output,
};

/// The input of the published network: height, width, channels.
const IMAGE_SIZE: [usize; 3] = [224, 224, 3];

/// Images of the input that 8-bit maps are calibrated on, as many as the peers' are.
const CALIBRATION_IMAGES: usize = 8;

/// An array that only files of 8-bit weights have.
const FIRST_STEPS: &str = "features.2.step";

/// What `--json` prints, with the keys of the peers' script.
#[derive(Debug, Serialize)]
struct Report {
    engine: &'static str,
    isa: &'static str,
    batch: usize,
    threads: usize,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    max_feature_diff: Option<f32>,
    max_probability_diff: Option<f32>,
    ready_ms: f64,
    peak_mb: Option<u64>,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> anyhow::Result<Status> {
    let precision = supported(args.precision)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads as usize).build()?;
    if let (Benchmark::Quantize, Some(out)) = (args.what, &args.out) {
        let bytes = pool.install(|| quantize(&ArrayFile::open(&args.weights)?, &args.input))?;
        write_atomic(out, &bytes)?;
        return Ok(Status::Done);
    }
    let report = pool.install(|| measure(args, precision))?;
    if args.json {
        output::line(&serde_json::to_string(&report)?)?;
    } else {
        output::line(&describe(&report))?;
    }
    Ok(Status::Done)
}

/// What the engine has of what can be asked for.
fn supported(asked: BenchPrecision) -> Result<Precision, CliError> {
    match asked {
        BenchPrecision::F32 => Ok(Precision::F32),
        BenchPrecision::Int8 => Ok(Precision::Int8),
        BenchPrecision::Bf16 => Err(CliError::NoBf16),
    }
}

fn measure(args: &BenchArgs, precision: Precision) -> anyhow::Result<Report> {
    let batch = args.batch as usize;
    let input = channels_last(&read_images(&args.input, batch)?);
    let isa = args.isa.map_or_else(Isa::detect, Isa::from);
    let (features, head, ready_ms) = build(args, precision, isa)?;
    let shape = features.output();
    let mut map = vec![0.0; batch * shape.len()];
    let mut logits = vec![0.0; batch * head.output().len()];
    let timing = Timing::measure(batch, args.iters as usize, || {
        features.forward(&input, batch, &mut map)?;
        head.forward(&map, batch, &mut logits)
    })?;
    let beside = |name: &str, values: &[f32]| difference(&args.input.with_file_name(name), values);
    Ok(Report {
        engine: match precision {
            Precision::F32 => "nephros",
            Precision::Int8 => "nephros-int8",
        },
        isa: isa.name(),
        batch,
        threads: rayon::current_num_threads(),
        median_ms: hundredths(timing.median_ms),
        min_ms: hundredths(timing.min_ms),
        max_ms: hundredths(timing.max_ms),
        max_feature_diff: beside("features.f32", &channels_first(&map, shape.channels, batch))?,
        max_probability_diff: beside("probabilities.f32", &softmax(&logits, head.output().len()))?,
        ready_ms: hundredths(ready_ms),
        peak_mb: peak_memory_mb(),
    })
}

/// Features and head of VGG16, and the milliseconds from the closed file of weights to both: to a
/// network in 8 bits with the calibration, where the file holds f32 weights.
fn build(args: &BenchArgs, precision: Precision, isa: Isa) -> anyhow::Result<(Features, Network, f64)> {
    let start = Instant::now();
    let options = Options { isa, ..Options::default() };
    let mut file = ArrayFile::open(&args.weights)?;
    let quantized = file.shape(FIRST_STEPS).is_some();
    if precision == Precision::Int8 && !quantized {
        file = ArrayFile::from_bytes(quantize(&file, &args.input)?, &args.weights)?;
    }
    let head = Architecture::Vgg16.build_head(&file, labels(&file), 0, IMAGE_SIZE)?;
    let features = match precision {
        Precision::F32 => Architecture::Vgg16.build_features_with(&file, IMAGE_SIZE, options)?,
        Precision::Int8 => Architecture::Vgg16.build_quantized_features(&file, IMAGE_SIZE, options)?,
    };
    Ok((features, head, start.elapsed().as_secs_f64() * 1e3))
}

fn labels(file: &ArrayFile) -> usize {
    file.shape("head.bias").and_then(<[usize]>::first).copied().unwrap_or(2)
}

/// The bytes of a file of 8-bit weights, calibrated on the first images of the input.
fn quantize(weights: &ArrayFile, input: &Path) -> anyhow::Result<Vec<u8>> {
    let images = channels_last(&read_images(input, CALIBRATION_IMAGES)?);
    let mut calibrator = Architecture::Vgg16.calibrator(weights, IMAGE_SIZE)?;
    calibrator.add(&images, CALIBRATION_IMAGES)?;
    let head = (labels(weights), 0);
    Ok(Architecture::Vgg16.quantize(weights, IMAGE_SIZE, head, &calibrator.finish())?)
}

/// The first `batch` images of a file of `[images, 3, 224, 224]` little-endian floats.
fn read_images(path: &Path, batch: usize) -> anyhow::Result<Vec<f32>> {
    let [height, width, channels] = IMAGE_SIZE;
    let expected = batch * height * width * channels;
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(4 * expected as u64).read_to_end(&mut bytes)?;
    let values = floats(&bytes);
    let got = values.len();
    let short = CliError::TooFewImages { path: path.to_owned(), expected, got };
    if got == expected { Ok(values) } else { Err(short.into()) }
}

fn read_floats(path: &Path) -> anyhow::Result<Vec<f32>> {
    Ok(floats(&fs_err::read(path)?))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|quad| f32::from_le_bytes(*quad)).collect()
}

/// `[images, 3, 224, 224]` to `[images, 224, 224, 3]`.
fn channels_last(images: &[f32]) -> Vec<f32> {
    let [height, width, channels] = IMAGE_SIZE;
    let pixels = height * width;
    let mut output = vec![0.0; images.len()];
    let pairs = images.chunks_exact(pixels * channels).zip(output.chunks_exact_mut(pixels * channels));
    for (image, output) in pairs {
        for (channel, plane) in image.chunks_exact(pixels).enumerate() {
            for (value, pixel) in plane.iter().zip(output.chunks_exact_mut(channels)) {
                pixel[channel] = *value;
            }
        }
    }
    output
}

/// `[images, pixels, channels]` to `[images, channels, pixels]`.
fn channels_first(maps: &[f32], channels: usize, batch: usize) -> Vec<f32> {
    let each = maps.len() / batch;
    let planes = |map: &[f32]| -> Vec<f32> {
        (0..channels).flat_map(|channel| map.iter().skip(channel).step_by(channels)).copied().collect()
    };
    maps.chunks_exact(each).flat_map(planes).collect()
}

fn softmax(logits: &[f32], labels: usize) -> Vec<f32> {
    let row = |logits: &[f32]| -> Vec<f32> {
        let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - maximum).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    };
    logits.chunks_exact(labels).flat_map(row).collect()
}

/// Largest difference from the recorded values of another engine, where they are there.
fn difference(path: &Path, values: &[f32]) -> anyhow::Result<Option<f32>> {
    if !path.is_file() {
        return Ok(None);
    }
    let expected = read_floats(path)?;
    let (needed, got) = (values.len(), expected.len());
    anyhow::ensure!(got >= needed, "`{}`: expected {needed} values, got {got}", path.display());
    let pairs = values.iter().zip(&expected);
    Ok(Some(pairs.map(|(value, expected)| (value - expected).abs()).fold(0.0, f32::max)))
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn describe(report: &Report) -> String {
    let Report { engine, isa, batch, threads, median_ms, min_ms, max_ms, .. } = report;
    let difference = report.max_feature_diff.map(|value| format!(", features within {value:e}"));
    let peak = report.peak_mb.map(|value| format!(", {value} MB at most"));
    format!(
        "{engine} ({isa}), batch {batch}, {threads} threads: {median_ms} ms an image ({min_ms} to {max_ms}){}{}",
        difference.unwrap_or_default(),
        peak.unwrap_or_default()
    )
}
