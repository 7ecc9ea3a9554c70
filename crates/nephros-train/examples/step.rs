//! Times a step of training: loss and gradients by the CPU kernels and by Burn's autodiff, in turn.
//!
//! `cargo run --release -p nephros-train --example step -- [BATCH] [SIZE] [ROUNDS]`

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::{error::Error, time::Instant};

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData, activation::log_softmax},
};
use nephros_core::{
    network::Architecture,
    weights::{self, Weights},
};
use nephros_train::train::{Classifier, CpuGradients, Layout, Said, Trained};

/// As in the binary: Burn's tensors are allocated anew in each step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let argument = |position: usize, default| arguments.get(position).copied().unwrap_or(default);
    let (batch, size, rounds) = (argument(0, 32), argument(1, 128), argument(2, 10));
    let architecture = Architecture::Compact;
    let layout = Layout { architecture, image_size: [size, size, 3], hidden_units: 0, classes: 2 };
    let weights = noise(layout);
    let device = Device::flex().autodiff();
    let last = architecture.layers().len();
    let model = Classifier::new(layout, Trained::Layers { last }, &weights, &device)?;
    let mut kernels = CpuGradients::new(layout, last, &weights)?;
    let input: Vec<f32> = (0..batch * size * size * 3).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
    let targets: Vec<f32> = (0..batch).flat_map(|image| [[1.0, 0.0], [0.0, 1.0]][image % 2]).collect();
    let loss = |said: Said| {
        let targets = Tensor::<2>::from_data(TensorData::new(targets.clone(), [batch, 2]), &device);
        (log_softmax(said.logits, 1) * targets).sum().neg() / batch as f32
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        kernels.gradients(&model, &input, batch, &device, loss)?;
        ours.push(start.elapsed().as_secs_f64() * 1e3 / batch as f64);
        let start = Instant::now();
        let data = TensorData::new(input.clone(), [batch, size, size, 3]);
        let loss = loss(model.forward(architecture, Tensor::from_data(data, &device)));
        let _gradients = GradientsParams::from_grads(loss.backward(), &model);
        theirs.push(start.elapsed().as_secs_f64() * 1e3 / batch as f64);
    }
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours);
    let (least, median) = summary(ours.clone());
    println!("kernels: {median:.2} ms an image (least {least:.2})");
    let (_, ratio) = summary(ratios.collect());
    let (least, median) = summary(theirs);
    println!("Burn:    {median:.2} ms an image (least {least:.2})");
    println!("Burn / kernels, median of {rounds} rounds: {ratio:.2}");
    Ok(())
}

/// Weights of plausible sizes; what they are does not change the time.
fn noise(layout: Layout) -> Weights {
    let Layout { architecture, image_size, hidden_units, classes } = layout;
    let array = |(key, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let values = (0..len).map(|i| ((i * 104_729 % 997) as f32 / 997.0 - 0.45) * 0.2).collect();
        let values = if key.ends_with("running_var") { vec![1.0; len] } else { values };
        (key, weights::Tensor { shape, values })
    };
    Weights(architecture.expected_shapes(classes, hidden_units, image_size).into_iter().map(array).collect())
}

/// Least value and median.
fn summary(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values.first().copied().unwrap_or_default(), values.get(values.len() / 2).copied().unwrap_or_default())
}
