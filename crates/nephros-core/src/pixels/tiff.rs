//! A look at a TIFF's first directory before its decoder believes it.
//!
//! The decoder makes room for as many values as an entry announces, 32 bytes for each, before it reads one.

use std::ops::RangeInclusive;

/// Values of one entry that the decoder reads, at most. Strips of one row each have as many offsets as the image
/// has rows.
const MOST_VALUES: u64 = 1 << 20;
/// Entries that say how the picture lies in the file, of TIFF 6.0 and its supplements. The decoder reads no
/// other, so those may be as long as they like: XMP, profiles, notes of makers.
const OF_THE_PICTURE: [RangeInclusive<u64>; 2] = [254..=347, 512..=532];
/// Of these, names and descriptions; microscopes write theirs in megabytes.
const DESCRIPTIONS: [u64; 10] = [269, 270, 271, 272, 285, 305, 306, 315, 316, 333];

/// A whole number at a place of the file, in its byte order; `None` beyond its end.
struct Reader<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Reader<'_> {
    fn number(&self, at: u64, length: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) })
    }
}

/// What an entry announces that the file cannot hold or that no image needs. What else is wrong with the file, and
/// the end of it, the decoder tells.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let reader = Reader { bytes, big_endian: bytes.starts_with(b"MM") };
    // BigTIFF has longer numbers in the same places.
    let is_big = reader.number(2, 2) == Some(43);
    let (pointer, long, of_count) = if is_big { (8, 8, 8) } else { (4, 4, 2) };
    let Some(directory) = reader.number(pointer, long) else { return Ok(()) };
    let Some(entries) = reader.number(directory, of_count) else { return Ok(()) };
    let size = 4 + 2 * long as u64;
    for index in 0..entries {
        let entry = index
            .checked_mul(size)
            .and_then(|skip| directory.checked_add(of_count as u64)?.checked_add(skip));
        let at = |skip, length| reader.number(entry?.checked_add(skip)?, length);
        let (Some(tag), Some(kind), Some(count)) = (at(0, 2), at(2, 2), at(4, long)) else { return Ok(()) };
        if !OF_THE_PICTURE.iter().any(|range| range.contains(&tag)) || DESCRIPTIONS.contains(&tag) {
            continue;
        }
        let each = match kind {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        if count.saturating_mul(each) > bytes.len() as u64 {
            return Err(format!("its entry {tag} announces {count} values, more than the file can hold"));
        }
        if count > MOST_VALUES {
            return Err(format!("its entry {tag} announces {count} values"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one entry.
    fn file(big_endian: bool, is_big: bool, tag: u16, kind: u16, count: u64, length: usize) -> Vec<u8> {
        let number = |value: u64, length: usize| {
            let mut bytes = value.to_be_bytes()[8 - length..].to_vec();
            if !big_endian {
                bytes.reverse();
            }
            bytes
        };
        let long = if is_big { 8 } else { 4 };
        let mut bytes = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        bytes.extend(number(if is_big { 43 } else { 42 }, 2));
        if is_big {
            bytes.extend([number(8, 2), number(0, 2), number(16, 8), number(1, 8)].concat());
        } else {
            bytes.extend([number(8, 4), number(1, 2)].concat());
        }
        bytes.extend(
            [number(tag.into(), 2), number(kind.into(), 2), number(count, long), number(0, long)].concat(),
        );
        bytes.resize(length, 0);
        bytes
    }

    #[test]
    fn more_values_than_the_file_has_bytes() {
        for (big_endian, is_big) in [(false, false), (true, false), (false, true), (true, true)] {
            let check = |kind, count| check(&file(big_endian, is_big, 262, kind, count, 1000));
            assert_eq!(check(3, 500), Ok(()));
            let error = check(3, 501).unwrap_err();
            assert_eq!(error, "its entry 262 announces 501 values, more than the file can hold");
            assert!(
                check(1, 1001).is_err() && check(12, 126).is_err() && check(4, u64::from(u32::MAX)).is_err()
            );
        }
        assert!(check(&file(false, true, 273, 16, u64::MAX, 1000)).is_err());
    }

    #[test]
    fn more_values_than_an_image_needs() {
        let check = |tag| check(&file(false, false, tag, 1, MOST_VALUES + 1, 2 << 20));
        assert_eq!(check(262), Err("its entry 262 announces 1048577 values".to_owned()));
        // A description, XMP, a profile.
        for tag in [270, 700, 34_675] {
            assert_eq!(check(tag), Ok(()));
        }
    }

    #[test]
    fn what_ends_too_early_is_left_to_the_decoder() {
        let whole = file(true, true, 262, 3, 1, 1000);
        for length in 0..60 {
            assert_eq!(check(&whole[..length]), Ok(()), "{length}");
        }
        // A directory at the end of all addresses.
        let mut far = whole;
        far[8..16].fill(0xff);
        assert_eq!(check(&far), Ok(()));
    }
}
