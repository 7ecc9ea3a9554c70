//! Grad-CAM: the last feature map, weighted by what it does to the score.
//!
//! Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
//! Localization", 2017, <https://arxiv.org/abs/1610.02391>. [`Weighting::EachCell`] is HiResCAM:
//! Draelos and Carin, 2020, <https://arxiv.org/abs/2011.08891>.
//!
//! The heads are one or two dense layers, so the gradient is written down and not searched for:
//! without a hidden layer it is the head's own rows, with one a masked product of its matrices. Of a head that
//! judges places it is that of the windows that answered, and [`Weighting::Channel`] draws its evidence everywhere.

use nephros_conv::Shape;

use super::map::HeatMap;
use crate::{
    network::{Architecture, NetworkError, PlaceHead, WINDOW, dense},
    weights::Arrays,
};

/// Kernel `[inputs, outputs]` and bias of a dense layer.
#[derive(Debug)]
struct Dense {
    kernel: Vec<f32>,
    bias: Vec<f32>,
}

/// What the gradient of a head's score by its features is made of: the matrices of its layers.
#[derive(Debug)]
pub struct Gradient(Head);

#[derive(Debug)]
enum Head {
    Dense { hidden: Option<Dense>, last: Dense },
    Places(PlaceHead),
}

/// How the gradient weighs a feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    /// Each channel by its mean gradient, as in Grad-CAM.
    Channel,
    /// Each cell of each channel by its own gradient, as in HiResCAM. After a global average pool
    /// both are the same; after a flattened map only this one knows where the head looks.
    EachCell,
}

impl Gradient {
    /// Reads the head's arrays.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn new(
        architecture: Architecture,
        hidden_units: usize,
        classes: usize,
        image_size: [usize; 3],
        weights: &dyn Arrays,
    ) -> Result<Self, NetworkError> {
        let read = |key: &str, input: Shape, outputs: usize| -> Result<Dense, NetworkError> {
            let (kernel, bias) = dense(weights, key, input, outputs)?;
            Ok(Dense { kernel, bias })
        };
        if architecture.judges_places() {
            return Ok(Self(Head::Places(architecture.build_place_head(weights, classes, image_size)?)));
        }
        let features = architecture.feature_shape(image_size);
        if hidden_units == 0 {
            return Ok(Self(Head::Dense { hidden: None, last: read("head", features, classes)? }));
        }
        let units = Shape { height: 1, width: 1, channels: hidden_units };
        let hidden = Some(read("head.hidden", features, hidden_units)?);
        Ok(Self(Head::Dense { hidden, last: read("head", units, classes)? }))
    }

    /// Gradient of the log-odds of a class by one image's features, in their order; `logits` are what
    /// the head makes of the features.
    pub fn by_features(&self, features: &[f32], logits: &[f32], class: usize) -> Vec<f64> {
        let by_logit = log_odds_gradient(logits, class);
        let (hidden, last) = match &self.0 {
            Head::Dense { hidden, last } => (hidden, last),
            Head::Places(head) => return by_places(head, features, &by_logit),
        };
        let by_input = last.backward(&by_logit);
        let Some(hidden) = hidden else { return by_input };
        let features: Vec<f64> = features.iter().copied().map(f64::from).collect();
        let units = hidden.forward(&features).into_iter().zip(by_input);
        let by_unit: Vec<f64> = units.map(|(unit, by)| if unit > 0.0 { by } else { 0.0 }).collect();
        hidden.backward(&by_unit)
    }
}

/// Gradient by the map of one image, from that by the logits: of the windows that answered alone.
fn by_places(head: &PlaceHead, map: &[f32], by_logit: &[f64]) -> Vec<f64> {
    let (shape, mut gradient) = (head.map(), vec![0.0; map.len()]);
    for (kind, winner) in head.winners(map).into_iter().enumerate() {
        let gains = by_logit.iter().enumerate().map(|(class, by)| f64::from(head.gain(kind, class)) * by);
        let of_place = gains.sum::<f64>() / (WINDOW * WINDOW) as f64;
        for row in winner.row..winner.row + WINDOW {
            let first = (row * shape.width + winner.column) * shape.channels;
            for place in gradient[first..][..WINDOW * shape.channels].chunks_exact_mut(shape.channels) {
                let weights = head.weights_of(kind);
                place.iter_mut().zip(weights).for_each(|(by, weight)| *by += of_place * f64::from(*weight));
            }
        }
    }
    gradient
}

impl Dense {
    fn forward(&self, inputs: &[f64]) -> Vec<f64> {
        let mut outputs: Vec<f64> = self.bias.iter().copied().map(f64::from).collect();
        for (input, row) in inputs.iter().zip(self.kernel.chunks_exact(self.bias.len())) {
            // After a ReLU most inputs are 0.
            if *input != 0.0 {
                outputs
                    .iter_mut()
                    .zip(row)
                    .for_each(|(output, weight)| *output += input * f64::from(*weight));
            }
        }
        outputs
    }

    /// Gradient by the inputs, from the gradient by the outputs.
    fn backward(&self, by_output: &[f64]) -> Vec<f64> {
        let dot = |row: &[f32]| row.iter().zip(by_output).map(|(weight, by)| f64::from(*weight) * by).sum();
        self.kernel.chunks_exact(self.bias.len()).map(dot).collect()
    }
}

/// `logit − ln Σ exp(other logits)`, which is `ln(p / (1 − p))`: for two classes the difference of
/// their logits.
pub(super) fn log_odds(logits: &[f32], class: usize) -> f64 {
    let (largest, sum) = others(logits, class);
    f64::from(logits[class]) - largest - sum.ln()
}

/// 1 for the class, and for each other one what it takes of the softmax over the others.
fn log_odds_gradient(logits: &[f32], class: usize) -> Vec<f64> {
    let (largest, sum) = others(logits, class);
    let of = |(other, logit): (usize, &f32)| {
        if other == class { 1.0 } else { -(f64::from(*logit) - largest).exp() / sum }
    };
    logits.iter().enumerate().map(of).collect()
}

/// The largest logit of the other classes, and the sum of their exponentials over its own.
fn others(logits: &[f32], class: usize) -> (f64, f64) {
    let others = || {
        let other = logits.iter().enumerate().filter(|(other, _)| *other != class);
        other.map(|(_, logit)| f64::from(*logit))
    };
    let largest = others().fold(f64::NEG_INFINITY, f64::max);
    (largest, others().map(|logit| (logit - largest).exp()).sum())
}

/// The weighted sum over the channels at each cell, not yet clipped at 0; its mean over the cells
/// is what the map adds to the score, exactly so for [`Weighting::EachCell`] and no hidden layer.
///
/// `map` is the last feature map of one image and `gradient` that of the score by the head's input:
/// the map itself, or its means where a global average pool stands between.
///
/// # Shapes
/// `map`: `[height, width, channels]`; `gradient` the same, or `[channels]`.
pub fn cam(map: &[f32], shape: Shape, gradient: &[f64], weighting: Weighting) -> HeatMap {
    let (cells, channels) = (shape.height * shape.width, shape.channels);
    // In units of a mean over the cells, whichever of the two the head takes.
    let each: Vec<f64> = if gradient.len() == channels {
        gradient.repeat(cells)
    } else {
        gradient.iter().map(|by| by * cells as f64).collect()
    };
    let weights = match weighting {
        Weighting::EachCell => each,
        Weighting::Channel => channel_means(&each, channels).repeat(cells),
    };
    HeatMap::of_pixels(shape.height, shape.width, |cell| {
        let of_cell = cell * channels..(cell + 1) * channels;
        let weighted = map[of_cell.clone()].iter().zip(&weights[of_cell]);
        weighted.map(|(value, weight)| f64::from(*value) * weight).sum()
    })
}

fn channel_means(each: &[f64], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0; channels];
    for cell in each.chunks_exact(channels) {
        sums.iter_mut().zip(cell).for_each(|(sum, value)| *sum += value);
    }
    let cells = (each.len() / channels) as f64;
    sums.into_iter().map(|sum| sum / cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_odds_are_those_of_the_softmax() {
        // Probabilities 0.2, 0.3 and 0.5.
        let logits = [0.2_f32, 0.3, 0.5].map(|probability| 7.0 + probability.ln());
        assert!((log_odds(&logits, 1) - (0.3_f64 / 0.7).ln()).abs() < 1e-6);
        // What the others share is 0.2/0.7 and 0.5/0.7.
        let gradient = log_odds_gradient(&logits, 1);
        for (got, expected) in gradient.iter().zip([-2.0 / 7.0, 1.0, -5.0 / 7.0]) {
            assert!((got - expected).abs() < 1e-6, "{gradient:?}");
        }
        assert!(log_odds(&[1000.0, -1000.0], 0) > 1999.0, "no overflow");
    }

    #[test]
    fn only_a_flattened_head_tells_the_two_weightings_apart() {
        let shape = Shape { height: 1, width: 2, channels: 2 };
        let map = [1.0, 2.0, 3.0, 4.0];
        let values = |gradient: &[f64], weighting| cam(&map, shape, gradient, weighting).values().to_vec();
        let pooled = [10.0, -1.0];
        assert_eq!(values(&pooled, Weighting::Channel), [8.0, 26.0]); // 10 − 2 and 30 − 4
        assert_eq!(values(&pooled, Weighting::EachCell), [8.0, 26.0]);
        let flat = [1.0, 0.0, 3.0, -1.0];
        // Twice 1·1, and twice 3·3 − 4: their mean is 1 + 9 − 4.
        assert_eq!(values(&flat, Weighting::EachCell), [2.0, 10.0]);
        // Means 2 and −0.5, twice: 4 − 2 and 12 − 4.
        assert_eq!(values(&flat, Weighting::Channel), [2.0, 8.0]);
    }
}
