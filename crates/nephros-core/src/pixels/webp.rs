//! A look at the frames of a WebP before its decoder believes them.
//!
//! An extended file says its size once for the canvas and once in each lossy frame. The decoder makes room for what
//! the frame says before it compares the two.

use super::{
    decode::Limits,
    error::{DecodeError, Format},
};

/// Bytes of a chunk's name and length.
const HEADER: usize = 8;
/// Bytes of an animation's frame before its own chunks.
const OF_FRAME: usize = 16;
/// What a key frame starts with, after 3 bytes of flags.
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

/// Checks the size of every lossy frame. What else is wrong with the file, the decoder tells.
pub(super) fn check(bytes: &[u8], limits: Limits) -> Result<(), DecodeError> {
    // After `RIFF`, the length and `WEBP`.
    chunks(bytes.get(12..).unwrap_or_default(), true, limits)
}

/// Chunks that lie one after another, of a file or of one frame of its animation.
fn chunks(mut bytes: &[u8], of_file: bool, limits: Limits) -> Result<(), DecodeError> {
    while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
        let length = header[4..].iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let payload = &rest[..length.min(rest.len())];
        match &header[..4] {
            b"VP8 " => frame(payload, limits)?,
            b"ANMF" if of_file => chunks(payload.get(OF_FRAME..).unwrap_or_default(), false, limits)?,
            _ => {}
        }
        // An odd length is followed by a byte of padding.
        bytes = rest.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
    Ok(())
}

/// Checks the size that a lossy frame says.
fn frame(bytes: &[u8], limits: Limits) -> Result<(), DecodeError> {
    if bytes.get(3..6) != Some(&START_CODE) {
        return Ok(());
    }
    let side =
        |at: usize| Some(usize::from(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]) & 0x3fff));
    match (side(6), side(8)) {
        (Some(width), Some(height)) => limits.check(Format::WebP, width, height),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_pixels: 1000 };

    fn chunk(name: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [name.as_bytes(), &(payload.len() as u32).to_le_bytes(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes
    }

    fn lossy(width: u16, height: u16) -> Vec<u8> {
        let sides = [width.to_le_bytes(), height.to_le_bytes()].concat();
        chunk("VP8 ", &[&[0x10, 0, 0], &START_CODE[..], &sides].concat())
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        let chunks = chunks.concat();
        [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &chunks].concat()
    }

    fn too_large(chunks: &[Vec<u8>]) -> bool {
        let checked = check(&file(chunks), LIMITS);
        assert!(matches!(checked, Ok(()) | Err(DecodeError::TooLarge { limit: 1000, .. })), "{checked:?}");
        checked.is_err()
    }

    #[test]
    fn a_frame_is_not_larger_than_an_image_may_be() {
        // The two highest bits say how to scale.
        assert!(!too_large(&[lossy(50, 20)]) && !too_large(&[lossy(0x4000 + 50, 0x8000 + 20)]));
        assert!(too_large(&[lossy(50, 21)]));
        // Behind the small canvas, alpha of an odd length, and metadata.
        let canvas = chunk("VP8X", &[0x10, 0, 0, 0, 1, 0, 0, 1, 0, 0]);
        let alpha = chunk("ALPH", &[0; 7]);
        assert!(too_large(&[canvas.clone(), alpha.clone(), lossy(16_000, 16_000)]));
        // In an animation's frame, also behind another.
        let frame = |inner: &[Vec<u8>]| chunk("ANMF", &[vec![0; OF_FRAME], inner.concat()].concat());
        let (small, large) = (frame(&[lossy(2, 2)]), frame(&[alpha, lossy(16_000, 16_000)]));
        assert!(!too_large(&[canvas.clone(), small.clone()]));
        assert!(too_large(&[canvas, small, large]));
    }

    #[test]
    fn what_is_cut_off_or_nested_is_left_to_the_decoder() {
        let whole = file(&[chunk("ALPH", &[0; 7]), lossy(16_000, 16_000)]);
        // The sides end 10 bytes into the frame's chunk.
        let needed = whole.len();
        assert!(check(&whole, LIMITS).is_err());
        for length in 0..needed {
            assert!(check(&whole[..length], LIMITS).is_ok(), "{length}");
        }
        let mut nested = vec![0; OF_FRAME];
        for _ in 0..1000 {
            nested = [vec![0; OF_FRAME], chunk("ANMF", &nested)].concat();
        }
        assert!(!too_large(&[chunk("ANMF", &nested)]));
    }

    #[test]
    fn a_side_of_zero_is_told() {
        assert!(matches!(check(&file(&[lossy(0, 20)]), LIMITS), Err(DecodeError::Corrupt { .. })));
    }
}
