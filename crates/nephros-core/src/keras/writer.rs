//! A model as Keras layers, written by a recipe that Keras 2.12 and Keras 3 both load.

use std::{
    io::{BufWriter, Write as _},
    path::Path,
};

use hdf5_pure::{AttrValue, FileBuilder, LibVer};
use serde_json::{Value, json};

use super::{
    KerasErrorKind, ModelFile, Optimizer, batch_norm_name, config::BATCH_NORM_EPSILON, layout,
    topology::feature_map,
};
use crate::{
    network::FeatureLayer,
    weights::{Weights, temporary_sibling},
};

/// The version whose `model_config` is written. Keras 3 reads it; Keras 2 does not read Keras 3's.
const KERAS_VERSION: &str = "2.12.0";
const INPUT_NAME: &str = "input_1";

/// A Keras layer with its weights in Keras' axis order.
struct KerasLayer {
    class: &'static str,
    name: String,
    /// Without `name`, `trainable` and `dtype`.
    config: Value,
    trainable: bool,
    arrays: Vec<Array>,
}

struct Array {
    name: &'static str,
    shape: Vec<u64>,
    values: Vec<f32>,
}

/// Writes the model under a temporary name beside `path`, then renames.
pub(super) fn write(path: &Path, model: &ModelFile<'_>) -> Result<(), KerasErrorKind> {
    let layers = keras_layers(model)?;
    let builder = build(model, &layers);
    let temporary = temporary_sibling(path);
    let written = save(builder, &temporary).and_then(|()| Ok(fs_err::rename(&temporary, path)?));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs_err::remove_file(&temporary);
    }
    written
}

fn save(builder: FileBuilder, path: &Path) -> Result<(), KerasErrorKind> {
    let mut file = BufWriter::new(fs_err::File::create(path)?);
    builder.finish_to(&mut file).map_err(|error| match error {
        hdf5_pure::Error::Io(error) => KerasErrorKind::Io(error),
        error => KerasErrorKind::Encode(error),
    })?;
    file.flush()?;
    Ok(file.get_ref().sync_all()?)
}

fn build(model: &ModelFile<'_>, layers: &[KerasLayer]) -> FileBuilder {
    let mut builder = FileBuilder::new();
    builder.with_libver_bounds(LibVer::Earliest, LibVer::V18);
    builder.set_attr("backend", AttrValue::VarLenString("tensorflow".to_owned()));
    builder.set_attr("keras_version", AttrValue::VarLenString(KERAS_VERSION.to_owned()));
    builder.set_attr("model_config", AttrValue::VarLenAsciiString(model_config(model, layers).to_string()));
    if model.classes.is_some() {
        let training = training_config(model).to_string();
        builder.set_attr("training_config", AttrValue::VarLenAsciiString(training));
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

fn add_arrays(group: &mut hdf5_pure::GroupBuilder, layer: &KerasLayer) {
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

/// The architecture, then the head.
fn keras_layers(model: &ModelFile<'_>) -> Result<Vec<KerasLayer>, KerasErrorKind> {
    let map = feature_map(model.architecture, model.image_size)?;
    let mut layers = Vec::new();
    for layer in model.architecture.layers() {
        push_feature(&mut layers, model, *layer)?;
    }
    let Some(classes) = model.classes else { return Ok(layers) };
    let mut inputs = map.height * map.width * map.channels;
    // Averaged features are flat already.
    let mut map = (map.height * map.width > 1).then_some(map);
    if !matches!(model.architecture.layers().last(), Some(FeatureLayer::GlobalAveragePool)) {
        layers.push(plain("Flatten", "flatten", json!({"data_format": "channels_last"})));
    }
    if model.hidden_units > 0 {
        let shape = [inputs, model.hidden_units];
        layers.push(dense("dense", "relu", model.weights, "head.hidden", shape, map)?);
        (inputs, map) = (model.hidden_units, None);
    }
    let name = if model.hidden_units > 0 { "dense_1" } else { "dense" };
    layers.push(dense(name, "softmax", model.weights, "head", [inputs, classes], map)?);
    Ok(layers)
}

fn push_feature(
    layers: &mut Vec<KerasLayer>,
    model: &ModelFile<'_>,
    layer: FeatureLayer,
) -> Result<(), KerasErrorKind> {
    match layer {
        FeatureLayer::Conv { key, batch_norm, keras_name, inputs, outputs } => {
            let activation = if batch_norm.is_some() { "linear" } else { "relu" };
            layers.push(conv(keras_name, activation, model.weights, key, [inputs, outputs])?);
            if let Some(key) = batch_norm {
                layers.push(batch_norm_layer(keras_name, model.weights, key, outputs)?);
                let config = json!({"max_value": null, "negative_slope": 0.0, "threshold": 0.0});
                layers.push(plain("ReLU", &keras_name.replace("conv", "relu"), config));
            }
        }
        FeatureLayer::MaxPool { keras_name } => {
            let config = json!({"pool_size": [2, 2], "padding": "valid", "strides": [2, 2],
                "data_format": "channels_last"});
            layers.push(plain("MaxPooling2D", keras_name, config));
        }
        FeatureLayer::GlobalAveragePool => {
            let config = json!({"data_format": "channels_last", "keepdims": false});
            layers.push(plain("GlobalAveragePooling2D", "global_average_pooling2d", config));
        }
    }
    if model.frozen {
        for layer in layers.iter_mut() {
            layer.trainable = false;
        }
    }
    Ok(())
}

fn plain(class: &'static str, name: &str, config: Value) -> KerasLayer {
    KerasLayer { class, name: name.to_owned(), config, trainable: true, arrays: Vec::new() }
}

fn conv(
    name: &str,
    activation: &str,
    weights: &Weights,
    key: &str,
    [inputs, outputs]: [usize; 2],
) -> Result<KerasLayer, KerasErrorKind> {
    let shape = [outputs, inputs, 3, 3];
    let kernel = weights.get(&format!("{key}.weight"), &shape)?;
    let kernel = Array {
        name: "kernel:0",
        shape: vec![3, 3, inputs as u64, outputs as u64],
        values: layout::oihw_to_hwio(&kernel.values, shape),
    };
    let bias = vector("bias:0", weights, &format!("{key}.bias"), outputs)?;
    let config = json!({"filters": outputs, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same",
        "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "activation": activation,
        "use_bias": true, "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": null}},
        "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": null,
        "bias_regularizer": null, "activity_regularizer": null, "kernel_constraint": null,
        "bias_constraint": null});
    Ok(KerasLayer { arrays: vec![kernel, bias], ..plain("Conv2D", name, config) })
}

fn batch_norm_layer(
    conv: &str,
    weights: &Weights,
    key: &str,
    channels: usize,
) -> Result<KerasLayer, KerasErrorKind> {
    let config = json!({"axis": [3], "momentum": 0.9, "epsilon": BATCH_NORM_EPSILON, "center": true,
        "scale": true, "beta_initializer": {"class_name": "Zeros", "config": {}},
        "gamma_initializer": {"class_name": "Ones", "config": {}},
        "moving_mean_initializer": {"class_name": "Zeros", "config": {}},
        "moving_variance_initializer": {"class_name": "Ones", "config": {}}, "beta_regularizer": null,
        "gamma_regularizer": null, "beta_constraint": null, "gamma_constraint": null});
    let names = [
        ("gamma:0", "weight"),
        ("beta:0", "bias"),
        ("moving_mean:0", "running_mean"),
        ("moving_variance:0", "running_var"),
    ];
    let arrays = names.map(|(name, suffix)| vector(name, weights, &format!("{key}.{suffix}"), channels));
    let arrays = arrays.into_iter().collect::<Result<_, _>>()?;
    Ok(KerasLayer { arrays, ..plain("BatchNormalization", &batch_norm_name(conv), config) })
}

fn dense(
    name: &str,
    activation: &str,
    weights: &Weights,
    key: &str,
    [inputs, outputs]: [usize; 2],
    map: Option<layout::Map>,
) -> Result<KerasLayer, KerasErrorKind> {
    let kernel = weights.get(&format!("{key}.weight"), &[outputs, inputs])?;
    let kernel = Array {
        name: "kernel:0",
        shape: vec![inputs as u64, outputs as u64],
        values: layout::dense_to_keras(&kernel.values, inputs, outputs, map),
    };
    let bias = vector("bias:0", weights, &format!("{key}.bias"), outputs)?;
    let config = json!({"units": outputs, "activation": activation, "use_bias": true,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": null}},
        "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": null,
        "bias_regularizer": null, "activity_regularizer": null, "kernel_constraint": null,
        "bias_constraint": null});
    Ok(KerasLayer { arrays: vec![kernel, bias], ..plain("Dense", name, config) })
}

fn vector(name: &'static str, weights: &Weights, key: &str, length: usize) -> Result<Array, KerasErrorKind> {
    let values = weights.get(key, &[length])?.values.clone();
    Ok(Array { name, shape: vec![length as u64], values })
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
        entries.push(json!({"class_name": layer.class, "config": config, "name": layer.name,
            "inbound_nodes": [[[previous, 0, 0, {}]]]}));
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
