//! Five nearest neighbours on raw pixels: what remembering the training images is worth.

use nephros_core::pixels::{Resample, RgbImage, hash::luma, resize};
use rayon::prelude::*;

use crate::{
    evaluate::metrics::Predictions,
    progress::{Cancelled, Progress, Unit, check},
    recipe::in_order,
    split::{Split, Subset},
};

/// Rows and columns of the pictures compared.
const SIDE: usize = 64;
/// Neighbours that vote.
const VOTERS: usize = 5;
/// Images answered between two looks at whether to stop.
const GROUP: usize = 64;

/// The picture that is compared: grey, `[64, 64]`, the whole image.
pub fn picture(image: &RgbImage) -> Vec<u8> {
    let small = resize(image, SIDE, SIDE, Resample::Bilinear);
    small.pixels().as_chunks().0.iter().copied().map(luma).collect()
}

/// For each test image of each round, the share of its five nearest training images that is of each
/// class, by the squared difference of pixels. `pictures` and `labels` are of the whole dataset.
///
/// # Errors
/// [`Cancelled`].
pub fn nearest(
    pictures: &[Vec<u8>],
    labels: &[usize],
    classes: usize,
    rounds: &[Split],
    progress: &dyn Progress,
) -> Result<Predictions, Cancelled> {
    let total: usize = rounds.iter().map(|split| split.indices(Subset::Test).len()).sum();
    let task = progress.task("nearest neighbours", Some(total as u64), Unit::Items);
    let mut answers = Vec::new();
    for split in rounds {
        let train = split.indices(Subset::Train);
        let mut round = Predictions::default();
        for group in split.indices(Subset::Test).chunks(GROUP) {
            check(progress)?;
            let votes: Vec<Vec<f32>> =
                group.par_iter().map(|&image| votes(image, &train, pictures, labels, classes)).collect();
            for (&image, votes) in group.iter().zip(votes) {
                round.push(labels[image], votes);
            }
            task.advance(group.len() as u64);
        }
        answers.push(round);
    }
    Ok(in_order(rounds, answers))
}

fn votes(image: usize, train: &[usize], pictures: &[Vec<u8>], labels: &[usize], classes: usize) -> Vec<f32> {
    let mut distances: Vec<(u32, usize)> =
        train.iter().map(|&other| (distance(&pictures[image], &pictures[other]), other)).collect();
    let voters = VOTERS.min(distances.len());
    if voters == 0 {
        return vec![1.0 / classes as f32; classes];
    }
    distances.select_nth_unstable(voters - 1);
    let mut votes = vec![0.0; classes];
    for (_, voter) in &distances[..voters] {
        votes[labels[*voter]] += 1.0 / voters as f32;
    }
    votes
}

/// Sum of squared differences; 64² · 255² fits in 32 bits.
fn distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::Record, progress::Silent, split::Unit as Kept};

    #[test]
    fn the_five_nearest_vote() {
        // Grey values 0 to 5 of class 0 or 1 are trained on; 2 and 9 are asked for.
        let values = [0, 1, 2, 3, 4, 5, 2, 9];
        let labels = [0, 0, 1, 1, 1, 1, 0, 1];
        let pictures: Vec<Vec<u8>> = values.iter().map(|&value| vec![value; SIDE * SIDE]).collect();
        let record =
            |index: usize| Record { path: index.to_string(), sha256: index.to_string(), ..Record::default() };
        let records: Vec<Record> = (0..8).map(record).collect();
        let subsets = [[Subset::Train; 6].as_slice(), &[Subset::Test; 2]].concat();
        let split = Split::from_subsets(&records, &subsets, Kept::Image);
        let answers = nearest(&pictures, &labels, 2, &[split], &Silent).unwrap();
        assert_eq!(answers.labels, [0, 1]);
        // 0 to 4: two of class 0. 1 to 5: one of class 0.
        for (votes, expected) in answers.probabilities.iter().zip([[0.4, 0.6], [0.2, 0.8]]) {
            assert!(votes.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{votes:?}");
        }
    }

    #[test]
    fn pictures_of_any_size_are_compared() {
        let flat = |side: usize| RgbImage::new(side, 2 * side, vec![80; side * side * 6]).unwrap();
        assert_eq!(distance(&picture(&flat(3)), &picture(&flat(90))), 0);
        assert_eq!(distance(&[0, 255], &[255, 0]), 2 * 65025);
    }
}
