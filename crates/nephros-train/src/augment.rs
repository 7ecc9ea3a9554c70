//! ImageDataGenerator's random transforms.
//!
//! Geometry as in Keras 2.12 for square images: one affine map, rotation · shift · shear · zoom about the centre, from
//! output to input positions, linear interpolation, the edge continued outwards; then the flips.
//! Source: Keras 2.12, `keras/preprocessing/image.py`, `apply_affine_transform`.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::config::Params;

/// How far each part of a [`Transform`] may go; a range of 0 switches its part off.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AugmentationRanges {
    /// Degrees either way.
    pub rotation: f64,
    /// Share of the width either way.
    pub width_shift: f64,
    /// Share of the height either way.
    pub height_shift: f64,
    /// Degrees either way.
    pub shear: f64,
    /// Drawn per axis from `1 - zoom` to `1 + zoom`.
    pub zoom: f64,
    /// Whether half of the images are mirrored left and right.
    pub horizontal_flip: bool,
    /// Whether half of the images are mirrored top and bottom.
    pub vertical_flip: bool,
    /// Factor drawn from `1 - brightness` to `1 + brightness`.
    pub brightness: f64,
    /// Factor drawn from `1 - contrast` to `1 + contrast`.
    pub contrast: f64,
    /// Exponent drawn from `1 / (1 + gamma)` to `1 + gamma`, as likely below 1 as above.
    pub gamma: f64,
    /// Standard deviation drawn from 0 to this share of white.
    pub noise: f64,
}

impl From<&Params> for AugmentationRanges {
    /// The ranges of `params.yaml`; none of them with `AUGMENTATION: False`.
    fn from(params: &Params) -> Self {
        if !params.augmentation {
            return Self::default();
        }
        Self {
            rotation: params.rotation_range,
            width_shift: params.width_shift_range,
            height_shift: params.height_shift_range,
            shear: params.shear_range,
            zoom: params.zoom_range,
            horizontal_flip: params.horizontal_flip,
            vertical_flip: params.vertical_flip,
            brightness: params.brightness_range,
            contrast: params.contrast_range,
            gamma: params.gamma_range,
            noise: params.noise_range,
        }
    }
}

impl AugmentationRanges {
    /// Draws a transform for images of `height`×`width` pixels.
    ///
    /// As many numbers are drawn whatever is switched on, so that a switch changes only its own part.
    /// Keras 2.12 draws `tx` from the height's range and `ty` from the width's, though `tx` moves
    /// columns; here each range moves the axis in its name.
    pub fn draw(&self, rng: &mut impl Rng, height: usize, width: usize) -> Transform {
        let theta = either_way(rng, self.rotation);
        let tx = either_way(rng, self.width_shift) * width as f64;
        let ty = either_way(rng, self.height_shift) * height as f64;
        let shear = either_way(rng, self.shear);
        let zx = 1.0 + either_way(rng, self.zoom);
        let zy = 1.0 + either_way(rng, self.zoom);
        let flip_horizontal = rng.random::<f64>() < 0.5 && self.horizontal_flip;
        let flip_vertical = rng.random::<f64>() < 0.5 && self.vertical_flip;
        let brightness = 1.0 + either_way(rng, self.brightness);
        let contrast = 1.0 + either_way(rng, self.contrast);
        let gamma = either_way(rng, self.gamma.ln_1p()).exp();
        let noise = rng.random::<f64>() * self.noise;
        let noise_seed = rng.random();
        Transform {
            theta,
            tx,
            ty,
            shear,
            zx,
            zy,
            flip_horizontal,
            flip_vertical,
            brightness,
            contrast,
            gamma,
            noise: Noise { deviation: noise * 255.0, seed: if noise > 0.0 { noise_seed } else { 0 } },
        }
    }
}

/// Uniform from `-range` to `range`; a positive 0 for a range of 0.
fn either_way(rng: &mut impl Rng, range: f64) -> f64 {
    let drawn = rng.random::<f64>();
    if range == 0.0 { 0.0 } else { range * (2.0 * drawn - 1.0) }
}

/// The random numbers of one view of one image.
///
/// They depend on the seed, the image's content (`image`, its sha256) and the view or epoch, and on
/// nothing else: neither the order of the images nor the number of threads.
pub fn view_rng(seed: u64, image: &str, epoch_or_view: u64) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(epoch_or_view.to_le_bytes());
    hasher.update(image);
    ChaCha8Rng::from_seed(hasher.finalize().into())
}

/// One drawn transform. The names are those of Keras' `apply_affine_transform`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// Rotation, degrees.
    pub theta: f64,
    /// Shift of the columns, pixels: the output shows what lies `tx` further right.
    pub tx: f64,
    /// Shift of the rows, pixels: the output shows what lies `ty` further down.
    pub ty: f64,
    /// Shear angle, degrees.
    pub shear: f64,
    /// Columns of the input for one of the output; above 1 the image shrinks.
    pub zx: f64,
    /// Rows of the input for one of the output.
    pub zy: f64,
    /// Mirror left and right.
    pub flip_horizontal: bool,
    /// Mirror top and bottom.
    pub flip_vertical: bool,
    /// Factor of every value, cut to 0 to 255.
    pub brightness: f64,
    /// Factor of every value's distance from the image's mean, cut to 0 to 255.
    pub contrast: f64,
    /// Power to which every value, as a share of 255, is raised.
    pub gamma: f64,
    /// What is added to every pixel.
    pub noise: Noise,
}

/// Gaussian noise, the same in all channels of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Noise {
    /// Standard deviation, of 255.
    pub deviation: f64,
    /// Where its numbers come from.
    pub seed: u64,
}

impl Default for Transform {
    /// Changes nothing.
    fn default() -> Self {
        Self {
            theta: 0.0,
            tx: 0.0,
            ty: 0.0,
            shear: 0.0,
            zx: 1.0,
            zy: 1.0,
            flip_horizontal: false,
            flip_vertical: false,
            brightness: 1.0,
            contrast: 1.0,
            gamma: 1.0,
            noise: Noise::default(),
        }
    }
}

impl Transform {
    /// Transforms `[height, width, channels]` values of 0 to 255: geometry, flips, brightness,
    /// contrast, gamma, noise. Parts that change nothing leave every bit as it is.
    pub fn apply(&self, pixels: &[f32], height: usize, width: usize, channels: usize) -> Vec<f32> {
        let mut values = match self.affine(height, width) {
            Some(affine) => affine.sample(pixels, height, width, channels),
            None => pixels.to_vec(),
        };
        let row = (width * channels).max(1);
        if self.flip_horizontal {
            values.chunks_exact_mut(row).for_each(|row| mirror(row, channels.max(1)));
        }
        if self.flip_vertical {
            mirror(&mut values, row);
        }
        change_light(&mut values, self.brightness as f32, self.contrast as f32);
        raise(&mut values, self.gamma as f32);
        self.noise.add(&mut values, channels);
        values
    }

    /// The part that moves pixels, which a mask goes through as its image does.
    #[must_use]
    pub fn geometry(&self) -> Self {
        let Self { brightness, contrast, gamma, noise, .. } = Self::default();
        Self { brightness, contrast, gamma, noise, ..*self }
    }

    /// From output to input positions; `None` when every pixel stays where it is.
    fn affine(&self, height: usize, width: usize) -> Option<Affine> {
        let still = Self {
            theta: self.theta,
            tx: self.tx,
            ty: self.ty,
            shear: self.shear,
            zx: self.zx,
            zy: self.zy,
            ..Self::default()
        };
        if still == Self::default() {
            return None;
        }
        let (sin, cos) = self.theta.to_radians().sin_cos();
        let (shear_sin, shear_cos) = self.shear.to_radians().sin_cos();
        let rotation = Affine([[cos, -sin, 0.0], [sin, cos, 0.0]]);
        let shift = Affine([[1.0, 0.0, self.tx], [0.0, 1.0, self.ty]]);
        let shear = Affine([[1.0, -shear_sin, 0.0], [0.0, shear_cos, 0.0]]);
        let zoom = Affine([[self.zx, 0.0, 0.0], [0.0, self.zy, 0.0]]);
        // Keras gives the height to x, though x runs along the width: on an image that is not square it turns and
        // scales about a point off the centre, by a quarter of the width in a band. Here it is the centre.
        let (x, y) = (width as f64 / 2.0 - 0.5, height as f64 / 2.0 - 0.5);
        let from_center = Affine([[1.0, 0.0, x], [0.0, 1.0, y]]);
        let to_center = Affine([[1.0, 0.0, -x], [0.0, 1.0, -y]]);
        Some(from_center.after(rotation.after(shift.after(shear.after(zoom)))).after(to_center))
    }
}

/// The upper two rows of a 3×3 matrix on (x, y, 1); x counts columns, y rows.
#[derive(Clone, Copy)]
struct Affine([[f64; 3]; 2]);

impl Affine {
    /// The matrix product `self · first`.
    fn after(self, first: Self) -> Self {
        let [x, y] = first.0;
        Self(self.0.map(|[a, b, c]| [a * x[0] + b * y[0], a * x[1] + b * y[1], a * x[2] + b * y[2] + c]))
    }

    /// Linear interpolation at the mapped positions (`scipy.ndimage`, order 1, mode nearest).
    fn sample(self, pixels: &[f32], height: usize, width: usize, channels: usize) -> Vec<f32> {
        let mut sampled = vec![0.0; pixels.len()];
        if pixels.is_empty() {
            return sampled;
        }
        let [[x_of_column, x_of_row, x_offset], [y_of_column, y_of_row, y_offset]] = self.0;
        for (row, output) in sampled.chunks_exact_mut(width * channels).enumerate() {
            let row = row as f64;
            let (x_start, y_start) = (x_of_row * row + x_offset, y_of_row * row + y_offset);
            for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                let column = column as f64;
                let (left, right, x) = neighbours(x_of_column * column + x_start, width);
                let (upper, lower, y) = neighbours(y_of_column * column + y_start, height);
                let at = |row: usize, column: usize| &pixels[(row * width + column) * channels..][..channels];
                let above = at(upper, left).iter().zip(at(upper, right));
                let below = at(lower, left).iter().zip(at(lower, right));
                for (value, ((a, b), (c, d))) in output.iter_mut().zip(above.zip(below)) {
                    let (above, below) = (a + (b - a) * x, c + (d - c) * x);
                    *value = above + (below - above) * y;
                }
            }
        }
        sampled
    }
}

/// The pixels on both sides of a position and how far it is from the first, 0 to 1; beyond the edge,
/// the edge.
fn neighbours(position: f64, size: usize) -> (usize, usize, f32) {
    let position = position.clamp(0.0, (size - 1) as f64);
    let first = position as usize;
    (first, (first + 1).min(size - 1), (position - first as f64) as f32)
}

/// Reverses the order of the pieces of `piece` values.
fn mirror(values: &mut [f32], piece: usize) {
    let count = values.len() / piece;
    let (first, rest) = values.split_at_mut(count / 2 * piece);
    for (a, b) in first.chunks_exact_mut(piece).zip(rest.rchunks_exact_mut(piece)) {
        a.swap_with_slice(b);
    }
}

fn change_light(values: &mut [f32], brightness: f32, contrast: f32) {
    if brightness.to_bits() != 1.0_f32.to_bits() {
        for value in values.iter_mut() {
            *value = (*value * brightness).clamp(0.0, 255.0);
        }
    }
    if contrast.to_bits() != 1.0_f32.to_bits() {
        let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
        let mean = (sum / values.len().max(1) as f64) as f32;
        for value in values {
            *value = (mean + (*value - mean) * contrast).clamp(0.0, 255.0);
        }
    }
}

fn raise(values: &mut [f32], gamma: f32) {
    if gamma.to_bits() != 1.0_f32.to_bits() {
        for value in values {
            *value = 255.0 * (*value / 255.0).max(0.0).powf(gamma);
        }
    }
}

impl Noise {
    fn add(self, values: &mut [f32], channels: usize) {
        if self.deviation <= 0.0 {
            return;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // Two independent normal numbers from two uniform ones.
        // Source: Box and Muller, A note on the generation of random normal deviates, 1958.
        for pixels in values.chunks_mut(2 * channels.max(1)) {
            let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt() * self.deviation as f32;
            let (sin, cos) = (std::f32::consts::TAU * rng.random::<f32>()).sin_cos();
            for (pixel, noise) in pixels.chunks_mut(channels.max(1)).zip([radius * cos, radius * sin]) {
                for value in pixel {
                    *value = (*value + noise).clamp(0.0, 255.0);
                }
            }
        }
    }
}
