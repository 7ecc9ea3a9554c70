//! 3×3 convolution as three matrix products over shifted views of the same map.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::layout::Layout;

/// Output pixels that one task aims at: enough to make up for reading the whole kernel, few
/// enough that the deepest maps (14×14 in VGG16) still give work to two threads.
const BLOCK_PIXELS: usize = 224;

thread_local! {
    /// Rows before pooling; grows to the largest block and stays.
    static UNPOOLED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A compiled convolution, with its bias, ReLU and the pooling that follows it.
pub(crate) struct Convolution {
    input: Layout,
    output: Layout,
    /// `[3, 3, in_channels, out_channels]`.
    kernel: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
    pool: bool,
    /// Output rows in a task. It depends on the shapes alone: the same sums are made in the same
    /// order whatever the batch and the number of threads.
    block_rows: usize,
}

impl Convolution {
    /// `output` is the layout after pooling, where there is any.
    pub(crate) fn new(
        (input, output): (Layout, Layout),
        (kernel, bias): (&[f32], &[f32]),
        relu: bool,
        pool: bool,
    ) -> Self {
        let rows = output.shape.height;
        let pixels_per_row = (input.shape.width + 1) * if pool { 2 } else { 1 };
        let blocks = (rows * pixels_per_row).div_ceil(BLOCK_PIXELS).max(2);
        let block_rows = rows.div_ceil(blocks);
        Self { input, output, kernel: kernel.to_vec(), bias: bias.to_vec(), relu, pool, block_rows }
    }

    pub(crate) fn relu(&self) -> bool {
        self.relu
    }

    pub(crate) fn pool(&self) -> bool {
        self.pool
    }

    pub(crate) fn run(&self, source: &[f32], target: &mut [f32]) {
        self.output.clear_border(target);
        let block_len = self.block_rows * self.output.row_stride();
        target[self.output.body()].par_chunks_mut(block_len).enumerate().for_each(|(block, rows)| {
            let first_row = block * self.block_rows;
            if self.pool {
                self.pooled_rows(source, first_row, rows);
            } else {
                self.multiply(source, first_row, rows);
                self.finish(rows);
            }
        });
    }

    /// Convolution without bias into `rows`, whole output rows with room for the zeros after
    /// each; what it leaves in that room is to be overwritten.
    fn multiply(&self, source: &[f32], first_row: usize, rows: &mut [f32]) {
        let (inputs, outputs) = (self.input.shape.channels, self.bias.len());
        let stride = self.input.row_stride();
        // The room after the last row is left out: the kernel's last row would read past the map.
        let pixels = rows.len() / outputs - 1;
        let depth = 3 * inputs;
        for (kernel_row, kernel) in self.kernel.chunks_exact(depth * outputs).enumerate() {
            let window = &source[(first_row + kernel_row) * stride..];
            let view = Windows { values: window, count: pixels, step: inputs, depth };
            multiply_windows(view, kernel, outputs, kernel_row > 0, rows);
        }
    }

    /// Bias and ReLU in place, zeros after each row.
    fn finish(&self, rows: &mut [f32]) {
        let floor = self.floor();
        for row in rows.chunks_exact_mut(self.output.row_stride()) {
            let (pixels, border) = row.split_at_mut(self.output.row_len());
            for pixel in pixels.chunks_exact_mut(self.bias.len()) {
                for (value, bias) in pixel.iter_mut().zip(&self.bias) {
                    *value = (*value + bias).max(floor);
                }
            }
            border.fill(0.0);
        }
    }

    fn pooled_rows(&self, source: &[f32], first_row: usize, rows: &mut [f32]) {
        let outputs = self.bias.len();
        let stride = (self.input.shape.width + 1) * outputs;
        let pairs = rows.len() / self.output.row_stride();
        UNPOOLED.with_borrow_mut(|scratch| {
            let len = 2 * pairs * stride;
            if scratch.len() < len {
                scratch.resize(len, 0.0);
            }
            let unpooled = &mut scratch[..len];
            self.multiply(source, 2 * first_row, unpooled);
            for (row, pair) in
                rows.chunks_exact_mut(self.output.row_stride()).zip(unpooled.chunks_exact(2 * stride))
            {
                let (pixels, border) = row.split_at_mut(self.output.row_len());
                let (upper, lower) = pair.split_at(stride);
                self.finish_pooled(upper, lower, pixels);
                border.fill(0.0);
            }
        });
    }

    /// One output row: maximum of 2×2, then bias and ReLU, which keep the order of values.
    fn finish_pooled(&self, upper: &[f32], lower: &[f32], pixels: &mut [f32]) {
        let (floor, outputs) = (self.floor(), self.bias.len());
        let pairs = upper.chunks_exact(2 * outputs).zip(lower.chunks_exact(2 * outputs));
        for (pixel, (upper, lower)) in pixels.chunks_exact_mut(outputs).zip(pairs) {
            let (a, b) = upper.split_at(outputs);
            let (c, d) = lower.split_at(outputs);
            let corners = a.iter().zip(b).zip(c.iter().zip(d));
            for ((value, bias), ((a, b), (c, d))) in pixel.iter_mut().zip(&self.bias).zip(corners) {
                *value = (a.max(*b).max(c.max(*d)) + bias).max(floor);
            }
        }
    }

    fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// `count` overlapping windows of `depth` values each, starting `step` values apart.
#[derive(Clone, Copy)]
struct Windows<'a> {
    values: &'a [f32],
    count: usize,
    step: usize,
    depth: usize,
}

/// `target[p, o] = sum over k of windows[p, k] * kernel[k, o]`, on the calling thread; added to
/// what is there when `accumulate`.
#[allow(unsafe_code, reason = "gemm::gemm takes raw pointers")]
fn multiply_windows(
    windows: Windows<'_>,
    kernel: &[f32],
    outputs: usize,
    accumulate: bool,
    target: &mut [f32],
) {
    let Windows { values, count, step, depth } = windows;
    assert!(count > 0 && values.len() >= (count - 1) * step + depth, "windows leave the map");
    assert!(kernel.len() == depth * outputs && target.len() >= count * outputs, "operands do not fit");
    // The product is taken as [outputs, depth] x [depth, count]: its columns are the pixels, whose
    // values lie next to each other, as the microkernel prefers.
    // SAFETY: element (o, k) of the left operand is `kernel[k * outputs + o]`, (k, p) of the right
    // `values[p * step + k]` and (o, p) of the result `target[p * outputs + o]`, with
    // o < outputs, k < depth, p < count; the two assertions above bound all three, the strides
    // are non-negative, and `target` is borrowed mutably, so that it overlaps neither operand.
    unsafe {
        gemm::gemm(
            outputs,
            count,
            depth,
            target.as_mut_ptr(),
            outputs.cast_signed(),
            1,
            accumulate,
            kernel.as_ptr(),
            outputs.cast_signed(),
            1,
            values.as_ptr(),
            step.cast_signed(),
            1,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
