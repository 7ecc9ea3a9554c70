//! Slices of floats as vectors of the instruction set that a kernel is compiled for.

use pulp::Simd;

/// The vectors of a slice that holds a whole number of them.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a kernel is one function for its instruction set")]
pub(super) fn vectors<S: Simd>(values: &[f32]) -> &[S::f32s] {
    S::as_simd_f32s(values).0
}

/// As [`vectors`], to write to.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a kernel is one function for its instruction set")]
pub(super) fn vectors_mut<S: Simd>(values: &mut [f32]) -> &mut [S::f32s] {
    S::as_mut_simd_f32s(values).0
}
