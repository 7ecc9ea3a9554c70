//! A model as Keras layers, written by a recipe that Keras 2.12 and Keras 3 both load.

use std::{
    io::{BufWriter, Write as _},
    path::Path,
};

use hdf5_pure::{AttrValue, FileBuilder, GroupBuilder, LibVer};
use serde_json::{Value, json};

use super::{
    ABOUT, KerasErrorKind, ModelFile, Optimizer,
    layers::{KerasLayer, keras_layers},
};
use crate::weights::replace_with;

/// The version whose `model_config` is written. Keras 3 reads it; Keras 2 does not read Keras 3's.
const KERAS_VERSION: &str = "2.12.0";
const INPUT_NAME: &str = "input_1";

/// Writes the model under a temporary name beside `path`, then renames.
pub(super) fn write(path: &Path, model: &ModelFile<'_>, about: Option<&str>) -> Result<(), KerasErrorKind> {
    let layers = keras_layers(model)?;
    let builder = build(model, &layers, about);
    replace_with(path, |temporary| save(builder, temporary))
}

fn save(builder: FileBuilder, path: &Path) -> Result<(), KerasErrorKind> {
    let mut file = BufWriter::new(fs_err::File::create(path)?);
    builder.finish_to(&mut file).map_err(encoding)?;
    file.flush()?;
    Ok(file.get_ref().sync_all()?)
}

pub(super) fn encoding(error: hdf5_pure::Error) -> KerasErrorKind {
    match error {
        hdf5_pure::Error::Io(error) => KerasErrorKind::Io(error),
        error => KerasErrorKind::Encode(error),
    }
}

fn build(model: &ModelFile<'_>, layers: &[KerasLayer], about: Option<&str>) -> FileBuilder {
    let mut builder = FileBuilder::new();
    builder.with_libver_bounds(LibVer::Earliest, LibVer::V18);
    builder.set_attr("backend", AttrValue::VarLenString("tensorflow".to_owned()));
    builder.set_attr("keras_version", AttrValue::VarLenString(KERAS_VERSION.to_owned()));
    builder.set_attr("model_config", AttrValue::VarLenAsciiString(model_config(model, layers).to_string()));
    if model.classes.is_some() {
        let training = training_config(model).to_string();
        builder.set_attr("training_config", AttrValue::VarLenAsciiString(training));
    }
    if let Some(about) = about {
        builder.set_attr(ABOUT, AttrValue::VarLenString(about.to_owned()));
    }
    let mut weights = builder.create_group("model_weights");
    weights.set_attr("backend", AttrValue::VarLenAsciiString("tensorflow".to_owned()));
    weights.set_attr("keras_version", AttrValue::VarLenAsciiString(KERAS_VERSION.to_owned()));
    let names = std::iter::once(INPUT_NAME).chain(layers.iter().map(|layer| layer.name.as_str()));
    let names: Vec<String> = names.map(str::to_owned).collect();
    for name in [INPUT_NAME, "top_level_model_weights"] {
        let mut group = weights.create_group(name);
        group.set_attr("weight_names", AttrValue::F64Array(Vec::new()));
        weights.add_group(group.finish());
    }
    weights.set_attr("layer_names", AttrValue::VarLenAsciiStringArray(names));
    for layer in layers {
        let mut group = weights.create_group(&layer.name);
        add_arrays(&mut group, layer);
        weights.add_group(group.finish());
    }
    builder.add_group(weights.finish());
    builder
}

fn add_arrays(group: &mut GroupBuilder, layer: &KerasLayer) {
    if layer.arrays.is_empty() {
        // What Keras writes, because numpy has no type for an empty list.
        group.set_attr("weight_names", AttrValue::F64Array(Vec::new()));
        return;
    }
    let names = layer.arrays.iter().map(|array| format!("{}/{}", layer.name, array.name)).collect();
    group.set_attr("weight_names", AttrValue::VarLenAsciiStringArray(names));
    let mut inner = group.create_group(&layer.name);
    for array in &layer.arrays {
        inner.create_dataset(array.name).with_f32_data(&array.values).with_shape(&array.shape);
    }
    group.add_group(inner.finish());
}

fn model_config(model: &ModelFile<'_>, layers: &[KerasLayer]) -> Value {
    let [height, width, channels] = model.image_size;
    let mut previous = INPUT_NAME;
    let mut entries = vec![json!({
        "class_name": "InputLayer",
        "config": {"batch_input_shape": [null, height, width, channels], "dtype": "float32",
            "sparse": false, "ragged": false, "name": INPUT_NAME},
        "name": INPUT_NAME,
        "inbound_nodes": [],
    })];
    for layer in layers {
        let mut config = json!({"name": layer.name, "trainable": layer.trainable, "dtype": "float32"});
        if let (Some(config), Some(own)) = (config.as_object_mut(), layer.config.as_object()) {
            config.extend(own.clone());
        }
        let nodes: Vec<Value> =
            layer.sources(previous).into_iter().map(|input| json!([input, 0, 0, {}])).collect();
        entries.push(json!({"class_name": layer.class, "config": config, "name": layer.name,
            "inbound_nodes": [nodes]}));
        previous = &layer.name;
    }
    let name = if model.classes.is_some() { "model" } else { model.architecture.name() };
    json!({"class_name": "Functional", "config": {"name": name, "trainable": true, "layers": entries,
        "input_layers": [[INPUT_NAME, 0, 0]], "output_layers": [[previous, 0, 0]]}})
}

fn training_config(model: &ModelFile<'_>) -> Value {
    let optimizer = match model.optimizer {
        Optimizer::Sgd { momentum } => json!({"class_name": "SGD", "config": {"name": "SGD",
            "learning_rate": model.learning_rate, "momentum": momentum, "nesterov": false}}),
        Optimizer::Adam => json!({"class_name": "Adam", "config": {"name": "Adam",
            "learning_rate": model.learning_rate, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7,
            "amsgrad": false}}),
    };
    json!({"loss": {"class_name": "CategoricalCrossentropy", "config": {
            "reduction": "sum_over_batch_size", "name": "categorical_crossentropy",
            "from_logits": false, "label_smoothing": 0.0, "axis": -1}},
        "metrics": ["accuracy"], "weighted_metrics": null, "loss_weights": null,
        "optimizer_config": optimizer})
}
