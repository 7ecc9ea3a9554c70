//! Minimising a function by limited-memory BFGS: to its minimum where it is smooth and convex; elsewhere to a
//! point near by from which no step along its slope brings it down.
//!
//! Source: Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989.

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that stand for the curvature.
const MEMORY: usize = 10;
/// Share of the decrease promised by the gradient that a step has to bring (Armijo).
const SUFFICIENT_DECREASE: f64 = 1e-4;
/// Halvings of a step before the search gives up.
const HALVINGS: usize = 40;

/// Value and gradient of a function at a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Slope {
    /// Value.
    pub value: f64,
    /// Derivative along each coordinate.
    pub gradient: Vec<f64>,
}

/// Where a minimisation stands.
#[derive(Debug)]
pub struct Minimum {
    /// Best point so far.
    pub point: Vec<f64>,
    slope: Slope,
    pairs: VecDeque<Pair>,
}

#[derive(Debug)]
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Inner product of the two, above 0.
    curvature: f64,
}

impl Minimum {
    /// Starts at a point.
    pub fn start(point: Vec<f64>, function: impl Fn(&[f64]) -> Slope) -> Self {
        let slope = function(&point);
        Self { point, slope, pairs: VecDeque::new() }
    }

    /// Length of the gradient.
    pub fn steepness(&self) -> f64 {
        dot(&self.slope.gradient, &self.slope.gradient).sqrt()
    }

    /// Whether the value here is a number.
    pub fn is_finite(&self) -> bool {
        self.slope.value.is_finite()
    }

    /// One step downhill. `None` when no step brings the value down: the point is as good as
    /// rounding allows, or the function is not finite near it.
    pub fn step(&mut self, function: impl Fn(&[f64]) -> Slope) -> Option<f64> {
        let mut direction = self.direction();
        let mut promised = dot(&direction, &self.slope.gradient);
        if promised >= 0.0 {
            // The memory is worn out by rounding; the gradient never is.
            self.pairs.clear();
            direction = self.direction();
            promised = dot(&direction, &self.slope.gradient);
        }
        let mut length = 1.0;
        for _ in 0..HALVINGS {
            let point: Vec<f64> = self.point.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let slope = function(&point);
            let bound = self.slope.value + SUFFICIENT_DECREASE * length * promised;
            // The bound may round to the value itself, and a step that gains nothing never ends.
            if slope.value <= bound && slope.value < self.slope.value {
                self.remember(&point, &slope);
                (self.point, self.slope) = (point, slope);
                return Some(length);
            }
            length *= 0.5;
        }
        None
    }

    /// The two-loop recursion: minus the gradient, stretched by the remembered curvature.
    fn direction(&self) -> Vec<f64> {
        let mut direction: Vec<f64> = self.slope.gradient.iter().map(|g| -g).collect();
        let Some(last) = self.pairs.back() else {
            // With nothing remembered a step of length 1, which halving shortens.
            let scale = 1.0 / self.steepness().max(1.0);
            scale_by(&mut direction, scale);
            return direction;
        };
        let mut shares = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let share = dot(&pair.step, &direction) / pair.curvature;
            add(&mut direction, -share, &pair.change);
            shares.push(share);
        }
        let scale = last.curvature / dot(&last.change, &last.change);
        scale_by(&mut direction, scale);
        for (pair, share) in self.pairs.iter().zip(shares.into_iter().rev()) {
            let correction = share - dot(&pair.change, &direction) / pair.curvature;
            add(&mut direction, correction, &pair.step);
        }
        direction
    }

    fn remember(&mut self, point: &[f64], slope: &Slope) {
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let step = difference(point, &self.point);
        let change = difference(&slope.gradient, &self.slope.gradient);
        let curvature = dot(&step, &change);
        // Where the function bends the wrong way, as rounding may make a flat one, there is no curvature to learn.
        if curvature <= f64::EPSILON * (dot(&step, &step) * dot(&change, &change)).sqrt() {
            return;
        }
        if self.pairs.len() == MEMORY {
            self.pairs.pop_front();
        }
        self.pairs.push_back(Pair { step, change, curvature });
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn scale_by(values: &mut [f64], factor: f64) {
    for value in values {
        *value *= factor;
    }
}

fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badly_scaled_bowl_is_walked_to_its_bottom() {
        // Curvatures of 1 to 1000 about the point (1, 2, 3, 4).
        let bowl = |x: &[f64]| {
            let scales = [1.0, 10.0, 100.0, 1000.0];
            let offsets: Vec<f64> = x.iter().zip([1.0, 2.0, 3.0, 4.0]).map(|(x, c)| x - c).collect();
            Slope {
                value: offsets.iter().zip(scales).map(|(d, s)| 0.5 * s * d * d).sum(),
                gradient: offsets.iter().zip(scales).map(|(d, s)| s * d).collect(),
            }
        };
        let mut minimum = Minimum::start(vec![0.0; 4], bowl);
        let mut steps = 0;
        // To where rounding ends it.
        while minimum.step(bowl).is_some() {
            steps += 1;
        }
        assert!(steps < 60, "{steps} steps");
        for (x, expected) in minimum.point.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!((x - expected).abs() < 1e-9, "{:?}", minimum.point);
        }
    }

    #[test]
    fn a_function_without_finite_values_gives_no_step() {
        let nan = |x: &[f64]| Slope { value: f64::NAN, gradient: vec![1.0; x.len()] };
        let mut minimum = Minimum::start(vec![0.0], nan);
        assert_eq!((minimum.is_finite(), minimum.step(nan)), (false, None));
    }
}
