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
    let view = (2.0 * body.half_width() * draw.uniform(1.03, 1.25)).clamp(290.0, 500.0);
    let roll = draw.bell(-0.16, 0.16);
    Pose {
        spacing: view / size as f32,
        turn: (roll.sin(), roll.cos()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn patients(class: PhantomClass) -> impl Iterator<Item = Patient> {
        let cohort = Cohort { patients: 40, slices: 1, size: 320, ..Cohort::default() };
        (0..40).map(move |index| Patient::with_class(&cohort, index, class))
    }

    fn within(value: f32, range: std::ops::RangeInclusive<f32>, what: &str) {
        assert!(range.contains(&value), "{what}: {value} HU, expected {range:?}");
    }

    #[test]
    fn organs_have_the_hounsfield_units_of_their_phase() {
        for patient in patients(PhantomClass::Normal) {
            let canvas = paint(&patient, 0);
            let s = patient.body.scale;
            let (aorta_x, aorta_y) = patient.vessels.aorta_centre();
            within(canvas.hu[0], -1000.0..=-1000.0, "air");
            within(canvas.mean_at(37.0 * s, 50.0 * s), 25.0..=85.0, "back muscle");
            within(canvas.mean_at(0.0, 0.0), 80.0..=650.0, "vertebral body or disc");
            let aorta = match patient.phase {
                Phase::NonContrast => 25.0..=60.0,
                Phase::Corticomedullary => 200.0..=400.0,
                Phase::Nephrographic => 110.0..=220.0,
                Phase::Excretory => 80.0..=170.0,
            };
            within(canvas.mean_at(aorta_x, aorta_y), aorta, "aorta");
            let layers = patient.body.layers(canvas.pose.z, 0);
            let back = layers.skin.bottom.midpoint(layers.wall.bottom) - 0.5;
            if layers.skin.bottom - layers.wall.bottom > 12.0 {
                within(canvas.mean_at(0.0, back), -125.0..=-85.0, "subcutaneous fat");
            }
        }
    }

    #[test]
    fn the_kidneys_take_up_contrast_agent_from_the_cortex_inwards() {
        for patient in patients(PhantomClass::Normal) {
            let Tissues { cortex, medulla, urine, .. } = patient.tissues;
            let (outside, inside) = match patient.phase {
                Phase::NonContrast => (25.0..=42.0, 24.0..=40.0),
                Phase::Corticomedullary => (140.0..=230.0, 83.0..=135.0),
                Phase::Nephrographic => (125.0..=205.0, 115.0..=192.0),
                Phase::Excretory => (100.0..=162.0, 100.0..=168.0),
            };
            within(cortex, outside, "cortex");
            within(medulla, inside, "medulla");
            within(
                urine,
                if patient.phase == Phase::Excretory { 300.0..=550.0 } else { 0.0..=17.0 },
                "urine",
            );
        }
    }

    /// Mean Hounsfield units over the lesion of each patient who shows one, and of the parenchyma.
    fn lesions(class: PhantomClass) -> Vec<(Phase, f32, f32)> {
        patients(class)
            .map(|patient| {
                let canvas = paint(&patient, 0);
                let inside = canvas.lesion.iter().zip(&canvas.hu).filter(|(share, _)| **share >= 0.5);
                let values: Vec<f32> = inside.map(|(_, hu)| *hu).collect();
                let mean = values.iter().sum::<f32>() / values.len() as f32;
                (patient.phase, mean, patient.tissues.parenchyma())
            })
            .collect()
    }

    #[test]
    fn tumours_differ_from_the_parenchyma_but_enhance() {
        let found = lesions(PhantomClass::Tumor);
        for (phase, lesion, parenchyma) in &found {
            if *phase == Phase::NonContrast {
                within(*lesion, 5.0..=85.0, "tumour without contrast agent");
            } else {
                within(parenchyma - lesion, 8.0..=110.0, "parenchyma less tumour");
                within(*lesion, 35.0..=160.0, "enhancing tumour");
            }
        }
        let enhanced: Vec<f32> =
            found.iter().filter(|f| f.0 != Phase::NonContrast).map(|f| f.2 - f.1).collect();
        let mean = enhanced.iter().sum::<f32>() / enhanced.len() as f32;
        println!("tumours are darker than the parenchyma by {mean:.0} HU");
        within(mean, 20.0..=60.0, "mean contrast");
    }

    #[test]
    fn cysts_hold_water_and_stones_are_dense() {
        for (_, cyst, _) in lesions(PhantomClass::Cyst) {
            within(cyst, -10.0..=30.0, "cyst");
        }
        for (_, stone, _) in lesions(PhantomClass::Stone) {
            within(stone, 250.0..=1500.0, "stone");
        }
    }

    #[test]
    fn slices_run_evenly_from_head_to_feet_through_the_lesion() {
        assert_eq!(levels((-9.0, 9.0), 4), [9.0, 3.0, -3.0, -9.0]); // steps of 18/3
        assert_eq!(levels((-9.0, 5.0), 1), [-2.0]); // the middle
        for patient in patients(PhantomClass::Tumor) {
            assert!(patient.lesion.mass(PhantomClass::Tumor, patient.levels[0], 1.0).is_some());
        }
    }
}
