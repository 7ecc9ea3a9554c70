//! The kernels against plain loops in f64.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use nephros_conv::{ConvError, Layer, Network, Shape};
use proptest::prelude::*;

/// Relative to the largest sum of absolute products: f32 rounding over at most 9 * 40 terms.
const TOLERANCE: f64 = 1e-5;

#[derive(Debug, Clone)]
enum Owned {
    Conv(Vec<f32>, Vec<f32>, bool),
    Pool,
    Average,
    Dense(Vec<f32>, Vec<f32>, bool),
}

impl Owned {
    fn borrow(&self) -> Layer<'_> {
        match self {
            Self::Conv(kernel, bias, relu) => Layer::Conv3x3 { kernel, bias, relu: *relu },
            Self::Pool => Layer::MaxPool2x2,
            Self::Average => Layer::GlobalAveragePool,
            Self::Dense(kernel, bias, relu) => Layer::Dense { kernel, bias, relu: *relu },
        }
    }
}

/// `[height, width, channels]` values in f64.
struct Map {
    shape: Shape,
    values: Vec<f64>,
}

impl Map {
    fn at(&self, y: usize, x: usize, channel: usize) -> f64 {
        self.values[(y * self.shape.width + x) * self.shape.channels + channel]
    }

    fn build(shape: Shape, value: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut values = Vec::new();
        for y in 0..shape.height {
            for x in 0..shape.width {
                values.extend((0..shape.channels).map(|channel| value(y, x, channel)));
            }
        }
        Self { shape, values }
    }

    fn apply(&self, layer: &Owned) -> Self {
        let Shape { height, width, channels } = self.shape;
        match layer {
            Owned::Conv(kernel, bias, relu) => {
                Self::build(Shape { channels: bias.len(), ..self.shape }, |y, x, o| {
                    rectify(self.convolved(kernel, bias, y, x, o), *relu)
                })
            }
            Owned::Pool => {
                Self::build(Shape { height: height / 2, width: width / 2, channels }, |y, x, c| {
                    let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
                    let values = corners.map(|(dy, dx)| self.at(2 * y + dy, 2 * x + dx, c));
                    values.into_iter().fold(f64::NEG_INFINITY, f64::max)
                })
            }
            Owned::Average => Self::build(Shape { height: 1, width: 1, channels }, |_, _, c| {
                let column = self.values.iter().skip(c).step_by(channels);
                column.sum::<f64>() / (height * width) as f64
            }),
            Owned::Dense(kernel, bias, relu) => {
                let outputs = bias.len();
                Self::build(Shape { height: 1, width: 1, channels: outputs }, |_, _, o| {
                    let products = self.values.iter().zip(kernel.iter().skip(o).step_by(outputs));
                    let sum: f64 = products.map(|(value, weight)| value * f64::from(*weight)).sum();
                    rectify(sum + f64::from(bias[o]), *relu)
                })
            }
        }
    }

    fn convolved(&self, kernel: &[f32], bias: &[f32], y: usize, x: usize, o: usize) -> f64 {
        let Shape { height, width, channels } = self.shape;
        let mut sum = f64::from(bias[o]);
        for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
            let (row, column) = (y + ky, x + kx);
            let inside = (1..=height).contains(&row) && (1..=width).contains(&column);
            for i in (0..channels).filter(|_| inside) {
                let weight = kernel[((ky * 3 + kx) * channels + i) * bias.len() + o];
                sum += self.at(row - 1, column - 1, i) * f64::from(weight);
            }
        }
        sum
    }
}

fn rectify(value: f64, relu: bool) -> f64 {
    if relu { value.max(0.0) } else { value }
}

fn naive(shape: Shape, layers: &[Owned], image: &[f32]) -> Vec<f64> {
    let start = Map { shape, values: image.iter().map(|&value| f64::from(value)).collect() };
    layers.iter().fold(start, |map, layer| map.apply(layer)).values
}

/// Values in -1 to 1, the same for the same seed.
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn conv(inputs: usize, outputs: usize, relu: bool, seed: u32) -> Owned {
    let scale = 1.0 / (9 * inputs) as f32;
    let kernel = noise(9 * inputs * outputs, seed).into_iter().map(|value| value * scale).collect();
    Owned::Conv(kernel, noise(outputs, seed + 1), relu)
}

fn dense(inputs: usize, outputs: usize, relu: bool, seed: u32) -> Owned {
    let kernel = noise(inputs * outputs, seed).into_iter().map(|value| value / inputs as f32).collect();
    Owned::Dense(kernel, noise(outputs, seed + 1), relu)
}

fn network(shape: Shape, layers: &[Owned]) -> Network {
    let layers: Vec<Layer<'_>> = layers.iter().map(Owned::borrow).collect();
    Network::new(shape, &layers).unwrap()
}

fn forward(network: &Network, input: &[f32], batch: usize) -> Vec<f32> {
    let mut output = vec![f32::NAN; batch * network.output().len()];
    network.forward(input, batch, &mut output).unwrap();
    output
}

fn assert_close(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let difference = (f64::from(*got) - expected).abs();
        assert!(difference <= TOLERANCE, "value {index}: expected {expected}, got {got}");
    }
}

fn check(shape: Shape, layers: &[Owned], batch: usize, seed: u32) {
    let network = network(shape, layers);
    let input = noise(batch * shape.len(), seed);
    let output = forward(&network, &input, batch);
    for (image, result) in input.chunks(shape.len()).zip(output.chunks(network.output().len())) {
        assert_close(result, &naive(shape, layers, image));
        assert_eq!(result, forward(&network, image, 1), "an image alone differs from it in a batch");
    }
    assert_eq!(output.len(), batch * network.output().len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
fn the_number_of_threads_does_not_change_a_bit() {
    let shape = Shape { height: 37, width: 41, channels: 3 };
    let layers =
        [conv(3, 48, true, 1), conv(48, 64, true, 3), Owned::Pool, conv(64, 80, true, 5), Owned::Average];
    let network = network(shape, &layers);
    let input = noise(7 * shape.len(), 4);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| forward(&network, &input, 7))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn buffers_of_an_earlier_call_leave_no_trace() {
    let shape = Shape { height: 9, width: 7, channels: 3 };
    let network =
        network(shape, &[conv(3, 16, true, 1), Owned::Pool, conv(16, 4, true, 3), conv(4, 20, false, 5)]);
    let (first, second) = (noise(shape.len(), 1), noise(shape.len(), 2));
    let expected = forward(&network, &first, 1);
    forward(&network, &second, 1);
    assert_eq!(forward(&network, &first, 1), expected);
}

#[test]
fn no_layers_is_the_identity() {
    let shape = Shape { height: 2, width: 3, channels: 2 };
    let input = noise(24, 1);
    assert_eq!(forward(&network(shape, &[]), &input, 2), input);
}

#[test]
fn non_finite_input_is_refused_by_place() {
    let shape = Shape { height: 2, width: 2, channels: 1 };
    let network = network(shape, &[Owned::Average]);
    let mut output = [7.0; 2];
    let input = [0.0, 1.0, 2.0, 3.0, 4.0, f32::INFINITY, 6.0, f32::NAN];
    let error = network.forward(&input, 2, &mut output).unwrap_err();
    // Value 5 of the batch is value 1 of image 1.
    assert_eq!(error, ConvError::NotFinite { image: 1, position: 1, value: f32::INFINITY });
    assert_eq!(output.map(f32::to_bits), [7.0_f32; 2].map(f32::to_bits));
}

#[test]
fn lengths_must_fit_the_batch() {
    let shape = Shape { height: 2, width: 2, channels: 1 };
    let network = network(shape, &[Owned::Average]);
    let short = network.forward(&[0.0; 7], 2, &mut [0.0; 2]).unwrap_err();
    assert_eq!(short.to_string(), "expected 8 values in the input (2 images), got 7");
    let long = network.forward(&[0.0; 8], 2, &mut [0.0; 3]).unwrap_err();
    assert_eq!(long.to_string(), "expected 2 values in the output (2 images), got 3");
}

#[test]
fn layers_that_do_not_fit_are_named() {
    let shape = Shape { height: 1, width: 4, channels: 2 };
    let error = |shape, layers: &[Layer<'_>]| Network::new(shape, layers).unwrap_err().to_string();
    let conv = Layer::Conv3x3 { kernel: &[0.0; 18], bias: &[0.0], relu: true };
    assert_eq!(
        error(shape, &[conv, Layer::MaxPool2x2]),
        "layer 1: 2x2 pooling needs two rows and two columns (its input is 1x4x1)"
    );
    // 9 * 2 inputs give 18 values for each of 2 outputs.
    let short = Layer::Conv3x3 { kernel: &[0.0; 35], bias: &[0.0; 2], relu: true };
    assert_eq!(error(shape, &[short]), "layer 0: expected 36 values in the kernel, got 35");
    let dense = Layer::Dense { kernel: &[0.0; 16], bias: &[0.0; 3], relu: false };
    assert_eq!(error(shape, &[dense]), "layer 0: expected 2 values in the bias, got 3");
    let none = Layer::Dense { kernel: &[], bias: &[], relu: false };
    assert_eq!(error(shape, &[none]), "layer 0: it has no outputs (its input is 1x4x2)");
    let flat = Shape { height: 0, ..shape };
    assert_eq!(error(flat, &[]), "layer 0: an axis would be zero (its input is 0x4x2)");
    let huge = Shape { height: usize::MAX, ..shape };
    assert!(error(huge, &[]).starts_with("layer 0: the map would be too large"));
}

#[test]
fn debug_prints_the_chain_of_shapes() {
    let shape = Shape { height: 9, width: 8, channels: 3 };
    let layers =
        [conv(3, 4, true, 1), Owned::Pool, conv(4, 6, false, 2), Owned::Average, dense(6, 2, false, 3)];
    assert_eq!(
        format!("{:?}", network(shape, &layers)),
        "Network(9x8x3 -> conv3x3+relu+max_pool 4x4x4 -> conv3x3 4x4x6 -> global_average 1x1x6 -> dense 1x1x2)"
    );
}
