//! The matrix product whose sums stay in registers.

use crate::vector::Vector;

/// See [`super::Kernels::multiply`]; `R` rows by two vectors of `L` outputs.
#[inline(always)]
pub(super) fn multiply<V: Vector<L>, const L: usize, const R: usize>(
    values: &[f32],
    kernel: &[f32],
    sums: &mut [f32],
    stride: usize,
) {
    let mut registers = [[V::splat(0.0); 2]; R];
    let values = values.as_chunks::<L>().0.as_chunks::<R>().0; // [depth / L][R][L]
    let kernel = kernel.as_chunks::<L>().0.as_chunks::<2>().0.as_chunks::<L>().0; // [depth / L][L][2][L]
    for (rows, kernel) in values.iter().zip(kernel) {
        for (k, [low, high]) in kernel.iter().enumerate() {
            let (low, high) = (V::load(low), V::load(high));
            for (row, sums) in rows.iter().zip(&mut registers) {
                let value = V::splat(row[k]);
                *sums = [value.mul_add(low, sums[0]), value.mul_add(high, sums[1])];
            }
        }
    }
    for (row, [low, high]) in registers.into_iter().enumerate() {
        let (target, rest) = sums[row * stride..].split_at_mut(L);
        low.store(&mut target.as_chunks_mut().0[0]);
        high.store(&mut rest.as_chunks_mut().0[0]);
    }
}
