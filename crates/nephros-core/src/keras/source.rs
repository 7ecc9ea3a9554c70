//! The weight groups of an HDF5 file.

use std::path::Path;

use hdf5_pure::{AttrValue, DType, Error, File, FormatError, Group};

use super::{KerasErrorKind, config::Step};

/// Times that a file may be larger in memory than on disk; Keras does not compress at all.
const MAX_EXPANSION: u64 = 16;

/// An open Keras file.
#[derive(Debug)]
pub(super) struct WeightFile {
    file: File,
    /// `model_weights` in a model, the root in a weights file.
    groups: Group,
    model: bool,
    bytes: u64,
}

impl WeightFile {
    pub fn open(path: &Path) -> Result<Self, KerasErrorKind> {
        let bytes = fs_err::metadata(path)?.len();
        let mut begin = [0; 16];
        let length = std::io::Read::read(&mut fs_err::File::open(path)?, &mut begin)?;
        if !hdf5_pure::is_hdf5(path)? {
            return Err(KerasErrorKind::NotHdf5 { begin: describe(&begin[..length]) });
        }
        let file = File::open_streaming(path).map_err(damaged("the superblock"))?;
        let root = file.root();
        let model = contains(&root, "model_weights")?;
        let groups =
            if model { root.group("model_weights").map_err(damaged("`model_weights`"))? } else { root };
        Ok(Self { file, groups, model, bytes })
    }

    /// The `model_config` attribute of a full model.
    pub fn model_config(&self) -> Result<Option<String>, KerasErrorKind> {
        text_attribute(&self.file.root(), "model_config")
    }

    /// The version of Keras that wrote the file, if it says so.
    pub fn keras_version(&self) -> Result<Option<String>, KerasErrorKind> {
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
        let wanted: u64 = shape.iter().map(|&extent| extent as u64).product();
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
        if self.model { format!("model_weights/{name}") } else { name.to_owned() }
    }
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
    if begin.starts_with(b"PK\x03\x04") {
        return "it is a zip archive, as `.keras` files are".to_owned();
    }
    format!("it starts with `{}`", begin.escape_ascii())
}
