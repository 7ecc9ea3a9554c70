//! A model as a folder that MLflow loads, of its flavors `onnx`, `tensorflow` and `python_function`.
//!
//! ```text
//! MLmodel               what the folder is, read first
//! model.onnx            onnx and python_function
//! data/model.h5         tensorflow, with keras_module.txt and save_format.txt beside it
//! requirements.txt      what Python needs, and python_env.yaml
//! bundle/               the bundle, where the model comes from one: nephros loads it from here
//! ```
//!
//! Source: <https://mlflow.org/docs/latest/ml/model/>, and folders that MLflow 3.17.2 wrote itself.

use std::{fmt::Write as _, io, path::Path};

use serde_json::{Value, json};

use super::{ExportError, Format, Model, bytes};
use crate::{
    bundle::{Bundle, swap_in},
    digest::sha256,
    weights::{temporary_sibling, write_synced},
};

/// Folder of the bundle inside the model's.
pub const BUNDLE: &str = "bundle";
/// The file that makes a folder an MLflow model.
pub const MLMODEL: &str = "MLmodel";

/// The MLflow whose form of `MLmodel` is written: the older of those that it is tested with.
const MLFLOW_VERSION: &str = "2.22.5";
/// The Python that the tests load it with.
const PYTHON_VERSION: &str = "3.11.7";
/// The Keras whose form `data/model.h5` has.
const KERAS_VERSION: &str = "2.12.0";
/// The first ONNX whose checker knows the graph's operators and file version.
const ONNX_VERSION: &str = "1.10.0";

/// What MLflow needs; the flavor `tensorflow` needs tensorflow besides.
const REQUIREMENTS: &str = "mlflow>=2.22\nnumpy\nonnx>=1.10\nonnxruntime>=1.12\n";
const PYTHON_ENV: &str = "python: 3.11.7
build_dependencies:
- pip
- setuptools
- wheel
dependencies:
- -r requirements.txt
";

/// Where a folder belongs in a tracking server; what is `None` is left out or stays null.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logged<'a> {
    /// When it was made, in UTC: `2026-11-23 06:07:22.137416`.
    pub created: &'a str,
    /// Path below the run's artifacts, or address of the logged model's.
    pub artifact_path: Option<&'a str>,
    /// The run.
    pub run_id: Option<&'a str>,
    /// The logged model of MLflow 3, such as `m-2218161fe73c40ebbade3a329cbb8b4d`.
    pub model_id: Option<&'a str>,
}

/// Writes the folder `dir`, in place of the MLflow model or the empty folder that is there.
///
/// The files are written to a folder beside `dir`, which then takes its name.
///
/// # Errors
/// [`ExportError::NotAModelFolder`] where `dir` holds something else, [`ExportError::Bundle`] where the
/// bundle has changed, and failures to write; what was at `dir` is then still there.
pub fn write(dir: &Path, model: &Model, logged: &Logged<'_>) -> Result<(), ExportError> {
    if !replaceable(dir)? {
        return Err(ExportError::NotAModelFolder { path: dir.to_owned() });
    }
    let fresh = temporary_sibling(dir);
    let written = fill(&fresh, model, logged).and_then(|()| Ok(swap_in(&fresh, dir)?));
    if written.is_err() {
        // The first error is the one to tell; the folder may not even exist.
        let _ = fs_err::remove_dir_all(&fresh);
    }
    written
}

/// Whether nothing is lost when another folder takes the name.
fn replaceable(dir: &Path) -> io::Result<bool> {
    if !dir.try_exists()? || dir.join(MLMODEL).is_file() {
        return Ok(true);
    }
    Ok(fs_err::read_dir(dir)?.next().is_none())
}

fn fill(folder: &Path, model: &Model, logged: &Logged<'_>) -> Result<(), ExportError> {
    fs_err::create_dir_all(folder.join("data"))?;
    model.write(Format::Onnx, &folder.join("model.onnx"))?;
    model.write(Format::H5, &folder.join("data/model.h5"))?;
    let texts = [
        ("data/keras_module.txt", "tensorflow.keras"),
        ("data/save_format.txt", "h5"),
        ("requirements.txt", REQUIREMENTS),
        ("python_env.yaml", PYTHON_ENV),
    ];
    for (name, text) in texts {
        write_synced(&folder.join(name), text.as_bytes())?;
    }
    if let Some(bundle) = &model.bundle {
        Bundle::copy(bundle, &folder.join(BUNDLE))?;
    }
    let text = mlmodel(model, logged, bytes(folder)?);
    Ok(write_synced(&folder.join(MLMODEL), text.as_bytes())?)
}

/// `MLmodel`.
fn mlmodel(model: &Model, logged: &Logged<'_>, size: u64) -> String {
    let about = model.about();
    let uuid = sha256(format!("{} {}", about.model_id, logged.created).as_bytes());
    let fields = json!({
        "artifact_path": logged.artifact_path,
        "flavors": flavors(),
        "is_signature_from_type_hint": false,
        "metadata": {"nephros": about.fields()},
        "mlflow_version": MLFLOW_VERSION,
        "model_id": logged.model_id,
        "model_size_bytes": size,
        "model_uuid": logged.model_id.unwrap_or(&uuid[..32]),
        "run_id": logged.run_id,
        "signature": signature(about.preprocessing.image_size, about.labels.len()),
        "utc_time_created": logged.created,
    });
    let mut text = String::new();
    yaml(&mut text, "", &fields);
    text
}

/// The fields of an object as a YAML block; other values as JSON, which YAML includes.
fn yaml(text: &mut String, indent: &str, fields: &Value) {
    for (key, value) in fields.as_object().into_iter().flatten() {
        // Writing to a string does not fail.
        if value.is_object() {
            let _ = writeln!(text, "{indent}{key}:");
            yaml(text, &format!("{indent}  "), value);
        } else {
            let _ = writeln!(text, "{indent}{key}: {value}");
        }
    }
}

fn flavors() -> Value {
    json!({
        "onnx": {"code": null, "data": "model.onnx", "onnx_session_options": null,
            "onnx_version": ONNX_VERSION, "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
        "python_function": {"data": "model.onnx", "env": {"virtualenv": "python_env.yaml"},
            "loader_module": "mlflow.onnx", "python_version": PYTHON_VERSION},
        "tensorflow": {"code": null, "data": "data", "keras_version": KERAS_VERSION, "model_type": "keras",
            "save_format": "h5"},
    })
}

/// Shapes of input and output, with an open batch; both are JSON in a text.
fn signature([height, width, channels]: [usize; 3], labels: usize) -> Value {
    let tensor = |shape: Value| {
        json!([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}]).to_string()
    };
    json!({"inputs": tensor(json!([-1, height, width, channels])), "outputs": tensor(json!([-1, labels])),
        "params": null})
}
