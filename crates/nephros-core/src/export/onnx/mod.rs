//! A model as an ONNX graph.
//!
//! Initializers are the model's arrays as they are, under their checkpoint keys: ONNX orders axes as
//! torchvision does. `head.places.weight` has two more, of one row and column. Images come with their
//! channels last and are transposed once. Batch norms stay nodes of their own; runtimes fold them into
//! the convolutions when they load the graph.

mod proto;

use prost::Message as _;
use serde_json::Value;

use super::{About, Model};
use crate::{
    network::{BATCH_NORM_EPSILON, EVIDENCE, FeatureLayer, LEAST_SQUARE, Tap, WINDOW},
    weights::WeightsError,
};
use proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};

/// Version of the file format.
pub const IR_VERSION: i64 = 8;
/// Version of the operators.
pub const OPSET: i64 = 13;
/// Name of the graph's input.
pub const INPUT: &str = "images";
/// Name of the graph's output.
pub const OUTPUT: &str = "probabilities";
/// Name of the length that a shorter one is taken for.
const LEAST_LENGTH: &str = "least_length";
/// Name of the open axis of both.
const BATCH: &str = "batch";

/// The bytes of an ONNX file, the same for the same model.
///
/// # Shapes
/// `images`, f32 `[batch, height, width, 3]` after the preprocessing, to `probabilities`, f32
/// `[batch, labels]`. The batch is open.
///
/// # Errors
/// An array is missing, misshapen or not finite.
pub(super) fn encode(model: &Model) -> Result<Vec<u8>, WeightsError> {
    let about = &model.about;
    let opset = OperatorSetIdProto { domain: String::new(), version: OPSET };
    let file = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "nephros".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: format!("For {}. Input: {}. Output: {}.", about.intended_use, about.input, about.output),
        graph: Some(graph(model)?),
        opset_import: vec![opset],
        metadata_props: metadata(about),
    };
    Ok(file.encode_to_vec())
}

/// The fields of [`About`], texts as they are and everything else as JSON.
fn metadata(about: &About) -> Vec<StringStringEntryProto> {
    let text = |value| match value {
        Value::String(text) => text,
        value => value.to_string(),
    };
    let fields = about.fields().into_iter();
    fields.map(|(key, value)| StringStringEntryProto { key, value: text(value) }).collect()
}

fn graph(model: &Model) -> Result<GraphProto, WeightsError> {
    let About { preprocessing, labels, input, output, .. } = &model.about;
    let mut graph = Builder { model, value: INPUT.to_owned(), node: Vec::new(), initializer: Vec::new() };
    // [batch, height, width, 3] to [batch, 3, height, width]
    graph.push("Transpose", "channels_first", &[], vec![ints("perm", &[0, 3, 1, 2])]);
    for layer in model.about.architecture.layers() {
        graph.push_feature(*layer)?;
    }
    if let Some(tap) = model.about.architecture.tap() {
        graph.push_hypercolumn(model.about.architecture.layers(), tap);
    }
    let features = model.about.architecture.feature_shape(preprocessing.image_size);
    if model.about.architecture.judges_places() {
        graph.push_place_head(features.channels, labels.len())?;
    } else {
        graph.push_head(features.len(), labels.len())?;
    }
    graph.push("Softmax", OUTPUT, &[], vec![int("axis", -1)]);
    let Builder { node, initializer, .. } = graph;
    Ok(GraphProto {
        node,
        name: model.about.model_id.clone(),
        initializer,
        input: vec![value_info(INPUT, &preprocessing.image_size, input)],
        output: vec![value_info(OUTPUT, &[labels.len()], output)],
    })
}

/// A chain of nodes that grows at its end.
struct Builder<'a> {
    model: &'a Model,
    /// Name of the last node's output.
    value: String,
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
}

impl Builder<'_> {
    /// Adds a node that takes the last value and `arrays`; its output has its name.
    fn push(&mut self, op_type: &str, name: &str, arrays: &[String], attribute: Vec<AttributeProto>) {
        let last = std::mem::replace(&mut self.value, name.to_owned());
        let input = std::iter::once(last).chain(arrays.iter().cloned()).collect();
        let (name, op_type) = (name.to_owned(), op_type.to_owned());
        self.node.push(NodeProto { input, output: vec![name.clone()], name, op_type, attribute });
    }

    fn push_feature(&mut self, layer: FeatureLayer) -> Result<(), WeightsError> {
        match layer {
            FeatureLayer::Conv { key, batch_norm, keras_name, inputs, outputs } => {
                let kernel = self.array(key, "weight", &[outputs, inputs, 3, 3])?;
                let arrays = [kernel, self.array(key, "bias", &[outputs])?];
                let same = vec![
                    ints("kernel_shape", &[3, 3]),
                    ints("pads", &[1, 1, 1, 1]),
                    ints("strides", &[1, 1]),
                ];
                self.push("Conv", keras_name, &arrays, same);
                if let Some(key) = batch_norm {
                    let name = keras_name.replace("conv", "bn");
                    let arrays = ["weight", "bias", "running_mean", "running_var"];
                    let arrays = arrays.map(|array| self.array(key, array, &[outputs]));
                    let arrays = arrays.into_iter().collect::<Result<Vec<_>, _>>()?;
                    let epsilon = vec![float("epsilon", BATCH_NORM_EPSILON)];
                    self.push("BatchNormalization", &name, &arrays, epsilon);
                }
                self.push("Relu", &format!("{keras_name}.relu"), &[], Vec::new());
            }
            FeatureLayer::MaxPool { keras_name } => {
                let halves = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
                self.push("MaxPool", keras_name, &[], halves);
            }
            FeatureLayer::GlobalAveragePool => {
                self.push("GlobalAveragePool", "global_average_pool", &[], Vec::new());
            }
        }
        Ok(())
    }

    /// The map of the tap, averaged to the places of the last one, beside it, each of unit length.
    fn push_hypercolumn(&mut self, layers: &[FeatureLayer], tap: Tap) {
        let Some(FeatureLayer::MaxPool { keras_name }) = layers[..tap.layers].last() else { return };
        let last = std::mem::replace(&mut self.value, (*keras_name).to_owned());
        let side = tap.side as i64;
        let squares = vec![ints("kernel_shape", &[side, side]), ints("strides", &[side, side])];
        self.initializer.push(TensorProto {
            dims: vec![1],
            data_type: DataType::Float.into(),
            name: LEAST_LENGTH.to_owned(),
            raw_data: LEAST_SQUARE.sqrt().to_le_bytes().to_vec(),
        });
        self.push("AveragePool", &keras_name.replace("pool", "average"), &[], squares);
        let early = self.push_unit_length(&keras_name.replace("pool", "unit"));
        self.value.clone_from(&last);
        let last = self.push_unit_length(&last.replace("pool", "unit"));
        self.value = early;
        self.push("Concat", "hypercolumn", &[last], vec![int("axis", 1)]);
    }

    /// The last value with the channels of each place brought to unit length; its name.
    fn push_unit_length(&mut self, name: &str) -> String {
        let value = self.value.clone();
        let length = vec![ints("axes", &[1]), int("keepdims", 1)];
        self.push("ReduceL2", &format!("{name}.length"), &[], length);
        self.push("Max", &format!("{name}.divisor"), &[LEAST_LENGTH.to_owned()], Vec::new());
        let divisor = std::mem::replace(&mut self.value, value);
        self.push("Div", name, &[divisor], Vec::new());
        name.to_owned()
    }

    /// To logits `[batch, labels]`.
    fn push_head(&mut self, mut inputs: usize, labels: usize) -> Result<(), WeightsError> {
        // [batch, channels, y, x] to [batch, features], in the order of the head's weights
        self.push("Flatten", "flatten", &[], vec![int("axis", 1)]);
        let hidden_units = self.model.hidden_units;
        if hidden_units > 0 {
            self.push_dense("head.hidden", [inputs, hidden_units])?;
            self.push("Relu", "head.hidden.relu", &[], Vec::new());
            inputs = hidden_units;
        }
        self.push_dense("head", [inputs, labels])
    }

    /// The evidence at each place, its mean over windows, that of the best window, to logits `[batch, labels]`.
    fn push_place_head(&mut self, channels: usize, labels: usize) -> Result<(), WeightsError> {
        let kinds = labels.saturating_sub(1);
        // A matrix is a kernel of one row and column.
        let kernel = self.array_as(EVIDENCE, "weight", &[kinds, channels], &[kinds, channels, 1, 1])?;
        let arrays = [kernel, self.array(EVIDENCE, "bias", &[kinds])?];
        self.push("Conv", EVIDENCE, &arrays, vec![ints("kernel_shape", &[1, 1]), ints("strides", &[1, 1])]);
        let side = WINDOW as i64;
        let windows = vec![ints("kernel_shape", &[side, side]), ints("strides", &[1, 1])];
        self.push("AveragePool", &format!("{EVIDENCE}.mean"), &[], windows);
        self.push("GlobalMaxPool", &format!("{EVIDENCE}.largest"), &[], Vec::new());
        // [batch, kinds, 1, 1] to [batch, kinds]
        self.push("Flatten", "flatten", &[], vec![int("axis", 1)]);
        self.push_dense("head", [kinds, labels])
    }

    fn push_dense(&mut self, key: &str, [inputs, outputs]: [usize; 2]) -> Result<(), WeightsError> {
        let arrays = [self.array(key, "weight", &[outputs, inputs])?, self.array(key, "bias", &[outputs])?];
        self.push("Gemm", key, &arrays, vec![int("transB", 1)]);
        Ok(())
    }

    /// Adds an array as it is and gives its name.
    fn array(&mut self, key: &str, array: &str, shape: &[usize]) -> Result<String, WeightsError> {
        self.array_as(key, array, shape, shape)
    }

    /// As [`Self::array`], with the same values in axes of other extents.
    fn array_as(
        &mut self,
        key: &str,
        array: &str,
        shape: &[usize],
        extents: &[usize],
    ) -> Result<String, WeightsError> {
        let name = format!("{key}.{array}");
        let tensor = self.model.weights.get(&name, shape)?;
        self.initializer.push(TensorProto {
            dims: extents.iter().map(|&extent| extent as i64).collect(),
            data_type: DataType::Float.into(),
            name: name.clone(),
            raw_data: tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        Ok(name)
    }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: r#type.into(), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

/// An f32 array with an open batch before `shape`.
fn value_info(name: &str, shape: &[usize], doc: &str) -> ValueInfoProto {
    let batch = DimensionProto { dim_param: Some(BATCH.to_owned()), dim_value: None };
    let extents =
        shape.iter().map(|&extent| DimensionProto { dim_value: Some(extent as i64), dim_param: None });
    let dim = std::iter::once(batch).chain(extents).collect();
    let tensor = TensorTypeProto { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { tensor_type: Some(tensor) }),
        doc_string: doc.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field is its number and kind (`number << 3 | kind`), then its value.
    #[test]
    fn values_of_zero_are_written() {
        // name (1, text), i (3, number), type (20, number: 160 needs two bytes).
        assert_eq!(int("a", 0).encode_to_vec(), [0x0a, 1, b'a', 0x18, 0, 0xa0, 0x01, 2]);
    }
}
