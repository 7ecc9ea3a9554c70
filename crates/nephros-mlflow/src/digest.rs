//! SHA-256 as lower-case hexadecimal.

use sha2::{Digest as _, Sha256};

/// SHA-256 of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
