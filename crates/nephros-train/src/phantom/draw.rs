//! Seeded draws that stay the same across releases of `rand`.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// One patient's stream of random numbers.
#[derive(Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of patient `stream` in the cohort of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// 32 random bits, for seeds of noise fields.
    pub(super) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f32 {
        // 24 bits fill the mantissa, so 1.0 cannot come out.
        (self.0.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// Uniform in `low..high`.
    pub(super) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Bell-shaped around the middle of `low..high`, never outside: the mean of three uniform draws.
    pub(super) fn bell(&mut self, low: f32, high: f32) -> f32 {
        let mean = (self.unit() + self.unit() + self.unit()) / 3.0;
        low + (high - low) * mean
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// An angle in radians in `0..2π`.
    pub(super) fn angle(&mut self) -> f32 {
        self.uniform(0.0, std::f32::consts::TAU)
    }
}
