//! What is known of the places of a batch, for a network that judges places.
//!
//! Of a drawn slice it is known where the lesion is, and of a real one what its label rules out: where there is no
//! tumour, no place shows one. Both are asked of the evidence at each place, beside the loss of the image.

use burn::tensor::{Device, Tensor, TensorData, activation::relu};
use nephros_conv::Shape;

use super::{Inputs, Layout};

/// Share of a place from which it counts as lesion; from [`LEAST_SHARE`] to this it counts as nothing.
const LESION_SHARE: f32 = 0.3;
const LEAST_SHARE: f32 = 0.05;

/// Places of lesions are few; each counts as many.
const LESION_WEIGHT: f32 = 8.0;

/// What each place of a batch should be, and how much that counts.
#[derive(Debug)]
pub(super) struct Known {
    /// Whether a kind is there, `[batch, classes - 1, height, width]`.
    targets: Vec<f32>,
    /// The same shape. Those of drawn slices sum to 1, and those of real ones.
    weights: Vec<f32>,
    shape: [usize; 4],
}

impl Known {
    /// Of some images of an epoch; `None` for a network that does not judge places.
    pub fn of(
        layout: Layout,
        images: &Inputs<'_>,
        positions: &[usize],
        labels: &[usize],
        epoch: u64,
    ) -> Option<Self> {
        if !layout.architecture.judges_places() {
            return None;
        }
        let Shape { height, width, .. } = layout.architecture.feature_shape(layout.image_size);
        let kinds = layout.classes - 1;
        let shape = [positions.len(), kinds, height, width];
        let mut known = Self {
            targets: vec![0.0; shape.iter().product()],
            weights: vec![0.0; shape.iter().product()],
            shape,
        };
        let side = layout.architecture.place_side();
        let (mut drawn, mut real) = (0.0, 0.0);
        let lesions = images.lesions(positions, epoch, side);
        for (at, (lesion, &label)) in lesions.iter().zip(labels).enumerate() {
            for kind in 0..kinds {
                let places = (at * kinds + kind) * height * width..(at * kinds + kind + 1) * height * width;
                let (targets, weights) = (&mut known.targets[places.clone()], &mut known.weights[places]);
                match lesion {
                    Some((of, shares)) => {
                        let shares =
                            shares.iter().map(|&share| if *of == Some(kind + 1) { share } else { 0.0 });
                        drawn += mark(targets, weights, shares);
                    }
                    None if label != kind + 1 => {
                        weights.fill(1.0);
                        real += weights.len() as f32;
                    }
                    None => {}
                }
            }
        }
        let per_image = known.weights.chunks_exact_mut(kinds * height * width);
        for (weights, lesion) in per_image.zip(&lesions) {
            let sum = if lesion.is_some() { drawn } else { real };
            for weight in weights {
                *weight /= sum.max(1.0);
            }
        }
        Some(known)
    }

    /// Weighted mean binary cross-entropy of evidence `[batch, classes - 1, height, width]`, as log-odds.
    pub fn loss(self, evidence: Tensor<4>, device: &Device) -> Tensor<1> {
        let targets = Tensor::<4>::from_data(TensorData::new(self.targets, self.shape), device);
        let weights = Tensor::<4>::from_data(TensorData::new(self.weights, self.shape), device);
        // ln(1 + exp(x)) - x · target, without an exponential that overflows.
        let softplus = relu(evidence.clone()) + evidence.clone().abs().neg().exp().log1p();
        ((softplus - evidence * targets) * weights).sum()
    }
}

/// Writes what the places of one kind in one slice should be; returns the sum of the weights.
fn mark(targets: &mut [f32], weights: &mut [f32], shares: impl Iterator<Item = f32>) -> f32 {
    let mut sum = 0.0;
    for ((target, weight), share) in targets.iter_mut().zip(weights).zip(shares) {
        (*target, *weight) = match share {
            share if share > LESION_SHARE => (1.0, LESION_WEIGHT),
            share if share > LEAST_SHARE => (0.0, 0.0),
            _ => (0.0, 1.0),
        };
        sum += *weight;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_a_lesion_touches_count_as_nothing() {
        let (mut targets, mut weights) = ([0.5; 3], [0.5; 3]);
        let sum = mark(&mut targets, &mut weights, [0.0, 0.2, 0.6].into_iter());
        assert!((sum - 9.0).abs() < 1e-6, "{sum}");
        assert_eq!((targets, weights), ([0.0, 0.0, 1.0], [1.0, 0.0, 8.0]));
    }

    #[test]
    fn the_loss_is_the_weighted_cross_entropy() {
        let known = Known { targets: vec![1.0, 0.0], weights: vec![0.25, 0.75], shape: [1, 1, 1, 2] };
        let device = Device::flex();
        let evidence = Tensor::<4>::from_data(TensorData::new(vec![2.0f32, -90.0], [1, 1, 1, 2]), &device);
        // A quarter of ln(1 + exp(-2)) = 0.126928, and nothing of a certain no.
        let loss = known.loss(evidence, &device).into_scalar::<f32>();
        assert!((loss - 0.25 * 0.126_928).abs() < 1e-6, "{loss}");
    }
}
