//! The kernels against plain loops in f64, for every instruction set of this machine and every way
//! to compute a convolution.

mod reference;

use nephros_conv::{Options, Shape, Tiling};
use proptest::prelude::*;

use crate::reference::{Owned, all_options, conv, dense, forward, naive, network, noise};

/// Largest difference from the sum in f64, in proportion to the largest sum of absolute products
/// of the layer, which is below 1 here but for the bias: inputs lie in -1..1, and the kernels of an
/// output sum up to 1 at most.
fn tolerance(tiling: Option<Tiling>) -> f64 {
    match tiling {
        Some(Tiling::Direct) => 1e-6,
        Some(Tiling::F2) => 2e-6,
        Some(Tiling::F4) | None => 5e-6,
    }
}

fn check(shape: Shape, layers: &[Owned], batch: usize, seed: u32) {
    let input = noise(batch * shape.len(), seed);
    let expected: Vec<_> = input.chunks(shape.len()).map(|image| naive(shape, layers, image)).collect();
    for options in all_options() {
        let network = network(shape, layers, options);
        let output = forward(&network, &input, batch);
        assert_eq!(output.len(), batch * network.output().len());
        let results = output.chunks(network.output().len()).zip(input.chunks(shape.len()));
        for ((result, image), expected) in results.zip(&expected) {
            assert_close(result, expected, options);
            let alone = forward(&network, image, 1);
            assert_eq!(result, alone, "{options:?}: an image alone differs from it in a batch");
        }
    }
}

fn assert_close(got: &[f32], expected: &[f64], options: Options) {
    assert_eq!(got.len(), expected.len());
    let tolerance = tolerance(options.tiling);
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let difference = (f64::from(*got) - expected).abs();
        assert!(difference <= tolerance, "{options:?}: value {index}: expected {expected}, got {got}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

    #[test]
    fn convolution(
        height in 1..20_usize, width in 1..40_usize, inputs in 1..40_usize, outputs in 1..70_usize,
        relu: bool, batch in 0..3_usize, seed in 0..1000_u32,
    ) {
        let shape = Shape { height, width, channels: inputs };
        check(shape, &[conv(inputs, outputs, relu, seed)], batch, seed);
    }

    #[test]
    fn convolution_then_pooling(
        height in 2..20_usize, width in 2..40_usize, inputs in 1..20_usize, outputs in 1..40_usize,
        relu: bool, batch in 0..3_usize, seed in 0..1000_u32,
    ) {
        let shape = Shape { height, width, channels: inputs };
        check(shape, &[conv(inputs, outputs, relu, seed), Owned::Pool], batch, seed);
    }

    #[test]
    fn pooling_alone(height in 2..9_usize, width in 2..9_usize, channels in 1..9_usize, seed in 0..1000_u32) {
        check(Shape { height, width, channels }, &[Owned::Pool], 2, seed);
    }

    #[test]
    fn average(height in 1..9_usize, width in 1..9_usize, channels in 1..40_usize, seed in 0..1000_u32) {
        check(Shape { height, width, channels }, &[Owned::Average], 2, seed);
    }

    #[test]
    fn dense_layers(
        height in 1..6_usize, width in 1..6_usize, channels in 1..20_usize,
        hidden in 1..40_usize, relu: bool, batch in 0..4_usize, seed in 0..1000_u32,
    ) {
        let shape = Shape { height, width, channels };
        check(shape, &[dense(shape.len(), hidden, relu, seed), dense(hidden, 2, false, seed + 9)], batch, seed);
    }

    #[test]
    fn chains(height in 4..13_usize, width in 4..13_usize, batch in 0..6_usize, seed in 0..1000_u32) {
        let layers = [
            conv(3, 8, true, seed), Owned::Pool, conv(8, 5, false, seed + 2), conv(5, 16, true, seed + 4),
            Owned::Pool, Owned::Average, dense(16, 3, false, seed + 6),
        ];
        check(Shape { height, width, channels: 3 }, &layers, batch, seed);
    }
}

#[test]
fn a_deep_layer_as_vgg16_has_it() {
    let shape = Shape { height: 14, width: 14, channels: 512 };
    check(shape, &[conv(512, 64, true, 1), Owned::Pool], 2, 1);
}
