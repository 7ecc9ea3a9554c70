//! The inner loops, compiled once for each instruction set.

#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

mod pack;
mod product;
mod tile;

use std::fmt;

pub(crate) use tile::{Bytes, Finish, Patch, Sink, TileSteps};

use crate::{ConvError, memory::SharedMap, tiling::Tiling};

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// What every processor of the target has.
    Portable,
    /// NEON of 64-bit ARM.
    Neon,
    /// AVX2 and FMA of x86-64.
    Avx2,
    /// AVX-512 (foundation) of x86-64.
    Avx512,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The fastest that this processor has.
    pub fn detect() -> Self {
        let available = Self::ALL.into_iter().rev().find(|isa| isa.is_available());
        available.unwrap_or(Self::Portable)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        kernels(self).is_some()
    }

    /// The name that [`fmt::Display`] prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// The fastest that this processor has.
impl Default for Isa {
    fn default() -> Self {
        Self::detect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Multiply =
    unsafe fn(rows: usize, panel: usize, values: &[f32], kernel: &[f32], sums: &mut [f32], stride: usize);
type Pack = unsafe fn(tiling: Tiling, filters: &[f32], inputs: usize, panel: usize, target: &mut [f32]);
type Load = unsafe fn(tiling: Tiling, patch: &Patch<'_>, values: &mut [f32], steps: TileSteps);
pub(crate) type Finishing<S> = unsafe fn(tiling: Tiling, sums: &[f32], finish: &Finish<'_, S>);

/// The kernels of one instruction set, which this processor has.
pub(crate) struct Kernels {
    /// Floats in a vector.
    pub(crate) lanes: usize,
    /// Most rows of a [`Kernels::multiply`], as many as its sums fit the registers.
    pub(crate) max_rows: usize,
    pack: Pack,
    multiply: Multiply,
    load: Load,
    finish_floats: for<'a> unsafe fn(Tiling, &[f32], &Finish<'_, SharedMap<'a>>),
    finish_bytes: for<'a> unsafe fn(Tiling, &[f32], &Finish<'_, Bytes<'a>>),
}

impl Kernels {
    /// # Errors
    /// [`ConvError::Isa`]
    pub(crate) fn of(isa: Isa) -> Result<&'static Self, ConvError> {
        kernels(isa).ok_or(ConvError::Isa { isa })
    }

    /// Outputs in a panel of kernels, the columns of one product, for a layer of so many outputs:
    /// two vectors, or one where that holds them all.
    pub(crate) fn panel(&self, outputs: usize) -> usize {
        if outputs <= self.lanes { self.lanes } else { 2 * self.lanes }
    }

    /// Packs the filters of one panel, `[filters, inputs, 3, 3]`, transformed where the tiling asks for
    /// it, with the same bits on every instruction set. `target` is zeros before.
    ///
    /// # Shapes
    /// `target` is `[kernel matrices, depth, panel]`, one of those that [`Self::multiply`] reads.
    #[allow(unsafe_code, reason = "the function enables an instruction set")]
    pub(crate) fn pack(
        &self,
        tiling: Tiling,
        filters: &[f32],
        inputs: usize,
        panel: usize,
        target: &mut [f32],
    ) {
        // SAFETY: the function asks for nothing but its instruction set, and `kernels` hands out
        // this table only where the processor has it.
        unsafe { (self.pack)(tiling, filters, inputs, panel, target) }
    }

    /// `sums[r, o] = sum over k of values[k, r] * kernel[k, o]` for `rows` rows, from 1 to
    /// [`Self::max_rows`], and one panel of `o`.
    ///
    /// Terms are added in the order of `k` for every row, so that a row does not depend on the
    /// others.
    ///
    /// # Shapes
    /// `values` is `[depth / lanes, rows, lanes]`, `kernel` `[depth, panel]`; row `r` of the sums
    /// starts at `r * stride`. `panel` is one or two vectors, as [`Self::panel`] says.
    #[allow(unsafe_code, reason = "the function enables an instruction set")]
    pub(crate) fn multiply(
        &self,
        rows: usize,
        panel: usize,
        values: &[f32],
        kernel: &[f32],
        sums: &mut [f32],
        stride: usize,
    ) {
        // SAFETY: as for `pack`.
        unsafe { (self.multiply)(rows, panel, values, kernel, sums, stride) }
    }

    /// Transforms one patch of input into one row of each position's values.
    #[allow(unsafe_code, reason = "the function enables an instruction set")]
    pub(crate) fn load(&self, tiling: Tiling, patch: &Patch<'_>, values: &mut [f32], steps: TileSteps) {
        // SAFETY: as for `pack`.
        unsafe { (self.load)(tiling, patch, values, steps) }
    }

    /// Transforms one tile's sums, `[positions, panel]`, into its pixels: bias, ReLU and pooling
    /// applied.
    ///
    /// # Safety
    /// No other reference to the pixels and channels that `finish` names may be alive.
    #[allow(unsafe_code, reason = "the function enables an instruction set and writes a shared map")]
    pub(crate) unsafe fn finish<S: Sink>(&self, tiling: Tiling, sums: &[f32], finish: &Finish<'_, S>) {
        // SAFETY: the instruction set as for `pack`; the map as the caller promises.
        unsafe { S::finishing(self)(tiling, sums, finish) }
    }
}

/// Compiles the kernels for one instruction set: `[rows... most]` are the row counts of the product.
macro_rules! entry_points {
    ($name:ident, $lanes:literal, $vector:ty, [$($rows:literal)*; $most:literal], $(#[$enable:meta])*) => {
        mod $name {
            use super::{Bytes, Kernels, Finish, Patch, TileSteps, pack, product, tile};
            use crate::{memory::SharedMap, tiling::Tiling};

            pub(super) static KERNELS: Kernels =
                Kernels { lanes: $lanes, max_rows: $most, pack: panel, multiply, load, finish_floats, finish_bytes };

            $(#[$enable])*
            fn panel(tiling: Tiling, filters: &[f32], inputs: usize, panel: usize, target: &mut [f32]) {
                pack::pack::<$lanes>(tiling, filters, inputs, panel, target);
            }

            $(#[$enable])*
            fn multiply(
                rows: usize,
                panel: usize,
                values: &[f32],
                kernel: &[f32],
                sums: &mut [f32],
                stride: usize,
            ) {
                match (rows, panel > $lanes) {
                    $(($rows, false) => product::multiply::<$vector, $lanes, $rows, 1>(values, kernel, sums, stride),
                    ($rows, true) => product::multiply::<$vector, $lanes, $rows, 2>(values, kernel, sums, stride),)*
                    (_, false) => product::multiply::<$vector, $lanes, $most, 1>(values, kernel, sums, stride),
                    (_, true) => product::multiply::<$vector, $lanes, $most, 2>(values, kernel, sums, stride),
                }
            }

            $(#[$enable])*
            fn load(tiling: Tiling, patch: &Patch<'_>, values: &mut [f32], steps: TileSteps) {
                tile::load::<$vector, $lanes>(tiling, patch, values, steps);
            }

            $(#[$enable])*
            #[allow(unsafe_code, reason = "writes a map that threads share")]
            unsafe fn finish_floats(tiling: Tiling, sums: &[f32], finish: &Finish<'_, SharedMap<'_>>) {
                // SAFETY: as the caller promises.
                unsafe { tile::finish::<$vector, $lanes, _>(tiling, sums, finish) }
            }

            $(#[$enable])*
            #[allow(unsafe_code, reason = "writes a map that threads share")]
            unsafe fn finish_bytes(tiling: Tiling, sums: &[f32], finish: &Finish<'_, Bytes<'_>>) {
                // SAFETY: as the caller promises.
                unsafe { tile::finish::<$vector, $lanes, _>(tiling, sums, finish) }
            }
        }
    };
}

entry_points!(portable, 4, [f32; 4], [1 2 3; 4],);
#[cfg(target_arch = "aarch64")]
entry_points!(neon, 4, std::arch::aarch64::float32x4_t, [1 2 3 4 5 6 7 8 9 10 11; 12],
    #[target_feature(enable = "neon")]);
#[cfg(target_arch = "x86_64")]
entry_points!(avx2, 8, std::arch::x86_64::__m256, [1 2 3 4 5; 6], #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
entry_points!(avx512, 16, std::arch::x86_64::__m512, [1 2 3 4 5 6 7 8 9 10 11 12 13; 14],
    #[target_feature(enable = "avx512f")]);

/// The table for an instruction set, where this processor has it.
fn kernels(isa: Isa) -> Option<&'static Kernels> {
    match isa {
        Isa::Portable => Some(&portable::KERNELS),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => std::arch::is_aarch64_feature_detected!("neon").then_some(&neon::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&avx2::KERNELS)
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => is_x86_feature_detected!("avx512f").then_some(&avx512::KERNELS),
        _ => None,
    }
}
