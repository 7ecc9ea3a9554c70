//! Keras files, read as `nephros predict --model` and `nephros train` read them.
//!
//! An input is the file, packed as [`expand`](super::expand()) says.

use std::io::Write as _;

use nephros_core::{keras, pixels::RgbImage, predictor::Predictor};

use super::expand::expand;

/// Loads the file as a model and as weights.
pub fn run(data: &[u8]) {
    let Some(bytes) = expand(data) else { return };
    let file = tempfile::Builder::new().suffix(".h5").tempfile();
    let mut file = file.expect("a file for the model");
    file.write_all(&bytes).expect("a model can be written");
    if let Ok(model) = Predictor::load(file.path(), None) {
        let image = RgbImage::new(24, 16, vec![128; 24 * 16 * 3]).expect("a picture");
        let _ = model.predict(&image);
    }
    let _ = keras::read_weights(file.path());
}
