//! Kidneys: cortex, medullary pyramids, sinus fat, vessels and pelvis.

use super::{
    body::Body,
    canvas::{Canvas, Point},
    draw::Draw,
    lesion::Mass,
    noise,
    shape::{Ellipse, smooth_union, smoothstep},
    tissue::Tissues,
};

/// One kidney, an ellipsoid along z with a hilum.
#[derive(Debug, Clone)]
pub(super) struct Kidney {
    /// Centre.
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) z: f32,
    /// Half axes: across the hilum, through the hilum, along the body.
    pub(super) half: (f32, f32, f32),
    /// Direction of the hilum, in radians from x towards y.
    pub(super) hilum: f32,
    /// Displacement across the body per millimetre towards the head: upper poles lie nearer to the
    /// spine and further back.
    lean: (f32, f32),
    sinus: f32,
    pelvis: f32,
    cortex_mm: f32,
    fat_mm: f32,
    seed: u32,
}

impl Kidney {
    /// The kidney on the image's left (`side` −1) or right (1).
    pub(super) fn draw(draw: &mut Draw, body: &Body, side: f32) -> Self {
        let s = body.scale * draw.bell(0.85, 1.15);
        let turn = draw.bell(0.25, 1.0);
        let lower = if side < 0.0 { draw.bell(-22.0, 2.0) } else { draw.bell(-8.0, 12.0) };
        Self {
            x: side * (0.33 * body.cavity_half_width() + draw.bell(20.0, 30.0)),
            y: draw.bell(-12.0, 5.0),
            z: lower,
            half: (s * draw.bell(26.0, 33.0), s * draw.bell(22.0, 28.0), s * draw.bell(48.0, 62.0)),
            hilum: if side < 0.0 { -turn } else { std::f32::consts::PI + turn },
            lean: (-side * draw.bell(0.05, 0.25), draw.bell(0.02, 0.16)),
            sinus: draw.bell(0.75, 1.2),
            pelvis: draw.bell(0.6, 1.3),
            cortex_mm: draw.bell(5.0, 8.0),
            fat_mm: draw.bell(1.0, 9.0),
            seed: draw.bits(),
        }
    }

    /// Centre of the section at a level.
    pub(super) fn centre(&self, z: f32) -> (f32, f32) {
        let rise = z - self.z;
        (self.x + self.lean.0 * rise, self.y + self.lean.1 * rise)
    }

    /// The outline at a level, its second axis along the hilum; `None` beyond the poles.
    pub(super) fn section(&self, z: f32) -> Option<Ellipse> {
        let height = (z - self.z) / self.half.2;
        let scale = (1.0 - height * height).max(0.0).sqrt();
        let (x, y) = self.centre(z);
        let across = self.hilum - std::f32::consts::FRAC_PI_2;
        (scale > 0.08).then(|| Ellipse::new(x, y, self.half.0, self.half.1).scaled(scale).turned(across))
    }

    /// The sinus at a level, opening towards the hilum.
    fn sinus(&self, z: f32) -> Option<Ellipse> {
        let height = (z - self.z) / (0.6 * self.half.2);
        let scale = self.sinus * (1.0 - height * height).max(0.0).sqrt();
        let (x, y) = self.centre(z);
        let forward = 0.55 * self.half.1;
        let (cx, cy) = (x + forward * self.hilum.cos(), y + forward * self.hilum.sin());
        let across = self.hilum - std::f32::consts::FRAC_PI_2;
        (scale > 0.1).then(|| {
            Ellipse::new(cx, cy, 0.44 * self.half.0, 0.68 * self.half.1).scaled(scale).turned(across)
        })
    }

    /// Paints the kidney in its fat, its outline pushed out by `mass` if that sits on it.
    /// `wall` is the distance to the abdominal wall, which nothing crosses.
    pub(super) fn paint(
        &self,
        canvas: &mut Canvas,
        tissues: &Tissues,
        mass: Option<&Mass>,
        wall: impl Fn(Point) -> f32,
    ) {
        let z = canvas.pose.z;
        let section = self.section(z);
        let bounds = match (&section, mass) {
            (Some(kidney), Some(mass)) => kidney.bounds().union(mass.bounds()).grown(4.0),
            (Some(kidney), None) => kidney.bounds(),
            (None, Some(mass)) => mass.bounds(),
            (None, None) => return,
        };
        let outline = |p: Point| {
            let kidney = section.as_ref().map(|s| s.distance(p.x, p.y));
            let distance = match (kidney, mass) {
                (Some(kidney), Some(mass)) => smooth_union(kidney, mass.distance(p), mass.fillet()),
                (Some(kidney), None) => kidney,
                (None, Some(mass)) => mass.distance(p),
                (None, None) => f32::INFINITY,
            };
            distance.max(wall(p) + 1.0)
        };
        let fat = self.fat_mm * section.map_or(0.4, |s| (s.a / self.half.0).max(0.4));
        canvas.paint(
            bounds.grown(fat),
            |p| (outline(p) - fat).max(wall(p) + 1.0),
            |p, _| tissues.fat + 6.0 * p.grain,
        );
        canvas.paint(bounds, outline, |p, depth| self.parenchyma(p, -depth, z, tissues));
        if let Some(sinus) = self.sinus(z) {
            self.paint_sinus(canvas, sinus, tissues);
        }
    }

    /// Cortex outside, pyramids inside it with cortical columns between them.
    fn parenchyma(&self, p: Point, depth: f32, z: f32, tissues: &Tissues) -> f32 {
        let (cx, cy) = self.centre(z);
        let (dx, dy, dz) = (p.x - cx, p.y - cy, 0.45 * (z - self.z));
        let reach = (dx * dx + dy * dy + dz * dz).sqrt().max(1.0) / 3.1;
        let lobe = noise::value(self.seed, dx / reach, dy / reach, dz / reach);
        let inside = smoothstep(self.cortex_mm - 1.0, self.cortex_mm + 1.5, depth + 2.0 * p.grain);
        let pyramid = inside * smoothstep(-0.4, -0.1, lobe);
        tissues.cortex + (tissues.medulla - tissues.cortex) * pyramid + 5.0 * p.grain
    }

    /// Fat with branches of vessels and the collecting system.
    fn paint_sinus(&self, canvas: &mut Canvas, sinus: Ellipse, tissues: &Tissues) {
        let z = canvas.pose.z;
        let vessel = tissues.cava;
        canvas.paint(
            sinus.bounds(),
            |p| sinus.distance(p.x, p.y) + 1.5 * noise::value(self.seed ^ 0x51, p.x / 5.0, p.y / 5.0, z / 6.0),
            |p, depth| {
                let branch = noise::value(self.seed ^ 0x77, p.x / 6.0, p.y / 6.0, z / 8.0);
                let tube = noise::value(self.seed ^ 0x99, p.x / 8.0, p.y / 8.0, z / 10.0);
                let vessels = smoothstep(0.22, 0.38, branch);
                let calyx = smoothstep(0.42 - 0.25 * self.pelvis, 0.6 - 0.25 * self.pelvis, tube)
                    * smoothstep(0.0, -2.0, depth);
                let soft = tissues.fat + 25.0 + (vessel - tissues.fat - 25.0) * vessels;
                soft + (tissues.urine - soft) * calyx
            },
        );
    }
}
