//! Keras files, written and read back; the real Keras is met in `export_peers.rs` and in
//! `nephros-train/tests/tensorflow.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use hdf5_pure::{AttrValue, FileBuilder};
use nephros_core::{
    hint::Hint,
    keras::{self, KerasErrorKind, KerasModel, ModelFile, Optimizer},
    network::Architecture,
    weights::{Tensor, Weights},
};
use serde_json::{Value, json};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

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

/// A small model of an architecture as an archive.
fn archive_of(folder: &Path, architecture: Architecture) -> PathBuf {
    let path = folder.join(format!("{architecture}.keras"));
    let weights = weights(architecture, SMALL, 0, 2);
    keras::write_archive(&path, &model_file(&weights, architecture, SMALL), "{}").unwrap();
    path
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
        (Architecture::CompactPlaces, [48, 32, 3], 0, 2),
        (Architecture::CompactPlaces, [24, 40, 3], 0, 4),
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
        let archive = path.with_extension("keras");
        keras::write_archive(&archive, &file, "{}").unwrap();
        let model = |weights, version: &str| {
            let keras_version = Some(version.to_owned());
            KerasModel { architecture, hidden_units, classes, image_size, weights, keras_version }
        };
        assert_eq!(keras::read_model(&path).unwrap(), model(weights.clone(), "2.12.0"));
        assert_eq!(keras::read_weights(&archive).unwrap(), features_only(&weights));
        assert_eq!(keras::read_model(&archive).unwrap(), model(weights, "3.0.0"));
    }
    let left = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<BTreeSet<_>>(), ["model.h5", "model.keras"].map(Into::into).into());
}

#[test]
fn a_base_model_has_weights_and_no_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base_model.h5");
    for architecture in [Architecture::Compact, Architecture::CompactPlaces] {
        let weights = weights(architecture, SMALL, 0, 2);
        let file = ModelFile { classes: None, ..model_file(&weights, architecture, SMALL) };
        keras::write_model(&path, &file).unwrap();
        assert_eq!(keras::read_weights(&path).unwrap(), features_only(&weights));
        let error = keras::read_model(&path).unwrap_err();
        let expected = format!("`{}`: the model ends without a dense softmax layer", path.display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.hint().unwrap(), "use the file as `WEIGHTS` in params.yaml and train a head");
    }
}

/// Leaves the layers of a model that have weights, and nothing that says how they are joined.
fn save_groups_at_root(path: &Path) {
    let model = hdf5_pure::File::from_bytes(fs_err::read(path).unwrap()).unwrap();
    let layers = model.root().group("model_weights").unwrap();
    let mut file = FileBuilder::new();
    for name in layers.groups().unwrap() {
        let layer = layers.group(&name).unwrap();
        let names = layer.attrs().unwrap()["weight_names"].as_strings().unwrap_or_default().to_vec();
        // The head of a weights file is not asked for.
        if names.is_empty() || ["places", "dense"].contains(&name.as_str()) {
            continue;
        }
        let (mut group, mut inner) = (file.create_group(&name), file.create_group(&name));
        for array in &names {
            let array = array.strip_prefix(&format!("{name}/")).unwrap();
            let dataset = layer.group(&name).unwrap().dataset(array).unwrap();
            let (values, shape) = (dataset.read_f32().unwrap(), dataset.shape().unwrap());
            inner.create_dataset(array).with_f32_data(&values).with_shape(&shape);
        }
        group.set_attr("weight_names", AttrValue::VarLenAsciiStringArray(names));
        group.add_group(inner.finish());
        file.add_group(group.finish());
    }
    fs_err::write(path, file.finish().unwrap()).unwrap();
}

#[test]
fn weights_without_a_model_are_known_by_their_groups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    for architecture in [Architecture::Compact, Architecture::CompactPlaces] {
        let weights = weights(architecture, SMALL, 0, 2);
        keras::write_model(&path, &model_file(&weights, architecture, SMALL)).unwrap();
        save_groups_at_root(&path);
        assert!(matches!(keras::read_model(&path).unwrap_err().kind, KerasErrorKind::NoModelConfig));
        assert_eq!(keras::read_weights(&path).unwrap(), features_only(&weights));
    }
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
    let places = model_file(&weights, Architecture::CompactPlaces, [23, 64, 3]);
    let error = keras::write_archive(&path, &places, "{}").unwrap_err();
    let expected = "an image of [23, 64, 3] is too small or too large for the network";
    assert_eq!(error.kind.to_string(), expected);
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
    let places = archive_of(folder.path(), Architecture::CompactPlaces);
    for path in compact_files(folder.path()).into_iter().chain([places]) {
        damage(&path);
    }
}

/// Rewrites a part of `config.json` of an archive.
fn change_config(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut whole = ZipArchive::new(fs_err::File::open(path).unwrap()).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        whole.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    change(&mut config["config"]);
    let (config, weights) = (serde_json::to_vec(&config).unwrap(), read("model.weights.h5"));
    archive(path, &[("config.json", &config), ("metadata.json", b"{}"), ("model.weights.h5", &weights)]);
}

fn refused_after(architecture: Architecture, change: impl FnOnce(&mut Value)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = archive_of(folder.path(), architecture);
    change_config(&path, change);
    keras::read_model(&path).unwrap_err().kind.to_string()
}

/// The layer of that name, from the configuration of a model.
fn layer<'a>(config: &'a mut Value, name: &str) -> &'a mut Value {
    let layers = config["layers"].as_array_mut().unwrap();
    layers.iter_mut().find(|layer| layer["name"] == name).unwrap()
}

/// The layer's value under a key, changed.
type Change = (&'static str, &'static str, Value);

#[test]
fn what_judges_places_in_another_way_is_refused() {
    let unknown = "layers do not form a known network: expected";
    let cases: [(Change, &str); 16] = [
        (
            ("places", "kernel_size", json!([5, 5])),
            "layer `places` (Conv2D) is not supported: expected kernel_size [3,3], got [5,5]",
        ),
        (
            ("places", "kernel_size", json!([3, 3])),
            "{unknown} MaxPooling2D, or Conv2D of 1 by 1, got `places` (Conv2D with 1 filters)",
        ),
        (
            ("places", "strides", json!([2, 2])),
            "layer `places` (Conv2D) is not supported: expected strides [1,1], got [2,2]",
        ),
        (
            ("places", "padding", json!("causal")),
            "layer `places` (Conv2D) is not supported: expected padding \"same\", got \"causal\"",
        ),
        (
            ("places", "activation", json!("relu")),
            "{unknown} AveragePooling2D, got relu of `places` (Conv2D)",
        ),
        (("places", "filters", json!(2)), "{unknown} Dense with 3 units, got `dense` (Dense with 2 units)"),
        (
            ("places", "filters", json!(u64::MAX)),
            "{unknown} Dense with 18446744073709551615 units, got `dense` (Dense with 2 units)",
        ),
        (
            ("places_mean", "pool_size", json!([2, 2])),
            "layer `places_mean` (AveragePooling2D) is not supported: expected pool_size [3,3], got [2,2]",
        ),
        (
            ("places_mean", "strides", json!([3, 3])),
            "layer `places_mean` (AveragePooling2D) is not supported: expected strides [1,1], got [3,3]",
        ),
        (
            // As far as the pool is wide.
            ("places_mean", "strides", Value::Null),
            "layer `places_mean` (AveragePooling2D) is not supported: expected strides [1,1], got null",
        ),
        (
            ("places_mean", "padding", json!("same")),
            "layer `places_mean` (AveragePooling2D) is not supported: expected padding \"valid\", got \"same\"",
        ),
        (
            ("global_max_pooling2d", "keepdims", json!(true)),
            "layer `global_max_pooling2d` (GlobalMaxPooling2D) is not supported: expected keepdims false, got true",
        ),
        (
            ("global_max_pooling2d", "data_format", json!("channels_first")),
            "layer `global_max_pooling2d` (GlobalMaxPooling2D) is not supported: expected data_format \
             \"channels_last\", got \"channels_first\"",
        ),
        (
            // A hidden layer, of which there would be another.
            ("dense", "activation", json!("relu")),
            "{unknown} the activation softmax, got relu of `dense` (Dense)",
        ),
        (("dense", "units", json!(1)), "{unknown} Dense with 2 units, got `dense` (Dense with 1 units)"),
        (
            ("input_layer", "batch_shape", json!([null, 64, 23, 3])),
            "an image of [64, 23, 3] is too small or too large for the network",
        ),
    ];
    for ((name, key, value), expected) in cases {
        let got = refused_after(Architecture::CompactPlaces, |config| {
            layer(config, name)["config"][key] = value;
        });
        assert_eq!(got, expected.replace("{unknown}", unknown));
    }
}

/// Regression: the product of such a shape overflowed.
#[test]
fn layers_wider_than_any_file_are_refused() {
    let widest = u64::MAX.to_string();
    let got = refused_after(Architecture::Compact, |config| {
        layer(config, "dense")["config"]["units"] = u64::MAX.into();
    });
    let array = "dataset `layers/dense/vars/0`: expected shape";
    assert_eq!(got, format!("{array} [128, {widest}], got [128, 2]"));
    let got = refused_after(Architecture::CompactPlaces, |config| {
        layer(config, "places")["config"]["filters"] = (u64::MAX - 1).into();
        layer(config, "dense")["config"]["units"] = u64::MAX.into();
    });
    let array = "dataset `layers/conv2d_5/vars/0`: expected shape";
    assert_eq!(got, format!("{array} [1, 1, 128, {}], got [1, 1, 128, 1]", u64::MAX - 1));
}

#[test]
fn a_kernel_of_one_place_needs_no_padding() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive_of(folder.path(), Architecture::CompactPlaces);
    let before = keras::read_model(&path).unwrap();
    change_config(&path, |config| layer(config, "places")["config"]["padding"] = "valid".into());
    assert_eq!(keras::read_model(&path).unwrap().weights, before.weights);
}

#[test]
fn layers_that_judge_no_places_are_told_by_the_closest_network() {
    let unknown = "layers do not form a known network: expected";
    // It begins as a network that judges places, and is compact all the same.
    let got = refused_after(Architecture::Compact, |config| {
        layer(config, "conv6")["config"]["filters"] = 126.into();
    });
    assert_eq!(got, format!("{unknown} Conv2D with 128 filters, got `conv6` (Conv2D with 126 filters)"));
    for (last, expected) in [
        ("places", "AveragePooling2D, got the end of the model"),
        ("places_mean", "GlobalMaxPooling2D, got the end of the model"),
        ("global_max_pooling2d", "Dense with 2 units, got the end of the model"),
    ] {
        let got = refused_after(Architecture::CompactPlaces, |config| {
            let layers = config["layers"].as_array_mut().unwrap();
            let end = layers.iter().position(|layer| layer["name"] == last).unwrap();
            layers.truncate(end + 1);
        });
        assert_eq!(got, format!("{unknown} {expected}"));
    }
    let got = refused_after(Architecture::CompactPlaces, |config| {
        layer(config, "places")["class_name"] = "Flatten".into();
    });
    assert_eq!(got, format!("{unknown} MaxPooling2D, or Conv2D of 1 by 1, got `places` (Flatten)"));
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
