//! Labels dealt anew among patients.

use std::collections::BTreeMap;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::split::{Split, Subset};

/// Label of a unit, and the positions of its images.
type Entity = (usize, Vec<usize>);

/// Deals the labels of all units anew; every image of a unit gets the same. `units` numbers the unit of
/// each image; one with images of two classes counts as two.
///
/// Units whose images are on one side of every round trade labels with those of the same sides, so
/// that each side keeps as many patients of each class. Units on both sides of a round trade among
/// themselves: whoever was trained on is recognised in the test, which is what this control finds.
pub fn shuffled(units: &[usize], labels: &[usize], rounds: &[Split], seed: u64) -> Vec<usize> {
    let mut entities: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (position, (&unit, &label)) in units.iter().zip(labels).enumerate() {
        entities.entry((unit, label)).or_default().push(position);
    }
    let mut strata: BTreeMap<Option<Vec<Subset>>, Vec<Entity>> = BTreeMap::new();
    for ((_, label), positions) in entities {
        strata.entry(sides(&positions, rounds)).or_default().push((label, positions));
    }
    // A class alone has no labels to trade.
    let is_mixed = |entities: &Vec<Entity>| entities.iter().any(|(label, _)| *label != entities[0].0);
    let strata: Vec<Vec<Entity>> = if strata.values().all(is_mixed) {
        strata.into_values().collect()
    } else {
        vec![strata.into_values().flatten().collect()]
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut dealt = labels.to_vec();
    for entities in strata {
        let mut hand: Vec<usize> = entities.iter().map(|(label, _)| *label).collect();
        hand.shuffle(&mut rng);
        for ((_, positions), label) in entities.into_iter().zip(hand) {
            for position in positions {
                dealt[position] = label;
            }
        }
    }
    dealt
}

/// The side of these images in each round; `None` where they are on several.
fn sides(positions: &[usize], rounds: &[Split]) -> Option<Vec<Subset>> {
    let side = |split: &Split| {
        let subset = split.assignments[positions[0]].subset;
        positions.iter().all(|&position| split.assignments[position].subset == subset).then_some(subset)
    };
    rounds.iter().map(side).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::Record, split::Unit};

    /// 24 patients of 3 images, of two classes in turn; every fourth patient is tested.
    fn cohort() -> (Vec<Record>, Vec<usize>, Vec<usize>) {
        let record = |index: usize| Record {
            path: format!("{index}.png"),
            class: ["Normal", "Tumor"][index / 3 % 2].into(),
            sha256: index.to_string(),
            patient: format!("P{}", index / 3),
            ..Record::default()
        };
        let records: Vec<Record> = (0..72).map(record).collect();
        (records, (0..72).map(|index| index / 3).collect(), (0..72).map(|index| index / 3 % 2).collect())
    }

    fn split(records: &[Record], side: impl Fn(usize) -> bool) -> Split {
        let subset = |index| if side(index) { Subset::Test } else { Subset::Train };
        let subsets: Vec<Subset> = (0..records.len()).map(subset).collect();
        Split::from_subsets(records, &subsets, Unit::Image)
    }

    #[test]
    fn patients_keep_one_label_and_each_side_its_numbers() {
        let (records, units, labels) = cohort();
        let by_patient = split(&records, |index| index / 6 % 2 == 0);
        let dealt = shuffled(&units, &labels, std::slice::from_ref(&by_patient), 1);
        assert_ne!(dealt, labels);
        assert!(dealt.chunks(3).all(|images| images.iter().all(|label| *label == images[0])));
        for subset in [Subset::Train, Subset::Test] {
            let tumours = |labels: &[usize]| {
                by_patient.indices(subset).into_iter().filter(|&index| labels[index] == 1).count()
            };
            assert_eq!(tumours(&dealt), tumours(&labels), "{subset}");
        }
        assert_ne!(dealt, shuffled(&units, &labels, &[by_patient], 2));
    }

    #[test]
    fn patients_on_both_sides_keep_one_label_too() {
        let (records, units, labels) = cohort();
        let random = split(&records, |index| index % 3 == 0);
        let dealt = shuffled(&units, &labels, &[random], 1);
        assert_ne!(dealt, labels);
        assert!(dealt.chunks(3).all(|images| images.iter().all(|label| *label == images[0])));
    }

    #[test]
    fn one_patient_of_each_class_a_side_still_trade() {
        let (records, units, labels) = cohort();
        // The test set is one patient: alone it has nobody to trade with.
        let lonely = split(&records, |index| index < 3);
        let dealt = (0..20).map(|seed| shuffled(&units, &labels, std::slice::from_ref(&lonely), seed)[0]);
        assert!(dealt.into_iter().any(|label| label != labels[0]));
    }
}
