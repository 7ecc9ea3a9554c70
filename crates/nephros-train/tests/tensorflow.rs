//! Keras files and the real Keras, version 2.12 and the current one: each reads what the other
//! writes, and both predict the same.
//!
//! Needs the environments of `scripts/setup-interop`; without them the tests say what they leave
//! out, and fail where `CI` is `true`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use nephros_core::{
    keras::{self, ModelFile, Optimizer},
    network::Architecture,
    predictor::Head,
    weights::{Tensor, Weights},
};
use nephros_train::{config::WeightsSource, pretrained, progress::Silent};
use serde::{Deserialize, de::DeserializeOwned};

/// Largest difference between a probability here and in Keras; features may differ by as much of
/// the largest feature.
const TOLERANCE: f64 = 1e-5;

/// What a script prints: results by file name.
#[derive(Debug, Deserialize)]
struct Report<T> {
    keras: String,
    models: BTreeMap<String, T>,
}

type Outputs = Vec<Vec<f64>>;

#[derive(Debug, Deserialize)]
struct Checked {
    outputs: Outputs,
    input_shape: Vec<Option<usize>>,
    layers: Vec<String>,
    trainable: Vec<bool>,
    optimizer: Option<String>,
    learning_rate: Option<f64>,
    loss: Option<f64>,
    loss_after: Option<f64>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a script of `scripts/interop` in an environment of `target/interop`.
fn run<T: DeserializeOwned>(environment: &str, script: &str, folder: &Path) -> Option<Report<T>> {
    let python = root().join("target/interop").join(environment).join("bin/python");
    if !python.exists() {
        let missing = format!("left out: {script} with {environment} (run scripts/setup-interop)");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        println!("{missing}");
        return None;
    }
    let script = root().join("scripts/interop").join(script);
    let output = Command::new(python).arg(script).arg(folder).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    Some(serde_json::from_str(text.lines().last().unwrap()).unwrap())
}

/// The images of `scripts/interop/fixed_input.py`.
fn fixed_input(shape: [usize; 3], count: usize) -> Vec<f32> {
    let length: usize = shape.iter().product();
    let values = (0..count * length).map(|position| {
        let value = (position as u64 * 2_654_435_761 % (1 << 32)) >> 12;
        let strength = 0.5_f32.powi((position / length) as i32);
        (value as f32 / (1 << 19) as f32 - 1.0) * strength
    });
    values.collect()
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// Features of the three fixed images, or their probabilities where there is a head of
/// `(hidden units, classes)`.
fn predict(
    architecture: Architecture,
    weights: &Weights,
    image_size: [usize; 3],
    head: Option<(usize, usize)>,
) -> Outputs {
    let network = architecture.build_features(weights, image_size).unwrap();
    let mut features = vec![0.0; 3 * network.output().len()];
    network.forward(&fixed_input(image_size, 3), 3, &mut features).unwrap();
    let Some((hidden_units, classes)) = head else {
        let images = features.chunks(network.output().len());
        return images.map(|image| image.iter().map(|&value| f64::from(value)).collect()).collect();
    };
    let head = Head::new(architecture, hidden_units, classes, image_size, weights).unwrap();
    let logits = head.logits(&features, 3).unwrap();
    logits.chunks(classes).map(softmax).collect()
}

fn largest(outputs: &Outputs) -> f64 {
    outputs.iter().flatten().fold(0.0, |largest, value| largest.max(value.abs()))
}

fn assert_agrees(name: &str, keras: &str, ours: &Outputs, theirs: &Outputs) {
    let lengths = |outputs: &Outputs| outputs.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(ours), lengths(theirs));
    // Agreement means nothing where all images look the same.
    let distances = ours[0].iter().zip(&ours[1]).map(|(first, second)| (first - second).abs());
    assert!(distances.fold(0.0, f64::max) > 1e-3, "{name}: the images are hardly told apart");
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    let difference = pairs.fold(0.0, |largest: f64, (ours, theirs)| largest.max((ours - theirs).abs()));
    let tolerance = TOLERANCE * largest(theirs).max(1.0);
    println!("{name}, Keras {keras}: largest difference {difference:.1e} of {:.2}", largest(theirs));
    assert!(difference <= tolerance, "{name}, Keras {keras}: {difference} > {tolerance}");
}

/// Convolutions as `WEIGHTS: none` makes them; everything else random too, so that each array
/// matters for the outputs.
fn random_weights(architecture: Architecture, image_size: [usize; 3], head: (usize, usize)) -> Weights {
    let cache = Path::new("not used");
    let loaded = pretrained::load(architecture, image_size, &WeightsSource::None, 3, cache, &Silent);
    let mut weights = loaded.unwrap().weights;
    let mut state = 11_u64;
    for (key, shape) in architecture.expected_shapes(head.1, head.0, image_size) {
        if shape.len() == 4 {
            continue;
        }
        // Variance 1 / inputs keeps logits near 1; offsets stay small. Of a hypercolumn's values the squares sum to 2
        // in 1,024.
        let (scale, center) = match shape[..] {
            [_, inputs] if architecture.tap().is_some() && inputs > 1024 => {
                ((3.0 * 512.0 / inputs as f32).sqrt(), 0.0)
            }
            [_, inputs] => ((3.0 / inputs as f32).sqrt(), 0.0),
            _ if key.ends_with("running_var") => (0.5, 1.0),
            _ if key.starts_with("features") && key.ends_with(".weight") => (0.3, 1.0),
            _ => (0.2, 0.0),
        };
        let values = (0..shape.iter().product()).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            center + ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
        });
        let values = values.collect();
        weights.0.insert(key, Tensor { shape, values });
    }
    weights
}

struct Case {
    name: &'static str,
    architecture: Architecture,
    image_size: [usize; 3],
    /// Hidden units and classes.
    head: Option<(usize, usize)>,
    optimizer: Optimizer,
}

fn cases() -> Vec<Case> {
    let sgd = Optimizer::Sgd { momentum: 0.9 };
    let case = |name, architecture, image_size, head, optimizer| Case {
        name,
        architecture,
        image_size,
        head,
        optimizer,
    };
    vec![
        case("base_model.h5", Architecture::Vgg16, [64, 64, 3], None, sgd),
        case("base_model_updated.h5", Architecture::Vgg16, [64, 64, 3], Some((0, 2)), sgd),
        case("model.h5", Architecture::Vgg16, [64, 96, 3], Some((8, 3)), Optimizer::Adam),
        case("full_size.h5", Architecture::Vgg16, [224, 224, 3], Some((0, 2)), sgd),
        // The fourth block has a row more than twice the last map's.
        case("hypercolumn_base.h5", Architecture::Vgg16Hypercolumn, [80, 64, 3], None, sgd),
        case("hypercolumn.h5", Architecture::Vgg16Hypercolumn, [80, 64, 3], Some((8, 3)), sgd),
        case("compact_base.h5", Architecture::Compact, [64, 64, 3], None, sgd),
        case("compact.h5", Architecture::Compact, [64, 48, 3], Some((0, 2)), Optimizer::Adam),
        case("compact_hidden.h5", Architecture::Compact, [64, 64, 3], Some((8, 4)), sgd),
        case("places_base.h5", Architecture::CompactPlaces, [64, 64, 3], None, sgd),
        case("places.h5", Architecture::CompactPlaces, [64, 52, 3], Some((0, 3)), Optimizer::Adam),
    ]
}

/// Writes the model and predicts with it.
fn write(case: &Case, folder: &Path) -> Outputs {
    let &Case { name, architecture, image_size, head, optimizer } = case;
    let (hidden_units, classes) = head.unwrap_or((0, 2));
    let weights = random_weights(architecture, image_size, (hidden_units, classes));
    let file = ModelFile {
        architecture,
        image_size,
        hidden_units,
        classes: head.map(|_| classes),
        weights: &weights,
        frozen: architecture.is_published(),
        optimizer,
        learning_rate: 0.001,
    };
    keras::write_model(&folder.join(name), &file).unwrap();
    predict(architecture, &weights, image_size, head)
}

fn check_what_we_write(environment: &str) {
    let folder = tempfile::tempdir().unwrap();
    let ours: Vec<Outputs> = cases().iter().map(|case| write(case, folder.path())).collect();
    let Some(report) = run::<Checked>(environment, "check_models.py", folder.path()) else { return };
    for (case, ours) in cases().iter().zip(&ours) {
        let checked = &report.models[case.name];
        assert_agrees(case.name, &report.keras, ours, &checked.outputs);
        assert_eq!(checked.input_shape[1..], case.image_size.map(Some));
        // The first convolution.
        assert_eq!(checked.trainable[1], !case.architecture.is_published());
        if case.head.is_some() {
            check_training(case, checked);
        } else {
            assert_eq!(checked.optimizer, None);
        }
    }
    check_what_is_saved_again(environment, folder.path());
    // The names of keras.applications.VGG16(include_top=False).
    let layers = &report.models["base_model.h5"].layers;
    assert_eq!(layers[..4], ["input_1", "block1_conv1", "block1_conv2", "block1_pool"]);
    assert_eq!(layers.last().unwrap(), "block5_pool");
    assert_eq!(layers.len(), 19); // 1 input, 13 convolutions, 5 poolings.
}

/// Keras orders layers anew, and here it has trained the head.
fn check_what_is_saved_again(environment: &str, folder: &Path) {
    let kinds: &[&str] = if environment == "tf" { &["h5", "keras"] } else { &["h5"] };
    for kind in kinds {
        let path = folder.join(format!("again/hypercolumn.{kind}"));
        let model = keras::read_model(&path).unwrap();
        assert_eq!(model.architecture, Architecture::Vgg16Hypercolumn, "{kind}");
        let written = keras::read_model(&folder.join("hypercolumn.h5")).unwrap();
        for (key, tensor) in &model.weights.0 {
            assert_eq!(key.starts_with("features"), *tensor == written.weights.0[key], "{kind}: {key}");
        }
    }
}

fn check_training(case: &Case, checked: &Checked) {
    let optimizer = if case.optimizer == Optimizer::Adam { "Adam" } else { "SGD" };
    assert_eq!(checked.optimizer.as_deref(), Some(optimizer));
    assert!((checked.learning_rate.unwrap() - 0.001).abs() < 1e-9);
    let (before, after) = (checked.loss.unwrap(), checked.loss_after.unwrap());
    assert!(before > 0.0 && after > 0.0, "{}: {before}, {after}", case.name);
    assert!((before - after).abs() > 1e-6, "{}: the step changed nothing", case.name);
}

fn check_what_keras_writes(environment: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(report) = run::<Outputs>(environment, "write_models.py", folder.path()) else { return };
    let (small, full) = ([64, 96, 3], [224, 224, 3]);
    let models = [
        ("model.h5", 0, 2, small),
        ("hidden.h5", 16, 2, small),
        ("nested.h5", 6, 3, small),
        ("full_size.h5", 0, 2, full),
    ];
    // Keras 3 has archives too, of the first three.
    let archives =
        [("model.keras", 0, 2, small), ("hidden.keras", 16, 2, small), ("nested.keras", 6, 3, small)];
    let archives = archives.into_iter().filter(|_| environment == "tf");
    for (name, hidden_units, classes, image_size) in models.into_iter().chain(archives) {
        let model = keras::read_model(&folder.path().join(name)).unwrap();
        let got = (model.architecture, model.hidden_units, model.classes, model.image_size);
        assert_eq!(got, (Architecture::Vgg16, hidden_units, classes, image_size));
        assert_eq!(model.keras_version.as_deref(), Some(report.keras.as_str()));
        let ours = predict(model.architecture, &model.weights, image_size, Some((hidden_units, classes)));
        assert_agrees(name, &report.keras, &ours, &report.models[name]);
    }
    // Keras 3 has no weights file with the layers at the root.
    let bases: &[&str] =
        if environment == "tf212" { &["base_model.h5", "notop_weights.h5"] } else { &["base_model.h5"] };
    for name in bases {
        let weights = keras::read_weights(&folder.path().join(name)).unwrap();
        let ours = predict(Architecture::Vgg16, &weights, small, None);
        assert_agrees(name, &report.keras, &ours, &report.models["base_model.h5"]);
    }
}

#[test]
fn keras_2_reads_what_we_write() {
    check_what_we_write("tf212");
}

#[test]
fn keras_3_reads_what_we_write() {
    check_what_we_write("tf");
}

#[test]
fn we_read_what_keras_2_writes() {
    check_what_keras_writes("tf212");
}

#[test]
fn we_read_what_keras_3_writes() {
    check_what_keras_writes("tf");
}
