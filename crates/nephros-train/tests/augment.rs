//! Augmentation against Keras 2.12: golden values made by `scripts/golden/augment.py`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the lints spare test functions, not their helpers"
)]

use nephros_train::augment::{AugmentationRanges, Noise, Transform, view_rng};
use rayon::prelude::*;
use serde::Deserialize;

const GOLDEN: &str = include_str!("golden/augment/transforms.json");
const IMAGES: &[u8] = include_bytes!("golden/augment/images.bin");
/// Of 255: a pixel is interpolated in single precision here, in double precision by scipy.
const TOLERANCE: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    height: usize,
    width: usize,
    transforms: Vec<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    theta: f64,
    tx: f64,
    ty: f64,
    shear: f64,
    zx: f64,
    zy: f64,
    flip_horizontal: bool,
    flip_vertical: bool,
}

impl From<&Parameters> for Transform {
    fn from(p: &Parameters) -> Self {
        Self {
            theta: p.theta,
            tx: p.tx,
            ty: p.ty,
            shear: p.shear,
            zx: p.zx,
            zy: p.zy,
            flip_horizontal: p.flip_horizontal,
            flip_vertical: p.flip_vertical,
            ..Self::default()
        }
    }
}

/// The golden parameters, and the images: the input first.
fn golden() -> (Golden, Vec<Vec<f32>>) {
    let golden: Golden = serde_json::from_str(GOLDEN).expect("made by augment.py");
    let values: Vec<f32> = IMAGES.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let images: Vec<Vec<f32>> =
        values.chunks_exact(golden.height * golden.width * 3).map(<[f32]>::to_vec).collect();
    assert_eq!(images.len(), golden.transforms.len() + 1);
    (golden, images)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn each_part_alone_and_all_together_equal_keras() {
    let (golden, images) = golden();
    let mut largest = 0.0_f32;
    for (parameters, expected) in golden.transforms.iter().zip(&images[1..]) {
        let transform = Transform::from(parameters);
        let values = transform.apply(&images[0], golden.height, golden.width, 3);
        assert!(largest_difference(&values, &images[0]) > 1.0, "{transform:?} changes nothing");
        let difference = largest_difference(&values, expected);
        assert!(difference < TOLERANCE, "{transform:?}: {difference}");
        largest = largest.max(difference);
    }
    println!("largest difference from Keras: {largest} of 255");
}

#[test]
fn the_identity_keeps_every_bit() {
    let (golden, images) = golden();
    assert_eq!(Transform::default().apply(&images[0], golden.height, golden.width, 3), images[0]);
    let drawn = AugmentationRanges::default().draw(&mut view_rng(1, "image", 0), golden.height, golden.width);
    assert_eq!(drawn, Transform::default());
}

#[test]
fn brightness_multiplies_and_contrast_stretches_about_the_mean() {
    let apply = |transform: Transform| transform.apply(&[100.0, 200.0], 1, 2, 1);
    let still = Transform::default();
    // 150 and 300, cut to 255.
    assert_eq!(apply(Transform { brightness: 1.5, ..still }), [150.0, 255.0]);
    // Mean 150: 150 - 50/2, 150 + 50/2.
    assert_eq!(apply(Transform { contrast: 0.5, ..still }), [125.0, 175.0]);
    // Brightness first: 50 and 100, mean 75; twice as far from it: 25 and 125.
    assert_eq!(apply(Transform { brightness: 0.5, contrast: 2.0, ..still }), [25.0, 125.0]);
}

#[test]
fn gamma_raises_the_share_of_white() {
    let values = Transform { gamma: 2.0, ..Transform::default() }.apply(&[0.0, 127.5, 255.0], 1, 3, 1);
    assert_eq!(values, [0.0, 63.75, 255.0]); // 255 * 0.5^2
}

#[test]
fn noise_has_its_deviation_and_is_grey() {
    let noise = Noise { deviation: 10.0, seed: 3 };
    let values = Transform { noise, ..Transform::default() }.apply(&vec![100.0; 3 * 10_000], 100, 100, 3);
    let is_grey = |pixel: &[f32]| pixel.iter().all(|value| value.to_bits() == pixel[0].to_bits());
    assert!(values.chunks_exact(3).all(is_grey));
    let grey = || values.iter().step_by(3).map(|value| f64::from(*value) - 100.0);
    let (mean, square) = (grey().sum::<f64>() / 1e4, grey().map(|value| value * value).sum::<f64>() / 1e4);
    // Standard errors over 10,000 pixels: 0.1 of the mean, 1.4 of the variance 100; five of them.
    assert!(mean.abs() < 0.5, "{mean}");
    assert!((square - 100.0).abs() < 7.0, "{square}");
}

#[test]
fn shifts_move_the_axis_in_their_name() {
    // [2, 3, 1], edges continued.
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let right = Transform { tx: 1.0, ..Transform::default() };
    assert_eq!(right.apply(&image, 2, 3, 1), [2.0, 3.0, 3.0, 5.0, 6.0, 6.0]);
    let down = Transform { ty: 1.0, ..Transform::default() };
    assert_eq!(down.apply(&image, 2, 3, 1), [4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
}

fn all() -> AugmentationRanges {
    AugmentationRanges {
        rotation: 40.0,
        width_shift: 0.2,
        height_shift: 0.1,
        shear: 0.2,
        zoom: 0.2,
        horizontal_flip: true,
        vertical_flip: true,
        brightness: 0.3,
        contrast: 0.4,
        gamma: 0.5,
        noise: 0.1,
    }
}

#[test]
fn draws_stay_in_their_ranges_and_fill_them() {
    let draws: Vec<Transform> =
        (0..2000).map(|view| all().draw(&mut view_rng(7, "image", view), 100, 200)).collect();
    let fills = |value: fn(&Transform) -> f64, low: f64, high: f64| {
        let values = || draws.iter().map(value);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        let margin = (high - low) * 0.01;
        assert!(low <= least && least < low + margin, "{least} of {low}");
        assert!(high - margin < most && most <= high, "{most} of {high}");
    };
    fills(|t| t.theta, -40.0, 40.0);
    fills(|t| t.tx, -40.0, 40.0); // 0.2 of 200 columns
    fills(|t| t.ty, -10.0, 10.0); // 0.1 of 100 rows
    fills(|t| t.shear, -0.2, 0.2);
    fills(|t| t.zx, 0.8, 1.2);
    fills(|t| t.zy, 0.8, 1.2);
    fills(|t| t.brightness, 0.7, 1.3);
    fills(|t| t.contrast, 0.6, 1.4);
    fills(|t| t.gamma.ln(), -(1.5_f64.ln()), 1.5_f64.ln());
    fills(|t| t.noise.deviation, 0.0, 25.5); // 0.1 of 255
    // Standard deviation of the count: sqrt(2000)/2 = 22.4; five of them.
    for flipped in [|t: &&Transform| t.flip_horizontal, |t: &&Transform| t.flip_vertical] {
        assert!(draws.iter().filter(flipped).count().abs_diff(1000) < 112);
    }
}

#[test]
fn a_switch_changes_only_its_own_part() {
    let draw = |ranges: AugmentationRanges| ranges.draw(&mut view_rng(3, "image", 5), 224, 224);
    let whole = draw(all());
    let no_rotation = draw(AugmentationRanges { rotation: 0.0, ..all() });
    assert_eq!(no_rotation, Transform { theta: 0.0, ..whole });
    let no_zoom = draw(AugmentationRanges { zoom: 0.0, ..all() });
    assert_eq!(no_zoom, Transform { zx: 1.0, zy: 1.0, ..whole });
    let no_flips = draw(AugmentationRanges { horizontal_flip: false, vertical_flip: false, ..all() });
    assert_eq!(no_flips, Transform { flip_horizontal: false, flip_vertical: false, ..whole });
}

#[test]
fn seed_image_and_view_each_give_other_numbers() {
    let draw = |seed, image, view| all().draw(&mut view_rng(seed, image, view), 224, 224);
    let first = draw(1, "a", 0);
    assert_eq!(first, draw(1, "a", 0));
    assert_ne!(first, draw(2, "a", 0));
    assert_ne!(first, draw(1, "b", 0));
    assert_ne!(first, draw(1, "a", 1));
}

#[test]
fn one_thread_and_two_make_the_same_views() {
    let (golden, images) = golden();
    let views = |threads: usize| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let view = |view: u64| {
            let transform = all().draw(&mut view_rng(9, "image", view), golden.height, golden.width);
            let values = transform.apply(&images[0], golden.height, golden.width, 3);
            values.into_iter().map(f32::to_bits).collect()
        };
        pool.install(|| (0..64).into_par_iter().map(view).collect())
    };
    assert_eq!(views(1), views(2));
}

#[test]
fn augmentation_false_is_the_identity() {
    let yaml = "AUGMENTATION: False\nIMAGE_SIZE: [224, 224, 3]\nBATCH_SIZE: 16\nINCLUDE_TOP: False\n\
                EPOCHS: 1\nCLASSES: 2\nWEIGHTS: none\nLEARNING_RATE: 0.01\n";
    let read = |yaml: &str| serde_saphyr::from_str(yaml).expect("params");
    assert_eq!(AugmentationRanges::from(&read(yaml)), AugmentationRanges::default());
    let on = AugmentationRanges::from(&read(&yaml.replace("False\nIMAGE", "True\nIMAGE")));
    // The reference's generator.
    let expected = AugmentationRanges {
        rotation: 40.0,
        width_shift: 0.2,
        height_shift: 0.2,
        shear: 0.2,
        zoom: 0.2,
        horizontal_flip: true,
        ..AugmentationRanges::default()
    };
    assert_eq!(on, expected);
}

/// Keras 2.12 turns about (11.5, 3.5) there.
#[test]
fn a_wide_image_is_turned_about_its_centre() {
    let (height, width) = (9, 25);
    let mut pixels = vec![0.0; height * width];
    pixels[4 * width + 12] = 255.0;
    for transform in [
        Transform { theta: 30.0, ..Transform::default() },
        Transform { zx: 0.8, zy: 1.2, ..Transform::default() },
        Transform { theta: 90.0, flip_horizontal: true, ..Transform::default() },
    ] {
        let turned = transform.apply(&pixels, height, width, 1);
        assert!((turned[4 * width + 12] - 255.0).abs() < 1e-3, "{transform:?}");
    }
}
