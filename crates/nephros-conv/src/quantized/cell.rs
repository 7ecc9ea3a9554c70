//! From sums to what a layer writes.

#![allow(clippy::inline_always, reason = "compiled for the instruction set of the kernel around it")]

use super::kernel::PANEL;

/// Adding it to a float between 0 and 2^22 leaves the nearest integer, ties to even, in the low
/// bits.
const ROUND: f32 = 12_582_912.0;

/// One channel of one pixel, as the next layer reads it.
pub(super) trait Cell: Copy + Default + Send {
    /// ReLU included. `steps` is in steps of the output.
    fn of(steps: f32) -> Self;
}

impl Cell for u8 {
    #[inline(always)]
    fn of(steps: f32) -> Self {
        to_u8(steps)
    }
}

impl Cell for f32 {
    #[inline(always)]
    fn of(steps: f32) -> Self {
        steps.max(0.0)
    }
}

/// The nearest integer, ties to even, between 0 and 255.
#[inline(always)]
pub(crate) fn to_u8(value: f32) -> u8 {
    (value.clamp(0.0, 255.0) + ROUND).to_bits() as u8
}

/// What becomes of the sums of a panel.
pub(super) struct Finishing<'a> {
    /// What a sum is multiplied by, and what is added then, to give the output's steps.
    pub(super) scale: &'a [f32; PANEL],
    pub(super) bias: &'a [f32; PANEL],
    /// The largest of 2×2 before that.
    pub(super) pool: bool,
}

impl Finishing<'_> {
    /// Rounded after each operation, so that every instruction set gives the same.
    #[inline(always)]
    pub(super) fn cells<C: Cell>(&self, sums: &[i32; PANEL]) -> [C; PANEL] {
        let mut cells = [C::default(); PANEL];
        for (o, cell) in cells.iter_mut().enumerate() {
            *cell = C::of(sums[o] as f32 * self.scale[o] + self.bias[o]);
        }
        cells
    }
}
