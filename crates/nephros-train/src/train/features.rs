//! Frozen features, computed once per image and view and kept on disk by content.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::Path,
};

use nephros_conv::MappedFile;
use nephros_core::digest::sha256;

/// Start of a store file.
const MAGIC: &[u8; 8] = b"NEPHFEA1";
/// Magic and feature length.
const HEADER: usize = 16;
/// Key and check sum before each record's values.
const PREFIX: usize = 64;

/// Append-only file of fixed-size records: 32 bytes of key, 32 bytes of SHA-256 of the values, then
/// the values as little-endian f32. A record torn by a crash fails its check and is cut off.
#[derive(Debug)]
pub struct FeatureStore {
    file: fs_err::File,
    len: usize,
    index: HashMap<[u8; 32], usize>,
    map: Option<MappedFile>,
}

/// Name of one feature vector: a digest of everything that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Digest of the parts; what each means is for the caller to say.
    pub fn new(parts: &[&str]) -> Self {
        let hex = sha256(parts.join("\n").as_bytes());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
            *byte = digit(pair[0]) * 16 + digit(pair[1]);
        }
        Self(bytes)
    }
}

impl FeatureStore {
    /// Opens or makes the store for vectors of `len` values. A file of another kind is an error; a
    /// torn end is removed.
    ///
    /// # Errors
    /// The file cannot be read, written or is not a store for this length.
    pub fn open(path: &Path, len: usize) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let file = fs_err::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let size = file.metadata()?.len() as usize;
        let mut store = Self { file, len, index: HashMap::new(), map: None };
        if size < HEADER {
            store.file.set_len(0)?;
            store.file.write_all(MAGIC)?;
            store.file.write_all(&(len as u64).to_le_bytes())?;
            return Ok(store);
        }
        store.remap()?;
        store.scan(path)?;
        Ok(store)
    }

    /// Vectors kept.
    pub fn count(&self) -> usize {
        self.index.len()
    }

    /// Whether a vector is kept.
    pub fn contains(&self, key: &Key) -> bool {
        self.index.contains_key(&key.0)
    }

    /// The vector of a key, from mapped memory.
    pub fn get(&self, key: &Key) -> Option<&[f32]> {
        let record = *self.index.get(&key.0)?;
        let start = HEADER + record * self.stride() + PREFIX;
        let bytes = self.map.as_ref()?.bytes().get(start..start + 4 * self.len)?;
        // Records start at multiples of 4 bytes, so the cast does not fail on any supported host.
        bytemuck::try_cast_slice(bytes).ok()
    }

    /// Appends vectors; they can be read after the call.
    ///
    /// # Errors
    /// The file cannot be written. What was appended in part is cut off when the store is opened.
    pub fn append(&mut self, vectors: &[(Key, Vec<f32>)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(vectors.len() * self.stride());
        for (key, values) in vectors {
            let values: &[u8] = bytemuck::cast_slice(values);
            bytes.extend_from_slice(&key.0);
            bytes.extend_from_slice(&check(values));
            bytes.extend_from_slice(values);
        }
        self.file.write_all(&bytes)?;
        let first = self.records();
        for (position, (key, _)) in vectors.iter().enumerate() {
            self.index.insert(key.0, first + position);
        }
        self.remap()
    }

    fn stride(&self) -> usize {
        PREFIX + 4 * self.len
    }

    fn records(&self) -> usize {
        self.map.as_ref().map_or(0, |map| (map.bytes().len() - HEADER) / self.stride())
    }

    fn scan(&mut self, path: &Path) -> io::Result<()> {
        let Some(map) = self.map.as_ref().map(MappedFile::bytes) else { return Ok(()) };
        let kind = map.get(..HEADER).unwrap_or_default();
        let expected = [MAGIC.as_slice(), &(self.len as u64).to_le_bytes()].concat();
        if kind != expected {
            let path = path.display();
            let text = format!("`{path}` is not a feature store for {} values: delete it", self.len);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut whole = 0;
        for record in map[HEADER..].chunks_exact(self.stride()) {
            if record[32..PREFIX] != check(&record[PREFIX..]) {
                break;
            }
            let mut key = [0; 32];
            key.copy_from_slice(&record[..32]);
            self.index.insert(key, whole);
            whole += 1;
        }
        let size = HEADER + whole * self.stride();
        if size < map.len() {
            // Unmapped before the file shrinks.
            self.map = None;
            self.file.set_len(size as u64)?;
            self.remap()?;
        }
        Ok(())
    }

    fn remap(&mut self) -> io::Result<()> {
        self.map = Some(MappedFile::open(self.file.file())?);
        Ok(())
    }
}

fn check(values: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(values).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(&[name])
    }

    #[test]
    fn vectors_survive_reopening_and_a_torn_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.bin");
        let mut store = FeatureStore::open(&path, 3).unwrap();
        store.append(&[(key("a"), vec![1.0, 2.0, 3.0]), (key("b"), vec![4.0, 5.0, 6.0])]).unwrap();
        assert_eq!(store.get(&key("b")), Some([4.0, 5.0, 6.0].as_slice()));
        drop(store);
        let size = fs_err::metadata(&path).unwrap().len();
        // The second record loses its last byte.
        fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(size - 1).unwrap();
        let mut store = FeatureStore::open(&path, 3).unwrap();
        assert_eq!((store.count(), store.get(&key("b"))), (1, None));
        store.append(&[(key("c"), vec![7.0, 8.0, 9.0])]).unwrap();
        assert_eq!(store.get(&key("a")), Some([1.0, 2.0, 3.0].as_slice()));
        assert_eq!(store.get(&key("c")), Some([7.0, 8.0, 9.0].as_slice()));
    }

    #[test]
    fn a_changed_value_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.bin");
        FeatureStore::open(&path, 1).unwrap().append(&[(key("a"), vec![1.0])]).unwrap();
        let mut bytes = fs_err::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(&path, bytes).unwrap();
        assert!(!FeatureStore::open(&path, 1).unwrap().contains(&key("a")));
    }

    #[test]
    fn another_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.bin");
        drop(FeatureStore::open(&path, 3).unwrap());
        let error = FeatureStore::open(&path, 4).unwrap_err().to_string();
        assert!(error.contains("not a feature store for 4 values"), "{error}");
    }
}
