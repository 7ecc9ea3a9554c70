//! A heat map: one value for each pixel, and where in the original picture it lies.

use crate::pixels::Frame;

/// How much each place speaks for a class.
///
/// Positive values speak for the class, negative ones against it. What one unit means is said by
/// the method that made the map; see [`super::Method::unit`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

impl HeatMap {
    /// Wraps `[height, width]` values; `None` when the length does not fit, an axis is zero, or a
    /// value is not finite.
    pub fn new(height: usize, width: usize, values: Vec<f32>) -> Option<Self> {
        let fits = height.checked_mul(width).is_some_and(|pixels| pixels > 0 && values.len() == pixels);
        (fits && values.iter().all(|value| value.is_finite())).then_some(Self { height, width, values })
    }

    /// Wraps values that this crate computed for every pixel; an overflow counts as nothing.
    pub(super) fn of_pixels(height: usize, width: usize, pixel: impl FnMut(usize) -> f64) -> Self {
        let finite = |value: f64| if (value as f32).is_finite() { value as f32 } else { 0.0 };
        Self { height, width, values: (0..height * width).map(pixel).map(finite).collect() }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[height, width]` values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The largest value, or 0 where no value is positive.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The map on `height`×`width` pixels of which each of its cells covers `cell`×`cell`, from the
    /// top left corner on; bilinear between the middles of cells.
    ///
    /// Pooling drops the rows that do not fill a cell: there the last row of cells goes on.
    pub(super) fn magnified(&self, height: usize, width: usize, cell: usize) -> Self {
        let at = |pixel: usize| (pixel as f32 + 0.5) / cell as f32 - 0.5;
        Self::of_pixels(height, width, |pixel| f64::from(self.sample(at(pixel / width), at(pixel % width))))
    }

    /// The map on an original picture of `height`×`width` pixels, of which `frame` was stretched to
    /// this map's size; bilinear, and 0 outside of the frame.
    #[must_use]
    pub fn placed(&self, frame: Frame, height: usize, width: usize) -> Self {
        Self::of_pixels(height, width, |pixel| {
            let position = frame.relative(pixel / width, pixel % width);
            position.map_or(0.0, |(y, x)| {
                f64::from(self.sample(y * self.height as f32 - 0.5, x * self.width as f32 - 0.5))
            })
        })
    }

    /// Bilinear between pixel centres; the edge goes on outwards.
    fn sample(&self, y: f32, x: f32) -> f32 {
        let (y, x) = (y.clamp(0.0, (self.height - 1) as f32), x.clamp(0.0, (self.width - 1) as f32));
        let (top, left) = (y as usize, x as usize);
        let (bottom, right) = ((top + 1).min(self.height - 1), (left + 1).min(self.width - 1));
        let (down, across) = (y - top as f32, x - left as f32);
        let row = |row: usize| {
            let (a, b) = (self.values[row * self.width + left], self.values[row * self.width + right]);
            a + (b - a) * across
        };
        row(top) + (row(bottom) - row(top)) * down
    }

    /// The hottest `share` of the pixels, but none that is not positive. Of equal pixels the first
    /// ones are taken.
    pub fn hottest(&self, share: f64) -> Vec<bool> {
        let count = (share * self.values.len() as f64).round() as usize;
        let mut order: Vec<usize> =
            (0..self.values.len()).filter(|&pixel| self.values[pixel] > 0.0).collect();
        order.sort_by(|&a, &b| self.values[b].total_cmp(&self.values[a]));
        let mut hot = vec![false; self.values.len()];
        order.into_iter().take(count).for_each(|pixel| hot[pixel] = true);
        hot
    }

    /// Share of the positive values' sum that lies on the pixels of `mask`, `[height, width]`;
    /// `None` when no value is positive or the mask is of another size.
    pub fn mass_inside(&self, mask: &[bool]) -> Option<f64> {
        let positive = |value: f32| f64::from(value.max(0.0));
        let total: f64 = self.values.iter().map(|&value| positive(value)).sum();
        let inside = self.values.iter().zip(mask).filter(|(_, inside)| **inside);
        let sum: f64 = inside.map(|(&value, _)| positive(value)).sum();
        (mask.len() == self.values.len() && total > 0.0).then(|| sum / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(height: usize, width: usize, values: &[f32]) -> HeatMap {
        HeatMap::new(height, width, values.to_vec()).unwrap()
    }

    #[test]
    fn a_map_has_the_length_of_its_size_and_finite_values() {
        assert_eq!(HeatMap::new(2, 2, vec![0.0; 3]), None);
        assert_eq!(HeatMap::new(0, 2, vec![]), None);
        assert_eq!(HeatMap::new(1, 1, vec![f32::NAN]), None);
        assert_eq!(HeatMap::new(usize::MAX, 2, vec![]), None);
    }

    #[test]
    fn cells_are_magnified_about_their_middles() {
        let magnified = map(1, 2, &[0.0, 4.0]).magnified(2, 5, 2);
        // Cell middles lie at 1 and 3; pixel middles at 0.5, 1.5, 2.5, 3.5 and 4.5.
        let row = [0.0, 1.0, 3.0, 4.0, 4.0];
        assert_eq!(magnified, map(2, 5, &[row, row].concat()));
    }

    #[test]
    fn a_placed_map_lies_where_the_frame_was_and_nowhere_else() {
        // The frame starts one column before the picture and ends one row above its last.
        let frame = Frame { top: 0, left: -1, height: 2, width: 2 };
        let placed = map(2, 2, &[1.0, 2.0, 3.0, 4.0]).placed(frame, 3, 3);
        assert_eq!(placed, map(3, 3, &[2.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn the_hottest_are_positive_and_as_many_as_asked_for() {
        let map = map(1, 5, &[-1.0, 3.0, 1.0, 0.0, 2.0]);
        assert_eq!(map.hottest(0.4), [false, true, false, false, true]); // 2 of 5
        assert_eq!(map.hottest(1.0), [false, true, true, false, true]);
        assert_eq!(map.peak().to_bits(), 3.0_f32.to_bits());
    }

    #[test]
    fn mass_is_counted_where_it_is_positive() {
        let map = map(1, 4, &[-5.0, 1.0, 3.0, 0.0]);
        assert_eq!(map.mass_inside(&[true, true, false, true]), Some(0.25)); // 1/(1 + 3)
        assert_eq!(map.mass_inside(&[true]), None);
        let nothing = HeatMap::new(1, 1, vec![-1.0]).unwrap();
        assert_eq!((nothing.mass_inside(&[true]), nothing.peak()), (None, 0.0));
    }
}
