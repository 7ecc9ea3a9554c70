//! Sums of 8-bit products for a run of pixels, the same integers on every instruction set.

#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

use crate::Isa;

/// Channels that lie next to each other in a map.
pub(super) const CHUNK: usize = 64;
/// Outputs of one product: half a chunk, two vectors of 32-bit sums.
pub(super) const PANEL: usize = 32;
/// Most pixels of one product: 28 vectors of sums and two of weights fill the registers of AVX-512.
pub(super) const RUN: usize = 14;
/// Input channels that one instruction multiplies and adds.
const QUAD: usize = 4;

/// The sums of up to [`RUN`] pixels, `[pixels, PANEL]`.
pub(super) type Sums = [[i32; PANEL]; RUN];

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
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => Self::Vnni,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 if is_x86_feature_detected!("avx2") => Self::Avx2,
            _ => Self::Portable,
        }
    }

    /// `sums[p, o] = sum over taps and channels of map * weights` for `run` pixels.
    ///
    /// # Shapes
    /// `weights` is `[chunks, 3, 3, CHUNK / 4, PANEL, 4]`.
    #[allow(unsafe_code, reason = "the functions enable an instruction set")]
    pub(super) fn multiply(self, run: usize, window: Window<'_>, weights: &[i8], sums: &mut Sums) {
        match self {
            Self::Portable => by_run::<[i32; 16], 1>(run, window, weights, sums),
            // SAFETY: `of` returns these only where the processor has the instruction set, and the
            // functions ask for nothing else.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(run, window, weights, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { vnni(run, window, weights, sums) },
        }
    }
}

/// Sixteen outputs of one pixel.
trait Accumulator: Copy {
    fn zero() -> Self;
    /// Adds the products of four channels with the weights `[16, 4]`.
    fn add(self, values: [u8; QUAD], weights: &[i8; CHUNK]) -> Self;
    fn store(self, sums: &mut [i32; 16]);
}

impl Accumulator for [i32; 16] {
    #[inline(always)]
    fn zero() -> Self {
        [0; 16]
    }

    #[inline(always)]
    fn add(mut self, values: [u8; QUAD], weights: &[i8; CHUNK]) -> Self {
        let values = values.map(i32::from);
        for (sum, weights) in self.iter_mut().zip(weights.as_chunks::<QUAD>().0) {
            for (value, weight) in values.iter().zip(weights) {
                *sum += value * i32::from(*weight);
            }
        }
        self
    }

    #[inline(always)]
    fn store(self, sums: &mut [i32; 16]) {
        *sums = self;
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "intrinsics are unsafe where their instruction set is not enabled")]
impl Accumulator for std::arch::x86_64::__m512i {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: register arithmetic. Values of this type are made only inside `vnni`, which
        // enables the instruction set and is reached only where the processor has it.
        unsafe { std::arch::x86_64::_mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add(self, values: [u8; QUAD], weights: &[i8; CHUNK]) -> Self {
        use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32};
        // SAFETY: the array is as long as the register and no alignment is asked for; the
        // instruction set is there as for `zero`.
        unsafe {
            let weights = _mm512_loadu_si512(weights.as_ptr().cast());
            _mm512_dpbusd_epi32(self, _mm512_set1_epi32(i32::from_le_bytes(values)), weights)
        }
    }

    #[inline(always)]
    fn store(self, sums: &mut [i32; 16]) {
        // SAFETY: as for `add`; the array is borrowed mutably.
        unsafe { std::arch::x86_64::_mm512_storeu_si512(sums.as_mut_ptr().cast(), self) }
    }
}

/// Two registers of eight sums. Bytes become 16-bit numbers, the even and the odd ones apart, so
/// that no sum of two products can overflow as it would in `vpmaddubsw`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pair([std::arch::x86_64::__m256i; 2]);

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "intrinsics are unsafe where their instruction set is not enabled")]
impl Accumulator for Pair {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: register arithmetic. Values of this type are made only inside `avx2`, which
        // enables the instruction set and is reached only where the processor has it.
        Self(unsafe { [std::arch::x86_64::_mm256_setzero_si256(); 2] })
    }

    #[inline(always)]
    fn add(mut self, values: [u8; QUAD], weights: &[i8; CHUNK]) -> Self {
        use std::arch::x86_64::{
            _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_slli_epi16,
            _mm256_srai_epi16,
        };
        let values = u32::from_le_bytes(values);
        for (sum, weights) in self.0.iter_mut().zip(weights.as_chunks::<32>().0) {
            // SAFETY: the array is as long as the register and no alignment is asked for; the
            // instruction set is there as for `zero`.
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
    fn store(self, sums: &mut [i32; 16]) {
        for (register, sums) in self.0.into_iter().zip(sums.as_chunks_mut::<8>().0) {
            // SAFETY: as for `add`; the array is borrowed mutably.
            unsafe { std::arch::x86_64::_mm256_storeu_si256(sums.as_mut_ptr().cast(), register) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni(run: usize, window: Window<'_>, weights: &[i8], sums: &mut Sums) {
    macro_rules! runs {
        ($($run:literal)*) => {
            match run {
                $($run => multiply::<std::arch::x86_64::__m512i, $run>(window, weights, sums),)*
                _ => unreachable!("a run of {run} pixels"),
            }
        };
    }
    runs!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(run: usize, window: Window<'_>, weights: &[i8], sums: &mut Sums) {
    by_run::<Pair, 3>(run, window, weights, sums);
}

/// `R` pixels at a time, as many as their sums fit the registers, then the rest one by one.
#[inline(always)]
fn by_run<A: Accumulator, const R: usize>(run: usize, window: Window<'_>, weights: &[i8], sums: &mut Sums) {
    let whole = run / R * R;
    for pixel in (0..whole).step_by(R) {
        let values = &window.values[pixel * CHUNK..];
        multiply::<A, R>(Window { values, ..window }, weights, &mut sums[pixel..]);
    }
    for pixel in whole..run {
        let values = &window.values[pixel * CHUNK..];
        multiply::<A, 1>(Window { values, ..window }, weights, &mut sums[pixel..]);
    }
}

#[inline(always)]
fn multiply<A: Accumulator, const R: usize>(window: Window<'_>, weights: &[i8], sums: &mut [[i32; PANEL]]) {
    let mut registers = [[A::zero(); 2]; R];
    let taps = weights.as_chunks::<CHUNK>().0.as_chunks::<2>().0.as_chunks::<{ CHUNK / QUAD }>().0;
    for (tap, weights) in taps.iter().enumerate() {
        let (chunk, row, column) = (tap / 9, tap % 9 / 3, tap % 3);
        let start = chunk * window.chunk_stride + row * window.row_stride + column * CHUNK;
        let pixels = window.values[start..start + R * CHUNK].as_chunks::<QUAD>().0;
        let pixels = &pixels.as_chunks::<{ CHUNK / QUAD }>().0.as_chunks::<R>().0[0];
        for (quad, [low, high]) in weights.iter().enumerate() {
            for (sums, pixel) in registers.iter_mut().zip(pixels) {
                *sums = [sums[0].add(pixel[quad], low), sums[1].add(pixel[quad], high)];
            }
        }
    }
    for (registers, sums) in registers.into_iter().zip(sums) {
        for (register, sums) in registers.into_iter().zip(sums.as_chunks_mut::<16>().0) {
            register.store(sums);
        }
    }
}
