//! What a score would be by chance.

use std::collections::BTreeMap;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::evaluate::{
    interval::{Interval, RESAMPLES, percentiles, sorted},
    metrics::Predictions,
};

/// The range that holds 95 % of the AUROCs of these answers when the classes are dealt anew among the
/// units (patients): what they would be worth if they had nothing to do with the class. `None` when
/// too few of the deals hold every class.
///
/// Source: Ojala and Garriga, Permutation Tests for Studying Classifier Performance, 2010.
pub fn chance(predictions: &Predictions, units: &[usize], classes: usize, seed: u64) -> Option<Interval> {
    let mut entities: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (position, (&unit, &label)) in units.iter().zip(&predictions.labels).enumerate() {
        entities.entry((unit, label)).or_default().push(position);
    }
    let mut hand: Vec<usize> = entities.keys().map(|(_, label)| *label).collect();
    let positions: Vec<Vec<usize>> = entities.into_values().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut dealt = predictions.clone();
    let deal = |_| {
        hand.shuffle(&mut rng);
        for (positions, &label) in positions.iter().zip(&hand) {
            for &position in positions {
                dealt.labels[position] = label;
            }
        }
        dealt.mean_auroc(classes)
    };
    percentiles(&sorted((0..RESAMPLES).filter_map(deal)))
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    /// `patients` of two classes in turn with `slices` images that all score alike.
    fn cohort(patients: usize, slices: usize, seed: u64) -> (Predictions, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut predictions, mut units) = (Predictions::default(), Vec::new());
        for patient in 0..patients {
            let score = rng.random::<f32>();
            for _ in 0..slices {
                predictions.push(patient % 2, vec![1.0 - score, score]);
                units.push(patient);
            }
        }
        (predictions, units)
    }

    #[test]
    fn slices_of_a_patient_are_one_chance() {
        let (predictions, units) = cohort(4, 50, 1);
        // Two of four patients are ranked above the other two in one of six deals.
        assert_eq!(chance(&predictions, &units, 2, 1), Some([0.0, 1.0]));
        let single: Vec<usize> = (0..200).collect();
        let [low, high] = chance(&predictions, &single, 2, 1).unwrap();
        assert!(low > 0.4 && high < 0.6, "{low} to {high}");
    }

    #[test]
    fn a_score_by_chance_is_in_the_range_as_often_as_it_says() {
        let inside = (0..200).filter(|&seed| {
            let (predictions, units) = cohort(12, 3, seed);
            let [low, high] = chance(&predictions, &units, 2, 7).unwrap();
            (low..=high).contains(&predictions.mean_auroc(2).unwrap())
        });
        // 0.95 of 200, at most four standard deviations (3.1) below; ties make it a little more.
        let inside = inside.count();
        assert!(inside >= 178, "{inside}");
    }

    #[test]
    fn one_class_alone_has_no_chance() {
        let predictions = Predictions { labels: vec![1, 1], probabilities: vec![vec![0.5, 0.5]; 2] };
        assert_eq!(chance(&predictions, &[0, 1], 2, 1), None);
    }
}
