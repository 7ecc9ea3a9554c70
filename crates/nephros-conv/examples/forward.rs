//! Times a feature extractor with random weights and prints one JSON line:
//! `cargo run --release -p nephros-conv --example forward -- [IMAGES] [ROUNDS] [NETWORK] [ISA] [TILING] [PRECISION]`,
//! with `vgg16` or `compact` as the network, `avx512`, `avx2`, `neon` or `portable` as the
//! instruction set, and `direct`, `f2` or `f4` as the only way of all convolutions
//! (`any` chooses), and `f32` or `int8`.

#![allow(clippy::print_stdout, reason = "the printed line is what the example is for")]

use std::{env, error::Error, time::Instant};

use nephros_conv::{
    Calibration, ConvError, Isa, Layer, Network, NetworkBuilder, Options, QuantizedNetwork, Shape, Tiling,
    Timing, peak_memory_mb,
};

/// Output channels of configuration D; 0 is a pooling.
const VGG16: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];
/// The plan of nephros' small network.
const COMPACT: &[usize] = &[16, 0, 32, 0, 64, 0, 96, 128, 0, 128];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let argument = |index: usize, default: &str| arguments.get(index).map_or(default, |text| text).to_owned();
    let (batch, rounds): (usize, usize) = (argument(0, "1").parse()?, argument(1, "15").parse()?);
    let name = argument(2, "vgg16");
    let isa = argument(3, Isa::detect().name());
    let tiling = match argument(4, "").as_str() {
        "direct" => Some(Tiling::Direct),
        "f2" => Some(Tiling::F2),
        "f4" => Some(Tiling::F4),
        _ => None,
    };
    let isa = Isa::ALL.into_iter().find(|known| known.name() == isa).unwrap_or_default();
    let (plan, side) = if name == "compact" { (COMPACT, 128) } else { (VGG16, 224) };
    let options = Options { isa, tiling };
    let ((timing, ready_ms), precision) = match argument(5, "f32").as_str() {
        "int8" => (int8(plan, side, options, (batch, rounds))?, "int8"),
        _ => (f32(plan, side, options, (batch, rounds))?, "f32"),
    };
    let Timing { median_ms, min_ms, max_ms } = timing;
    let (threads, peak_mb) = (rayon::current_num_threads(), peak_memory_mb().unwrap_or_default());
    println!(
        r#"{{"network": "{name}", "isa": "{isa}", "precision": "{precision}", "batch": {batch}, "threads": {threads}, "median_ms": {median_ms:.2}, "min_ms": {min_ms:.2}, "max_ms": {max_ms:.2}, "ready_ms": {ready_ms:.0}, "peak_mb": {peak_mb}}}"#
    );
    Ok(())
}

fn f32(
    plan: &[usize],
    side: usize,
    options: Options,
    (batch, rounds): (usize, usize),
) -> Result<(Timing, f64), ConvError> {
    let (network, ready_ms) = build(plan, side, options)?;
    let input = noise(batch * network.input().len(), 1.0);
    let mut output = vec![0.0; batch * network.output().len()];
    let timing = Timing::measure(batch, rounds, || network.forward(&input, batch, &mut output))?;
    Ok((timing, ready_ms))
}

/// Calibrated on the first of the images that are timed.
fn int8(
    plan: &[usize],
    side: usize,
    options: Options,
    (batch, rounds): (usize, usize),
) -> Result<(Timing, f64), ConvError> {
    let shape = Shape { height: side, width: side, channels: 3 };
    let input = noise(batch * shape.len(), 1.0);
    let mut inputs = 3;
    let mut weights = Vec::new();
    for &outputs in plan {
        let scale = (6.0 / (9 * inputs) as f32).sqrt();
        weights.push((noise(9 * inputs * outputs, scale), vec![0.05; outputs]));
        inputs = if outputs == 0 { inputs } else { outputs };
    }
    let layers: Vec<Layer<'_>> = weights
        .iter()
        .map(|(kernel, bias)| match bias.as_slice() {
            [] => Layer::MaxPool2x2,
            bias => Layer::Conv3x3 { kernel, bias, relu: true },
        })
        .collect();
    let calibration = Calibration::measure(shape, &layers, &input[..shape.len()], 1)?;
    let start = Instant::now();
    let network = QuantizedNetwork::new(shape, &layers, &calibration, options)?;
    let ready_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut output = vec![0.0; batch * network.output().len()];
    let timing = Timing::measure(batch, rounds, || network.forward(&input, batch, &mut output))?;
    Ok((timing, ready_ms))
}

/// The network, and the milliseconds that packing took.
fn build(plan: &[usize], side: usize, options: Options) -> Result<(Network, f64), ConvError> {
    let mut builder = NetworkBuilder::new(Shape { height: side, width: side, channels: 3 }, options)?;
    let mut milliseconds = 0.0;
    for &outputs in plan {
        let inputs = builder.output().channels;
        let scale = (6.0 / (9 * inputs) as f32).sqrt();
        let (kernel, bias) = (noise(9 * inputs * outputs, scale), vec![0.05; outputs]);
        let layer = match outputs {
            0 => Layer::MaxPool2x2,
            _ => Layer::Conv3x3 { kernel: &kernel, bias: &bias, relu: true },
        };
        let start = Instant::now();
        builder.push(&layer)?;
        milliseconds += start.elapsed().as_secs_f64() * 1e3;
    }
    Ok((builder.finish(), milliseconds))
}

/// Values between `-scale` and `scale` from a linear congruential generator.
fn noise(len: usize, scale: f32) -> Vec<f32> {
    let mut state = 1_u32;
    let next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        scale * ((state >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    std::iter::repeat_with(next).take(len).collect()
}
