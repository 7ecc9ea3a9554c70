//! One invented patient and the slices through it.

use super::{
    Cohort, PhantomClass, Phase, Slice,
    body::Body,
    canvas::{Canvas, Point, Pose},
    draw::Draw,
    kidney::Kidney,
    lesion::Lesion,
    scanner::Scanner,
    spine::Spine,
    tissue::Tissues,
    vessels::Vessels,
    viscera::Viscera,
};

/// A patient's anatomy, lesion and scan, drawn from one stream of random numbers.
#[derive(Debug, Clone)]
pub struct Patient {
    index: usize,
    class: PhantomClass,
    size: usize,
    phase: Phase,
    tissues: Tissues,
    body: Body,
    spine: Spine,
    viscera: Viscera,
    vessels: Vessels,
    kidneys: [Kidney; 2],
    lesion: Lesion,
    scanner: Scanner,
    pose: Pose,
    levels: Vec<f32>,
    window: (f32, f32),
}

impl Patient {
    /// Patient `index` of the cohort, with the class that [`Cohort::class_of`] gives.
    pub fn new(cohort: &Cohort, index: usize) -> Self {
        Self::with_class(cohort, index, cohort.class_of(index))
    }

    /// The same patient with another class: everything but the lesion is equal, pixel by pixel.
    pub fn with_class(cohort: &Cohort, index: usize, class: PhantomClass) -> Self {
        let mut draw = Draw::new(cohort.seed, index as u64);
        let phase = Phase::draw(&mut draw);
        let tissues = Tissues::draw(&mut draw, phase);
        let body = Body::draw(&mut draw);
        let kidneys = [-1.0, 1.0].map(|side| Kidney::draw(&mut draw, &body, side));
        let wall = |x: f32, y: f32, z: f32| body.layers(z, 0).cavity.distance(x, y);
        let lesion = Lesion::draw(&mut draw, &kidneys, phase, wall);
        Self {
            index,
            class,
            size: cohort.size,
            phase,
            tissues,
            spine: Spine::draw(&mut draw, &body),
            viscera: Viscera::draw(&mut draw, &body, phase),
            vessels: Vessels::draw(&mut draw, &body),
            scanner: Scanner::draw(&mut draw),
            pose: draw_pose(&mut draw, &body, cohort.size),
            levels: levels(lesion.levels(), cohort.slices),
            window: (draw.bell(28.0, 52.0), draw.bell(360.0, 440.0)),
            body,
            kidneys,
            lesion,
        }
    }

    /// Name in the sidecar CSV, from `P001`.
    pub fn name(&self) -> String {
        Self::name_of(self.index)
    }

    pub(super) fn name_of(index: usize) -> String {
        format!("P{:03}", index + 1)
    }

    /// What all slices of this patient show.
    pub fn class(&self) -> PhantomClass {
        self.class
    }

    /// Delay of the scan after the contrast agent.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Levels of the slices along the body in millimetres, cranial positive, from head to feet.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// Window center and width in Hounsfield units, near 40 and 400.
    pub fn window(&self) -> (f32, f32) {
        self.window
    }

    /// Standard deviation of the scan's noise in Hounsfield units.
    pub fn noise_hu(&self) -> f32 {
        self.scanner.noise_hu
    }
}

/// Slice `index` of a patient, `0..slices`; a larger index gives the last one.
pub fn slice(patient: &Patient, index: usize) -> Slice {
    let index = index.min(patient.levels.len().saturating_sub(1));
    let canvas = paint(patient, index);
    Slice {
        hu: patient.scanner.acquire(&canvas, index),
        lesion: canvas.lesion.iter().map(|share| *share >= 0.5).collect(),
        width: patient.size,
        height: patient.size,
    }
}

fn paint(patient: &Patient, index: usize) -> Canvas {
    let Patient { tissues, lesion, class, .. } = patient;
    let z = patient.levels.get(index).copied().unwrap_or(0.0);
    let layers = patient.body.layers(z, index);
    let wall = |p: Point| layers.cavity.distance(p.x, p.y);
    let mut canvas = Canvas::new(patient.size, Pose { z, ..patient.pose });
    patient.body.paint(&mut canvas, &layers, tissues);
    patient.vessels.paint_mesentery(&mut canvas, tissues);
    patient.viscera.paint(&mut canvas, tissues, wall);
    let mass = lesion.mass(*class, z, patient.pose.spacing);
    for (side, kidney) in patient.kidneys.iter().enumerate() {
        kidney.paint(&mut canvas, tissues, mass.as_ref().filter(|_| side == lesion.kidney), wall);
    }
    lesion.paint(&mut canvas, *class, tissues, wall);
    patient.vessels.paint(&mut canvas, &patient.kidneys, tissues);
    patient.spine.paint(&mut canvas, &layers, tissues);
    let back = patient.pose.pixel(patient.size, 0.0, patient.body.extent().1).1;
    patient.scanner.paint_table(&mut canvas, back);
    canvas
}

fn draw_pose(draw: &mut Draw, body: &Body, size: usize) -> Pose {
    let (top, bottom) = body.extent();
    let view = (2.0 * body.half_width() * draw.uniform(1.03, 1.4)).clamp(300.0, 500.0);
    Pose {
        spacing: view / size as f32,
        roll: draw.bell(-0.16, 0.16),
        centre: (draw.bell(-22.0, 22.0), top.midpoint(bottom) + draw.bell(-20.0, 26.0)),
        z: 0.0,
        warp_seed: draw.bits(),
        warp: draw.bell(2.5, 6.5),
        grain_seed: draw.bits(),
    }
}

fn levels((low, high): (f32, f32), slices: usize) -> Vec<f32> {
    let step = (high - low) / slices.saturating_sub(1).max(1) as f32;
    let first = if slices == 1 { low.midpoint(high) } else { high };
    (0..slices).map(|slice| first - slice as f32 * step).collect()
}
