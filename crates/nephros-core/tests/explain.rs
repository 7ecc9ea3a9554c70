//! Explanations of random models: gradients, sums, and what is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use common::{image, labels, noise, preprocessing, weights};
use nephros_core::{
    explain::{
        ExplainError, Explainer, Method, NoSuchClass, Question,
        gradcam::{Gradient, Weighting},
    },
    network::Architecture,
    pixels::Crop,
    predictor::{Head, ModelError, Predictor},
    preprocessing::Preprocessing,
    weights::Weights,
};

mod common;

const SIZE: [usize; 3] = [64, 64, 3];

fn explainer(weights: &Weights, hidden_units: usize, names: &[&str], crop: Crop) -> Explainer {
    let preprocessing = Preprocessing { crop, ..preprocessing(SIZE) };
    let (architecture, id) = (Architecture::Compact, "compact-test".to_owned());
    let predictor =
        Predictor::from_parts(architecture, hidden_units, labels(names), preprocessing, weights, id).unwrap();
    Explainer::new(predictor, architecture, hidden_units, weights).unwrap()
}

fn of_places(weights: &Weights, names: &[&str]) -> Explainer {
    let (architecture, id) = (Architecture::CompactPlaces, "compact-places-test".to_owned());
    let predictor =
        Predictor::from_parts(architecture, 0, labels(names), preprocessing(SIZE), weights, id).unwrap();
    Explainer::new(predictor, architecture, 0, weights).unwrap()
}

fn compact(hidden_units: usize, names: &[&str]) -> Explainer {
    let weights = weights(Architecture::Compact, names.len(), hidden_units, SIZE);
    explainer(&weights, hidden_units, names, Crop::None)
}

fn question(method: Method) -> Question {
    Question { method, class: None, seed: 1 }
}

/// `ln(p / (1 − p))`, the rest summed from the other classes because 1 − p loses small ones.
fn log_odds(probabilities: &[f32], class: usize) -> f64 {
    let others = probabilities.iter().enumerate().filter(|(other, _)| *other != class);
    let rest: f64 = others.map(|(_, probability)| f64::from(*probability)).sum();
    (f64::from(probabilities[class]) / rest).ln()
}

#[test]
fn scores_are_the_log_odds_of_the_predictor() {
    let names = ["A", "B", "C"];
    let places = of_places(&weights(Architecture::CompactPlaces, 3, 0, SIZE), &names);
    for explainer in [compact(0, &names), compact(5, &names), places] {
        let input = noise(3 * 64 * 64 * 3, 4);
        let predictions = explainer.predictor().predict_input(&input, 3).unwrap();
        for class in 0..3 {
            let scores = explainer.scores(&input, 3, class).unwrap();
            for (score, prediction) in scores.iter().zip(&predictions) {
                let expected = log_odds(&prediction.probabilities, class);
                assert!((score - expected).abs() < 1e-4, "{score}, expected {expected}");
            }
        }
    }
}

#[test]
fn the_analytic_gradient_is_that_of_the_predictor() {
    // VGG16's head on a flattened map of 1×1×512 and compact's on 128 means, with and without a
    // hidden layer, and one that judges the places of a map of 4×4×128; a central difference of 2^-6 through the engine's f32 head.
    const STEP: f32 = 0.015_625;
    for (architecture, hidden_units) in [
        (Architecture::Compact, 0),
        (Architecture::Compact, 7),
        (Architecture::Vgg16, 6),
        (Architecture::Vgg16Hypercolumn, 3),
        (Architecture::CompactPlaces, 0),
    ] {
        let size = [32, 32, 3];
        let weights = weights(architecture, 3, hidden_units, size);
        let analytic = Gradient::new(architecture, hidden_units, 3, size, &weights).unwrap();
        let head = Head::new(architecture, hidden_units, 3, size, &weights).unwrap();
        let length = architecture.feature_len(size);
        let features: Vec<f32> = noise(length, 9).iter().map(|value| value.abs()).collect();
        for class in 0..3 {
            let gradient = analytic.by_features(&features, &head.logits(&features, 1).unwrap(), class);
            let largest = gradient.iter().fold(0.0_f64, |largest, by| largest.max(by.abs()));
            assert!(largest > 0.01, "a gradient worth comparing");
            for place in (0..length).step_by(5) {
                let moved = |step: f32| {
                    let mut features = features.clone();
                    features[place] += step;
                    log_odds(&head.predict(&features, 1).unwrap()[0].probabilities, class)
                };
                let expected = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
                let off = (gradient[place] - expected).abs();
                // Rounding of two f32 log-odds over 2 steps, and a kink of the ReLU within a step.
                assert!(
                    off < 0.02 * largest + 2e-4,
                    "{architecture} {place}: {}, {expected}",
                    gradient[place]
                );
            }
        }
    }
}

#[test]
fn the_map_of_compact_adds_up_to_the_log_odds() {
    let mut weights = weights(Architecture::Compact, 2, 0, SIZE);
    weights.0.get_mut("head.bias").unwrap().values = vec![0.25, -0.5];
    let explainer = explainer(&weights, 0, &["Normal", "Tumor"], Crop::None);
    let input = noise(64 * 64 * 3, 8);
    for (class, bias) in [(0, 0.75), (1, -0.75)] {
        let score = explainer.scores(&input, 1, class).unwrap()[0];
        for weighting in [Weighting::Channel, Weighting::EachCell] {
            let cells = explainer.cells(&input, class, weighting).unwrap();
            assert_eq!((cells.height(), cells.width()), (4, 4)); // 64/16
            let sum: f64 = cells.values().iter().map(|&value| f64::from(value)).sum();
            let mean = sum / 16.0;
            assert!((mean + bias - score).abs() < 1e-4, "{mean} + {bias}, expected {score}");
        }
    }
}

#[test]
fn the_map_of_places_is_their_evidence() {
    let architecture = Architecture::CompactPlaces;
    let weights = weights(architecture, 2, 0, SIZE);
    let explainer = of_places(&weights, &["Normal", "Tumor"]);
    let input = noise(64 * 64 * 3, 8);
    let map = explainer.predictor().features(&input, 1).unwrap();
    let head = architecture.build_place_head(&weights, 2, SIZE).unwrap();
    let first = |key: &str| weights.0[key].values[0];
    for class in [0, 1] {
        let gain = head.gain(0, class) - head.gain(0, 1 - class);
        let cells = explainer.cells(&input, class, Weighting::Channel).unwrap();
        assert_eq!((cells.height(), cells.width()), (8, 8)); // 64/8
        for (cell, evidence) in cells.values().iter().zip(head.evidence_at_places(&map, 0)) {
            let expected = gain * (evidence - first("head.places.bias"));
            assert!((cell - expected).abs() < 1e-4, "{cell}, expected {expected}");
        }

        let cells = explainer.cells(&input, class, Weighting::EachCell).unwrap();
        let window = head.winners(&map)[0];
        let inside = |cell: usize| {
            (window.row..window.row + 3).contains(&(cell / 8))
                && (window.column..window.column + 3).contains(&(cell % 8))
        };
        for (cell, value) in cells.values().iter().enumerate() {
            assert_eq!(*value != 0.0, inside(cell), "the window alone answers");
        }
        let sum: f64 = cells.values().iter().map(|&value| f64::from(value)).sum();
        let biases = &weights.0["head.bias"].values;
        let rest = gain * first("head.places.bias") + biases[class] - biases[1 - class];
        let (mean, score) = (sum / 64.0, explainer.scores(&input, 1, class).unwrap()[0]);
        assert!((mean + f64::from(rest) - score).abs() < 1e-4, "{mean} + {rest}, expected {score}");
    }
}

#[test]
fn hirescam_of_a_flattened_map_adds_up_to_the_log_odds() {
    adds_up_to_the_log_odds(Architecture::Vgg16);
    adds_up_to_the_log_odds(Architecture::Vgg16Hypercolumn);
}

fn adds_up_to_the_log_odds(architecture: Architecture) {
    let size = [64, 64, 3];
    let weights = weights(architecture, 2, 0, size);
    let id = format!("{architecture}-test");
    let predictor =
        Predictor::from_parts(architecture, 0, labels(&["A", "B"]), preprocessing(size), &weights, id);
    let explainer = Explainer::new(predictor.unwrap(), architecture, 0, &weights).unwrap();
    let input = noise(64 * 64 * 3, 2);
    let cells = explainer.cells(&input, 1, Weighting::EachCell).unwrap();
    assert_eq!((cells.height(), cells.width()), (2, 2)); // 64/32
    let bias = &weights.0["head.bias"].values;
    let sum: f64 = cells.values().iter().map(|&value| f64::from(value)).sum();
    let (mean, score) = (sum / 4.0, explainer.scores(&input, 1, 1).unwrap()[0]);
    let expected = score - f64::from(bias[1] - bias[0]);
    assert!((mean - expected).abs() < 1e-3 * expected.abs().max(1.0), "{mean}, expected {expected}");
}

#[test]
fn every_method_gives_a_map_and_the_same_one_twice() {
    let all = [Method::GradCam, Method::HiResCam, Method::Occlusion, Method::Lime, Method::Shap];
    let names = ["Normal", "Tumor"];
    gives_the_same_map_twice(&compact(0, &names), &all);
    // The last two see the network's answers alone, as occlusion does.
    let places = of_places(&weights(Architecture::CompactPlaces, 2, 0, SIZE), &names);
    gives_the_same_map_twice(&places, &all[..3]);
}

fn gives_the_same_map_twice(explainer: &Explainer, methods: &[Method]) {
    let image = image(90, 70, 3);
    for &method in methods {
        let found = explainer.explain(&image, question(method)).unwrap();
        assert_eq!((found.map.height(), found.map.width()), (64, 64));
        assert_eq!(found.class, found.prediction.top());
        assert_eq!((found.frame.height, found.frame.width), (70, 90));
        assert_eq!(found, explainer.explain(&image, question(method)).unwrap(), "{}", method.name());
    }
}

#[test]
fn the_values_of_shap_sum_to_the_score_less_that_of_a_grey_picture() {
    let explainer = compact(0, &["Normal", "Tumor"]);
    let image = image(64, 64, 6);
    let found = explainer.explain(&image, question(Method::Shap)).unwrap();
    // A superpixel's value stands at each of its pixels: cut the picture again to count each once.
    let grey: Vec<f32> =
        image.pixels().chunks(3).map(|p| p.iter().map(|&v| f32::from(v)).sum::<f32>() / 3.0).collect();
    let superpixels = nephros_core::explain::superpixels::Superpixels::slic(
        &grey,
        64,
        64,
        nephros_core::explain::superpixels::COUNT,
    );
    let mut values = vec![0.0; superpixels.count()];
    for (&superpixel, &value) in superpixels.labels().iter().zip(found.map.values()) {
        values[superpixel] = f64::from(value);
    }
    let input = explainer.predictor().preprocessing().apply(&image);
    let mean = |channel: usize| {
        (input.iter().skip(channel).step_by(3).map(|&value| f64::from(value)).sum::<f64>() / 4096.0) as f32
    };
    let plain = [mean(0), mean(1), mean(2)].repeat(64 * 64);
    let expected = found.score - explainer.scores(&plain, 1, found.class).unwrap()[0];
    let sum: f64 = values.iter().sum();
    assert!((sum - expected).abs() < 1e-3 * expected.abs().max(1.0), "{sum}, expected {expected}");
}

#[test]
fn a_class_that_is_not_there_is_refused() {
    let explainer = compact(0, &["Normal", "Tumor"]);
    let asked = Question { class: Some(2), ..question(Method::GradCam) };
    let error = explainer.explain(&image(64, 64, 1), asked).unwrap_err();
    assert_eq!(error, ExplainError::Class(NoSuchClass { class: 2, last: 1 }));
    assert_eq!(error.to_string(), "expected a class from 0 to 1, got 2");
}

#[test]
fn weights_without_the_head_or_the_features_are_refused() {
    for (architecture, missing) in [
        (Architecture::Compact, "head.weight"),
        (Architecture::Compact, "features.0.weight"),
        (Architecture::CompactPlaces, "head.places.weight"),
    ] {
        let whole = weights(architecture, 2, 0, SIZE);
        let id = "compact-test".to_owned();
        let names = labels(&["A", "B"]);
        let predictor =
            Predictor::from_parts(architecture, 0, names, preprocessing(SIZE), &whole, id).unwrap();
        let mut weights = whole;
        weights.0.remove(missing);
        let error = Explainer::new(predictor, architecture, 0, &weights).unwrap_err();
        assert!(matches!(error, ModelError::Network(_)), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
}
