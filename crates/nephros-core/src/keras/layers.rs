//! A model as a chain of Keras layers, whatever file they are written to.

use serde_json::{Value, json};

use super::{
    KerasErrorKind, ModelFile, batch_norm_name, config::BATCH_NORM_EPSILON, layout, topology::feature_map,
};
use crate::{
    network::{EVIDENCE, FeatureLayer, Tap, WINDOW},
    weights::Weights,
};

/// A Keras layer with its weights in Keras' axis order.
pub(super) struct KerasLayer {
    pub class: &'static str,
    pub name: String,
    /// Names of the layers whose outputs it takes; none for that of the layer before.
    pub inputs: Vec<String>,
    /// Without `name`, `trainable` and `dtype`.
    pub config: Value,
    pub trainable: bool,
    pub arrays: Vec<Array>,
}

impl KerasLayer {
    /// Names of the layers whose outputs it takes, after one that is called `previous`.
    pub fn sources<'a>(&'a self, previous: &'a str) -> Vec<&'a str> {
        match self.inputs.as_slice() {
            [] => vec![previous],
            names => names.iter().map(String::as_str).collect(),
        }
    }
}

/// An array of a layer, named as Keras 2 does: `kernel:0`.
pub(super) struct Array {
    pub name: &'static str,
    pub shape: Vec<u64>,
    pub values: Vec<f32>,
}

/// The architecture, then the head.
pub(super) fn keras_layers(model: &ModelFile<'_>) -> Result<Vec<KerasLayer>, KerasErrorKind> {
    let map = feature_map(model.architecture, model.image_size)?;
    let mut layers = Vec::new();
    for layer in model.architecture.layers() {
        push_feature(&mut layers, model, *layer)?;
    }
    if let Some(tap) = model.architecture.tap() {
        push_hypercolumn(&mut layers, model.architecture.layers(), tap);
    }
    if model.frozen {
        for layer in &mut layers {
            layer.trainable = false;
        }
    }
    if let Some(classes) = model.classes {
        let push = if model.architecture.judges_places() { push_place_head } else { push_head };
        push(&mut layers, model, map, classes)?;
    }
    Ok(layers)
}

fn push_head(
    layers: &mut Vec<KerasLayer>,
    model: &ModelFile<'_>,
    map: layout::Map,
    classes: usize,
) -> Result<(), KerasErrorKind> {
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
    Ok(())
}

/// Weighs the evidence at each place, averages it over windows and takes that of the best one.
fn push_place_head(
    layers: &mut Vec<KerasLayer>,
    model: &ModelFile<'_>,
    map: layout::Map,
    classes: usize,
) -> Result<(), KerasErrorKind> {
    let kinds = classes.saturating_sub(1);
    layers.push(places(model.weights, [map.channels, kinds])?);
    let config = json!({"pool_size": [WINDOW, WINDOW], "padding": "valid", "strides": [1, 1],
        "data_format": "channels_last"});
    layers.push(plain("AveragePooling2D", "places_mean", config));
    let config = json!({"data_format": "channels_last", "keepdims": false});
    layers.push(plain("GlobalMaxPooling2D", "global_max_pooling2d", config));
    layers.push(dense("dense", "softmax", model.weights, "head", [kinds, classes], None)?);
    Ok(())
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
    Ok(())
}

/// The map of the tap, averaged to the places of the last one, beside it, each of unit length.
fn push_hypercolumn(layers: &mut Vec<KerasLayer>, features: &[FeatureLayer], tap: Tap) {
    let pool = |layer: Option<&FeatureLayer>| match layer {
        Some(FeatureLayer::MaxPool { keras_name }) => (*keras_name).to_owned(),
        _ => String::new(),
    };
    let (early, last) = (pool(features[..tap.layers].last()), pool(features.last()));
    let config = json!({"pool_size": [tap.side, tap.side], "padding": "valid", "strides": [tap.side, tap.side],
        "data_format": "channels_last"});
    let names =
        [early.replace("pool", "average"), early.replace("pool", "unit"), last.replace("pool", "unit")];
    let [average, early_unit, last_unit] = names;
    let unit = |name: &str, input: String| KerasLayer {
        inputs: vec![input],
        ..plain("UnitNormalization", name, json!({"axis": -1}))
    };
    layers.push(KerasLayer { inputs: vec![early], ..plain("AveragePooling2D", &average, config) });
    layers.push(unit(&early_unit, average));
    layers.push(unit(&last_unit, last));
    let inputs = vec![early_unit, last_unit];
    layers.push(KerasLayer { inputs, ..plain("Concatenate", "hypercolumn", json!({"axis": -1})) });
}

fn plain(class: &'static str, name: &str, config: Value) -> KerasLayer {
    let (name, inputs, arrays) = (name.to_owned(), Vec::new(), Vec::new());
    KerasLayer { class, name, inputs, config, trainable: true, arrays }
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
    Ok(KerasLayer {
        arrays: vec![kernel, bias],
        ..plain("Conv2D", name, conv_config(outputs, 3, activation))
    })
}

/// A matrix is a kernel of one row and column.
fn places(weights: &Weights, [inputs, kinds]: [usize; 2]) -> Result<KerasLayer, KerasErrorKind> {
    let kernel = weights.get(&format!("{EVIDENCE}.weight"), &[kinds, inputs])?;
    let kernel = Array {
        name: "kernel:0",
        shape: vec![1, 1, inputs as u64, kinds as u64],
        values: layout::dense_to_keras(&kernel.values, inputs, kinds, None),
    };
    let bias = vector("bias:0", weights, &format!("{EVIDENCE}.bias"), kinds)?;
    Ok(KerasLayer {
        arrays: vec![kernel, bias],
        ..plain("Conv2D", "places", conv_config(kinds, 1, "linear"))
    })
}

fn conv_config(outputs: usize, side: usize, activation: &str) -> Value {
    json!({"filters": outputs, "kernel_size": [side, side], "strides": [1, 1], "padding": "same",
        "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "activation": activation,
        "use_bias": true, "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": null}},
        "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": null,
        "bias_regularizer": null, "activity_regularizer": null, "kernel_constraint": null,
        "bias_constraint": null})
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
