//! What a model's features say about pairs of pictures that the pixels leave open.
//!
//! Without a model the audit has an embedding too: the 64×64 picture of a fingerprint, whose
//! correlation is the cosine of two vectors less their means. A model adds a second one. It only
//! ever joins pictures that resemble each other by their pixels already: a network that was trained
//! to tell classes may see two patients of one class as the same, and must not join them alone.

use rayon::prelude::*;

use super::neighbours::Known;
use crate::progress::{Cancelled, Progress, Unit, check};

/// Cosines are this much above the nearest of 95 % of what cannot be one patient's.
const MARGIN: f32 = 0.02;
/// Rows that are compared between two looks at whether to stop.
const ROWS: usize = 256;

/// Features of pictures as directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    channels: usize,
    /// `[pictures, channels]`, each of length 1, or of 0 where nothing sets the picture apart.
    values: Vec<f32>,
}

impl Embeddings {
    /// Of pooled features `[pictures, channels]`: each channel less its mean and over its deviation.
    pub fn of(features: &[f32], channels: usize) -> Self {
        let pictures = (features.len() / channels.max(1)).max(1) as f64;
        let column = |channel: usize| features.iter().skip(channel).step_by(channels.max(1));
        let moments: Vec<(f32, f32)> = (0..channels)
            .map(|channel| {
                let mean = column(channel).map(|&value| f64::from(value)).sum::<f64>() / pictures;
                let square = column(channel).map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
                // A channel that never moves says nothing.
                let deviation = (square / pictures).sqrt();
                (mean as f32, if deviation > 1e-6 { 1.0 / deviation as f32 } else { 0.0 })
            })
            .collect();
        let mut values = features.to_vec();
        for row in values.chunks_exact_mut(channels.max(1)) {
            row.iter_mut().zip(&moments).for_each(|(value, (mean, scale))| *value = (*value - mean) * scale);
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            if length > 0.0 {
                for value in row.iter_mut() {
                    *value /= length;
                }
            }
        }
        Self { channels, values }
    }

    /// Cosine of two pictures, -1 to 1.
    pub fn cosine(&self, a: usize, b: usize) -> f32 {
        self.row(a).iter().zip(self.row(b)).map(|(a, b)| a * b).sum()
    }

    /// The cosine from which two pictures may be one patient's, chosen as the level of pixels is: above
    /// the nearest of 95 % of pictures among those that cannot be. `None` where nothing is apart.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn level(&self, known: &[Known], progress: &dyn Progress) -> Result<Option<f32>, Cancelled> {
        let task = progress.task("compare features", Some(known.len() as u64), Unit::Items);
        let mut nearest = Vec::with_capacity(known.len());
        for start in (0..known.len()).step_by(ROWS) {
            check(progress)?;
            let rows = start..(start + ROWS).min(known.len());
            let apart = |a: usize| {
                let others = (0..known.len()).filter(|&b| known[a].apart(known[b]));
                others.map(|b| self.cosine(a, b)).reduce(f32::max)
            };
            nearest.extend(rows.clone().into_par_iter().filter_map(apart).collect::<Vec<f32>>());
            task.advance(rows.len() as u64);
        }
        nearest.sort_by(f32::total_cmp);
        Ok(nearest.get(nearest.len() * 95 / 100).map(|cosine| cosine + MARGIN))
    }

    fn row(&self, picture: usize) -> &[f32] {
        &self.values[picture * self.channels..(picture + 1) * self.channels]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn cosines_are_of_standardised_features() {
        // Means 2 and 20, deviations 1 and 10: (-1, -1), (1, 1), (-1, 1), (1, -1).
        let features = [1.0, 10.0, 3.0, 30.0, 1.0, 30.0, 3.0, 10.0];
        let embeddings = Embeddings::of(&features, 2);
        for (a, b, expected) in [(0, 0, 1.0), (0, 1, -1.0), (0, 2, 0.0), (2, 3, -1.0)] {
            assert!((embeddings.cosine(a, b) - expected).abs() < 1e-6, "{a} {b}");
        }
        // A channel that never moves plays no part, and one picture alone has no direction.
        let flat = Embeddings::of(&[1.0, 5.0, 3.0, 5.0], 2);
        assert!((flat.cosine(0, 1) + 1.0).abs() < 1e-6);
        assert!(Embeddings::of(&[1.0, 5.0], 2).cosine(0, 0).abs() < 1e-6);
    }

    #[test]
    fn the_level_is_above_what_cannot_be_one_patient() {
        let features = [1.0, 10.0, 3.0, 30.0, 1.0, 30.0, 3.0, 10.0];
        let embeddings = Embeddings::of(&features, 2);
        let of_class = |class| Known { class, patient: None };
        // The first two are opposite; each of them is at right angles to the others, which are apart.
        let known = [0, 0, 1, 1].map(of_class);
        let level = embeddings.level(&known, &Silent).unwrap().unwrap();
        assert!((level - MARGIN).abs() < 1e-6, "{level}");
        assert_eq!(embeddings.level(&[of_class(0); 4], &Silent).unwrap(), None);
    }
}
