//! The head of a frozen network as a logistic regression, fitted to its optimum.
//!
//! Frozen features come in very different sizes, so that gradient descent at any one rate is slow
//! along most of them. Here every feature is brought to mean 0 and the variance 1 / features, the
//! penalty is on the weights of those, and the result is written back in terms of the features as
//! they are: a dense layer like any other.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{inputs::Inputs, lbfgs::Slope, regions::Regions};
use crate::evaluate::metrics::Predictions;

/// A feature's standard deviation is taken as at least this share of the mean one: a feature that
/// is almost always 0 would else count for much when it is not.
const LEAST_DEVIATION: f64 = 0.01;
/// Features whose sums one thread forms at a time.
const BLOCK: usize = 512;

/// A feature vector that is learned from.
#[derive(Debug, Clone)]
struct Row<'a> {
    values: Cow<'a, [f32]>,
    label: usize,
    /// Share of the loss; all shares sum to 1.
    share: f64,
}

/// The regression to be fitted. A point is `[classes, features]` weights of the standardised
/// features, then `[classes]` biases.
#[derive(Debug)]
pub struct Logistic<'a> {
    rows: Vec<Row<'a>>,
    classes: usize,
    /// Mean of each feature.
    mean: Vec<f64>,
    /// What makes its variance 1 / features; 0 for a feature that never changes.
    scale: Vec<f64>,
    penalty: f64,
    smoothing: f64,
    /// Rows of one view, which lie side by side.
    rows_of_view: usize,
    answer: Answer,
}

/// Which rows of a view answer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Each for itself.
    Each,
    /// The one whose second class is the most probable; of two classes.
    Highest,
}

/// What is minimised beside the loss of the images, and over which features.
#[derive(Debug, Clone)]
pub struct Objective {
    /// Half the weight of the squared length of the weights.
    pub penalty: f64,
    /// Share of the target that is spread over all classes.
    pub smoothing: f64,
    /// Parts of the map, each a row of its own with what it is judged by as its features; `None`
    /// takes every value of the map for a feature.
    pub regions: Option<Regions>,
}

/// A dense layer on the features: `[classes, features]` and `[classes]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Weights.
    pub weights: Vec<f32>,
    /// Biases.
    pub bias: Vec<f32>,
}

impl<'a> Logistic<'a> {
    /// The regression on every cached view of some images, or on each region of it; `importance` is of
    /// each image, in any unit.
    pub fn new(inputs: &Inputs<'a>, importance: &[f64], classes: usize, objective: Objective) -> Self {
        let Objective { penalty, smoothing, regions } = objective;
        let parts = |values: &'a [f32]| -> Vec<Cow<'a, [f32]>> {
            match &regions {
                Some(regions) => regions.features(values).into_iter().map(Cow::Owned).collect(),
                None => vec![Cow::Borrowed(values)],
            }
        };
        let sum: f64 = importance.iter().sum();
        let mut rows = Vec::new();
        for (position, importance) in importance.iter().enumerate() {
            let parts: Vec<_> = inputs.views(position).into_iter().flat_map(&parts).collect();
            let share = importance / sum / parts.len() as f64;
            let label = inputs.label(position);
            rows.extend(parts.into_iter().map(|values| Row { values, label, share }));
        }
        let (mean, scale) = standardisation(&rows);
        let rows_of_view = regions.map_or(1, |regions| regions.len());
        Self { rows, classes, mean, scale, penalty, smoothing, rows_of_view, answer: Answer::Each }
    }

    /// The same with other rows that answer. Where the highest does the loss is not convex, and has a kink
    /// where two are equally high; it is begun where each has learned for itself.
    pub fn answered_by(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }

    /// Values in a point.
    pub fn len(&self) -> usize {
        self.classes * (self.mean.len() + 1)
    }

    /// Loss with its penalty at a point.
    pub fn slope(&self, point: &[f64]) -> Slope {
        let features = self.mean.len();
        let (weights, _) = point.split_at(self.classes * features);
        let residuals = self.residuals(point);
        let mut value = residuals.iter().map(|(loss, _)| loss).sum::<f64>();
        value += 0.5 * self.penalty * weights.iter().map(|weight| weight * weight).sum::<f64>();
        let mut gradient = vec![0.0; point.len()];
        let (slopes, biases) = gradient.split_at_mut(self.classes * features);
        for (class, bias) in biases.iter_mut().enumerate() {
            *bias = residuals.iter().map(|(_, residual)| residual[class]).sum();
        }
        let blocks = slopes.par_chunks_mut(features).enumerate().flat_map(|(class, slopes)| {
            slopes
                .par_chunks_mut(BLOCK)
                .enumerate()
                .map(move |(block, slopes)| (class, block * BLOCK, slopes))
        });
        blocks.for_each(|(class, first, slopes)| {
            for (row, (_, residual)) in self.rows.iter().zip(&residuals) {
                for (slope, &value) in slopes.iter_mut().zip(&row.values[first..]) {
                    *slope += residual[class] * f64::from(value);
                }
            }
            for (offset, slope) in slopes.iter_mut().enumerate() {
                let feature = first + offset;
                let centred = *slope - self.mean[feature] * biases[class];
                *slope = self.scale[feature] * centred + self.penalty * weights[class * features + feature];
            }
        });
        Slope { value, gradient }
    }

    /// The layer that a point stands for.
    pub fn dense(&self, point: &[f64]) -> Dense {
        let features = self.mean.len();
        let (standardised, biases) = point.split_at(self.classes * features);
        let mut weights = Vec::with_capacity(standardised.len());
        let mut bias = Vec::with_capacity(biases.len());
        for (row, mut offset) in standardised.chunks_exact(features).zip(biases.iter().copied()) {
            for ((weight, scale), mean) in row.iter().zip(&self.scale).zip(&self.mean) {
                offset -= weight * scale * mean;
                weights.push((weight * scale) as f32);
            }
            bias.push(offset as f32);
        }
        Dense { weights, bias }
    }

    /// What a point answers for the rows it is fitted on, or for the views where the highest row answers.
    pub fn predictions(&self, point: &[f64]) -> Predictions {
        let mut predictions = Predictions::default();
        let probabilities = self.probabilities(point);
        let shares = self.shares(&probabilities);
        for ((row, probabilities), share) in self.rows.iter().zip(probabilities).zip(shares) {
            if share.is_some() {
                predictions.push(row.label, probabilities.iter().map(|&p| p as f32).collect());
            }
        }
        predictions
    }

    /// Share of the loss that each row answers for; `None` where another row of its view does.
    fn shares(&self, probabilities: &[Vec<f64>]) -> Vec<Option<f64>> {
        if self.answer == Answer::Each {
            return self.rows.iter().map(|row| Some(row.share)).collect();
        }
        let views = self.rows.chunks(self.rows_of_view).zip(probabilities.chunks(self.rows_of_view));
        let of_view = |(rows, probabilities): (&[Row], &[Vec<f64>])| {
            let second = |row: &usize| probabilities[*row][1];
            let highest = (0..rows.len()).max_by(|a, b| second(a).total_cmp(&second(b)));
            let whole: f64 = rows.iter().map(|row| row.share).sum();
            (0..rows.len()).map(move |row| (highest == Some(row)).then_some(whole)).collect::<Vec<_>>()
        };
        views.flat_map(of_view).collect()
    }

    /// Loss of each row, and its derivative by each logit.
    fn residuals(&self, point: &[f64]) -> Vec<(f64, Vec<f64>)> {
        let spread = self.smoothing / self.classes as f64;
        let probabilities = self.probabilities(point);
        let shares = self.shares(&probabilities);
        let of_row = |((row, share), probabilities): ((&Row, Option<f64>), Vec<f64>)| {
            let share = share.unwrap_or(0.0);
            let target = |class| spread + if class == row.label { 1.0 - self.smoothing } else { 0.0 };
            let losses = probabilities
                .iter()
                .enumerate()
                .map(|(class, p)| -target(class) * p.max(f64::MIN_POSITIVE).ln());
            let loss = share * losses.sum::<f64>();
            let slopes = probabilities.iter().enumerate().map(|(class, p)| share * (p - target(class)));
            (loss, slopes.collect())
        };
        self.rows.iter().zip(shares).zip(probabilities).map(of_row).collect()
    }

    /// `[rows]` of `[classes]`.
    fn probabilities(&self, point: &[f64]) -> Vec<Vec<f64>> {
        let Dense { weights, bias } = self.dense(point);
        let logits = |row: &Row| {
            let classes = weights.chunks_exact(self.mean.len()).zip(&bias);
            let logits: Vec<f64> =
                classes.map(|(weights, &bias)| dot(weights, &row.values) + f64::from(bias)).collect();
            softmax(&logits)
        };
        self.rows.par_iter().map(logits).collect()
    }
}

/// Mean of each feature over the rows by their shares, and the factor that standardises it.
fn standardisation(rows: &[Row]) -> (Vec<f64>, Vec<f64>) {
    let features = rows.first().map_or(0, |row| row.values.len());
    let mut mean = vec![0.0; features];
    let mut deviation = vec![0.0; features];
    let blocks = mean.par_chunks_mut(BLOCK).zip(deviation.par_chunks_mut(BLOCK)).enumerate();
    blocks.for_each(|(block, (mean, deviation))| {
        for row in rows {
            for (mean, &value) in mean.iter_mut().zip(&row.values[block * BLOCK..]) {
                *mean += row.share * f64::from(value);
            }
        }
        for row in rows {
            for ((sum, mean), &value) in deviation.iter_mut().zip(&*mean).zip(&row.values[block * BLOCK..]) {
                *sum += row.share * (f64::from(value) - mean).powi(2);
            }
        }
        for sum in deviation {
            *sum = sum.sqrt();
        }
    });
    let typical = deviation.iter().sum::<f64>() / features as f64;
    let factor = |deviation: &f64| match *deviation {
        0.0 => 0.0,
        deviation => 1.0 / (deviation.max(LEAST_DEVIATION * typical) * (features as f64).sqrt()),
    };
    let scale = deviation.iter().map(factor).collect();
    (mean, scale)
}

/// In single precision over short runs, whose sums are added in double precision.
fn dot(weights: &[f32], values: &[f32]) -> f64 {
    let run = |(weights, values): (&[f32], &[f32])| {
        let mut lanes = [0.0f32; 16];
        for (weights, values) in weights.chunks_exact(16).zip(values.chunks_exact(16)) {
            for ((lane, weight), value) in lanes.iter_mut().zip(weights).zip(values) {
                *lane += weight * value;
            }
        }
        let rest = weights.chunks_exact(16).remainder().iter().zip(values.chunks_exact(16).remainder());
        f64::from(lanes.iter().sum::<f32>())
            + rest.map(|(weight, value)| f64::from(weight * value)).sum::<f64>()
    };
    weights.chunks(1024).zip(values.chunks(1024)).map(run).sum()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::train::lbfgs::Minimum;

    /// Rows of `values`, all of the same share.
    fn regression(values: &[Vec<f32>], classes: usize, penalty: f64) -> Logistic<'_> {
        let share = 1.0 / values.len() as f64;
        let row = |(position, values)| Row { values, label: position % classes, share };
        let rows: Vec<Row> = values.iter().map(Cow::from).enumerate().map(row).collect();
        let (mean, scale) = standardisation(&rows);
        let answer = Answer::Each;
        Logistic { rows, classes, mean, scale, penalty, smoothing: 0.1, rows_of_view: 1, answer }
    }

    fn noise(rows: usize, features: usize) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        (0..rows).map(|_| (0..features).map(|_| rng.random_range(-3.0..5.0f32)).collect()).collect()
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_value() {
        // 1030 features are more than two blocks, the last of them not whole.
        let values = noise(9, 1030);
        let regression = regression(&values, 3, 0.5);
        let point: Vec<f64> = (0..regression.len()).map(|at| ((at * 37) % 11) as f64 / 11.0 - 0.4).collect();
        let slope = regression.slope(&point);
        for at in [0, 511, 512, 1029, 1030, 2500, 3089, 3090, 3092] {
            let moved = |by: f64| {
                let mut moved = point.clone();
                moved[at] += by;
                regression.slope(&moved).value
            };
            // Weights are applied in single precision, so the step must not be small.
            let difference = (moved(0.05) - moved(-0.05)) / 0.1;
            assert!(
                (difference - slope.gradient[at]).abs() < 1e-4,
                "{at}: {difference} {}",
                slope.gradient[at]
            );
        }
    }

    #[test]
    fn one_feature_is_weighed_as_its_closed_form_says() {
        // Two classes at -1 and 1 have mean 0 and deviation 1. With weights (-w, w) the penalty is
        // 0.5 * 0.2 * 2 w^2, and the loss ln(1 + exp(-2 w)); without smoothing its derivative is 0
        // where 0.2 w = 1 / (1 + exp(2 w)), at w = 0.8744 (by bisection).
        let values = vec![vec![-1.0], vec![1.0]];
        let regression = Logistic { smoothing: 0.0, ..regression(&values, 2, 0.2) };
        let function = |point: &[f64]| regression.slope(point);
        let mut minimum = Minimum::start(vec![0.0; 4], function);
        while minimum.step(function).is_some() {}
        let root = {
            let (mut low, mut high) = (0.0f64, 5.0f64);
            for _ in 0..60 {
                let middle = f64::midpoint(low, high);
                if 0.2 * middle < 1.0 / (1.0 + (2.0 * middle).exp()) { low = middle } else { high = middle }
            }
            low
        };
        for (value, expected) in minimum.point.iter().zip([-root, root, 0.0, 0.0]) {
            assert!((value - expected).abs() < 1e-5, "{:?}, expected {root}", minimum.point);
        }
    }

    #[test]
    fn the_highest_row_answers_for_its_view() {
        let values = noise(12, 40);
        let each = regression(&values, 2, 0.5);
        // Views of two rows with one label, the labels in turn.
        let rows = each.rows.iter().enumerate().map(|(at, row)| Row { label: at / 2 % 2, ..row.clone() });
        let each = Logistic { rows: rows.collect(), rows_of_view: 2, ..each };
        let point: Vec<f64> = (0..each.len()).map(|at| ((at * 37) % 11) as f64 / 11.0 - 0.4).collect();
        let second: Vec<f64> = each.probabilities(&point).iter().map(|row| row[1]).collect();
        let highest = each.answered_by(Answer::Highest);
        let answers = highest.predictions(&point);
        assert_eq!(answers.labels, [0, 1, 0, 1, 0, 1]);
        for (view, answer) in answers.probabilities.iter().enumerate() {
            let expected = second[2 * view].max(second[2 * view + 1]);
            assert!((f64::from(answer[1]) - expected).abs() < 1e-7, "{answer:?}, expected {expected}");
        }
        let slope = highest.slope(&point);
        for at in [0, 17, 40, 79, 80, 81] {
            let moved = |by: f64| {
                let mut moved = point.clone();
                moved[at] += by;
                highest.slope(&moved).value
            };
            let difference = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!((difference - slope.gradient[at]).abs() < 1e-4, "{at}: {difference}");
        }
    }

    #[test]
    fn a_feature_that_never_changes_has_no_weight() {
        let values: Vec<Vec<f32>> = noise(8, 3).into_iter().map(|row| vec![row[0], 7.0, row[2]]).collect();
        let regression = regression(&values, 2, 0.1);
        let dense = regression.dense(&vec![1.0; regression.len()]);
        assert_eq!((dense.weights[1], dense.weights[4]), (0.0, 0.0));
    }
}
