//! The plane of a slice.
//!
//! A JPEG does not say it. Where the CSV of patients does not either, it is estimated from the outline.

use std::fmt;

use nephros_core::pixels::{RgbImage, tissue_box};
use serde::{Deserialize, Serialize};

/// Plane of a slice as the image shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Across the body.
    Axial,
    /// Along the body, seen from the front.
    Coronal,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
        })
    }
}

impl Plane {
    /// What the outline suggests: tissue that is wider than high is taken for axial, tissue that is
    /// higher than wide for coronal. `None` where there is no tissue.
    ///
    /// A sagittal slice is taken for coronal. `tests/orientation.rs` holds it against real slices.
    pub fn estimate(image: &RgbImage) -> Option<Self> {
        let tissue = tissue_box(image)?;
        Some(if tissue.width >= tissue.height { Self::Axial } else { Self::Coronal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::{Cohort, Patient, slice};

    #[test]
    fn drawn_slices_are_axial_and_turned_ones_are_not() {
        let cohort = Cohort { patients: 12, slices: 1, seed: 2, size: 128, ..Cohort::default() };
        for index in 0..cohort.patients {
            let patient = Patient::new(&cohort, index);
            let (center, width) = patient.window();
            let grey = slice(&patient, 0).windowed(center, width);
            let image = |turned: bool| {
                let at = |position: usize| {
                    if turned { position % 128 * 128 + position / 128 } else { position }
                };
                let pixels = (0..128 * 128).flat_map(|position| [grey[at(position)]; 3]).collect();
                RgbImage::new(128, 128, pixels).unwrap()
            };
            assert_eq!(Plane::estimate(&image(false)), Some(Plane::Axial), "patient {index}");
            assert_eq!(Plane::estimate(&image(true)), Some(Plane::Coronal), "patient {index}");
        }
    }

    #[test]
    fn a_picture_without_tissue_has_no_plane() {
        let black = RgbImage::new(20, 30, vec![0; 20 * 30 * 3]).unwrap();
        assert_eq!(Plane::estimate(&black), None);
    }
}
