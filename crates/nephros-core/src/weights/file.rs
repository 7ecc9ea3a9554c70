//! Arrays of a safetensors file, read one by one.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use safetensors::{
    Dtype, SafeTensorError,
    tensor::{Metadata, TensorInfo},
};

use super::{Arrays, WeightsError, check_finite, values_of};
use crate::digest::sha256_reader;

/// Longest header that is read, as in the safetensors library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A safetensors file that stays on the disk: an array is in memory only while it is used.
///
/// What is hashed and what is read come from the same open file, so that a file which takes its
/// place in between changes neither.
pub struct ArrayFile {
    /// Only named in errors.
    path: String,
    reader: Mutex<Box<dyn ReadSeek>>,
    metadata: Metadata,
    /// Where the arrays begin.
    start: u64,
}

trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

impl ArrayFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`WeightsError::Io`] and [`WeightsError::Format`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::new(Box::new(fs_err::File::open(path)?), path)
    }

    /// As [`Self::open`], of bytes in memory; `path` is only named in errors.
    ///
    /// # Errors
    /// [`WeightsError::Format`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, WeightsError> {
        Self::new(Box::new(Cursor::new(bytes)), path)
    }

    fn new(mut reader: Box<dyn ReadSeek>, path: &Path) -> Result<Self, WeightsError> {
        let path = path.display().to_string();
        let format = |source| WeightsError::Format { path: path.clone(), source };
        let length = reader.seek(SeekFrom::End(0))?;
        reader.rewind()?;
        let mut size = [0; 8];
        if length < size.len() as u64 {
            return Err(format(SafeTensorError::HeaderTooSmall));
        }
        reader.read_exact(&mut size)?;
        let (size, rest) = (u64::from_le_bytes(size), length - 8);
        if size > MAX_HEADER_BYTES {
            return Err(format(SafeTensorError::HeaderTooLarge));
        }
        if size > rest {
            return Err(format(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; size as usize];
        reader.read_exact(&mut header)?;
        // Checks that the arrays lie one after the other and are as long as their shapes say.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|source| format(SafeTensorError::InvalidHeaderDeserialization(source)))?;
        if metadata.data_len() as u64 != rest - size {
            return Err(format(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(Self { path, reader: Mutex::new(reader), metadata, start: 8 + size })
    }

    /// SHA-256 of the whole file, read in pieces; arrays may be read meanwhile.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sha256(&self) -> io::Result<String> {
        let mut position = 0;
        sha256_reader(|buffer| {
            let mut reader = self.reader();
            reader.seek(SeekFrom::Start(position))?;
            let read = reader.read(buffer)?;
            position += read as u64;
            Ok(read)
        })
    }

    /// The array `key` of 8-bit whole numbers, once it is known to have `shape`.
    ///
    /// # Errors
    /// [`WeightsError::Missing`], [`WeightsError::Shape`], [`WeightsError::Type`] and
    /// [`WeightsError::Io`].
    pub fn integers(&self, key: &str, shape: &[usize]) -> Result<Vec<i8>, WeightsError> {
        let info = self.find(key, Dtype::I8, shape)?;
        let mut values = vec![0_i8; info.data_offsets.1 - info.data_offsets.0];
        self.read_at(info.data_offsets.0, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    fn find(&self, key: &str, expected: Dtype, shape: &[usize]) -> Result<&TensorInfo, WeightsError> {
        let info = self.metadata.info(key).ok_or_else(|| WeightsError::Missing { key: key.to_owned() })?;
        if info.dtype != expected {
            let (path, key, got) = (self.path.clone(), key.to_owned(), info.dtype);
            return Err(WeightsError::Type { path, key, expected, got });
        }
        if info.shape != shape {
            let (expected, got) = (shape.to_vec(), info.shape.clone());
            return Err(WeightsError::Shape { key: key.to_owned(), expected, got });
        }
        Ok(info)
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let mut reader = self.reader();
        reader.seek(SeekFrom::Start(self.start + offset as u64))?;
        reader.read_exact(bytes)
    }

    fn reader(&self) -> MutexGuard<'_, Box<dyn ReadSeek>> {
        // Every read seeks first: a panic elsewhere leaves nothing half done.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrays for ArrayFile {
    fn shape(&self, key: &str) -> Option<&[usize]> {
        self.metadata.info(key).map(|info| info.shape.as_slice())
    }

    fn rows(&self, key: &str, shape: &[usize], rows: Range<usize>) -> Result<Cow<'_, [f32]>, WeightsError> {
        let info = self.find(key, Dtype::F32, shape)?;
        let range = values_of(shape, rows);
        let mut values = vec![0.0_f32; range.len()];
        let offset = info.data_offsets.0 + range.start * size_of::<f32>();
        self.read_at(offset, bytemuck::cast_slice_mut(&mut values))?;
        // Nothing is left of this where the processor's order is the file's.
        for value in &mut values {
            *value = f32::from_le_bytes(value.to_ne_bytes());
        }
        check_finite(key, range.start, &values)?;
        Ok(Cow::Owned(values))
    }
}

/// Prints the place, not the arrays.
impl fmt::Debug for ArrayFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayFile({})", self.path)
    }
}
