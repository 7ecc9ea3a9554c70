//! Keras files, written and read back; the real Keras is met in `export_peers.rs` and in
//! `nephros-train/tests/tensorflow.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use nephros_core::{
    hint::Hint,
    keras::{self, KerasErrorKind, KerasModel, ModelFile, Optimizer},
    network::Architecture,
    weights::{Tensor, Weights},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A size that every network takes.
const SMALL: [usize; 3] = [64, 64, 3];

/// Distinct, reproducible values: a linear congruential generator (Numerical Recipes, 7.1).
fn tensor(state: &mut u32, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|_| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / (1 << 24) as f32 + 0.25
    });
    Tensor { shape: shape.to_vec(), values: values.collect() }
}

fn weights(architecture: Architecture, image_size: [usize; 3], hidden: usize, classes: usize) -> Weights {
    let mut state = 7;
    let shapes = architecture.expected_shapes(classes, hidden, image_size).into_iter();
    let tensors = shapes.map(|(key, shape)| {
        let tensor = tensor(&mut state, &shape);
        (key, tensor)
    });
    Weights(tensors.collect())
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
    let weights = weights(Architecture::Compact, SMALL, 0, 2);
    let path = folder.join("model.h5");
    keras::write_model(&path, &model_file(&weights, Architecture::Compact, SMALL)).unwrap();
    (path, weights)
}

/// The same model in both kinds of file.
fn compact_files(folder: &Path) -> [PathBuf; 2] {
    let (h5, weights) = compact_file(folder);
    let archive = folder.join("model.keras");
    keras::write_archive(&archive, &model_file(&weights, Architecture::Compact, SMALL), "{}").unwrap();
    [h5, archive]
}

#[test]
fn a_written_model_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    // 70×40 pixels leave a map of 2 rows and 1 column, whose order matters.
    let cases = [
        (Architecture::Vgg16, [70, 40, 3], 0, 2),
        (Architecture::Vgg16, [70, 40, 3], 5, 3),
        (Architecture::Vgg16Hypercolumn, [70, 40, 3], 3, 2),
        (Architecture::Compact, [48, 32, 3], 0, 4),
        (Architecture::Compact, [48, 32, 3], 7, 2),
    ];
    for (architecture, image_size, hidden_units, classes) in cases {
        let weights = weights(architecture, image_size, hidden_units, classes);
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
    let weights = weights(Architecture::Compact, SMALL, 0, 2);
    let file = ModelFile { classes: None, ..model_file(&weights, Architecture::Compact, SMALL) };
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
    let mut weights = weights(Architecture::Compact, SMALL, 0, 2);
    let bias = weights.0.remove("features.0.bias").unwrap();
    let length = bias.values.len();
    let write = |weights: &Weights, image_size| {
        let error = keras::write_model(&path, &model_file(weights, Architecture::Compact, image_size));
        error.unwrap_err().kind.to_string()
    };
    assert_eq!(write(&weights, SMALL), "weights have no `features.0.bias`");
    weights.0.insert("features.0.bias".to_owned(), Tensor { shape: vec![length, 1], ..bias });
    let expected = format!("weights `features.0.bias`: expected shape [{length}], got [{length}, 1]");
    assert_eq!(write(&weights, SMALL), expected);
    let expected = "an image of [3, 64, 3] is too small or too large for the network";
    assert_eq!(write(&weights, [3, 64, 3]), expected);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn other_files_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    let cases: [(&[u8], &str); 2] =
        [(b"", "it is empty"), (b"<!DOCTYPE html><html>", "it starts with `<!DOCTYPE html><`")];
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
    for path in compact_files(folder.path()) {
        let whole = fs_err::read(&path).unwrap();
        let lengths = (0..200).map(|step| step * whole.len() / 200).chain(0..600).chain([whole.len() - 1]);
        for length in lengths {
            fs_err::write(&path, &whole[..length]).unwrap();
            let read = keras::read_model(&path);
            assert!(read.is_err(), "the first {length} bytes of `{}` were read", path.display());
        }
    }
}

/// Name and content of a file of an archive.
type Entry<'a> = (&'a str, &'a [u8]);

/// An archive of these files, deflated.
fn archive(path: &Path, files: &[Entry<'_>]) {
    let mut archive = ZipWriter::new(fs_err::File::create(path).unwrap());
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        archive.start_file(*name, deflated).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn archives_of_something_else_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.keras");
    let zeros = vec![0; 8 << 20];
    let config: Entry<'_> = ("config.json", b"{}");
    let metadata: Entry<'_> = ("metadata.json", b"{}");
    let cases: [(&[Entry<'_>], &str); 3] = [
        (&[("notes.txt", b"")], "no `config.json` in the archive, as `.keras` files have"),
        (&[config, metadata], "no `model.weights.h5` in the archive, as `.keras` files have"),
        (
            &[config, metadata, ("model.weights.h5", b"not HDF5")],
            "damaged at the superblock of `model.weights.h5`",
        ),
    ];
    for (files, expected) in cases {
        archive(&path, files);
        let error = keras::read_model(&path).unwrap_err();
        assert_eq!(error.kind.to_string(), expected);
    }
    archive(&path, &[config, metadata, ("model.weights.h5", &zeros)]);
    // A Keras file is not compressed; 16 times its own size is more than it holds.
    let limit = 16 * fs_err::metadata(&path).unwrap().len();
    let error = keras::read_model(&path).unwrap_err();
    let expected = format!("`model.weights.h5` in the archive is longer than {limit} bytes");
    assert_eq!(error.kind.to_string(), expected);

    fs_err::write(&path, b"PK\x03\x04\x14\x00").unwrap();
    let error = keras::read_model(&path).unwrap_err();
    assert_eq!(error.kind.to_string(), "cannot be used as a zip archive");
    assert!(error.hint().is_some());
}

/// Flips bytes of the file: reading must end in a model or an error, not in a panic.
#[test]
fn damaged_files_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    for path in compact_files(folder.path()) {
        damage(&path);
    }
}

fn damage(path: &Path) {
    let whole = fs_err::read(path).unwrap();
    // Structures lie at both ends; the middle is weights.
    let edge = 24_000.min(whole.len() / 2);
    let mut state = 1_u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut refused = 0;
    for _ in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            let place = next(edge);
            let place = if next(2) == 0 { place } else { whole.len() - 1 - place };
            bytes[place] = next(256) as u8;
        }
        fs_err::write(path, &bytes).unwrap();
        refused += usize::from(keras::read_model(path).is_err());
        let _ = keras::read_weights(path);
    }
    assert!(refused > 0, "no flip reached a structure");
}
