//! The weight groups of an HDF5 file, which may lie in an archive.

use std::{
    io::{BufReader, Read as _, Seek},
    path::Path,
};

use hdf5_pure::{AttrValue, DType, Error, File, FormatError, Group};

use serde_json::Value;
use zip::{ZipArchive, result::ZipError};

use super::{KerasErrorKind, config::Step};

/// Times that a file may be larger in memory than on disk; Keras does not compress at all.
const MAX_EXPANSION: u64 = 16;

/// How every zip archive begins.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// An open Keras file.
#[derive(Debug)]
pub(super) struct WeightFile {
    file: File,
    /// `model_weights` in a model, the root in a weights file and in an archive.
    groups: Group,
    form: Form,
    bytes: u64,
}

/// Where a file keeps what.
#[derive(Debug)]
enum Form {
    /// HDF5 with layers at the root.
    Weights,
    /// HDF5 with layers in `model_weights`.
    Model,
    /// Zip archive with these other files.
    Archive { config: String, metadata: String },
}

impl WeightFile {
    pub fn open(path: &Path) -> Result<Self, KerasErrorKind> {
        let bytes = fs_err::metadata(path)?.len();
        let mut begin = [0; 16];
        let length = fs_err::File::open(path)?.read(&mut begin)?;
        if begin.starts_with(ZIP_MAGIC) {
            return Self::open_archive(path, bytes);
        }
        if !hdf5_pure::is_hdf5(path)? {
            return Err(KerasErrorKind::NotHdf5 { begin: describe(&begin[..length]) });
        }
        let file = File::open_streaming(path).map_err(damaged("the superblock"))?;
        let expected = file.superblock().eof_address;
        if bytes < expected {
            return Err(KerasErrorKind::Truncated { expected, got: bytes });
        }
        let root = file.root();
        if contains(&root, "model_weights")? {
            let groups = root.group("model_weights").map_err(damaged("`model_weights`"))?;
            return Ok(Self { file, groups, form: Form::Model, bytes });
        }
        Ok(Self { file, groups: root, form: Form::Weights, bytes })
    }

    fn open_archive(path: &Path, bytes: u64) -> Result<Self, KerasErrorKind> {
        let file = BufReader::new(fs_err::File::open(path)?);
        let mut archive = ZipArchive::new(file).map_err(KerasErrorKind::Archive)?;
        let limit = bytes.saturating_mul(MAX_EXPANSION);
        let config = text(entry(&mut archive, "config.json", limit)?);
        let metadata = text(entry(&mut archive, "metadata.json", limit)?);
        let weights = entry(&mut archive, "model.weights.h5", limit)?;
        let file = File::from_bytes(weights).map_err(damaged("the superblock of `model.weights.h5`"))?;
        Ok(Self { groups: file.root(), file, form: Form::Archive { config, metadata }, bytes })
    }

    /// The `model_config` attribute or `config.json` of a full model.
    pub fn model_config(&self) -> Result<Option<String>, KerasErrorKind> {
        match &self.form {
            Form::Archive { config, .. } => Ok(Some(config.clone())),
            Form::Weights | Form::Model => text_attribute(&self.file.root(), "model_config"),
        }
    }

    /// The version of Keras that wrote the file, if it says so.
    pub fn keras_version(&self) -> Result<Option<String>, KerasErrorKind> {
        if let Form::Archive { metadata, .. } = &self.form {
            let metadata: Value = serde_json::from_str(metadata).unwrap_or_default();
            return Ok(metadata["keras_version"].as_str().map(str::to_owned));
        }
        match text_attribute(&self.file.root(), "keras_version")? {
            None => text_attribute(&self.groups, "keras_version"),
            version => Ok(version),
        }
    }

    /// Whether a layer has a group of weights.
    pub fn has_group(&self, layer: &str) -> Result<bool, KerasErrorKind> {
        contains(&self.groups, layer)
    }

    /// `weight_names` of a group; none where Keras wrote an empty float array.
    pub fn weight_names(&self, group: &str) -> Result<Vec<String>, KerasErrorKind> {
        let attributes = self.groups.group(group).and_then(|group| group.attrs());
        let attributes = attributes.map_err(damaged(&format!("`{}`", self.path(group))))?;
        let names = attributes.get("weight_names").and_then(AttrValue::as_strings);
        Ok(names.unwrap_or_default().to_vec())
    }

    /// Paths of the arrays of a layer, in the order of `weight_names`: kernel, bias; or gamma,
    /// beta, moving mean, moving variance.
    ///
    /// The names themselves differ between the versions of Keras: `block1_conv1_W_1:0`,
    /// `block1_conv1/kernel:0`, `block1_conv1/kernel`.
    pub fn arrays(&self, step: &Step, expected: usize) -> Result<Vec<String>, KerasErrorKind> {
        if let Form::Archive { .. } = self.form {
            return self.variables(step, expected);
        }
        let (group, layer) = (step.group.as_str(), step.layer.as_str());
        if !self.has_group(group)? {
            return Err(KerasErrorKind::MissingDataset { key: self.path(group) });
        }
        let names = self.weight_names(group)?;
        let own = |name: &&String| group == layer || name.rsplit('/').nth(1) == Some(layer);
        let arrays: Vec<String> = names.iter().filter(own).map(|name| format!("{group}/{name}")).collect();
        if arrays.len() != expected {
            let layer = layer.to_owned();
            return Err(KerasErrorKind::WeightCount { layer, expected, got: arrays.len() });
        }
        Ok(arrays)
    }

    /// As [`Self::arrays`] of an archive, which numbers them.
    fn variables(&self, step: &Step, expected: usize) -> Result<Vec<String>, KerasErrorKind> {
        let key = format!("{}/vars", step.path);
        if !self.has_group(&key)? {
            return Err(KerasErrorKind::MissingDataset { key });
        }
        let names = self.groups.group(&key).and_then(|group| group.datasets());
        let got = names.map_err(damaged(&format!("`{key}`")))?.len();
        if got != expected {
            return Err(KerasErrorKind::WeightCount { layer: step.layer.clone(), expected, got });
        }
        Ok((0..expected).map(|position| format!("{key}/{position}")).collect())
    }

    /// Reads an array of the given shape.
    pub fn read(&self, array: &str, shape: &[usize]) -> Result<Vec<f32>, KerasErrorKind> {
        let key = self.path(array);
        let dataset = match self.groups.dataset(array) {
            Err(Error::Format(FormatError::PathNotFound(_))) => {
                return Err(KerasErrorKind::MissingDataset { key });
            }
            dataset => dataset.map_err(damaged(&format!("dataset `{key}`")))?,
        };
        let damaged = |source| KerasErrorKind::Damaged { object: format!("dataset `{key}`"), source };
        match dataset.dtype().map_err(damaged)? {
            DType::F32 => {}
            got => return Err(KerasErrorKind::ElementType { got: name_type(&got, &dataset), key }),
        }
        let got = dataset.shape().map_err(damaged)?;
        // The model's description is as little to be trusted: its product may be beyond any number.
        let wanted = shape.iter().fold(1_u64, |all, &extent| all.saturating_mul(extent as u64));
        // A lying header must not make us reserve more than the file can hold.
        if !got.iter().copied().eq(shape.iter().map(|&extent| extent as u64))
            || wanted > self.bytes.saturating_mul(MAX_EXPANSION) / 4
        {
            return Err(KerasErrorKind::Shape { key, expected: shape.to_vec(), got });
        }
        let values = dataset.read_f32().map_err(damaged)?;
        if values.len() as u64 != wanted {
            return Err(KerasErrorKind::Shape {
                key,
                expected: shape.to_vec(),
                got: vec![values.len() as u64],
            });
        }
        Ok(values)
    }

    fn path(&self, name: &str) -> String {
        if let Form::Model = self.form { format!("model_weights/{name}") } else { name.to_owned() }
    }
}

/// The bytes of a file of an archive.
fn entry(
    archive: &mut ZipArchive<impl std::io::Read + Seek>,
    name: &'static str,
    limit: u64,
) -> Result<Vec<u8>, KerasErrorKind> {
    let entry = archive.by_name(name).map_err(|error| match error {
        ZipError::FileNotFound => KerasErrorKind::MissingEntry { name },
        error => KerasErrorKind::Archive(error),
    })?;
    let mut bytes = Vec::new();
    // What the header says about the length may be a lie.
    entry.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(KerasErrorKind::LargeEntry { name, limit });
    }
    Ok(bytes)
}

/// JSON that is no UTF-8 is told where it is parsed.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn damaged(object: &str) -> impl Fn(Error) -> KerasErrorKind {
    move |source| KerasErrorKind::Damaged { object: object.to_owned(), source }
}

fn contains(group: &Group, name: &str) -> Result<bool, KerasErrorKind> {
    match group.group(name) {
        Ok(_) => Ok(true),
        Err(Error::Format(FormatError::PathNotFound(_)) | Error::NotAGroup(_)) => Ok(false),
        Err(source) => Err(KerasErrorKind::Damaged { object: format!("`{name}`"), source }),
    }
}

fn text_attribute(group: &Group, name: &str) -> Result<Option<String>, KerasErrorKind> {
    let attributes = group.attrs().map_err(damaged(&format!("attribute `{name}`")))?;
    Ok(attributes.get(name).and_then(AttrValue::as_str).map(str::to_owned))
}

/// `float16` and the like, by the width that is stored.
fn name_type(dtype: &DType, dataset: &hdf5_pure::Dataset) -> String {
    match (dtype, dataset.element_size()) {
        (DType::F64, _) => "float64".to_owned(),
        (DType::Other(datatype), Ok(2))
            if matches!(**datatype, hdf5_pure::Datatype::FloatingPoint { .. }) =>
        {
            "float16".to_owned()
        }
        (dtype, _) => dtype.to_string(),
    }
}

fn describe(begin: &[u8]) -> String {
    if begin.is_empty() {
        return "it is empty".to_owned();
    }
    format!("it starts with `{}`", begin.escape_ascii())
}
