//! Pooling on its own; after a convolution the maximum is taken there.

use rayon::prelude::*;

use crate::Shape;

/// 2×2 maximum with stride 2; an odd last row or column is dropped.
pub(crate) fn max_pool(input: Shape, output: Shape, source: &[f32], target: &mut [f32]) {
    let (row_len, channels) = (input.width * input.channels, input.channels);
    let images = source.par_chunks_exact(input.len()).zip(target.par_chunks_exact_mut(output.len()));
    images.for_each(|(source, target)| {
        let pairs = source.chunks_exact(2 * row_len);
        for (pair, pixels) in pairs.zip(target.chunks_exact_mut(output.width * channels)) {
            let (upper, lower) = pair.split_at(row_len);
            let corners = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
            for (pixel, (upper, lower)) in pixels.chunks_exact_mut(channels).zip(corners) {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let top = upper[channel].max(upper[channels + channel]);
                    *value = top.max(lower[channel].max(lower[channels + channel]));
                }
            }
        }
    });
}

/// Mean over rows and columns. Rows are summed first, so that long sums stay accurate.
pub(crate) fn global_average(input: Shape, source: &[f32], target: &mut [f32]) {
    let channels = input.channels;
    let scale = 1.0 / (input.height * input.width) as f32;
    let images = source.par_chunks_exact(input.len()).zip(target.par_chunks_exact_mut(channels));
    images.for_each(|(source, mean)| {
        let mut row_sums = vec![0.0; channels];
        mean.fill(0.0);
        for row in source.chunks_exact(input.width * channels) {
            row_sums.fill(0.0);
            for pixel in row.chunks_exact(channels) {
                add(pixel, &mut row_sums);
            }
            add(&row_sums, mean);
        }
        for value in mean.iter_mut() {
            *value *= scale;
        }
    });
}

fn add(values: &[f32], sums: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
