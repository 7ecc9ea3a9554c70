//! From a patch of input to a row of values, and from a tile's sums to its pixels.

use super::{Finishing, Kernels};
use crate::{
    memory::SharedMap,
    quantized::to_u8,
    tiling::Tiling,
    vector::Vector,
    winograd::{F2, F4, Identity, Scheme},
};

/// Input of one tile: `patch_side` rows and columns of pixels.
pub(crate) struct Patch<'a> {
    /// From the first pixel of the patch on.
    pub(crate) values: &'a [f32],
    /// Values from a row to the next.
    pub(crate) row_stride: usize,
    /// Values from a pixel to the next.
    pub(crate) pixel_stride: usize,
    /// Channels to take; for a transform, a multiple of the vector's lanes.
    pub(crate) channels: usize,
}

/// Where the values of a tile go: the value of position `p` and term `k` lies at
/// `p * position + k / lanes * chunk + k % lanes`.
#[derive(Clone, Copy)]
pub(crate) struct TileSteps {
    pub(crate) position: usize,
    pub(crate) chunk: usize,
}

/// The values of a map that threads share. A type parameter of all that leads to [`Sink::write`]:
/// a choice there would be made for every vector.
pub(crate) trait Sink: Sized + Sync {
    /// The function that writes into such a map.
    fn finishing(kernels: &Kernels) -> Finishing<Self>;

    /// Writes the first `channels` lanes of a vector, `L` at most, from position `start` on.
    ///
    /// # Safety
    /// No other reference to these values may be alive.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    unsafe fn write<V: Vector<L>, const L: usize>(&self, start: usize, channels: usize, value: V);
}

/// Floats as they are.
impl Sink for SharedMap<'_> {
    fn finishing(kernels: &Kernels) -> Finishing<Self> {
        kernels.finish_floats
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    unsafe fn write<V: Vector<L>, const L: usize>(&self, start: usize, channels: usize, value: V) {
        // SAFETY: as the caller promises, and the part ends with this function.
        let pixel = unsafe { self.part(start..start + channels) };
        if let Some(pixel) = pixel.first_chunk_mut::<L>() {
            value.store(pixel);
        } else {
            let mut all = [0.0; L];
            value.store(&mut all);
            pixel.copy_from_slice(&all[..channels]);
        }
    }
}

/// `value * scale`, rounded, between 0 and 255.
pub(crate) struct Bytes<'a> {
    pub(crate) map: SharedMap<'a, u8>,
    pub(crate) scale: f32,
}

impl Sink for Bytes<'_> {
    fn finishing(kernels: &Kernels) -> Finishing<Self> {
        kernels.finish_bytes
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    unsafe fn write<V: Vector<L>, const L: usize>(&self, start: usize, channels: usize, value: V) {
        let (mut all, mut bytes) = ([0.0; L], [0; L]);
        value.scale(self.scale).store(&mut all);
        for (byte, value) in bytes.iter_mut().zip(all) {
            *byte = to_u8(value);
        }
        // SAFETY: as the caller promises, and the part ends with this function.
        let pixel = unsafe { self.map.part(start..start + channels) };
        match pixel.first_chunk_mut::<L>() {
            Some(pixel) => *pixel = bytes,
            None => pixel.copy_from_slice(&bytes[..channels]),
        }
    }
}

/// Where a tile's pixels go, and what happens to them on the way.
pub(crate) struct Finish<'a, S> {
    pub(crate) sink: &'a S,
    /// Position in the map of the tile's first pixel and the panel's first channel.
    pub(crate) start: usize,
    /// Values from a row of the map to the next.
    pub(crate) row_stride: usize,
    /// Values from a pixel to the next.
    pub(crate) pixel_stride: usize,
    /// Rows of the tile that lie in the map, after pooling; at most its side.
    pub(crate) rows: usize,
    /// Columns, likewise.
    pub(crate) columns: usize,
    /// Channels of the panel that exist.
    pub(crate) channels: usize,
    /// Of the whole panel.
    pub(crate) bias: &'a [f32],
    pub(crate) relu: bool,
    pub(crate) pool: bool,
}

/// See [`super::Kernels::load`].
#[inline(always)]
pub(super) fn load<V: Vector<L>, const L: usize>(
    tiling: Tiling,
    patch: &Patch<'_>,
    values: &mut [f32],
    steps: TileSteps,
) {
    match tiling {
        Tiling::Direct => gather::<V, L>(patch, values, steps),
        Tiling::F2 => transform::<V, L, 4, 2, F2>(patch, values, steps),
        Tiling::F4 => transform::<V, L, 6, 4, F4>(patch, values, steps),
    }
}

/// Values of a window that [`gather`] puts together on the stack; a longer one is written value by
/// value.
const WINDOW: usize = 128;

/// The windows of 2×2 pixels, each `[3, 3, channels]` in a row and zeros up to whole vectors.
#[inline(always)]
fn gather<V: Vector<L>, const L: usize>(patch: &Patch<'_>, values: &mut [f32], steps: TileSteps) {
    let run = 3 * patch.channels;
    for pixel in 0..4 {
        let target = &mut values[pixel * steps.position..];
        let start = pixel / 2 * patch.row_stride + pixel % 2 * patch.pixel_stride;
        let rows = [0, 1, 2].map(|row| &patch.values[start + row * patch.row_stride..]);
        if 3 * run + 2 * L <= WINDOW {
            let window = window::<V, L>(rows, run);
            for chunk in 0..(3 * run).div_ceil(L) {
                V::load(lanes(&window, chunk * L)).store(lanes_mut(target, chunk * steps.chunk));
            }
        } else {
            let values = rows.into_iter().flat_map(|row| &row[..run]).chain(std::iter::repeat(&0.0));
            for (k, value) in values.take((3 * run).next_multiple_of(L)).enumerate() {
                target[k / L * steps.chunk + k % L] = *value;
            }
        }
    }
}

/// Three runs of `run` values one after the other, then zeros. Each is copied in whole vectors, and
/// what a copy leaves after its run is overwritten by the next.
#[inline(always)]
fn window<V: Vector<L>, const L: usize>(rows: [&[f32]; 3], run: usize) -> [f32; WINDOW] {
    let mut window = [0.0; WINDOW];
    for (row, values) in rows.into_iter().enumerate() {
        for at in (0..run).step_by(L) {
            if let Some(vector) = values[at..].first_chunk() {
                V::load(vector).store(lanes_mut(&mut window, row * run + at));
            } else {
                let count = L.min(run - at);
                window[row * run + at..][..count].copy_from_slice(&values[at..][..count]);
            }
        }
    }
    V::splat(0.0).store(lanes_mut(&mut window, 3 * run));
    window
}

#[inline(always)]
fn transform<V: Vector<L>, const L: usize, const S: usize, const M: usize, W: Scheme<S, M>>(
    patch: &Patch<'_>,
    values: &mut [f32],
    steps: TileSteps,
) {
    // Arrays are filled by loops: a closure for `array::from_fn` would not be inlined.
    for chunk in 0..patch.channels / L {
        let mut columns = [[V::splat(0.0); S]; S]; // [x][position of y]
        for (x, column) in columns.iter_mut().enumerate() {
            let first = x * patch.pixel_stride + chunk * L;
            for (y, vector) in column.iter_mut().enumerate() {
                *vector = V::load(lanes(patch.values, first + y * patch.row_stride));
            }
            *column = W::input(*column);
        }
        for y in 0..S {
            let mut row = [V::splat(0.0); S];
            for (vector, column) in row.iter_mut().zip(&columns) {
                *vector = column[y];
            }
            for (x, vector) in W::input(row).into_iter().enumerate() {
                let at = (y * S + x) * steps.position + chunk * steps.chunk;
                vector.store(lanes_mut(values, at));
            }
        }
    }
}

/// See [`super::Kernels::finish`].
#[inline(always)]
#[allow(unsafe_code, reason = "writes a map that threads share")]
pub(super) unsafe fn finish<V: Vector<L>, const L: usize, T: Sink>(
    tiling: Tiling,
    sums: &[f32],
    finish: &Finish<'_, T>,
) {
    let vectors = finish.bias.len() / L;
    for vector in 0..vectors {
        if finish.channels > vector * L {
            // SAFETY: as the caller promises.
            unsafe {
                match tiling {
                    Tiling::Direct => finish_vector::<V, L, 2, 2, Identity, T>(vector, sums, finish),
                    Tiling::F2 => finish_vector::<V, L, 4, 2, F2, T>(vector, sums, finish),
                    Tiling::F4 => finish_vector::<V, L, 6, 4, F4, T>(vector, sums, finish),
                }
            }
        }
    }
}

#[inline(always)]
#[allow(unsafe_code, reason = "writes a map that threads share")]
unsafe fn finish_vector<V, const L: usize, const S: usize, const M: usize, W, T>(
    index: usize,
    sums: &[f32],
    finish: &Finish<'_, T>,
) where
    V: Vector<L>,
    W: Scheme<S, M>,
    T: Sink,
{
    let vectors = finish.bias.len() / L;
    let mut columns = [[V::splat(0.0); M]; S]; // [x of the products][y of the pixels]
    for (x, column) in columns.iter_mut().enumerate() {
        let mut products = [V::splat(0.0); S];
        for (y, vector) in products.iter_mut().enumerate() {
            *vector = V::load(lanes(sums, ((y * S + x) * vectors + index) * L));
        }
        *column = W::output(products);
    }
    let mut rows = [[V::splat(0.0); M]; M];
    for (y, pixels) in rows.iter_mut().enumerate() {
        let mut row = [V::splat(0.0); S];
        for (vector, column) in row.iter_mut().zip(&columns) {
            *vector = column[y];
        }
        *pixels = W::output(row);
    }
    let bias = V::load(lanes(finish.bias, index * L));
    let floor = V::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
    let side = if finish.pool { M / 2 } else { M };
    let channels = (finish.channels - index * L).min(L);
    for y in 0..side {
        for x in 0..side {
            let value = if finish.pool {
                let [upper, lower] = [rows[2 * y], rows[2 * y + 1]];
                upper[2 * x].max(upper[2 * x + 1]).max(lower[2 * x].max(lower[2 * x + 1]))
            } else {
                rows[y][x]
            };
            if y < finish.rows && x < finish.columns {
                let start = finish.start + y * finish.row_stride + x * finish.pixel_stride + index * L;
                // SAFETY: the pixel and the channels are the caller's.
                unsafe { finish.sink.write(start, channels, floor.max(value.add(bias))) }
            }
        }
    }
}

#[inline(always)]
fn lanes<const L: usize>(values: &[f32], at: usize) -> &[f32; L] {
    &values[at..at + L].as_chunks().0[0]
}

#[inline(always)]
fn lanes_mut<const L: usize>(values: &mut [f32], at: usize) -> &mut [f32; L] {
    &mut values[at..at + L].as_chunks_mut().0[0]
}
