//! The input gate inside a bundle: round trip, refusals of the bundle, copies of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{collections::BTreeMap, path::Path};

use common::{image, labels, preprocessing, weights};
use nephros_core::{
    bundle::{Bundle, BundleParts, CalibrationSet, Holdout, Quantized},
    digest::sha256,
    input_gate::{
        FalseAlarms, InputGate, InputProfile, Limit, Prints, ReasonCode, Statistic, TrainingImages, Traits,
    },
    network::Architecture,
    weights::Weights,
};
use serde_json::{Value, json};

mod common;

const SIZE: [usize; 3] = [16, 24, 3];
const GATE_FILE: &str = "input_gate.safetensors";

fn parts() -> BundleParts {
    BundleParts {
        architecture: Architecture::Compact,
        hidden_units: 0,
        labels: labels(&["Normal", "Tumor"]),
        preprocessing: preprocessing(SIZE),
        params: json!({}),
        dataset_digest: String::new(),
        split_digest: String::new(),
        metrics: Value::Null,
        calibration: None,
        abstention: None,
    }
}

fn model() -> Weights {
    weights(Architecture::Compact, 2, 0, SIZE)
}

fn gate() -> InputGate {
    let channels = Architecture::Compact.feature_shape(SIZE).channels;
    let hash = Traits::of(&image(24, 16, 1)).hash();
    let prints = Prints::new([(hash, "Normal/a.png".to_owned())]);
    let features: Vec<f32> = (0..3 * channels).map(|position| (position % 7) as f32).collect();
    let limits = [
        (Statistic::Side, Limit { low: Some(8.0), high: None }),
        (Statistic::Chroma, Limit { low: None, high: Some(0.01) }),
    ];
    InputGate {
        profile: InputProfile {
            sha256: String::new(),
            rate: 0.01,
            neighbours: 5,
            near_copy_bits: Some(2),
            grey: vec![0.5; 32],
            limits: limits.into(),
            validation: FalseAlarms {
                images: 3,
                groups: 2,
                unit: "patient".into(),
                refused: 0,
                share: 0.0,
                by_code: BTreeMap::new(),
            },
        },
        images: TrainingImages::new(&features, channels, prints),
    }
}

fn save(dir: &Path) {
    Bundle::save_with(dir, parts(), &model(), &[image(24, 16, 1)], Some(&gate())).unwrap();
}

fn edit(dir: &Path, change: impl Fn(&mut Value)) {
    let path = dir.join("bundle.json");
    let mut meta = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    change(&mut meta);
    fs_err::write(path, serde_json::to_vec(&meta).unwrap()).unwrap();
}

#[test]
fn a_bundle_brings_its_gate_and_one_without_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("bundle");
    save(&dir);
    let loaded = Bundle::load(&dir).unwrap();
    let read = loaded.predictor.input_gate().unwrap();
    assert_eq!(read.images, gate().images);
    let expected = InputProfile { sha256: read.profile.sha256.clone(), ..gate().profile };
    assert_eq!(read.profile, expected);
    // Random colours: more than a hundredth of the pixels have one.
    let (_, reasons) = loaded.predictor.predict_gated(&image(24, 16, 1)).unwrap();
    assert!(reasons.iter().any(|reason| reason.code == ReasonCode::Coloured), "{reasons:?}");
    Bundle::save(&dir, parts(), &model(), &[image(24, 16, 1)]).unwrap();
    let plain = Bundle::load(&dir).unwrap().predictor;
    assert!(plain.input_gate().is_none() && !dir.join(GATE_FILE).exists());
    assert!(plain.predict_gated(&image(24, 16, 1)).unwrap().1.is_empty());
}

#[test]
fn a_changed_missing_or_unfit_gate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("bundle");
    let refused = |change: &dyn Fn()| {
        save(&dir);
        change();
        Bundle::load(&dir).unwrap_err().to_string()
    };
    let file = dir.join(GATE_FILE);
    let forge = |bytes: Vec<u8>| {
        edit(&dir, |meta| meta["input_gate"]["sha256"] = sha256(&bytes).into());
        fs_err::write(&file, bytes).unwrap();
    };
    let changed = refused(&|| {
        let mut bytes = fs_err::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(&file, bytes).unwrap();
    });
    assert!(changed.contains("was changed after the bundle was made"), "{changed}");
    let missing = refused(&|| fs_err::remove_file(&file).unwrap());
    assert!(missing.contains("the bundle has no `"), "{missing}");
    let other = refused(&|| {
        let images = TrainingImages::new(&[1.0, 2.0], 2, Prints::default());
        forge(images.to_bytes().unwrap());
    });
    assert!(other.contains("channels, got arrays of [2, 2, 2] values"), "{other}");
    let text = refused(&|| forge(b"not safetensors".to_vec()));
    assert!(text.contains("does not hold what its bundle compares pictures with"), "{text}");
    let limits = refused(&|| edit(&dir, |meta| meta["input_gate"]["grey"] = json!([0.5])));
    assert!(limits.contains("expected a usable `input_gate`"), "{limits}");
    let unknown = refused(&|| edit(&dir, |meta| meta["input_gate"]["limits"]["smell"] = json!({"high": 1})));
    assert!(unknown.contains("smell"), "{unknown}");
}

#[test]
fn eight_bits_keep_the_gate_in_place_and_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, other) = (folder.path().join("bundle"), folder.path().join("other"));
    save(&dir);
    for to in [&dir, &other] {
        let (meta, weights) = Bundle::open_weights(&dir).unwrap();
        let mut calibrator = meta.architecture.calibrator(&weights, SIZE).unwrap();
        calibrator.add(&meta.preprocessing.apply(&image(24, 16, 1)), 1).unwrap();
        let calibration = CalibrationSet { images: 1, patients: None, digest: String::new() };
        let holdout = Holdout {
            images: 1,
            patients: None,
            digest: String::new(),
            largest_change: 0.0,
            mean_change: 0.0,
            labels_changed: 0,
            share_changed: 0.0,
            tolerance: 0.0,
            auroc_f32: None,
            auroc_int8: None,
        };
        let quantized = Quantized::new(&dir, &calibrator.finish()).unwrap();
        quantized.save(&dir, to, calibration, holdout).unwrap();
        let loaded = Bundle::load(to).unwrap().predictor;
        assert!(loaded.id().ends_with("-int8"));
        assert_eq!(loaded.input_gate().unwrap().images, gate().images);
    }
}
