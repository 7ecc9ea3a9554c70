//! The inner loops on 8-bit maps, compiled once for each instruction set. Their sums are the same
//! whole numbers on all of them.

use super::{
    cell::{Cell, Finishing},
    product,
    tile::{self, TileSums},
};
use crate::Isa;

/// Channels that lie next to each other in a map.
pub(super) const CHUNK: usize = 64;
/// Outputs of one product: half a chunk, two vectors of 32-bit sums.
pub(super) const PANEL: usize = 32;
/// Most rows of one product: 28 vectors of sums and two of weights fill the registers of AVX-512.
pub(super) const RUN: usize = 14;

/// The cells of a run of pixels.
pub(super) type Cells<C> = [[C; PANEL]; RUN];

/// The map around a run of pixels.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    /// From the pixel above and left of the first one on, in the first chunk.
    pub(super) values: &'a [u8],
    /// Values from a chunk to the next.
    pub(super) chunk_stride: usize,
    /// Values from a row to the next.
    pub(super) row_stride: usize,
}

/// A way to multiply that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Multiplier {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Multiplier {
    /// The fastest within `isa`, which this processor has.
    pub(super) fn of(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") => {
                Self::Vnni
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 if is_x86_feature_detected!("avx2") => Self::Avx2,
            _ => Self::Portable,
        }
    }

    /// Shorter side of a map from which tiles are faster than every product of the definition. On
    /// 14×14 pixels a quarter of their products lies outside, and with an instruction for bytes what
    /// they save goes into reading eight times the weights; without one, the definition's products
    /// take three times as long as those of 16-bit numbers.
    pub(super) fn tiles_from(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => 20,
            _ => tile::SIDE,
        }
    }
}

/// A method of [`Multiplier`] for a function that every instruction set has.
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident $([$cell:ident])?, $($argument:ident: $type:ty),*) => {
        impl Multiplier {
            $(#[$doc])*
            #[allow(unsafe_code, reason = "the functions enable an instruction set")]
            pub(super) fn $name $(<$cell: Cell>)? (self, $($argument: $type),*) {
                match self {
                    Self::Portable => portable::$name($($argument),*),
                    // SAFETY: `of` returns these only where the processor has the instruction set,
                    // and the functions ask for nothing else.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx2 => unsafe { avx2::$name($($argument),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Self::Vnni => unsafe { vnni::$name($($argument),*) },
                }
            }
        }
    };
}

dispatch!(
    /// The cells of a run of up to [`RUN`] pixels of one row; with pooling, of two rows, those of
    /// each 2×2 in the place of its first.
    ///
    /// # Shapes
    /// `weights` is `[chunks, 3, 3, CHUNK / 4, PANEL, 4]`.
    direct[C], run: usize, window: Window<'_>, weights: &[i8], finishing: &Finishing<'_>, cells: &mut Cells<C>
);
dispatch!(
    /// See [`tile::load`].
    load, values: &[u8], row_stride: usize, lines: &mut [i16], stride: usize
);
dispatch!(
    /// See [`product::words`]; one position of all `rows` tiles of a block.
    multiply, rows: usize, values: &[i16], weights: &[i16], sums: &mut [[i32; PANEL]]
);
dispatch!(
    /// See [`tile::finish`].
    finish[C], sums: &TileSums, finishing: &Finishing<'_>, cells: &mut [[C; PANEL]; tile::SIDE * tile::SIDE]
);

/// Compiles the kernels for one instruction set: `[rows... most]` are the row counts of its products,
/// up to what the registers hold.
macro_rules! entry_points {
    ($name:ident, $words:ty, $sums:ty, [$($rows:literal)*; $most:literal], $(#[$enable:meta])*) => {
        mod $name {
            use super::{Cell, Cells, Finishing, PANEL, RUN, TileSums, Window, product, tile};

            $(#[$enable])*
            pub(super) fn direct<C: Cell>(
                run: usize,
                window: Window<'_>,
                weights: &[i8],
                finishing: &Finishing<'_>,
                cells: &mut Cells<C>,
            ) {
                let mut sums = [[0; PANEL]; RUN];
                run_of_pixels(run, window, weights, &mut sums);
                if finishing.pool {
                    let mut lower = [[0; PANEL]; RUN];
                    let values = &window.values[window.row_stride..];
                    run_of_pixels(run, Window { values, ..window }, weights, &mut lower);
                    product::pool(&mut sums, &lower);
                }
                let step = if finishing.pool { 2 } else { 1 };
                for (cells, sums) in cells.iter_mut().zip(&sums).take(run).step_by(step) {
                    *cells = finishing.cells(sums);
                }
            }

            $(#[$enable])*
            fn run_of_pixels(run: usize, window: Window<'_>, weights: &[i8], sums: &mut [[i32; PANEL]; RUN]) {
                for first in (0..run).step_by($most) {
                    let window = Window { values: &window.values[first * super::CHUNK..], ..window };
                    let sums = &mut sums[first..];
                    match run - first {
                        $($rows => product::bytes::<$sums, $rows>(window, weights, sums),)*
                        _ => product::bytes::<$sums, $most>(window, weights, sums),
                    }
                }
            }

            $(#[$enable])*
            pub(super) fn load(values: &[u8], row_stride: usize, lines: &mut [i16], stride: usize) {
                tile::load::<$words>(values, row_stride, lines, stride);
            }

            $(#[$enable])*
            pub(super) fn multiply(
                rows: usize,
                values: &[i16],
                weights: &[i16],
                sums: &mut [[i32; PANEL]],
            ) {
                let stride = rows * tile::WORDS;
                for first in (0..rows).step_by($most) {
                    let values = &values[first * tile::WORDS..];
                    let sums = &mut sums[first * tile::POSITIONS..];
                    match rows - first {
                        $($rows => product::words::<$sums, $rows>(values, stride, weights, sums),)*
                        _ => product::words::<$sums, $most>(values, stride, weights, sums),
                    }
                }
            }

            $(#[$enable])*
            pub(super) fn finish<C: Cell>(
                sums: &TileSums,
                finishing: &Finishing<'_>,
                cells: &mut [[C; PANEL]; tile::SIDE * tile::SIDE],
            ) {
                tile::finish::<$sums, C>(sums, finishing, cells);
            }
        }
    };
}

entry_points!(portable, [i16; 32], [i32; 16], [; 1],);
#[cfg(target_arch = "x86_64")]
entry_points!(avx2, crate::quantized::lanes::x86::Words256, crate::quantized::lanes::x86::Sums256, [1 2; 3], #[target_feature(enable = "avx2")]);
#[cfg(target_arch = "x86_64")]
entry_points!(vnni, crate::quantized::lanes::x86::Words512, crate::quantized::lanes::x86::Sums512, [1 2 3 4 5 6 7 8 9 10 11 12 13; 14],
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]);
