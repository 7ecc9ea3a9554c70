//! `model_config`: Keras' JSON description of a model, read into the operations it performs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{KerasErrorKind, archive::LayerNames};
use crate::network::WINDOW;

/// What a layer does to the values, activation split off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// 3×3 convolution, stride 1, zero padding 1.
    Conv { outputs: usize, bias: bool },
    /// 1×1 convolution: a dense layer at each place.
    Places { outputs: usize, bias: bool },
    /// Batch normalization over channels.
    BatchNorm,
    /// `max(x, 0)`.
    Relu,
    /// 2×2 maximum with stride 2.
    MaxPool,
    /// Mean over rows and columns.
    GlobalAveragePool,
    /// Mean over each window of [`WINDOW`] rows and columns.
    WindowMean,
    /// Maximum over rows and columns.
    GlobalMaxPool,
    /// The map after the first `early` steps, averaged over squares of `side` places, then the map before this
    /// step, the channels of each at each place of unit length.
    Hypercolumn { early: usize, side: usize },
    /// `[height, width, channels]` to one axis.
    Flatten,
    /// Fully connected.
    Dense { outputs: usize, bias: bool },
    /// Softmax over the classes.
    Softmax,
}

impl Operation {
    /// Whether a layer of this kind has weights in the file.
    pub fn has_weights(self) -> bool {
        matches!(self, Self::Conv { .. } | Self::Places { .. } | Self::BatchNorm | Self::Dense { .. })
    }
}

/// One operation and the layer it comes from.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub operation: Operation,
    /// Weight group in HDF5: the outermost layer, which differs from `layer` in nested models.
    pub group: String,
    /// Weight group in an archive: `layers/conv2d_1`, or `layers/functional/layers/conv2d_1`.
    pub path: String,
    /// Name of the layer.
    pub layer: String,
    /// Keras class of the layer.
    pub class: String,
}

/// A model as a chain of operations.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Height, width and channels of the input, `None` where the model leaves them open.
    pub input: Option<[Option<u64>; 3]>,
    pub steps: Vec<Step>,
}

/// Epsilon of batch normalization, in torch and in every file that nephros writes.
pub(super) const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Reads `model_config`.
pub(super) fn parse(json: &str) -> Result<Chain, KerasErrorKind> {
    let model: Value = serde_json::from_str(json).map_err(KerasErrorKind::Json)?;
    let mut chain = Chain::default();
    read_model(&model, None, "layers", &mut chain)?;
    Ok(chain)
}

/// Appends the layers of a `Sequential` or `Functional` model.
fn read_model(
    model: &Value,
    group: Option<&str>,
    path: &str,
    chain: &mut Chain,
) -> Result<(), KerasErrorKind> {
    let config = &model["config"];
    // Keras before 2.2 wrote the layers of a Sequential model without a name around them.
    let layers = config["layers"].as_array().or_else(|| config.as_array());
    let Some(layers) = layers else {
        return Err(missing("`layers`", config["name"].as_str().unwrap_or("model")));
    };
    let mut names = LayerNames::default();
    let layers = layers
        .iter()
        .map(|layer| Layer::new(layer, group, |class| format!("{path}/{}", names.next(class))))
        .collect::<Result<Vec<_>, _>>()?;
    let join = layers.iter().find(|layer| layer.class == "Concatenate");
    let join = join.map(|concatenate| Join::new(concatenate, &layers)).transpose()?;
    let mut previous: Option<&str> = None;
    let mut steps_after = BTreeMap::new();
    for layer in &layers {
        match &join {
            Some(join) if join.between.contains(layer.name) => continue,
            Some(join) if join.name == layer.name && previous == Some(join.last) => {
                let early = steps_after.get(join.early).copied();
                let early = early.ok_or_else(|| layer.unsupported("expected maps of layers before it"))?;
                layer.push(chain, Operation::Hypercolumn { early, side: join.side });
            }
            _ => {
                layer.check_chain(previous)?;
                layer.read(chain)?;
            }
        }
        previous = Some(layer.name);
        steps_after.insert(layer.name, chain.steps.len());
    }
    Ok(())
}

/// The one branch that is understood: an earlier map, averaged over squares, beside the last one, both brought
/// to unit length.
struct Join<'a> {
    /// The concatenation.
    name: &'a str,
    /// Where the earlier map comes from.
    early: &'a str,
    /// Where the last one comes from.
    last: &'a str,
    /// Rows and columns of a square.
    side: usize,
    /// What stands between the maps and the concatenation, wherever in the file.
    between: BTreeSet<&'a str>,
}

impl<'a> Join<'a> {
    fn new(concatenate: &Layer<'a>, layers: &[Layer<'a>]) -> Result<Self, KerasErrorKind> {
        let refusal =
            || concatenate.unsupported("expected an earlier map and the last one, each of unit length");
        let named = |name: &str| layers.iter().find(|layer| layer.name == name);
        let source = |name: &str, class: &str| -> Result<(&Layer<'a>, &'a str), KerasErrorKind> {
            let layer = named(name).filter(|layer| layer.class == class).ok_or_else(refusal)?;
            match layer.inputs().as_slice() {
                [input] => Ok((layer, *input)),
                _ => Err(refusal()),
            }
        };
        let inputs = concatenate.inputs();
        let [early_unit, last_unit] = inputs.as_slice() else { return Err(refusal()) };
        concatenate.expect_last_axis()?;
        let (early_layer, average) = source(early_unit, "UnitNormalization")?;
        let (last_layer, last) = source(last_unit, "UnitNormalization")?;
        early_layer.expect_last_axis()?;
        last_layer.expect_last_axis()?;
        let (pool, early) = source(average, "AveragePooling2D")?;
        let side = pool.check_average()?;
        let between = [*early_unit, *last_unit, average].into();
        Ok(Self { name: concatenate.name, early, last, side, between })
    }
}

fn missing(expected: &'static str, parent: &str) -> KerasErrorKind {
    KerasErrorKind::ModelConfig { expected, parent: parent.to_owned() }
}

/// One entry of `layers`.
struct Layer<'a> {
    json: &'a Value,
    config: &'a Value,
    name: &'a str,
    class: &'a str,
    group: &'a str,
    path: String,
}

impl<'a> Layer<'a> {
    fn new(
        json: &'a Value,
        group: Option<&'a str>,
        path: impl FnOnce(&str) -> String,
    ) -> Result<Self, KerasErrorKind> {
        let config = &json["config"];
        let class = json["class_name"].as_str().ok_or_else(|| missing("`class_name`", "layers"))?;
        let name = config["name"]
            .as_str()
            .or_else(|| json["name"].as_str())
            .ok_or_else(|| missing("a layer with a `name`", class))?;
        Ok(Self { json, config, name, class, group: group.unwrap_or(name), path: path(class) })
    }

    fn unsupported(&self, why: impl Into<String>) -> KerasErrorKind {
        KerasErrorKind::UnsupportedLayer {
            layer: self.name.to_owned(),
            class: self.class.to_owned(),
            why: why.into(),
        }
    }

    /// Refuses graphs: each layer takes the one before it, and nothing else.
    fn check_chain(&self, previous: Option<&str>) -> Result<(), KerasErrorKind> {
        if !self.json["inbound_nodes"].is_array() {
            return Ok(());
        }
        let inputs = self.inputs();
        let expected: Vec<&str> = previous.into_iter().collect();
        if inputs == expected {
            return Ok(());
        }
        Err(self.unsupported(format!(
            "expected the input {}, got {}",
            quote(&expected).unwrap_or_else(|| "of the model".to_owned()),
            quote(&inputs).unwrap_or_else(|| "none".to_owned())
        )))
    }

    /// The layers whose outputs this one takes, where the model is a graph.
    fn inputs(&self) -> Vec<&'a str> {
        let mut inputs = Vec::new();
        for node in self.json["inbound_nodes"].as_array().into_iter().flatten() {
            collect_inputs(node, &mut inputs);
        }
        inputs
    }

    fn read(&self, chain: &mut Chain) -> Result<(), KerasErrorKind> {
        self.read_input_shape(chain);
        match self.class {
            // Dropout does nothing at inference.
            "InputLayer" | "Dropout" | "SpatialDropout2D" => {}
            "Functional" | "Model" | "Sequential" => {
                read_model(self.json, Some(self.group), &format!("{}/layers", self.path), chain)?;
            }
            "Conv2D" => {
                let operation = self.convolution()?;
                self.push(chain, operation);
                self.push_activation(chain)?;
            }
            "Dense" => {
                let operation = Operation::Dense { outputs: self.count("units")?, bias: self.bias() };
                self.push(chain, operation);
                self.push_activation(chain)?;
            }
            "BatchNormalization" => {
                self.check_batch_norm()?;
                self.push(chain, Operation::BatchNorm);
            }
            "MaxPooling2D" => {
                self.check_pool()?;
                self.push(chain, Operation::MaxPool);
            }
            "GlobalAveragePooling2D" => {
                self.expect_channels_last()?;
                self.push(chain, Operation::GlobalAveragePool);
            }
            "AveragePooling2D" => {
                self.check_window_mean()?;
                self.push(chain, Operation::WindowMean);
            }
            "GlobalMaxPooling2D" => {
                self.expect_channels_last()?;
                self.expect_or_absent("keepdims", &[false.into()])?;
                self.push(chain, Operation::GlobalMaxPool);
            }
            "Flatten" => {
                self.expect_channels_last()?;
                self.push(chain, Operation::Flatten);
            }
            "ReLU" => {
                self.check_relu()?;
                self.push(chain, Operation::Relu);
            }
            "Softmax" => {
                self.expect("axis", &[(-1).into()])?;
                self.push(chain, Operation::Softmax);
            }
            "Activation" => self.push_activation(chain)?,
            _ => return Err(self.unsupported("nephros does not know this class of layer")),
        }
        Ok(())
    }

    fn push(&self, chain: &mut Chain, operation: Operation) {
        chain.steps.push(Step {
            operation,
            group: self.group.to_owned(),
            path: self.path.clone(),
            layer: self.name.to_owned(),
            class: self.class.to_owned(),
        });
    }

    fn push_activation(&self, chain: &mut Chain) -> Result<(), KerasErrorKind> {
        match self.config["activation"].as_str() {
            Some("linear") => {}
            Some("relu") => self.push(chain, Operation::Relu),
            Some("softmax") => self.push(chain, Operation::Softmax),
            _ => {
                let got = &self.config["activation"];
                return Err(
                    self.unsupported(format!("expected activation relu, softmax or linear, got {got}"))
                );
            }
        }
        Ok(())
    }

    /// `batch_shape` is Keras 3's name, `batch_input_shape` that of Keras 2.
    fn read_input_shape(&self, chain: &mut Chain) {
        if chain.input.is_some() || !chain.steps.is_empty() {
            return;
        }
        let shape = ["batch_shape", "batch_input_shape"].iter().find_map(|key| self.config[*key].as_array());
        if let Some([_, height, width, channels]) = shape.map(Vec::as_slice) {
            chain.input = Some([height.as_u64(), width.as_u64(), channels.as_u64()]);
        }
    }

    fn convolution(&self) -> Result<Operation, KerasErrorKind> {
        let [one, three] = [1, 3].map(|side| Value::from([side, side].as_slice()));
        self.expect_channels_last()?;
        self.expect("kernel_size", &[three, one.clone()])?;
        let of_places = self.config["kernel_size"] == one;
        self.expect("strides", std::slice::from_ref(&one))?;
        // A kernel of one place needs none.
        let padding = if of_places { &["same".into(), "valid".into()][..] } else { &["same".into()] };
        self.expect("padding", padding)?;
        self.expect_or_absent("dilation_rate", &[one])?;
        self.expect_or_absent("groups", &[1.into()])?;
        let (outputs, bias) = (self.count("filters")?, self.bias());
        Ok(if of_places { Operation::Places { outputs, bias } } else { Operation::Conv { outputs, bias } })
    }

    fn check_window_mean(&self) -> Result<(), KerasErrorKind> {
        self.expect_channels_last()?;
        self.expect("pool_size", &[[WINDOW, WINDOW].as_slice().into()])?;
        self.expect("strides", &[[1, 1].as_slice().into()])?;
        self.expect("padding", &["valid".into()])
    }

    fn check_pool(&self) -> Result<(), KerasErrorKind> {
        self.expect_channels_last()?;
        self.expect("pool_size", &[[2, 2].as_slice().into()])?;
        self.expect("strides", &[[2, 2].as_slice().into(), Value::Null])?;
        self.expect("padding", &["valid".into()])
    }

    /// The rows and columns of the squares that are averaged.
    fn check_average(&self) -> Result<usize, KerasErrorKind> {
        self.expect_channels_last()?;
        let size = &self.config["pool_size"];
        self.expect("strides", &[size.clone(), Value::Null])?;
        self.expect("padding", &["valid".into()])?;
        let side = size[0].as_u64().and_then(|side| usize::try_from(side).ok());
        side.filter(|side| *side > 0 && size[0] == size[1])
            .ok_or_else(|| self.unsupported("expected a square pool_size"))
    }

    /// Keras wraps the axis in a list once the layer is built.
    fn expect_last_axis(&self) -> Result<(), KerasErrorKind> {
        self.expect("axis", &[(-1).into(), 3.into(), [3].as_slice().into(), [-1].as_slice().into()])
    }

    fn check_batch_norm(&self) -> Result<(), KerasErrorKind> {
        self.expect("epsilon", &[BATCH_NORM_EPSILON.into()])?;
        self.expect("center", &[true.into()])?;
        self.expect("scale", &[true.into()])?;
        self.expect_last_axis()
    }

    fn check_relu(&self) -> Result<(), KerasErrorKind> {
        self.expect_or_absent("max_value", &[Value::Null])?;
        self.expect_or_absent("negative_slope", &[0.into(), 0.0.into()])?;
        self.expect_or_absent("threshold", &[0.into(), 0.0.into()])
    }

    fn expect_channels_last(&self) -> Result<(), KerasErrorKind> {
        self.expect_or_absent("data_format", &["channels_last".into()])
    }

    fn expect_or_absent(&self, key: &str, allowed: &[Value]) -> Result<(), KerasErrorKind> {
        if self.config.get(key).is_none() { Ok(()) } else { self.expect(key, allowed) }
    }

    fn expect(&self, key: &str, allowed: &[Value]) -> Result<(), KerasErrorKind> {
        let got = &self.config[key];
        if allowed.contains(got) {
            return Ok(());
        }
        Err(self.unsupported(format!("expected {key} {}, got {got}", allowed[0])))
    }

    fn count(&self, key: &'static str) -> Result<usize, KerasErrorKind> {
        let count = self.config[key].as_u64().and_then(|count| usize::try_from(count).ok());
        count.filter(|&count| count > 0).ok_or_else(|| self.unsupported(format!("expected {key} above 0")))
    }

    fn bias(&self) -> bool {
        self.config["use_bias"].as_bool().unwrap_or(true)
    }
}

fn quote(names: &[&str]) -> Option<String> {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    (!quoted.is_empty()).then(|| quoted.join(", "))
}

/// Names of the layers that an inbound node takes.
///
/// Keras 2 writes a node as `[["name", 0, 0, {}]]`, Keras 3 hides `["name", 0, 0]` in a
/// `keras_history`: in both an array that begins with a text and a number.
fn collect_inputs<'a>(node: &'a Value, inputs: &mut Vec<&'a str>) {
    match node {
        Value::Array(items) => match items.as_slice() {
            [Value::String(name), Value::Number(_), ..] => inputs.push(name),
            _ => items.iter().for_each(|item| collect_inputs(item, inputs)),
        },
        Value::Object(fields) => fields.values().for_each(|field| collect_inputs(field, inputs)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conv(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut layer = json!({"class_name": "Conv2D", "config": {
            "name": name, "filters": 8, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same",
            "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1,
            "activation": "relu", "use_bias": true}});
        change(&mut layer);
        layer
    }

    fn sequential(layers: &[Value]) -> String {
        json!({"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}).to_string()
    }

    fn operations(json: &str) -> Vec<Operation> {
        parse(json).unwrap().steps.iter().map(|step| step.operation).collect()
    }

    #[test]
    fn activations_become_operations_of_their_own() {
        let dropout = json!({"class_name": "Dropout", "config": {"name": "dropout", "rate": 0.5}});
        let dense = json!({"class_name": "Dense", "config": {
            "name": "dense", "units": 2, "activation": "softmax", "use_bias": false}});
        let json = sequential(&[conv("a", |_| ()), dropout, dense]);
        let expected = [
            Operation::Conv { outputs: 8, bias: true },
            Operation::Relu,
            Operation::Dense { outputs: 2, bias: false },
            Operation::Softmax,
        ];
        assert_eq!(operations(&json), expected);
    }

    #[test]
    fn nested_models_keep_the_group_of_the_outer_layer() {
        let inner =
            json!({"class_name": "Functional", "config": {"name": "vgg16", "layers": [conv("a", |_| ())]}});
        let chain = parse(&sequential(&[inner])).unwrap();
        assert_eq!((chain.steps[0].group.as_str(), chain.steps[0].layer.as_str()), ("vgg16", "a"));
        assert_eq!(chain.steps[0].path, "layers/functional/layers/conv2d");
    }

    #[test]
    fn the_first_layer_may_carry_the_input_shape() {
        let first = conv("a", |layer| layer["config"]["batch_input_shape"] = json!([null, 32, null, 3]));
        let chain = parse(&sequential(&[first])).unwrap();
        assert_eq!(chain.input, Some([Some(32), None, Some(3)]));
    }

    #[test]
    fn a_layer_that_cannot_be_run_is_named() {
        let cases = [
            (
                conv("a", |layer| layer["config"]["strides"] = json!([2, 2])),
                "layer `a` (Conv2D) is not supported: expected strides [1,1], got [2,2]",
            ),
            (
                conv("a", |layer| layer["config"]["data_format"] = json!("channels_first")),
                "layer `a` (Conv2D) is not supported: expected data_format \"channels_last\", got \"channels_first\"",
            ),
            (
                conv("a", |layer| layer["config"]["activation"] = json!("gelu")),
                "layer `a` (Conv2D) is not supported: expected activation relu, softmax or linear, got \"gelu\"",
            ),
            (
                conv("a", |layer| layer["class_name"] = json!("SeparableConv2D")),
                "layer `a` (SeparableConv2D) is not supported: nephros does not know this class of layer",
            ),
            (
                conv("a", |layer| layer["config"]["filters"] = json!(-1)),
                "layer `a` (Conv2D) is not supported: expected filters above 0",
            ),
        ];
        for (layer, expected) in cases {
            assert_eq!(parse(&sequential(&[layer])).unwrap_err().to_string(), expected);
        }
    }

    type Change = fn(&mut Vec<Value>);

    /// `b` beside `a`, from which it is made, each of unit length.
    fn joined(change: impl FnOnce(&mut Vec<Value>)) -> String {
        let node = |inputs: &[&str]| -> Value {
            json!([inputs.iter().map(|input| json!([input, 0, 0, {}])).collect::<Vec<_>>()])
        };
        let layer = |class: &str, name: &str, inputs: &[&str], mut config: Value| {
            config["name"] = name.into();
            json!({"class_name": class, "config": config, "name": name, "inbound_nodes": node(inputs)})
        };
        let square = json!({"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"});
        let mut layers = vec![
            layer("InputLayer", "input", &[], json!({})),
            layer("MaxPooling2D", "a", &["input"], square.clone()),
            layer("MaxPooling2D", "b", &["a"], square.clone()),
            // Keras orders layers by how far they are from the output.
            layer("UnitNormalization", "second", &["b"], json!({"axis": [3]})),
            layer("AveragePooling2D", "average", &["a"], square),
            layer("UnitNormalization", "first", &["average"], json!({"axis": -1})),
            layer("Concatenate", "both", &["first", "second"], json!({"axis": -1})),
            layer("Flatten", "flatten", &["both"], json!({})),
        ];
        change(&mut layers);
        json!({"class_name": "Functional", "config": {"name": "model", "layers": layers}}).to_string()
    }

    #[test]
    fn an_earlier_map_beside_the_last_is_understood() {
        let expected = [
            Operation::MaxPool,
            Operation::MaxPool,
            Operation::Hypercolumn { early: 1, side: 2 },
            Operation::Flatten,
        ];
        assert_eq!(operations(&joined(|_| ())), expected);
    }

    #[test]
    fn other_joined_maps_are_refused() {
        let cases: [(Change, &str); 6] = [
            (
                |layers| layers[6]["inbound_nodes"][0][0][0] = "a".into(),
                "layer `both` (Concatenate) is not supported: expected an earlier map and the last one, each of \
                 unit length",
            ),
            (
                |layers| layers[6]["config"]["axis"] = 1.into(),
                "layer `both` (Concatenate) is not supported: expected axis -1, got 1",
            ),
            (
                |layers| layers[4]["config"]["pool_size"] = json!([2, 1]),
                "layer `average` (AveragePooling2D) is not supported: expected strides [2,1], got [2,2]",
            ),
            (
                |layers| layers[5]["config"]["axis"] = json!([1, 2]),
                "layer `first` (UnitNormalization) is not supported: expected axis -1, got [1,2]",
            ),
            (
                |layers| layers[3]["inbound_nodes"][0][0][0] = "a".into(),
                "layer `both` (Concatenate) is not supported: expected the input `b`, got `first`, `second`",
            ),
            (
                |layers| layers[4]["inbound_nodes"][0][0][0] = "flatten".into(),
                "layer `both` (Concatenate) is not supported: expected maps of layers before it",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(parse(&joined(change)).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn branches_are_refused_in_both_notations() {
        let keras2 = json!([[["a", 0, 0, {}], ["b", 0, 0, {}]]]);
        let keras3 = json!([{"args": [{"class_name": "__keras_tensor__",
            "config": {"shape": [null, 4], "keras_history": ["b", 0, 0]}}], "kwargs": {}}]);
        for (nodes, got) in [(keras2, "`a`, `b`"), (keras3, "`b`")] {
            let second = conv("c", |layer| layer["inbound_nodes"] = nodes);
            let error = parse(&sequential(&[conv("a", |_| ()), second])).unwrap_err();
            let expected = format!("layer `c` (Conv2D) is not supported: expected the input `a`, got {got}");
            assert_eq!(error.to_string(), expected);
        }
    }
}
