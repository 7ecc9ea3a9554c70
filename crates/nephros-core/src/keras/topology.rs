//! Which of the architectures a chain of Keras layers is.

use super::{
    KerasErrorKind,
    config::{Chain, Operation, Step},
    layout::Map,
};
use crate::network::{Architecture, FeatureLayer};

/// Largest height or width that is believed.
const MAX_SIDE: usize = 8192;

/// A recognised model: its steps beside the architecture's layers.
#[derive(Debug)]
pub(super) struct Topology<'a> {
    pub architecture: Architecture,
    /// Convolutions and batch norms, in the architecture's order.
    pub features: Vec<Feature<'a>>,
    /// What follows the features; `None` in a base model.
    pub head: Option<Head<'a>>,
}

/// A layer with weights inside the feature extractor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Feature<'a> {
    /// A convolution and its checkpoint key.
    Conv { step: &'a Step, key: &'static str, inputs: usize, outputs: usize, bias: bool },
    /// A batch norm and its checkpoint key.
    BatchNorm { step: &'a Step, key: &'static str, channels: usize },
}

/// A layer of a head, with its outputs and whether it has a bias.
pub(super) type HeadLayer<'a> = (&'a Step, usize, bool);

/// What follows the features.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// The layer that weighs the evidence at each place, in a network that judges places.
    pub places: Option<HeadLayer<'a>>,
    /// The dense layers, first to last.
    pub dense: Vec<HeadLayer<'a>>,
}

/// What the architecture has at one place.
#[derive(Debug, Clone, Copy)]
struct Expected {
    operation: Operation,
    layer: FeatureLayer,
}

/// Finds the architecture whose layers the chain begins with.
pub(super) fn recognise(chain: &Chain) -> Result<Topology<'_>, KerasErrorKind> {
    // What begins as another does comes before it.
    let candidates = [
        Architecture::Vgg16Hypercolumn,
        Architecture::Vgg16,
        Architecture::Compact,
        Architecture::CompactPlaces,
    ];
    let mut closest = (0, KerasErrorKind::NoHead);
    for architecture in candidates {
        match split_features(architecture, &chain.steps) {
            Ok((features, rest)) => {
                return Ok(Topology { architecture, features, head: read_head(architecture, rest)? });
            }
            // The longest common beginning gives the most telling message.
            Err((matched, error)) if matched >= closest.0 => closest = (matched, error),
            Err(_) => {}
        }
    }
    Err(closest.1)
}

type Split<'a> = (Vec<Feature<'a>>, &'a [Step]);

/// Fails with the number of steps that fit.
fn split_features(architecture: Architecture, steps: &[Step]) -> Result<Split<'_>, (usize, KerasErrorKind)> {
    let expected = expected(architecture);
    let mut features = Vec::new();
    for (place, expected) in expected.iter().enumerate() {
        match steps.get(place) {
            Some(step) if fits(step.operation, expected.operation) => {
                features.extend(feature(step, expected.layer));
            }
            step => return Err((place, unknown(&describe(expected.operation), step))),
        }
    }
    let rest = &steps[expected.len()..];
    match rest.first() {
        // What goes on otherwise is a network with more layers, of which these are the first.
        Some(step) if architecture.judges_places() && !matches!(step.operation, Operation::Places { .. }) => {
            Err((expected.len(), unknown("MaxPooling2D, or Conv2D of 1 by 1", Some(step))))
        }
        _ => Ok((features, rest)),
    }
}

/// The layers of an architecture, and what joins an earlier map to the last one.
fn expected(architecture: Architecture) -> Vec<Expected> {
    let layers = architecture.layers();
    let mut all = expand(layers);
    if let (Some(tap), Some(&layer)) = (architecture.tap(), layers.last()) {
        let early = expand(&layers[..tap.layers]).len();
        let operation = Operation::Hypercolumn { early, side: tap.side };
        all.push(Expected { operation, layer });
    }
    all
}

fn expand(layers: &[FeatureLayer]) -> Vec<Expected> {
    let mut expected = Vec::new();
    for &layer in layers {
        let mut push = |operation| expected.push(Expected { operation, layer });
        match layer {
            FeatureLayer::Conv { batch_norm, outputs, .. } => {
                push(Operation::Conv { outputs, bias: true });
                if batch_norm.is_some() {
                    push(Operation::BatchNorm);
                }
                push(Operation::Relu);
            }
            FeatureLayer::MaxPool { .. } => push(Operation::MaxPool),
            FeatureLayer::GlobalAveragePool => push(Operation::GlobalAveragePool),
        }
    }
    expected
}

/// Whether both do the same, with or without a bias.
fn fits(got: Operation, expected: Operation) -> bool {
    match (got, expected) {
        (Operation::Conv { outputs: got, .. }, Operation::Conv { outputs, .. }) => got == outputs,
        _ => got == expected,
    }
}

/// The weights that a step has.
fn feature(step: &Step, layer: FeatureLayer) -> Option<Feature<'_>> {
    let FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } = layer else { return None };
    match step.operation {
        Operation::Conv { bias, .. } => Some(Feature::Conv { step, key, inputs, outputs, bias }),
        Operation::BatchNorm => batch_norm.map(|key| Feature::BatchNorm { step, key, channels: outputs }),
        _ => None,
    }
}

/// Flatten (unless the features end in one vector), hidden dense layers, dense softmax; or what judges places.
fn read_head(architecture: Architecture, steps: &[Step]) -> Result<Option<Head<'_>>, KerasErrorKind> {
    if architecture.judges_places() {
        return read_place_head(steps);
    }
    let flat = matches!(architecture.layers().last(), Some(FeatureLayer::GlobalAveragePool));
    let mut steps = steps.iter().peekable();
    let flattened = steps.next_if(|step| step.operation == Operation::Flatten).is_some();
    if steps.peek().is_none() {
        return Ok(None);
    }
    if !flat && !flattened {
        return Err(unknown("Flatten", steps.next()));
    }
    let mut dense = Vec::new();
    loop {
        let step = steps.next();
        let Some((step, Operation::Dense { outputs, bias })) = step.map(|step| (step, step.operation)) else {
            return Err(unknown("Dense", step));
        };
        dense.push((step, outputs, bias));
        match steps.next() {
            Some(step) if step.operation == Operation::Relu => {}
            Some(step) if step.operation == Operation::Softmax => break,
            other => return Err(unknown("the activation relu or softmax", other)),
        }
    }
    match steps.next() {
        None => Ok(Some(Head { places: None, dense })),
        other => Err(unknown("the end of the model", other)),
    }
}

/// 1×1 convolution, mean over windows, maximum over the map, dense softmax with an output more than the convolution.
fn read_place_head(steps: &[Step]) -> Result<Option<Head<'_>>, KerasErrorKind> {
    let mut steps = steps.iter();
    let Some(first) = steps.next() else { return Ok(None) };
    let Operation::Places { outputs: kinds, bias } = first.operation else {
        return Err(unknown("Conv2D of 1 by 1", Some(first)));
    };
    let mut expect = |operation: Operation| match steps.next() {
        Some(step) if step.operation == operation => Ok(()),
        other => Err(unknown(&describe(operation), other)),
    };
    expect(Operation::WindowMean)?;
    expect(Operation::GlobalMaxPool)?;
    let dense = match steps.next().map(|step| (step, step.operation)) {
        Some((step, Operation::Dense { outputs, bias })) if outputs.checked_sub(1) == Some(kinds) => {
            (step, outputs, bias)
        }
        // The first class has no evidence of its own.
        other => {
            let expected = format!("Dense with {} units", kinds.saturating_add(1));
            return Err(unknown(&expected, other.map(|(step, _)| step)));
        }
    };
    match (steps.next(), steps.next()) {
        (Some(step), None) if step.operation == Operation::Softmax => {
            Ok(Some(Head { places: Some((first, kinds, bias)), dense: vec![dense] }))
        }
        (Some(step), other) if step.operation == Operation::Softmax => {
            Err(unknown("the end of the model", other))
        }
        (other, _) => Err(unknown("the activation softmax", other)),
    }
}

/// The network has room for one hidden layer.
pub(super) fn too_many_hidden_layers(head: &Head<'_>) -> KerasErrorKind {
    unknown("at most one hidden Dense", head.dense.get(1).map(|(step, ..)| *step))
}

fn unknown(expected: &str, got: Option<&Step>) -> KerasErrorKind {
    let got = got.map_or_else(
        || "the end of the model".to_owned(),
        |step| match step.operation {
            // A layer's own name says most; its activation needs telling apart.
            Operation::Relu | Operation::Softmax => {
                format!("{} of `{}` ({})", describe(step.operation), step.layer, step.class)
            }
            Operation::Conv { .. } | Operation::Places { .. } | Operation::Dense { .. } => {
                format!("`{}` ({})", step.layer, describe(step.operation))
            }
            _ => format!("`{}` ({})", step.layer, step.class),
        },
    );
    KerasErrorKind::UnknownNetwork { expected: expected.to_owned(), got }
}

fn describe(operation: Operation) -> String {
    match operation {
        Operation::Conv { outputs, .. } => return format!("Conv2D with {outputs} filters"),
        Operation::Places { outputs, .. } => return format!("Conv2D of 1 by 1 with {outputs} filters"),
        Operation::Dense { outputs, .. } => return format!("Dense with {outputs} units"),
        Operation::Hypercolumn { .. } => "Concatenate of two maps of unit length",
        Operation::BatchNorm => "BatchNormalization",
        Operation::Relu => "relu",
        Operation::MaxPool => "MaxPooling2D",
        Operation::GlobalAveragePool => "GlobalAveragePooling2D",
        Operation::WindowMean => "AveragePooling2D",
        Operation::GlobalMaxPool => "GlobalMaxPooling2D",
        Operation::Flatten => "Flatten",
        Operation::Softmax => "softmax",
    }
    .to_owned()
}

/// The input size of a model, which a base model may leave open.
pub(super) fn image_size(input: Option<[Option<u64>; 3]>) -> Result<[usize; 3], KerasErrorKind> {
    let Some([Some(height), Some(width), Some(channels)]) = input else {
        return Err(KerasErrorKind::ModelConfig {
            expected: "a fixed `batch_shape` or `batch_input_shape`",
            parent: "the input layer".to_owned(),
        });
    };
    // A side beyond usize is beyond MAX_SIDE too.
    Ok([height, width, channels].map(|side| usize::try_from(side).unwrap_or(usize::MAX)))
}

/// Shape of the feature map that an image becomes.
///
/// # Errors
/// The image is too small for the network, too large to be believed, or not of three channels.
pub(super) fn feature_map(architecture: Architecture, image_size: [usize; 3]) -> Result<Map, KerasErrorKind> {
    let [height, width, channels] = image_size;
    if channels != 3 || height.max(width) > MAX_SIDE || height.min(width) < architecture.least_side() {
        return Err(KerasErrorKind::ImageSize(image_size));
    }
    let shape = architecture.feature_shape(image_size);
    Ok(Map { height: shape.height, width: shape.width, channels: shape.channels })
}
