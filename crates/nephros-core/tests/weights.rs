//! Weight files: round trip and hostile bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::{collections::BTreeMap, path::Path};

use nephros_core::weights::{Tensor, Weights, WeightsError};
use proptest::prelude::*;

fn sample() -> Weights {
    let tensor = |shape: &[usize], values: &[f32]| Tensor { shape: shape.to_vec(), values: values.to_vec() };
    Weights(BTreeMap::from([
        ("head.weight".to_owned(), tensor(&[2, 3], &[1.0, -2.5, f32::MIN_POSITIVE, 0.0, -0.0, 3e38])),
        ("head.bias".to_owned(), tensor(&[2], &[0.5, 0.25])),
        ("empty".to_owned(), tensor(&[0, 4], &[])),
        ("scalar".to_owned(), tensor(&[], &[7.0])),
    ]))
}

fn refuse(bytes: &[u8]) -> String {
    Weights::from_bytes(bytes, Path::new("w.safetensors")).unwrap_err().to_string()
}

/// A file with this header and `len` bytes of data.
fn file(header: &str, len: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + len, 0);
    bytes
}

#[test]
fn saved_weights_load_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    sample().save(&path).unwrap();
    sample().save(&path).unwrap();
    assert_eq!(Weights::load(&path).unwrap(), sample());
    let names: Vec<_> =
        fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["weights.safetensors"], "no temporary file may stay");
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    assert_eq!(sample().to_bytes().unwrap(), sample().to_bytes().unwrap());
}

#[test]
fn a_failed_save_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let error = sample().save(&folder.path().join("missing/weights.safetensors")).unwrap_err();
    assert!(matches!(error, WeightsError::Io(_)), "{error}");
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    let mut short = sample();
    short.0.get_mut("head.bias").unwrap().values.pop();
    let error = short.save(&folder.path().join("weights.safetensors")).unwrap_err().to_string();
    assert_eq!(error, "weights `head.bias`: shape [2] does not hold 1 values");
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample().to_bytes().unwrap();
    for len in 0..bytes.len() {
        assert!(refuse(&bytes[..len]).starts_with("`w.safetensors` is not a safetensors file: "), "{len}");
    }
}

#[test]
fn lying_headers_are_refused_before_anything_is_allocated() {
    let lies = [
        // 2^62 values of 4 bytes overflow; 2^40 values are not there; the offsets run backwards.
        file(r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        file(r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8),
        file("not json", 0),
        // The header claims to be as long as the address space.
        u64::MAX.to_le_bytes().to_vec(),
    ];
    for lie in lies {
        assert!(refuse(&lie).starts_with("`w.safetensors` is not a safetensors file: "));
    }
}

#[test]
fn other_element_types_are_refused_by_key() {
    let halves = file(r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, 4);
    assert_eq!(refuse(&halves), "`w.safetensors`: expected `a` as F32, got F16");
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(place in 0_usize..400, value: u8) {
        let mut bytes = sample().to_bytes().unwrap();
        let place = place % bytes.len();
        bytes[place] = value;
        if let Ok(weights) = Weights::from_bytes(&bytes, Path::new("w.safetensors")) {
            prop_assert_eq!(weights.0.len(), sample().0.len());
        }
    }
}
