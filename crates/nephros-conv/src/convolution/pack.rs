//! Kernels into the order in which products read them.

use rayon::prelude::*;

use crate::{
    memory::Aligned,
    tiling::Tiling,
    winograd::{F2_KERNEL, F4_KERNEL},
};

/// Outputs that are transformed together.
const LANES: usize = 8;

/// `[3, 3, inputs, outputs]` to `[panels, matrices, depth, panel]`, transformed where the tiling
/// asks for it, with zeros for the inputs and outputs that are not there.
pub(super) fn pack(
    tiling: Tiling,
    kernel: &[f32],
    (inputs, outputs): (usize, usize),
    depth: usize,
    panel: usize,
) -> Aligned {
    let matrix = depth * panel;
    let panel_len = tiling.kernels() * matrix;
    let mut packed = Aligned::zeroed(outputs.div_ceil(panel) * panel_len);
    let panels = packed.values_mut().par_chunks_exact_mut(panel_len).enumerate();
    panels.for_each(|(index, target)| {
        let columns = index * panel..((index + 1) * panel).min(outputs);
        if tiling == Tiling::Direct {
            for (source, row) in kernel.chunks_exact(outputs).zip(target.chunks_exact_mut(panel)) {
                row[..columns.len()].copy_from_slice(&source[columns.clone()]);
            }
            return;
        }
        // A power of two lies between two positions: written value by value, their lines would push
        // each other out of the cache half filled.
        let mut rows = vec![0.0; tiling.kernels() * panel];
        for input in 0..inputs {
            let taps = std::array::from_fn(|tap| {
                &kernel[(tap * inputs + input) * outputs..][columns.start..columns.end]
            });
            match tiling {
                Tiling::F4 => transform(&F4_KERNEL, taps, panel, &mut rows),
                _ => transform(&F2_KERNEL, taps, panel, &mut rows),
            }
            for (row, target) in rows.chunks_exact(panel).zip(target.chunks_exact_mut(matrix)) {
                target[input * panel..][..panel].copy_from_slice(row);
            }
        }
    });
    packed
}

/// `G g Gᵀ` in f64, rounded once, for one input and as many outputs as `taps` has columns; the
/// value of position `p` and output `o` goes to `target[p * panel + o]`.
fn transform<const S: usize>(g: &[[f64; 3]; S], taps: [&[f32]; 9], panel: usize, target: &mut [f32]) {
    let outputs = taps[0].len();
    for first in (0..outputs).step_by(LANES) {
        let count = LANES.min(outputs - first);
        let mut lanes = [[0.0_f64; LANES]; 9];
        for (lanes, tap) in lanes.iter_mut().zip(taps) {
            for (lane, value) in lanes.iter_mut().zip(&tap[first..first + count]) {
                *lane = f64::from(*value);
            }
        }
        // [row of the position][column of the kernel]
        let columns = g.map(|row| [0, 1, 2].map(|x| combine(row, [lanes[x], lanes[3 + x], lanes[6 + x]])));
        for (y, columns) in columns.iter().enumerate() {
            for (x, row) in g.iter().enumerate() {
                let values = combine(*row, *columns).map(|value| value as f32);
                let at = (y * S + x) * panel + first;
                target[at..at + count].copy_from_slice(&values[..count]);
            }
        }
    }
}

fn combine(factors: [f64; 3], values: [[f64; LANES]; 3]) -> [f64; LANES] {
    std::array::from_fn(|lane| {
        factors[0] * values[0][lane] + factors[1] * values[1][lane] + factors[2] * values[2][lane]
    })
}
