//! A loaded model behind the server's trait.

use std::path::Path;

use nephros_core::{
    explain::{Explainer, Method, Question, overlay},
    patient::PatientAnswer,
    pixels::RgbImage,
    predictor::Prepared,
};
use nephros_server::{BoxError, Classified, Classifier, Provenance};

use crate::receipts;

/// A model that answers and draws heat maps.
pub struct Served {
    explainer: Explainer,
    provenance: Provenance,
}

impl Served {
    /// A model that was loaded from `path`, its bundle or Keras file.
    ///
    /// # Errors
    /// The file that names it cannot be read any more.
    pub fn new(explainer: Explainer, path: &Path) -> anyhow::Result<Self> {
        let provenance = receipts::provenance(explainer.predictor(), path)?;
        Ok(Self { explainer, provenance })
    }
}

impl Classifier for Served {
    fn id(&self) -> &str {
        self.explainer.predictor().id()
    }

    fn labels(&self) -> &[String] {
        self.explainer.predictor().labels()
    }

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        self.explainer.predictor().prepare(image, similar)
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        Classifier::classify(self.explainer.predictor(), batch)
    }

    fn refer(&self, probabilities: &[f32]) -> Option<String> {
        Classifier::refer(self.explainer.predictor(), probabilities)
    }

    fn patient(&self, images: &[&[f32]]) -> Option<PatientAnswer> {
        Classifier::patient(self.explainer.predictor(), images)
    }

    fn provenance(&self) -> Provenance {
        self.provenance.clone()
    }

    fn calibrated(&self) -> bool {
        self.explainer.predictor().calibration().is_some()
    }

    fn explains(&self) -> bool {
        true
    }

    fn explain(&self, image: &RgbImage) -> Option<Result<Vec<u8>, BoxError>> {
        let draw = || {
            // Whatever is drawn at random, the same picture gives the same map.
            let question = Question { method: Method::GradCam, class: None, seed: 0 };
            let explanation = self.explainer.explain(image, question)?;
            let label = &self.labels()[explanation.class];
            Ok(overlay::png(&overlay::draw(image, &explanation, label))?)
        };
        Some(draw())
    }
}
