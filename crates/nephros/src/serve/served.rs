//! A loaded model behind the server's trait.

use nephros_core::{
    explain::{Explainer, Method, Question, overlay},
    pixels::RgbImage,
    predictor::Prepared,
};
use nephros_server::{BoxError, Classified, Classifier};

/// A model that answers and draws heat maps.
pub struct Served(pub Explainer);

impl Classifier for Served {
    fn id(&self) -> &str {
        self.0.predictor().id()
    }

    fn labels(&self) -> &[String] {
        self.0.predictor().labels()
    }

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        self.0.predictor().prepare(image, similar)
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        Classifier::classify(self.0.predictor(), batch)
    }

    fn refer(&self, probabilities: &[f32]) -> Option<String> {
        Classifier::refer(self.0.predictor(), probabilities)
    }

    fn calibrated(&self) -> bool {
        self.0.predictor().calibration().is_some()
    }

    fn explains(&self) -> bool {
        true
    }

    fn explain(&self, image: &RgbImage) -> Option<Result<Vec<u8>, BoxError>> {
        let draw = || {
            // Whatever is drawn at random, the same picture gives the same map.
            let question = Question { method: Method::GradCam, class: None, seed: 0 };
            let explanation = self.0.explain(image, question)?;
            let label = &self.labels()[explanation.class];
            Ok(overlay::png(&overlay::draw(image, &explanation, label))?)
        };
        Some(draw())
    }
}
