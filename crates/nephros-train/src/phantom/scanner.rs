//! The table, the scanner's sharpness and noise, and the window.

use super::{canvas::Canvas, draw::Draw, noise, shape::smoothstep};

/// How one patient was scanned.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// Standard deviation of the noise, in Hounsfield units.
    pub(super) noise_hu: f32,
    /// Width of the noise's grains: 0 for white noise, 0.33 for the softest kernel.
    softness: f32,
    /// The reconstruction kernel: positive blurs, negative sharpens.
    blur: f32,
    table: Table,
    seed: u32,
}

/// The patient table, in pixels of a 512 pixel image.
#[derive(Debug, Clone, Copy)]
struct Table {
    present: bool,
    /// Rows between the back of the skin and the table top.
    pad: f32,
    /// Rise of the top towards the sides, as curvature.
    curve: f32,
    /// Distance between the two shells, and their thickness.
    thick: f32,
    shell: f32,
    half_width: f32,
    shift: f32,
    rails: bool,
    hu: f32,
}

impl Scanner {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        Self {
            noise_hu: draw.bell(4.0, 19.0),
            softness: draw.uniform(0.12, 0.32),
            blur: draw.uniform(-0.10, 0.22),
            table: Table::draw(draw),
            seed: draw.bits(),
        }
    }

    /// Paints the table below `back`, the row of the skin's lowest point.
    pub(super) fn paint_table(&self, canvas: &mut Canvas, back: f32) {
        self.table.paint(canvas, back);
    }

    /// Blurs and adds noise, and rounds to whole Hounsfield units from −1024 up.
    pub(super) fn acquire(&self, canvas: &Canvas, index: usize) -> Vec<i16> {
        let size = canvas.size;
        let mut hu = canvas.hu.clone();
        filter(&mut hu, size, self.blur);
        let seed = self.seed ^ (index as u32).wrapping_mul(0x9E37_79B1);
        let mut grains: Vec<f32> =
            (0..size).flat_map(|y| (0..size).map(move |x| noise::gaussian(seed, x, y))).collect();
        filter(&mut grains, size, self.softness);
        // One pass of [w, 1 − 2w, w] along each axis scales the variance by (1 − 4w + 6w²)².
        let w = self.softness;
        let scale = self.noise_hu / (1.0 - 4.0 * w + 6.0 * w * w);
        hu.iter().zip(&grains).map(|(hu, grain)| (hu + scale * grain + 0.5).clamp(-1024.0, 3071.0).floor() as i16).collect()
    }
}

impl Table {
    fn draw(draw: &mut Draw) -> Self {
        Self {
            present: draw.chance(0.92),
            pad: draw.bell(4.0, 26.0),
            curve: if draw.chance(0.8) { draw.uniform(0.0005, 0.0013) } else { 0.0 },
            thick: draw.bell(20.0, 60.0),
            shell: draw.uniform(1.0, 2.4),
            half_width: draw.uniform(200.0, 320.0),
            shift: draw.bell(-30.0, 30.0),
            rails: draw.chance(0.5),
            hu: draw.uniform(-100.0, 420.0),
        }
    }

    fn paint(&self, canvas: &mut Canvas, back: f32) {
        if !self.present {
            return;
        }
        let unit = canvas.size as f32 / 512.0;
        let top = back / unit + self.pad;
        let first = ((top - 90.0).max(0.0) * unit) as usize;
        for row in first..canvas.size {
            for column in 0..canvas.size {
                let (x, y) = (column as f32 / unit - 256.0 - self.shift, row as f32 / unit);
                let share = self.share(x, y - top);
                let pixel = &mut canvas.hu[row * canvas.size + column];
                // Whatever lies on the table, a limb or the trunk, hides it.
                if share > 0.0 && *pixel < -500.0 {
                    *pixel += (self.hu - *pixel) * share;
                }
            }
        }
    }

    /// Share of shell at `x` from the table's middle and `y` below its lowest top.
    fn share(&self, x: f32, y: f32) -> f32 {
        if x.abs() > self.half_width {
            return 0.0;
        }
        let line = |offset: f32| 1.0 - smoothstep(0.4, 1.3, (offset / self.shell).abs());
        let upper = line(y + self.curve * x * x);
        let taper = self.thick * (1.0 - (x / self.half_width) * (x / self.half_width));
        let lower = line(y + self.curve * x * x - taper) * 0.8;
        let rail = if self.rails { line((x.abs() - 0.72 * self.half_width) * 0.7 - (y - 8.0).max(-60.0)) } else { 0.0 };
        upper.max(lower).max(if y > 8.0 { rail } else { 0.0 })
    }
}

/// Convolves with `[weight, 1 − 2·weight, weight]` along both axes, the border repeated.
fn filter(values: &mut [f32], size: usize, weight: f32) {
    let centre = 1.0 - 2.0 * weight;
    for row in values.chunks_exact_mut(size) {
        let mut before = row[0];
        for column in 0..size {
            let here = row[column];
            let after = row[(column + 1).min(size - 1)];
            row[column] = weight * (before + after) + centre * here;
            before = here;
        }
    }
    let mut before = values[..size].to_vec();
    for row in 0..size {
        let next = (row + 1).min(size - 1);
        for column in 0..size {
            let here = values[row * size + column];
            let after = values[next * size + column];
            values[row * size + column] = weight * (before[column] + after) + centre * here;
            before[column] = here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_spreads_a_point_and_keeps_the_sum() {
        let mut values = vec![0.0; 25];
        values[12] = 16.0;
        filter(&mut values, 5, 0.25);
        assert_eq!(values[12], 4.0); // 16 · 0.5 · 0.5
        assert_eq!(values[11], 2.0); // 16 · 0.25 · 0.5
        assert_eq!(values[6], 1.0); // 16 · 0.25 · 0.25
        assert_eq!(values.iter().sum::<f32>(), 16.0);
    }
}
