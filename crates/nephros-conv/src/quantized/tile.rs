//! Winograd's minimal filtering `F(4×4, 3×3)` in whole numbers, with the exact sums as its result.
//!
//! As in [`crate::winograd`], four outputs of a row are `A (G g * B d)`. The points are 0, ±1, 2,
//! -1/2 and infinity, and `B`, `G` and `A` are whole numbers that give 30 times the outputs, 900
//! times in two dimensions. From bytes and 8-bit weights:
//!
//! - `B d Bᵀ` lies within ±24990 (255 times the positive, or the negative, parts of `B ⊗ B`'s rows)
//!   and `G g Gᵀ` within ±28575 (127 * 15 * 15): both fit 16 bits, so that one instruction
//!   multiplies two channels, at half the products of the direct way.
//! - Products and sums wrap around at 2^32. Of 900 = 4 * 225 the odd factor has an inverse modulo
//!   2^32, so that only the factor 4 takes room: sums below 2^29 come out exact.
//!
//! The usual points 0, ±1, ±2 give 576 = 64 * 9, with 2^25 as the limit, which 512 channels can
//! pass. Three points to a class modulo 2 are fewest factors of two (0 and 2, 1 and -1, infinity and
//! -1/2 being the classes).

#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

use super::{
    cell::{Cell, Finishing},
    kernel::{CHUNK, PANEL},
    lanes::{Lanes, Sums, Words},
};

/// Rows and columns of outputs in a tile.
pub(super) const SIDE: usize = 4;
/// Rows and columns of input that a tile needs, and of its products.
const PATCH: usize = SIDE + 2;
/// Products a channel that make a tile.
pub(super) const POSITIONS: usize = PATCH * PATCH;
/// Channels in a cache line of transformed values.
pub(super) const WORDS: usize = 32;
/// Channels whose sums are exact: 9 taps of products of up to 255 * 127 stay below 2^29.
pub(super) const MOST_CHANNELS: usize = ((1 << 29) - 1) / (9 * 255 * 127);

/// The inverse of 225 modulo 2^32.
const INVERSE: i32 = 2_271_560_481_u32.cast_signed();
const _: () = assert!(INVERSE.wrapping_mul(225) == 1);
/// The other factor of 900 is 2^2.
const SHIFT: u32 = 2;

/// Products of one panel for one tile.
pub(super) type TileSums = [[i32; PANEL]; POSITIONS];

/// Rows of `G`: `(1, p, p²)` for each point `p`, over a common denominator.
const KERNEL: [[i16; 3]; PATCH] = [[15, 0, 0], [-5, -5, -5], [5, -5, 5], [1, 2, 4], [-4, 2, -1], [0, 0, 15]];

/// `G g Gᵀ`.
pub(super) fn transform_weights(taps: [i8; 9]) -> [i16; POSITIONS] {
    let combine = |row: [i16; 3], values: [i16; 3]| -> i16 {
        row.iter().zip(values).map(|(factor, value)| factor * value).sum()
    };
    let taps = taps.map(i16::from);
    // [row of the position][column of the kernel]
    let columns = KERNEL.map(|row| [0, 1, 2].map(|x| combine(row, [taps[x], taps[3 + x], taps[6 + x]])));
    std::array::from_fn(|position| combine(KERNEL[position % PATCH], columns[position / PATCH]))
}

/// `B d`.
#[inline(always)]
fn input<L: Lanes>(d: [L; PATCH]) -> [L; PATCH] {
    let (odd, even) = (d[1].sub(d[3]), d[4].sub(d[2]));
    let (odd_2, even_2) = (odd.double(), even.double());
    let (sum, difference) = (d[2].add(d[3]), d[2].sub(d[3]));
    [
        d[0].sub(d[2]).add(even).double().add(odd).add(odd_2), // 2 3 -4 -3 2 0
        even_2.sub(odd_2).sub(sum).sub(sum.double()),          // 0 -2 -5 -1 2 0
        even_2.add(odd_2).add(difference).add(difference.double()), // 0 2 1 -5 2 0
        even_2.sub(odd),                                       // 0 -1 -2 1 2 0
        odd_2.add(even),                                       // 0 2 -1 -2 1 0
        odd.add(d[5]).sub(d[3]).double().sub(even).sub(even_2), // 0 2 3 -4 -3 2
    ]
}

/// `A m`.
#[inline(always)]
fn output<L: Lanes>(m: [L; PATCH]) -> [L; SIDE] {
    let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (third_2, fourth_2) = (m[3].double(), m[4].double());
    [
        m[0].add(sum).add(m[3]).add(fourth_2.double().double()), // 1 1 1 1 8 0
        difference.add(third_2.sub(fourth_2.double())),          // 0 1 -1 2 -4 0
        sum.add(third_2.double()).add(fourth_2),                 // 0 1 1 4 2 0
        difference.add(third_2.double().double()).sub(m[4]).add(m[5]), // 0 1 -1 8 -1 1
    ]
}

/// `B d Bᵀ` for [`WORDS`] channels of one patch: `values` are the map from the patch's first pixel
/// on, and the line of position `p` goes to `lines[p * stride..]`.
#[inline(always)]
pub(super) fn load<W: Words>(values: &[u8], row_stride: usize, lines: &mut [i16], stride: usize) {
    // Arrays are filled by loops: a closure for `array::from_fn` would not be inlined.
    let mut columns = [[W::zero(); PATCH]; PATCH]; // [x][position of y]
    for (x, column) in columns.iter_mut().enumerate() {
        for (y, vector) in column.iter_mut().enumerate() {
            let start = y * row_stride + x * CHUNK;
            *vector = W::widen(&values[start..start + WORDS].as_chunks().0[0]);
        }
        *column = input(*column);
    }
    for y in 0..PATCH {
        let mut row = [W::zero(); PATCH];
        for (vector, column) in row.iter_mut().zip(&columns) {
            *vector = column[y];
        }
        for (x, vector) in input(row).into_iter().enumerate() {
            let start = (y * PATCH + x) * stride;
            vector.store(&mut lines[start..start + WORDS].as_chunks_mut().0[0]);
        }
    }
}

/// From the products of one tile to its cells, after pooling where there is any: the first 16 or 4,
/// row by row.
#[inline(always)]
pub(super) fn finish<S: Sums, C: Cell>(
    sums: &TileSums,
    finishing: &Finishing<'_>,
    cells: &mut [[C; PANEL]; SIDE * SIDE],
) {
    let mut results = [[0; PANEL]; SIDE * SIDE];
    for half in 0..PANEL / 16 {
        let pixels = outputs::<S>(sums, half);
        let count = if finishing.pool { SIDE / 2 } else { SIDE };
        for y in 0..count {
            for x in 0..count {
                let value = if finishing.pool {
                    let [upper, lower] = [pixels[2 * y], pixels[2 * y + 1]];
                    upper[2 * x].max(upper[2 * x + 1]).max(lower[2 * x].max(lower[2 * x + 1]))
                } else {
                    pixels[y][x]
                };
                value.store(&mut results[y * count + x].as_chunks_mut().0[half]);
            }
        }
    }
    let count = if finishing.pool { SIDE * SIDE / 4 } else { SIDE * SIDE };
    for (cells, sums) in cells.iter_mut().zip(&results[..count]) {
        *cells = finishing.cells(sums);
    }
}

/// The sums of 16 outputs, `[y][x]`.
#[inline(always)]
fn outputs<S: Sums>(sums: &TileSums, half: usize) -> [[S; SIDE]; SIDE] {
    let mut columns = [[S::zero(); SIDE]; PATCH]; // [x of the products][y of the pixels]
    for (x, column) in columns.iter_mut().enumerate() {
        let mut products = [S::zero(); PATCH];
        for (y, vector) in products.iter_mut().enumerate() {
            *vector = S::load(&sums[y * PATCH + x].as_chunks().0[half]);
        }
        *column = output(products);
    }
    let mut rows = [[S::zero(); SIDE]; SIDE];
    for (y, pixels) in rows.iter_mut().enumerate() {
        let mut row = [S::zero(); PATCH];
        for (vector, column) in row.iter_mut().zip(&columns) {
            *vector = column[y];
        }
        *pixels = output(row);
        for pixel in pixels {
            *pixel = pixel.scale(INVERSE, SHIFT);
        }
    }
    rows
}
