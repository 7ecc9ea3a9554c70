//! The matrix product whose sums stay in registers.

use crate::vector::Vector;

/// See [`super::Kernels::multiply`]; `R` rows by `N` vectors of `L` outputs.
#[inline(always)]
pub(super) fn multiply<V: Vector<L>, const L: usize, const R: usize, const N: usize>(
    values: &[f32],
    kernel: &[f32],
    sums: &mut [f32],
    stride: usize,
) {
    let mut registers = [[V::splat(0.0); N]; R];
    let values = values.as_chunks::<L>().0.as_chunks::<R>().0; // [depth / L][R][L]
    let kernel = kernel.as_chunks::<L>().0.as_chunks::<N>().0.as_chunks::<L>().0; // [depth / L][L][N][L]
    for (rows, kernel) in values.iter().zip(kernel) {
        for (k, outputs) in kernel.iter().enumerate() {
            let mut weights = [V::splat(0.0); N];
            for (weights, outputs) in weights.iter_mut().zip(outputs) {
                *weights = V::load(outputs);
            }
            for (row, sums) in rows.iter().zip(&mut registers) {
                let value = V::splat(row[k]);
                for (sum, weights) in sums.iter_mut().zip(&weights) {
                    *sum = value.mul_add(*weights, *sum);
                }
            }
        }
    }
    for (row, registers) in registers.into_iter().enumerate() {
        let target = sums[row * stride..][..N * L].as_chunks_mut::<L>().0;
        for (target, sum) in target.iter_mut().zip(registers) {
            sum.store(target);
        }
    }
}
