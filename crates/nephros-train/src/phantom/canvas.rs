//! The plane that organs are painted on, later ones over earlier ones.

use super::{noise, shape::Bounds};

/// Where a pixel lies in the patient.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Point {
    /// Towards the patient's left, the image's right (millimetres from the vertebral body's centre).
    pub(super) x: f32,
    /// Towards the back, the image's bottom.
    pub(super) y: f32,
    /// Tissue texture in `-1.0..=1.0`, grains of a few millimetres.
    pub(super) grain: f32,
}

/// How the scanner's pixels lie on the patient at one level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pose {
    /// Millimetres a pixel.
    pub(super) spacing: f32,
    /// Turn about the long axis of the body, in radians.
    pub(super) roll: f32,
    /// Patient coordinates in the middle of the image.
    pub(super) centre: (f32, f32),
    /// Level along the body, cranial positive, in millimetres.
    pub(super) z: f32,
    /// Seed of the warp that makes every outline irregular.
    pub(super) warp_seed: u32,
    /// Largest displacement by that warp, in millimetres.
    pub(super) warp: f32,
    /// Seed of the grain.
    pub(super) grain_seed: u32,
}

impl Pose {
    fn patient(&self, size: usize, column: f32, row: f32) -> (f32, f32) {
        let half = (size as f32 - 1.0) / 2.0;
        let (u, v) = ((column - half) * self.spacing, (row - half) * self.spacing);
        let (sin, cos) = (self.roll.sin(), self.roll.cos());
        (self.centre.0 + cos * u + sin * v, self.centre.1 + cos * v - sin * u)
    }

    /// Column and row of a place in the patient, before the warp.
    pub(super) fn pixel(&self, size: usize, x: f32, y: f32) -> (f32, f32) {
        let half = (size as f32 - 1.0) / 2.0;
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let (sin, cos) = (self.roll.sin(), self.roll.cos());
        ((cos * dx - sin * dy) / self.spacing + half, (sin * dx + cos * dy) / self.spacing + half)
    }
}

/// A slice being painted.
#[derive(Debug)]
pub(super) struct Canvas {
    pub(super) size: usize,
    pub(super) pose: Pose,
    /// Hounsfield units, row by row.
    pub(super) hu: Vec<f32>,
    /// Share of the lesion in each pixel.
    pub(super) lesion: Vec<f32>,
    points: Vec<Point>,
}

/// Distances between the knots of the warp and of the grain.
const WARP_STEP_MM: f32 = 12.0;
const GRAIN_STEP_MM: f32 = 2.0;
/// Wavelengths of the warp and of the grain in millimetres.
const WARP_MM: f32 = 55.0;
const GRAIN_MM: f32 = 4.5;

impl Canvas {
    /// Air everywhere.
    pub(super) fn new(size: usize, pose: Pose) -> Self {
        let mut points = vec![Point::default(); size * size];
        let offset = |seed: u32, x: f32, y: f32| {
            pose.warp * noise::fractal(seed, x / WARP_MM, y / WARP_MM, pose.z / WARP_MM)
        };
        interpolate(size, &pose, WARP_STEP_MM, &mut points, |x, y| Point {
            x: x + offset(pose.warp_seed, x, y),
            y: y + offset(pose.warp_seed ^ 0x0f0f_1234, x, y),
            grain: 0.0,
        });
        let mut grains = vec![Point::default(); size * size];
        interpolate(size, &pose, GRAIN_STEP_MM, &mut grains, |x, y| Point {
            grain: noise::value(pose.grain_seed, x / GRAIN_MM, y / GRAIN_MM, pose.z / GRAIN_MM),
            ..Point::default()
        });
        points.iter_mut().zip(&grains).for_each(|(point, grain)| point.grain = grain.grain);
        Self { size, pose, hu: vec![-1000.0; size * size], lesion: vec![0.0; size * size], points }
    }

    /// Blends `colour(point, distance)` over the shape by the share of each pixel that it covers.
    pub(super) fn paint(
        &mut self,
        bounds: Bounds,
        distance: impl Fn(Point) -> f32,
        colour: impl Fn(Point, f32) -> f32,
    ) {
        self.visit(bounds, distance, |canvas, index, share, depth| {
            let hu = colour(canvas.points[index], depth);
            canvas.hu[index] += (hu - canvas.hu[index]) * share;
            canvas.lesion[index] *= 1.0 - share;
        });
    }

    /// As [`Self::paint`], and the pixels become part of the lesion.
    pub(super) fn paint_lesion(
        &mut self,
        bounds: Bounds,
        distance: impl Fn(Point) -> f32,
        colour: impl Fn(Point, f32) -> f32,
    ) {
        self.visit(bounds, distance, |canvas, index, share, depth| {
            let hu = colour(canvas.points[index], depth);
            canvas.hu[index] += (hu - canvas.hu[index]) * share;
            canvas.lesion[index] = canvas.lesion[index].max(share);
        });
    }

    fn visit(
        &mut self,
        bounds: Bounds,
        distance: impl Fn(Point) -> f32,
        mut each: impl FnMut(&mut Self, usize, f32, f32),
    ) {
        let (columns, rows) = self.pixels(bounds);
        for row in rows {
            for index in row * self.size + columns.start..row * self.size + columns.end {
                let depth = distance(self.points[index]);
                let share = (0.5 - depth / self.pose.spacing).min(1.0);
                if share > 0.0 {
                    each(self, index, share, depth);
                }
            }
        }
    }

    /// The columns and rows that may show something within `bounds`.
    fn pixels(&self, bounds: Bounds) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let grown = bounds.grown(self.pose.warp + self.pose.spacing);
        let corners = [
            (grown.left, grown.top),
            (grown.right, grown.top),
            (grown.left, grown.bottom),
            (grown.right, grown.bottom),
        ]
        .map(|(x, y)| self.pose.pixel(self.size, x, y));
        let range = |values: [f32; 4]| {
            let low = values.iter().copied().fold(f32::INFINITY, f32::min).floor().max(0.0);
            let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max).ceil() + 1.0;
            let end = (high.max(0.0) as usize).min(self.size);
            (low as usize).min(end)..end
        };
        (range(corners.map(|c| c.0)), range(corners.map(|c| c.1)))
    }
}

/// Fills `points` from knots that lie `step_mm` apart, linearly between them.
fn interpolate(
    size: usize,
    pose: &Pose,
    step_mm: f32,
    points: &mut [Point],
    sample: impl Fn(f32, f32) -> Point,
) {
    let step = ((step_mm / pose.spacing) as usize).max(1);
    let knots = (size - 1) / step + 2;
    let line = |row: usize| -> Vec<Point> {
        (0..knots)
            .map(|column| pose.patient(size, (column * step) as f32, (row * step) as f32))
            .map(|(x, y)| sample(x, y))
            .collect()
    };
    let mut upper = line(0);
    for band in 0..knots - 1 {
        let lower = line(band + 1);
        for row in band * step..((band + 1) * step).min(size) {
            let t = (row - band * step) as f32 / step as f32;
            let mixed: Vec<Point> = upper.iter().zip(&lower).map(|(a, b)| blend(*a, *b, t)).collect();
            for (column, point) in points[row * size..(row + 1) * size].iter_mut().enumerate() {
                let (knot, rest) = (column / step, column % step);
                *point = blend(mixed[knot], mixed[knot + 1], rest as f32 / step as f32);
            }
        }
        upper = lower;
    }
}

fn blend(from: Point, to: Point, t: f32) -> Point {
    Point {
        x: from.x + (to.x - from.x) * t,
        y: from.y + (to.y - from.y) * t,
        grain: from.grain + (to.grain - from.grain) * t,
    }
}
