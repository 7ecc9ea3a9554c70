//! What holds besides the arithmetic: bit for bit the same result however the work is cut, typed
//! errors, and what is printed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod reference;

use std::ops::Range;

use nephros_conv::{ConvError, Isa, Layer, Network, NetworkBuilder, Options, Shape};

use crate::reference::{Owned, all_options, conv, dense, forward, noise};

fn network(shape: Shape, layers: &[Owned]) -> Network {
    reference::network(shape, layers, Options::default())
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn neither_threads_nor_the_batch_change_a_bit() {
    let shape = Shape { height: 37, width: 41, channels: 3 };
    let layers =
        [conv(3, 48, true, 1), conv(48, 64, true, 3), Owned::Pool, conv(64, 80, true, 5), Owned::Average];
    for options in all_options() {
        let network = reference::network(shape, &layers, options);
        let input = noise(7 * shape.len(), 4);
        let one = on_threads(1, || forward(&network, &input, 7));
        assert_eq!(one, on_threads(2, || forward(&network, &input, 7)), "{options:?}");
        assert_eq!(one, on_threads(5, || forward(&network, &input, 7)), "{options:?}");
        let alone = input.chunks(shape.len()).flat_map(|image| forward(&network, image, 1));
        assert_eq!(one, alone.collect::<Vec<_>>(), "{options:?}");
    }
}

/// 130 * 128 * 64 values are more than a map that a group of images goes through together, and
/// many enough tiles that a thread takes some all the way.
#[test]
fn large_maps_go_image_by_image_and_change_no_bit() {
    let shape = Shape { height: 130, width: 128, channels: 3 };
    let layers = [conv(3, 64, true, 1), conv(64, 64, true, 3), Owned::Pool, conv(64, 96, true, 5)];
    let network = network(shape, &layers);
    let input = noise(3 * shape.len(), 4);
    let one = on_threads(1, || forward(&network, &input, 3));
    assert_eq!(one, on_threads(3, || forward(&network, &input, 3)));
    let alone = input.chunks(shape.len()).flat_map(|image| forward(&network, image, 1));
    assert_eq!(one, alone.collect::<Vec<_>>());
}

#[test]
fn a_value_that_overflows_does_not_become_a_plausible_one() {
    let shape = Shape { height: 8, width: 8, channels: 16 };
    let kernel = vec![1.0; 9 * 16 * 4];
    let layers = [Owned::Conv(kernel, vec![0.0; 4], true)];
    for options in all_options() {
        let output = forward(&reference::network(shape, &layers, options), &[f32::MAX; 8 * 8 * 16], 1);
        assert!(output.iter().all(|value| !value.is_finite()), "{options:?}: {output:?}");
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    let missing = Isa::ALL.into_iter().find(|isa| !isa.is_available()).unwrap();
    let error = Network::with_isa(Shape { height: 1, width: 1, channels: 1 }, &[], missing).unwrap_err();
    assert_eq!(error, ConvError::Isa { isa: missing });
    let expected = format!("expected a processor with {missing}, got one without it");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn layers_pushed_one_by_one_make_the_same_network() {
    let shape = Shape { height: 9, width: 8, channels: 3 };
    let layers = [conv(3, 4, true, 1), Owned::Pool, Owned::Pool, dense(16, 2, false, 3)];
    let mut builder = NetworkBuilder::new(shape, Options::default()).unwrap();
    for layer in &layers {
        builder.push(&layer.borrow()).unwrap();
    }
    let (pushed, whole) = (builder.finish(), network(shape, &layers));
    let input = noise(shape.len(), 1);
    assert_eq!(forward(&pushed, &input, 1), forward(&whole, &input, 1));
}

#[test]
fn filters_read_in_any_order_make_the_same_network() {
    let shape = Shape { height: 9, width: 8, channels: 12 };
    let Owned::Conv(kernel, bias, _) = conv(12, 70, true, 1) else { return };
    let at = |o: usize, position: usize| kernel[(position % 9 * 12 + position / 9) * 70 + o];
    let read = |outputs: Range<usize>| -> Result<Vec<f32>, ConvError> {
        Ok(outputs.flat_map(|o| (0..12 * 9).map(move |position| at(o, position))).collect())
    };
    let input = noise(shape.len(), 1);
    for options in all_options() {
        let mut builder = NetworkBuilder::new(shape, options).unwrap();
        builder.push_filters(&bias, true, read).unwrap();
        let whole = Layer::Conv3x3 { kernel: &kernel, bias: &bias, relu: true };
        let whole = Network::with_options(shape, &[whole], options).unwrap();
        assert_eq!(forward(&builder.finish(), &input, 1), forward(&whole, &input, 1), "{options:?}");
    }
}

#[test]
fn filters_that_do_not_fit_are_named() {
    let shape = Shape { height: 4, width: 4, channels: 2 };
    let mut builder = NetworkBuilder::new(shape, Options::default()).unwrap();
    let error = builder.push_filters(&[0.0], true, |_| Ok::<_, ConvError>(vec![0.0; 17])).unwrap_err();
    assert_eq!(error.to_string(), "layer 0: expected 18 values in the kernel, got 17");
    let error = builder.push_filters(&[], true, |_| Ok::<_, ConvError>(Vec::new())).unwrap_err();
    assert_eq!(error.to_string(), "layer 0: it has no outputs (its input is 4x4x2)");
    let gone = ConvError::Calibration { expected: 1, got: 2 };
    let error = builder.push_filters(&[0.0], true, |_| Err(gone.clone())).unwrap_err();
    assert_eq!(error, gone);
    assert_eq!(builder.output(), shape, "a layer that failed is not there");
}

#[test]
fn buffers_of_an_earlier_call_leave_no_trace() {
    let shape = Shape { height: 9, width: 7, channels: 3 };
    let network =
        network(shape, &[conv(3, 16, true, 1), Owned::Pool, conv(16, 4, true, 3), conv(4, 20, false, 5)]);
    let (first, second) = (noise(shape.len(), 1), noise(shape.len(), 2));
    let expected = forward(&network, &first, 1);
    forward(&network, &second, 1);
    assert_eq!(forward(&network, &first, 1), expected);
}

#[test]
fn no_layers_is_the_identity() {
    let shape = Shape { height: 2, width: 3, channels: 2 };
    let input = noise(24, 1);
    assert_eq!(forward(&network(shape, &[]), &input, 2), input);
}

#[test]
fn non_finite_input_is_refused_by_place() {
    let shape = Shape { height: 2, width: 2, channels: 1 };
    let network = network(shape, &[Owned::Average]);
    let mut output = [7.0; 2];
    let input = [0.0, 1.0, 2.0, 3.0, 4.0, f32::INFINITY, 6.0, f32::NAN];
    let error = network.forward(&input, 2, &mut output).unwrap_err();
    // Value 5 of the batch is value 1 of image 1.
    assert_eq!(error, ConvError::NotFinite { image: 1, position: 1, value: f32::INFINITY });
    assert_eq!(output.map(f32::to_bits), [7.0_f32; 2].map(f32::to_bits));
}

#[test]
fn lengths_must_fit_the_batch() {
    let shape = Shape { height: 2, width: 2, channels: 1 };
    let network = network(shape, &[Owned::Average]);
    let short = network.forward(&[0.0; 7], 2, &mut [0.0; 2]).unwrap_err();
    assert_eq!(short.to_string(), "expected 8 values in the input (2 images), got 7");
    let long = network.forward(&[0.0; 8], 2, &mut [0.0; 3]).unwrap_err();
    assert_eq!(long.to_string(), "expected 2 values in the output (2 images), got 3");
}

#[test]
fn layers_that_do_not_fit_are_named() {
    let shape = Shape { height: 1, width: 4, channels: 2 };
    let error = |shape, layers: &[Layer<'_>]| Network::new(shape, layers).unwrap_err().to_string();
    let conv = Layer::Conv3x3 { kernel: &[0.0; 18], bias: &[0.0], relu: true };
    assert_eq!(
        error(shape, &[conv, Layer::MaxPool2x2]),
        "layer 1: 2x2 pooling needs two rows and two columns (its input is 1x4x1)"
    );
    // 9 * 2 inputs give 18 values for each of 2 outputs.
    let short = Layer::Conv3x3 { kernel: &[0.0; 35], bias: &[0.0; 2], relu: true };
    assert_eq!(error(shape, &[short]), "layer 0: expected 36 values in the kernel, got 35");
    let dense = Layer::Dense { kernel: &[0.0; 16], bias: &[0.0; 3], relu: false };
    assert_eq!(error(shape, &[dense]), "layer 0: expected 2 values in the bias, got 3");
    let none = Layer::Dense { kernel: &[], bias: &[], relu: false };
    assert_eq!(error(shape, &[none]), "layer 0: it has no outputs (its input is 1x4x2)");
    let flat = Shape { height: 0, ..shape };
    assert_eq!(error(flat, &[]), "layer 0: an axis would be zero (its input is 0x4x2)");
    let huge = Shape { height: usize::MAX, ..shape };
    assert!(error(huge, &[]).starts_with("layer 0: the map would be too large"));
}

#[test]
fn debug_prints_the_chain_of_shapes() {
    let shape = Shape { height: 9, width: 8, channels: 3 };
    let layers =
        [conv(3, 4, true, 1), Owned::Pool, conv(4, 6, false, 2), Owned::Average, dense(6, 2, false, 3)];
    assert_eq!(
        format!("{:?}", network(shape, &layers)),
        "Network(9x8x3 -> conv3x3+relu+max_pool 4x4x4 -> conv3x3 4x4x6 -> global_average 1x1x6 -> dense 1x1x2)"
    );
}
