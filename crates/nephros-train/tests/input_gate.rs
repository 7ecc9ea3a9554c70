//! The input gate on drawn patients: false alarms, and each code by the picture that raises it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::LazyLock;

use nephros_core::{
    input_gate::{CaseUnit, InputGate, Reason, ReasonCode, Traits, refusal},
    pixels::{Resample, RgbImage, resize},
};
use nephros_train::{
    input_gate::{RATE, Seen, Training, Validation, fit},
    phantom::{Cohort, Patient, slice},
    split::Unit,
};

const SIZE: usize = 256;
/// Features in these tests: what they are made of does not matter, so two channels of the same
/// small spread for every picture.
const CHANNELS: usize = 2;

fn grey_image(width: usize, values: &[u8]) -> RgbImage {
    let pixels = values.iter().flat_map(|&value| [value; 3]).collect();
    RgbImage::new(width, values.len() / width, pixels).unwrap()
}

/// One slice of each of some patients.
fn phantoms(seed: u64, patients: usize) -> Vec<RgbImage> {
    let cohort = Cohort { patients, slices: 1, seed, size: SIZE, ..Cohort::default() };
    let draw = |index| {
        let patient = Patient::new(&cohort, index);
        let (center, width) = patient.window();
        grey_image(SIZE, &slice(&patient, 0).windowed(center, width))
    };
    (0..patients).map(draw).collect()
}

fn features(position: usize) -> [f32; CHANNELS] {
    [(position % 5) as f32, (position % 3) as f32]
}

fn seen(images: &[RgbImage]) -> Seen {
    let pooled = (0..images.len()).flat_map(features).collect();
    Seen { traits: images.iter().map(Traits::of).collect(), pooled }
}

static TRAIN: LazyLock<Vec<RgbImage>> = LazyLock::new(|| phantoms(1, 32));
static GATE: LazyLock<InputGate> = LazyLock::new(|| {
    let names: Vec<String> = (0..TRAIN.len()).map(|index| format!("Normal/{index}.png")).collect();
    let training = Training {
        seen: seen(&TRAIN),
        paths: names.iter().map(String::as_str).collect(),
        labels: vec![0; TRAIN.len()],
        cases: (0..TRAIN.len()).collect(),
        case_unit: CaseUnit::Patient,
    };
    let validation = Validation {
        seen: seen(&phantoms(2, 16)),
        cases: (100..116).collect(),
        groups: (0..16).collect(),
        unit: Unit::Patient,
    };
    fit(&training, &validation, CHANNELS, 64)
});

fn reasons(image: &RgbImage) -> Vec<Reason> {
    GATE.reasons(&Traits::of(image), &features(0))
}

fn raises(image: &RgbImage, code: ReasonCode) {
    let got = reasons(image);
    assert!(got.iter().any(|reason| reason.code == code), "expected {code:?}, got {got:?}");
    assert_eq!(refusal(&got).is_some(), code != ReasonCode::NearCopy, "{got:?}");
}

/// A phantom with each grey value changed.
fn changed(change: impl Fn(u8) -> u8) -> RgbImage {
    let image = &phantoms(3, 1)[0];
    RgbImage::new(SIZE, SIZE, image.pixels().iter().map(|&value| change(value)).collect()).unwrap()
}

/// Values between 0 and 255 that look random.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        // Source: the linear congruential generator of Numerical Recipes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn validation_is_refused_at_the_stated_rate_and_new_patients_seldom() {
    let alarms = &GATE.profile.validation;
    assert_eq!((alarms.images, alarms.groups, alarms.unit.as_str()), (16, 16, "patient"));
    // Each limit leaves at most 1 % of 16 images outside, which is none.
    assert!(GATE.profile.rate <= RATE && alarms.refused == 0, "{alarms:?}");
    let refused: Vec<Vec<Reason>> =
        phantoms(4, 40).iter().map(reasons).filter(|reasons| refusal(reasons).is_some()).collect();
    // The range of 48 patients is left by few others; 4/40 is far more than was seen (0.0125).
    assert!(refused.len() <= 4, "{refused:?}");
}

#[test]
fn pictures_that_are_no_slices_are_refused_by_their_code() {
    raises(&grey_image(SIZE, &noise(SIZE * SIZE)), ReasonCode::NotCt);
    raises(&RgbImage::new(SIZE, SIZE, noise(SIZE * SIZE * 3)).unwrap(), ReasonCode::Coloured);
    for value in [0, 128, 255] {
        raises(&grey_image(SIZE, &vec![value; SIZE * SIZE]), ReasonCode::Empty);
    }
    let gradient: Vec<u8> = (0..SIZE * SIZE).map(|position| (position % SIZE) as u8).collect();
    raises(&grey_image(SIZE, &gradient), ReasonCode::NotCt);
    let document: Vec<u8> =
        (0..SIZE * SIZE).map(|place| if place / SIZE % 8 < 2 && place % 7 < 4 { 0 } else { 255 }).collect();
    raises(&grey_image(SIZE, &document), ReasonCode::NotCt);
}

#[test]
fn spoilt_slices_are_refused_by_their_code() {
    let phantom = &phantoms(3, 1)[0];
    assert!(refusal(&reasons(phantom)).is_none(), "{:?}", reasons(phantom));
    raises(&resize(phantom, 16, 16, Resample::Bilinear), ReasonCode::TooSmall);
    let small = resize(phantom, SIZE / 4, SIZE / 4, Resample::Bilinear);
    raises(&resize(&small, SIZE, SIZE, Resample::Bilinear), ReasonCode::Blurred);
    raises(&changed(|value| 255 - value), ReasonCode::NotCt);
    raises(
        &changed(|value| if value < 30 { value } else { value.saturating_add(60) }),
        ReasonCode::WrongWindow,
    );
    let narrow = |value: u8| (4 * (i32::from(value) - 128) + 128).clamp(0, 255) as u8;
    raises(&changed(narrow), ReasonCode::Saturated);
    let turned: Vec<u8> =
        (0..SIZE * SIZE).map(|place| phantom.pixels()[(place % SIZE * SIZE + place / SIZE) * 3]).collect();
    raises(&grey_image(SIZE, &turned), ReasonCode::BodyShape);
    // All bright tissue in the upper left quarter of the picture.
    let lit = (0..SIZE * SIZE).map(|place| {
        let value = phantom.pixels()[place * 3];
        let quarter = place / SIZE < SIZE / 2 && place % SIZE < SIZE / 2;
        if quarter || value < 30 { value } else { value / 2 + 15 }
    });
    raises(&grey_image(SIZE, &lit.collect::<Vec<u8>>()), ReasonCode::Orientation);
}

/// The picture with each pixel taken from elsewhere.
fn moved(image: &RgbImage, from: impl Fn(usize, usize) -> (usize, usize)) -> RgbImage {
    let pixel = |place: usize| {
        let (row, column) = from(place / SIZE, place % SIZE);
        image.pixels()[(row * SIZE + column) * 3]
    };
    grey_image(SIZE, &(0..SIZE * SIZE).map(pixel).collect::<Vec<u8>>())
}

#[test]
fn a_slice_that_lies_otherwise_is_told_and_a_mirrored_one_is_not() {
    let last = SIZE - 1;
    let told = |from: &dyn Fn(usize, usize) -> (usize, usize)| {
        let of_code = |image: &RgbImage| {
            reasons(&moved(image, from)).iter().any(|reason| reason.code == ReasonCode::Orientation)
        };
        phantoms(5, 20).iter().filter(|image| of_code(image)).count()
    };
    assert_eq!(told(&|row, column| (row, column)), 0);
    assert_eq!(told(&|row, column| (last - row, column)), 20, "upside down, mirrored");
    assert_eq!(told(&|row, column| (last - row, last - column)), 20, "upside down, by half a turn");
    assert_eq!(told(&|row, column| (column, row)), 20, "a quarter turn, mirrored");
    assert_eq!(told(&|row, column| (column, last - row)), 20, "a quarter turn");
    // Which side the liver is on is not looked at.
    assert!(told(&|row, column| (row, last - column)) <= 4);
    let down = moved(&phantoms(5, 1)[0], |row, column| (last - row, column));
    let sentence = reasons(&down).into_iter().find(|reason| reason.code == ReasonCode::Orientation);
    let sentence = sentence.unwrap().sentence;
    assert!(sentence.starts_with("upside down the slice would resemble those trained on more"), "{sentence}");
    assert!(sentence.ends_with("expected at most 0.02"), "{sentence}");
}

#[test]
fn features_far_from_training_are_out_of_range() {
    let traits = Traits::of(&phantoms(3, 1)[0]);
    let codes = |features: &[f32]| -> Vec<ReasonCode> {
        GATE.reasons(&traits, features).iter().map(|reason| reason.code).collect()
    };
    assert!(codes(&[40.0, -40.0]).contains(&ReasonCode::OutOfRange));
    assert!(!codes(&[2.0, 1.0]).contains(&ReasonCode::OutOfRange));
    // A map of two places: the mean of each channel counts, here (2, 1).
    assert!(!codes(&[42.0, -40.0, -38.0, 42.0]).contains(&ReasonCode::OutOfRange));
}

#[test]
fn a_copy_of_a_training_image_is_named() {
    let copy = resize(&TRAIN[7], SIZE * 4 / 5, SIZE * 4 / 5, Resample::Nearest);
    let told = reasons(&copy).into_iter().find(|reason| reason.code == ReasonCode::NearCopy).unwrap();
    assert_eq!(told.sentence, "a near copy of `Normal/7.png`, which the model was trained on");
    raises(&TRAIN[7], ReasonCode::NearCopy);
}

#[test]
fn sentences_and_the_form_in_json() {
    let tiny = resize(&phantoms(3, 1)[0], 16, 16, Resample::Bilinear);
    let told = reasons(&tiny).swap_remove(0);
    assert_eq!(
        serde_json::to_string(&told).unwrap(),
        r#"{"code":"too_small","sentence":"the shorter side has 16 pixels, expected at least 32"}"#
    );
}
