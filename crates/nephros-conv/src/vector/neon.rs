//! NEON registers.

#![allow(unsafe_code, reason = "intrinsics are unsafe where their instruction set is not enabled")]
#![allow(unused_unsafe, reason = "where NEON is the target's baseline, some of them are safe")]
#![allow(clippy::inline_always, reason = "an intrinsic that is not inlined costs a call for each vector")]

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vmaxq_f32, vmulq_n_f32, vst1q_f32, vsubq_f32,
};

use super::Vector;

impl Vector<4> for float32x4_t {
    #[inline(always)]
    fn load(values: &[f32; 4]) -> Self {
        // SAFETY: the array is as long as the register and no alignment is asked for. Vectors of
        // this type are made only inside the entry points of `kernels`, which enable NEON and are
        // reached only after it was found.
        unsafe { vld1q_f32(values.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; 4]) {
        // SAFETY: as for `load`; the array is borrowed mutably.
        unsafe { vst1q_f32(values.as_mut_ptr(), self) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: register arithmetic; NEON is there as for `load`.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as for `splat`.
        unsafe { vaddq_f32(self, other) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as for `splat`.
        unsafe { vsubq_f32(self, other) }
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        // SAFETY: as for `splat`.
        unsafe { vmulq_n_f32(self, factor) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: as for `splat`.
        unsafe { vfmaq_f32(addend, self, factor) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as for `splat`.
        unsafe { vmaxq_f32(self, other) }
    }
}
