//! Images made ready one by one, and answered for many at a time.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{Gated, PredictError, Predictor};
use crate::{input_gate::Traits, pixels::RgbImage};

/// All that is needed of an image to answer for it; the image itself is not.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Network input, `[height, width, 3]`, resized and normalised.
    pub input: Vec<f32>,
    /// What the input gate looks at; `None` for a model that refuses no picture.
    pub traits: Option<Traits>,
    /// Patients of whom the nearest training slice is asked for.
    pub similar: usize,
}

impl Predictor {
    /// The part of a prediction that does not touch the network; `similar` is the number of patients of
    /// whom the nearest training slice is asked for.
    pub fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        Prepared { input: self.preprocessing.apply(image), traits: self.traits(image), similar }
    }

    /// Answers for prepared images in one forward pass; each answer is the one that
    /// [`Self::predict_gated`] gives for that image alone, bit for bit.
    ///
    /// # Errors
    /// See [`PredictError`]; one image that fails fails all.
    pub fn predict_prepared(&self, batch: &[Prepared]) -> Result<Vec<Gated>, PredictError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let input: Cow<'_, [f32]> = match batch {
            [only] => Cow::Borrowed(&only.input),
            many => {
                let inputs: Vec<&[f32]> = many.iter().map(|image| image.input.as_slice()).collect();
                Cow::Owned(inputs.concat())
            }
        };
        let features = self.features(&input, batch.len())?;
        let predictions = self.predict_features(&features, batch.len())?;
        let own = features.par_chunks_exact(features.len() / batch.len());
        let gated = batch.par_iter().zip(own).zip(predictions).map(|((image, features), prediction)| Gated {
            prediction,
            reasons: self.reasons(image.traits.as_ref(), features),
            similar: if image.similar > 0 { self.similar(features, image.similar) } else { Vec::new() },
        });
        Ok(gated.collect())
    }
}
