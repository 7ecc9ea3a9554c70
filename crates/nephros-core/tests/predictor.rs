//! Predictions: one image or many, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::path::Path;

use common::{image, labels, noise, preprocessing, weights};
use nephros_core::{
    digest::sha256,
    keras::{self, ModelFile, Optimizer},
    network::Architecture,
    predictor::{ModelError, PredictError, Prediction, Predictor},
    preprocessing::Normalization,
    weights::Weights,
};

mod common;

const SIZE: [usize; 3] = [16, 16, 3];

fn build(weights: &Weights, names: &[&str]) -> Result<Predictor, ModelError> {
    let id = "compact-test".to_owned();
    Predictor::from_parts(Architecture::Compact, 0, labels(names), preprocessing(SIZE), weights, id)
}

fn predictor() -> Predictor {
    build(&weights(Architecture::Compact, 3, 0, SIZE), &["A", "B", "C"]).unwrap()
}

#[test]
fn a_batch_equals_the_single_predictions_exactly() {
    let predictor = predictor();
    // 70 images are three groups of the predictor.
    let images: Vec<_> = (0..70).map(|seed| image(16, 20, seed)).collect();
    let single: Vec<Prediction> = images.iter().map(|image| predictor.predict(image).unwrap()).collect();
    assert_eq!(predictor.predict_batch(&images).unwrap(), single);
    assert_ne!(single[0], single[1]);
    assert_eq!(predictor.predict_batch(&[]).unwrap(), []);
    assert_eq!(predictor.predict_input(&[], 0).unwrap(), []);
}

#[test]
fn an_image_equals_its_own_input() {
    let predictor = predictor();
    let image = image(16, 16, 5);
    let input = predictor.preprocessing().apply(&image);
    assert_eq!(predictor.predict_input(&input, 1).unwrap(), [predictor.predict(&image).unwrap()]);
}

#[test]
fn probabilities_sum_to_one_and_top_names_the_largest() {
    for prediction in predictor().predict_input(&noise(5 * 16 * 16 * 3, 3), 5).unwrap() {
        let sum: f32 = prediction.probabilities.iter().sum();
        // Three roundings of at most half a unit in the last place below 1.
        assert!((sum - 1.0).abs() <= 3.0 * f32::EPSILON, "{sum}");
        let top = prediction.probabilities[prediction.top()];
        assert!(prediction.probabilities.iter().all(|&probability| probability <= top));
    }
    let equal = Prediction { probabilities: vec![0.2, 0.4, 0.4] };
    assert_eq!(equal.top(), 1);
}

#[test]
fn large_logits_stay_probabilities() {
    let mut weights = weights(Architecture::Compact, 2, 0, SIZE);
    weights.0.get_mut("head.weight").unwrap().values.fill(0.0);
    // exp(1000) overflows f64; the difference of the logits is all that counts.
    weights.0.get_mut("head.bias").unwrap().values = vec![1000.0, 999.0];
    let prediction = build(&weights, &["A", "B"]).unwrap().predict(&image(16, 16, 1)).unwrap();
    // 1 / (1 + e^-1)
    assert!((f64::from(prediction.probabilities[0]) - 0.731_058_578_630_004_9).abs() < 1e-7);
}

#[test]
fn an_overflow_in_the_network_is_told() {
    let mut weights = weights(Architecture::Compact, 2, 0, SIZE);
    weights.0.get_mut("features.20.weight").unwrap().values.fill(3e38);
    weights.0.get_mut("features.20.bias").unwrap().values.fill(3e38);
    let predictor = build(&weights, &["A", "B"]).unwrap();
    let error = predictor.predict_batch(&[image(16, 16, 1)]).unwrap_err();
    assert!(matches!(error, PredictError::NotFinite { image: 0, .. }), "{error}");
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let predictor = predictor();
    let short = predictor.predict_input(&[0.0; 10], 1).unwrap_err();
    // 16 * 16 * 3 = 768
    assert_eq!(short.to_string(), "expected 768 values in the input (1 images), got 10");
    let mut input = vec![0.0; 768];
    input[7] = f32::NAN;
    let nan = predictor.predict_input(&input, 1).unwrap_err();
    assert_eq!(nan.to_string(), "image 0 of the batch holds NaN at position 7, expected finite values");
}

#[test]
fn labels_must_tell_classes_apart() {
    let weights = weights(Architecture::Compact, 2, 0, SIZE);
    for names in [&["A"][..], &[], &["A", "A"], &["A", ""]] {
        let error = build(&weights, names).unwrap_err();
        assert!(matches!(error, ModelError::Labels { .. }), "{error}");
    }
}

#[test]
fn a_predictor_is_shared_between_threads() {
    let predictor = predictor();
    let image = image(16, 16, 2);
    let expected = predictor.predict(&image).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| predictor.predict(&image).unwrap())).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), expected);
        }
    });
}

fn save_keras(path: &Path, weights: &Weights, classes: usize) {
    let file = ModelFile {
        architecture: Architecture::Compact,
        image_size: SIZE,
        hidden_units: 0,
        classes: Some(classes),
        weights,
        frozen: false,
        optimizer: Optimizer::Sgd { momentum: 0.0 },
        learning_rate: 0.01,
    };
    keras::write_model(path, &file).unwrap();
}

#[test]
fn a_keras_file_predicts_as_its_weights_do_and_says_what_it_assumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    let weights = weights(Architecture::Compact, 2, 0, SIZE);
    save_keras(&path, &weights, 2);
    let loaded = Predictor::load(&path, None).unwrap();
    let expected = build(&weights, &["Normal", "Tumor"]).unwrap();
    let image = image(20, 30, 4);
    assert_eq!(loaded.predict(&image).unwrap(), expected.predict(&image).unwrap());
    assert_eq!(loaded.labels(), ["Normal", "Tumor"]);
    assert_eq!(loaded.preprocessing(), &preprocessing(SIZE));
    assert_eq!(loaded.id(), format!("compact-{}", &sha256(&weights.to_bytes().unwrap())[..8]));
    let assumption = loaded.assumption().unwrap();
    let expected = "the whole image, RGB in 0 to 1 (`unit`), and Normal, Tumor; `--preprocessing caffe`";
    assert!(assumption.contains(expected), "{assumption}");
    let caffe = Predictor::load(&path, Some(Normalization::Caffe)).unwrap();
    assert_eq!(caffe.preprocessing().normalization, Normalization::Caffe);
    assert!(caffe.assumption().unwrap().ends_with("does not name its classes: assumed Normal, Tumor"));
}

#[test]
fn a_keras_file_with_other_classes_numbers_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    save_keras(&path, &weights(Architecture::Compact, 3, 0, SIZE), 3);
    assert_eq!(Predictor::load(&path, None).unwrap().labels(), ["class_0", "class_1", "class_2"]);
}

#[test]
fn a_file_that_only_claims_to_be_keras_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    fs_err::write(&path, "<!DOCTYPE html>").unwrap();
    let error = Predictor::load(&path, None).unwrap_err();
    assert!(matches!(error, ModelError::Keras(_)), "{error}");
}
