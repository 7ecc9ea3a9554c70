//! AVX-512 and AVX2 registers.

#![allow(unsafe_code, reason = "intrinsics are unsafe where their instruction set is not enabled")]
#![allow(clippy::inline_always, reason = "an intrinsic that is not inlined costs a call for each vector")]

use std::arch::x86_64::{
    __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps,
    _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::Vector;

/// Implements [`Vector`] by intrinsics of one width.
macro_rules! vector {
    ($vector:ty, $lanes:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident,
     $mul:ident, $mul_add:ident, $max:ident) => {
        impl Vector<$lanes> for $vector {
            #[inline(always)]
            fn load(values: &[f32; $lanes]) -> Self {
                // SAFETY: the array is as long as the register and no alignment is asked for. Vectors
                // of this type are made only inside the entry points of `kernels`, which enable the
                // instruction set and are reached only after it was found.
                unsafe { $load(values.as_ptr()) }
            }

            #[inline(always)]
            fn store(self, values: &mut [f32; $lanes]) {
                // SAFETY: as for `load`; the array is borrowed mutably.
                unsafe { $store(values.as_mut_ptr(), self) }
            }

            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: register arithmetic; the instruction set is there as for `load`.
                unsafe { $splat(value) }
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: as for `splat`.
                unsafe { $add(self, other) }
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: as for `splat`.
                unsafe { $sub(self, other) }
            }

            #[inline(always)]
            fn scale(self, factor: f32) -> Self {
                // SAFETY: as for `splat`.
                unsafe { $mul(self, $splat(factor)) }
            }

            #[inline(always)]
            fn mul_add(self, factor: Self, addend: Self) -> Self {
                // SAFETY: as for `splat`.
                unsafe { $mul_add(self, factor, addend) }
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // SAFETY: as for `splat`.
                unsafe { $max(self, other) }
            }
        }
    };
}

vector!(
    __m512,
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_max_ps
);
vector!(
    __m256,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm256_max_ps
);
