//! Which images an epoch sees, and in what order.

use std::collections::HashMap;

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::config::{ClassWeights, Params, Sampling};

/// Orders the images of each epoch by `SEED` and the epoch's number alone.
///
/// Images of the data have the positions from 0; drawn slices come after them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// How often an epoch is to see each image of the data; `None` for each once.
    wanted: Option<Vec<f64>>,
    /// Images of the data.
    images: usize,
    /// Drawn slices.
    drawn: usize,
    /// Drawn slices that an epoch sees.
    drawn_an_epoch: usize,
}

impl Sampler {
    /// Every image once an epoch.
    pub fn each_once(images: usize) -> Self {
        Self { wanted: None, images, drawn: 0, drawn_an_epoch: 0 }
    }

    /// As `SAMPLING` and `CLASS_WEIGHTS` say, for images of these labels; images of one patient
    /// share their number in `groups`.
    pub fn new(params: &Params, labels: &[usize], groups: &[usize]) -> Self {
        let once = Self::each_once(labels.len());
        match params.sampling {
            Sampling::Image => once,
            Sampling::Patient => Self { wanted: Some(by_patient(params, labels, groups)), ..once },
        }
    }

    /// Adds drawn slices, as many that `share` of an epoch is drawn; `share` is below 1.
    #[must_use]
    pub fn with_drawn(self, drawn: usize, share: f64) -> Self {
        let drawn_an_epoch = (self.images as f64 * share / (1.0 - share)).round() as usize;
        Self { drawn, drawn_an_epoch: if drawn == 0 { 0 } else { drawn_an_epoch }, ..self }
    }

    /// Images that an epoch sees.
    pub fn len(&self) -> usize {
        self.images + self.drawn_an_epoch
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often an epoch sees each image of the data on average.
    pub fn frequencies(&self) -> Vec<f64> {
        self.wanted.clone().unwrap_or_else(|| vec![1.0; self.images])
    }

    /// Positions of an epoch's images, in its order; [`Self::len`] of them.
    pub fn epoch(&self, seed: u64, number: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number as u64);
        let mut order: Vec<usize> = match &self.wanted {
            Some(wanted) => systematic(wanted, self.images, rng.random()),
            None => (0..self.images).collect(),
        };
        if self.drawn_an_epoch > 0 {
            let wanted = vec![self.drawn_an_epoch as f64 / self.drawn as f64; self.drawn];
            let chosen = systematic(&wanted, self.drawn_an_epoch, rng.random());
            order.extend(chosen.into_iter().map(|position| self.images + position));
        }
        order.shuffle(&mut rng);
        order
    }
}

/// How often to see each image so that every patient of a class is seen equally often, and the
/// classes as often as `CLASS_WEIGHTS` says: equally when balanced, else by their images.
fn by_patient(params: &Params, labels: &[usize], groups: &[usize]) -> Vec<f64> {
    let mut class_images: HashMap<usize, usize> = HashMap::new();
    let mut patient_images: HashMap<(usize, usize), usize> = HashMap::new();
    for (&label, &group) in labels.iter().zip(groups) {
        *class_images.entry(label).or_default() += 1;
        *patient_images.entry((label, group)).or_default() += 1;
    }
    let mut class_patients: HashMap<usize, usize> = HashMap::new();
    for &(label, _) in patient_images.keys() {
        *class_patients.entry(label).or_default() += 1;
    }
    let of_class = |label: usize| match params.class_weights {
        ClassWeights::Balanced => labels.len() as f64 / class_images.len() as f64,
        ClassWeights::None => class_images[&label] as f64,
    };
    let of_image = |(&label, &group): (&usize, &usize)| {
        of_class(label) / class_patients[&label] as f64 / patient_images[&(label, group)] as f64
    };
    labels.iter().zip(groups).map(of_image).collect()
}

/// Systematic sampling: position `i` is taken `wanted[i]` times on average and never more than one
/// time above or below it, `count` positions in all (the sum of `wanted`). `offset` is in 0 to 1.
///
/// Source: Madow and Madow, On the theory of systematic sampling, 1944.
fn systematic(wanted: &[f64], count: usize, offset: f64) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count);
    let mut sum = 0.0;
    for (position, wanted) in wanted.iter().enumerate() {
        sum += wanted;
        while chosen.len() < count && (chosen.len() as f64 + offset) < sum {
            chosen.push(position);
        }
    }
    // Rounding may leave the sum a little below the count.
    chosen.resize(count, wanted.len().saturating_sub(1));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two patients of class 0 with 6 and 2 images, two of class 1 with 1 and 3.
    const LABELS: [usize; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    const GROUPS: [usize; 12] = [0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3];

    fn counts(sampler: &Sampler, epochs: usize) -> Vec<usize> {
        let mut counts = vec![0; LABELS.len() + sampler.drawn];
        for number in 1..=epochs {
            let order = sampler.epoch(7, number);
            assert_eq!(order.len(), sampler.len());
            for position in order {
                counts[position] += 1;
            }
        }
        counts
    }

    fn params(class_weights: ClassWeights) -> Params {
        Params { sampling: Sampling::Patient, class_weights, ..crate::testing::params() }
    }

    fn close(counts: &[usize], expected: f64) -> bool {
        counts.iter().all(|&count| (count as f64 - expected).abs() < 0.1 * expected)
    }

    #[test]
    fn by_image_each_is_seen_once_in_another_order_each_epoch() {
        let sampler = Sampler::new(&crate::testing::params(), &LABELS, &GROUPS);
        assert_eq!(counts(&sampler, 3)[..12], [3; 12]);
        assert_ne!(sampler.epoch(7, 1), sampler.epoch(7, 2));
        assert_eq!(sampler.epoch(7, 1), sampler.epoch(7, 1));
    }

    #[test]
    fn by_patient_classes_and_patients_are_seen_equally_often() {
        let counts = counts(&Sampler::new(&params(ClassWeights::Balanced), &LABELS, &GROUPS), 400);
        // 400 epochs of 12: half to each class, half of that to each patient, 1200 times.
        assert!(close(&counts[..6], 1200.0 / 6.0), "{counts:?}");
        assert!(close(&counts[6..8], 1200.0 / 2.0), "{counts:?}");
        assert!(close(&counts[8..9], 1200.0), "{counts:?}");
        assert!(close(&counts[9..12], 1200.0 / 3.0), "{counts:?}");
    }

    #[test]
    fn without_class_weights_classes_keep_their_share() {
        let counts = counts(&Sampler::new(&params(ClassWeights::None), &LABELS, &GROUPS), 400);
        // 400 epochs of 8 images of class 0, half to each patient.
        assert!(close(&counts[..6], 1600.0 / 6.0), "{counts:?}");
        assert!(close(&counts[8..9], 800.0), "{counts:?}");
    }

    #[test]
    fn drawn_slices_are_their_share_of_an_epoch() {
        let sampler = Sampler::new(&params(ClassWeights::Balanced), &LABELS, &GROUPS).with_drawn(20, 0.25);
        // 12 images are three quarters of 16.
        assert_eq!(sampler.len(), 16);
        // 4 an epoch of 20 slices: 4000 times each, with a standard deviation of 57 at most.
        let counts = counts(&sampler, 20_000);
        assert!(close(&counts[12..], 4000.0), "{counts:?}");
        assert_eq!(Sampler::each_once(5).with_drawn(0, 0.5).len(), 5);
    }
}
