//! How much of a map lies in a lesion whose mask is known.

use super::{Explanation, tissue};
use crate::pixels::RgbImage;

/// A map against the mask of the lesion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InLesion {
    /// Share of the map's positive mass inside the lesion.
    pub mass: f64,
    /// The lesion's share of the body's pixels; what a map that is the same everywhere would have.
    pub area: f64,
    /// Whether the hottest pixel lies in the lesion.
    pub peak_inside: bool,
}

/// Compares an explanation with `lesion`, `[height, width]` of the original picture; `None` when
/// the mask is empty or of another size, or nothing in the map is positive.
pub fn compare(explanation: &Explanation, image: &RgbImage, lesion: &[bool]) -> Option<InLesion> {
    let (frame, width) = (explanation.frame, image.width());
    let map = explanation.map.placed(frame, image.height(), width);
    let framed = |pixel: usize| frame.relative(pixel / width, pixel % width).is_some();
    let body = tissue(image).into_iter().enumerate().filter(|(pixel, is_body)| *is_body && framed(*pixel));
    let in_body = body.map(|(pixel, _)| lesion.get(pixel).copied().unwrap_or(false));
    let (count, lesion_count) =
        in_body.fold((0_usize, 0_usize), |(all, lesions), inside| (all + 1, lesions + usize::from(inside)));
    let mass = map.mass_inside(lesion)?;
    let (peak, _) = map.values().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let area = lesion_count as f64 / count.max(1) as f64;
    (lesion_count > 0).then_some(InLesion { mass, area, peak_inside: lesion[peak] })
}
