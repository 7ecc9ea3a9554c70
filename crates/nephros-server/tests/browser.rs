//! The page in a real Chromium, on a small real network, at the width of a desktop and of a phone.
//!
//! Needs Chromium and what `scripts/setup-browser` installs; without them the test says what was
//! left out, and under `CI=true` it fails. `NEPHROS_SCREENSHOTS=DIR` keeps a picture of each state.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    env,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use image::{ImageFormat, Luma, imageops};
use nephros_core::{
    bundle::{Bundle, BundleParts},
    input_gate::{
        CaseUnit, Cases, FalseAlarms, InputGate, InputProfile, Limit, Prints, Statistic, TrainingImages,
        pooled_features,
    },
    network::Architecture,
    pixels::decode,
    predictor::Predictor,
    preprocessing::{Normalization, Preprocessing},
    weights::{Tensor, Weights},
};
use nephros_server::{Sample, ServeOptions, Server, Service};
use serde_json::{Value, json};
use tokio::sync::oneshot;

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "http/support.rs"]
mod support;

const SIDE: u32 = 256;

/// Programs that the test drives.
struct Browser {
    chromium: PathBuf,
    modules: PathBuf,
}

impl Browser {
    /// What is installed here, or what is missing.
    fn find() -> Result<Self, String> {
        let chromium =
            env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
        if !chromium.exists() {
            return Err(format!(
                "no Chromium at `{}` (apt-get install chromium, or set CHROMIUM)",
                chromium.display()
            ));
        }
        let modules = root().join("target/interop/browser");
        if !modules.join("node_modules/playwright-core").exists() {
            return Err(
                "no playwright-core in `target/interop/browser` (run scripts/setup-browser)".to_owned()
            );
        }
        Ok(Self { chromium, modules })
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The browser, or `None` after saying so.
fn browser_or_skip() -> Option<Browser> {
    match Browser::find() {
        Ok(browser) => Some(browser),
        Err(missing) => {
            let in_ci = env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{missing}");
            println!("left out: the page in a real browser: {missing}");
            None
        }
    }
}

/// `compact` at 32×32 with weights from a fixed sequence: a real network that was never trained. It
/// knows three slices of two patients, and refuses what is coloured.
fn untrained() -> Predictor {
    let labels = vec!["Normal".to_owned(), "Tumor".to_owned()];
    let preprocessing = Preprocessing::new([32, 32, 3], Normalization::Unit);
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let shapes = Architecture::Compact.expected_shapes(labels.len(), 0, preprocessing.image_size);
    let tensors = shapes.into_iter().map(|(key, shape)| {
        let count: usize = shape.iter().product();
        let inputs = (count / shape[0]).max(1) as f32;
        // Variances of batch norm must be positive; the rest keeps the size of the signal.
        let value = |x: f32| if key.ends_with("running_var") { 1.0 + x } else { 3.5 * x / inputs.sqrt() };
        let values = (0..count).map(|_| value(next())).collect();
        (key, Tensor { shape, values })
    });
    let weights = Weights(tensors.collect());
    let parts = BundleParts {
        architecture: Architecture::Compact,
        hidden_units: 0,
        labels,
        preprocessing,
        params: json!({}),
        dataset_digest: String::new(),
        split_digest: String::new(),
        metrics: Value::Null,
        calibration: None,
        abstention: None,
        patient: None,
    };
    let (folder, images) = (tempfile::tempdir().unwrap(), [decode(&slice(175)).unwrap()]);
    let dir = folder.path().join("bundle");
    Bundle::save(&dir, parts.clone(), &weights, &images).unwrap();
    let gate = input_gate(&Bundle::load(&dir).unwrap().predictor);
    Bundle::save_with(&dir, parts, &weights, &images, Some(&gate)).unwrap();
    Bundle::load(&dir).unwrap().predictor
}

/// A gate that knows three slices, the first two of one patient.
fn input_gate(model: &Predictor) -> InputGate {
    let slices = [170, 180, 240].map(|kidney| decode(&slice(kidney)).unwrap());
    let channels = model.feature_channels();
    let pooled = slices.iter().flat_map(|slice| {
        pooled_features(&model.features(&model.preprocessing().apply(slice), 1).unwrap(), channels)
    });
    let names = ["Normal/Normal- (1).jpg", "Normal/Normal- (2).jpg", "Tumor/Tumor- (7).jpg"];
    let prints = Prints::new(names.map(|name| (0, name.to_owned())));
    let cases = Cases { labels: vec![0, 0, 1], groups: vec![1, 1, 2], rows: vec![0, 1, 2] };
    InputGate {
        profile: InputProfile {
            sha256: String::new(),
            rate: 0.01,
            neighbours: 1,
            near_copy_bits: None,
            case_unit: Some(CaseUnit::Patient),
            grey: vec![0.5; 32],
            limits: [(Statistic::Chroma, Limit { low: None, high: Some(0.01) })].into(),
            validation: FalseAlarms {
                images: 1,
                groups: 1,
                unit: "patient".into(),
                refused: 0,
                share: 0.0,
                by_code: BTreeMap::new(),
            },
        },
        images: TrainingImages::new(&pooled.collect::<Vec<f32>>(), channels, prints).with_cases(cases),
    }
}

/// A body with spine and two kidneys, as far as ellipses go: something to look at in the preview.
fn slice(kidney: u8) -> Vec<u8> {
    let ellipses = [
        ((128.0, 132.0), (112.0, 84.0), 70),
        ((128.0, 132.0), (104.0, 76.0), 110),
        ((128.0, 182.0), (20.0, 18.0), 225),
        ((74.0, 156.0), (22.0, 29.0), kidney),
        ((182.0, 156.0), (22.0, 29.0), 175),
    ];
    let grey = image::GrayImage::from_fn(SIDE, SIDE, |x, y| {
        let inside = |&&((cx, cy), (rx, ry), _): &&((f32, f32), (f32, f32), u8)| {
            ((x as f32 - cx) / rx).powi(2) + ((y as f32 - cy) / ry).powi(2) <= 1.0
        };
        Luma([ellipses.iter().rev().find(inside).map_or(0, |ellipse| ellipse.2)])
    });
    let mut bytes = Cursor::new(Vec::new());
    imageops::blur(&grey, 1.2).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn sample(name: &str, label: &str, kidney: u8) -> Sample {
    Sample {
        name: name.to_owned(),
        label: Some(label.to_owned()),
        bytes: slice(kidney).into(),
        content_type: "image/png".to_owned(),
    }
}

/// A picture that no scanner makes.
fn photograph() -> Sample {
    let picture = image::RgbImage::from_fn(SIDE, SIDE, |x, y| image::Rgb([x as u8, y as u8, 120]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    Sample {
        name: "Photograph".to_owned(),
        label: None,
        bytes: bytes.into_inner().into(),
        ..sample("", "", 0)
    }
}

/// Steps that the driver reported.
struct Steps(Vec<Value>);

impl Steps {
    fn get(&self, step: &str, name: &str) -> &Value {
        let found =
            self.0.iter().find(|fact| fact["step"] == step && (name.is_empty() || fact["name"] == name));
        found.unwrap_or_else(|| panic!("no step `{step}` of `{name}` in {:#?}", self.0))
    }
}

/// Serves, lets the browser work through the page, and stops.
async fn drive(browser: Browser, token: Option<&str>, model: Option<Arc<Predictor>>) -> Steps {
    let folder = tempfile::tempdir().unwrap();
    let (image, broken) = (folder.path().join("slice 1.png"), folder.path().join("report.txt"));
    fs_err::write(&image, slice(175)).unwrap();
    fs_err::write(&broken, "<html>not a slice</html>").unwrap();
    let samples = vec![sample("Patient 1", "Normal", 175), sample("Patient 2", "Tumor", 235), photograph()];
    // The server with a token records what it predicts.
    let ledger = token.map(|_| Arc::new(support::Notebook::default()) as _);
    let service = Service { model: model.map(|model| model as _), ledger, samples, ..Service::default() };
    let options = ServeOptions {
        address: ([127, 0, 0, 1], 0).into(),
        token: token.map(str::to_owned),
        service,
        ..ServeOptions::default()
    };
    let server = Server::bind(options).await.unwrap();
    let mut command = Command::new("node");
    command.arg(root().join("scripts/browser/drive.mjs"));
    command.arg(format!("http://localhost:{}", server.address().port()));
    command.args([&browser.modules, &browser.chromium, &image, &broken]).arg(token.unwrap_or_default());
    command.args(env::var_os("NEPHROS_SCREENSHOTS").map(|folder| {
        let folder = Path::new(&folder).join(if token.is_some() { "token" } else { "open" });
        fs_err::create_dir_all(&folder).unwrap();
        folder
    }));
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async {
        // Dropping the sender stops the server as well.
        let _ = stopped.await;
    }));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    drop(stop);
    ended.await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    Steps(stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// What the page should say of the image, from the same predictor without a server.
fn expected(model: &Predictor) -> (String, String) {
    let prediction = model.predict(&decode(&slice(175)).unwrap()).unwrap();
    let top = prediction.top();
    let percent = 100.0 * f64::from(prediction.probabilities[top]);
    (model.labels()[top].clone(), format!("Probability {percent:.1} %"))
}

fn check_predictions(steps: &Steps, model: &Predictor) {
    let (label, probability) = expected(model);
    for (step, name) in [("result", "desktop"), ("result", "phone"), ("keyboard", "")] {
        let result = steps.get(step, name);
        assert_eq!(result["label"], label.as_str(), "{result:#}");
        assert_eq!(result["probability"], probability.as_str());
        assert_eq!(result["caption"], "Most probable class");
        assert_eq!(result["model"], model.id());
        assert_eq!(result["error"], Value::Null);
        assert_eq!(result["rows"].as_array().unwrap().len(), 2);
        check_similar(result, model);
        assert_eq!(result["overflow"], false, "the page is wider than the window");
    }
}

/// One slice of each of the two patients, as the model itself names them.
fn check_similar(result: &Value, model: &Predictor) {
    let shown = result["similar"].as_array().unwrap();
    let input = model.preprocessing().apply(&decode(&slice(175)).unwrap());
    let expected = model.similar(&model.features(&input, 1).unwrap(), 3);
    assert_eq!((shown.len(), expected.len()), (2, 2));
    for (shown, expected) in shown.iter().zip(&expected) {
        let (class, path, patient) = (&expected.class, &expected.path, expected.patient.unwrap());
        let distance = expected.distance;
        let words = shown.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, format!("{class} patient {patient}, distance {distance:.2} {path}"));
    }
}

fn check_page(steps: &Steps) {
    for name in ["desktop", "phone"] {
        let open = steps.get("open", name);
        assert_eq!(open["disabled"], true, "there is nothing to predict yet");
        assert_eq!(open["samples"], 3);
        assert_eq!(open["overflow"], false);
        let chosen = steps.get("chosen", name);
        assert_eq!((&chosen["chosen"], &chosen["drawn"]), (&"slice 1.png".into(), &SIDE.into()));
        let broken = steps.get("broken", name);
        assert_eq!(broken["label"], Value::Null, "the former result is gone");
        assert!(broken["error"].as_str().unwrap().starts_with("Not an image: "), "{broken:#}");
        assert_eq!(steps.get("sample", name)["truth"], "The sample's own label is Normal.");
        let refused = steps.get("refused", name);
        assert_eq!(refused["caption"], "The model does not judge this image");
        assert_eq!(refused["label"], "No label");
        assert_eq!(refused["probability"], Value::Null);
        assert!(refused["reasons"].as_str().unwrap().ends_with("expected at most 1.0 %."), "{refused:#}");
        assert_eq!((&refused["rows"], &refused["similar"]), (&json!([]), &json!([])));
        assert_eq!(refused["overflow"], false);
        let closed = steps.get("closed", name);
        assert_eq!(
            (&closed["foreign"], &closed["complaints"]),
            (&Value::Array(vec![]), &Value::Array(vec![]))
        );
    }
    let keyboard = steps.get("keyboard", "");
    assert_eq!((&keyboard["first"], &keyboard["second"]), (&"file".into(), &"predict".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_classified_in_the_page() {
    let Some(browser) = browser_or_skip() else { return };
    let model = Arc::new(untrained());
    let steps = drive(browser, None, Some(Arc::clone(&model))).await;
    assert_eq!(steps.get("open", "desktop")["status"], format!("Model {}", model.id()));
    let records = "Neither the image nor what is predicted is recorded.";
    assert_eq!(steps.get("open", "desktop")["records"], records);
    check_predictions(&steps, &model);
    check_page(&steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_the_token() {
    let Some(browser) = browser_or_skip() else { return };
    let model = Arc::new(untrained());
    let steps = drive(browser, Some("a-long-random-text"), Some(Arc::clone(&model))).await;
    let records = "What is predicted is recorded with a hash of the image; the image is not kept.";
    assert_eq!(steps.get("open", "phone")["records"], records);
    check_predictions(&steps, &model);
    check_page(&steps);
}
