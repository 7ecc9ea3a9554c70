//! Every pair of pictures compared, and those joined that resemble each other enough.

use rayon::prelude::*;

use super::fingerprint::{COARSE, Fingerprint};
use crate::{
    progress::{Cancelled, Progress, Unit, check},
    split::{root, union},
};

/// Correlations from which two pictures may be joined as slices of one patient. Which one holds is
/// chosen by how much pictures of different classes resemble each other, see [`Neighbours::level`].
pub const LEVELS: [f32; 5] = [0.93, 0.94, 0.95, 0.96, 0.97];
/// The level where nothing tells how much different patients resemble each other.
const BLIND_LEVEL: usize = 1;
/// A level is this much above the resemblance of 95 % of images with the nearest of another class.
const MARGIN: f32 = 0.02;
/// Correlations below this are not looked at: [`LEVELS`] less [`MARGIN`] begins here.
const SEEN: f32 = 0.91;
/// Correlation of the coarse pictures below which that of the small ones is not computed. Detail lowers
/// it: of all pairs of kidney-ct-4class, of the 465 scans and of three drawn cohorts, none with 0.90 or
/// more in detail has less than 0.928 here.
const COARSE_SEEN: f32 = 0.92;
/// A near duplicate: the same picture at another size, brightness or quality, or the next slice.
const DUPLICATE: f32 = 0.97;
/// Bits of the perceptual hash in which near duplicates differ at most.
const DUPLICATE_BITS: u32 = 10;
/// The resemblance of adjacent file numbers is believed where it exceeds this share of chance pairs.
const CHANCE: f64 = 0.99;
/// The same where there are no chance pairs.
const BLIND_CHANCE: f32 = 0.9;
/// Pairs of each image that chance is measured on.
const CHANCE_PAIRS: usize = 16;

/// What cannot be one patient's, so far as is known: the class and the patient of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Class.
    pub class: usize,
    /// Patient.
    pub patient: Option<usize>,
}

impl Known {
    /// Whether two pictures are of different patients, or of different classes and perhaps so.
    pub fn apart(self, other: Self) -> bool {
        match (self.patient, other.patient) {
            (Some(one), Some(another)) => one != another,
            _ => self.class != other.class,
        }
    }
}

/// What the comparison of all pairs found.
#[derive(Debug)]
pub struct Neighbours {
    /// Correlation of each picture with the nearest that is not apart; 0 when below 0.91.
    pub nearest: Vec<f32>,
    /// Whether each picture has a near duplicate.
    pub duplicated: Vec<bool>,
    /// The same with the nearest that is apart.
    nearest_apart: Vec<f32>,
    /// Parents of a disjoint-set forest for each level.
    forests: Vec<Vec<usize>>,
    /// Correlation that 1 % of pairs that are apart exceed.
    pub chance: f32,
    /// Pairs of 0.91 or more that are not apart.
    pub open: Vec<(usize, usize)>,
}

/// Rows that are compared together, so that the coarse pictures of a column are read once.
const ROWS: usize = 16;
/// Blocks of rows between two looks at whether to stop.
const BLOCKS: usize = 32;

/// A pair of at least [`SEEN`].
struct Pair {
    a: usize,
    b: usize,
    correlation: f32,
    duplicate: bool,
}

impl Neighbours {
    /// Compares all pairs.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn find(prints: &[Fingerprint], known: &[Known], progress: &dyn Progress) -> Result<Self, Cancelled> {
        let count = prints.len();
        let coarse = Coarse::of(prints);
        let mut found = Self {
            nearest: vec![0.0; count],
            duplicated: vec![false; count],
            nearest_apart: vec![0.0; count],
            forests: vec![(0..count).collect(); LEVELS.len()],
            chance: chance(prints, known),
            open: Vec::new(),
        };
        let task = progress.task("compare images", Some(count as u64), Unit::Items);
        let starts: Vec<usize> = (0..count).step_by(ROWS).collect();
        for starts in starts.chunks(BLOCKS) {
            check(progress)?;
            let pairs: Vec<Vec<Pair>> =
                starts.par_iter().map(|&start| block(start, &coarse, prints)).collect();
            // In order, whichever thread was first.
            for pair in pairs.iter().flatten() {
                found.take(pair, known);
            }
            task.advance((starts.len() * ROWS) as u64);
        }
        Ok(found)
    }

    fn take(&mut self, pair: &Pair, known: &[Known]) {
        let &Pair { a, b, correlation, duplicate } = pair;
        let apart = known[a].apart(known[b]);
        let nearest = if apart { &mut self.nearest_apart } else { &mut self.nearest };
        for picture in [a, b] {
            nearest[picture] = nearest[picture].max(correlation);
            self.duplicated[picture] |= duplicate;
        }
        if !apart {
            self.open.push((a, b));
        }
        for (forest, level) in self.forests.iter_mut().zip(LEVELS) {
            if duplicate || (!apart && correlation >= level) {
                union(forest, a, b);
            }
        }
    }

    /// The lowest level that keeps nearly all pictures apart that cannot be one patient's. Pictures
    /// of two classes may be one patient's after all; those few are the other 5 %.
    pub fn level(&self, known: &[Known]) -> usize {
        if !known.iter().any(|other| other.apart(known[0])) {
            return BLIND_LEVEL;
        }
        let mut resemblances = self.nearest_apart.clone();
        resemblances.sort_by(f32::total_cmp);
        let wanted = resemblances[resemblances.len() * 95 / 100] + MARGIN;
        LEVELS.iter().position(|&level| level >= wanted).unwrap_or(LEVELS.len() - 1)
    }

    /// The disjoint sets at a level.
    pub fn forest(&mut self, level: usize) -> Vec<usize> {
        std::mem::take(&mut self.forests[level])
    }
}

/// The coarse pictures side by side.
struct Coarse {
    /// `[pictures, COARSE]`
    values: Vec<i16>,
    /// Length of each as a vector.
    norms: Vec<f32>,
}

impl Coarse {
    fn of(prints: &[Fingerprint]) -> Self {
        let values: Vec<i16> = prints.iter().flat_map(Fingerprint::coarse).collect();
        let norm = |row: &[i16]| (product(row, row) as f32).sqrt();
        let norms = values.chunks_exact(COARSE).map(norm).collect();
        Self { values, norms }
    }

    fn row(&self, index: usize) -> &[i16] {
        &self.values[index * COARSE..(index + 1) * COARSE]
    }

    /// Correlation; 0 when one is flat.
    fn correlation(&self, a: usize, b: usize) -> f32 {
        let norms = self.norms[a] * self.norms[b];
        if norms > 0.0 { product(self.row(a), self.row(b)) as f32 / norms } else { 0.0 }
    }
}

/// Scalar product. No sum exceeds `COARSE * 1020²`, which fits.
fn product(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// Pairs of the rows from `start` on with all later pictures.
fn block(start: usize, coarse: &Coarse, prints: &[Fingerprint]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for b in start + 1..prints.len() {
        for a in start..(start + ROWS).min(b) {
            if coarse.correlation(a, b) < COARSE_SEEN {
                continue;
            }
            let correlation = prints[a].correlation(&prints[b]);
            if correlation >= SEEN {
                let near = correlation >= DUPLICATE;
                let duplicate = near && prints[a].hash_distance(&prints[b]) <= DUPLICATE_BITS;
                pairs.push(Pair { a, b, correlation, duplicate });
            }
        }
    }
    pairs
}

/// The correlation that 1 % of pairs that are apart exceed. Pairs are taken at fixed strides, which
/// the sorted order makes a fair sample of all.
fn chance(prints: &[Fingerprint], known: &[Known]) -> f32 {
    let count = prints.len();
    let strides =
        (1..=CHANCE_PAIRS).map(|part| part * count / (CHANCE_PAIRS + 1)).filter(|&stride| stride > 0);
    let mut correlations: Vec<f32> = strides
        .flat_map(|stride| (0..count).map(move |a| (a, (a + stride) % count)))
        .filter(|&(a, b)| known[a].apart(known[b]))
        .map(|(a, b)| prints[a].correlation(&prints[b]))
        .collect();
    correlations.sort_by(f32::total_cmp);
    let position = (correlations.len() as f64 * CHANCE) as usize;
    correlations.get(position).copied().unwrap_or(BLIND_CHANCE)
}

/// Nearest pictures that vote on a class.
const VOTERS: usize = 5;
/// Parts of the data, each of which is classified by the others.
const FOLDS: usize = 5;

/// Accuracy of a vote of the five nearest pictures, without any training: the class of each picture
/// is that of the nearest ones outside its fold. One accuracy for each way to draw the folds, in which
/// every picture has the number of its fold.
///
/// # Errors
/// [`Cancelled`].
pub fn nearest_votes(
    prints: &[Fingerprint],
    classes: &[usize],
    ways: [&[usize]; 2],
    progress: &dyn Progress,
) -> Result<[f64; 2], Cancelled> {
    let coarse = Coarse::of(prints);
    let task = progress.task("let nearest images vote", Some(prints.len() as u64), Unit::Items);
    let rows: Vec<usize> = (0..prints.len()).collect();
    let mut right = [0; 2];
    for rows in rows.chunks(ROWS * BLOCKS) {
        check(progress)?;
        let answers: Vec<[bool; 2]> = rows
            .par_iter()
            .map(|&row| votes(row, &coarse, classes, ways).map(|class| class == Some(classes[row])))
            .collect();
        for answers in answers {
            right = [right[0] + usize::from(answers[0]), right[1] + usize::from(answers[1])];
        }
        task.advance(rows.len() as u64);
    }
    Ok(right.map(|right| right as f64 / prints.len().max(1) as f64))
}

/// The class that the nearest outside the fold of `row` vote for, for each way to draw folds.
fn votes(row: usize, coarse: &Coarse, classes: &[usize], ways: [&[usize]; 2]) -> [Option<usize>; 2] {
    let mut nearest: [Nearest; 2] = Default::default();
    for (other, &class) in classes.iter().enumerate() {
        let correlation = coarse.correlation(row, other);
        for (nearest, folds) in nearest.iter_mut().zip(ways) {
            if folds[other] != folds[row] {
                nearest.offer(correlation, class);
            }
        }
    }
    nearest.map(|nearest| nearest.vote())
}

/// Correlation and class of the nearest so far, the nearest first.
#[derive(Default)]
struct Nearest(Vec<(f32, usize)>);

impl Nearest {
    fn offer(&mut self, correlation: f32, class: usize) {
        if self.0.len() < VOTERS || self.0.last().is_some_and(|(least, _)| correlation > *least) {
            let place = self.0.partition_point(|(better, _)| *better >= correlation);
            self.0.insert(place, (correlation, class));
            self.0.truncate(VOTERS);
        }
    }

    /// The commonest class; of equal ones that of the nearer.
    fn vote(&self) -> Option<usize> {
        let votes = |class: usize| self.0.iter().filter(|(_, of)| *of == class).count();
        // `max_by_key` takes the last of equal ones.
        self.0.iter().rev().map(|(_, class)| *class).max_by_key(|&class| votes(class))
    }
}

/// A fold for each picture, as a random split would: in the order of digests, which is as good as
/// shuffled and needs no seed.
pub fn folds_by_image(prints: &[Fingerprint]) -> Vec<usize> {
    let mut order: Vec<(&str, usize)> =
        prints.iter().enumerate().map(|(index, print)| (print.pixels.as_str(), index)).collect();
    order.sort_unstable();
    let mut folds = vec![0; prints.len()];
    for (rank, (_, index)) in order.into_iter().enumerate() {
        folds[index] = rank % FOLDS;
    }
    folds
}

/// A fold for each picture that keeps groups whole: within each class the groups go, largest first,
/// to the fold with the fewest pictures of that class. A group counts to the class of its first picture.
pub fn folds_by_group(groups: &[usize], classes: &[usize]) -> Vec<usize> {
    let mut sizes = vec![0; groups.len()];
    for &group in groups {
        sizes[group] += 1;
    }
    let mut order: Vec<usize> = (0..groups.len()).filter(|&group| sizes[group] > 0).collect();
    order.sort_by_key(|&group| std::cmp::Reverse(sizes[group]));
    let mut filled = vec![[0; FOLDS]; classes.iter().max().map_or(0, |most| most + 1)];
    let mut fold_of = vec![0; groups.len()];
    for group in order {
        let filled = &mut filled[classes[group]];
        let fold = (0..FOLDS).min_by_key(|&fold| filled[fold]).unwrap_or(0);
        filled[fold] += sizes[group];
        fold_of[group] = fold;
    }
    groups.iter().map(|&group| fold_of[group]).collect()
}

/// The root of each member of a forest, the smallest of its set.
pub fn roots(forest: &mut [usize]) -> Vec<usize> {
    (0..forest.len()).map(|index| root(forest, index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_of_the_nearest_five_decides_and_a_tie_goes_to_the_nearer() {
        let vote = |offers: &[(f32, usize)]| {
            let mut nearest = Nearest::default();
            for &(correlation, class) in offers {
                nearest.offer(correlation, class);
            }
            nearest.vote()
        };
        assert_eq!(vote(&[(0.1, 7), (0.9, 1), (0.8, 2), (0.7, 2), (0.6, 1), (0.5, 2)]), Some(2));
        assert_eq!(vote(&[(0.5, 3), (0.6, 3), (0.9, 4), (0.8, 4)]), Some(4));
        assert_eq!(vote(&[]), None);
    }

    #[test]
    fn folds_keep_groups_whole_and_are_filled_evenly() {
        // Five groups of class 0 with 3, 2, 2, 1 and 1 images, two of class 1.
        let groups = [0, 0, 0, 3, 3, 5, 5, 7, 8, 9, 10];
        let classes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        let folds = folds_by_group(&groups, &classes);
        for (group, fold) in groups.iter().zip(&folds) {
            assert_eq!(*fold, folds[*group]);
        }
        let mut of_class_0: Vec<usize> = [0, 3, 5, 7, 8].map(|group| folds[group]).to_vec();
        of_class_0.sort_unstable();
        assert_eq!(of_class_0, [0, 1, 2, 3, 4]);
        assert_ne!(folds[9], folds[10]);
    }

    #[test]
    fn different_patients_are_apart_and_so_are_classes_of_unknown_ones() {
        let known = |class, patient| Known { class, patient };
        assert!(known(0, Some(1)).apart(known(0, Some(2))));
        assert!(!known(0, Some(1)).apart(known(1, Some(1))));
        assert!(known(0, None).apart(known(1, Some(1))));
        assert!(!known(0, None).apart(known(0, Some(1))));
    }
}
