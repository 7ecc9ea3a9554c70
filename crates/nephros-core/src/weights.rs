//! Named weight arrays and their safetensors form.

mod file;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorView, serialize},
};

pub use file::ArrayFile;

use crate::hint::Hint;

/// Where the arrays of a network come from: memory or a file.
pub trait Arrays: Sync {
    /// The shape of the array `key`, if there is one.
    fn shape(&self, key: &str) -> Option<&[usize]>;

    /// Values of the array `key`, once it is known to have `shape` and only finite values.
    ///
    /// # Errors
    /// See [`WeightsError`].
    fn array(&self, key: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, WeightsError> {
        self.rows(key, shape, 0..shape.first().copied().unwrap_or(1))
    }

    /// As [`Self::array`], of some of the positions of the first axis.
    ///
    /// # Errors
    /// See [`WeightsError`].
    fn rows(&self, key: &str, shape: &[usize], rows: Range<usize>) -> Result<Cow<'_, [f32]>, WeightsError>;
}

/// Values of some positions of the first axis of an array with `shape`.
fn values_of(shape: &[usize], rows: Range<usize>) -> Range<usize> {
    let each: usize = shape.iter().skip(1).product();
    rows.start * each..rows.end * each
}

/// A dense f32 array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub values: Vec<f32>,
}

/// Arrays by checkpoint key, such as `features.0.weight`.
///
/// Keys and layouts are torchvision's: convolutions `[out, in, 3, 3]`, dense layers `[out, in]`
/// with the inputs of a flattened map in `(channel, y, x)` order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Tensor>);

/// Weights that cannot be read or do not fit the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not safetensors.
    #[error("`{path}` is not a safetensors file: {source}")]
    Format {
        /// The file.
        path: String,
        /// What the reader says.
        source: safetensors::SafeTensorError,
    },
    /// An array has another element type.
    #[error("`{path}`: expected `{key}` as {expected}, got {got}")]
    Type {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// Element type that is read.
        expected: Dtype,
        /// Element type in the file.
        got: Dtype,
    },
    /// A key is missing.
    #[error("weights have no `{key}`")]
    Missing {
        /// The key.
        key: String,
    },
    /// An array has another shape than the network's.
    #[error("weights `{key}`: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// The key.
        key: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A shape does not multiply to the number of values.
    #[error("weights `{key}`: shape {shape:?} does not hold {values} values")]
    Length {
        /// The key.
        key: String,
        /// The shape.
        shape: Vec<usize>,
        /// Values given.
        values: usize,
    },
    /// An array holds a NaN or an infinity.
    #[error("weights `{key}` hold {value} at position {position}, expected finite values")]
    NotFinite {
        /// The key.
        key: String,
        /// Position in the array's values, from 0.
        position: usize,
        /// The value.
        value: f32,
    },
    /// A variance of a batch norm is below zero.
    #[error("weights `{key}`: expected variances, got {value} at position {position}")]
    NegativeVariance {
        /// The key.
        key: String,
        /// Channel, from 0.
        position: usize,
        /// The value.
        value: f32,
    },
}

impl Hint for WeightsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Format { .. } => Some("copy or download the file again; it may be cut short".to_owned()),
            Self::Missing { .. } | Self::Shape { .. } => Some(
                "these weights belong to another network: check `ARCHITECTURE`, `HIDDEN_UNITS`, `CLASSES` \
                 and `IMAGE_SIZE`"
                    .to_owned(),
            ),
            Self::NotFinite { .. } => {
                Some("training diverged; lower `LEARNING_RATE` and train again".to_owned())
            }
            Self::Io(_) | Self::Type { .. } | Self::Length { .. } | Self::NegativeVariance { .. } => None,
        }
    }
}

impl Weights {
    /// The array `key`, once it is known to have `shape` and only finite values.
    ///
    /// # Errors
    /// [`WeightsError::Missing`], [`WeightsError::Shape`], [`WeightsError::Length`] and
    /// [`WeightsError::NotFinite`].
    pub fn get(&self, key: &str, shape: &[usize]) -> Result<&Tensor, WeightsError> {
        let tensor = self.find(key, shape)?;
        check_finite(key, 0, &tensor.values)?;
        Ok(tensor)
    }

    fn find(&self, key: &str, shape: &[usize]) -> Result<&Tensor, WeightsError> {
        let tensor = self.0.get(key).ok_or_else(|| WeightsError::Missing { key: key.to_owned() })?;
        if tensor.shape != shape {
            let (expected, got) = (shape.to_vec(), tensor.shape.clone());
            return Err(WeightsError::Shape { key: key.to_owned(), expected, got });
        }
        tensor.check_length(key)?;
        Ok(tensor)
    }

    /// Checks that every array of `expected` is here, with its shape and finite values.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
        expected.iter().try_for_each(|(key, shape)| self.get(key, shape).map(drop))
    }

    /// Reads a safetensors file of f32 arrays.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        Self::from_bytes(&fs_err::read(path)?, path)
    }

    /// Reads the bytes of a safetensors file; `path` is only named in errors.
    ///
    /// # Errors
    /// [`WeightsError::Format`] and [`WeightsError::Type`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, WeightsError> {
        let path = path.display().to_string();
        // The reader checks the header against the length of the file before anything is allocated.
        let file = SafeTensors::deserialize(bytes)
            .map_err(|source| WeightsError::Format { path: path.clone(), source })?;
        let read = |(key, view): (String, TensorView<'_>)| {
            if view.dtype() != Dtype::F32 {
                return Err(WeightsError::Type {
                    path: path.clone(),
                    key,
                    expected: Dtype::F32,
                    got: view.dtype(),
                });
            }
            let (quads, _) = view.data().as_chunks::<4>();
            let values = quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect();
            Ok((key, Tensor { shape: view.shape().to_vec(), values }))
        };
        file.tensors().into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The bytes of a safetensors file, the same for the same weights.
    ///
    /// # Errors
    /// [`WeightsError::Length`] and [`WeightsError::Format`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, WeightsError> {
        self.encode(None)
    }

    /// As [`Self::to_bytes`], with a text about the model as `nephros` in the file's metadata.
    ///
    /// # Errors
    /// As [`Self::to_bytes`].
    pub fn to_bytes_about(&self, about: &str) -> Result<Vec<u8>, WeightsError> {
        // One key alone: several would be written in an order that changes.
        self.encode(Some(HashMap::from([("nephros".to_owned(), about.to_owned())])))
    }

    fn encode(&self, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>, WeightsError> {
        let mut arrays = Vec::with_capacity(self.0.len());
        for (key, tensor) in &self.0 {
            tensor.check_length(key)?;
            let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            arrays.push((key, &tensor.shape, bytes));
        }
        let format = |source| WeightsError::Format { path: "new weights".to_owned(), source };
        let views = arrays
            .iter()
            .map(|(key, shape, bytes)| Ok((*key, TensorView::new(Dtype::F32, (*shape).clone(), bytes)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(format)?;
        serialize(views, metadata).map_err(format)
    }

    /// Writes a safetensors file under a temporary name and renames it.
    ///
    /// # Errors
    /// See [`WeightsError`]; the file at `path` is then as it was.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        Ok(replace_file(path, &self.to_bytes()?)?)
    }
}

impl Arrays for Weights {
    fn shape(&self, key: &str) -> Option<&[usize]> {
        self.0.get(key).map(|tensor| tensor.shape.as_slice())
    }

    fn rows(&self, key: &str, shape: &[usize], rows: Range<usize>) -> Result<Cow<'_, [f32]>, WeightsError> {
        let range = values_of(shape, rows);
        let values = &self.find(key, shape)?.values[range.clone()];
        check_finite(key, range.start, values)?;
        Ok(Cow::Borrowed(values))
    }
}

/// Checks values from position `first` of an array on. The first pass only compares exponents,
/// which the compiler does for several values at once.
fn check_finite(key: &str, first: usize, values: &[f32]) -> Result<(), WeightsError> {
    let largest = values.iter().fold(0, |largest: u32, value| largest.max(value.abs().to_bits()));
    if f32::from_bits(largest).is_finite() {
        return Ok(());
    }
    let bad = values.iter().enumerate().find(|(_, value)| !value.is_finite());
    bad.map_or(Ok(()), |(position, &value)| {
        Err(WeightsError::NotFinite { key: key.to_owned(), position: first + position, value })
    })
}

impl Tensor {
    fn check_length(&self, key: &str) -> Result<(), WeightsError> {
        let expected = self.shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
        if expected == Some(self.values.len()) {
            return Ok(());
        }
        let (shape, values) = (self.shape.clone(), self.values.len());
        Err(WeightsError::Length { key: key.to_owned(), shape, values })
    }
}

/// Writes a file under a temporary name and renames it; on an error the file at `path` is as it was.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |temporary| write_synced(temporary, bytes))
}

/// As [`replace_file`], of what `write` makes under the temporary name.
pub(crate) fn replace_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = temporary_sibling(path);
    let written = write(&temporary).and_then(|()| Ok(fs_err::rename(&temporary, path)?));
    if written.is_err() {
        // The first error is the one to tell; the temporary file may not even exist.
        let _ = fs_err::remove_file(&temporary);
    }
    written
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name beside `path`, hidden and not used by another process or call.
pub(crate) fn temporary_sibling(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (process, call) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{name}.{process}-{call}.tmp"))
}
