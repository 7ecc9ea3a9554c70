//! Which side of a slice is up, told by comparison with slices that stand upright.
//!
//! A slice that lies as those trained on do resembles them more than the same slice turned. So each
//! picture is compared with the training images as it stands and in the other seven positions that
//! a square can take. That asks nothing of what is in the picture: axial and coronal slices are each
//! compared with their own kind. A mirrored slice counts as upright: which side the liver is on is
//! not to be told from other patients' slices well enough.

use crate::pixels::{TISSUE, hash::luma};

/// Rows and columns of the picture that is compared.
pub const SIDE: usize = 16;
/// Its pixels.
const PIXELS: usize = SIDE * SIDE;

/// The square about the body in grey, `[SIDE, SIDE]`.
pub type Picture = [u8; PIXELS];

/// What two pictures are compared by: grey values, and what is bright and dark within the tissue.
type Pattern = [f32; 2 * PIXELS];

/// Pictures of slices that stand upright.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Upright {
    pictures: Vec<Picture>,
    patterns: Vec<Pattern>,
}

/// How much more a picture resembles the upright ones as it stands than turned: differences of
/// correlations, -2 to 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orientation {
    /// Than upside down, by half a turn or mirrored.
    pub upright: f64,
    /// Than after a quarter turn, mirrored or not.
    pub unturned: f64,
}

impl Upright {
    /// Of the pictures of training images.
    pub fn new(pictures: Vec<Picture>) -> Self {
        let patterns = pictures.iter().map(pattern).collect();
        Self { pictures, patterns }
    }

    /// The pictures.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// Compares a picture with those at the positions that `counts` lets through; `None` where there
    /// is none.
    pub fn orientation(&self, picture: &Picture, counts: impl Fn(usize) -> bool) -> Option<Orientation> {
        let own = pattern(picture);
        let positions = POSITIONS.map(|position| turned(&own, position));
        let mut best = [f32::NEG_INFINITY; 8];
        for (_, other) in self.patterns.iter().enumerate().filter(|&(index, _)| counts(index)) {
            for (best, position) in best.iter_mut().zip(&positions) {
                *best = best.max(dot(position, other));
            }
        }
        let most = |best: &[f32]| f64::from(best.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let as_is = most(&best[..2]);
        let orientation =
            Orientation { upright: as_is - most(&best[2..4]), unturned: as_is - most(&best[4..]) };
        as_is.is_finite().then_some(orientation)
    }
}

/// How a square can lie: rows and columns exchanged, rows reversed, columns reversed. The first two are
/// upright, the next two upside down, the last four a quarter turn.
const POSITIONS: [[bool; 3]; 8] = [
    [false, false, false],
    [false, false, true],
    [false, true, false],
    [false, true, true],
    [true, false, false],
    [true, false, true],
    [true, true, false],
    [true, true, true],
];

fn turned(pattern: &Pattern, [exchanged, rows, columns]: [bool; 3]) -> Pattern {
    let side = |reversed: bool, at: usize| if reversed { SIDE - 1 - at } else { at };
    std::array::from_fn(|index| {
        let (plane, row, column) = (index / PIXELS, index % PIXELS / SIDE, index % SIDE);
        let (row, column) = (side(rows, row), side(columns, column));
        let (row, column) = if exchanged { (column, row) } else { (row, column) };
        pattern[plane * PIXELS + row * SIDE + column]
    })
}

/// The grey values, and the rank of each among those of the tissue, 0 outside of it; each less its
/// mean, and so long that the product of two patterns is the mean of their two correlations.
fn pattern(picture: &Picture) -> Pattern {
    let mut tissue: Vec<u8> = picture.iter().copied().filter(|&value| usize::from(value) >= TISSUE).collect();
    tissue.sort_unstable();
    let rank = |value: u8| {
        let below = tissue.partition_point(|&other| other < value);
        (below as f32 + 0.5) / tissue.len().max(1) as f32 - 0.5
    };
    let grey: Vec<f32> = picture.iter().copied().map(f32::from).collect();
    let ranks: Vec<f32> =
        picture.iter().map(|&value| if usize::from(value) >= TISSUE { rank(value) } else { 0.0 }).collect();
    let mut values = [0.0; 2 * PIXELS];
    for (values, plane) in values.chunks_exact_mut(PIXELS).zip([grey, ranks]) {
        let mean = plane.iter().sum::<f32>() / PIXELS as f32;
        let length = plane.iter().map(|value| (value - mean).powi(2)).sum::<f32>().sqrt();
        // A plane of one value has no pattern, and resembles none.
        let scale = if length > 0.0 { std::f32::consts::FRAC_1_SQRT_2 / length } else { 0.0 };
        values.iter_mut().zip(plane).for_each(|(value, of)| *value = (of - mean) * scale);
    }
    values
}

/// In eight sums, which the compiler makes one register of.
fn dot(a: &Pattern, b: &Pattern) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum()
}

/// The picture of a square crop of [`SIDE`] pixels.
pub(super) fn picture_of(rgb: &[u8]) -> Option<Picture> {
    let grey: Vec<u8> = rgb.as_chunks().0.iter().copied().map(luma).collect();
    grey.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body with a bright spot: at the bottom for a slice that stands upright.
    fn slice(spot: (usize, usize)) -> Picture {
        std::array::from_fn(|index| {
            let (row, column) = (index / SIDE, index % SIDE);
            let inside = (2..14).contains(&row) && (1..15).contains(&column);
            let lit = row.abs_diff(spot.0) <= 1 && column.abs_diff(spot.1) <= 1;
            if lit {
                240
            } else if inside {
                90 + column as u8
            } else {
                0
            }
        })
    }

    #[test]
    fn a_turned_slice_resembles_the_upright_ones_more_when_turned_back() {
        let upright = Upright::new(vec![slice((12, 7)), slice((11, 8))]);
        let told = |picture: &Picture| upright.orientation(picture, |_| true).unwrap();
        let standing = told(&slice((12, 8)));
        assert!(standing.upright > 0.1 && standing.unturned > 0.1, "{standing:?}");
        let mut down = slice((12, 8));
        down.reverse();
        let lying = told(&down);
        assert!((lying.upright + standing.upright).abs() < 1e-5, "the same the other way round: {lying:?}");
        let quarter: Picture =
            std::array::from_fn(|index| slice((12, 8))[index % SIDE * SIDE + index / SIDE]);
        assert!(told(&quarter).unturned < -0.1, "{:?}", told(&quarter));
        let mirrored: Picture =
            std::array::from_fn(|index| slice((12, 8))[index / SIDE * SIDE + SIDE - 1 - index % SIDE]);
        assert_eq!(told(&mirrored), standing);
    }

    #[test]
    fn only_what_counts_is_compared_with() {
        let upright = Upright::new(vec![slice((12, 7)), slice((3, 7))]);
        let with = |counted: usize| upright.orientation(&slice((12, 7)), |index| index == counted);
        assert!(with(0).unwrap().upright > 0.1);
        assert!(with(1).unwrap().upright < -0.1);
        assert_eq!(with(2), None);
    }

    #[test]
    fn brightness_and_contrast_play_no_part_and_a_flat_picture_lies_in_no_way() {
        let upright = Upright::new(vec![slice((12, 7))]);
        let darker = slice((12, 8)).map(|value| if value == 0 { 0 } else { value / 2 + 10 });
        let [plain, dark] =
            [slice((12, 8)), darker].map(|picture| upright.orientation(&picture, |_| true).unwrap());
        assert!((plain.upright - dark.upright).abs() < 0.05, "{plain:?} {dark:?}");
        let flat = upright.orientation(&[9; PIXELS], |_| true).unwrap();
        assert_eq!(flat, Orientation { upright: 0.0, unturned: 0.0 });
    }
}
