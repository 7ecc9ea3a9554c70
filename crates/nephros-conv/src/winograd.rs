//! The one-dimensional transforms of Winograd's minimal filtering for 3-tap kernels.
//!
//! `F(m, 3)` gives `m` outputs from `m + 2` inputs with `m + 2` products: `A (G g * B d)`, each of
//! the three a fixed linear map. In two dimensions they are applied to columns, then to rows.
//!
//! Source: Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>. The points of `F(4, 3)` are
//! 0, ±1/√2, ±√2 and infinity in place of 0, ±1, ±2: their transforms grow values less, which
//! keeps rounding down (Barabasz et al. 2018, <https://arxiv.org/abs/1803.10986>).

#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::vector::Vector;

/// `S` inputs or products, `M` outputs.
pub(crate) trait Scheme<const S: usize, const M: usize> {
    /// `B d`.
    fn input<V: Vector<L>, const L: usize>(d: [V; S]) -> [V; S];
    /// `A m`.
    fn output<V: Vector<L>, const L: usize>(m: [V; S]) -> [V; M];
}

/// No transform: the products are the outputs.
pub(crate) struct Identity;

impl Scheme<2, 2> for Identity {
    #[inline(always)]
    fn input<V: Vector<L>, const L: usize>(d: [V; 2]) -> [V; 2] {
        d
    }

    #[inline(always)]
    fn output<V: Vector<L>, const L: usize>(m: [V; 2]) -> [V; 2] {
        m
    }
}

/// Two outputs from four products.
pub(crate) struct F2;

impl Scheme<4, 2> for F2 {
    #[inline(always)]
    fn input<V: Vector<L>, const L: usize>(d: [V; 4]) -> [V; 4] {
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])]
    }

    #[inline(always)]
    fn output<V: Vector<L>, const L: usize>(m: [V; 4]) -> [V; 2] {
        [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])]
    }
}

/// `G` of [`F2`]: each row is `(1, p, p²)` for a point `p`, over the product of its distances to
/// the other points.
pub(crate) const F2_KERNEL: [[f64; 3]; 4] =
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

/// Four outputs from six products.
pub(crate) struct F4;

impl Scheme<6, 4> for F4 {
    #[inline(always)]
    fn input<V: Vector<L>, const L: usize>(d: [V; 6]) -> [V; 6] {
        let (near, near_odd) =
            (d[2].scale_add(-2.0, d[4]), d[1].scale_add(-SQRT_2, d[3].scale(FRAC_1_SQRT_2)));
        let (far, far_odd) = (d[2].scale_add(-0.5, d[4]), d[1].scale_add(-FRAC_1_SQRT_2, d[3].scale(SQRT_2)));
        [
            d[2].scale_add(-2.5, d[0].add(d[4])),
            near.add(near_odd),
            near.sub(near_odd),
            far.add(far_odd),
            far.sub(far_odd),
            d[3].scale_add(-2.5, d[1].add(d[5])),
        ]
    }

    #[inline(always)]
    fn output<V: Vector<L>, const L: usize>(m: [V; 6]) -> [V; 4] {
        let (near, near_odd) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far, far_odd) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(near).add(far),
            near_odd.scale(FRAC_1_SQRT_2).add(far_odd.scale(SQRT_2)),
            far.scale_add(2.0, near.scale(0.5)),
            far_odd.scale_add(2.0 * SQRT_2, near_odd.scale_add(0.5 * FRAC_1_SQRT_2, m[5])),
        ]
    }
}

/// `G` of [`F4`].
pub(crate) const F4_KERNEL: [[f64; 3]; 6] = {
    const ROOT: f64 = std::f64::consts::SQRT_2;
    [
        [1.0, 0.0, 0.0],
        // p = ±1/√2: 2 p² (p² - 2) = -3/2
        [-2.0 / 3.0, -ROOT / 3.0, -1.0 / 3.0],
        [-2.0 / 3.0, ROOT / 3.0, -1.0 / 3.0],
        // p = ±√2: 2 p² (p² - 1/2) = 6
        [1.0 / 6.0, ROOT / 6.0, 1.0 / 3.0],
        [1.0 / 6.0, -ROOT / 6.0, 1.0 / 3.0],
        [0.0, 0.0, 1.0],
    ]
};
