//! The networks against plain loops over torchvision's layouts, in f64 and without folding.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::path::Path;

use common::{noise, weights};
use nephros_conv::{Layer, Options, QuantizedNetwork, Shape};
use nephros_core::{
    network::{Architecture, BATCH_NORM_EPSILON, FeatureLayer, Features, NetworkError},
    predictor::Head,
    weights::{ArrayFile, Tensor, Weights, WeightsError},
};

mod common;

/// `[channels, height, width]` values.
#[derive(Clone)]
struct Planes {
    shape: [usize; 3],
    values: Vec<f64>,
}

impl Planes {
    fn at(&self, channel: usize, y: usize, x: usize) -> f64 {
        self.values[(channel * self.shape[1] + y) * self.shape[2] + x]
    }

    fn build(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(shape.iter().product());
        for channel in 0..shape[0] {
            for y in 0..shape[1] {
                values.extend((0..shape[2]).map(|x| value(channel, y, x)));
            }
        }
        Self { shape, values }
    }

    fn from_image(image: &[f32], [height, width, channels]: [usize; 3]) -> Self {
        Self::build([channels, height, width], |c, y, x| f64::from(image[(y * width + x) * channels + c]))
    }
}

fn array(weights: &Weights, key: &str) -> Vec<f64> {
    weights.0[key].values.iter().map(|&value| f64::from(value)).collect()
}

fn convolve(input: &Planes, weight: &[f64], bias: &[f64]) -> Planes {
    let [channels, height, width] = input.shape;
    // A border of zeros spares the inner loops the question.
    let padded = Planes::build([channels, height + 2, width + 2], |c, y, x| {
        let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
        if inside { input.at(c, y - 1, x - 1) } else { 0.0 }
    });
    Planes::build([bias.len(), height, width], |o, y, x| {
        let filters = weight[o * channels * 9..(o + 1) * channels * 9].chunks_exact(9).enumerate();
        let sum = |(c, taps): (usize, &[f64])| -> f64 {
            taps.iter().enumerate().map(|(tap, weight)| weight * padded.at(c, y + tap / 3, x + tap % 3)).sum()
        };
        bias[o] + filters.map(sum).sum::<f64>()
    })
}

fn normalize(input: &Planes, weights: &Weights, key: &str) -> Planes {
    let get = |name: &str| array(weights, &format!("{key}.{name}"));
    let (scale, shift, mean, variance) =
        (get("weight"), get("bias"), get("running_mean"), get("running_var"));
    Planes::build(input.shape, |c, y, x| {
        let deviation = (variance[c] + f64::from(BATCH_NORM_EPSILON)).sqrt();
        (input.at(c, y, x) - mean[c]) / deviation * scale[c] + shift[c]
    })
}

fn apply(input: &Planes, layer: &FeatureLayer, weights: &Weights) -> Planes {
    let [channels, height, width] = input.shape;
    match layer {
        FeatureLayer::Conv { key, batch_norm, .. } => {
            let weight = array(weights, &format!("{key}.weight"));
            let convolved = convolve(input, &weight, &array(weights, &format!("{key}.bias")));
            let normal = match batch_norm {
                Some(key) => normalize(&convolved, weights, key),
                None => convolved,
            };
            Planes::build(normal.shape, |c, y, x| normal.at(c, y, x).max(0.0))
        }
        FeatureLayer::MaxPool { .. } => Planes::build([channels, height / 2, width / 2], |c, y, x| {
            let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let values = corners.map(|(dy, dx)| input.at(c, 2 * y + dy, 2 * x + dx));
            values.into_iter().fold(f64::NEG_INFINITY, f64::max)
        }),
        FeatureLayer::GlobalAveragePool => Planes::build([channels, 1, 1], |c, _, _| {
            let plane = &input.values[c * height * width..(c + 1) * height * width];
            plane.iter().sum::<f64>() / plane.len() as f64
        }),
    }
}

/// Inputs in `(channel, y, x)` order, which is how `Planes` lie in memory.
fn dense(input: &[f64], weights: &Weights, key: &str) -> Vec<f64> {
    let weight = array(weights, &format!("{key}.weight"));
    let rows = weight.chunks_exact(input.len()).zip(array(weights, &format!("{key}.bias")));
    rows.map(|(row, bias)| bias + row.iter().zip(input).map(|(w, x)| w * x).sum::<f64>()).collect()
}

/// The mean of the earlier map over the squares that the last one has a place for, then the last one, the channels
/// of each at each place of unit length.
fn joined(early: &Planes, last: &Planes) -> Planes {
    let ([first, ..], [second, height, width]) = (early.shape, last.shape);
    let mean = |c: usize, y: usize, x: usize| {
        let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
        corners.map(|(dy, dx)| early.at(c, 2 * y + dy, 2 * x + dx)).iter().sum::<f64>() / 4.0
    };
    let own = |c: usize, y: usize, x: usize| last.at(c, y, x);
    let length = |channels: usize, value: &dyn Fn(usize) -> f64| {
        (0..channels).map(|c| value(c).powi(2)).sum::<f64>().max(1e-12).sqrt()
    };
    Planes::build([first + second, height, width], |c, y, x| match c.checked_sub(first) {
        None => mean(c, y, x) / length(first, &|c| mean(c, y, x)),
        Some(c) => own(c, y, x) / length(second, &|c| own(c, y, x)),
    })
}

/// The largest mean over nine places of what each place shows of every class but the first.
fn judged(map: &Planes, weights: &Weights) -> Vec<f64> {
    let [channels, height, width] = map.shape;
    let (weight, bias) = (array(weights, "head.places.weight"), array(weights, "head.places.bias"));
    let evidence = Planes::build([bias.len(), height, width], |kind, y, x| {
        bias[kind] + (0..channels).map(|c| weight[kind * channels + c] * map.at(c, y, x)).sum::<f64>()
    });
    let means = Planes::build([bias.len(), height - 2, width - 2], |kind, y, x| {
        (0..9).map(|place| evidence.at(kind, y + place / 3, x + place % 3)).sum::<f64>() / 9.0
    });
    let windows = means.values.chunks_exact((height - 2) * (width - 2));
    windows.map(|means| means.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect()
}

fn naive_logits(architecture: Architecture, weights: &Weights, image: &[f32], size: [usize; 3]) -> Vec<f64> {
    let start = Planes::from_image(image, size);
    let (below, above) = architecture.layers().split_at(architecture.tap().map_or(0, |tap| tap.layers));
    let early = below.iter().fold(start, |map, layer| apply(&map, layer, weights));
    let last = above.iter().fold(early.clone(), |map, layer| apply(&map, layer, weights));
    let features = if architecture.tap().is_some() { joined(&early, &last) } else { last };
    if architecture.judges_places() {
        return dense(&judged(&features, weights), weights, "head");
    }
    if !weights.0.contains_key("head.hidden.weight") {
        return dense(&features.values, weights, "head");
    }
    let hidden: Vec<f64> =
        dense(&features.values, weights, "head.hidden").into_iter().map(|value| value.max(0.0)).collect();
    dense(&hidden, weights, "head")
}

/// The features of one image.
fn extract(network: &Features, image: &[f32]) -> Vec<f32> {
    let mut output = vec![f32::NAN; network.output().len()];
    network.forward(image, 1, &mut output).unwrap();
    output
}

fn check(architecture: Architecture, size: [usize; 3], labels: usize, hidden_units: usize) {
    let weights = weights(architecture, labels, hidden_units, size);
    let image = noise(size.iter().product(), 99);
    let features = architecture.build_features(&weights, size).unwrap();
    let head = Head::new(architecture, hidden_units, labels, size, &weights).unwrap();
    assert_eq!(features.output(), architecture.feature_shape(size));
    let logits = head.logits(&extract(&features, &image), 1).unwrap();
    let expected = naive_logits(architecture, &weights, &image, size);
    let scale = expected.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    assert_eq!(logits.len(), labels);
    for (got, expected) in logits.iter().zip(&expected) {
        // f32 rounding through at most 15 layers.
        assert!((f64::from(*got) - expected).abs() < 2e-5 * scale, "expected {expected}, got {got}");
    }
    let spread = expected.iter().any(|value| (value - expected[0]).abs() > 1e-2);
    assert!(spread, "the weights must tell the labels apart for the comparison to mean anything");
}

#[test]
fn folded_batch_norm_equals_the_unfolded_network() {
    check(Architecture::Compact, [35, 50, 3], 3, 0);
}

#[test]
fn compact_with_a_hidden_layer() {
    check(Architecture::Compact, [16, 16, 3], 2, 7);
}

#[test]
fn the_place_that_shows_most_answers() {
    // 35 by 50: a map of 4 by 6 places has 8 windows.
    check(Architecture::CompactPlaces, [35, 50, 3], 3, 0);
    check(Architecture::CompactPlaces, [24, 24, 3], 2, 0);
}

#[test]
fn vgg16_of_a_small_image_equals_plain_loops() {
    // 32 by 65 over 2^5: the head sees one row of two columns, so the order of its inputs counts.
    check(Architecture::Vgg16, [32, 65, 3], 2, 0);
}

#[test]
fn a_hypercolumn_holds_the_map_of_the_fourth_block_beside_the_last() {
    // 50 by 65: the fourth block has a row more than twice the last map's.
    check(Architecture::Vgg16Hypercolumn, [50, 65, 3], 2, 3);
}

#[test]
fn a_hypercolumn_is_the_same_in_every_batch() {
    let (size, architecture) = ([32, 64, 3], Architecture::Vgg16Hypercolumn);
    let weights = weights(architecture, 2, 0, size);
    let features = architecture.build_features(&weights, size).unwrap();
    // More than are in memory at a time.
    let images: Vec<Vec<f32>> = (0..10).map(|seed| noise(size.iter().product(), seed)).collect();
    let mut together = vec![f32::NAN; 10 * features.output().len()];
    features.forward(&images.concat(), 10, &mut together).unwrap();
    let alone: Vec<f32> = images.iter().flat_map(|image| extract(&features, image)).collect();
    assert_eq!(together, alone);

    let mut broken = images.concat();
    broken[9 * images[0].len() + 4] = f32::NAN;
    let error = features.forward(&broken, 10, &mut together).unwrap_err();
    assert_eq!(error.to_string(), "image 9 of the batch holds NaN at position 4, expected finite values");
    let error = features.forward(&images[0], 2, &mut together).unwrap_err().to_string();
    assert!(error.contains("output"), "{error}");
}

#[test]
fn a_map_that_overflows_below_the_last_one_is_no_number_in_the_end() {
    let (size, architecture) = ([32, 32, 3], Architecture::Vgg16Hypercolumn);
    let mut weights = weights(architecture, 2, 0, size);
    for value in &mut weights.0.get_mut("features.21.bias").unwrap().values {
        *value = f32::MAX;
    }
    for value in &mut weights.0.get_mut("features.21.weight").unwrap().values {
        *value = f32::MAX;
    }
    let features = architecture.build_features(&weights, size).unwrap();
    assert!(extract(&features, &noise(size.iter().product(), 1)).iter().all(|value| value.is_nan()));
}

/// Writes the weights, so that they can be read one by one.
fn on_disk(weights: &Weights) -> (tempfile::TempDir, ArrayFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    weights.save(&path).unwrap();
    (folder, ArrayFile::open(&path).unwrap())
}

#[test]
fn weights_read_one_by_one_make_the_same_network() {
    let size = [35, 50, 3];
    let weights = weights(Architecture::Compact, 2, 0, size);
    let image = noise(size.iter().product(), 99);
    let whole = Architecture::Compact.build_features(&weights, size).unwrap();
    let (_folder, file) = on_disk(&weights);
    let read = Architecture::Compact.build_features(&file, size).unwrap();
    assert_eq!(extract(&read, &image), extract(&whole, &image));
}

/// The network in 8 bits, by way of the file that a bundle holds, calibrated on the image.
fn quantized(architecture: Architecture, weights: &Weights, size: [usize; 3], image: &[f32]) -> Features {
    let mut calibrator = architecture.calibrator(weights, size).unwrap();
    calibrator.add(image, 1).unwrap();
    let bytes = architecture.quantize(weights, size, (2, 0), &calibrator.finish()).unwrap();
    let file = ArrayFile::from_bytes(bytes, Path::new("w.int8.safetensors")).unwrap();
    architecture.build_quantized_features(&file, size, Options::default()).unwrap()
}

#[test]
fn features_on_8_bit_maps_are_near_the_floats() {
    near_the_floats(Architecture::Compact, 0.05);
}

#[test]
fn places_on_8_bit_maps_are_near_the_floats() {
    near_the_floats(Architecture::CompactPlaces, 0.05);
}

#[test]
fn a_hypercolumn_on_8_bit_maps_is_near_the_floats() {
    near_the_floats(Architecture::Vgg16Hypercolumn, 0.1);
}

fn near_the_floats(architecture: Architecture, share: f32) {
    let size = [64, 48, 3];
    let weights = weights(architecture, 2, 0, size);
    let image = noise(size.iter().product(), 99);
    let expected = extract(&architecture.build_features(&weights, size).unwrap(), &image);
    let got = extract(&quantized(architecture, &weights, size, &image), &image);
    let largest = expected.iter().copied().fold(0.0, f32::max);
    for (got, expected) in got.iter().zip(&expected) {
        // A step is 1/255 of a map's largest value; five maps' errors stay below a twentieth, twelve maps' below a
        // tenth.
        assert!((got - expected).abs() <= share * largest, "expected {expected} of {largest}, got {got}");
    }
}

/// `[out, in, 3, 3]` to `[3, 3, in, out]`.
fn kernel(tensor: &Tensor) -> Vec<f32> {
    let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
    let at = |tap: usize, i: usize, o: usize| tensor.values[(o * inputs + i) * 9 + tap];
    let row = |tap: usize| (0..inputs).flat_map(move |i| (0..outputs).map(move |o| at(tap, i, o)));
    (0..9).flat_map(row).collect()
}

#[test]
fn stored_8_bit_weights_give_the_integers_of_the_floats() {
    let size = [32, 64, 3];
    let weights = weights(Architecture::Vgg16, 2, 0, size);
    let image = noise(size.iter().product(), 99);
    let arrays =
        |key: &str| (kernel(&weights.0[&format!("{key}.weight")]), &weights.0[&format!("{key}.bias")].values);
    let convolutions: Vec<_> = Architecture::Vgg16
        .layers()
        .iter()
        .map(|layer| if let FeatureLayer::Conv { key, .. } = layer { Some(arrays(key)) } else { None })
        .collect();
    let layers: Vec<Layer<'_>> = convolutions
        .iter()
        .map(|arrays| match arrays {
            Some((kernel, bias)) => Layer::Conv3x3 { kernel, bias, relu: true },
            None => Layer::MaxPool2x2,
        })
        .collect();
    let mut calibrator = Architecture::Vgg16.calibrator(&weights, size).unwrap();
    calibrator.add(&image, 1).unwrap();
    let shape = Shape { height: size[0], width: size[1], channels: size[2] };
    let direct = QuantizedNetwork::new(shape, &layers, &calibrator.finish(), Options::default()).unwrap();
    let mut expected = vec![f32::NAN; direct.output().len()];
    direct.forward(&image, 1, &mut expected).unwrap();
    assert!(expected.iter().any(|value| *value > 0.0));
    assert_eq!(extract(&quantized(Architecture::Vgg16, &weights, size, &image), &image), expected);
}

#[test]
fn files_of_8_bit_weights_must_fit_the_network() {
    let size = [16, 16, 3];
    let plain = weights(Architecture::Compact, 2, 0, size);
    let build = |file: &ArrayFile| {
        let built = Architecture::Compact.build_quantized_features(file, size, Options::default());
        built.map(drop).unwrap_err().to_string()
    };
    let (_folder, file) = on_disk(&plain);
    assert_eq!(build(&file), "weights have no `maxima`");
    let mut maxima = plain.clone();
    maxima.0.insert("maxima".to_owned(), Tensor { shape: vec![6], values: vec![1.0; 6] });
    let (folder, file) = on_disk(&maxima);
    let path = folder.path().join("w.safetensors");
    assert_eq!(build(&file), format!("`{}`: expected `features.4.weight` as I8, got F32", path.display()));
    maxima.0.insert("maxima".to_owned(), Tensor { shape: vec![7], values: vec![1.0; 7] });
    let (_folder, file) = on_disk(&maxima);
    assert_eq!(build(&file), "weights `maxima`: expected shape [6], got [7]");
}

#[test]
fn feature_lengths() {
    // 224 / 2^5 = 7; 7 * 7 * 512 = 25088.
    assert_eq!(Architecture::Vgg16.feature_len([224, 224, 3]), 25_088);
    assert_eq!(Architecture::Compact.feature_len([128, 160, 3]), 128);
    assert_eq!(Architecture::Vgg16.feature_len([31, 224, 3]), 0);
    // 128 / 2^3 by 160 / 2^3 places.
    assert_eq!(Architecture::CompactPlaces.feature_len([128, 160, 3]), 16 * 20 * 128);
}

#[test]
fn expected_shapes_follow_the_layers() {
    let shapes = Architecture::Vgg16.expected_shapes(2, 256, [224, 224, 3]);
    let find = |key: &str| shapes.iter().find(|(name, _)| name == key).unwrap().1.clone();
    // 13 convolutions and two dense layers, two arrays each.
    assert_eq!(shapes.len(), 30);
    assert_eq!(find("features.28.weight"), [512, 512, 3, 3]);
    assert_eq!(find("head.hidden.weight"), [256, 25_088]);
    assert_eq!(find("head.weight"), [2, 256]);
    let parameters: usize = shapes[..26].iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    // The published size of the feature extractor.
    assert_eq!(parameters, 14_714_688);
    let compact = Architecture::Compact.expected_shapes(2, 0, [128, 128, 3]);
    // Six convolutions of 2 + 4 arrays, and the head.
    assert_eq!(compact.len(), 6 * 6 + 2);
    assert_eq!(compact.last().unwrap(), &("head.bias".to_owned(), vec![2]));
    let places = Architecture::CompactPlaces.expected_shapes(3, 0, [128, 128, 3]);
    // Five convolutions, and a head whose shapes are those of no image size.
    assert_eq!(places[..5 * 6], compact[..5 * 6]);
    let head = [
        ("head.places.weight", vec![2, 128]),
        ("head.places.bias", vec![2]),
        ("head.weight", vec![3, 2]),
        ("head.bias", vec![3]),
    ];
    assert_eq!(places[5 * 6..], head.map(|(key, shape)| (key.to_owned(), shape)));
}

#[test]
fn the_layers_of_each_network_fit_each_other() {
    for architecture in [Architecture::Vgg16, Architecture::Compact, Architecture::CompactPlaces] {
        let mut channels = 3;
        for layer in architecture.layers() {
            if let FeatureLayer::Conv { inputs, outputs, .. } = layer {
                assert_eq!(*inputs, channels);
                channels = *outputs;
            }
        }
    }
}

#[test]
fn unfit_weights_are_refused_by_key() {
    let size = [16, 16, 3];
    let whole = weights(Architecture::Compact, 2, 0, size);
    let refuse = |change: &dyn Fn(&mut Weights)| {
        let mut weights = whole.clone();
        change(&mut weights);
        Architecture::Compact.build_features(&weights, size).unwrap_err().to_string()
    };
    let missing = refuse(&|weights| drop(weights.0.remove("features.13.running_mean")));
    assert_eq!(missing, "weights have no `features.13.running_mean`");
    let shape = refuse(&|weights| weights.0.get_mut("features.4.weight").unwrap().shape = vec![64, 32, 9]);
    assert_eq!(shape, "weights `features.4.weight`: expected shape [32, 16, 3, 3], got [64, 32, 9]");
    let nan = refuse(&|weights| weights.0.get_mut("features.0.bias").unwrap().values[3] = f32::NAN);
    assert_eq!(nan, "weights `features.0.bias` hold NaN at position 3, expected finite values");
    let negative = refuse(&|weights| weights.0.get_mut("features.1.running_var").unwrap().values[1] = -1.0);
    assert_eq!(negative, "weights `features.1.running_var`: expected variances, got -1 at position 1");
    let length = refuse(&|weights| weights.0.get_mut("features.0.bias").unwrap().values.truncate(15));
    assert_eq!(length, "weights `features.0.bias`: shape [16] does not hold 15 values");
    let head = Architecture::Compact.build_head(&whole, 3, 0, size).unwrap_err();
    let NetworkError::Weights(WeightsError::Shape { key, expected, got }) = head else { panic!("{head}") };
    assert_eq!((key.as_str(), expected, got), ("head.weight", vec![3, 128], vec![2, 128]));
}

#[test]
fn unfit_image_sizes_are_refused() {
    let weights = weights(Architecture::Compact, 2, 0, [16, 16, 3]);
    let refuse_of = |architecture: Architecture, size| {
        architecture.build_features(&weights, size).unwrap_err().to_string()
    };
    let refuse = |size| refuse_of(Architecture::Compact, size);
    // Four poolings halve four times: 2^4 = 16.
    assert_eq!(refuse([15, 20, 3]), "compact needs images of at least 16x16 pixels, got 15x20");
    assert_eq!(refuse([16, 16, 1]), "expected an image size of [height, width, 3], got [16, 16, 1]");
    // Three poolings, and a window of three places: 3 * 2^3 = 24.
    let refused = refuse_of(Architecture::CompactPlaces, [40, 23, 3]);
    assert_eq!(refused, "compact-places needs images of at least 24x24 pixels, got 40x23");
    let head = Head::new(Architecture::CompactPlaces, 0, 2, [16, 16, 3], &weights).unwrap_err();
    assert_eq!(head.to_string(), "compact-places needs images of at least 24x24 pixels, got 16x16");
}
