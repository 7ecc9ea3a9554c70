//! Golden images and the answers they must get.

use std::path::Path;

use safetensors::{
    Dtype, SafeTensorError, SafeTensors,
    tensor::{TensorView, serialize},
};

use super::BundleError;
use crate::{
    network::Precision,
    pixels::RgbImage,
    predictor::{PredictError, Prediction, Predictor},
    preprocessing::Preprocessing,
};

/// Largest difference of a probability that a replay may show: processors differ in the order of
/// their sums, which moves a probability by about 1e-6.
pub const GOLDEN_TOLERANCE: f32 = 1e-4;

/// The same for 8 bits: the first layer runs in floats, and where a value lies between two steps
/// its last bit decides for one of them.
pub const GOLDEN_TOLERANCE_INT8: f32 = 1e-2;

pub(super) fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => GOLDEN_TOLERANCE,
        Precision::Int8 => GOLDEN_TOLERANCE_INT8,
    }
}

/// Resized images with their probabilities.
pub(super) struct Golden {
    /// `[images, height, width, 3]`.
    input_shape: Vec<usize>,
    /// Before normalisation.
    pixels: Vec<u8>,
    /// `[images, labels]`.
    output_shape: Vec<usize>,
    probabilities: Vec<f32>,
}

impl Golden {
    /// Runs the images through the model.
    pub(super) fn record(predictor: &Predictor, images: &[RgbImage]) -> Result<Self, PredictError> {
        let preprocessing = predictor.preprocessing();
        let pixels = images.iter().flat_map(|image| preprocessing.resize(image).pixels().to_vec()).collect();
        let [height, width, channels] = preprocessing.image_size;
        let golden = Self {
            input_shape: vec![images.len(), height, width, channels],
            pixels,
            output_shape: vec![images.len(), predictor.labels().len()],
            probabilities: Vec::new(),
        };
        golden.answered_by(predictor)
    }

    /// The same images with the answers of another model.
    pub(super) fn answered_by(mut self, predictor: &Predictor) -> Result<Self, PredictError> {
        let predictions = self.run(predictor)?;
        self.probabilities = predictions.into_iter().flat_map(|image| image.probabilities).collect();
        Ok(self)
    }

    /// Runs the stored pixels again and compares.
    pub(super) fn replay(
        &self,
        predictor: &Predictor,
        tolerance: f32,
        path: &Path,
    ) -> Result<(), BundleError> {
        let labels = predictor.labels();
        self.check_shapes(predictor.preprocessing(), labels.len(), path)?;
        let got = self.run(predictor)?;
        for (image, (expected, got)) in self.probabilities.chunks_exact(labels.len()).zip(&got).enumerate() {
            for ((label, &expected), &got) in labels.iter().zip(expected).zip(&got.probabilities) {
                // A stored NaN fails too.
                let close = (expected - got).abs() <= tolerance;
                if !close {
                    let label = label.clone();
                    return Err(BundleError::Golden { path: path.to_owned(), image, label, expected, got });
                }
            }
        }
        Ok(())
    }

    /// Image by image, which takes the least memory.
    fn run(&self, predictor: &Predictor) -> Result<Vec<Prediction>, PredictError> {
        let image_len = self.input_shape.iter().skip(1).product::<usize>().max(1);
        let answer = |(image, pixels): (usize, &[u8])| {
            let mut input: Vec<f32> = pixels.iter().map(|&value| f32::from(value)).collect();
            predictor.preprocessing().normalize(&mut input);
            let mut answers = predictor.predict_input(&input, 1).map_err(|error| error.after(image))?;
            Ok(answers.swap_remove(0))
        };
        self.pixels.chunks(image_len).enumerate().map(answer).collect()
    }

    fn check_shapes(
        &self,
        preprocessing: &Preprocessing,
        labels: usize,
        path: &Path,
    ) -> Result<(), BundleError> {
        let [height, width, channels] = preprocessing.image_size;
        let images = self.input_shape.first().map_or(1, |&images| images.max(1));
        let arrays = [
            ("input", vec![images, height, width, channels], &self.input_shape),
            ("probabilities", vec![images, labels], &self.output_shape),
        ];
        arrays.into_iter().try_for_each(|(array, expected, got)| {
            let (path, got) = (path.to_owned(), got.clone());
            if expected == got {
                Ok(())
            } else {
                Err(BundleError::GoldenShape { path, array, expected, got })
            }
        })
    }

    /// The bytes of a safetensors file with `input` as U8 and `probabilities` as F32.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, SafeTensorError> {
        let probabilities: Vec<u8> =
            self.probabilities.iter().flat_map(|value| value.to_le_bytes()).collect();
        let input = TensorView::new(Dtype::U8, self.input_shape.clone(), &self.pixels)?;
        let output = TensorView::new(Dtype::F32, self.output_shape.clone(), &probabilities)?;
        serialize([("input", input), ("probabilities", output)], None)
    }

    pub(super) fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, BundleError> {
        let format = |source| BundleError::GoldenFormat { path: path.to_owned(), source };
        let file = SafeTensors::deserialize(bytes).map_err(format)?;
        let input = file.tensor("input").map_err(format)?;
        let output = file.tensor("probabilities").map_err(format)?;
        if input.dtype() != Dtype::U8 || output.dtype() != Dtype::F32 {
            let (input, output) = (input.dtype(), output.dtype());
            return Err(BundleError::GoldenTypes { path: path.to_owned(), input, output });
        }
        let (quads, _) = output.data().as_chunks::<4>();
        Ok(Self {
            input_shape: input.shape().to_vec(),
            pixels: input.data().to_vec(),
            output_shape: output.shape().to_vec(),
            probabilities: quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect(),
        })
    }
}
