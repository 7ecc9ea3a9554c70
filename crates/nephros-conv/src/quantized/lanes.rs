//! Registers of whole numbers, whatever the instruction set calls them.
//!
//! Every type holds the lanes of one cache line, so that kernels are written once; where the
//! registers are half as long, it holds two.

#![allow(clippy::inline_always, reason = "vectors must not cross a function boundary")]

#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

/// Lanes that wrap around.
pub(super) trait Lanes: Copy {
    fn zero() -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;

    #[inline(always)]
    fn double(self) -> Self {
        self.add(self)
    }
}

/// 32 numbers of 16 bits.
pub(super) trait Words: Lanes {
    fn widen(bytes: &[u8; 32]) -> Self;
    fn store(self, values: &mut [i16; 32]);
}

/// 16 numbers of 32 bits: the sums of 16 outputs of one pixel.
pub(super) trait Sums: Lanes {
    fn load(values: &[i32; 16]) -> Self;
    fn store(self, values: &mut [i32; 16]);
    /// Adds the products of four channels with the weights `[16, 4]`.
    fn add_bytes(self, values: [u8; 4], weights: &[i8; 64]) -> Self;
    /// Adds the products of two channels with the weights `[16, 2]`.
    fn add_words(self, values: [i16; 2], weights: &[i16; 32]) -> Self;
    fn max(self, other: Self) -> Self;
    /// `self * factor >> shift`
    fn scale(self, factor: i32, shift: u32) -> Self;
}

/// The portable lanes: the compiler turns the loops into what the target has.
macro_rules! portable {
    ($number:ty, $lanes:literal) => {
        impl Lanes for [$number; $lanes] {
            #[inline(always)]
            fn zero() -> Self {
                [0; $lanes]
            }

            #[inline(always)]
            fn add(mut self, other: Self) -> Self {
                self.iter_mut().zip(other).for_each(|(lane, other)| *lane = lane.wrapping_add(other));
                self
            }

            #[inline(always)]
            fn sub(mut self, other: Self) -> Self {
                self.iter_mut().zip(other).for_each(|(lane, other)| *lane = lane.wrapping_sub(other));
                self
            }
        }
    };
}

portable!(i16, 32);
portable!(i32, 16);

impl Words for [i16; 32] {
    #[inline(always)]
    fn widen(bytes: &[u8; 32]) -> Self {
        bytes.map(i16::from)
    }

    #[inline(always)]
    fn store(self, values: &mut [i16; 32]) {
        *values = self;
    }
}

impl Sums for [i32; 16] {
    #[inline(always)]
    fn load(values: &[i32; 16]) -> Self {
        *values
    }

    #[inline(always)]
    fn store(self, values: &mut [i32; 16]) {
        *values = self;
    }

    #[inline(always)]
    fn add_bytes(mut self, values: [u8; 4], weights: &[i8; 64]) -> Self {
        let values = values.map(i32::from);
        for (sum, weights) in self.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (value, weight) in values.iter().zip(weights) {
                *sum += value * i32::from(*weight);
            }
        }
        self
    }

    #[inline(always)]
    fn add_words(mut self, values: [i16; 2], weights: &[i16; 32]) -> Self {
        let values = values.map(i32::from);
        for (sum, weights) in self.iter_mut().zip(weights.as_chunks::<2>().0) {
            for (value, weight) in values.iter().zip(weights) {
                *sum = sum.wrapping_add(value * i32::from(*weight));
            }
        }
        self
    }

    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(lane, other)| *lane = other.max(*lane));
        self
    }

    #[inline(always)]
    fn scale(mut self, factor: i32, shift: u32) -> Self {
        for lane in &mut self {
            *lane = lane.wrapping_mul(factor) >> shift;
        }
        self
    }
}
