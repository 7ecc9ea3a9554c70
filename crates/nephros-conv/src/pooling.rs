//! Pooling on its own; after a convolution the maximum is taken there.

use crate::layout::Layout;

/// 2×2 maximum with stride 2; an odd last row or column is dropped.
pub(crate) fn max_pool(input: Layout, output: Layout, source: &[f32], target: &mut [f32]) {
    let channels = input.shape.channels;
    output.clear_border(target);
    let mut rows = input.rows(source);
    for (pixels, border) in output.rows_mut(target) {
        let (Some(upper), Some(lower)) = (rows.next(), rows.next()) else { break };
        let pairs = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
        for (pixel, (upper, lower)) in pixels.chunks_exact_mut(channels).zip(pairs) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                let top = upper[channel].max(upper[channels + channel]);
                *value = top.max(lower[channel].max(lower[channels + channel]));
            }
        }
        border.fill(0.0);
    }
}

/// Mean over rows and columns. Rows are summed first, so that long sums stay accurate.
pub(crate) fn global_average(input: Layout, output: Layout, source: &[f32], target: &mut [f32]) {
    let channels = input.shape.channels;
    output.clear_border(target);
    // The place of the zeros after the only pixel holds the sum of a row meanwhile.
    let (mean, row_sums) = target[output.body()].split_at_mut(channels);
    mean.fill(0.0);
    for row in input.rows(source) {
        row_sums.fill(0.0);
        for pixel in row.chunks_exact(channels) {
            add(pixel, row_sums);
        }
        add(row_sums, mean);
    }
    row_sums.fill(0.0);
    let scale = 1.0 / (input.shape.height * input.shape.width) as f32;
    for value in mean.iter_mut() {
        *value *= scale;
    }
}

fn add(values: &[f32], sums: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
