//! MD5, which names every file in a DVC cache. It tells files apart; nothing here is kept safe by it.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use md5::{Digest as _, Md5};

/// Bytes read at a time.
const BLOCK: usize = 1 << 18;

/// The MD5 of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Md5Sum(pub [u8; 16]);

impl Md5Sum {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }
}

impl fmt::Display for Md5Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Md5Sum {
    type Err = String;

    /// Exactly 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected 32 hexadecimal digits, got `{text}`");
        if text.len() != 32 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut sum = [0; 16];
        for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(sum))
    }
}

/// Name of an object: a file, or the list of a folder's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid {
    /// Of the file, or of the list.
    pub sum: Md5Sum,
    /// Whether it is a folder's.
    pub is_dir: bool,
}

impl Oid {
    /// Of a file.
    pub fn file(sum: Md5Sum) -> Self {
        Self { sum, is_dir: false }
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.sum, if self.is_dir { ".dir" } else { "" })
    }
}

impl FromStr for Oid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix(".dir") {
            Some(sum) => Ok(Self { sum: sum.parse()?, is_dir: true }),
            None => Ok(Self::file(text.parse()?)),
        }
    }
}

/// How a file's bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As they are.
    Md5,
    /// DVC before version 3: line ends of text files as Unix has them.
    Dos2Unix,
}

/// Hashes what a reader gives.
///
/// # Errors
/// Those of the reader.
pub fn md5_of(mut reader: impl Read, algorithm: Algorithm) -> io::Result<Md5Sum> {
    let mut hasher = Md5::new();
    let mut block = vec![0; if algorithm == Algorithm::Md5 { BLOCK } else { 1 << 20 }];
    loop {
        let length = fill(&mut reader, &mut block, algorithm)?;
        if length == 0 {
            return Ok(Md5Sum(hasher.finalize().into()));
        }
        let bytes = &block[..length];
        // Each block is judged on its own, as DVC did.
        if algorithm == Algorithm::Dos2Unix && is_text(&bytes[..length.min(512)]) {
            hasher.update(unix_lines(bytes));
        } else {
            hasher.update(bytes);
        }
    }
}

/// The old algorithm looks at whole blocks of 1 MiB, the other one takes what comes.
fn fill(reader: &mut impl Read, block: &mut [u8], algorithm: Algorithm) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match reader.read(&mut block[length..]) {
            Ok(0) => return Ok(length),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if algorithm == Algorithm::Md5 || length == block.len() {
            return Ok(length);
        }
    }
}

/// Hashes a file.
///
/// # Errors
/// It cannot be read.
pub fn md5_file(path: &Path, algorithm: Algorithm) -> io::Result<Md5Sum> {
    md5_of(fs_err::File::open(path)?, algorithm)
}

/// No zero byte, and at most three in ten that are not printable ASCII.
fn is_text(block: &[u8]) -> bool {
    let odd = |byte: &&u8| !matches!(byte, 32..=126 | b'\n' | b'\r' | b'\t' | 12 | 8);
    !block.contains(&0) && block.iter().filter(odd).count() * 10 <= block.len() * 3
}

/// `\r\n` as `\n`.
pub fn unix_lines(bytes: &[u8]) -> Vec<u8> {
    let mut unix = Vec::with_capacity(bytes.len());
    for (index, &byte) in bytes.iter().enumerate() {
        if byte != b'\r' || bytes.get(index + 1) != Some(&b'\n') {
            unix.push(byte);
        }
    }
    unix
}

/// `\n` as `\r\n`, where it is not yet.
pub fn windows_lines(bytes: &[u8]) -> Vec<u8> {
    let mut windows = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for &byte in &unix_lines(bytes) {
        if byte == b'\n' {
            windows.push(b'\r');
        }
        windows.push(byte);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_published_ones() {
        // RFC 1321, A.5
        assert_eq!(Md5Sum::of(b"").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Md5Sum::of(b"abc").to_string(), "900150983cd24fb0d6963f7d28e17f72");
        let sum = md5_of(&b"a\r\nb\r\n"[..], Algorithm::Dos2Unix).unwrap();
        assert_eq!(sum, Md5Sum::of(b"a\nb\n"));
        let binary = md5_of(&b"\0\r\n"[..], Algorithm::Dos2Unix).unwrap();
        assert_eq!(binary, Md5Sum::of(b"\0\r\n"));
        assert_eq!(windows_lines(b"a\nb\r\n"), b"a\r\nb\r\n");
    }

    #[test]
    fn names_have_the_right_length() {
        let oid: Oid = "33ed59dbe5dec8ce2bb8e489b55203e4.dir".parse().unwrap();
        assert!(oid.is_dir && oid.to_string() == "33ed59dbe5dec8ce2bb8e489b55203e4.dir");
        for text in ["", "33ed", "33ed59dbe5dec8ce2bb8e489b55203e4.di", "zz000000000000000000000000000000"] {
            assert!(text.parse::<Oid>().is_err(), "{text}");
        }
    }
}
