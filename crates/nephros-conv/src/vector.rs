//! One register of `L` floats, whatever the instruction set calls it.
//!
//! Kernels are written once over [`Vector`] and compiled once for each instruction set, inside a
//! function that enables it. Everything between here and there is inlined, so that no vector
//! crosses a function boundary.

#![allow(clippy::inline_always, reason = "an intrinsic that is not inlined costs a call for each vector")]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

/// `L` floats that are worked on together.
pub(crate) trait Vector<const L: usize>: Copy {
    fn load(values: &[f32; L]) -> Self;
    fn store(self, values: &mut [f32; L]);
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// `self * factor`.
    fn scale(self, factor: f32) -> Self;
    /// `self * factor + addend`, rounded once where the instruction set can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn max(self, other: Self) -> Self;

    /// `self * factor + addend`.
    #[inline(always)]
    fn scale_add(self, factor: f32, addend: Self) -> Self {
        self.mul_add(Self::splat(factor), addend)
    }
}

/// The portable vector: the compiler turns the loops into what the target has.
impl<const L: usize> Vector<L> for [f32; L] {
    #[inline(always)]
    fn load(values: &[f32; L]) -> Self {
        *values
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; L]) {
        *values = self;
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; L]
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        self.map(|value| value * factor)
    }

    /// Rounded twice: without the instruction, a fused product is a call into the C library.
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * factor[lane] + addend[lane])
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|lane| if self[lane] > other[lane] { self[lane] } else { other[lane] })
    }
}
