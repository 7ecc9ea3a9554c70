//! Whether a map shows what the network looks at: hiding the hot region has to lower the score
//! more than hiding a random region of the same size and shape.
//!
//! Source of the idea: Samek et al., "Evaluating the Visualization of What a Deep Neural Network
//! Has Learned", 2015, <https://arxiv.org/abs/1509.06321>.

use super::{
    hide::{Picture, Score},
    map::HeatMap,
    random::Random,
};
use crate::predictor::PredictError;

/// Share of the network's input that is called hot.
pub const HOT_SHARE: f64 = 0.1;
/// Random regions that the hot one is compared with.
pub const REGIONS: usize = 20;
/// Share of the random regions that have to lower the score less: 19 of 20.
pub const LEAST_SHARE: f64 = 0.95;

/// Regions drawn for each one that is kept, at most.
const ATTEMPTS: usize = 200;
/// A random region has at least this share of the hot one's pixels, and of its pixels in the body;
/// turning moves pixels across the grid, and a shift may push some over the edge.
const SAME_SIZE: f64 = 0.9;

/// The result of the check; falls are in the units of the score.
#[derive(Debug, Clone, PartialEq)]
pub struct Faithfulness {
    /// Fall of the score with the hot region hidden.
    pub drop_hot: f64,
    /// Mean fall with a random region hidden.
    pub drop_random: f64,
    /// Share of the random regions whose fall is smaller than the hot one's.
    pub share_below: f64,
    /// Random regions that were found.
    pub regions: usize,
}

impl Faithfulness {
    /// Whether hiding the hot region lowers the score, and more than [`LEAST_SHARE`] of the random
    /// ones do.
    pub fn is_faithful(&self) -> bool {
        self.drop_hot > 0.0 && self.share_below >= LEAST_SHARE
    }
}

/// Checks a map of the picture's size; `body` says which pixels random regions are drawn from.
///
/// `None` when the map has no positive value, or no other place in the body takes its hot region.
///
/// # Errors
/// Those of `score`.
pub fn check(
    score: &impl Score,
    picture: &Picture<'_>,
    map: &HeatMap,
    body: &[bool],
    seed: u64,
) -> Result<Option<Faithfulness>, PredictError> {
    let hot = map.hottest(HOT_SHARE);
    let regions = random_regions(&hot, body, map.width(), seed);
    if regions.is_empty() {
        return Ok(None);
    }
    let whole = picture.score(score)?;
    let hidden = |version: usize, pixel: usize| match version.checked_sub(1) {
        None => hot[pixel],
        Some(region) => regions[region][pixel],
    };
    let scores = picture.hidden_scores(score, 1 + regions.len(), hidden)?;
    let falls: Vec<f64> = scores.iter().map(|score| whole - score).collect();
    let count = regions.len() as f64;
    let below = falls[1..].iter().filter(|fall| **fall < falls[0]).count();
    Ok(Some(Faithfulness {
        drop_hot: falls[0],
        drop_random: falls[1..].iter().sum::<f64>() / count,
        share_below: below as f64 / count,
        regions: regions.len(),
    }))
}

/// The hot region, turned about its middle, mirrored or not, and moved to a random place in the
/// body; up to [`REGIONS`] of them.
fn random_regions(hot: &[bool], body: &[bool], width: usize, seed: u64) -> Vec<Vec<bool>> {
    let mut random = Random::new(seed);
    let places: Vec<usize> = (0..body.len()).filter(|&pixel| body[pixel]).collect();
    let size = hot.iter().filter(|hot| **hot).count();
    if size == 0 || places.is_empty() || hot.len() != body.len() {
        return Vec::new();
    }
    let in_body =
        |region: &[bool]| region.iter().zip(body).filter(|(region, body)| **region && **body).count();
    let least = SAME_SIZE * in_body(hot) as f64;
    let mut regions = Vec::with_capacity(REGIONS);
    for _ in 0..REGIONS * ATTEMPTS {
        let region = moved(hot, width, places[random.below(places.len())], &mut random);
        let pixels = region.iter().filter(|region| **region).count();
        let alike = pixels as f64 >= SAME_SIZE * size as f64 && in_body(&region) as f64 >= least;
        if alike && region != hot {
            regions.push(region);
        }
        if regions.len() == REGIONS {
            break;
        }
    }
    regions
}

/// The region with its middle brought to the pixel `target`, at a random turn.
fn moved(region: &[bool], width: usize, target: usize, random: &mut Random) -> Vec<bool> {
    let height = region.len() / width;
    let (row, column) = middle(region, width);
    let (sin, cos) = (random.unit() * std::f64::consts::TAU).sin_cos();
    let mirror = if random.coin() { -1.0 } else { 1.0 };
    let from = |pixel: usize| {
        let down = (pixel / width) as f64 - (target / width) as f64;
        let across = mirror * ((pixel % width) as f64 - (target % width) as f64);
        let source = (row + down * cos - across * sin, column + down * sin + across * cos);
        (source.0.round(), source.1.round())
    };
    let inside = |at: f64, length: usize| (0.0..length as f64).contains(&at);
    (0..region.len())
        .map(|pixel| {
            let (row, column) = from(pixel);
            inside(row, height) && inside(column, width) && region[row as usize * width + column as usize]
        })
        .collect()
}

/// Mean row and column.
fn middle(region: &[bool], width: usize) -> (f64, f64) {
    let pixels = region.iter().enumerate().filter(|(_, inside)| **inside).map(|(pixel, _)| pixel);
    let (mut rows, mut columns, mut count) = (0, 0, 0);
    for pixel in pixels {
        rows += pixel / width;
        columns += pixel % width;
        count += 1;
    }
    let count = f64::from(count.max(1));
    (rows as f64 / count, columns as f64 / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::hide::tests::linear;

    const SIDE: usize = 40;

    fn near(row: usize, column: usize) -> impl Fn(usize) -> bool {
        move |pixel| (pixel / SIDE).abs_diff(row) <= 6 && (pixel % SIDE).abs_diff(column) <= 6
    }

    /// A model that sums the pixels near row 10, column 10, and a picture that is bright there.
    fn run(map: &HeatMap) -> Option<Faithfulness> {
        let input: Vec<f32> =
            (0..SIDE * SIDE).flat_map(|at| [f32::from(u8::from(near(10, 10)(at))); 3]).collect();
        let picture = Picture::new(&input, SIDE, SIDE).unwrap();
        let model = linear((0..SIDE * SIDE).map(|at| f64::from(near(10, 10)(at))).collect());
        check(&model, &picture, map, &vec![true; SIDE * SIDE], 3).unwrap()
    }

    fn map(hot: impl Fn(usize) -> bool) -> HeatMap {
        HeatMap::of_pixels(SIDE, SIDE, |pixel| f64::from(hot(pixel)))
    }

    #[test]
    fn a_map_of_what_counts_is_faithful() {
        let found = run(&map(near(10, 10))).unwrap();
        assert_eq!(found.regions, REGIONS);
        assert!(found.is_faithful() && found.drop_hot > 2.0 * found.drop_random, "{found:?}");
        assert_eq!(run(&map(near(10, 10))), Some(found), "the same seed");
    }

    #[test]
    fn a_map_of_something_else_is_not() {
        let found = run(&map(near(30, 30))).unwrap();
        assert!(!found.is_faithful() && found.drop_hot < found.drop_random, "{found:?}");
    }

    #[test]
    fn a_map_that_shows_nothing_is_not_judged() {
        assert_eq!(run(&map(|_| false)), None);
    }

    #[test]
    fn random_regions_are_as_large_as_the_hot_one_and_in_the_body() {
        let hot: Vec<bool> = (0..SIDE * SIDE).map(near(12, 20)).collect();
        let body: Vec<bool> = (0..SIDE * SIDE).map(|pixel| pixel / SIDE < 28).collect();
        let regions = random_regions(&hot, &body, SIDE, 5);
        assert_eq!(regions.len(), REGIONS);
        for region in regions {
            let size = region.iter().filter(|inside| **inside).count() as f64;
            assert!((size / 169.0 - 1.0).abs() <= 0.1, "{size}"); // 13 · 13
            let outside = region.iter().zip(&body).filter(|(inside, body)| **inside && !**body).count();
            assert!(outside as f64 <= 0.2 * 169.0, "{outside}");
        }
        assert!(random_regions(&hot, &[false; SIDE * SIDE], SIDE, 5).is_empty());
    }
}
