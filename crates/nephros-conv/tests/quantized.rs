//! 8-bit networks: near the f32 result, and the same bits on every instruction set.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod reference;

use nephros_conv::{Calibration, ConvError, Isa, Layer, Options, QuantizedNetwork, Shape, Tiling};
use proptest::prelude::*;

use crate::reference::{Owned, conv, dense, forward, network, noise};

fn quantized(shape: Shape, layers: &[Owned], images: &[f32], isa: Isa) -> QuantizedNetwork {
    with_tiling(shape, layers, images, Options { isa, tiling: None })
}

fn with_tiling(shape: Shape, layers: &[Owned], images: &[f32], options: Options) -> QuantizedNetwork {
    let layers: Vec<Layer<'_>> = layers.iter().map(Owned::borrow).collect();
    let batch = images.len() / shape.len();
    let calibration = Calibration::measure(shape, &layers, images, batch).unwrap();
    QuantizedNetwork::new(shape, &layers, &calibration, options).unwrap()
}

fn run(network: &QuantizedNetwork, input: &[f32], batch: usize) -> Vec<f32> {
    let mut output = vec![f32::NAN; batch * network.output().len()];
    network.forward(input, batch, &mut output).unwrap();
    output
}

fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
}

/// A step of an input map and of the weights is 1/255 and 1/127 of the largest value. Over sums of
/// many terms the errors mostly cancel; 3 % of the largest output bounds three layers.
fn assert_near(got: &[f32], expected: &[f32], name: Isa) {
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (got, expected) in got.iter().zip(expected) {
        let difference = (got - expected).abs();
        assert!(difference <= 0.03 * largest + 1e-6, "{name}: expected {expected} of {largest}, got {got}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    #[test]
    fn near_the_floats(
        height in 4..40_usize, width in 4..40_usize, inner in 1..140_usize, outputs in 1..140_usize,
        batch in 0..3_usize, seed in 0..1000_u32,
    ) {
        let shape = Shape { height, width, channels: 3 };
        let layers = [
            conv(3, inner, true, seed), conv(inner, outputs, true, seed + 2), Owned::Pool,
            conv(outputs, 33, true, seed + 4), Owned::Pool,
        ];
        let input = noise(batch.max(1) * shape.len(), seed);
        let expected = forward(&network(shape, &layers, Options::default()), &input, batch.max(1));
        for isa in available() {
            let network = quantized(shape, &layers, &input, isa);
            let output = run(&network, &input[..batch * shape.len()], batch);
            assert_near(&output, &expected, isa);
            for (image, result) in input.chunks(shape.len()).zip(output.chunks(network.output().len())) {
                prop_assert_eq!(run(&network, image, 1), result);
            }
        }
    }

    #[test]
    fn the_same_bits_on_every_instruction_set(
        height in 1..20_usize, width in 1..30_usize, channels in 17..140_usize, outputs in 1..100_usize,
        seed in 0..1000_u32,
    ) {
        // From 17 channels on, no layer runs in floats.
        let shape = Shape { height, width, channels };
        let layers = [conv(channels, outputs, true, seed), conv(outputs, 70, true, seed + 2)];
        let input: Vec<f32> = noise(shape.len(), seed).into_iter().map(f32::abs).collect();
        let results = available().into_iter().map(|isa| run(&quantized(shape, &layers, &input, isa), &input, 1));
        let results: Vec<_> = results.collect();
        for result in &results {
            prop_assert_eq!(result, &results[0]);
        }
    }
}

/// Direct and by tiles, on every instruction set, the first being the one to compare with.
fn in_every_way(shape: Shape, layers: &[Owned], input: &[f32]) -> Vec<Vec<f32>> {
    let ways = [Some(Tiling::Direct), Some(Tiling::F4), None].into_iter();
    let ways = ways.flat_map(|tiling| available().into_iter().map(move |isa| Options { isa, tiling }));
    ways.map(|options| run(&with_tiling(shape, layers, input, options), input, 1)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    #[test]
    fn tiles_give_the_bits_of_the_definition(
        height in 2..30_usize, width in 2..30_usize, channels in 17..140_usize, outputs in 1..100_usize,
        pool: bool, seed in 0..1000_u32,
    ) {
        let shape = Shape { height, width, channels };
        let mut layers = vec![conv(channels, outputs, true, seed), conv(outputs, 70, true, seed + 2)];
        if pool {
            layers.insert(1, Owned::Pool);
        }
        let input: Vec<f32> = noise(shape.len(), seed).into_iter().map(f32::abs).collect();
        let results = in_every_way(shape, &layers, &input);
        for result in &results {
            prop_assert_eq!(result, &results[0]);
        }
    }
}

/// Inputs and weights that bring the transforms and the sums of 512 channels to their limits.
#[test]
fn tiles_are_exact_at_the_limits() {
    let shape = Shape { height: 6, width: 7, channels: 512 };
    for (kind, sign) in [(0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)] {
        // Of one sign, as a chequered board, and by columns.
        let taps = (0..9).map(|tap| match kind {
            1 if tap % 2 == 1 => -sign,
            2 if tap % 3 == 1 => -sign,
            _ => sign,
        });
        let kernel = taps.flat_map(|weight| std::iter::repeat_n(weight, 3 * shape.channels)).collect();
        let layer = Owned::Conv(kernel, vec![0.25; 3], true);
        let pixels = (0..shape.height * shape.width).flat_map(|pixel| {
            let (y, x) = (pixel / shape.width, pixel % shape.width);
            let white = match kind {
                0 => true,
                1 => (y + x) % 2 == 0,
                _ => x % 2 == 0,
            };
            std::iter::repeat_n(if white { 1.0 } else { 0.0 }, shape.channels)
        });
        let input: Vec<f32> = pixels.collect();
        let results = in_every_way(shape, std::slice::from_ref(&layer), &input);
        assert!(results[0].iter().any(|value| *value > 0.25) || sign < 0.0);
        for result in &results {
            assert_eq!(result, &results[0], "kind {kind}, sign {sign}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let shape = Shape { height: 37, width: 41, channels: 3 };
    let layers = [conv(3, 48, true, 1), conv(48, 200, true, 3), Owned::Pool, conv(200, 80, true, 5)];
    let input = noise(2 * shape.len(), 4);
    let network = quantized(shape, &layers, &input, Isa::detect());
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&network, &input, 2))
    };
    assert_eq!(on(1), on(2));
    assert_eq!(on(1), on(5));
}

#[test]
fn what_cannot_be_quantised_is_named() {
    let shape = Shape { height: 4, width: 4, channels: 32 };
    let error = |layers: &[Owned], maxima: Vec<f32>| -> ConvError {
        let layers: Vec<Layer<'_>> = layers.iter().map(Owned::borrow).collect();
        QuantizedNetwork::new(shape, &layers, &Calibration { maxima }, Options::default()).unwrap_err()
    };
    assert_eq!(
        error(&[conv(32, 8, false, 1)], vec![1.0]).to_string(),
        "layer 0: 8-bit maps hold no negative values: every convolution needs its ReLU (its input is 4x4x32)"
    );
    assert_eq!(
        error(&[conv(32, 8, true, 1)], vec![]).to_string(),
        "expected a calibration of 1 convolutions, got one of 0"
    );
    assert!(matches!(error(&[Owned::Pool], vec![]), ConvError::Incompatible { layer: 0, .. }));
}

#[test]
fn what_follows_the_convolutions_runs_in_floats() {
    let shape = Shape { height: 9, width: 9, channels: 3 };
    let layers =
        [conv(3, 16, true, 1), Owned::Pool, conv(16, 20, true, 3), Owned::Average, dense(20, 2, false, 5)];
    let input = noise(shape.len(), 4);
    let expected = forward(&network(shape, &layers, Options::default()), &input, 1);
    assert_near(&run(&quantized(shape, &layers, &input, Isa::detect()), &input, 1), &expected, Isa::detect());
}
