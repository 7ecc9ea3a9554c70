//! A model as a `.keras` archive: what Keras 3 itself saves.
//!
//! A zip of stored files: `config.json` describes the model, `model.weights.h5` has each layer's
//! arrays at `layers/CLASS[_N]/vars/POSITION`, and `metadata.json` names the version.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Write as _},
    path::Path,
};

use hdf5_pure::{AttrValue, FileBuilder, GroupBuilder, LibVer};
use serde_json::{Map, Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{
    ABOUT, KerasErrorKind, ModelFile, Optimizer,
    layers::{Array, KerasLayer, keras_layers},
    writer::encoding,
};
use crate::weights::replace_with;

/// The version whose form is written; every Keras 3 reads it.
const KERAS_VERSION: &str = "3.0.0";
const INPUT_NAME: &str = "input_layer";
const MODEL_NAME: &str = "functional";

/// Writes the model under a temporary name beside `path`, then renames.
pub(super) fn write(path: &Path, model: &ModelFile<'_>, about: &str) -> Result<(), KerasErrorKind> {
    let layers = keras_layers(model)?;
    let metadata = json!({"keras_version": KERAS_VERSION}).to_string();
    let config = config(model, &layers).to_string();
    let weights = weights(&layers).finish().map_err(encoding)?;
    let about_name = format!("{ABOUT}.json");
    let files = [
        ("metadata.json", metadata.as_bytes()),
        ("config.json", config.as_bytes()),
        (about_name.as_str(), about.as_bytes()),
        ("model.weights.h5", &weights),
    ];
    replace_with(path, |temporary| save(temporary, &files))
}

fn save(path: &Path, files: &[(&str, &[u8])]) -> Result<(), KerasErrorKind> {
    let mut archive = ZipWriter::new(BufWriter::new(fs_err::File::create(path)?));
    // Keras reads the weights in place, which needs them stored.
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files {
        archive.start_file(*name, stored).map_err(KerasErrorKind::Archive)?;
        archive.write_all(bytes)?;
    }
    let mut file = archive.finish().map_err(KerasErrorKind::Archive)?;
    file.flush()?;
    Ok(file.get_ref().sync_all()?)
}

/// `model.weights.h5`.
fn weights(layers: &[KerasLayer]) -> FileBuilder {
    let mut builder = FileBuilder::new();
    builder.with_libver_bounds(LibVer::Earliest, LibVer::V18);
    let mut all = builder.create_group("layers");
    let mut names = LayerNames::default();
    for layer in layers {
        let mut group = all.create_group(&names.next(layer.class));
        add_variables(&mut group, &layer.name, &layer.arrays);
        all.add_group(group.finish());
    }
    builder.add_group(all.finish());
    builder
}

fn add_variables(group: &mut GroupBuilder, name: &str, arrays: &[Array]) {
    let mut variables = group.create_group("vars");
    variables.set_attr("name", AttrValue::VarLenString(name.to_owned()));
    for (position, array) in arrays.iter().enumerate() {
        variables.create_dataset(&position.to_string()).with_f32_data(&array.values).with_shape(&array.shape);
    }
    group.add_group(variables.finish());
}

/// Names of the groups of layers: `conv2d`, `conv2d_1`, …, in the order of the layers.
#[derive(Debug, Default)]
pub(super) struct LayerNames(BTreeMap<String, usize>);

impl LayerNames {
    /// The name of the next layer of a class.
    pub fn next(&mut self, class: &str) -> String {
        let name = snake_case(class);
        let count = self.0.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{}", *count - 1) }
    }
}

/// `max_pooling2d` of `MaxPooling2D`, `re_lu` of `ReLU`: `to_snake_case` of Keras.
fn snake_case(class: &str) -> String {
    let characters: Vec<char> = class.chars().collect();
    let mut name = String::new();
    for (position, character) in characters.iter().enumerate() {
        let before = position.checked_sub(1).map(|before| characters[before]);
        let small = |character: Option<&char>| character.is_some_and(char::is_ascii_lowercase);
        let starts = before.is_some_and(|before| before.is_ascii_lowercase())
            || (before.is_some() && small(characters.get(position + 1)));
        if character.is_ascii_uppercase() && starts {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

/// `config.json`.
fn config(model: &ModelFile<'_>, layers: &[KerasLayer]) -> Value {
    let image = model.image_size.map(|extent| extent as u64);
    let mut shapes = BTreeMap::from([(INPUT_NAME, image.to_vec())]);
    let mut entries = vec![object(
        "keras.layers",
        "InputLayer",
        &json!({"batch_shape": batch(&image), "dtype": "float32", "sparse": false, "name": INPUT_NAME}),
    )];
    entries[0]["name"] = INPUT_NAME.into();
    entries[0]["inbound_nodes"] = json!([]);
    let mut previous = INPUT_NAME;
    for layer in layers {
        let sources = layer.sources(previous).into_iter();
        let inputs: Vec<(&str, &[u64])> =
            sources.filter_map(|name| Some((name, shapes.get(name)?.as_slice()))).collect();
        entries.push(entry(layer, &inputs));
        let shape = output_shape(layer, &inputs);
        shapes.insert(&layer.name, shape);
        previous = &layer.name;
    }
    let config = json!({"name": MODEL_NAME, "trainable": true, "layers": entries,
        "input_layers": [[INPUT_NAME, 0, 0]], "output_layers": [[previous, 0, 0]]});
    let mut model_json = object("keras.src.models.functional", "Functional", &config);
    if model.classes.is_some() {
        model_json["compile_config"] = compile_config(model);
    }
    model_json
}

/// A value as Keras 3 writes those that it makes anew.
fn object(module: &str, class: &str, config: &Value) -> Value {
    json!({"module": module, "class_name": class, "config": config, "registered_name": null})
}

/// One of `layers`, with the names and shapes of those whose outputs it takes.
fn entry(layer: &KerasLayer, inputs: &[(&str, &[u64])]) -> Value {
    let dtype = object("keras", "DTypePolicy", &json!({"name": "float32"}));
    let mut config = Map::new();
    config.insert("name".to_owned(), layer.name.clone().into());
    config.insert("trainable".to_owned(), layer.trainable.into());
    config.insert("dtype".to_owned(), dtype);
    for (key, value) in layer.config.as_object().into_iter().flatten() {
        config.insert(key.clone(), modern(key, value));
    }
    let tensor = |(name, shape): &(&str, &[u64])| {
        json!({"class_name": "__keras_tensor__", "config": {"shape": batch(shape), "dtype": "float32",
            "keras_history": [name, 0, 0]}})
    };
    // One input is an argument, several are a list as the only argument.
    let (argument, shape) = match inputs {
        [input] => (tensor(input), batch(input.1)),
        inputs => {
            (inputs.iter().map(tensor).collect(), inputs.iter().map(|(_, shape)| batch(shape)).collect())
        }
    };
    let mut entry = object("keras.layers", layer.class, &config.into());
    entry["build_config"] = json!({"input_shape": shape});
    entry["name"] = layer.name.clone().into();
    entry["inbound_nodes"] = json!([{"args": [argument], "kwargs": {}}]);
    entry
}

/// A value of a Keras 2 configuration as Keras 3 writes it.
fn modern(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("axis", Value::Array(axes)) if axes.len() == 1 => axes[0].clone(),
        (_, Value::Object(initializer)) => object(
            "keras.initializers",
            initializer["class_name"].as_str().unwrap_or_default(),
            &initializer["config"],
        ),
        _ => value.clone(),
    }
}

/// A shape with an open batch before it.
fn batch(shape: &[u64]) -> Value {
    std::iter::once(Value::Null).chain(shape.iter().map(|&extent| extent.into())).collect()
}

/// Shape of a layer's output for inputs of `[height, width, channels]` or `[features]`.
fn output_shape(layer: &KerasLayer, inputs: &[(&str, &[u64])]) -> Vec<u64> {
    let input = inputs.first().map_or(&[][..], |(_, shape)| shape);
    let channels = input.last().copied();
    // Kernels end with their outputs.
    let outputs = layer.arrays.first().and_then(|kernel| kernel.shape.last()).copied();
    match layer.class {
        "Conv2D" => input[..2].iter().copied().chain(outputs).collect(),
        "MaxPooling2D" => input[..2].iter().map(|extent| extent / 2).chain(channels).collect(),
        "AveragePooling2D" => {
            let [side, stride] =
                ["pool_size", "strides"].map(|key| layer.config[key][0].as_u64().unwrap_or(1).max(1));
            let windows = |extent: &u64| extent.saturating_sub(side) / stride + 1;
            input[..2].iter().map(windows).chain(channels).collect()
        }
        "Concatenate" => {
            let channels = inputs.iter().filter_map(|(_, shape)| shape.last()).sum();
            input[..2].iter().copied().chain([channels]).collect()
        }
        "GlobalAveragePooling2D" | "GlobalMaxPooling2D" => channels.into_iter().collect(),
        "Flatten" => vec![input.iter().product()],
        "Dense" => outputs.into_iter().collect(),
        _ => input.to_vec(),
    }
}

fn compile_config(model: &ModelFile<'_>) -> Value {
    let optimizer = match model.optimizer {
        Optimizer::Sgd { momentum } => object(
            "keras.optimizers",
            "SGD",
            &json!({"name": "SGD", "learning_rate": model.learning_rate, "momentum": momentum,
                "nesterov": false}),
        ),
        Optimizer::Adam => object(
            "keras.optimizers",
            "Adam",
            &json!({"name": "adam", "learning_rate": model.learning_rate, "beta_1": 0.9, "beta_2": 0.999,
                "epsilon": 1e-7, "amsgrad": false}),
        ),
    };
    let loss = object(
        "keras.losses",
        "CategoricalCrossentropy",
        &json!({"name": "categorical_crossentropy", "reduction": "sum_over_batch_size",
            "from_logits": false, "label_smoothing": 0.0, "axis": -1}),
    );
    json!({"optimizer": optimizer, "loss": loss, "loss_weights": null, "metrics": ["accuracy"],
        "weighted_metrics": null, "run_eagerly": false, "steps_per_execution": 1, "jit_compile": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_as_keras_names_their_groups() {
        let mut names = LayerNames::default();
        let classes = [
            "InputLayer",
            "Conv2D",
            "BatchNormalization",
            "ReLU",
            "Conv2D",
            "MaxPooling2D",
            "Dense",
            "Conv2D",
        ];
        let expected = [
            "input_layer",
            "conv2d",
            "batch_normalization",
            "re_lu",
            "conv2d_1",
            "max_pooling2d",
            "dense",
            "conv2d_2",
        ];
        assert_eq!(classes.map(|class| names.next(class)), expected);
        assert_eq!(names.next("GlobalAveragePooling2D"), "global_average_pooling2d");
    }
}
