//! Noise fields that are functions of place and seed alone, so that no order of drawing matters.

/// The lattice point below `x`, for any `x` that an `i32` can hold; faster than a call of `floorf`.
#[inline]
fn below(x: f32) -> i32 {
    let towards_zero = x as i32;
    towards_zero - i32::from(x < towards_zero as f32)
}

/// Mixes a lattice point and a seed into 32 bits (multiply and xor-shift rounds).
#[inline]
fn hash(seed: u32, x: i32, y: i32, z: i32) -> u32 {
    let mut bits = seed
        ^ (x as u32).wrapping_mul(0x9E37_79B1)
        ^ (y as u32).wrapping_mul(0x85EB_CA77)
        ^ (z as u32).wrapping_mul(0xC2B2_AE3D);
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x7FEB_352D);
    bits ^= bits >> 15;
    bits = bits.wrapping_mul(0x846C_A68B);
    bits ^ (bits >> 16)
}

/// The lattice value in `-1.0..=1.0`.
#[inline]
fn corner(seed: u32, x: i32, y: i32, z: i32) -> f32 {
    (hash(seed, x, y, z) >> 8) as f32 / 8_388_608.0 - 1.0
}

fn ease(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

fn lerp(from: f32, to: f32, t: f32) -> f32 {
    from + (to - from) * t
}

/// Smooth value noise of unit wavelength in `-1.0..=1.0`.
pub(super) fn value(seed: u32, x: f32, y: f32, z: f32) -> f32 {
    let (ix, iy, iz) = (below(x), below(y), below(z));
    let (tx, ty, tz) = (ease(x - ix as f32), ease(y - iy as f32), ease(z - iz as f32));
    let row = |y: i32, z: i32| lerp(corner(seed, ix, y, z), corner(seed, ix + 1, y, z), tx);
    let plane = |z: i32| lerp(row(iy, z), row(iy + 1, z), ty);
    lerp(plane(iz), plane(iz + 1), tz)
}

/// Two octaves of [`value`], in `-1.0..=1.0`.
pub(super) fn fractal(seed: u32, x: f32, y: f32, z: f32) -> f32 {
    let fine = value(seed ^ 0x5bd1_e995, 2.0 * x, 2.0 * y, 2.0 * z);
    (value(seed, x, y, z) + 0.6 * fine) / 1.6
}

/// Nearly Gaussian noise of mean 0 and variance 1 at a pixel: the sum of four uniform parts.
pub(super) fn gaussian(seed: u32, x: usize, y: usize) -> f32 {
    let first = hash(seed, x as i32, y as i32, 0);
    let second = first.wrapping_mul(0x9E37_79B1) ^ (first >> 13);
    let sum = (first & 0xFFFF) + (first >> 16) + (second & 0xFFFF) + (second >> 16);
    // Four uniform parts of 0..65535 have mean 131070 and standard deviation 65536·√(4/12).
    (sum as f32 - 131_070.0) / 37_837.2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_noise_stays_in_range_and_is_continuous() {
        for step in 0..2000_u16 {
            let x = f32::from(step) * 0.037 - 30.0;
            let here = value(7, x, 0.3, -4.2);
            assert!((-1.0..=1.0).contains(&here));
            // The slope of an eased step between −1 and 1 is at most 2·1.5.
            assert!((value(7, x + 0.001, 0.3, -4.2) - here).abs() <= 0.0031);
        }
    }

    #[test]
    fn pixel_noise_has_mean_zero_and_variance_one() {
        let values: Vec<f32> = (0..256).flat_map(|y| (0..256).map(move |x| gaussian(11, x, y))).collect();
        let mean = values.iter().sum::<f32>() / 65_536.0;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 65_536.0;
        // Standard errors over 65536 draws: 1/256 for the mean, about √2/256 for the variance.
        assert!(mean.abs() < 0.02, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
    }
}
