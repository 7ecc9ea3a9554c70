//! Why bytes are not an image, and what to do about it.

use std::fmt;

use crate::hint::Hint;

/// Image formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Baseline and progressive JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// Windows bitmap.
    Bmp,
    /// TIFF, the first page.
    Tiff,
    /// WebP, lossy and lossless.
    WebP,
}

impl Format {
    /// The format that the first bytes announce; file names play no part.
    pub(super) fn detect(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'B', b'M', ..] => Some(Self::Bmp),
            // 42 is TIFF, 43 BigTIFF.
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::WebP => "WebP",
        })
    }
}

/// What bytes that are no image look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookalike {
    /// A DICOM file (`DICM` at byte 128).
    Dicom,
    /// A web page, often what a download link answered instead of the file.
    WebPage,
    /// A zip archive.
    Zip,
    /// A PDF document.
    Pdf,
    /// An image of a format that is not read.
    OtherImage,
    /// Printable text.
    Text,
    /// None of these.
    Nothing,
}

impl Lookalike {
    /// Guesses from the first bytes.
    pub(super) fn guess(bytes: &[u8]) -> Self {
        if bytes.get(128..132) == Some(b"DICM") {
            return Self::Dicom;
        }
        let head = &bytes[..bytes.len().min(256)];
        let text = head.trim_ascii_start().to_ascii_lowercase();
        let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if starts(&[b"<!doctype html", b"<html", b"<head", b"<body"]) {
            Self::WebPage
        } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            Self::Zip
        } else if head.starts_with(b"%PDF-") {
            Self::Pdf
        } else if is_other_image(head) {
            Self::OtherImage
        } else if std::str::from_utf8(head).is_ok_and(|text| text.chars().all(is_text)) {
            Self::Text
        } else {
            Self::Nothing
        }
    }
}

/// GIF, the JPEG 2000 container and codestream, HEIC and AVIF.
fn is_other_image(head: &[u8]) -> bool {
    head.starts_with(b"GIF8")
        || head.starts_with(b"\x00\x00\x00\x0cjP  ")
        || head.starts_with(b"\xff\x4f\xff\x51")
        || head.get(4..8) == Some(b"ftyp")
}

fn is_text(character: char) -> bool {
    !character.is_control() || character.is_ascii_whitespace()
}

/// Why bytes are not an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are no bytes.
    #[error("not an image: no bytes, expected JPEG, PNG, BMP, TIFF or WebP")]
    Empty,
    /// The bytes are of no known image format.
    #[error("not an image: it starts with `{start}`, expected JPEG, PNG, BMP, TIFF or WebP")]
    UnknownFormat {
        /// The first 16 bytes, printable ones as they are.
        start: String,
        /// What they look like.
        lookalike: Lookalike,
    },
    /// The bytes break the rules of their format.
    #[error("corrupt {format} image: {detail}")]
    Corrupt {
        /// What the first bytes announce.
        format: Format,
        /// The decoder's own words.
        detail: String,
    },
    /// The bytes end before the image does.
    #[error("truncated {format} image: the data ends before the last row")]
    Truncated {
        /// What the first bytes announce.
        format: Format,
    },
    /// The header announces more pixels than allowed.
    #[error("image too large: expected at most {limit} pixels, got {width}×{height}")]
    TooLarge {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// [`max_pixels`](super::Limits::max_pixels).
        limit: usize,
    },
    /// A variant of the format that is not read.
    #[error("unsupported {format} image: {what}")]
    Unsupported {
        /// What the first bytes announce.
        format: Format,
        /// The variant.
        what: String,
    },
}

impl Hint for DecodeError {
    fn hint(&self) -> Option<String> {
        let advice = match self {
            Self::Empty => "the file is empty; copy or download it again",
            Self::UnknownFormat { lookalike, .. } => match lookalike {
                Lookalike::Dicom => {
                    "this is a DICOM file; export the slice as PNG or JPEG in a soft-tissue window"
                }
                Lookalike::WebPage => {
                    "this is a web page, probably a sign-in or error page saved under the image's name; download the file again"
                }
                Lookalike::Zip => "this is a zip archive; unpack it and give the images inside",
                Lookalike::Pdf => "this is a PDF document; give the images themselves, as PNG or JPEG",
                Lookalike::OtherImage => "this is an image of another format; convert it to PNG",
                Lookalike::Text => "this is text; if it is base64, decode it first",
                Lookalike::Nothing => return None,
            },
            Self::Corrupt { .. } => "the file is damaged; copy, download or export it again",
            Self::Truncated { .. } => "the file is incomplete; copy or download it again",
            Self::TooLarge { .. } => "make the image smaller; a CT slice has 512×512 pixels",
            Self::Unsupported { .. } => "convert the image to 8-bit PNG",
        };
        Some(advice.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        assert_eq!(Format::detect(b"\xff\xd8\xff\xe0"), Some(Format::Jpeg));
        assert_eq!(Format::detect(b"\x89PNG\r\n\x1a\n"), Some(Format::Png));
        assert_eq!(Format::detect(b"BM"), Some(Format::Bmp));
        assert_eq!(Format::detect(b"MM\0\x2a"), Some(Format::Tiff));
        assert_eq!(Format::detect(b"II\x2b\0"), Some(Format::Tiff));
        assert_eq!(Format::detect(b"RIFF\0\0\0\0WEBPVP8 "), Some(Format::WebP));
        assert_eq!(Format::detect(b"RIFF\0\0\0\0WAVE"), None);
        assert_eq!(Format::detect(b""), None);
    }

    #[test]
    fn lookalikes_are_named() {
        let mut dicom = vec![0; 128];
        dicom.extend(b"DICM\x02\0");
        assert_eq!(Lookalike::guess(&dicom), Lookalike::Dicom);
        assert_eq!(Lookalike::guess(b"\n  <!DOCTYPE html><title>Google"), Lookalike::WebPage);
        assert_eq!(Lookalike::guess(b"PK\x03\x04\x14"), Lookalike::Zip);
        assert_eq!(Lookalike::guess(b"%PDF-1.7"), Lookalike::Pdf);
        assert_eq!(Lookalike::guess(b"GIF89a"), Lookalike::OtherImage);
        assert_eq!(Lookalike::guess(b"iVBORw0KGgo="), Lookalike::Text);
        assert_eq!(Lookalike::guess(b"\x00\x01\xfe"), Lookalike::Nothing);
    }
}
