//! The products whose sums stay in registers.

#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

use super::{
    kernel::{CHUNK, PANEL, Window},
    lanes::Sums,
    tile::{POSITIONS, WORDS},
};

/// `sums[p, o] = sum over taps and channels of map * weights` for `R` pixels of one row.
///
/// # Shapes
/// `weights` is `[chunks, 3, 3, CHUNK / 4, PANEL, 4]`.
#[inline(always)]
pub(super) fn bytes<S: Sums, const R: usize>(window: Window<'_>, weights: &[i8], sums: &mut [[i32; PANEL]]) {
    let mut registers = [[S::zero(); 2]; R];
    let taps = weights.as_chunks::<64>().0.as_chunks::<2>().0.as_chunks::<{ CHUNK / 4 }>().0;
    for (tap, weights) in taps.iter().enumerate() {
        let (chunk, row, column) = (tap / 9, tap % 9 / 3, tap % 3);
        let start = chunk * window.chunk_stride + row * window.row_stride + column * CHUNK;
        let pixels = window.values[start..start + R * CHUNK].as_chunks::<4>().0;
        let pixels = &pixels.as_chunks::<{ CHUNK / 4 }>().0.as_chunks::<R>().0[0];
        for (quad, [low, high]) in weights.iter().enumerate() {
            for (sums, pixel) in registers.iter_mut().zip(pixels) {
                *sums = [sums[0].add_bytes(pixel[quad], low), sums[1].add_bytes(pixel[quad], high)];
            }
        }
    }
    for (registers, sums) in registers.into_iter().zip(sums) {
        store(registers, sums);
    }
}

/// `sums[r, o] = sum over k of values[k, r] * weights[k, o]`, modulo 2^32, for `R` tiles and one
/// position.
///
/// # Shapes
/// `values` is `[depth / WORDS, rows, WORDS]` from the first tile on, `stride` being
/// `rows * WORDS`; `weights` is `[depth / 2, PANEL, 2]`. A tile's sums are `[POSITIONS, PANEL]`.
#[inline(always)]
pub(super) fn words<S: Sums, const R: usize>(
    values: &[i16],
    stride: usize,
    weights: &[i16],
    sums: &mut [[i32; PANEL]],
) {
    let mut registers = [[S::zero(); 2]; R];
    let weights = weights.as_chunks::<32>().0.as_chunks::<2>().0.as_chunks::<{ WORDS / 2 }>().0;
    for (rows, weights) in values.chunks(stride).zip(weights) {
        let rows = &rows.as_chunks::<2>().0.as_chunks::<{ WORDS / 2 }>().0.as_chunks::<R>().0[0];
        for (pair, [low, high]) in weights.iter().enumerate() {
            for (sums, row) in registers.iter_mut().zip(rows) {
                *sums = [sums[0].add_words(row[pair], low), sums[1].add_words(row[pair], high)];
            }
        }
    }
    for (registers, sums) in registers.into_iter().zip(sums.iter_mut().step_by(POSITIONS)) {
        store(registers, sums);
    }
}

#[inline(always)]
fn store<S: Sums>(registers: [S; 2], sums: &mut [i32; PANEL]) {
    for (register, sums) in registers.into_iter().zip(sums.as_chunks_mut::<16>().0) {
        register.store(sums);
    }
}

/// The largest of each 2×2 in the place of its first, from the sums of two rows.
#[inline(always)]
pub(super) fn pool(upper: &mut [[i32; PANEL]], lower: &[[i32; PANEL]]) {
    for (upper, lower) in upper.chunks_exact_mut(2).zip(lower.chunks_exact(2)) {
        let [first, second] = upper else { continue };
        for (o, value) in first.iter_mut().enumerate() {
            *value = (*value).max(second[o]).max(lower[0][o].max(lower[1][o]));
        }
    }
}
