//! Axis orders: Keras keeps channels last, torchvision (and nephros' checkpoints) first.

use crate::weights::Tensor;

/// Rows, columns and channels of a flattened feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Map {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// `[height, width, in, out]` to `[out, in, height, width]`.
pub(super) fn hwio_to_oihw(values: &[f32], [height, width, inputs, outputs]: [usize; 4]) -> Tensor {
    let mut oihw = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for input in 0..inputs {
            for tap in 0..height * width {
                oihw.push(values[(tap * inputs + input) * outputs + output]);
            }
        }
    }
    Tensor { shape: vec![outputs, inputs, height, width], values: oihw }
}

/// `[out, in, height, width]` to `[height, width, in, out]`.
pub(super) fn oihw_to_hwio(values: &[f32], [outputs, inputs, height, width]: [usize; 4]) -> Vec<f32> {
    let taps = height * width;
    let mut hwio = Vec::with_capacity(values.len());
    for tap in 0..taps {
        for input in 0..inputs {
            for output in 0..outputs {
                hwio.push(values[(output * inputs + input) * taps + tap]);
            }
        }
    }
    hwio
}

/// `[in, out]` with inputs in `(y, x, channel)` order to `[out, in]` in `(channel, y, x)` order.
///
/// Without a map the inputs keep their order.
pub(super) fn dense_to_torch(values: &[f32], inputs: usize, outputs: usize, map: Option<Map>) -> Tensor {
    let mut dense = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for input in 0..inputs {
            dense.push(values[channels_last(input, map) * outputs + output]);
        }
    }
    Tensor { shape: vec![outputs, inputs], values: dense }
}

/// `[out, in]` with inputs in `(channel, y, x)` order to `[in, out]` in `(y, x, channel)` order.
pub(super) fn dense_to_keras(values: &[f32], inputs: usize, outputs: usize, map: Option<Map>) -> Vec<f32> {
    let mut dense = vec![0.0; values.len()];
    for (output, row) in values.chunks_exact(inputs.max(1)).enumerate() {
        for (input, &value) in row.iter().enumerate() {
            dense[channels_last(input, map) * outputs + output] = value;
        }
    }
    dense
}

/// Position in `(y, x, channel)` order of position `input` in `(channel, y, x)` order.
fn channels_last(input: usize, map: Option<Map>) -> usize {
    map.map_or(input, |Map { height, width, channels }| {
        let area = height * width;
        (input % area) * channels + input / area
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(length: usize) -> Vec<f32> {
        (0..length).map(|value| value as f32).collect()
    }

    #[test]
    fn kernels_move_their_channels_to_the_front() {
        // hwio[y][x][i][o] of shape [1, 2, 3, 2] holds ((0 * 2 + x) * 3 + i) * 2 + o.
        let oihw = hwio_to_oihw(&count(12), [1, 2, 3, 2]);
        assert_eq!(oihw.shape, [2, 3, 1, 2]);
        // oihw[o = 1][i = 2][0][x = 1] is hwio[0][1][2][1] = (1 * 3 + 2) * 2 + 1.
        assert_eq!(oihw.values[(3 + 2) * 2 + 1].to_bits(), 11_f32.to_bits());
        assert_eq!(oihw_to_hwio(&oihw.values, [2, 3, 1, 2]), count(12));
    }

    #[test]
    fn flattened_inputs_change_from_rows_to_channels() {
        let map = Map { height: 2, width: 3, channels: 4 };
        let torch = dense_to_torch(&count(48), 24, 2, Some(map));
        assert_eq!(torch.shape, [2, 24]);
        // Output 1, channel 3, y 1, x 2: row (1 * 3 + 2) * 4 + 3 = 23 of Keras' [24, 2] kernel.
        assert_eq!(torch.values[24 + 3 * 6 + 5].to_bits(), (23.0_f32 * 2.0 + 1.0).to_bits());
        // Output 0, channel 1, y 0, x 2: row 2 * 4 + 1 = 9.
        assert_eq!(torch.values[6 + 2].to_bits(), 18_f32.to_bits());
        assert_eq!(dense_to_keras(&torch.values, 24, 2, Some(map)), count(48));
    }

    #[test]
    fn unflattened_inputs_keep_their_order() {
        let torch = dense_to_torch(&count(6), 3, 2, None);
        assert_eq!(torch.values, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(dense_to_keras(&torch.values, 3, 2, None), count(6));
    }
}
