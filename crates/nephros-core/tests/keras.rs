//! Keras files, written and read back; the real Keras is met in `nephros-train/tests/tensorflow.rs`.

use std::path::{Path, PathBuf};

use nephros_core::{
    hint::Hint,
    keras::{self, KerasErrorKind, KerasModel, ModelFile, Optimizer},
    network::{Architecture, FeatureLayer},
    weights::{Tensor, Weights},
};

/// Distinct, reproducible values: a linear congruential generator (Numerical Recipes, 7.1).
fn tensor(state: &mut u32, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|_| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / (1 << 24) as f32 + 0.25
    });
    Tensor { shape: shape.to_vec(), values: values.collect() }
}

fn weights(architecture: Architecture, features: usize, hidden: usize, classes: usize) -> Weights {
    let mut weights = Weights::default();
    let mut state = 7;
    let mut add = |key: String, shape: &[usize]| weights.0.insert(key, tensor(&mut state, shape));
    for layer in architecture.layers() {
        if let FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } = *layer {
            add(format!("{key}.weight"), &[outputs, inputs, 3, 3]);
            add(format!("{key}.bias"), &[outputs]);
            if let Some(norm) = batch_norm {
                for suffix in ["weight", "bias", "running_mean", "running_var"] {
                    add(format!("{norm}.{suffix}"), &[outputs]);
                }
            }
        }
    }
    if hidden > 0 {
        add("head.hidden.weight".to_owned(), &[hidden, features]);
        add("head.hidden.bias".to_owned(), &[hidden]);
    }
    add("head.weight".to_owned(), &[classes, if hidden > 0 { hidden } else { features }]);
    add("head.bias".to_owned(), &[classes]);
    weights
}

fn model_file(weights: &Weights, architecture: Architecture, image_size: [usize; 3]) -> ModelFile<'_> {
    ModelFile {
        architecture,
        image_size,
        hidden_units: 0,
        classes: Some(2),
        weights,
        frozen: true,
        optimizer: Optimizer::Sgd { momentum: 0.9 },
        learning_rate: 0.01,
    }
}

fn features_only(weights: &Weights) -> Weights {
    let features = weights.0.iter().filter(|(key, _)| !key.starts_with("head"));
    Weights(features.map(|(key, tensor)| (key.clone(), tensor.clone())).collect())
}

/// A compact model in a folder of its own.
fn compact_file(folder: &Path) -> (PathBuf, Weights) {
    let weights = weights(Architecture::Compact, 192, 0, 2);
    let path = folder.join("model.h5");
    keras::write_model(&path, &model_file(&weights, Architecture::Compact, [16, 16, 3])).unwrap();
    (path, weights)
}

#[test]
fn a_written_model_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    // 70×40 pixels leave a 2×1 map of 512 channels: (70 / 32) · (40 / 32) · 512 = 1024 inputs.
    let cases = [
        (Architecture::Vgg16, [70, 40, 3], 1024, 0, 2),
        (Architecture::Vgg16, [70, 40, 3], 1024, 5, 3),
        (Architecture::Compact, [48, 32, 3], 192, 0, 4),
        (Architecture::Compact, [48, 32, 3], 192, 7, 2),
    ];
    for (architecture, image_size, features, hidden_units, classes) in cases {
        let weights = weights(architecture, features, hidden_units, classes);
        let file = ModelFile {
            hidden_units,
            classes: Some(classes),
            ..model_file(&weights, architecture, image_size)
        };
        keras::write_model(&path, &file).unwrap();
        assert_eq!(keras::read_weights(&path).unwrap(), features_only(&weights));
        let keras_version = Some("2.12.0".to_owned());
        let expected = KerasModel { architecture, hidden_units, classes, image_size, weights, keras_version };
        assert_eq!(keras::read_model(&path).unwrap(), expected);
    }
    let left: Vec<_> =
        fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["model.h5"]);
}

#[test]
fn a_base_model_has_weights_and_no_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base_model.h5");
    let weights = weights(Architecture::Compact, 192, 0, 2);
    let file = ModelFile { classes: None, ..model_file(&weights, Architecture::Compact, [16, 16, 3]) };
    keras::write_model(&path, &file).unwrap();
    assert_eq!(keras::read_weights(&path).unwrap(), features_only(&weights));
    let error = keras::read_model(&path).unwrap_err();
    let expected = format!("`{}`: the model ends without a dense softmax layer", path.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint().unwrap(), "use the file as `WEIGHTS` in params.yaml and train a head");
}

#[test]
fn missing_and_misshapen_weights_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    let mut weights = weights(Architecture::Compact, 192, 0, 2);
    let bias = weights.0.remove("features.19.bias").unwrap();
    let write = |weights: &Weights, image_size| {
        let error = keras::write_model(&path, &model_file(weights, Architecture::Compact, image_size));
        error.unwrap_err().kind.to_string()
    };
    assert_eq!(write(&weights, [16, 16, 3]), "weights have no `features.19.bias`");
    weights.0.insert("features.19.bias".to_owned(), Tensor { shape: vec![193], ..bias });
    assert_eq!(write(&weights, [16, 16, 3]), "weights `features.19.bias`: expected shape [192], got [193]");
    let expected = "an image of [15, 16, 3] is too small or too large for the network";
    assert_eq!(write(&weights, [15, 16, 3]), expected);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn other_files_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    let cases: [(&[u8], &str); 3] = [
        (b"", "it is empty"),
        (b"PK\x03\x04\x14\x00", "it is a zip archive, as `.keras` files are"),
        (b"<!DOCTYPE html><html>", "it starts with `<!DOCTYPE html><`"),
    ];
    for (bytes, begin) in cases {
        fs_err::write(&path, bytes).unwrap();
        let error = keras::read_model(&path).unwrap_err();
        assert_eq!(error.kind.to_string(), format!("not an HDF5 file: {begin}"));
        assert!(error.hint().is_some());
    }
    let absent = keras::read_model(&folder.path().join("absent.h5")).unwrap_err();
    assert!(absent.to_string().contains("absent.h5"), "{absent}");
    assert!(matches!(absent.kind, KerasErrorKind::Io(_)));
}

#[test]
fn truncated_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = compact_file(folder.path());
    let whole = fs_err::read(&path).unwrap();
    let lengths = (0..200).map(|step| step * whole.len() / 200).chain(0..600).chain([whole.len() - 1]);
    for length in lengths {
        fs_err::write(&path, &whole[..length]).unwrap();
        assert!(keras::read_model(&path).is_err(), "the first {length} of {} bytes were read", whole.len());
    }
}

/// Flips bytes of the file: reading must end in a model or an error, not in a panic.
#[test]
fn damaged_files_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = compact_file(folder.path());
    let whole = fs_err::read(&path).unwrap();
    // Structures lie at both ends; the middle is weights.
    let edge = 24_000.min(whole.len() / 2);
    let mut state = 1_u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut refused = 0;
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            let place = next(edge);
            let place = if next(2) == 0 { place } else { whole.len() - 1 - place };
            bytes[place] = next(256) as u8;
        }
        fs_err::write(&path, &bytes).unwrap();
        refused += usize::from(keras::read_model(&path).is_err());
        let _ = keras::read_weights(&path);
    }
    assert!(refused > 0, "no flip reached a structure");
}
