//! A small random model, and images for it.

use std::path::Path;

use nephros_core::{
    bundle::{Bundle, BundleParts},
    network::Architecture,
    pixels::RgbImage,
    preprocessing::{Normalization, Preprocessing},
    weights::{Tensor, Weights},
};
use serde_json::{Map, Value};

const IMAGE_SIZE: [usize; 3] = [32, 32, 3];

/// Values between -0.1 and 0.1 that look random; variances of batch norms are 1.
fn weights(labels: usize) -> Weights {
    let mut state = 1_u32;
    let mut next = || {
        // Source: the linear congruential generator of Numerical Recipes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.2 * (state >> 8) as f32 / (1 << 24) as f32 - 0.1
    };
    let shapes = Architecture::Compact.expected_shapes(labels, 0, IMAGE_SIZE);
    let arrays = shapes.into_iter().map(|(key, shape)| {
        let length = shape.iter().product();
        let values = if key.ends_with("running_var") {
            vec![1.0; length]
        } else {
            (0..length).map(|_| next()).collect()
        };
        (key, Tensor { shape, values })
    });
    Weights(arrays.collect())
}

/// Writes a model of two classes, Normal and Tumor.
pub fn save_bundle(dir: &Path) {
    let parts = BundleParts {
        architecture: Architecture::Compact,
        hidden_units: 0,
        labels: vec!["Normal".into(), "Tumor".into()],
        preprocessing: Preprocessing::new(IMAGE_SIZE, Normalization::Unit),
        params: Value::Object(Map::new()),
        dataset_digest: String::new(),
        split_digest: String::new(),
        metrics: Value::Null,
        calibration: None,
        abstention: None,
        patient: None,
    };
    let golden = RgbImage::new(1, 1, vec![100, 150, 200]).unwrap();
    Bundle::save(dir, parts, &weights(2), &[golden]).unwrap();
}

/// A 24-bit bitmap of one colour; red, green, blue.
pub fn bitmap(side: u32, [red, green, blue]: [u8; 3]) -> Vec<u8> {
    let stride = (3 * side).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    // File size, reserved, offset of the pixels (14 + 40), size of the info header.
    for value in [54 + stride * side, 0, 54, 40, side, side] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]); // one plane, 24 bits a pixel
    bytes.extend([0; 24]); // no compression, and what may be left out
    let mut row = [blue, green, red].repeat(side as usize);
    row.resize(stride as usize, 0);
    bytes.extend(row.repeat(side as usize));
    bytes
}
