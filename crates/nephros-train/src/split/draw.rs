//! Which image goes to which side.

use std::collections::BTreeMap;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{
    Split, Subset, Unit,
    groups::{by_class, grouped},
};
use crate::{config::Params, manifest::Record};

/// Keras' `validation_split`: the first `int(p * n)` sorted names of each class are the test set,
/// the next ones the validation set.
pub(super) fn by_name(records: &[Record], params: &Params) -> Vec<Subset> {
    let mut subsets = vec![Subset::Train; records.len()];
    for members in by_class(records).values() {
        let mut sorted = members.clone();
        sorted.sort_by(|&a, &b| records[a].path.cmp(&records[b].path));
        let share = |split: f64| (split * sorted.len() as f64) as usize;
        let (test, validation) = (share(params.test_split), share(params.validation_split));
        for (rank, &index) in sorted.iter().enumerate() {
            subsets[index] = match rank {
                _ if rank < test => Subset::Test,
                _ if rank < test + validation => Subset::Validation,
                _ => Subset::Train,
            };
        }
    }
    subsets
}

/// Shuffles the units of each class and fills test, then validation, up to their share of the
/// class's images; what remains is for training.
pub(super) fn by_unit(records: &[Record], params: &Params, unit: Unit) -> Vec<Subset> {
    let mut subsets = vec![Subset::Train; records.len()];
    for (members, units) in shuffled_units(records, unit, params.seed) {
        let mut units = units.into_iter().peekable();
        for (subset, share) in
            [(Subset::Test, params.test_split), (Subset::Validation, params.validation_split)]
        {
            let goal = share * members.len() as f64;
            let mut taken = 0.0;
            // A unit is taken when that brings the subset nearer to its share; one always is.
            while let Some(next) =
                units.next_if(|next| taken == 0.0 || taken + next.len() as f64 / 2.0 <= goal)
            {
                taken += next.len() as f64;
                for index in next {
                    subsets[index] = subset;
                }
            }
        }
    }
    subsets
}

/// Each image on its own, as many of each class on each side as in `like`. Copies of an image stay
/// together, and a side may hold a few more of them.
pub(super) fn by_image(records: &[Record], like: &Split, seed: u64) -> Vec<Subset> {
    let mut subsets = vec![Subset::Train; records.len()];
    for (members, units) in shuffled_units(records, Unit::Image, seed) {
        let mut units = units.into_iter();
        for subset in [Subset::Test, Subset::Validation] {
            let goal = members.iter().filter(|&&index| like.assignments[index].subset == subset).count();
            let mut taken = 0;
            while taken < goal
                && let Some(next) = units.next()
            {
                taken += next.len();
                for index in next {
                    subsets[index] = subset;
                }
            }
        }
    }
    subsets
}

/// The images of each class, and its units in the order of the seed. A unit belongs to the class of
/// its first image, so that a patient with slices of two classes is shared out once.
fn shuffled_units(records: &[Record], unit: Unit, seed: u64) -> Vec<(Vec<usize>, Vec<Vec<usize>>)> {
    let groups = grouped(records, unit);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let of_class = |(class, members): (&str, Vec<usize>)| {
        let mut units: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, &group) in groups.iter().enumerate() {
            if records[group].class == class {
                units.entry(group).or_default().push(index);
            }
        }
        let mut units: Vec<Vec<usize>> = units.into_values().collect();
        units.shuffle(&mut rng);
        (members, units)
    };
    by_class(records).into_iter().map(of_class).collect()
}
