use nephros_core::{
    input_gate::{Reason, Similar},
    patient::PatientAnswer,
    pixels::RgbImage,
    predictor::{Gated, Prediction, Predictor, Prepared},
};

/// Any error underneath.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a model says about an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Classified {
    /// Probability of each class; as many as there are labels.
    pub probabilities: Vec<f32>,
    /// What speaks against giving the image a label.
    pub reasons: Vec<Reason>,
    /// The nearest training slices, where they were asked for.
    pub similar: Vec<Similar>,
}

impl From<Gated> for Classified {
    fn from(Gated { prediction, reasons, similar }: Gated) -> Self {
        Self { probabilities: prediction.probabilities, reasons, similar }
    }
}

/// What it takes to repeat an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// SHA-256 of the file that names all others of the model, in hexadecimal.
    pub bundle_sha256: String,
    /// What happens to an image before the network, as JSON.
    pub preprocessing: String,
    /// What computes: version and instruction set, on which the last bits may depend.
    pub engine: String,
}

/// A loaded model, as a service needs it.
pub trait Classifier: Send + Sync + 'static {
    /// What the model is called in answers: a digest or a file name.
    fn id(&self) -> &str;

    /// Class names, in the order of the probabilities.
    fn labels(&self) -> &[String];

    /// What the network needs of an image, and of how many patients the nearest training slice is asked
    /// for. It runs beside the batches, for several images at once.
    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared;

    /// An answer for each image. What an image gets does not depend on the others.
    ///
    /// # Errors
    /// Whatever the engine reports; the client reads only that the server failed.
    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError>;

    /// Why a radiologist has to look at an image with these probabilities; `None` where the label
    /// stands alone, or the model cannot tell.
    fn refer(&self, _probabilities: &[f32]) -> Option<String> {
        None
    }

    /// One answer for a patient from the probabilities of its images; `None` of no image, or by a model that
    /// answers for images alone.
    fn patient(&self, _images: &[&[f32]]) -> Option<PatientAnswer> {
        None
    }

    /// What it takes to repeat an answer, for a record of it; empty for a model that was not loaded from a file.
    fn provenance(&self) -> Provenance {
        Provenance::default()
    }

    /// Whether a probability is the share of such answers that are right, as far as that was measured.
    fn calibrated(&self) -> bool {
        false
    }

    /// Whether [`Self::explain`] gives a picture.
    fn explains(&self) -> bool {
        false
    }

    /// A PNG of the image under the regions that its answer rests on; `None` for a model that draws none.
    fn explain(&self, _image: &RgbImage) -> Option<Result<Vec<u8>, BoxError>> {
        None
    }
}

impl Classifier for Predictor {
    fn id(&self) -> &str {
        self.id()
    }

    fn labels(&self) -> &[String] {
        self.labels()
    }

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        self.prepare(image, similar)
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        Ok(self.predict_prepared(batch)?.into_iter().map(Classified::from).collect())
    }

    fn refer(&self, probabilities: &[f32]) -> Option<String> {
        self.answer(&Prediction { probabilities: probabilities.to_vec() })?.reason
    }

    fn patient(&self, images: &[&[f32]]) -> Option<PatientAnswer> {
        self.patient(images.iter().copied())
    }

    fn calibrated(&self) -> bool {
        self.calibration().is_some()
    }
}
