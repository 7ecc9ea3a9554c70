//! The input gate inside a bundle: round trip, refusals of the bundle, copies of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{collections::BTreeMap, path::Path};

use common::{image, labels, preprocessing, weights};
use nephros_core::{
    bundle::{Bundle, BundleParts, CalibrationSet, Holdout, Quantized},
    digest::sha256,
    input_gate::{
        CaseUnit, Cases, FalseAlarms, InputGate, InputProfile, Limit, Prints, ReasonCode, Similar, Statistic,
        TrainingImages, Traits, Upright,
    },
    network::Architecture,
    predictor::Gated,
    weights::Weights,
};
use safetensors::{SafeTensors, serialize, tensor::TensorView};
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
        patient: None,
    }
}

fn model() -> Weights {
    weights(Architecture::Compact, 2, 0, SIZE)
}

fn gate() -> InputGate {
    let channels = Architecture::Compact.feature_shape(SIZE).channels;
    let hash = Traits::of(&image(24, 16, 1)).hash();
    let names = ["Normal/a.png", "Normal/b.png", "Tumor/c.png"].map(str::to_owned);
    let prints = Prints::new(names.into_iter().enumerate().map(|(index, name)| (hash << index, name)));
    let cases = Cases { labels: vec![0, 0, 1], groups: vec![4, 4, 9], rows: vec![0, 1, 2] };
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
            case_unit: Some(CaseUnit::Patient),
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
        images: TrainingImages::new(&features, channels, prints)
            .with_upright(Upright::new(vec![[7; 256], [9; 256]]))
            .with_cases(cases),
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
    let reasons = loaded.predictor.predict_gated(&image(24, 16, 1), 0).unwrap().reasons;
    assert!(reasons.iter().any(|reason| reason.code == ReasonCode::Coloured), "{reasons:?}");
    Bundle::save(&dir, parts(), &model(), &[image(24, 16, 1)]).unwrap();
    let plain = Bundle::load(&dir).unwrap().predictor;
    assert!(plain.input_gate().is_none() && !dir.join(GATE_FILE).exists());
    let ungated = plain.predict_gated(&image(24, 16, 1), 3).unwrap();
    assert!(ungated.reasons.is_empty() && ungated.similar.is_empty() && !plain.knows_cases());
}

#[test]
fn similar_slices_are_the_nearest_of_each_patient() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("bundle");
    save(&dir);
    let predictor = Bundle::load(&dir).unwrap().predictor;
    assert!(predictor.knows_cases());
    // The features of the third image: 7 divides neither 128 nor 256, so all three differ.
    let channels = Architecture::Compact.feature_shape(SIZE).channels;
    let third: Vec<f32> = (2 * channels..3 * channels).map(|position| (position % 7) as f32).collect();
    let similar = predictor.similar(&third, 5);
    let nearest = Similar {
        path: "Tumor/c.png".into(),
        class: "Tumor".into(),
        patient: Some(9),
        group: None,
        distance: 0.0,
    };
    assert_eq!(similar[0], nearest);
    assert_eq!((similar.len(), similar[1].patient), (2, Some(4)), "two patients, {similar:?}");
    assert!(similar[1].distance > 0.0);
    assert_eq!(predictor.similar(&third, 1), [nearest]);
    let Gated { similar, .. } = predictor.predict_gated(&image(24, 16, 1), 2).unwrap();
    assert_eq!(similar.len(), 2);
}

/// Shape and bytes of an array.
type Array = (Vec<usize>, Vec<u8>);

#[test]
fn a_gate_of_an_earlier_version_knows_no_cases_and_one_with_wrong_ones_is_refused() {
    let file = gate().images.to_bytes().unwrap();
    let channels = gate().images.channels();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let rewritten = |change: &dyn Fn(&str, Vec<u8>) -> Option<Array>| {
        let kept = tensors.iter().filter_map(|(name, tensor)| {
            let (shape, bytes) = change(name, tensor.data().to_vec())?;
            let shape = if shape.is_empty() { tensor.shape().to_vec() } else { shape };
            Some((name.to_owned(), tensor.dtype(), shape, bytes))
        });
        let kept: Vec<_> = kept.collect();
        let views = kept.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        TrainingImages::from_bytes(&serialize(views, None).unwrap(), channels)
    };
    let added = ["labels", "groups", "rows", "upright"];
    let old = rewritten(&|name, bytes| (!added.contains(&name)).then_some((vec![], bytes))).unwrap();
    assert!(old.cases().is_none() && old.upright == Upright::default());
    let beyond = rewritten(&|name, bytes| match name {
        // The third row is of an image that is not there.
        "rows" => Some((vec![3], [0_u32, 1, 3].iter().flat_map(|row| row.to_le_bytes()).collect())),
        _ => Some((vec![], bytes)),
    });
    let error = beyond.unwrap_err();
    assert!(error.contains("labels and groups of 3 images"), "{error}");
    let torn = rewritten(&|name, bytes| match name {
        "upright" => Some((vec![300], vec![0; 300])),
        _ => Some((vec![], bytes)),
    });
    // 300 - 256
    assert_eq!(torn.unwrap_err(), "expected pictures of 16x16 in `upright`, got 44 more");
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
            feature_distance: None,
        };
        let quantized = Quantized::new(&dir, &calibrator.finish()).unwrap();
        quantized.save(&dir, to, calibration, holdout).unwrap();
        let loaded = Bundle::load(to).unwrap().predictor;
        assert!(loaded.id().ends_with("-int8"));
        assert_eq!(loaded.input_gate().unwrap().images, gate().images);
    }
}
