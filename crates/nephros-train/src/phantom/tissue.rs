//! Hounsfield units of the organs in each contrast phase.
//!
//! Typical attenuation in portal practice; the spread between patients (heart, dose, delay) comes
//! from one enhancement factor and one offset a tissue.

use super::draw::Draw;

/// Delay between injection and scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No contrast agent.
    NonContrast,
    /// 25 to 40 s: bright aorta and renal cortex.
    Corticomedullary,
    /// 80 to 120 s: kidneys evenly bright.
    Nephrographic,
    /// After 3 minutes: contrast agent in the renal pelvis.
    Excretory,
}

impl Phase {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        match draw.unit() {
            u if u < 0.15 => Self::NonContrast,
            u if u < 0.55 => Self::Corticomedullary,
            u if u < 0.85 => Self::Nephrographic,
            _ => Self::Excretory,
        }
    }
}

/// Mean Hounsfield units in one patient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tissues {
    pub(super) fat: f32,
    pub(super) muscle: f32,
    pub(super) liver: f32,
    pub(super) spleen: f32,
    pub(super) pancreas: f32,
    pub(super) bowel_wall: f32,
    pub(super) aorta: f32,
    pub(super) cava: f32,
    pub(super) portal: f32,
    pub(super) cortex: f32,
    pub(super) medulla: f32,
    pub(super) urine: f32,
    pub(super) marrow: f32,
    pub(super) bone: f32,
}

/// Native value, then the rise in the corticomedullary, nephrographic and excretory phase.
type Curve = [f32; 4];

const LIVER: Curve = [56.0, 16.0, 52.0, 36.0];
const SPLEEN: Curve = [48.0, 72.0, 72.0, 46.0];
const PANCREAS: Curve = [40.0, 60.0, 48.0, 32.0];
const BOWEL_WALL: Curve = [38.0, 46.0, 44.0, 28.0];
const AORTA: Curve = [42.0, 260.0, 118.0, 78.0];
const CAVA: Curve = [40.0, 80.0, 112.0, 74.0];
const PORTAL: Curve = [40.0, 90.0, 122.0, 74.0];
const CORTEX: Curve = [33.0, 152.0, 132.0, 98.0];
const MEDULLA: Curve = [31.0, 52.0, 122.0, 104.0];
const URINE: Curve = [6.0, 0.0, 4.0, 420.0];

impl Tissues {
    pub(super) fn draw(draw: &mut Draw, phase: Phase) -> Self {
        let strength = draw.bell(0.75, 1.25);
        let mut at = |curve: Curve, spread: f32| {
            let rise = match phase {
                Phase::NonContrast => 0.0,
                Phase::Corticomedullary => curve[1],
                Phase::Nephrographic => curve[2],
                Phase::Excretory => curve[3],
            };
            curve[0] + rise * strength + draw.bell(-spread, spread)
        };
        Self {
            fat: at([-104.0, 0.0, 0.0, 0.0], 8.0),
            muscle: at([52.0, 6.0, 10.0, 8.0], 8.0),
            liver: at(LIVER, 16.0),
            spleen: at(SPLEEN, 10.0),
            pancreas: at(PANCREAS, 10.0),
            bowel_wall: at(BOWEL_WALL, 10.0),
            aorta: at(AORTA, 15.0),
            cava: at(CAVA, 15.0),
            portal: at(PORTAL, 10.0),
            cortex: at(CORTEX, 6.0),
            medulla: at(MEDULLA, 6.0),
            urine: at(URINE, 5.0),
            marrow: at([165.0, 0.0, 0.0, 0.0], 60.0),
            bone: at([480.0, 0.0, 0.0, 0.0], 90.0),
        }
    }

    /// Mean of the renal parenchyma: about 60 % of it is cortex.
    pub(super) fn parenchyma(&self) -> f32 {
        0.6 * self.cortex + 0.4 * self.medulla
    }
}
