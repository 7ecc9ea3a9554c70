//! Liver, spleen, pancreas and bowel.

use super::{
    body::Body,
    canvas::{Canvas, Point},
    draw::Draw,
    noise,
    shape::{Ellipse, smooth_union, smoothstep},
    tissue::{Phase, Tissues},
};

/// The organs of the abdominal cavity in front of the kidneys.
#[derive(Debug, Clone)]
pub(super) struct Viscera {
    half_width: f32,
    depth: f32,
    /// Levels of the liver's lower tip and of the spleen's middle.
    liver_tip: f32,
    spleen: (f32, f32, f32),
    liver: (f32, f32),
    pancreas: (f32, f32),
    mottled: f32,
    loops: Vec<Loop>,
    seed: u32,
}

/// A stretch of stomach or bowel that winds along the body.
#[derive(Debug, Clone, Copy)]
struct Loop {
    centre: (f32, f32),
    half: (f32, f32),
    turn: f32,
    /// Amplitude, wavelength and start of its winding.
    winding: (f32, f32, f32),
    /// Lowest and highest level.
    levels: (f32, f32),
    wall_mm: f32,
    content: Content,
    seed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Collapsed,
    Fluid,
    /// Gas above fluid; the share of the height that is gas, −1 to 1.
    Gas(f32),
    Stool,
    /// Swallowed contrast agent of this many Hounsfield units.
    Contrast(f32),
}

impl Viscera {
    pub(super) fn draw(draw: &mut Draw, body: &Body, phase: Phase) -> Self {
        let (a, d) = (body.cavity_half_width(), body.depth);
        let swallowed = draw.chance(0.25).then(|| draw.uniform(150.0, 380.0));
        let mut loops = Self::draw_colon(draw, a, d);
        loops.extend(Self::draw_small_bowel(draw, a, d, swallowed));
        Self {
            half_width: a,
            depth: d,
            liver_tip: draw.bell(-75.0, 15.0),
            spleen: (draw.bell(40.0, 85.0), draw.bell(45.0, 70.0), draw.bell(18.0, 30.0)),
            liver: (draw.bell(0.85, 1.15), draw.bell(0.85, 1.15)),
            pancreas: (draw.bell(-0.15, 0.2), draw.bell(7.0, 12.0)),
            mottled: if phase == Phase::Corticomedullary { draw.bell(5.0, 45.0) } else { 2.0 },
            loops,
            seed: draw.bits(),
        }
    }

    fn draw_colon(draw: &mut Draw, a: f32, d: f32) -> Vec<Loop> {
        let stool = |draw: &mut Draw| match draw.unit() {
            u if u < 0.55 => Content::Stool,
            u if u < 0.85 => Content::Gas(draw.uniform(-0.6, 0.8)),
            _ => Content::Collapsed,
        };
        let mut colon = Vec::new();
        let mut add = |draw: &mut Draw, x: f32, y: f32, half: (f32, f32), levels: (f32, f32)| {
            colon.push(Loop {
                centre: (x * a, y * d),
                half,
                turn: draw.bell(-0.5, 0.5),
                winding: (draw.bell(1.0, 8.0), draw.uniform(30.0, 70.0), draw.angle()),
                levels,
                wall_mm: draw.bell(1.2, 2.6),
                content: stool(draw),
                seed: draw.bits(),
            });
        };
        let (up, down) = (draw.bell(15.0, 27.0), draw.bell(8.0, 19.0));
        let (ax, ay) = (draw.bell(-0.78, -0.58), draw.bell(-0.45, -0.15));
        let top = draw.bell(-40.0, 60.0);
        add(draw, ax, ay, (up, up * 1.1), (-300.0, top));
        let (dx, dy) = (draw.bell(0.78, 0.9), draw.bell(-0.3, 0.05));
        add(draw, dx, dy, (down, down * 1.1), (-300.0, 95.0));
        let hang = draw.bell(-110.0, -10.0);
        for part in 0..4_u8 {
            let x = -0.45 + 0.28 * f32::from(part) + draw.bell(-0.08, 0.08);
            let sag = 25.0 * (f32::from(part) - 1.5).abs();
            let y = draw.bell(-0.82, -0.68);
            let half = (draw.bell(18.0, 30.0), draw.bell(11.0, 20.0));
            let low = hang + sag;
            let high = low + draw.uniform(60.0, 130.0);
            add(draw, x, y, half, (low, high));
        }
        colon
    }

    fn draw_small_bowel(draw: &mut Draw, a: f32, d: f32, swallowed: Option<f32>) -> Vec<Loop> {
        let mut loops = Vec::new();
        let count = 18 + (draw.unit() * 16.0) as usize;
        for turn in 0..=count {
            let stomach = turn == count;
            let content = match (draw.unit(), swallowed) {
                (u, Some(hu)) if u < 0.6 => Content::Contrast(hu * draw.uniform(0.7, 1.1)),
                (u, _) if u < 0.35 => Content::Collapsed,
                (u, _) if u < 0.8 => Content::Fluid,
                _ => Content::Gas(draw.uniform(-0.7, 0.5)),
            };
            let radius = draw.bell(6.5, 15.0);
            let (x, y) = (draw.uniform(-0.45, 0.76), draw.uniform(-0.76, -0.3));
            let low = draw.uniform(-140.0, 30.0);
            let (wide, high) = (draw.bell(32.0, 48.0), draw.bell(20.0, 32.0));
            let bottom = draw.bell(-40.0, 50.0);
            loops.push(Loop {
                centre: if stomach { (0.42 * a, -0.66 * d) } else { (x * a, y * d) },
                half: if stomach { (wide, high) } else { (radius * draw.bell(1.0, 2.2), radius) },
                turn: if stomach { -0.35 } else { draw.angle() },
                winding: (draw.bell(2.0, 14.0), draw.uniform(35.0, 80.0), draw.angle()),
                levels: if stomach { (bottom, 300.0) } else { (low, low + draw.uniform(50.0, 140.0)) },
                wall_mm: draw.bell(1.8, 3.4) + if stomach { 2.0 } else { 0.0 },
                content,
                seed: draw.bits(),
            });
        }
        loops
    }

    /// Paints bowel, pancreas, liver and spleen; `wall` is the distance to the abdominal wall.
    pub(super) fn paint(&self, canvas: &mut Canvas, tissues: &Tissues, wall: impl Fn(Point) -> f32 + Copy) {
        for bowel in &self.loops {
            bowel.paint(canvas, tissues, wall);
        }
        self.paint_pancreas(canvas, tissues);
        self.paint_liver(canvas, tissues, wall);
        self.paint_spleen(canvas, tissues, wall);
    }

    fn paint_pancreas(&self, canvas: &mut Canvas, tissues: &Tissues) {
        let z = canvas.pose.z;
        let (a, d) = (self.half_width, self.depth);
        let (turn, thick) = self.pancreas;
        // The head lies lower than the tail.
        let x = 0.02 * a + 0.35 * z.clamp(-35.0, 60.0);
        let size = smoothstep(-60.0, -25.0, z) * smoothstep(80.0, 45.0, z);
        if size < 0.15 {
            return;
        }
        let gland = Ellipse::new(x, -0.40 * d, 38.0 * size, thick * size).turned(turn - 0.25);
        canvas.paint(
            gland.bounds().grown(3.0),
            |p| gland.distance(p.x, p.y) + 3.0 * noise::value(self.seed ^ 3, p.x / 7.0, p.y / 7.0, z / 9.0),
            |p, _| tissues.pancreas + 14.0 * p.grain,
        );
    }

    /// The right lobe along the image's left side, and the left lobe in front at higher levels.
    fn paint_liver(&self, canvas: &mut Canvas, tissues: &Tissues, wall: impl Fn(Point) -> f32) {
        let z = canvas.pose.z;
        let (a, d) = (self.half_width, self.depth);
        let rise = ((z - self.liver_tip) / 110.0).clamp(0.0, 1.0);
        if rise <= 0.0 {
            return;
        }
        let grown = rise.sqrt();
        let right = Ellipse::new(
            -a * (0.92 - 0.34 * grown),
            -d * 0.28,
            a * (0.08 + 0.46 * grown) * self.liver.0,
            (0.15 + 0.72 * grown) * d * self.liver.1,
        )
        .turned(0.12);
        let left = Ellipse::new(-0.18 * a, -0.72 * d, 0.5 * a * rise, 0.25 * d * (rise - 0.25).max(0.01));
        let fillet = 18.0;
        let bounds = right.bounds().union(left.bounds()).grown(4.0);
        let liver = |p: Point| {
            let lobe = right.distance(p.x, p.y);
            let both =
                if rise > 0.45 { smooth_union(lobe, left.distance(p.x, p.y), fillet) } else { lobe };
            both.max(wall(p) + 1.6)
        };
        canvas.paint(bounds, liver, |p, depth| {
            let vessel = noise::value(self.seed ^ 9, p.x / 16.0, p.y / 16.0, z / 22.0);
            let branch = smoothstep(0.09, 0.03, (vessel - 0.1).abs())
                * smoothstep(0.1, 0.35, noise::value(self.seed ^ 11, p.x / 26.0, p.y / 26.0, z / 30.0))
                * smoothstep(-4.0, -12.0, depth);
            tissues.liver + 4.0 * p.grain + (tissues.portal - tissues.liver) * branch
        });
    }

    fn paint_spleen(&self, canvas: &mut Canvas, tissues: &Tissues, wall: impl Fn(Point) -> f32) {
        let z = canvas.pose.z;
        let (middle, half, thick) = self.spleen;
        let height = (z - middle) / half;
        let size = (1.0 - height * height).max(0.0).sqrt();
        if size < 0.1 {
            return;
        }
        let (a, d) = (self.half_width, self.depth);
        let spleen = Ellipse::new(0.84 * a, -0.02 * d, thick * size, 46.0 * size).turned(0.28);
        let fat = Ellipse::new(0.52 * a, -0.05 * d, 0.2 * a, 40.0 * size);
        canvas.paint(
            spleen.bounds(),
            |p| spleen.distance(p.x, p.y).max(wall(p) + 1.8).max(-fat.distance(p.x, p.y)),
            |p, _| {
                let mottle = noise::fractal(self.seed ^ 5, p.x / 9.0, p.y / 9.0, z / 12.0);
                tissues.spleen + 4.0 * p.grain + self.mottled * mottle
            },
        );
    }
}

impl Loop {
    fn section(&self, z: f32) -> Option<Ellipse> {
        let (low, high) = self.levels;
        let (half, middle) = ((high - low) / 2.0, low.midpoint(high));
        let height = (z - middle) / half;
        let scale = (1.0 - height * height).max(0.0).sqrt().min(0.75) / 0.75;
        let (amplitude, wavelength, start) = self.winding;
        let phase = std::f32::consts::TAU * z / wavelength + start;
        let size = scale * (1.0 + 0.18 * (1.7 * phase).sin());
        let (x, y) = (self.centre.0 + amplitude * phase.sin(), self.centre.1 + 0.6 * amplitude * phase.cos());
        (scale > 0.2).then(|| Ellipse::new(x, y, self.half.0, self.half.1).scaled(size).turned(self.turn))
    }

    fn paint(&self, canvas: &mut Canvas, tissues: &Tissues, wall: impl Fn(Point) -> f32) {
        let z = canvas.pose.z;
        let Some(section) = self.section(z) else {
            return;
        };
        let haustra = 0.22 * section.a.min(section.b);
        let outline = |p: Point| {
            let bulge = noise::value(self.seed, p.x / 13.0, p.y / 13.0, z / 18.0);
            (section.distance(p.x, p.y) + haustra * bulge).max(wall(p) + 2.0)
        };
        // Gas rises to the front, because the patient lies on the back.
        let half_height = section.b.min(section.a);
        canvas.paint(section.bounds().grown(haustra), outline, |p, depth| {
            let lumen = smoothstep(-self.wall_mm + 0.5, -self.wall_mm - 0.5, depth);
            let front = (section.y - p.y) / half_height;
            let wall_hu = tissues.bowel_wall + 8.0 * p.grain;
            wall_hu + (self.content_hu(p, z, front, wall_hu) - wall_hu) * lumen
        });
    }

    fn content_hu(&self, p: Point, z: f32, front: f32, wall_hu: f32) -> f32 {
        match self.content {
            Content::Collapsed => {
                let fold = noise::value(self.seed ^ 1, p.x / 4.0, p.y / 4.0, z / 6.0);
                wall_hu - 25.0 * smoothstep(0.0, 0.5, fold)
            }
            Content::Fluid => 18.0 + 6.0 * p.grain,
            Content::Gas(share) => {
                if front > -share {
                    -940.0
                } else {
                    22.0 + 10.0 * p.grain
                }
            }
            Content::Stool => {
                let bubble = noise::fractal(self.seed ^ 2, p.x / 5.0, p.y / 5.0, z / 6.0);
                35.0 + 40.0 * p.grain - 700.0 * smoothstep(0.05, 0.5, bubble + 0.25 * front)
            }
            Content::Contrast(hu) => hu * (1.0 + 0.08 * p.grain),
        }
    }
}
