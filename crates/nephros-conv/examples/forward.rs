//! Times the VGG16 feature extractor and prints one JSON line:
//! `cargo run --release -p nephros-conv --example forward -- [IMAGES] [ROUNDS]`.

#![allow(clippy::print_stdout, reason = "the printed line is what the example is for")]

use std::{env, error::Error, time::Instant};

use nephros_conv::{Layer, Network, Shape};

/// Output channels of configuration D; 0 is a pooling.
const CHANNELS: [usize; 18] = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1).map(|text| text.parse::<usize>());
    let batch = arguments.next().transpose()?.unwrap_or(1).max(1);
    let rounds = arguments.next().transpose()?.unwrap_or(15).max(1);
    let network = vgg16()?;
    let input = noise(batch * network.input().len(), 1.0);
    let mut output = vec![0.0; batch * network.output().len()];
    network.forward(&input, batch, &mut output)?;
    let mut times: Vec<f64> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        network.forward(&input, batch, &mut output)?;
        times.push(start.elapsed().as_secs_f64() * 1e3 / batch as f64);
    }
    times.sort_by(f64::total_cmp);
    let (median, min) = (times[rounds / 2], times[0]);
    let threads = std::thread::available_parallelism()?;
    println!(
        r#"{{"network": "vgg16", "batch": {batch}, "threads": {threads}, "median_ms": {median:.2}, "min_ms": {min:.2}}}"#
    );
    Ok(())
}

fn vgg16() -> Result<Network, Box<dyn Error>> {
    let mut inputs = 3;
    let mut weights = Vec::new();
    for outputs in CHANNELS {
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
    Ok(Network::new(Shape { height: 224, width: 224, channels: 3 }, &layers)?)
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
