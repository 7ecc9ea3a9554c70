//! Bytes that are no image, or only almost: always an error that helps, never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the lints spare test functions, not their helpers"
)]

use nephros_core::{
    hint::Hint,
    pixels::{DecodeError, Limits, Lookalike, decode, decode_with_limits},
};
use proptest::prelude::*;

const FILES: [&str; 10] = [
    "rgb_420.jpg",
    "rgb_progressive.jpg",
    "cmyk.jpg",
    "rgb.png",
    "palette_transparent.png",
    "rgb.bmp",
    "palette.bmp",
    "rgb_lzw.tiff",
    "lossless_alpha.webp",
    "lossy.webp",
];

fn read(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pixels");
    fs_err::read(format!("{folder}/{name}")).expect("committed file")
}

#[test]
fn every_prefix_of_every_format_is_an_error_or_the_whole_image() {
    for name in FILES {
        let bytes = read(name);
        let whole = decode(&bytes).expect("whole file");
        for length in 0..bytes.len() {
            match decode(&bytes[..length]) {
                Ok(image) => {
                    assert_eq!(image, whole, "{name}, {length} of {} bytes", bytes.len());
                }
                Err(error) => assert!(!error.to_string().ends_with('.'), "{name}, {length} bytes: {error}"),
            }
        }
    }
}

/// Writes `value` at `at`.
fn patched(name: &str, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = read(name);
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// Files whose header announces 60 000 × 60 000 pixels.
fn lying_headers() -> Vec<Vec<u8>> {
    let frame = read("rgb_420.jpg").windows(2).position(|pair| pair == [0xff, 0xc0]).expect("SOF0");
    let progressive =
        read("rgb_progressive.jpg").windows(2).position(|pair| pair == [0xff, 0xc2]).expect("SOF2");
    // SOF: marker 2, length 2, precision 1, height 2, width 2; big-endian.
    let sides = [0xea, 0x60, 0xea, 0x60];
    let little = 60_000_u32.to_le_bytes();
    vec![
        patched("rgb_420.jpg", frame + 5, &sides),
        patched("rgb_progressive.jpg", progressive + 5, &sides),
        // BITMAPINFOHEADER: width at 18, height at 22.
        patched("rgb.bmp", 18, &[little, little].concat()),
    ]
}

#[test]
fn a_header_that_lies_is_refused_before_pixels_are_allocated() {
    for bytes in lying_headers() {
        let error = decode(&bytes).expect_err("3.6 billion pixels");
        assert!(matches!(error, DecodeError::TooLarge { width: 60_000, height: 60_000, .. }), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("smaller")));
    }
}

#[test]
fn the_limit_is_the_number_of_pixels() {
    for name in FILES {
        let bytes = read(name);
        // The drawn images are 50×37 = 1850.
        assert!(decode_with_limits(&bytes, Limits { max_pixels: 1850 }).is_ok(), "{name}");
        let error = decode_with_limits(&bytes, Limits { max_pixels: 1849 }).expect_err("one too many");
        assert!(
            matches!(error, DecodeError::TooLarge { width: 50, height: 37, limit: 1849 }),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_jpeg_of_a_thousand_scans_is_refused() {
    let bytes = read("rgb_progressive.jpg");
    let mut bomb = bytes[..bytes.len() - 2].to_vec();
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).expect("SOS");
    for _ in 0..1000 {
        bomb.extend(&bytes[scan..bytes.len() - 2]);
    }
    bomb.extend([0xff, 0xd9]);
    let error = decode(&bomb).expect_err("too many scans");
    assert!(error.to_string().contains("expected at most 500 scans"), "{error}");
}

#[test]
fn a_jpeg_without_rows_is_corrupt() {
    let frame = read("rgb_420.jpg").windows(2).position(|pair| pair == [0xff, 0xc0]).expect("SOF0");
    let error = decode(&patched("rgb_420.jpg", frame + 5, &[0, 0])).expect_err("no rows");
    assert!(matches!(error, DecodeError::Corrupt { .. }), "{error}");
}

#[test]
fn a_jpeg_with_bit_errors_in_its_picture_still_decodes() {
    let mut bytes = read("rgb_420.jpg");
    let end = bytes.len();
    for at in (end - 400..end - 100).step_by(40) {
        bytes[at] = 0x55;
    }
    // PIL accepts this file too. Its pixels are no reference: Pillow itself gives others with
    // JSIMD_FORCENONE=1 (libjpeg-turbo without vector instructions) than without.
    let image = decode(&bytes).expect("a picture with errors in it");
    assert_eq!((image.width(), image.height()), (50, 37));
}

#[test]
fn what_is_no_image_is_named() {
    assert!(matches!(decode(b""), Err(DecodeError::Empty)));
    let error = decode(b"<!DOCTYPE html><html>").expect_err("a page");
    assert_eq!(
        error.to_string(),
        "not an image: it starts with `<!DOCTYPE html><`, expected JPEG, PNG, BMP, TIFF or WebP"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("web page")));
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM");
    let error = decode(&dicom).expect_err("DICOM");
    assert!(matches!(error, DecodeError::UnknownFormat { lookalike: Lookalike::Dicom, .. }));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(start in 0..6_usize, rest: Vec<u8>) {
        let starts: [&[u8]; 6] =
            [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"RIFF\x40\0\0\0WEBP"];
        let bytes = [starts[start], &rest].concat();
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn damaged_files_never_panic(
        file in 0..FILES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = read(FILES[file]);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // A small limit: a damaged header may announce anything.
        if let Ok(image) = decode_with_limits(&bytes, Limits { max_pixels: 1 << 20 }) {
            prop_assert!(image.width() * image.height() <= 1 << 20);
        }
    }
}
