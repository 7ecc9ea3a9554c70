//! SHA-256 digests as lower-case hexadecimal.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    path::Path,
};

use sha2::{Digest, Sha256};

/// Bytes of a file that are in memory while it is hashed.
const PIECE: usize = 1 << 18;

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file, read in pieces.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = fs_err::File::open(path)?;
    sha256_reader(|buffer| file.read(buffer))
}

/// SHA-256 of what `read` fills buffers with, up to where it fills none.
pub(crate) fn sha256_reader(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PIECE];
    loop {
        match read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
