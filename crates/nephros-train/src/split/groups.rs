//! Images that belong together.

use std::collections::{BTreeMap, HashMap};

use super::Unit;
use crate::manifest::Record;

/// Images of each class, in manifest order.
pub(super) fn by_class(records: &[Record]) -> BTreeMap<&str, Vec<usize>> {
    let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        classes.entry(&record.class).or_default().push(index);
    }
    classes
}

/// For each image the first image of its group. Exact copies of an image are always together.
pub(crate) fn grouped(records: &[Record], unit: Unit) -> Vec<usize> {
    let mut keys: Vec<HashMap<String, usize>> = vec![HashMap::new(), HashMap::new()];
    let mut parents: Vec<usize> = (0..records.len()).collect();
    let runs = if unit == Unit::Run { runs(records) } else { Vec::new() };
    for (index, record) in records.iter().enumerate() {
        let unit_key = match unit {
            Unit::Patient => record.patient.clone(),
            Unit::Group => record.group.clone(),
            Unit::Run => format!("run {}", runs[index]),
            Unit::Image => format!("image {index}"),
        };
        for (key, first) in [record.sha256.clone(), unit_key].into_iter().zip(&mut keys) {
            let other = *first.entry(key).or_insert(index);
            union(&mut parents, index, other);
        }
    }
    (0..records.len()).map(|index| root(&mut parents, index)).collect()
}

/// Whether every image has a group, and every class as many as there are sides. A group counts to the
/// class of its first image, as in [`super::draw::by_unit`].
pub(super) fn can_share(records: &[Record]) -> bool {
    let mut class_of: BTreeMap<&str, &str> = BTreeMap::new();
    for record in records {
        class_of.entry(&record.group).or_insert(&record.class);
    }
    let groups = |class: &str| class_of.values().filter(|of| **of == class).count();
    !class_of.contains_key("") && by_class(records).keys().all(|class| groups(class) >= SIDES)
}

/// Training, validation and test.
const SIDES: usize = 3;

/// Joins two groups under the smaller first image.
pub(crate) fn union(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}

pub(crate) fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

/// Without patients, neighbours by file number are the likeliest to be one patient's: images of a
/// class in natural order are cut into [`RUNS`] runs of equal length.
fn runs(records: &[Record]) -> Vec<String> {
    let mut runs = vec![String::new(); records.len()];
    for (class, members) in by_class(records) {
        let mut sorted = members;
        sorted.sort_by_cached_key(|&index| natural_key(&records[index].path));
        let count = sorted.len();
        for (rank, index) in sorted.into_iter().enumerate() {
            runs[index] = format!("{class} {}", rank * RUNS / count);
        }
    }
    runs
}

/// Runs a class is cut into when no patient is known.
const RUNS: usize = 10;

/// Digits compare as numbers: `a (9)` before `a (10)`.
fn natural_key(path: &str) -> Vec<(String, u64)> {
    let mut key: Vec<(String, u64)> = vec![(String::new(), 0)];
    for character in path.chars() {
        match (character.to_digit(10), key.last_mut()) {
            (Some(digit), Some((_, number))) => {
                *number = number.saturating_mul(10).saturating_add(digit.into());
            }
            (None, Some((text, 0))) => text.push(character),
            (None, _) => key.push((character.to_string(), 0)),
            (Some(_), None) => {}
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_numbers_sort_as_numbers() {
        assert!(natural_key("a (9).jpg") < natural_key("a (10).jpg"));
    }
}
