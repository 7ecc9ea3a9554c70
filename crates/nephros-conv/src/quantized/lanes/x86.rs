//! AVX-512 and AVX2 registers.

#![allow(unsafe_code, reason = "intrinsics are unsafe where their instruction set is not enabled")]
#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_cvtepu8_epi16, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_epi32, _mm256_mullo_epi32,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_sra_epi32, _mm256_srai_epi16,
    _mm256_storeu_si256, _mm256_sub_epi16, _mm256_sub_epi32, _mm512_add_epi16, _mm512_add_epi32,
    _mm512_cvtepu8_epi16, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_loadu_si512, _mm512_max_epi32,
    _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_sra_epi32, _mm512_storeu_si512,
    _mm512_sub_epi16, _mm512_sub_epi32,
};

use super::{Lanes, Sums, Words};

/// One register, for [`Words`].
#[derive(Clone, Copy)]
pub(in super::super) struct Words512(__m512i);
/// One register, for [`Sums`].
#[derive(Clone, Copy)]
pub(in super::super) struct Sums512(__m512i);
/// Two registers, for [`Words`].
#[derive(Clone, Copy)]
pub(in super::super) struct Words256([__m256i; 2]);
/// Two registers, for [`Sums`].
#[derive(Clone, Copy)]
pub(in super::super) struct Sums256([__m256i; 2]);

macro_rules! lanes {
    (512 $name:ident, $add:ident, $sub:ident) => {
        impl Lanes for $name {
            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: register arithmetic. Values of these types are made only inside the entry
                // points of `kernel`, which enable the instruction set and are reached only where
                // the processor has it.
                Self(unsafe { _mm512_setzero_si512() })
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: as for `zero`.
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: as for `zero`.
                Self(unsafe { $sub(self.0, other.0) })
            }
        }
    };
    (256 $name:ident, $add:ident, $sub:ident) => {
        impl Lanes for $name {
            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: register arithmetic. Values of these types are made only inside the entry
                // points of `kernel`, which enable the instruction set and are reached only where
                // the processor has it.
                Self([unsafe { _mm256_setzero_si256() }; 2])
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: as for `zero`.
                Self(unsafe { [$add(self.0[0], other.0[0]), $add(self.0[1], other.0[1])] })
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: as for `zero`.
                Self(unsafe { [$sub(self.0[0], other.0[0]), $sub(self.0[1], other.0[1])] })
            }
        }
    };
}

lanes!(512 Words512, _mm512_add_epi16, _mm512_sub_epi16);
lanes!(512 Sums512, _mm512_add_epi32, _mm512_sub_epi32);
lanes!(256 Words256, _mm256_add_epi16, _mm256_sub_epi16);
lanes!(256 Sums256, _mm256_add_epi32, _mm256_sub_epi32);

impl Words for Words512 {
    #[inline(always)]
    fn widen(bytes: &[u8; 32]) -> Self {
        Self(
            // SAFETY: the array is as long as the register that is loaded and no alignment is asked
            // for; the instruction set is there as for `zero`.
            unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast())) },
        )
    }

    #[inline(always)]
    fn store(self, values: &mut [i16; 32]) {
        // SAFETY: as for `widen`; the array is borrowed mutably.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), self.0) }
    }
}

impl Sums for Sums512 {
    #[inline(always)]
    fn load(values: &[i32; 16]) -> Self {
        // SAFETY: the array is as long as the register and no alignment is asked for; the
        // instruction set is there as for `zero`.
        Self(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [i32; 16]) {
        // SAFETY: as for `load`; the array is borrowed mutably.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn add_bytes(self, values: [u8; 4], weights: &[i8; 64]) -> Self {
        // SAFETY: as for `load`.
        unsafe {
            let weights = _mm512_loadu_si512(weights.as_ptr().cast());
            Self(_mm512_dpbusd_epi32(self.0, _mm512_set1_epi32(i32::from_le_bytes(values)), weights))
        }
    }

    #[inline(always)]
    fn add_words(self, values: [i16; 2], weights: &[i16; 32]) -> Self {
        // SAFETY: as for `load`.
        unsafe {
            let weights = _mm512_loadu_si512(weights.as_ptr().cast());
            Self(_mm512_dpwssd_epi32(self.0, _mm512_set1_epi32(pair(values)), weights))
        }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as for `zero`.
        Self(unsafe { _mm512_max_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn scale(self, factor: i32, shift: u32) -> Self {
        // SAFETY: as for `zero`.
        unsafe {
            let product = _mm512_mullo_epi32(self.0, _mm512_set1_epi32(factor));
            Self(_mm512_sra_epi32(product, count(shift)))
        }
    }
}

impl Words for Words256 {
    #[inline(always)]
    fn widen(bytes: &[u8; 32]) -> Self {
        let mut words = Self::zero();
        for (register, bytes) in words.0.iter_mut().zip(bytes.as_chunks::<16>().0) {
            // SAFETY: the array is as long as the register that is loaded and no alignment is asked
            // for; the instruction set is there as for `zero`.
            *register = unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.as_ptr().cast())) };
        }
        words
    }

    #[inline(always)]
    fn store(self, values: &mut [i16; 32]) {
        for (register, values) in self.0.into_iter().zip(values.as_chunks_mut::<16>().0) {
            // SAFETY: as for `widen`; the array is borrowed mutably.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), register) }
        }
    }
}

impl Sums for Sums256 {
    #[inline(always)]
    fn load(values: &[i32; 16]) -> Self {
        let mut sums = Self::zero();
        for (register, values) in sums.0.iter_mut().zip(values.as_chunks::<8>().0) {
            // SAFETY: the array is as long as the register and no alignment is asked for; the
            // instruction set is there as for `zero`.
            *register = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
        }
        sums
    }

    #[inline(always)]
    fn store(self, values: &mut [i32; 16]) {
        for (register, values) in self.0.into_iter().zip(values.as_chunks_mut::<8>().0) {
            // SAFETY: as for `load`; the array is borrowed mutably.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), register) }
        }
    }

    /// Bytes become 16-bit numbers, the even and the odd ones apart, so that no sum of two products
    /// can overflow as it would in `vpmaddubsw`.
    #[inline(always)]
    fn add_bytes(mut self, values: [u8; 4], weights: &[i8; 64]) -> Self {
        let values = u32::from_le_bytes(values);
        for (sum, weights) in self.0.iter_mut().zip(weights.as_chunks::<32>().0) {
            // SAFETY: as for `load`.
            unsafe {
                let weights = _mm256_loadu_si256(weights.as_ptr().cast());
                let (even, odd) =
                    (_mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8), _mm256_srai_epi16(weights, 8));
                let even_values = _mm256_set1_epi32((values & 0x00ff_00ff).cast_signed());
                let odd_values = _mm256_set1_epi32((values >> 8 & 0x00ff_00ff).cast_signed());
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(even_values, even));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odd_values, odd));
            }
        }
        self
    }

    #[inline(always)]
    fn add_words(mut self, values: [i16; 2], weights: &[i16; 32]) -> Self {
        for (sum, weights) in self.0.iter_mut().zip(weights.as_chunks::<16>().0) {
            // SAFETY: as for `load`.
            unsafe {
                let weights = _mm256_loadu_si256(weights.as_ptr().cast());
                let products = _mm256_madd_epi16(_mm256_set1_epi32(pair(values)), weights);
                *sum = _mm256_add_epi32(*sum, products);
            }
        }
        self
    }

    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        for (register, other) in self.0.iter_mut().zip(other.0) {
            // SAFETY: as for `zero`.
            *register = unsafe { _mm256_max_epi32(*register, other) };
        }
        self
    }

    #[inline(always)]
    fn scale(mut self, factor: i32, shift: u32) -> Self {
        for register in &mut self.0 {
            // SAFETY: as for `zero`.
            unsafe {
                let product = _mm256_mullo_epi32(*register, _mm256_set1_epi32(factor));
                *register = _mm256_sra_epi32(product, count(shift));
            }
        }
        self
    }
}

/// Two words as they lie in memory.
#[inline(always)]
fn pair([first, second]: [i16; 2]) -> i32 {
    i32::from(second) << 16 | i32::from(first.cast_unsigned())
}

#[inline(always)]
fn count(shift: u32) -> __m128i {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { _mm_cvtsi32_si128(shift.cast_signed()) }
}
