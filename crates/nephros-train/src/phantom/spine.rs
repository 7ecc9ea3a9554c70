//! Vertebrae and ribs.

use super::{
    body::{Body, Layers},
    canvas::{Canvas, Point},
    draw::Draw,
    shape::{Capsule, Ellipse, smoothstep},
    tissue::Tissues,
};

/// The skeleton of one patient.
#[derive(Debug, Clone)]
pub(super) struct Spine {
    scale: f32,
    /// Height of a vertebra with its disc.
    pitch: f32,
    /// Level of one disc.
    disc: f32,
    /// Height of a disc.
    gap: f32,
    spinous: f32,
    /// Level at which the lowest rib leaves its vertebra.
    lowest_rib: f32,
    /// Turn of a rib about the trunk per millimetre of descent.
    rib_slope: f32,
}

const CORTEX_MM: f32 = 1.5;

impl Spine {
    pub(super) fn draw(draw: &mut Draw, body: &Body) -> Self {
        let pitch = body.scale * draw.bell(33.0, 39.0);
        Self {
            scale: body.scale * draw.bell(0.94, 1.06),
            pitch,
            disc: draw.uniform(0.0, pitch),
            gap: draw.bell(7.0, 11.0),
            spinous: draw.bell(18.0, 26.0),
            lowest_rib: draw.uniform(20.0, 60.0),
            rib_slope: draw.bell(0.013, 0.019),
        }
    }

    pub(super) fn paint(&self, canvas: &mut Canvas, layers: &Layers, tissues: &Tissues) {
        self.paint_ribs(canvas, layers, tissues);
        // 0 in the middle of a disc, 1 in the middle of a vertebral body.
        let phase = ((canvas.pose.z - self.disc) / self.pitch).rem_euclid(1.0);
        let from_disc = phase.min(1.0 - phase) * self.pitch;
        self.paint_arch(canvas, phase, tissues);
        self.paint_body(canvas, from_disc, tissues);
    }

    fn paint_body(&self, canvas: &mut Canvas, from_disc: f32, tissues: &Tissues) {
        let s = self.scale;
        let waist = 1.0 - 0.08 * smoothstep(self.gap / 2.0, self.pitch / 2.0, from_disc);
        let body = Ellipse::new(0.0, 0.0, 24.0 * s, 17.0 * s).scaled(waist);
        let hollow = Ellipse::new(0.0, 25.0 * s, 14.0 * s, 10.5 * s);
        let bone = smoothstep(self.gap / 2.0 - 1.0, self.gap / 2.0 + 1.0, from_disc);
        let endplate = bone * (1.0 - smoothstep(self.gap / 2.0 + 1.0, self.gap / 2.0 + 4.0, from_disc));
        let Tissues { marrow, bone: cortex, .. } = *tissues;
        let distance = |p: Point| body.distance(p.x, p.y).max(-hollow.distance(p.x, p.y));
        canvas.paint(body.bounds(), distance, |p, depth| {
            let shell = smoothstep(-CORTEX_MM - 1.0, -CORTEX_MM, depth).max(0.6 * endplate);
            let inside = marrow + 45.0 * p.grain + (cortex - marrow) * shell;
            90.0 + 6.0 * p.grain + (inside - 90.0) * bone
        });
    }

    /// Pedicles, laminae, processes and the canal.
    fn paint_arch(&self, canvas: &mut Canvas, phase: f32, tissues: &Tissues) {
        let s = self.scale;
        let line = |from: (f32, f32), to: (f32, f32), radius: f32| Capsule {
            from: (from.0 * s, from.1 * s),
            to: (to.0 * s, to.1 * s),
            radius: radius * s,
        };
        // Pedicles and transverse processes leave the upper half of the vertebra, the spinous
        // process the lower half; facet joints bridge the disc.
        let upper = smoothstep(0.45, 0.55, phase) * (1.0 - smoothstep(0.82, 0.9, phase));
        let lower = 1.0 - smoothstep(0.55, 0.75, phase) * (1.0 - smoothstep(0.92, 1.0, phase));
        let canal = Ellipse::new(0.0, 25.0 * s, 11.5 * s, 9.0 * s);
        canvas.paint(
            canal.bounds().grown(3.0),
            |p| canal.distance(p.x, p.y) - 2.5,
            |p, _| tissues.fat + 80.0 + 5.0 * p.grain,
        );
        for side in [-1.0, 1.0] {
            Self::bone(canvas, line((side * 16.0, 32.0), (side * 4.0, 38.0), 2.9), tissues, 0.95);
            Self::bone(canvas, line((side * 18.0, 29.0), (side * 17.0, 33.0), 6.0), tissues, 0.85);
            if upper > 0.05 {
                Self::bone(canvas, line((side * 15.0, 10.0), (side * 16.0, 26.0), 4.5 * upper), tissues, 0.9);
                let tip = (side * (22.0 + 20.0 * upper), 31.0);
                Self::bone(canvas, line((side * 18.0, 28.0), tip, 2.5 * upper), tissues, 0.7);
            }
        }
        if lower > 0.05 {
            let tip = (0.0, 40.0 + self.spinous * lower);
            Self::bone(canvas, line((0.0, 39.0), tip, 2.9), tissues, 0.9);
        }
        canvas.paint(canal.bounds(), |p| canal.distance(p.x, p.y), |p, depth| {
            let sac = smoothstep(-1.0, -2.5, depth);
            tissues.fat + 60.0 + (30.0 + 4.0 * p.grain - tissues.fat - 60.0) * sac
        });
    }

    /// One bony bar with a dense rind.
    fn bone(canvas: &mut Canvas, bar: Capsule, tissues: &Tissues, density: f32) {
        let Tissues { marrow, bone, .. } = *tissues;
        canvas.paint(
            bar.bounds(),
            |p| bar.distance(p.x, p.y),
            |p, depth| {
                let shell = smoothstep(-CORTEX_MM - 1.2, -CORTEX_MM + 0.2, depth);
                (marrow + 30.0 * p.grain + (bone - marrow) * shell) * density + 60.0 * (1.0 - density)
            },
        );
    }

    /// The ribs that cross this level, each further to the front the higher it left the spine.
    fn paint_ribs(&self, canvas: &mut Canvas, layers: &Layers, tissues: &Tissues) {
        let middle = layers.wall.inset(5.0, 4.0, 14.0);
        for rib in 0..7_u8 {
            let descent = self.lowest_rib + f32::from(rib) * self.pitch - canvas.pose.z;
            let angle = 0.62 + descent * self.rib_slope;
            let tip = if rib == 0 { 1.15 } else { 1.55 + 0.12 * f32::from(rib) };
            if descent < 0.0 || angle > tip {
                continue;
            }
            for side in [-1.0, 1.0] {
                let from = middle.point(side * (angle - 0.045));
                let to = middle.point(side * (angle + 0.045));
                let bar = Capsule { from, to, radius: 3.6 * self.scale };
                Self::bone(canvas, bar, tissues, 0.95);
            }
        }
    }
}
