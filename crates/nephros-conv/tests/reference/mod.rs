//! Layers as plain loops in f64, and what the tests run through them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do, and no test uses all"
)]

use nephros_conv::{Isa, Layer, Network, Options, Shape, Tiling};

#[derive(Debug, Clone)]
pub enum Owned {
    Conv(Vec<f32>, Vec<f32>, bool),
    Pool,
    Average,
    Dense(Vec<f32>, Vec<f32>, bool),
}

impl Owned {
    pub fn borrow(&self) -> Layer<'_> {
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

pub fn naive(shape: Shape, layers: &[Owned], image: &[f32]) -> Vec<f64> {
    let start = Map { shape, values: image.iter().map(|&value| f64::from(value)).collect() };
    layers.iter().fold(start, |map, layer| map.apply(layer)).values
}

/// Values in -1 to 1, the same for the same seed.
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn conv(inputs: usize, outputs: usize, relu: bool, seed: u32) -> Owned {
    let scale = 1.0 / (9 * inputs) as f32;
    let kernel = noise(9 * inputs * outputs, seed).into_iter().map(|value| value * scale).collect();
    Owned::Conv(kernel, noise(outputs, seed + 1), relu)
}

pub fn dense(inputs: usize, outputs: usize, relu: bool, seed: u32) -> Owned {
    let kernel = noise(inputs * outputs, seed).into_iter().map(|value| value / inputs as f32).collect();
    Owned::Dense(kernel, noise(outputs, seed + 1), relu)
}

/// Every way to compute a convolution on this machine.
pub fn all_options() -> Vec<Options> {
    let tilings = [Some(Tiling::Direct), Some(Tiling::F2), Some(Tiling::F4), None];
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    available.flat_map(|isa| tilings.map(|tiling| Options { isa, tiling })).collect()
}

pub fn network(shape: Shape, layers: &[Owned], options: Options) -> Network {
    let layers: Vec<Layer<'_>> = layers.iter().map(Owned::borrow).collect();
    Network::with_options(shape, &layers, options).unwrap()
}

pub fn forward(network: &Network, input: &[f32], batch: usize) -> Vec<f32> {
    let mut output = vec![f32::NAN; batch * network.output().len()];
    network.forward(input, batch, &mut output).unwrap();
    output
}
