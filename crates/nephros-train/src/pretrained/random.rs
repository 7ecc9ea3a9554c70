//! Random weights to train from scratch.

use std::f64::consts::TAU;

use nephros_core::{
    network::Architecture,
    weights::{Tensor, Weights},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Convolutions normal with variance 2 / inputs, biases zero, batch norms identities; drawn in the
/// order of the layers.
///
/// Source: He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", 2015,
/// <https://arxiv.org/abs/1502.01852>.
pub(super) fn he_normal(architecture: Architecture, seed: u64) -> Weights {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = Weights::default();
    for (key, shape) in architecture.expected_feature_shapes() {
        let length = shape.iter().product();
        let values = match shape[..] {
            [_, inputs, height, width] => {
                let deviation = (2.0 / (inputs * height * width) as f64).sqrt();
                (0..length).map(|_| (normal(&mut random) * deviation) as f32).collect()
            }
            // Scale and variance of a batch norm; convolutions have no other vector of this name.
            _ if key.ends_with(".weight") || key.ends_with(".running_var") => vec![1.0; length],
            _ => vec![0.0; length],
        };
        weights.0.insert(key, Tensor { shape, values });
    }
    weights
}

/// A standard normal value.
///
/// Source: Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    // 1 - u is above zero, so that its logarithm is finite.
    let (u, angle): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_the_same_weights() {
        let weights = he_normal(Architecture::Compact, 1);
        assert_eq!(weights, he_normal(Architecture::Compact, 1));
        assert_ne!(weights, he_normal(Architecture::Compact, 2));
    }

    #[test]
    fn variances_follow_the_inputs() {
        let weights = he_normal(Architecture::Vgg16, 5);
        for (key, inputs) in [("features.2.weight", 64.0 * 9.0), ("features.28.weight", 512.0 * 9.0)] {
            let values = &weights.0[key].values;
            let count = values.len() as f64;
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
            let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
            // Five standard errors of the mean and of the variance of `count` normal values.
            let expected = 2.0 / inputs;
            assert!(mean.abs() < 5.0 * (expected / count).sqrt(), "{key}: mean {mean}");
            let error = (variance / expected - 1.0).abs();
            assert!(error < 5.0 * (2.0 / count).sqrt(), "{key}: variance {variance}, expected {expected}");
        }
    }

    #[test]
    fn batch_norms_start_as_identities() {
        let weights = he_normal(Architecture::Compact, 1);
        let first = |key: &str| weights.0[key].values[0].to_bits();
        assert_eq!([first("features.1.weight"), first("features.1.running_var")], [1.0_f32.to_bits(); 2]);
        let zeros = ["features.0.bias", "features.1.bias", "features.1.running_mean"];
        assert_eq!(zeros.map(first), [0; 3]);
    }
}
