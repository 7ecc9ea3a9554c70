//! JPEG through libjpeg (mozjpeg), bit for bit as PIL decodes it.

use std::{
    cell::Cell,
    error::Error,
    io::{self, BufRead, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

use mozjpeg::{ColorSpace, Decompress, decompress::DecompressStarted};

use super::{
    RgbImage,
    decode::{Limits, panic_message},
    error::{DecodeError, Format},
};

/// Scans of a progressive file; encoders write about ten. Each costs a pass over the whole image,
/// so that a small file with thousands of them would keep a server busy for minutes.
const MAX_SCANS: usize = 500;
/// Rows that are decoded between two looks at whether the data have ended.
const ROWS_AT_ONCE: usize = 16;

/// Decodes a JPEG; grey becomes RGB, CMYK and YCCK are read as Adobe writes them (inverted).
pub(super) fn decode(bytes: &[u8], limits: Limits) -> Result<RgbImage, DecodeError> {
    let ended = Cell::new(false);
    // libjpeg's fatal errors unwind (see `decode_with_limits`). They are caught here already, since
    // a decoder that fails after it ran out of data was given a truncated file.
    let outcome = catch_unwind(AssertUnwindSafe(|| read(bytes, &ended, limits)));
    match outcome {
        // What the header says stands, however little follows it.
        Ok(Err(error @ (DecodeError::TooLarge { .. } | DecodeError::Unsupported { .. }))) => Err(error),
        _ if ended.get() => Err(DecodeError::Truncated { format: Format::Jpeg }),
        Ok(result) => result,
        Err(payload) => Err(corrupt(panic_message(&*payload))),
    }
}

fn read(bytes: &[u8], ended: &Cell<bool>, limits: Limits) -> Result<RgbImage, DecodeError> {
    let header = Decompress::new_reader(Source { rest: bytes, ended }).map_err(corrupt)?;
    let (width, height) = header.size();
    limits.check(Format::Jpeg, width, height)?;
    let scans = bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count();
    if scans > MAX_SCANS {
        return Err(corrupt(format!("expected at most {MAX_SCANS} scans, got {scans}")));
    }
    let pixels = match header.color_space() {
        ColorSpace::JCS_GRAYSCALE | ColorSpace::JCS_RGB | ColorSpace::JCS_YCbCr => {
            rows(header.rgb().map_err(corrupt)?, 3, ended)?
        }
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
            let started = header.to_colorspace(ColorSpace::JCS_CMYK).map_err(corrupt)?;
            let inks = rows(started, 4, ended)?;
            inks.as_chunks().0.iter().copied().flat_map(rgb_from_inverted_cmyk).collect()
        }
        _ => {
            let what = format!("expected 1, 3 or 4 components, got {}", header.components().len());
            return Err(DecodeError::Unsupported { format: Format::Jpeg, what });
        }
    };
    RgbImage::new(width, height, pixels).ok_or_else(|| corrupt("its size changes"))
}

/// All rows, `[height, width, channels]`; stops soon after the data have ended.
fn rows(
    mut started: DecompressStarted<Source<'_>>,
    channels: usize,
    ended: &Cell<bool>,
) -> Result<Vec<u8>, DecodeError> {
    let row_bytes = started.width() * channels;
    let mut pixels = vec![0; row_bytes * started.height()];
    for rows in pixels.chunks_mut(row_bytes * ROWS_AT_ONCE) {
        started.read_scanlines_into(rows).map_err(corrupt)?;
        if ended.get() {
            return Err(DecodeError::Truncated { format: Format::Jpeg });
        }
    }
    Ok(pixels)
}

/// PIL's CMYK to RGB, from inks stored as 255 minus their amount.
///
/// Source: Pillow, `libImaging/Convert.c`, `cmyk2rgb`.
fn rgb_from_inverted_cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|inverted| {
        let ink = u32::from(255 - inverted);
        let paper = u32::from(black);
        // ink * paper / 255, rounded.
        let product = ink * paper + 128;
        let covered = ((product >> 8) + product) >> 8;
        paper.saturating_sub(covered) as u8
    })
}

fn corrupt(detail: impl Into<Box<dyn Error>>) -> DecodeError {
    DecodeError::Corrupt { format: Format::Jpeg, detail: detail.into().to_string() }
}

/// Bytes that remember whether the decoder asked for more than there are: libjpeg then invents an
/// end marker and paints the rest grey, where PIL raises an error.
struct Source<'a> {
    rest: &'a [u8],
    ended: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended.set(true);
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount.min(self.rest.len())..];
    }
}
