//! Filters, some at a time, into a layer's weights.

use std::ops::Range;

use rayon::prelude::*;

use crate::{kernels::Kernels, memory::Aligned, tiling::Tiling};

/// What gives the filters of a range of outputs, `[filters, inputs, 3, 3]`.
pub(crate) type Read<'a, E> = dyn Fn(Range<usize>) -> Result<Vec<f32>, E> + Sync + 'a;

/// `[panels, matrices, depth, panel]`, transformed where the tiling asks for it, with zeros for the
/// inputs and outputs that are not there. Each thread reads the filters of one panel at a time.
pub(super) fn pack<E: Send>(
    kernels: &Kernels,
    tiling: Tiling,
    (inputs, outputs): (usize, usize),
    depth: usize,
    read: &Read<'_, E>,
) -> Result<Aligned, E> {
    let panel = kernels.panel(outputs);
    let panel_len = tiling.kernels() * depth * panel;
    let mut packed = Aligned::zeroed(outputs.div_ceil(panel) * panel_len);
    let panels = packed.values_mut().par_chunks_exact_mut(panel_len).enumerate();
    panels.try_for_each(|(index, target)| {
        let filters = read(index * panel..((index + 1) * panel).min(outputs))?;
        kernels.pack(tiling, &filters, inputs, panel, target);
        Ok(())
    })?;
    Ok(packed)
}
