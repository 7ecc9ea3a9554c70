//! Encryption of kept images: a key for each subject, wrapped by a master key.
//!
//! AES-256-GCM with random nonces of 96 bits. Counters would repeat after a backup is restored, and a
//! nonce that repeats gives both images away; the database refuses a nonce that a key has used.
//! Source: NIST SP 800-38D, 8.2.2 and 8.3: at most 2^32 random nonces a key.

use std::{fmt, path::Path, sync::Arc};

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a nonce.
pub(crate) const NONCE: usize = 12;

/// A key that cannot be used, or a text that it does not open.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is no key.
    #[error("{place}: expected a master key of 64 hexadecimal digits")]
    Form {
        /// The file or the variable.
        place: String,
    },
    /// Others may read the file of the key.
    #[error("`{path}`: expected permissions 0600, got {got:04o}")]
    Permissions {
        /// The file.
        path: String,
        /// What it has.
        got: u32,
    },
    /// The file of the key cannot be read.
    #[error("the master key cannot be read")]
    Read(#[source] Arc<std::io::Error>),
    /// The key does not open it, or it was changed.
    #[error("{what} cannot be decrypted: the key is another one, or the bytes were changed")]
    Open {
        /// What.
        what: &'static str,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl KeyError {
    /// One sentence of advice, without a final period.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Form { .. } => Some("make one with `openssl rand -hex 32 > FILE`".into()),
            Self::Permissions { path, .. } => Some(format!("chmod 600 {path}")),
            Self::Read(_) | Self::Open { .. } | Self::Random => None,
        }
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// The key that wraps the keys of the subjects.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; KEY]>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.fingerprint())
    }
}

impl MasterKey {
    /// From 64 hexadecimal digits; `place` says in errors where they come from.
    ///
    /// # Errors
    /// [`KeyError::Form`].
    pub fn from_hex(text: &str, place: &str) -> Result<Self, KeyError> {
        let form = || KeyError::Form { place: place.to_owned() };
        let digits = text.trim().as_bytes();
        if digits.len() != 2 * KEY {
            return Err(form());
        }
        let mut key = Zeroizing::new([0; KEY]);
        for (byte, pair) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or_else(form);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(key))
    }

    /// From a file that its owner alone may read.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let read = |error| KeyError::Read(Arc::new(error));
        let file = fs_err::File::open(path).map_err(read)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Of the file that is open, not of whatever has its name by now.
            let got = file.metadata().map_err(read)?.permissions().mode() & 0o777;
            if got & 0o077 != 0 {
                return Err(KeyError::Permissions { path: path.display().to_string(), got });
            }
        }
        let mut text = Zeroizing::new(String::new());
        std::io::Read::read_to_string(&mut std::io::Read::take(file, 4096), &mut text).map_err(read)?;
        Self::from_hex(&text, &format!("`{}`", path.display()))
    }

    /// Tells master keys apart and gives none away: 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest =
            Sha256::new().chain_update(b"nephros-master-v1").chain_update(self.0.as_slice()).finalize();
        crate::chain::hex(&digest[..8])
    }

    /// Encrypts the key of a subject; `id` has to be given again to open it.
    pub(crate) fn wrap(&self, key: &DataKey, id: &[u8]) -> Result<Sealed, KeyError> {
        seal(&self.0, &key.0[..], b"nephros-key-v1", &[id])
    }

    pub(crate) fn unwrap(&self, sealed: &Sealed, id: &[u8]) -> Result<DataKey, KeyError> {
        let opened = open(&self.0, sealed, b"nephros-key-v1", &[id], "the key of a subject")?;
        let mut key = Zeroizing::new([0; KEY]);
        if opened.len() != KEY {
            return Err(KeyError::Open { what: "the key of a subject" });
        }
        key.copy_from_slice(&opened);
        Ok(DataKey(key))
    }
}

/// The key of a subject.
pub(crate) struct DataKey(Zeroizing<[u8; KEY]>);

impl DataKey {
    pub(crate) fn random() -> Result<Self, KeyError> {
        let mut bytes = random::<KEY>()?;
        let key = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        Ok(key)
    }

    /// Encrypts the image of a receipt; an image moved to another receipt or key does not open.
    pub(crate) fn seal_image(&self, image: &[u8], receipt: &str, key: &[u8]) -> Result<Sealed, KeyError> {
        seal(&self.0, image, b"nephros-image-v1", &[receipt.as_bytes(), key])
    }

    pub(crate) fn open_image(&self, sealed: &Sealed, receipt: &str, key: &[u8]) -> Result<Vec<u8>, KeyError> {
        let opened = open(&self.0, sealed, b"nephros-image-v1", &[receipt.as_bytes(), key], "a kept image")?;
        Ok(opened.to_vec())
    }
}

/// What was encrypted, with its tag of 16 bytes at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub nonce: Vec<u8>,
    pub bytes: Vec<u8>,
}

impl Sealed {
    /// SHA-256 of what is stored, so that it can be checked without a key.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(b"nephros-seal-v1")
            .chain_update(&self.nonce)
            .chain_update(&self.bytes)
            .finalize()
            .into()
    }
}

fn associated(domain: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut data = domain.to_vec();
    for part in parts {
        data.extend((part.len() as u64).to_le_bytes());
        data.extend_from_slice(part);
    }
    data
}

fn seal(key: &[u8; KEY], plain: &[u8], domain: &[u8], parts: &[&[u8]]) -> Result<Sealed, KeyError> {
    let nonce = random::<NONCE>()?;
    let payload = Payload { msg: plain, aad: &associated(domain, parts) };
    let cipher = Aes256Gcm::new(key.into());
    // Fails for plain texts of more than 64 GiB alone.
    let bytes = cipher
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| KeyError::Open { what: "so long an image" })?;
    Ok(Sealed { nonce: nonce.to_vec(), bytes })
}

fn open(
    key: &[u8; KEY],
    sealed: &Sealed,
    domain: &[u8],
    parts: &[&[u8]],
    what: &'static str,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let nonce: [u8; NONCE] = sealed.nonce.as_slice().try_into().map_err(|_| KeyError::Open { what })?;
    let payload = Payload { msg: &sealed.bytes, aad: &associated(domain, parts) };
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt(&Nonce::from(nonce), payload).map(Zeroizing::new).map_err(|_| KeyError::Open { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(digit: &str) -> MasterKey {
        MasterKey::from_hex(&digit.repeat(64), "a test").unwrap()
    }

    #[test]
    fn the_cipher_is_aes_256_gcm_as_nist_tests_it() {
        // Source: NIST CAVP gcmtestvectors, gcmEncryptExtIV256, Keylen 256, IVlen 96, PTlen 128, Count 0.
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let key: [u8; 32] =
            bytes("31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22").try_into().unwrap();
        let nonce: [u8; 12] = bytes("0d18e06c7c725ac9e362e1ce").try_into().unwrap();
        let plain = bytes("2db5168e932556f8089a0622981d017d");
        let sealed = Aes256Gcm::new((&key).into()).encrypt(&Nonce::from(nonce), plain.as_slice()).unwrap();
        let expected = bytes("fa4362189661d163fcd6a56d8bf0405ad636ac1bbedd5cc3ee727dc2ab4a9489");
        assert_eq!(sealed, expected);
    }

    #[test]
    fn a_key_opens_with_its_master_and_id_alone() {
        let key = DataKey::random().unwrap();
        let sealed = master("1").wrap(&key, b"one").unwrap();
        assert_eq!(*master("1").unwrap(&sealed, b"one").unwrap().0, *key.0);
        assert!(master("2").unwrap(&sealed, b"one").is_err());
        assert!(master("1").unwrap(&sealed, b"two").is_err());
        let mut changed = sealed.clone();
        changed.bytes[0] ^= 1;
        assert!(master("1").unwrap(&changed, b"one").is_err());
    }

    #[test]
    fn an_image_opens_for_its_receipt_alone() {
        let key = DataKey::random().unwrap();
        let sealed = key.seal_image(b"pixels", "a receipt", b"id").unwrap();
        assert_eq!(key.open_image(&sealed, "a receipt", b"id").unwrap(), b"pixels");
        assert!(key.open_image(&sealed, "another", b"id").is_err());
        assert!(DataKey::random().unwrap().open_image(&sealed, "a receipt", b"id").is_err());
    }

    #[test]
    fn nonces_of_a_key_differ() {
        let key = DataKey::random().unwrap();
        let seal = |_| key.seal_image(b"", "r", b"k").unwrap().nonce;
        let nonces: std::collections::HashSet<Vec<u8>> = (0..10_000).map(seal).collect();
        assert_eq!(nonces.len(), 10_000);
    }

    #[test]
    fn a_key_is_64_digits() {
        for text in ["", "12", &"g".repeat(64), &"1".repeat(63), &"é".repeat(32)] {
            assert!(matches!(MasterKey::from_hex(text, "x"), Err(KeyError::Form { .. })), "{text}");
        }
        let text = format!("{}\n", "Ab".repeat(32));
        assert_eq!(*MasterKey::from_hex(&text, "x").unwrap().0, [0xab; 32]);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        fs_err::write(&path, "1".repeat(64)).unwrap();
        let allow = |mode| fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o644, 0o640, 0o604] {
            allow(mode);
            let error = MasterKey::from_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::Permissions { got, .. } if got == mode), "{error}");
        }
        allow(0o600);
        assert_eq!(MasterKey::from_file(&path).unwrap().fingerprint(), master("1").fingerprint());
    }

    #[test]
    fn a_key_is_not_printed() {
        let text = format!("{:?}", master("3"));
        assert!(!text.contains("3333"), "{text}");
    }
}
