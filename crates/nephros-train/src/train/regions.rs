//! Parts of a feature map that a head sees the mean of.

use std::ops::Range;

use nephros_conv::Shape;
use nephros_core::input_gate::pooled_features;

use super::logistic::Dense;

/// Part of the rows, in sevenths, that holds the kidneys in an axial slice cropped to the body. In a band they
/// may be in any row, and these are the rows in which little else is.
const MIDDLE: [usize; 2] = [2, 6];

/// Width of the hidden layer that tells the larger of two leads.
pub(crate) const UNITS_OF_LARGER: usize = 3;

/// Places of a map, `[y][x]`, whose mean is taken channel by channel, once for each region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    map: Shape,
    /// Rows and columns of each.
    parts: Vec<(Range<usize>, Range<usize>)>,
    /// Whether each of two regions is seen beside its difference from the other.
    compared: bool,
}

impl Regions {
    /// All of the map, as one.
    pub fn whole(map: Shape) -> Self {
        Self { map, parts: vec![(0..map.height, 0..map.width)], compared: false }
    }

    /// The left and the right half of the middle rows. A column in the middle is in both, and a map of
    /// one row has that as its middle.
    pub fn halves(map: Shape) -> Self {
        let [from, to] = MIDDLE.map(|sevenths| (sevenths * map.height + 3) / 7);
        let rows = from.min(map.height.saturating_sub(1))..to.max(1);
        let halves = [0..map.width.div_ceil(2), map.width / 2..map.width];
        Self { map, parts: halves.map(|columns| (rows.clone(), columns)).into(), compared: false }
    }

    /// The halves, each seen beside its difference from the other.
    pub fn compared_halves(map: Shape) -> Self {
        Self { compared: true, ..Self::halves(map) }
    }

    /// Number of regions.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// What of a map, `[height, width, channels]`, each region is judged by: the mean of each channel and, where
    /// regions are compared, what that has more than the other region's.
    pub fn features(&self, map: &[f32]) -> Vec<Vec<f32>> {
        let mut features = self.means(map);
        if let (true, [left, right]) = (self.compared, features.as_mut_slice()) {
            let more: Vec<f32> = left.iter().zip(&*right).map(|(left, right)| left - right).collect();
            right.extend(more.iter().map(|more| -more));
            left.extend(more);
        }
        features
    }

    /// Mean of each channel over each region.
    fn means(&self, map: &[f32]) -> Vec<Vec<f32>> {
        let of_part = |part: &(Range<usize>, Range<usize>)| {
            let places: Vec<f32> = self
                .places(part)
                .flat_map(|place| &map[place * self.map.channels..][..self.map.channels])
                .copied()
                .collect();
            pooled_features(&places, self.map.channels)
        };
        self.parts.iter().map(of_part).collect()
    }

    /// The mean of what a layer on the means of channels says of each region, as one layer on the map.
    pub fn spread(&self, dense: Dense) -> Dense {
        let each = vec![1.0 / self.parts.len() as f32; self.parts.len()];
        let shares = self.shares(&each);
        let of_class = |row: &[f32]| spread(row, &shares);
        Dense { weights: dense.weights.chunks_exact(self.map.channels).flat_map(of_class).collect(), ..dense }
    }

    /// Of two regions, what that one says in which the second class leads by more, by a layer of two classes on
    /// their features: as two layers, a hidden one of [`UNITS_OF_LARGER`] on the map, with ReLU, and one
    /// of two classes on that. With a and b for the leads, the larger is `a + max(b - a, 0)`, where a is
    /// `max(a, 0) - max(-a, 0)`.
    pub fn larger(&self, dense: &Dense) -> (Dense, Dense) {
        let (first, second) = dense.weights.split_at(dense.weights.len() / 2);
        let lead: Vec<f32> = second.iter().zip(first).map(|(second, first)| second - first).collect();
        let bias = dense.bias[1] - dense.bias[0];
        // Where regions are compared, a mean counts for its own region by both parts, and against the other.
        let (own, more) = lead.split_at(self.map.channels);
        let own: Vec<f32> = match more {
            [] => own.to_vec(),
            more => own.iter().zip(more).map(|(own, more)| own + more).collect(),
        };
        let units = [[1.0, 0.0], [-1.0, 0.0], [-1.0, 1.0]];
        let of_unit = |&[left, right]: &[f32; 2]| {
            let mut weights = spread(&own, &self.shares(&[left, right]));
            let against = spread(more, &self.shares(&[right, left]));
            weights.iter_mut().zip(against).for_each(|(weight, against)| *weight -= against);
            weights
        };
        let weights = units.iter().flat_map(of_unit).collect();
        let hidden = Dense { weights, bias: units.map(|unit: [f32; 2]| bias * (unit[0] + unit[1])).into() };
        (hidden, Dense { weights: vec![0.0, 0.0, 0.0, 1.0, -1.0, 1.0], bias: vec![0.0, 0.0] })
    }

    /// How much each place counts where the mean of each region counts so much.
    fn shares(&self, counts: &[f32]) -> Vec<f32> {
        let mut shares = vec![0.0; self.map.height * self.map.width];
        for (part, count) in self.parts.iter().zip(counts) {
            let share = count / (part.0.len() * part.1.len()) as f32;
            for place in self.places(part) {
                shares[place] += share;
            }
        }
        shares
    }

    fn places(&self, (rows, columns): &(Range<usize>, Range<usize>)) -> impl Iterator<Item = usize> {
        let (columns, width) = (columns.clone(), self.map.width);
        rows.clone().flat_map(move |row| columns.clone().map(move |column| row * width + column))
    }
}

/// Weights of channels, at each place by its share.
fn spread(weights: &[f32], shares: &[f32]) -> Vec<f32> {
    shares.iter().flat_map(|share| weights.iter().map(move |weight| weight * share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: Shape = Shape { height: 7, width: 7, channels: 2 };

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37) % 23) as f32 / 23.0).collect()
    }

    #[test]
    fn halves_are_the_sides_of_the_middle_rows() {
        let map: Vec<f32> = (0..49).flat_map(|place| [(place / 7) as f32, (place % 7) as f32]).collect();
        // Rows 2 to 5, columns 0 to 3 and 3 to 6.
        assert_eq!(Regions::halves(MAP).means(&map), [[3.5, 1.5], [3.5, 4.5]]);
        assert_eq!(Regions::whole(MAP).means(&map), [[3.0, 3.0]]);
    }

    #[test]
    fn the_smallest_maps_have_halves() {
        for (height, width) in [(1, 1), (2, 1), (1, 2), (2, 2), (3, 4)] {
            let regions = Regions::halves(Shape { height, width, channels: 1 });
            let means = regions.means(&vec![3.0; height * width]);
            assert_eq!(means, [[3.0], [3.0]], "{height} by {width}");
        }
    }

    #[test]
    fn halves_that_are_compared_know_what_they_have_more() {
        let map: Vec<f32> = (0..49).flat_map(|place| [(place / 7) as f32, (place % 7) as f32]).collect();
        let features = Regions::compared_halves(MAP).features(&map);
        assert_eq!(features, [[3.5, 1.5, 0.0, -3.0], [3.5, 4.5, 0.0, 3.0]]);
        assert_eq!(Regions::halves(MAP).features(&map), Regions::halves(MAP).means(&map));
    }

    #[test]
    fn two_layers_say_what_the_half_with_the_larger_lead_says() {
        let weights = vec![0.5, -0.25, -1.0, 2.0];
        says_the_larger_lead(&Regions::halves(MAP), &Dense { weights, bias: vec![0.5, -0.25] });
        let weights = vec![0.5, -0.25, 1.5, 0.75, -1.0, 2.0, -0.5, 0.25];
        says_the_larger_lead(&Regions::compared_halves(MAP), &Dense { weights, bias: vec![0.5, -0.25] });
    }

    fn says_the_larger_lead(regions: &Regions, dense: &Dense) {
        let (hidden, output) = regions.larger(dense);
        let apply = |layer: &Dense, inputs: &[f32]| -> Vec<f32> {
            let rows = layer.weights.chunks_exact(inputs.len()).zip(&layer.bias);
            rows.map(|(row, bias)| row.iter().zip(inputs).map(|(w, x)| w * x).sum::<f32>() + bias).collect()
        };
        let (mut left, mut right) = (0, 0);
        for seed in 0..20 {
            let map: Vec<f32> = (0..98).map(|at| ((at * at * (seed + 3)) % 29) as f32 / 29.0 - 0.3).collect();
            let leads: Vec<f32> =
                regions.features(&map).iter().map(|part| apply(dense, part)).map(|z| z[1] - z[0]).collect();
            let units: Vec<f32> = apply(&hidden, &map).into_iter().map(|unit| unit.max(0.0)).collect();
            assert_eq!(units.len(), UNITS_OF_LARGER);
            let logits = apply(&output, &units);
            let (got, expected) = (logits[1] - logits[0], leads[0].max(leads[1]));
            assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
            *if leads[0] > leads[1] { &mut left } else { &mut right } += 1;
        }
        assert!(left > 0 && right > 0, "{left}, {right}");
    }

    #[test]
    fn a_layer_on_means_says_the_same_of_the_map() {
        let dense = Dense { weights: vec![0.5, -0.25, 1.0, 0.125], bias: vec![0.5, -0.5] };
        let map = values(98);
        for regions in [Regions::whole(MAP), Regions::halves(MAP)] {
            let means = regions.means(&map);
            let spread = regions.spread(dense.clone());
            assert_eq!(spread.bias, dense.bias);
            for class in 0..2 {
                let weights = &dense.weights[class * 2..][..2];
                let of_means =
                    means.iter().map(|mean| weights[0] * mean[0] + weights[1] * mean[1]).sum::<f32>();
                let of_map: f32 = spread.weights[class * 98..][..98]
                    .iter()
                    .zip(&map)
                    .map(|(weight, value)| weight * value)
                    .sum();
                let expected = of_means / means.len() as f32;
                assert!((expected - of_map).abs() < 1e-5, "{expected} and {of_map}");
            }
        }
    }
}
