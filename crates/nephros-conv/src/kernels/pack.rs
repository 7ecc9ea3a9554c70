//! Filters into the order in which products read them.

use crate::{
    tiling::Tiling,
    winograd::{F2_KERNEL, F4_KERNEL},
};

/// Inputs that are transformed before they are written. A power of two lies between two positions:
/// written value by value, their lines would push each other out of the cache half filled.
const RUN: usize = 8;

/// See [`super::Kernels::pack`].
#[inline(always)]
pub(super) fn pack<const L: usize>(
    tiling: Tiling,
    filters: &[f32],
    inputs: usize,
    panel: usize,
    target: &mut [f32],
) {
    match tiling {
        Tiling::Direct => windows(filters, inputs, panel, target),
        Tiling::F2 => transform::<L, 4>(&F2_KERNEL, filters, inputs, panel, target),
        Tiling::F4 => transform::<L, 6>(&F4_KERNEL, filters, inputs, panel, target),
    }
}

#[inline(always)]
fn windows(filters: &[f32], inputs: usize, panel: usize, target: &mut [f32]) {
    for (o, filter) in filters.chunks_exact(inputs * 9).enumerate() {
        for (input, taps) in filter.as_chunks::<9>().0.iter().enumerate() {
            for (tap, value) in taps.iter().enumerate() {
                target[(tap * inputs + input) * panel + o] = *value;
            }
        }
    }
}

#[inline(always)]
fn transform<const L: usize, const S: usize>(
    g: &[[f64; 3]; S],
    filters: &[f32],
    inputs: usize,
    panel: usize,
    target: &mut [f32],
) {
    let matrix = target.len() / (S * S);
    // Outputs that are not there stay zero.
    let mut taps = vec![0.0; RUN * 9 * panel]; // [RUN, 3, 3, panel]
    let mut rows = vec![0.0; S * S * RUN * panel]; // [positions, RUN, panel]
    for first in (0..inputs).step_by(RUN) {
        let count = RUN.min(inputs - first);
        for (o, filter) in filters.chunks_exact(inputs * 9).enumerate() {
            let values = &filter[first * 9..(first + count) * 9];
            for (tap, value) in taps[o..].iter_mut().step_by(panel).zip(values) {
                *tap = *value;
            }
        }
        for (input, taps) in taps.chunks_exact(9 * panel).take(count).enumerate() {
            for lane in (0..panel).step_by(L) {
                let rows = &mut rows[input * panel + lane..];
                transform_lanes::<L, S>(g, &taps[lane..], panel, rows, RUN * panel);
            }
        }
        for (row, target) in rows.chunks_exact(RUN * panel).zip(target.chunks_exact_mut(matrix)) {
            target[first * panel..][..count * panel].copy_from_slice(&row[..count * panel]);
        }
    }
}

/// `G g Gᵀ` in f64, rounded once, for one input and `L` outputs; a tap's values begin `panel` after
/// those of the one before it, a position's `stride` after.
#[inline(always)]
fn transform_lanes<const L: usize, const S: usize>(
    g: &[[f64; 3]; S],
    taps: &[f32],
    panel: usize,
    target: &mut [f32],
    stride: usize,
) {
    // Arrays are filled by loops: a closure for `map` would not be inlined.
    let mut wide = [[0.0_f64; L]; 9];
    for (tap, wide) in wide.iter_mut().enumerate() {
        for (wide, value) in wide.iter_mut().zip(&taps[tap * panel..][..L]) {
            *wide = f64::from(*value);
        }
    }
    for (y, row) in g.iter().enumerate() {
        let mut columns = [[0.0; L]; 3];
        for (x, column) in columns.iter_mut().enumerate() {
            *column = combine(*row, [&wide[x], &wide[3 + x], &wide[6 + x]]);
        }
        let [left, middle, right] = &columns;
        for (x, row) in g.iter().enumerate() {
            let values = combine(*row, [left, middle, right]);
            for (target, value) in target[(y * S + x) * stride..][..L].iter_mut().zip(values) {
                *target = value as f32;
            }
        }
    }
}

#[inline(always)]
fn combine<const L: usize>(factors: [f64; 3], values: [&[f64; L]; 3]) -> [f64; L] {
    let mut sums = [0.0; L];
    for (lane, sum) in sums.iter_mut().enumerate() {
        *sum = factors[0] * values[0][lane] + factors[1] * values[1][lane] + factors[2] * values[2][lane];
    }
    sums
}
