//! Model bundles, read as `nephros serve` and `nephros predict` read them.
//!
//! An input is the files of a folder, one after the other in the order of [`FILES`] with [`BREAK`] between,
//! each of them packed as [`expand`](super::expand()) says. Two things are done for it, since no fuzzer would
//! hit upon them: a file that begins with `{` and is no JSON file is given the length of its first line, the
//! header, in front; and in `bundle.json` the word `sha256:` with a file's name is replaced by the hash.

use std::path::Path;

use nephros_core::{
    digest::sha256,
    network::Precision,
    pixels::RgbImage,
    predictor::{ModelError, Predictor},
};

use super::expand::expand;

/// The files of a bundle, in the order of an input.
pub const FILES: [&str; 7] = [
    "bundle.json",
    "weights.safetensors",
    "golden.safetensors",
    "weights.int8.safetensors",
    "golden.int8.safetensors",
    "input_gate.safetensors",
    "evaluation.json",
];
/// Stands between two files.
pub const BREAK: &[u8] = b"\n----\n";

/// Loads the bundle that `data` stands for, in both precisions, and asks it for an answer.
pub fn run(data: &[u8]) {
    let Some(files) = unpacked(data) else { return };
    let folder = tempfile::tempdir().expect("a folder for the bundle");
    for (name, bytes) in &files {
        fs_err::write(folder.path().join(name), bytes).expect("a bundle can be written");
    }
    for precision in [Precision::F32, Precision::Int8] {
        let _ = load(folder.path(), precision);
    }
}

fn load(folder: &Path, precision: Precision) -> Result<(), ModelError> {
    let model = Predictor::load_as(folder, None, Some(precision))?;
    let image = RgbImage::new(24, 16, vec![128; 24 * 16 * 3]).expect("a picture");
    if let Ok(answer) = model.predict_gated(&image, 3) {
        let sum: f32 = answer.prediction.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-3, "probabilities sum to {sum}");
        let _ = model.answer(&answer.prediction);
        let _ = model.patient([answer.prediction.probabilities.as_slice()]);
    }
    Ok(())
}

/// The files that an input stands for; `None` where they are too large.
fn unpacked(data: &[u8]) -> Option<Vec<(&'static str, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut rest = Some(data);
    for name in FILES {
        let Some(input) = rest else { break };
        let end = input.windows(BREAK.len()).position(|window| window == BREAK);
        let (file, after) =
            end.map_or((input, None), |end| (&input[..end], Some(&input[end + BREAK.len()..])));
        rest = after;
        if !file.is_empty() {
            files.push((name, with_length(name, expand(file)?)));
        }
    }
    let hashes: Vec<(String, String)> =
        files.iter().map(|(name, bytes)| (format!("sha256:{name}"), sha256(bytes))).collect();
    if let Some((_, meta)) = files.iter_mut().find(|(name, _)| *name == FILES[0]) {
        for (word, hash) in hashes {
            *meta = replaced(meta, word.as_bytes(), hash.as_bytes());
        }
    }
    Some(files)
}

fn with_length(name: &str, file: Vec<u8>) -> Vec<u8> {
    let is_json = name == FILES[0] || name == FILES[6];
    let end = file.iter().position(|&byte| byte == b'\n');
    match end {
        Some(end) if file.starts_with(b"{") && !is_json => {
            [&(end as u64).to_le_bytes()[..], &file[..end], &file[end + 1..]].concat()
        }
        _ => file,
    }
}

fn replaced(text: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.windows(word.len()).position(|window| window == word) {
        out.extend_from_slice(&rest[..place]);
        out.extend_from_slice(by);
        rest = &rest[place + word.len()..];
    }
    out.extend_from_slice(rest);
    out
}
