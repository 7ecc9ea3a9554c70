//! Bundles: round trip, and every corruption refused with what differs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use common::{image, labels, preprocessing, weights};
use nephros_core::{
    abstention::{Abstention, AbstentionMethod, Scope},
    bundle::{
        Admission, Bundle, BundleError, BundleMeta, BundleParts, CalibrationSet, Evaluation, Finding,
        FindingCode, Gate, Holdout, Quantized, admit, record_evaluation,
    },
    calibration::{Calibration, CalibrationMethod, with_temperature},
    digest::sha256,
    hint::Hint,
    network::{Architecture, Precision},
    patient::PatientReading,
    pixels::RgbImage,
    predictor::{ModelError, Predictor},
    preprocessing::Normalization,
    weights::Weights,
};
use serde_json::{Value, json};
use tempfile::TempDir;

mod common;

const SIZE: [usize; 3] = [16, 24, 3];

fn parts() -> BundleParts {
    BundleParts {
        architecture: Architecture::Compact,
        hidden_units: 0,
        labels: labels(&["Normal", "Tumor"]),
        preprocessing: preprocessing(SIZE),
        params: json!({"EPOCHS": 3, "AUGMENTATION": true}),
        dataset_digest: "d".repeat(64),
        split_digest: "5".repeat(64),
        metrics: json!({"loss": 0.25}),
        calibration: None,
        abstention: None,
        patient: None,
    }
}

fn model() -> Weights {
    weights(Architecture::Compact, 2, 0, SIZE)
}

fn golden_images() -> [RgbImage; 3] {
    [1, 2, 3].map(|seed| image(24, 16, seed))
}

struct Saved {
    /// Deleted when dropped.
    _folder: TempDir,
    bundle: PathBuf,
    meta: BundleMeta,
}

fn save() -> Saved {
    save_as(parts(), &model())
}

fn save_as(parts: BundleParts, weights: &Weights) -> Saved {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let meta = Bundle::save(&bundle, parts, weights, &golden_images()).unwrap();
    Saved { _folder: folder, bundle, meta }
}

/// A model that judges places, of three labels.
fn save_places() -> Saved {
    let (architecture, size) = (Architecture::CompactPlaces, [32, 40, 3]);
    let labels = labels(&["Cyst", "Normal", "Tumor"]);
    let parts = BundleParts { architecture, labels, preprocessing: preprocessing(size), ..parts() };
    save_as(parts, &weights(architecture, 3, 0, size))
}

impl Saved {
    fn edit_meta(&self, edit: impl Fn(&mut Value)) {
        let path = self.bundle.join("bundle.json");
        let mut meta = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        edit(&mut meta);
        fs_err::write(path, serde_json::to_vec(&meta).unwrap()).unwrap();
    }

    /// Replaces a file and its hash: what is left to catch it is what the file says.
    fn forge(&self, file: &str, key: &str, bytes: &[u8]) {
        fs_err::write(self.bundle.join(file), bytes).unwrap();
        self.edit_meta(|meta| meta[key] = sha256(bytes).into());
    }

    fn golden(&self) -> Vec<u8> {
        fs_err::read(self.bundle.join("golden.safetensors")).unwrap()
    }

    /// The refusal, with the bundle's place left out, and its hint.
    fn refused(&self) -> (String, Option<String>) {
        let error = Bundle::load(&self.bundle).unwrap_err();
        (error.to_string().replace(&self.bundle.display().to_string(), "B"), error.hint())
    }
}

#[test]
fn a_saved_bundle_loads_with_everything_in_it() {
    let saved = save();
    let Bundle { meta, predictor } = Bundle::load(&saved.bundle).unwrap();
    assert_eq!(meta, saved.meta);
    assert_eq!(meta.parts(), parts());
    assert_eq!(Weights::load(&saved.bundle.join("weights.safetensors")).unwrap(), model());
    let file = fs_err::read(saved.bundle.join("weights.safetensors")).unwrap();
    assert_eq!(meta.weights_sha256, sha256(&file));
    assert_eq!(predictor.id(), format!("compact-{}", &meta.weights_sha256[..8]));
    assert_eq!(predictor.labels(), ["Normal", "Tumor"]);
    assert_eq!(predictor.preprocessing(), &preprocessing(SIZE));
    assert_eq!(predictor.assumption(), None);
}

#[test]
fn a_bundle_of_a_model_that_judges_places_loads() {
    let saved = save_places();
    let Bundle { meta, predictor } = Bundle::load(&saved.bundle).unwrap();
    assert_eq!(meta, saved.meta);
    assert_eq!(meta.architecture, Architecture::CompactPlaces);
    assert_eq!(predictor.id(), format!("compact-places-{}", &meta.weights_sha256[..8]));
    let text = fs_err::read_to_string(saved.bundle.join("bundle.json")).unwrap();
    assert!(text.contains(r#""architecture": "compact-places""#), "{text}");
}

#[test]
fn the_same_model_gives_the_same_files() {
    let (first, second) = (save(), save());
    for file in ["bundle.json", "weights.safetensors", "golden.safetensors"] {
        let read = |saved: &Saved| fs_err::read(saved.bundle.join(file)).unwrap();
        assert_eq!(read(&first), read(&second), "{file}");
    }
}

#[test]
fn a_bundle_takes_the_place_of_the_last_one() {
    let saved = save();
    fs_err::write(saved.bundle.join("stray"), "left over").unwrap();
    let names = BundleParts { labels: labels(&["Cyst", "Stone"]), ..parts() };
    Bundle::save(&saved.bundle, names, &model(), &golden_images()).unwrap();
    assert_eq!(Bundle::load(&saved.bundle).unwrap().meta.labels, ["Cyst", "Stone"]);
    assert_eq!(names_in(&saved.bundle), ["bundle.json", "golden.safetensors", "weights.safetensors"]);
    assert_eq!(names_in(saved.bundle.parent().unwrap()), ["bundle"], "no temporary folder may stay");
}

#[test]
fn a_refused_save_keeps_the_last_bundle() {
    let saved = save();
    let none = Bundle::save(&saved.bundle, parts(), &model(), &[]).unwrap_err();
    assert_eq!(none.to_string(), "a bundle needs at least one golden image, got none");
    let names = BundleParts { labels: labels(&["A", "B", "C"]), ..parts() };
    let three = Bundle::save(&saved.bundle, names, &model(), &golden_images()).unwrap_err();
    assert!(matches!(three, BundleError::Labels { labels: 3, outputs: 2, .. }), "{three}");
    let same = BundleParts { labels: labels(&["A", "A"]), ..parts() };
    let same = Bundle::save(&saved.bundle, same, &model(), &golden_images()).unwrap_err().to_string();
    assert!(same.ends_with(r#"at least two labels, all different and none empty, got ["A", "A"]"#), "{same}");
    assert_eq!(Bundle::load(&saved.bundle).unwrap().meta, saved.meta);
    assert_eq!(names_in(saved.bundle.parent().unwrap()), ["bundle"]);
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn missing_files_are_named() {
    let saved = save();
    for file in ["golden.safetensors", "weights.safetensors"] {
        fs_err::remove_file(saved.bundle.join(file)).unwrap();
        let (text, hint) = saved.refused();
        assert_eq!(text, format!("the bundle has no `B/{file}`"));
        assert_eq!(hint.unwrap(), "copy the whole bundle folder again, or train again");
    }
    fs_err::remove_file(saved.bundle.join("bundle.json")).unwrap();
    let (text, hint) = saved.refused();
    assert_eq!(text, "no model bundle at `B`: it has no `bundle.json`");
    assert!(hint.unwrap().starts_with("run `nephros train` first"));
}

#[test]
fn a_changed_byte_in_either_file_is_refused() {
    for file in ["weights.safetensors", "golden.safetensors"] {
        let saved = save();
        let mut bytes = fs_err::read(saved.bundle.join(file)).unwrap();
        let expected = sha256(&bytes);
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(saved.bundle.join(file), &bytes).unwrap();
        let got = sha256(&bytes);
        assert_eq!(
            saved.refused().0,
            format!(
                "`B/{file}` was changed after the bundle was made: expected sha256 {expected}, got {got}"
            )
        );
    }
}

#[test]
fn descriptions_that_are_not_ours_are_refused() {
    let saved = save();
    saved.edit_meta(|meta| meta["format_version"] = json!(3));
    let (text, hint) = saved.refused();
    assert_eq!(text, "`B/bundle.json` was made by a newer nephros: expected format version 2, got 3");
    assert_eq!(hint.unwrap(), "update nephros, or train the model again with this version");
    saved.edit_meta(|meta| meta["format_version"] = json!("one"));
    assert_eq!(saved.refused().0, "`B/bundle.json`: expected format version 2, got \"one\"");
    saved.edit_meta(|meta| meta["format_version"] = json!(2));
    assert_eq!(saved.refused().0, "`B/bundle.json`: expected format version 1, got 2");
    let saved = save();
    saved.edit_meta(|meta| meta["colour"] = json!("blue"));
    assert!(saved.refused().0.contains("unknown field `colour`"), "{}", saved.refused().0);
    fs_err::write(saved.bundle.join("bundle.json"), "{").unwrap();
    assert!(saved.refused().0.starts_with("`B/bundle.json` is not a bundle description: EOF"));
}

fn reading() -> (Calibration, Abstention) {
    let calibration = Calibration {
        method: CalibrationMethod::Temperature,
        temperature: 2.5,
        images: 40,
        groups: 10,
        unit: "patient".into(),
        ece_before: 0.25,
        ece_after: 0.125,
    };
    let abstention = Abstention {
        method: AbstentionMethod::HierarchicalConformal,
        error_rate: 0.1,
        scope: Scope::Pooled,
        thresholds: vec![0.4, 0.4],
        groups: 10,
        groups_of_label: vec![5, 5],
        needed: 9,
        unit: "patient".into(),
        chosen_by_validation: false,
    };
    (calibration, abstention)
}

fn save_with_reading() -> Saved {
    let saved = save();
    let (calibration, abstention) = reading();
    let patient = Some(PatientReading {
        calibration: Calibration { temperature: 0.25, ..calibration.clone() },
        abstention: abstention.clone(),
    });
    let parts =
        BundleParts { calibration: Some(calibration), abstention: Some(abstention), patient, ..parts() };
    let meta = Bundle::save(&saved.bundle, parts, &model(), &golden_images()).unwrap();
    Saved { meta, ..saved }
}

#[test]
fn a_calibration_corrects_every_answer_and_no_golden() {
    let (plain, calibrated) = (save(), save_with_reading());
    assert_eq!(plain.golden(), calibrated.golden(), "goldens are of the network itself");
    let (plain, calibrated) =
        (Bundle::load(&plain.bundle).unwrap().predictor, Bundle::load(&calibrated.bundle).unwrap().predictor);
    let images = golden_images();
    let (raw, corrected) =
        (plain.predict_batch(&images).unwrap(), calibrated.predict_batch(&images).unwrap());
    let (calibration, abstention) = reading();
    for (raw, corrected) in raw.iter().zip(&corrected) {
        assert_eq!(corrected, &calibration.apply(raw));
        assert_ne!(corrected, raw);
        assert_eq!(corrected.top(), raw.top());
        let answer = abstention.answer(plain.labels(), &corrected.probabilities);
        assert_eq!(calibrated.answer(corrected), Some(answer));
        assert_eq!(plain.answer(raw), None, "a bundle without an error rate answers as it always did");
    }
    let slices = || corrected.iter().map(|slice| slice.probabilities.as_slice());
    let (mean, patient) = (plain.patient(slices()).unwrap(), calibrated.patient(slices()).unwrap());
    assert_eq!(patient.prediction, with_temperature(&mean.prediction, 0.25));
    let answer = abstention.answer(plain.labels(), &patient.prediction.probabilities);
    assert_eq!((mean.answer, patient.answer), (None, Some(answer)));
    assert_eq!((plain.knows_patients(), calibrated.knows_patients()), (false, true));
    assert_eq!(calibrated.uncalibrated().predict_batch(&images).unwrap(), raw);
}

#[test]
fn what_cannot_be_applied_is_refused() {
    for (key, value, got) in [
        ("temperature", json!(0.0), "`calibration`, got temperature 0"),
        ("temperature", json!(-1.0), "`calibration`, got temperature -1"),
        ("thresholds", json!([0.5]), "`abstention`, got thresholds [0.5] at error rate 0.1"),
        ("thresholds", json!([0.5, 1.5]), "`abstention`, got thresholds [0.5, 1.5] at error rate 0.1"),
        ("error_rate", json!(1.0), "`abstention`, got thresholds [0.4, 0.4] at error rate 1"),
    ] {
        let saved = save_with_reading();
        let object = if key == "temperature" { "calibration" } else { "abstention" };
        saved.edit_meta(|meta| meta[object][key] = value.clone());
        assert_eq!(saved.refused().0, format!("`B/bundle.json`: expected a usable {got}"));
        let saved = save_with_reading();
        saved.edit_meta(|meta| meta["patient"][object][key] = value.clone());
        let got = got.replacen('`', "`patient.", 1);
        assert_eq!(saved.refused().0, format!("`B/bundle.json`: expected a usable {got}"));
    }
}

fn failing() -> Gate {
    let figures = BTreeMap::from([("images".to_owned(), 8.0)]);
    let text = "all 8 test images were called `Normal`".to_owned();
    Gate::new(vec![Finding { code: FindingCode::OneClass, text, figures }])
}

/// The evaluation as the bundle on disk has it.
fn evaluation(saved: &Saved) -> Option<Evaluation> {
    Bundle::load(&saved.bundle).unwrap().predictor.evaluation().cloned()
}

#[test]
fn a_verdict_is_kept_in_the_bundle() {
    let saved = save_with_reading();
    assert_eq!(evaluation(&saved), None);
    let trained = ["bundle.json", "golden.safetensors", "weights.safetensors"];
    let contents = || trained.map(|name| fs_err::read(saved.bundle.join(name)).unwrap());
    let before = contents();
    record_evaluation(&saved.bundle, failing(), "s".repeat(64)).unwrap();
    let kept = evaluation(&saved).unwrap();
    assert_eq!((&kept.gate, kept.scores_sha256.len(), &kept.forced), (&failing(), 64, &None));
    assert_eq!(kept.weights_sha256, saved.meta.weights_sha256);
    assert_eq!(contents(), before, "what the training left is as it was");
    assert_eq!(
        names_in(&saved.bundle),
        ["bundle.json", "evaluation.json", "golden.safetensors", "weights.safetensors"]
    );
}

#[test]
fn a_verdict_on_other_weights_counts_as_none() {
    let (saved, other) = (save(), save_with_reading());
    record_evaluation(&saved.bundle, failing(), String::new()).unwrap();
    let path = saved.bundle.join("evaluation.json");
    let mut verdict: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    verdict["weights_sha256"] = json!("0".repeat(64));
    fs_err::write(other.bundle.join("evaluation.json"), verdict.to_string()).unwrap();
    assert_eq!(evaluation(&other), None);
}

#[test]
fn a_verdict_that_cannot_be_read_is_no_verdict_of_yes() {
    let saved = save();
    for name in ["evaluation.json", "forced.json"] {
        record_evaluation(&saved.bundle, failing(), String::new()).unwrap();
        fs_err::write(saved.bundle.join(name), "{}").unwrap();
        let (text, hint) = saved.refused();
        assert!(
            text.starts_with(&format!("`B/{name}` is not the verdict of an evaluation: missing field")),
            "{text}"
        );
        assert!(hint.unwrap().contains("`nephros evaluate`"));
        fs_err::remove_file(saved.bundle.join(name)).unwrap();
    }
}

#[test]
fn a_model_that_fails_the_gate_is_admitted_by_force_alone_and_that_stays_on_record() {
    let saved = save();
    let ask = |force| admit(&saved.bundle, evaluation(&saved).as_ref(), force);
    assert_eq!(ask(false).unwrap(), Admission::NotEvaluated);
    record_evaluation(&saved.bundle, Gate::new(vec![]), String::new()).unwrap();
    assert_eq!(ask(true).unwrap(), Admission::Passed, "there is nothing to force");
    assert_eq!(evaluation(&saved).unwrap().forced, None);
    record_evaluation(&saved.bundle, failing(), String::new()).unwrap();
    let refused = ask(false).unwrap_err();
    let text = refused.to_string().replace(&saved.bundle.display().to_string(), "B");
    assert_eq!(text, "the model in `B` failed the gate: all 8 test images were called `Normal`");
    assert!(refused.hint().unwrap().contains("`--force`"));
    assert_eq!(evaluation(&saved).unwrap().forced, None, "a refusal records nothing");
    assert_eq!(ask(true).unwrap(), Admission::Forced);
    let forced = evaluation(&saved).unwrap().forced.unwrap();
    assert_eq!(forced.overlooked, [FindingCode::OneClass]);
    assert!(matches!(ask(false).unwrap_err(), BundleError::Refused { .. }), "once is not for ever");
    record_evaluation(&saved.bundle, Gate::new(vec![]), String::new()).unwrap();
    assert_eq!(evaluation(&saved).unwrap().forced, Some(forced));
}

#[test]
fn a_verdict_that_contradicts_itself_refuses() {
    let saved = save();
    record_evaluation(&saved.bundle, failing(), String::new()).unwrap();
    let path = saved.bundle.join("evaluation.json");
    let verdict = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, verdict.replace("\"passed\": false", "\"passed\": true")).unwrap();
    assert!(evaluation(&saved).unwrap().gate.passed);
    assert!(admit(&saved.bundle, evaluation(&saved).as_ref(), false).is_err());
}

#[test]
fn labels_must_fit_the_head() {
    let saved = save();
    saved.edit_meta(|meta| meta["labels"] = json!(["Cyst", "Normal", "Tumor"]));
    assert_eq!(saved.refused().0, "`B/bundle.json` names 3 labels, but the head has 2 outputs");
    let saved = save_places();
    saved.edit_meta(|meta| meta["labels"] = json!(["Normal", "Tumor"]));
    assert_eq!(saved.refused().0, "`B/bundle.json` names 2 labels, but the head has 3 outputs");
}

#[test]
fn swapped_labels_or_weights_fail_the_goldens() {
    let saved = save();
    let mut other = model();
    other.0.get_mut("head.weight").unwrap().values.reverse();
    saved.forge("weights.safetensors", "weights_sha256", &other.to_bytes().unwrap());
    let (text, hint) = saved.refused();
    let start = "golden image 0 of `B/golden.safetensors`: expected `Normal` with probability ";
    assert!(text.starts_with(start) && text.contains(", got "), "{text}");
    assert!(hint.unwrap().contains("do not use it"));
}

#[test]
fn another_network_input_fails_the_goldens() {
    let saved = save();
    saved.edit_meta(|meta| meta["preprocessing"]["image_size"] = json!([24, 16, 3]));
    assert_eq!(
        saved.refused().0,
        "`B/golden.safetensors`: expected `input` of shape [3, 24, 16, 3], got [3, 16, 24, 3]"
    );
}

#[test]
fn forged_goldens_are_refused() {
    let saved = save();
    let mut bytes = saved.golden();
    let start = probabilities_start(&bytes);
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    saved.forge("golden.safetensors", "golden_sha256", &bytes);
    assert!(saved.refused().0.contains("with probability NaN, got "), "{}", saved.refused().0);
    saved.forge("golden.safetensors", "golden_sha256", &bytes[..40]);
    assert!(saved.refused().0.starts_with("`B/golden.safetensors` does not hold golden images: "));
    saved.forge("golden.safetensors", "golden_sha256", &model().to_bytes().unwrap());
    assert!(saved.refused().0.ends_with("tensor `input` not found"), "{}", saved.refused().0);
}

/// Place of the first probability, from the file's own header.
fn probabilities_start(bytes: &[u8]) -> usize {
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let json: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    header + usize::try_from(json["probabilities"]["data_offsets"][0].as_u64().unwrap()).unwrap()
}

#[test]
fn a_predictor_comes_from_a_bundle_only_with_its_own_normalization() {
    let saved = save();
    let predictor = Predictor::load(&saved.bundle, Some(Normalization::Unit)).unwrap();
    assert_eq!(predictor.id(), saved.meta.id);
    let other = Predictor::load(&saved.bundle, Some(Normalization::Caffe)).unwrap_err();
    assert!(matches!(other, ModelError::Normalization { got: Normalization::Caffe, .. }), "{other}");
    let file = Predictor::load(&saved.bundle.join("bundle.json"), None).unwrap_err();
    assert!(
        file.to_string()
            .ends_with("is not a model: expected a bundle folder or a Keras `.h5` or `.keras` file")
    );
    let nothing = Predictor::load(&saved.bundle.join("nothing"), None).unwrap_err();
    assert!(matches!(nothing, ModelError::Bundle(BundleError::NotFound { .. })), "{nothing}");
}

/// What 8 bits change, by invented figures.
fn holdout(share_changed: f64, tolerance: f64) -> Holdout {
    Holdout {
        images: 20,
        patients: None,
        digest: "h".repeat(64),
        largest_change: 0.125,
        mean_change: 0.03125,
        labels_changed: 1,
        share_changed,
        tolerance,
        auroc_f32: Some(0.75),
        auroc_int8: None,
        feature_distance: None,
    }
}

fn calibration() -> CalibrationSet {
    CalibrationSet { images: 20, patients: Some(4), digest: "c".repeat(64) }
}

/// Quantises in place, calibrated on the golden images.
fn quantize(saved: &Saved, to: &Path, holdout: Holdout) -> BundleMeta {
    let (meta, weights) = Bundle::open_weights(&saved.bundle).unwrap();
    let mut calibrator = meta.architecture.calibrator(&weights, meta.preprocessing.image_size).unwrap();
    let images: Vec<f32> = golden_images().iter().flat_map(|image| meta.preprocessing.apply(image)).collect();
    calibrator.add(&images, 3).unwrap();
    let quantized = Quantized::new(&saved.bundle, &calibrator.finish()).unwrap();
    quantized.save(&saved.bundle, to, calibration(), holdout).unwrap()
}

fn answers(predictor: &Predictor) -> Vec<Vec<f32>> {
    golden_images().iter().map(|image| predictor.predict(image).unwrap().probabilities).collect()
}

#[test]
fn a_quantized_bundle_holds_both_models() {
    holds_both_models(&save());
    holds_both_models(&save_places());
}

fn holds_both_models(saved: &Saved) {
    let before = answers(&Bundle::load(&saved.bundle).unwrap().predictor);
    let meta = quantize(saved, &saved.bundle, holdout(0.0, 0.0));
    let loaded = Bundle::load(&saved.bundle).unwrap();
    assert_eq!(loaded.meta, meta);
    assert_eq!(meta.format_version, 2);
    let quantization = meta.quantization.unwrap();
    assert_eq!((quantization.calibration, quantization.holdout), (calibration(), holdout(0.0, 0.0)));
    assert_eq!(loaded.predictor.id(), format!("{}-int8", saved.meta.id));
    let int8 = answers(&loaded.predictor);
    assert_ne!(int8, before);
    for (int8, floats) in int8.iter().flatten().zip(before.iter().flatten()) {
        assert!((int8 - floats).abs() < 0.1, "{int8} {floats}");
    }
    let again = answers(&Bundle::load_as(&saved.bundle, Some(Precision::Int8)).unwrap().predictor);
    assert_eq!(again, int8, "the same integers at every load");
    let floats = Bundle::load_as(&saved.bundle, Some(Precision::F32)).unwrap().predictor;
    assert_eq!(floats.id(), saved.meta.id);
    assert_eq!(answers(&floats), before);
}

#[test]
fn too_many_changed_labels_keep_the_floats() {
    let saved = save();
    let meta = quantize(&saved, &saved.bundle, holdout(0.05, 0.04));
    assert_eq!(meta.quantization.unwrap().default, Precision::F32);
    assert_eq!(Bundle::load(&saved.bundle).unwrap().predictor.id(), saved.meta.id);
    let asked = Predictor::load_as(&saved.bundle, None, Some(Precision::Int8)).unwrap();
    assert_eq!(asked.id(), format!("{}-int8", saved.meta.id));
    let meta = quantize(&saved, &saved.bundle, holdout(0.05, 0.05));
    assert_eq!(meta.quantization.unwrap().default, Precision::Int8);
}

#[test]
fn quantizing_elsewhere_copies_and_leaves_what_is_there() {
    let saved = save();
    let other = saved.bundle.with_file_name("other");
    fs_err::create_dir(&other).unwrap();
    fs_err::write(other.join("model.h5"), "kept").unwrap();
    record_evaluation(&saved.bundle, failing(), String::new()).unwrap();
    quantize(&saved, &other, holdout(0.0, 0.0));
    assert_eq!(
        names_in(&other),
        [
            "bundle.json",
            "evaluation.json",
            "golden.int8.safetensors",
            "golden.safetensors",
            "model.h5",
            "weights.int8.safetensors",
            "weights.safetensors"
        ]
    );
    let copied = Bundle::load(&other).unwrap().predictor;
    assert!(copied.id().ends_with("-int8"));
    assert_eq!(copied.evaluation(), evaluation(&saved).as_ref(), "a verdict goes with its weights");
    let plain = fs_err::read_to_string(saved.bundle.join("bundle.json")).unwrap();
    assert!(!plain.contains("quantization"), "as an older nephros reads it: {plain}");
    assert_eq!(Bundle::load(&saved.bundle).unwrap().meta, saved.meta);
}

#[test]
fn quantizing_twice_gives_the_same_files_and_training_again_removes_them() {
    let saved = save();
    let read = || {
        let files = names_in(&saved.bundle).into_iter();
        files.map(|file| fs_err::read(saved.bundle.join(file)).unwrap()).collect::<Vec<_>>()
    };
    quantize(&saved, &saved.bundle, holdout(0.0, 0.0));
    let first = read();
    quantize(&saved, &saved.bundle, holdout(0.0, 0.0));
    assert_eq!(read(), first);
    Bundle::save(&saved.bundle, parts(), &model(), &golden_images()).unwrap();
    assert_eq!(names_in(&saved.bundle), ["bundle.json", "golden.safetensors", "weights.safetensors"]);
    let error = Predictor::load_as(&saved.bundle, None, Some(Precision::Int8)).unwrap_err();
    assert!(error.to_string().ends_with("bundle` has no 8-bit weights"), "{error}");
    assert_eq!(error.hint().unwrap(), "add them to a bundle with `nephros quantize --calibrate DIR`");
}

#[test]
fn changed_8_bit_files_are_refused() {
    let saved = save();
    quantize(&saved, &saved.bundle, holdout(0.0, 0.0));
    for file in ["weights.int8.safetensors", "golden.int8.safetensors"] {
        let path = saved.bundle.join(file);
        let whole = fs_err::read(&path).unwrap();
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1;
        for changed in [bytes.as_slice(), &whole[..whole.len() / 2], b"short"] {
            fs_err::write(&path, changed).unwrap();
            let text = saved.refused().0;
            let expected = format!("`B/{file}` was changed after the bundle was made: expected sha256 ");
            assert!(text.starts_with(&expected), "{text}");
        }
        Bundle::load_as(&saved.bundle, Some(Precision::F32)).unwrap();
        fs_err::remove_file(&path).unwrap();
        assert_eq!(saved.refused().0, format!("the bundle has no `B/{file}`"));
        fs_err::write(&path, &whole).unwrap();
    }
    Bundle::load(&saved.bundle).unwrap();
}

#[test]
fn other_8_bit_weights_fail_their_goldens() {
    let saved = save();
    quantize(&saved, &saved.bundle, holdout(0.0, 0.0));
    let path = saved.bundle.join("weights.int8.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    // The integers stand last, being the narrowest; most of the 336,384 change their sign.
    let start = bytes.len() - 300_000;
    for byte in &mut bytes[start..] {
        *byte = byte.wrapping_neg();
    }
    fs_err::write(&path, &bytes).unwrap();
    saved.edit_meta(|meta| meta["quantization"]["weights_sha256"] = sha256(&bytes).into());
    let text = saved.refused().0;
    assert!(text.starts_with("golden image 0 of `B/golden.int8.safetensors`: expected `Normal`"), "{text}");
    saved.edit_meta(|meta| meta["quantization"]["colour"] = json!("blue"));
    assert!(saved.refused().0.contains("unknown field `colour`"), "{}", saved.refused().0);
}
