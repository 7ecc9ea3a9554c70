//! Skin, fat and muscle: the trunk around the organs.

use super::{
    canvas::Canvas,
    draw::Draw,
    shape::{Ellipse, Trunk, smoothstep},
    tissue::Tissues,
};

/// The trunk, in millimetres from the centre of the vertebral body.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// Size of the skeleton, 1 for the average adult.
    pub(super) scale: f32,
    /// From the vertebral body's centre to the front of the abdominal cavity.
    pub(super) depth: f32,
    cavity: Trunk,
    /// Thickness of the muscle at the sides and in front.
    wall: (f32, f32),
    /// Thickness of the subcutaneous fat at the sides, in front and at the back.
    fat: (f32, f32, f32),
    /// Growth of the width per millimetre towards the head.
    taper: f32,
    /// How far the front moves with the breath, its wavelength in slices, and where it starts.
    breath: (f32, f32, f32),
    psoas: f32,
}

/// Outlines of the trunk at one level, outermost first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layers {
    pub(super) skin: Trunk,
    fat: Trunk,
    pub(super) wall: Trunk,
    pub(super) cavity: Trunk,
}

const SKIN_MM: f32 = 2.2;
/// From the vertebral body's centre to the back of the cavity and of the back muscles.
const CAVITY_BACK_MM: f32 = 45.0;
const MUSCLE_BACK_MM: f32 = 67.0;

impl Body {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let scale = draw.bell(0.86, 1.14);
        // Lean to obese; visceral and subcutaneous fat go together loosely.
        let obesity = draw.unit() * draw.unit().max(0.25);
        let visceral = (obesity + draw.bell(-0.2, 0.2)).clamp(0.0, 1.0);
        let depth = scale * (86.0 + 60.0 * visceral + draw.bell(-8.0, 8.0));
        let half_width = scale * (114.0 + 30.0 * visceral + draw.bell(-7.0, 7.0));
        let thick = 5.0 + 30.0 * obesity;
        Self {
            scale,
            depth,
            cavity: Trunk { half_width, top: -depth, bottom: CAVITY_BACK_MM * scale },
            wall: (draw.bell(8.0, 17.0), draw.bell(5.0, 11.0)),
            fat: (
                thick * draw.bell(0.7, 1.2),
                thick * draw.bell(0.6, 1.5),
                thick * draw.bell(0.8, 1.6) + 3.0,
            ),
            taper: draw.bell(-0.0005, 0.0005),
            breath: (draw.bell(0.0, 3.0), draw.uniform(14.0, 40.0), draw.angle()),
            psoas: scale * draw.bell(0.8, 1.2),
        }
    }

    /// Half of the width over the skin.
    pub(super) fn half_width(&self) -> f32 {
        self.cavity.half_width + self.wall.0 + self.fat.0 + SKIN_MM
    }

    /// Top and bottom of the skin.
    pub(super) fn extent(&self) -> (f32, f32) {
        let skin = self.layers(0.0, 0).skin;
        (skin.top, skin.bottom)
    }

    /// Half of the width of the abdominal cavity.
    pub(super) fn cavity_half_width(&self) -> f32 {
        self.cavity.half_width
    }

    pub(super) fn layers(&self, z: f32, index: usize) -> Layers {
        let (amplitude, period, start) = self.breath;
        let breath = amplitude * (std::f32::consts::TAU * index as f32 / period + start).sin();
        let cavity = Trunk {
            half_width: self.cavity.half_width * (1.0 + self.taper * z),
            top: self.cavity.top - breath,
            bottom: self.cavity.bottom,
        };
        let back = (MUSCLE_BACK_MM - CAVITY_BACK_MM) * self.scale;
        let wall = cavity.inset(-self.wall.0, -self.wall.1, -back);
        let fat = wall.inset(-self.fat.0, -self.fat.1, -self.fat.2);
        let skin = fat.inset(-SKIN_MM, -SKIN_MM, -SKIN_MM);
        Layers { skin, fat, wall, cavity }
    }

    /// Paints the trunk with its fat, wall and back muscles, but no organ.
    pub(super) fn paint(&self, canvas: &mut Canvas, layers: &Layers, tissues: &Tissues) {
        let Tissues { fat, muscle, .. } = *tissues;
        let of = |trunk: Trunk| move |p: super::canvas::Point| trunk.distance(p.x, p.y);
        canvas.paint(layers.skin.bounds(), of(layers.skin), |_, _| 15.0);
        canvas.paint(layers.fat.bounds(), of(layers.fat), |p, _| fat + 6.0 * p.grain);
        canvas.paint(layers.cavity.bounds(), of(layers.cavity), |p, _| fat + 7.0 * p.grain);
        let ring = |p: super::canvas::Point| {
            layers.wall.distance(p.x, p.y).max(-layers.cavity.distance(p.x, p.y))
        };
        canvas.paint(layers.wall.bounds(), ring, |p, _| {
            let (within, depth) = (layers.cavity.distance(p.x, p.y), layers.wall.distance(p.x, p.y));
            muscle + 9.0 * p.grain + (fat - muscle) * Self::gap(p.x, p.y, within, depth)
        });
        self.paint_back(canvas, tissues);
        self.paint_psoas(canvas, tissues);
    }

    /// Share of fat between the layers of the wall: two planes between the oblique muscles at the
    /// sides, and the midline in front.
    fn gap(x: f32, y: f32, from_cavity: f32, from_fat: f32) -> f32 {
        let part = from_cavity / (from_cavity - from_fat).max(0.1);
        let plane = |at: f32| 1.0 - smoothstep(0.0, 0.07, (part - at).abs());
        let side = smoothstep(30.0, 50.0, x.abs()) * (1.0 - smoothstep(-5.0, 20.0, y));
        let midline = if y < 0.0 { 1.0 - smoothstep(1.0, 4.0, x.abs()) } else { 0.0 };
        (0.55 * side * plane(0.36).max(plane(0.7))).max(0.7 * midline)
    }

    /// The back muscles, each in a sheath of fat.
    fn paint_back(&self, canvas: &mut Canvas, tissues: &Tissues) {
        let s = self.scale;
        for side in [-1.0, 1.0] {
            let quadratus = Ellipse::new(side * 56.0 * s, 29.0 * s, 19.0 * s, 8.5 * s).turned(side * -0.45);
            let erector = Ellipse::new(side * 37.0 * s, 48.0 * s, 31.0 * s, 17.5 * s).turned(side * -0.12);
            let multifidus = Ellipse::new(side * 12.5 * s, 45.0 * s, 11.5 * s, 18.0 * s);
            for muscle in [quadratus, erector, multifidus] {
                let sheath = muscle.bounds().grown(2.0);
                canvas.paint(
                    sheath,
                    |p| muscle.distance(p.x, p.y) - 1.1,
                    |p, _| tissues.fat + 55.0 + 25.0 * p.grain,
                );
                canvas.paint(
                    muscle.bounds(),
                    |p| muscle.distance(p.x, p.y),
                    |p, _| tissues.muscle + 12.0 * p.grain - 14.0 * p.grain.max(0.0),
                );
            }
        }
    }

    /// Psoas, thicker towards the feet.
    fn paint_psoas(&self, canvas: &mut Canvas, tissues: &Tissues) {
        let s = self.scale;
        let girth = self.psoas * smoothstep(75.0, -110.0, canvas.pose.z);
        if girth < 0.12 {
            return;
        }
        for side in [-1.0, 1.0] {
            let psoas = Ellipse::new(side * (26.0 + 10.0 * girth) * s, 12.0 * s, 17.0 * girth, 24.0 * girth)
                .turned(side * -0.25);
            canvas.paint(
                psoas.bounds(),
                |p| psoas.distance(p.x, p.y),
                |p, _| tissues.muscle + 9.0 * p.grain,
            );
        }
    }
}
