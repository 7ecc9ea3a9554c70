//! A head that judges every place of the map: the place that shows most of a class answers for the image.
//!
//! One sick spot makes a slice sick, and a slice of which only the label is known says that there is one, not
//! where: multiple-instance learning. At each place a linear layer weighs the evidence of every class but the
//! first; its mean over a window of [`WINDOW`] places, where that is largest, is what the last layer sees.
//!
//! Sources: Maron and Lozano-Pérez, "A Framework for Multiple-Instance Learning", 1998; a maximum over places of
//! a convolutional network: Oquab et al., "Is Object Localization for Free?", 2015.

use std::borrow::Cow;

use nephros_conv::{ConvError, Shape};

use super::{NetworkError, build::dense};
use crate::weights::Arrays;

/// Places along either side of a window.
pub const WINDOW: usize = 3;

/// Arrays of the layer that weighs the evidence: `[classes - 1, channels]` and `[classes - 1]`.
pub const EVIDENCE: &str = "head.places";

/// The head of a network whose map is judged place by place.
#[derive(Debug)]
pub struct PlaceHead {
    map: Shape,
    /// `[classes - 1, channels]`
    evidence: Vec<f32>,
    evidence_bias: Vec<f32>,
    /// `[classes - 1, classes]`
    kernel: Vec<f32>,
    bias: Vec<f32>,
}

/// The window with the largest mean evidence of a class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Winner {
    /// Its first row of places.
    pub row: usize,
    /// Its first column of places.
    pub column: usize,
    /// The mean.
    pub evidence: f32,
}

impl PlaceHead {
    pub(super) fn new(map: Shape, classes: usize, weights: &dyn Arrays) -> Result<Self, NetworkError> {
        let kinds = classes.saturating_sub(1);
        let array = |key: &str, shape: &[usize]| weights.array(key, shape).map(Cow::into_owned);
        let evidence = array(&format!("{EVIDENCE}.weight"), &[kinds, map.channels])?;
        let evidence_bias = array(&format!("{EVIDENCE}.bias"), &[kinds])?;
        let (kernel, bias) = dense(weights, "head", Shape { height: 1, width: 1, channels: kinds }, classes)?;
        Ok(Self { map, evidence, evidence_bias, kernel, bias })
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.bias.len()
    }

    /// The map that is judged.
    pub fn map(&self) -> Shape {
        self.map
    }

    /// Weights of the evidence of a class but the first, by channel.
    pub fn weights_of(&self, kind: usize) -> &[f32] {
        &self.evidence[kind * self.map.channels..][..self.map.channels]
    }

    /// What a class's logit gains from the evidence of a kind.
    pub fn gain(&self, kind: usize, class: usize) -> f32 {
        self.kernel[kind * self.classes() + class]
    }

    /// Maps to logits.
    ///
    /// # Shapes
    /// `[batch, height, width, channels]` to `[batch, classes]`.
    ///
    /// # Errors
    /// [`ConvError`] for features of another length, or that are not finite.
    pub fn forward(&self, features: &[f32], batch: usize) -> Result<Vec<f32>, ConvError> {
        let expected = batch.saturating_mul(self.map.len());
        if features.len() != expected {
            let got = features.len();
            return Err(ConvError::BufferLength { what: "input", batch, expected, got });
        }
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            let (image, position) = (at / self.map.len(), at % self.map.len());
            return Err(ConvError::NotFinite { image, position, value: features[at] });
        }
        Ok(features.chunks_exact(self.map.len()).flat_map(|map| self.logits(map)).collect())
    }

    fn logits(&self, map: &[f32]) -> Vec<f32> {
        let mut logits = self.bias.clone();
        for (winner, gains) in self.winners(map).iter().zip(self.kernel.chunks_exact(self.classes().max(1))) {
            logits.iter_mut().zip(gains).for_each(|(logit, gain)| *logit += gain * winner.evidence);
        }
        logits
    }

    /// The winning window of each class but the first in the map of one image; of equal ones the first.
    pub fn winners(&self, map: &[f32]) -> Vec<Winner> {
        (0..self.evidence_bias.len()).map(|kind| self.winner(&self.evidence_at_places(map, kind))).collect()
    }

    /// The evidence of a class but the first at each place of one image, `[height, width]`.
    pub fn evidence_at_places(&self, map: &[f32], kind: usize) -> Vec<f32> {
        let (weights, bias) = (self.weights_of(kind), self.evidence_bias[kind]);
        let dot = |place: &[f32]| {
            place.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        map.chunks_exact(self.map.channels).map(|place| (dot(place) + f64::from(bias)) as f32).collect()
    }

    fn winner(&self, evidence: &[f32]) -> Winner {
        let Shape { height, width, .. } = self.map;
        let mut best = Winner { row: 0, column: 0, evidence: f32::NEG_INFINITY };
        for row in 0..=height - WINDOW {
            for column in 0..=width - WINDOW {
                let rows = (row..row + WINDOW).map(|row| &evidence[row * width + column..][..WINDOW]);
                let sum: f64 = rows.flatten().map(|&value| f64::from(value)).sum();
                let mean = (sum / (WINDOW * WINDOW) as f64) as f32;
                if mean > best.evidence {
                    best = Winner { row, column, evidence: mean };
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Tensor, Weights};

    fn head(map: Shape, evidence: &[f32]) -> PlaceHead {
        let arrays = [
            ("head.places.weight", vec![1, map.channels], evidence.to_vec()),
            ("head.places.bias", vec![1], vec![-1.0]),
            ("head.weight", vec![2, 1], vec![0.0, 2.0]),
            ("head.bias", vec![2], vec![0.5, -0.5]),
        ];
        let arrays = arrays
            .map(|(key, shape, values)| (key.to_owned(), Tensor { shape, values }))
            .into_iter()
            .collect();
        PlaceHead::new(map, 2, &Weights(arrays)).unwrap()
    }

    #[test]
    fn the_window_with_most_evidence_answers() {
        let map = Shape { height: 3, width: 5, channels: 2 };
        let mut features = vec![0.0; map.len()];
        // Place (1, 3): of the windows from columns 0, 1 and 2 the last two hold it.
        features[(5 + 3) * 2] = 9.0;
        features[(5 + 3) * 2 + 1] = 4.5;
        let head = head(map, &[3.0, -2.0]);
        // 3·9 − 2·4.5 = 18, over nine places, and the bias at each.
        let winner = Winner { row: 0, column: 1, evidence: 2.0 - 1.0 };
        assert_eq!(head.winners(&features), [winner]);
        assert_eq!(head.forward(&features, 1).unwrap(), [0.5, 2.0 * 1.0 - 0.5]);
        assert_eq!(head.evidence_at_places(&features, 0)[8..9], [17.0]);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let map = Shape { height: 3, width: 3, channels: 1 };
        let head = head(map, &[1.0]);
        assert!(matches!(head.forward(&[0.0; 8], 1), Err(ConvError::BufferLength { got: 8, .. })));
        let mut broken = [0.0; 18];
        broken[11] = f32::NAN;
        let error = head.forward(&broken, 2).unwrap_err();
        assert!(matches!(error, ConvError::NotFinite { image: 1, position: 2, .. }));
    }
}
