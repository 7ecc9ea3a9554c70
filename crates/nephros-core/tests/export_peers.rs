//! Exported files in the programs that they are for: onnx and onnxruntime, Keras 2 and 3, NumPy on
//! safetensors, and MLflow. All predict what we predict.
//!
//! Needs the environments of `scripts/setup-interop`; without them the tests say what they leave
//! out, and fail where `CI` is `true`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::{collections::BTreeMap, path::Path, process::Command};

use common::{image, labels, preprocessing, weights};
use nephros_core::{
    bundle::{Bundle, BundleParts},
    calibration::{Calibration, CalibrationMethod},
    export::{Format, Model, mlflow},
    keras,
    network::Architecture,
    pixels::{BodyOf, Crop, Resample, RgbImage},
    predictor::Predictor,
    preprocessing::{Normalization, Preprocessing},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

mod common;

/// Largest difference between a probability here and in another program.
const TOLERANCE: f64 = 1e-5;

type Outputs = Vec<Vec<f64>>;

/// What a script prints: results by file name.
#[derive(Debug, Deserialize)]
struct Report<T> {
    #[serde(alias = "keras")]
    versions: String,
    models: BTreeMap<String, T>,
}

/// Runs a script of `scripts/interop` in an environment of `target/interop`.
fn run<T: DeserializeOwned>(environment: &str, script: &str, folder: &Path) -> Option<Report<T>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/interop").join(environment).join("bin/python");
    if !python.exists() {
        let missing = format!("left out: {script} with {environment} (run scripts/setup-interop)");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        println!("{missing}");
        return None;
    }
    let script = root.join("scripts/interop").join(script);
    // MLflow 2 leaves `mlruns` where it runs.
    let output = Command::new(python).arg(script).arg(folder).current_dir(folder).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    Some(serde_json::from_str(text.lines().last().unwrap()).unwrap())
}

struct Case {
    name: &'static str,
    architecture: Architecture,
    image_size: [usize; 3],
    hidden_units: usize,
    labels: &'static [&'static str],
}

/// Maps of several rows and columns, so that the order of the head's inputs matters.
fn cases() -> Vec<Case> {
    let case = |name, architecture, image_size, hidden_units, labels| Case {
        name,
        architecture,
        image_size,
        hidden_units,
        labels,
    };
    let two = ["Normal", "Tumor"].as_slice();
    let four = ["Cyst", "Normal", "Stone", "Tumor"].as_slice();
    vec![
        case("vgg16", Architecture::Vgg16, [64, 96, 3], 0, two),
        case("vgg16_hidden", Architecture::Vgg16, [96, 64, 3], 8, four),
        // The fourth block has a row more than twice the last map's.
        case("hypercolumn", Architecture::Vgg16Hypercolumn, [80, 64, 3], 8, two),
        case("compact", Architecture::Compact, [64, 48, 3], 0, two),
        case("compact_hidden", Architecture::Compact, [70, 90, 3], 8, four),
        case("places", Architecture::CompactPlaces, [70, 52, 3], 0, two),
        case("places_of_four", Architecture::CompactPlaces, [64, 90, 3], 0, four),
    ]
}

fn full_size() -> Case {
    Case { name: "full_size", image_size: [224, 224, 3], ..cases().swap_remove(0) }
}

impl Case {
    /// Saves a random bundle and reads it for export.
    fn model(&self, folder: &Path) -> Model {
        let bundle = folder.join(self.name);
        let mut weights = weights(self.architecture, self.labels.len(), self.hidden_units, self.image_size);
        // Small offsets and scales near 1, or the images look the same after six layers.
        for (key, tensor) in &mut weights.0 {
            if tensor.shape.len() == 1 && !key.ends_with("running_var") {
                let center = if key.ends_with(".weight") { 1.0 } else { 0.0 };
                tensor.values.iter_mut().for_each(|value| *value = center + 0.2 * *value);
            }
        }
        if self.architecture.tap().is_some() {
            // Of values whose squares sum to 2 in 1,024, the head has to make more.
            let head = weights.0.get_mut("head.hidden.weight").unwrap();
            head.values.iter_mut().for_each(|value| *value *= 8.0);
        }
        let calibration = Calibration {
            method: CalibrationMethod::Temperature,
            temperature: 1.5,
            images: 40,
            groups: 10,
            unit: "patient".to_owned(),
            ece_before: 0.2,
            ece_after: 0.1,
        };
        let parts = BundleParts {
            architecture: self.architecture,
            hidden_units: self.hidden_units,
            labels: labels(self.labels),
            preprocessing: preprocessing(self.image_size),
            params: json!({}),
            dataset_digest: "d".repeat(64),
            split_digest: "5".repeat(64),
            metrics: Value::Null,
            calibration: Some(calibration),
            abstention: None,
            patient: None,
        };
        Bundle::save(&bundle, parts, &weights, &[image(24, 16, 1)]).unwrap();
        Model::load(&bundle, None).unwrap()
    }

    /// What the saved bundle predicts of the three fixed images, before its calibration.
    fn predict(&self, folder: &Path) -> Outputs {
        let predictor = Predictor::load(&folder.join(self.name), None).unwrap().uncalibrated();
        let predictions = predictor.predict_input(&fixed_input(self.image_size, 3), 3).unwrap();
        predictions.iter().map(|one| one.probabilities.iter().map(|&p| f64::from(p)).collect()).collect()
    }
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

fn assert_agrees(name: &str, versions: &str, ours: &Outputs, theirs: &Outputs) {
    let lengths = |outputs: &Outputs| outputs.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(ours), lengths(theirs));
    // Agreement means nothing where all images look the same.
    let distances = ours[0].iter().zip(&ours[1]).map(|(first, second)| (first - second).abs());
    assert!(distances.fold(0.0, f64::max) > 1e-3, "{name}: the images are hardly told apart: {ours:?}");
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    let difference = pairs.fold(0.0, |largest: f64, (ours, theirs)| largest.max((ours - theirs).abs()));
    println!("{name}, {versions}: largest difference {difference:.1e}");
    assert!(difference <= TOLERANCE, "{name}, {versions}: {difference} > {TOLERANCE}");
}

/// Bundles in one folder and what was exported of them in another.
struct Exported {
    bundles: TempDir,
    files: TempDir,
}

impl Exported {
    fn new(cases: &[Case], formats: &[(Format, &str)]) -> Self {
        let exported = Self { bundles: tempfile::tempdir().unwrap(), files: tempfile::tempdir().unwrap() };
        for case in cases {
            let model = case.model(exported.bundles.path());
            for (format, extension) in formats {
                let name = format!("{}.{extension}", case.name);
                model.write(*format, &exported.files.path().join(name)).unwrap();
            }
        }
        exported
    }
}

#[derive(Debug, Deserialize)]
struct Onnx {
    outputs: Outputs,
    about: BTreeMap<String, String>,
    input: (String, String, Vec<Value>),
    output: (String, String, Vec<Value>),
    ir_version: u32,
    opset: Vec<u32>,
}

#[test]
fn onnxruntime_runs_what_the_checker_passes() {
    let cases: Vec<Case> = cases().into_iter().chain([full_size()]).collect();
    let exported = Exported::new(&cases, &[(Format::Onnx, "onnx")]);
    let Some(report) = run::<Onnx>("onnx", "check_exports.py", exported.files.path()) else { return };
    for case in &cases {
        let name = format!("{}.onnx", case.name);
        let checked = &report.models[&name];
        assert_agrees(&name, &report.versions, &case.predict(exported.bundles.path()), &checked.outputs);
        let [height, width, _] = case.image_size;
        let float = |name: &str, shape: Value| json!([name, "tensor(float)", shape]);
        let got = json!([checked.input, checked.output]);
        let expected = [
            float("images", json!(["batch", height, width, 3])),
            float("probabilities", json!(["batch", case.labels.len()])),
        ];
        assert_eq!(got, json!(expected));
        assert_eq!((checked.ir_version, checked.opset.as_slice()), (8, [13].as_slice()));
        assert_eq!(checked.about["labels"], json!(case.labels).to_string());
        assert_eq!(checked.about["temperature"], "1.5");
        assert_eq!(checked.about["architecture"], case.architecture.name());
        assert!(checked.about["model_id"].starts_with(case.architecture.name()));
    }
}

#[derive(Debug, Deserialize)]
struct Arrays {
    outputs: Outputs,
    about: Value,
}

#[test]
fn numpy_runs_the_arrays_of_safetensors() {
    let exported = Exported::new(&cases(), &[(Format::Safetensors, "safetensors")]);
    let Some(report) = run::<Arrays>("onnx", "check_exports.py", exported.files.path()) else { return };
    for case in cases() {
        let name = format!("{}.safetensors", case.name);
        let checked = &report.models[&name];
        assert_agrees(&name, "NumPy", &case.predict(exported.bundles.path()), &checked.outputs);
        assert_eq!(checked.about["labels"], json!(case.labels));
        assert_eq!(checked.about["temperature"], json!(1.5));
    }
}

#[derive(Debug, Deserialize)]
struct Checked {
    outputs: Outputs,
    optimizer: Option<String>,
    loss: Option<f64>,
    loss_after: Option<f64>,
    warnings: Vec<String>,
}

fn check_keras(environment: &str, formats: &[(Format, &str)]) {
    let cases: Vec<Case> = cases().into_iter().chain([full_size()]).collect();
    let exported = Exported::new(&cases, formats);
    let Some(report) = run::<Checked>(environment, "check_models.py", exported.files.path()) else { return };
    let versions = format!("Keras {}", report.versions);
    for case in &cases {
        for (_, extension) in formats {
            let name = format!("{}.{extension}", case.name);
            let checked = &report.models[&name];
            assert_agrees(&name, &versions, &case.predict(exported.bundles.path()), &checked.outputs);
            assert_eq!(checked.optimizer.as_deref(), Some("SGD"));
            let (before, after) = (checked.loss.unwrap(), checked.loss_after.unwrap());
            assert!((before - after).abs() > 1e-6, "{name}: a step of training changed nothing");
            // An archive has no optimizer's state, which Keras says when it loads one.
            let told = |warning: &&String| !warning.contains("Skipping variable loading for optimizer 'SGD'");
            assert_eq!(checked.warnings.iter().find(told), None, "{name}");
        }
    }
    for case in cases.iter().filter(|case| case.architecture.judges_places()) {
        for (_, extension) in formats {
            let name = format!("again/{}.{extension}", case.name);
            check_what_is_saved_again(case, &exported.files.path().join(name));
        }
    }
}

/// Keras writes what judges places its own way.
fn check_what_is_saved_again(case: &Case, path: &Path) {
    let read = keras::read_model(path).unwrap();
    let got = (read.architecture, read.hidden_units, read.classes, read.image_size);
    assert_eq!(got, (case.architecture, 0, case.labels.len(), case.image_size), "{}", path.display());
}

#[test]
fn keras_2_reads_h5() {
    check_keras("tf212", &[(Format::H5, "h5")]);
}

#[test]
fn keras_3_reads_h5_and_its_own_archive() {
    check_keras("tf", &[(Format::H5, "h5"), (Format::Keras, "keras")]);
}

#[derive(Debug, Deserialize)]
struct Folder {
    /// By flavor.
    outputs: BTreeMap<String, Outputs>,
    flavors: Vec<String>,
    inputs: Value,
    outputs_schema: Value,
    metadata: Value,
}

fn check_mlflow(environment: &str) {
    let cases = [full_size(), cases().swap_remove(3)];
    let exported = Exported::new(&cases, &[]);
    for case in &cases {
        let model = Model::load(&exported.bundles.path().join(case.name), None).unwrap();
        let logged = mlflow::Logged { created: "2026-11-23 06:07:22.137416", ..mlflow::Logged::default() };
        mlflow::write(&exported.files.path().join(case.name), &model, &logged).unwrap();
    }
    let Some(report) = run::<Folder>(environment, "check_mlflow.py", exported.files.path()) else { return };
    for case in &cases {
        let checked = &report.models[case.name];
        let ours = case.predict(exported.bundles.path());
        assert_eq!(checked.flavors, ["onnx", "python_function", "tensorflow"]);
        for flavor in &checked.flavors {
            let name = format!("{} as {flavor}", case.name);
            assert_agrees(&name, &report.versions, &ours, &checked.outputs[flavor]);
        }
        let [height, width, _] = case.image_size;
        let spec =
            |shape: Value| json!([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}]);
        assert_eq!(checked.inputs, spec(json!([-1, height, width, 3])));
        assert_eq!(checked.outputs_schema, spec(json!([-1, case.labels.len()])));
        assert_eq!(checked.metadata["nephros"]["labels"], json!(case.labels));
    }
}

#[test]
fn mlflow_3_loads_every_flavor() {
    check_mlflow("mlflow3");
}

#[test]
fn mlflow_2_loads_every_flavor() {
    check_mlflow("mlflow2");
}

/// An ellipse of noise on black, off the middle, above a thin table.
fn slice(width: usize, height: usize) -> RgbImage {
    let noise = image(width, height, 9);
    let inside = |row: usize, column: usize| {
        let y = (row as f32 / height as f32 - 0.4) / 0.25;
        let x = (column as f32 / width as f32 - 0.6) / 0.35;
        x * x + y * y < 1.0 || (height * 9 / 10..height * 9 / 10 + 2).contains(&row)
    };
    let pixels = noise.pixels().chunks(3).enumerate().flat_map(|(position, pixel)| {
        let keep = inside(position / width, position % width);
        pixel.iter().map(|&value| if keep { value / 2 + 100 } else { 0 }).collect::<Vec<u8>>()
    });
    RgbImage::new(width, height, pixels.collect()).unwrap()
}

/// The same with a wall beside the body, which a gap parts from it.
fn in_pieces(width: usize, height: usize) -> RgbImage {
    let mut pixels = slice(width, height).pixels().to_vec();
    for row in height / 10..height * 6 / 10 {
        pixels[(row * width + width / 30) * 3..(row * width + width / 10) * 3].fill(130);
    }
    RgbImage::new(width, height, pixels).unwrap()
}

fn save_png(image: &RgbImage, path: &Path) {
    let (width, height) = (image.width() as u32, image.height() as u32);
    image::save_buffer(path, image.pixels(), width, height, image::ExtendedColorType::Rgb8).unwrap();
}

#[test]
fn python_prepares_images_as_we_do() {
    let folder = tempfile::tempdir().unwrap();
    let images = [
        ("noise", image(37, 53, 3)),
        ("slice", slice(301, 211)),
        ("large", slice(512, 512)),
        ("pieces", in_pieces(301, 211)),
        ("black", RgbImage::new(40, 64, vec![0; 40 * 64 * 3]).unwrap()),
    ];
    for (name, image) in &images {
        save_png(image, &folder.path().join(format!("{name}.png")));
    }
    let mut preprocessings = Vec::new();
    for normalization in [Normalization::Caffe, Normalization::Torchvision, Normalization::Unit] {
        for (resample, crop, body) in [
            (Resample::Bilinear, Crop::None, BodyOf::LargestPiece),
            (Resample::Bilinear, Crop::Body, BodyOf::LargestPiece),
            (Resample::Nearest, Crop::Body, BodyOf::AllPieces),
            (Resample::Bilinear, Crop::Band, BodyOf::LargestPiece),
            (Resample::Bilinear, Crop::Band, BodyOf::AllPieces),
        ] {
            let name = format!("{normalization:?}{resample:?}{crop:?}{body:?}");
            // A band that is higher than wide would hold most of the body.
            let size = if crop == Crop::Band { [40, 80, 3] } else { [48, 40, 3] };
            let new = Preprocessing::new(size, normalization);
            let preprocessing = Preprocessing { resample, crop, body, ..new };
            let json = serde_json::to_vec(&preprocessing).unwrap();
            fs_err::write(folder.path().join(format!("{name}.json")), json).unwrap();
            preprocessings.push((name, preprocessing));
        }
    }
    let Some(report) = run::<Vec<usize>>("onnx", "check_pixels.py", folder.path()) else { return };
    assert_eq!(report.models.len(), images.len() * preprocessings.len());
    for (name, image) in &images {
        for (preprocessing_name, preprocessing) in &preprocessings {
            let name = format!("{name}.{preprocessing_name}.f32");
            assert_eq!(report.models[&name], preprocessing.image_size);
            let ours: Vec<u8> =
                preprocessing.apply(image).iter().flat_map(|value| value.to_le_bytes()).collect();
            let theirs = fs_err::read(folder.path().join(&name)).unwrap();
            assert!(ours == theirs, "{name} differs from {}", report.versions);
        }
    }
}
