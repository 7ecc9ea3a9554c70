//! The training slices nearest to a picture by the network's features.

use std::collections::BTreeMap;

use serde::Serialize;

/// Whose the images trained on are, and what of: one entry for each, in the order of the prints.
///
/// Patients are numbers here. Their names stay with the data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cases {
    /// Position of each image's class among the labels.
    pub labels: Vec<u32>,
    /// Patient of each image, or the group that stands for one.
    pub groups: Vec<u32>,
    /// Image that each row of features is of.
    pub rows: Vec<u32>,
}

impl Cases {
    /// Whether all entries are of `images` images, and each of `rows` rows is of one of them.
    pub(super) fn fit(&self, images: usize, rows: usize) -> bool {
        self.labels.len() == images
            && self.groups.len() == images
            && self.rows.len() == rows
            && self.rows.iter().all(|&image| (image as usize) < images)
    }

    /// The nearest image of each of the `count` nearest groups, the nearest first. `distances` are
    /// those of the rows.
    ///
    /// A patient has many slices that are alike: without this they would fill the list.
    pub(super) fn nearest(&self, distances: &[f64], count: usize) -> Vec<(usize, f64)> {
        let mut nearest: BTreeMap<u32, (usize, f64)> = BTreeMap::new();
        for (&image, &distance) in self.rows.iter().zip(distances) {
            let image = image as usize;
            let best = nearest.entry(self.groups[image]).or_insert((image, distance));
            if distance < best.1 {
                *best = (image, distance);
            }
        }
        let mut nearest: Vec<(usize, f64)> = nearest.into_values().collect();
        nearest.sort_by(|a, b| a.1.total_cmp(&b.1));
        nearest.truncate(count);
        nearest
    }
}

/// A training slice that resembles a picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Similar {
    /// As in the manifest of the training.
    pub path: String,
    /// Its class.
    pub class: String,
    /// Its patient, by a number that holds within the bundle; absent where patients are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patient: Option<u32>,
    /// The group that stands for its patient where patients are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Root mean square over the channels of the last feature map, in standard deviations of a
    /// channel over the training images: the distance that `out_of_range` is told by.
    pub distance: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_patient_does_not_fill_the_list() {
        let cases =
            Cases { labels: vec![0, 0, 1, 1, 0], groups: vec![7, 7, 8, 8, 9], rows: vec![0, 1, 2, 3, 4] };
        let distances = [0.2, 0.1, 0.5, 0.4, 0.3];
        assert_eq!(cases.nearest(&distances, 2), [(1, 0.1), (4, 0.3)]);
        assert_eq!(cases.nearest(&distances, 9), [(1, 0.1), (4, 0.3), (3, 0.4)]);
        assert!(cases.nearest(&distances, 0).is_empty());
    }

    #[test]
    fn rows_of_images_that_are_not_there_do_not_fit() {
        let cases = Cases { labels: vec![0, 1], groups: vec![0, 1], rows: vec![1] };
        assert!(cases.fit(2, 1));
        assert!(!cases.fit(1, 1) && !cases.fit(2, 2));
        assert!(!Cases { rows: vec![2], ..cases }.fit(2, 1));
    }
}
