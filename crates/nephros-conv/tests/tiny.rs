//! Every way through the code that holds `unsafe` and runs without special instructions, on shapes so
//! small that Miri comes to its end with them: `just miri`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod reference;

use nephros_conv::{Calibration, Layer, Options, QuantizedNetwork, Shape, Tiling};

use crate::reference::{Owned, all_options, conv, forward, naive, network, noise};

/// On two threads: the parts of a map that they write lie next to each other.
fn on_two_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap().install(work)
}

/// Sums are below 1 but for the bias; the tolerances of `naive.rs`.
fn check(shape: Shape, layers: &[Owned]) {
    let input = noise(shape.len(), 3);
    let expected = naive(shape, layers, &input);
    for options in all_options() {
        let output = on_two_threads(|| forward(&network(shape, layers, options), &input, 1));
        assert_eq!(output.len(), expected.len());
        for (got, expected) in output.iter().zip(&expected) {
            assert!(
                (f64::from(*got) - expected).abs() <= 5e-6,
                "{options:?}: expected {expected}, got {got}"
            );
        }
    }
}

#[test]
fn few_tiles_and_many_outputs() {
    check(Shape { height: 3, width: 5, channels: 3 }, &[conv(3, 9, true, 1), Owned::Pool]);
}

/// Enough tiles that each thread takes some all the way; Miri has a lower bound for that.
#[test]
fn many_tiles_and_few_outputs() {
    check(Shape { height: 12, width: 12, channels: 1 }, &[conv(1, 3, true, 1)]);
    check(Shape { height: 24, width: 24, channels: 1 }, &[conv(1, 1, false, 1), Owned::Pool]);
}

fn eight_bits(shape: Shape, layers: &[Owned], tiling: Tiling) -> Vec<Vec<f32>> {
    let layers: Vec<Layer<'_>> = layers.iter().map(Owned::borrow).collect();
    let input: Vec<f32> = noise(shape.len(), 3).into_iter().map(f32::abs).collect();
    let calibration = on_two_threads(|| Calibration::measure(shape, &layers, &input, 1)).unwrap();
    let ways = all_options().into_iter().filter(|options| options.tiling == Some(tiling));
    let run = |options: Options| {
        let network = QuantizedNetwork::new(shape, &layers, &calibration, options).unwrap();
        let mut output = vec![f32::NAN; network.output().len()];
        network.forward(&input, 1, &mut output).unwrap();
        output
    };
    ways.map(|options| on_two_threads(|| run(options))).collect()
}

/// A first layer in floats writes bytes, the second reads them and writes bytes, the third floats.
#[test]
fn bytes_by_windows_and_by_tiles() {
    let shape = Shape { height: 4, width: 5, channels: 3 };
    let layers = [conv(3, 5, true, 1), conv(5, 6, true, 3), Owned::Pool, conv(6, 7, true, 5)];
    let results = [Tiling::Direct, Tiling::F4].map(|tiling| eight_bits(shape, &layers, tiling));
    assert!(results[0][0].iter().any(|value| *value > 0.0));
    for result in results.iter().flatten() {
        assert_eq!(result, &results[0][0]);
    }
}

/// As [`many_tiles_and_few_outputs`], in 8 bits.
#[test]
fn bytes_by_many_tiles() {
    let shape = Shape { height: 4, width: 8, channels: 17 };
    let layers = [conv(17, 2, true, 1), Owned::Pool];
    let results = [Tiling::Direct, Tiling::F4].map(|tiling| eight_bits(shape, &layers, tiling));
    assert!(results[0][0].iter().any(|value| *value > 0.0));
    for result in results.iter().flatten() {
        assert_eq!(result, &results[0][0]);
    }
}
