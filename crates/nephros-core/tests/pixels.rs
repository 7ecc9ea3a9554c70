//! Decoding and resizing against Pillow 13.0.0: golden values made by `scripts/golden/pil.py`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the lints spare test functions, not their helpers"
)]

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use nephros_core::{
    digest::sha256,
    pixels::{DecodeError, Resample, RgbImage, decode, resize},
};
use serde::Deserialize;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pixels");
const BOTH: [Resample; 2] = [Resample::Bilinear, Resample::Nearest];

#[derive(Deserialize)]
struct Golden {
    images: BTreeMap<String, Expected>,
    shortest_accepted: BTreeMap<String, usize>,
    /// Width, height, new width, new height, sha256 after bilinear, after nearest.
    random_sizes: Vec<(usize, usize, usize, usize, String, String)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Error {
        #[serde(rename = "error")]
        _error: String,
    },
    /// `resized`: "WxH" to the sha256 after bilinear and after nearest.
    Image { size: (usize, usize), sha256: String, resized: BTreeMap<String, [String; 2]> },
}

#[derive(Deserialize)]
struct GoldenScans {
    /// Zip to member to the sha256 of its pixels, of 224×224 bilinear and of 224×224 nearest.
    zips: BTreeMap<String, BTreeMap<String, [String; 3]>>,
}

fn read(name: &str) -> Vec<u8> {
    fs_err::read(Path::new(FOLDER).join(name)).expect("committed file")
}

fn golden() -> Golden {
    serde_json::from_slice(&read("pil.json")).expect("made by pil.py")
}

#[test]
fn small_images_of_every_kind_equal_pil() {
    let mut wrong = Vec::new();
    for (name, expected) in golden().images {
        match (decode(&read(&name)), expected) {
            (Ok(image), Expected::Image { size, sha256: digest, resized }) => {
                let same_size = (image.width(), image.height()) == size;
                if !same_size || sha256(image.pixels()) != digest {
                    wrong.push(format!("{name}: other pixels, {}×{}", image.width(), image.height()));
                }
                wrong.extend(wrong_sizes(&name, &image, &resized));
            }
            (Err(DecodeError::Truncated { .. }), Expected::Error { .. }) => {}
            (Err(error), _) => wrong.push(format!("{name}: {error}")),
            (Ok(_), Expected::Error { .. }) => wrong.push(format!("{name}: decoded, PIL refuses it")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn wrong_sizes(name: &str, image: &RgbImage, sizes: &BTreeMap<String, [String; 2]>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (size, digests) in sizes {
        let (width, height) = size.split_once('x').expect("WxH");
        let (width, height) = (width.parse().expect("number"), height.parse().expect("number"));
        for (resample, digest) in BOTH.into_iter().zip(digests) {
            if sha256(resize(image, width, height, resample).pixels()) != *digest {
                wrong.push(format!("{name}: {resample:?} to {size}"));
            }
        }
    }
    wrong
}

#[test]
fn sizes_drawn_at_random_resize_as_pil_resizes_them() {
    for (width, height, to_width, to_height, bilinear, nearest) in golden().random_sizes {
        // The formula of pil.py: Knuth's multiplicative hash, its high byte.
        let pixels = (0..width * height * 3).map(|i| ((i as u64 * 2_654_435_761 % (1 << 32)) >> 24) as u8);
        let image = RgbImage::new(width, height, pixels.collect()).expect("drawn size");
        for (resample, digest) in BOTH.into_iter().zip([bilinear, nearest]) {
            let resized = resize(&image, to_width, to_height, resample);
            let case = format!("{resample:?} {width}×{height} to {to_width}×{to_height}");
            assert_eq!(sha256(resized.pixels()), digest, "{case}");
        }
    }
}

#[test]
fn a_jpeg_is_truncated_exactly_where_pil_says_so() {
    for (name, shortest) in golden().shortest_accepted {
        let bytes = read(&name);
        let whole = decode(&bytes).expect("whole file");
        for length in 1..bytes.len() {
            let decoded = decode(&bytes[..length]);
            if length >= shortest {
                assert_eq!(decoded.expect("PIL decodes it"), whole, "{name}, {length} bytes");
            } else if length < 3 {
                assert!(matches!(decoded, Err(DecodeError::UnknownFormat { .. })), "{name}, {length} bytes");
            } else {
                assert!(
                    matches!(decoded, Err(DecodeError::Truncated { .. })),
                    "{name}, {length} bytes: {decoded:?}"
                );
            }
        }
    }
}

fn shared() -> PathBuf {
    std::env::var_os("NEPHROS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

#[test]
fn real_scans_equal_pil() {
    let golden: GoldenScans = serde_json::from_slice(&read("pil_scans.json")).expect("made by pil.py");
    for (name, members) in golden.zips {
        let path = shared().join("data").join(&name);
        let Ok(file) = fs_err::File::open(&path) else {
            println!("left out: {} scans of `{}`, which is not here", members.len(), path.display());
            continue;
        };
        let mut archive = zip::ZipArchive::new(file).expect("zip");
        for (member, [decoded, bilinear, nearest]) in members {
            let mut bytes = Vec::new();
            archive.by_name(&member).expect("member").read_to_end(&mut bytes).expect("readable");
            let image = decode(&bytes).expect("a scan");
            assert_eq!(sha256(image.pixels()), decoded, "{member}");
            for (resample, digest) in BOTH.into_iter().zip([bilinear, nearest]) {
                assert_eq!(
                    sha256(resize(&image, 224, 224, resample).pixels()),
                    digest,
                    "{member}, {resample:?}"
                );
            }
        }
    }
}
