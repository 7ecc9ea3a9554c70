//! An earlier map beside the last one: hypercolumns.
//!
//! A place of the last map sees much of the image and little of its texture, one of an earlier map the reverse.
//! The earlier map is averaged down to the places of the last, and at each place the channels of either are
//! brought to unit length, so that neither counts for more because its values are larger, and a slice of
//! little contrast looks like one of much.
//!
//! Sources: Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization", 2014,
//! <https://arxiv.org/abs/1411.5752>; unit length before maps are joined: Liu et al., "ParseNet: Looking Wider to
//! See Better", 2015, <https://arxiv.org/abs/1506.04579>.

use nephros_conv::Shape;

/// A square of the length below which it is taken for this, as in Keras' `UnitNormalization`.
pub const LEAST_SQUARE: f32 = 1e-12;

/// Shape of the joined map.
pub(super) fn joined(early: Shape, last: Shape) -> Shape {
    Shape { channels: early.channels + last.channels, ..last }
}

/// Joins the maps of one image into `output`, the channels of the earlier map first. A place of the last map stands
/// for a square of `side` by `side` places of the earlier one; what of that lies beyond the last whole square is
/// left out, as poolings leave it out.
///
/// # Shapes
/// `early` `[side * height (+ rest), side * width (+ rest), channels]`, `last` `[height, width, channels]`, `output`
/// `[height, width, channels of both]`.
pub(super) fn join(early: (&[f32], Shape), last: (&[f32], Shape), side: usize, output: &mut [f32]) {
    let ((early, early_shape), (last, last_shape)) = (early, last);
    let share = 1.0 / (side * side) as f32;
    let width = early_shape.channels + last_shape.channels;
    for (place, column) in output.chunks_exact_mut(width).enumerate() {
        let (mean, own) = column.split_at_mut(early_shape.channels);
        let (row, at) = (place / last_shape.width * side, place % last_shape.width * side);
        mean.fill(0.0);
        for y in row..row + side {
            for x in at..at + side {
                let values = &early[(y * early_shape.width + x) * early_shape.channels..];
                mean.iter_mut().zip(values).for_each(|(mean, value)| *mean += share * value);
            }
        }
        own.copy_from_slice(&last[place * last_shape.channels..][..last_shape.channels]);
        to_unit_length(mean);
        to_unit_length(own);
    }
}

fn to_unit_length(values: &mut [f32]) {
    let square: f64 = values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    let factor = 1.0 / square.max(f64::from(LEAST_SQUARE)).sqrt();
    for value in values {
        *value = (f64::from(*value) * factor) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_the_last_map_are_of_unit_length_at_each_place() {
        // A row of 2×2 squares and one column beyond them; two channels, and one of the last map.
        let early_shape = Shape { height: 2, width: 5, channels: 2 };
        let early: Vec<f32> = (0..10).flat_map(|at| [at as f32, 1.0]).collect();
        let last_shape = Shape { height: 1, width: 2, channels: 1 };
        let mut output = vec![f32::NAN; 6];
        join((&early, early_shape), (&[7.0, 0.0], last_shape), 2, &mut output);
        // Of the first square 0, 1, 5 and 6, of the second 2, 3, 7 and 8.
        let (first, second) = (10.0f32.sqrt(), 26.0f32.sqrt());
        let expected = [3.0 / first, 1.0 / first, 1.0, 5.0 / second, 1.0 / second, 0.0];
        for (got, expected) in output.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{output:?}");
        }
        assert_eq!(joined(early_shape, last_shape).len(), output.len());
    }
}
