//! Aorta, vena cava, renal vessels and the mesentery.

use super::{
    canvas::Canvas,
    body::Body,
    draw::Draw,
    kidney::Kidney,
    shape::{Capsule, Ellipse},
    tissue::Tissues,
};

/// The vessels of one patient.
#[derive(Debug, Clone)]
pub(super) struct Vessels {
    aorta: (f32, f32, f32),
    /// Centre, half width and flatness of the vena cava.
    cava: (f32, f32, f32, f32),
    /// Thickness of the plaque in the aortic wall, 0 for none, and its direction.
    plaque: (f32, f32),
    /// Level of the renal veins above the kidneys' middle.
    renal: [f32; 2],
    mesentery: Vec<Branch>,
}

/// A small vessel that runs along the body with a slant.
#[derive(Debug, Clone, Copy)]
struct Branch {
    centre: (f32, f32),
    slant: (f32, f32),
    along: (f32, f32),
    radius: f32,
    arterial: bool,
    levels: (f32, f32),
}

impl Vessels {
    pub(super) fn draw(draw: &mut Draw, body: &Body) -> Self {
        let s = body.scale;
        let radius = draw.bell(7.5, 12.5);
        let front = -(17.0 * s + radius + draw.bell(1.0, 4.0));
        let cava_width = draw.bell(9.0, 15.0);
        let plaque = if draw.chance(0.3) { draw.bell(0.5, 2.5) } else { 0.0 };
        let count = 14 + (draw.unit() * 22.0) as usize;
        Self {
            aorta: (draw.bell(1.0, 11.0), front, radius),
            cava: (-draw.bell(15.0, 24.0), -(17.0 * s + draw.bell(5.0, 10.0)), cava_width, draw.bell(0.5, 0.95)),
            plaque: (plaque, draw.angle()),
            renal: [draw.bell(-10.0, 14.0), draw.bell(-10.0, 14.0)],
            mesentery: (0..count).map(|_| Branch::draw(draw, body)).collect(),
        }
    }

    /// Paints the small vessels of the mesentery, below the bowel.
    pub(super) fn paint_mesentery(&self, canvas: &mut Canvas, tissues: &Tissues) {
        let z = canvas.pose.z;
        for branch in &self.mesentery {
            let (low, high) = branch.levels;
            if z < low || z > high {
                continue;
            }
            let rise = z - low;
            let from = (branch.centre.0 + branch.slant.0 * rise, branch.centre.1 + branch.slant.1 * rise);
            let to = (from.0 + branch.along.0, from.1 + branch.along.1);
            let vessel = Capsule { from, to, radius: branch.radius };
            let hu = if branch.arterial { tissues.aorta } else { tissues.portal };
            canvas.paint(vessel.bounds(), |p| vessel.distance(p.x, p.y), |_, _| hu);
        }
    }

    /// Paints the great vessels and those of the kidneys.
    pub(super) fn paint(&self, canvas: &mut Canvas, kidneys: &[Kidney; 2], tissues: &Tissues) {
        let (x, y, radius) = self.aorta;
        let (cx, cy, width, flat) = self.cava;
        for (index, kidney) in kidneys.iter().enumerate() {
            let level = canvas.pose.z - kidney.z - self.renal[index];
            let (kx, ky) = kidney.centre(canvas.pose.z);
            let forward = 0.8 * kidney.half.1;
            let hilum = (kx + forward * kidney.hilum.cos(), ky + forward * kidney.hilum.sin());
            // The left renal vein passes in front of the aorta on its way to the vena cava.
            let vein_end = if index == 0 { (cx, cy) } else { (x, y - radius - 2.5) };
            Self::tube(canvas, hilum, vein_end, 5.0, level, tissues.cava);
            if index == 1 {
                Self::tube(canvas, vein_end, (cx, cy), 4.5, level, tissues.cava);
            }
            Self::tube(canvas, hilum, (x, y), 3.0, level + 9.0, tissues.aorta);
        }
        let cava = Ellipse::new(cx, cy, width, width * flat).turned(0.2);
        canvas.paint(cava.bounds(), |p| cava.distance(p.x, p.y), |p, _| tissues.cava + 6.0 * p.grain);
        self.paint_aorta(canvas, tissues);
    }

    fn paint_aorta(&self, canvas: &mut Canvas, tissues: &Tissues) {
        let (x, y, radius) = self.aorta;
        let aorta = Ellipse::circle(x, y, radius);
        let (thick, direction) = self.plaque;
        let (sin, cos) = (direction.sin(), direction.cos());
        let plaque = thick * (1.0 + (canvas.pose.z / 9.0 + direction).sin()) / 2.0;
        canvas.paint(aorta.bounds(), |p| aorta.distance(p.x, p.y), |p, depth| {
            let facing = ((p.x - x) * cos + (p.y - y) * sin) / radius;
            if facing > 0.55 && depth > -plaque { 620.0 } else { tissues.aorta + 3.0 * p.grain }
        });
        let artery = Ellipse::circle(x - 2.0, y - radius - 11.0, 3.6);
        canvas.paint(artery.bounds(), |p| artery.distance(p.x, p.y), |_, _| tissues.aorta);
        let vein = Ellipse::circle(x - 14.0, y - radius - 12.0, 5.4);
        canvas.paint(vein.bounds(), |p| vein.distance(p.x, p.y), |_, _| tissues.portal);
    }

    /// A vessel across the body, `level` millimetres from its axis.
    fn tube(canvas: &mut Canvas, from: (f32, f32), to: (f32, f32), radius: f32, level: f32, hu: f32) {
        let half = radius * radius - level * level;
        if half > 0.5 {
            let vessel = Capsule { from, to, radius: half.sqrt() };
            canvas.paint(vessel.bounds(), |p| vessel.distance(p.x, p.y), |p, _| hu + 4.0 * p.grain);
        }
    }
}

impl Branch {
    fn draw(draw: &mut Draw, body: &Body) -> Self {
        let (a, d) = (body.cavity_half_width(), body.depth);
        let (angle, length) = (draw.angle(), draw.uniform(0.0, 12.0));
        let low = draw.uniform(-110.0, 60.0);
        Self {
            centre: (a * draw.bell(-0.5, 0.6), d * draw.uniform(-0.75, -0.4)),
            slant: (draw.bell(-0.8, 0.8), draw.bell(-0.4, 0.4)),
            along: (length * angle.cos(), length * angle.sin()),
            radius: draw.uniform(1.0, 2.8),
            arterial: draw.chance(0.4),
            levels: (low, low + draw.uniform(15.0, 50.0)),
        }
    }
}
