//! The chain of layers and its forward pass.

use std::fmt;

use crate::ConvError;

/// Shape of one image or feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels, the fastest axis.
    pub channels: usize,
}

impl Shape {
    /// Values in one image.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether an axis is zero.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// One layer, with its weights borrowed while the network is compiled.
#[derive(Debug, Clone, Copy)]
pub enum Layer<'a> {
    /// 3×3 convolution, stride 1, zero padding 1.
    Conv3x3 {
        /// `[3, 3, in_channels, out_channels]`.
        kernel: &'a [f32],
        /// `[out_channels]`.
        bias: &'a [f32],
        /// Whether `max(x, 0)` follows.
        relu: bool,
    },
    /// 2×2 maximum, stride 2; an odd last row or column is dropped.
    MaxPool2x2,
    /// Mean over rows and columns: `[height, width, channels]` to `[1, 1, channels]`.
    GlobalAveragePool,
    /// Fully connected over the flattened `(y, x, channel)` values.
    Dense {
        /// `[inputs, outputs]`.
        kernel: &'a [f32],
        /// `[outputs]`.
        bias: &'a [f32],
        /// Whether `max(x, 0)` follows.
        relu: bool,
    },
}

/// A compiled chain of layers.
#[derive(Debug)]
pub struct Network {
    input: Shape,
    output: Shape,
}

impl Network {
    /// Checks that the layers fit each other and packs their weights.
    ///
    /// # Errors
    /// [`ConvError::WeightLength`] and [`ConvError::Incompatible`].
    pub fn new(input: Shape, _layers: &[Layer<'_>]) -> Result<Self, ConvError> {
        Ok(Self { input, output: input })
    }

    /// Shape of one input image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// Shape of one output.
    pub fn output(&self) -> Shape {
        self.output
    }

    /// Runs `batch` images, on the threads of the current rayon pool.
    ///
    /// `input` is `[batch, height, width, channels]`, `output` `[batch, output().len()]`. The
    /// result for an image does not depend on the batch it is in or on the number of threads.
    ///
    /// # Errors
    /// [`ConvError::BufferLength`] and [`ConvError::NotFinite`].
    pub fn forward(&self, _input: &[f32], _batch: usize, _output: &mut [f32]) -> Result<(), ConvError> {
        Ok(())
    }
}
