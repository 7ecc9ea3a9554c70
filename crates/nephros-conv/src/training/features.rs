//! From the last map to the features, and their gradient back.

use super::{map::Map, plan::Global};

/// Writes the features of one image from its last map, dense with held channels.
pub(super) fn gather(global: Option<Global>, map: Map, values: &[f32], features: &mut [f32]) {
    let pixels = values.chunks_exact(map.channels);
    match global {
        None => {
            let channels = features.len() / (map.height * map.width);
            for (pixel, features) in pixels.zip(features.chunks_exact_mut(channels)) {
                features.copy_from_slice(&pixel[..channels]);
            }
        }
        Some(Global::Average) => {
            let mut sums = vec![0.0_f64; features.len()];
            for pixel in pixels {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(*value);
                }
            }
            let count = (map.height * map.width) as f64;
            for (feature, sum) in features.iter_mut().zip(sums) {
                *feature = (sum / count) as f32;
            }
        }
        Some(Global::Max) => {
            features.fill(f32::NEG_INFINITY);
            for pixel in pixels {
                for (feature, value) in features.iter_mut().zip(pixel) {
                    *feature = feature.max(*value);
                }
            }
        }
    }
}

/// Writes the gradient of the last map of one image. `values` is the map itself.
pub(super) fn scatter(
    global: Option<Global>,
    map: Map,
    values: &[f32],
    features: &[f32],
    target: &mut [f32],
) {
    let channels = map.channels;
    target.fill(0.0);
    match global {
        None => {
            let used = features.len() / (map.height * map.width);
            for (pixel, features) in target.chunks_exact_mut(channels).zip(features.chunks_exact(used)) {
                pixel[..used].copy_from_slice(features);
            }
        }
        Some(Global::Average) => {
            let scale = 1.0 / (map.height * map.width) as f32;
            for pixel in target.chunks_exact_mut(channels) {
                for (value, feature) in pixel.iter_mut().zip(features) {
                    *value = feature * scale;
                }
            }
        }
        Some(Global::Max) => {
            for (channel, feature) in features.iter().enumerate() {
                let mut best = channel;
                for position in (channel..values.len()).step_by(channels) {
                    if values[position] > values[best] {
                        best = position;
                    }
                }
                target[best] = *feature;
            }
        }
    }
}
