//! Random models for the tests.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this one")]

use nephros_core::{
    network::Architecture,
    pixels::RgbImage,
    preprocessing::{Normalization, Preprocessing},
    weights::{Tensor, Weights},
};

/// Values in -1 to 1, the same for the same seed.
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Arrays for every key; variances from 0.5 to 2.5, kernels scaled to keep the signal's size.
pub fn weights(architecture: Architecture, labels: usize, hidden_units: usize, size: [usize; 3]) -> Weights {
    let shapes = architecture.expected_shapes(labels, hidden_units, size);
    let tensors = shapes.into_iter().zip(1..).map(|((key, shape), seed)| {
        let inputs: usize = shape[1..].iter().product();
        let scale = (6.0 / inputs as f32).sqrt();
        let value = |value: f32| match key.as_str() {
            key if key.ends_with("running_var") => 1.5 + value,
            _ if shape.len() > 1 => scale * value,
            _ => value,
        };
        let values = noise(shape.iter().product(), seed).into_iter().map(value).collect();
        (key.clone(), Tensor { shape: shape.clone(), values })
    });
    Weights(tensors.collect())
}

pub fn preprocessing(image_size: [usize; 3]) -> Preprocessing {
    Preprocessing::new(image_size, Normalization::Unit)
}

pub fn labels(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

pub fn image(width: usize, height: usize, seed: u32) -> RgbImage {
    let pixels = noise(width * height * 3, seed).into_iter().map(|value| (127.5 * (value + 1.0)) as u8);
    RgbImage::new(width, height, pixels.collect()).unwrap()
}
