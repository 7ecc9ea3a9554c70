//! Tumours, cysts and stones of the kidney.
//!
//! A lesion is drawn for every patient whatever the class, and decides which levels are saved; the
//! class only decides what is painted there. So level, size, noise and pose tell nothing about it.

use super::{
    PhantomClass,
    canvas::{Canvas, Point},
    draw::Draw,
    kidney::Kidney,
    noise,
    shape::{Bounds, Ellipse, smoothstep},
    tissue::{Phase, Tissues},
};

/// A mass, or a chain of stones over the same levels.
#[derive(Debug, Clone)]
pub(super) struct Lesion {
    /// Index of the kidney it sits on.
    pub(super) kidney: usize,
    centre: (f32, f32, f32),
    half: (f32, f32, f32),
    turn: f32,
    /// Depth of the lobes of a tumour's outline, as a share of its radius.
    lobes: f32,
    tumor: Tumor,
    cyst_hu: f32,
    stones: Vec<Stone>,
    seed: u32,
}

/// How a tumour takes up contrast agent.
#[derive(Debug, Clone, Copy)]
struct Tumor {
    /// Difference to the renal parenchyma, in Hounsfield units.
    contrast: f32,
    /// Swing of the texture, in Hounsfield units.
    texture: f32,
    /// 0 for a solid mass, 1 for a mass that is mostly dead tissue.
    necrosis: f32,
    rim: f32,
    calcified: bool,
}

/// Half axes across and along the body; the chain's spheres overlap.
#[derive(Debug, Clone, Copy)]
struct Stone {
    centre: (f32, f32, f32),
    radius: f32,
    hu: f32,
}

/// The cut of a tumour or cyst at one level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mass {
    outline: Ellipse,
    lobes: f32,
    /// Levels in units of the lobes' wavelength.
    level: f32,
    wavelength: f32,
    seed: u32,
}

/// Saved levels lie within this share of the lesion's half height, where its cut is at least
/// √(1 − 0.7²) = 0.71 times as wide as in its middle.
const COVERED: f32 = 0.7;

impl Lesion {
    /// `wall(x, y, z)` is the distance to the abdominal wall.
    pub(super) fn draw(
        draw: &mut Draw,
        kidneys: &[Kidney; 2],
        phase: Phase,
        wall: impl Fn(f32, f32, f32) -> f32,
    ) -> Self {
        let index = usize::from(draw.chance(0.5));
        let kidney = &kidneys[index];
        let radius = Self::draw_diameter(draw) / 2.0;
        let half = (
            radius * draw.bell(0.85, 1.15),
            radius * draw.bell(0.85, 1.15),
            (radius * draw.bell(0.9, 1.2)).min(0.75 * kidney.half.2),
        );
        let free = 0.8 * kidney.half.2 - COVERED * half.2;
        let z = kidney.z + draw.uniform(-1.0, 1.0) * free.max(0.0);
        let (x, y) = Self::place(draw, kidney, z, radius, wall);
        let stones = Self::draw_stones(draw, kidney, z, COVERED * half.2);
        Self {
            kidney: index,
            centre: (x, y, z),
            half,
            turn: draw.angle(),
            lobes: draw.bell(0.02, 0.16),
            tumor: Tumor::draw(draw, phase, radius),
            cyst_hu: draw.bell(0.0, 16.0),
            stones,
            seed: draw.bits(),
        }
    }

    /// Millimetres: one in eight is subtle, the others spread evenly by ratio.
    fn draw_diameter(draw: &mut Draw) -> f32 {
        let subtle = draw.chance(0.12);
        let t = draw.unit();
        if subtle { 8.0 + 8.0 * t } else { 16.0 * (72.0_f32 / 16.0).powf(t) }
    }

    /// A place near the surface, away from the hilum and within the abdominal wall.
    fn place(
        draw: &mut Draw,
        kidney: &Kidney,
        z: f32,
        radius: f32,
        wall: impl Fn(f32, f32, f32) -> f32,
    ) -> (f32, f32) {
        let away = kidney.hilum + std::f32::consts::PI + draw.bell(-2.2, 2.2);
        let (kx, ky) = kidney.centre(z);
        let height = ((z - kidney.z) / kidney.half.2).clamp(-0.9, 0.9);
        let reach = 0.5 * (kidney.half.0 + kidney.half.1) * (1.0 - height * height).sqrt();
        // Small ones inside or on the surface; large ones grow outwards from it.
        let out = reach * draw.bell(0.55, 1.25);
        // Large masses cannot grow into the back and push forwards.
        let forward = 0.5 * (radius - 18.0).max(0.0);
        let (mut x, mut y) = (kx + out * away.cos(), ky + out * away.sin() - forward);
        for _ in 0..40 {
            if wall(x, y, z) < -(0.75 * radius + 2.0) {
                break;
            }
            x += 0.08 * (kx - x);
            y += 0.08 * (ky - 0.6 * radius - y);
        }
        (x, y)
    }

    /// Stones in the sinus, one close to every level within `reach` of `z`.
    fn draw_stones(draw: &mut Draw, kidney: &Kidney, z: f32, reach: f32) -> Vec<Stone> {
        let count = (2.0 * reach / 6.0).ceil().max(1.0);
        let pitch = 2.0 * reach / count;
        (0..count as usize)
            .map(|stone| {
                let level = z - reach + (stone as f32 + 0.5) * pitch;
                let (x, y) = kidney.centre(level);
                let forward = kidney.half.1 * draw.bell(0.0, 0.5);
                let across = kidney.half.0 * draw.bell(-0.35, 0.35);
                let (sin, cos) = (kidney.hilum.sin(), kidney.hilum.cos());
                Stone {
                    centre: (x + forward * cos - across * sin, y + forward * sin + across * cos, level),
                    radius: (pitch * draw.bell(0.62, 1.2)).max(2.4),
                    hu: draw.uniform(450.0, 1400.0),
                }
            })
            .collect()
    }

    /// Levels of the lowest and highest slice that are saved.
    pub(super) fn levels(&self) -> (f32, f32) {
        (self.centre.2 - COVERED * self.half.2, self.centre.2 + COVERED * self.half.2)
    }

    /// The cut through a tumour or cyst; `None` above and below it, and for other classes.
    pub(super) fn mass(&self, class: PhantomClass, z: f32, spacing: f32) -> Option<Mass> {
        let lobes = match class {
            PhantomClass::Tumor => self.lobes,
            PhantomClass::Cyst => 0.0,
            PhantomClass::Normal | PhantomClass::Stone => return None,
        };
        let height = (z - self.centre.2) / self.half.2;
        let scale = (1.0 - height * height).max(0.0).sqrt();
        if scale <= 0.0 {
            return None;
        }
        // A cut narrower than this could fall between the centres of coarse pixels.
        let least = 0.75 * spacing;
        let outline = Ellipse::new(
            self.centre.0,
            self.centre.1,
            (self.half.0 * scale).max(least),
            (self.half.1 * scale).max(least),
        )
        .turned(self.turn);
        let wavelength = 0.55 * self.half.0;
        Some(Mass { outline, lobes, level: z / wavelength, wavelength, seed: self.seed })
    }

    /// Paints what the class asks for; the kidney itself is already there.
    pub(super) fn paint(
        &self,
        canvas: &mut Canvas,
        class: PhantomClass,
        tissues: &Tissues,
        wall: impl Fn(Point) -> f32,
    ) {
        if class == PhantomClass::Stone {
            self.paint_stones(canvas);
        }
        let Some(mass) = self.mass(class, canvas.pose.z, canvas.pose.spacing) else {
            return;
        };
        let z = canvas.pose.z;
        let distance = |p: Point| mass.distance(p).max(wall(p) + 1.0);
        if class == PhantomClass::Cyst {
            canvas.paint_lesion(mass.bounds(), distance, |p, _| self.cyst_hu + 2.0 * p.grain);
        } else {
            canvas.paint_lesion(mass.bounds(), distance, |p, depth| self.tumor_hu(p, depth, z, tissues));
        }
    }

    fn tumor_hu(&self, p: Point, depth: f32, z: f32, tissues: &Tissues) -> f32 {
        let Tumor { contrast, texture, necrosis, rim, calcified } = self.tumor;
        let radius = self.half.0;
        let scale = (0.4 * radius).clamp(3.0, 11.0);
        let pattern = noise::fractal(self.seed ^ 0xA1, p.x / scale, p.y / scale, z / scale);
        let solid = tissues.parenchyma() + contrast + texture * pattern + 7.0 * p.grain;
        let core = (-depth / radius).clamp(0.0, 1.0);
        let wide = 1.8 * scale;
        let dead = noise::fractal(self.seed ^ 0xB2, p.x / wide, p.y / wide, z / wide);
        let necrotic = smoothstep(0.7, 0.95, dead + 0.8 * core + necrosis);
        let shell = rim * (1.0 - smoothstep(0.8, 2.2, -depth));
        let hu = solid + shell + (20.0 + 4.0 * p.grain - solid) * necrotic;
        let speck = if calcified { smoothstep(0.62, 0.72, pattern) } else { 0.0 };
        hu + 260.0 * speck
    }

    fn paint_stones(&self, canvas: &mut Canvas) {
        for stone in &self.stones {
            let height = (canvas.pose.z - stone.centre.2) / stone.radius;
            if height.abs() >= 1.0 {
                continue;
            }
            let radius = stone.radius * (1.0 - height * height).sqrt();
            let circle =
                Ellipse::circle(stone.centre.0, stone.centre.1, radius.max(0.75 * canvas.pose.spacing));
            canvas.paint_lesion(
                circle.bounds(),
                |p| circle.distance(p.x, p.y),
                |p, _| stone.hu * (1.0 + 0.15 * p.grain),
            );
        }
    }
}

impl Tumor {
    fn draw(draw: &mut Draw, phase: Phase, radius: f32) -> Self {
        let darker = draw.uniform(24.0, 46.0);
        let brighter = draw.chance(0.45);
        let enhanced = phase != Phase::NonContrast;
        Self {
            // Without contrast agent a mass with fresh blood is brighter than the kidney.
            contrast: if enhanced {
                -darker
            } else if brighter {
                0.7 * darker + 8.0
            } else {
                -0.5 * darker - 8.0
            },
            texture: draw.bell(24.0, 72.0) * if enhanced { 1.0 } else { 0.4 },
            necrosis: draw.uniform(-0.5, 0.5) * smoothstep(8.0, 24.0, radius)
                - 0.6 * smoothstep(18.0, 8.0, radius),
            rim: draw.bell(-20.0, 40.0) * if enhanced { 1.0 } else { 0.2 },
            calcified: draw.chance(0.15),
        }
    }
}

impl Mass {
    /// Signed distance to the lobed outline.
    pub(super) fn distance(&self, p: Point) -> f32 {
        let smooth = self.outline.distance(p.x, p.y);
        if self.lobes <= 0.0 {
            return smooth;
        }
        let lobe = noise::value(self.seed ^ 0xC3, p.x / self.wavelength, p.y / self.wavelength, self.level);
        smooth + self.lobes * self.outline.a * lobe
    }

    /// Rectangle around it.
    pub(super) fn bounds(&self) -> Bounds {
        self.outline.bounds().grown(self.lobes * self.outline.a)
    }

    /// Radius of the shoulder where the kidney's surface rises onto the mass.
    pub(super) fn fillet(&self) -> f32 {
        (0.5 * self.outline.a).clamp(2.0, 12.0)
    }
}
