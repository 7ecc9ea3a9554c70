//! `export`: a model for other programs.

use std::path::Path;

use clap::ValueEnum as _;
use jiff::Timestamp;
use nephros_core::{
    export::{self, About, Format, Model, mlflow},
    pixels::Crop,
    preprocessing::{Normalization, Preprocessing},
};
use serde_json::json;

use crate::{
    cli::{ExportArgs, ExportFormat, Global},
    errors::Status,
    model, output,
};

/// Runs the command.
pub fn run(args: &ExportArgs, global: &Global) -> anyhow::Result<Status> {
    let path = model::find(args.model.as_deref(), global)?;
    let model = Model::load(&path, args.preprocessing.map(Into::into))?;
    if let Some(assumption) = model.assumption() {
        output::note(&format!("note: {assumption}"));
    }
    model::tell_evaluation(model.evaluation(), global.quiet);
    let out = args.out.as_deref().unwrap_or(Path::new(default_name(args.format)));
    match args.format {
        ExportFormat::Onnx => model.write(Format::Onnx, out)?,
        ExportFormat::Keras => model.write(Format::Keras, out)?,
        ExportFormat::H5 => model.write(Format::H5, out)?,
        ExportFormat::Safetensors => model.write(Format::Safetensors, out)?,
        ExportFormat::Mlflow => write_folder(out, &model)?,
    }
    let (about, bytes) = (model.about(), export::bytes(out)?);
    if let Some(temperature) = about.temperature.filter(|_| !global.quiet) {
        output::note(&format!(
            "note: the network itself is exported: nephros divides its logits by the temperature {temperature:.3}, \
             other programs do not"
        ));
    }
    let text = if args.json { json_line(out, args.format, about, bytes) } else { text(out, about, bytes) };
    output::line(&text)?;
    Ok(Status::Done)
}

fn default_name(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Onnx => "model.onnx",
        ExportFormat::Keras => "model.keras",
        ExportFormat::H5 => "model.h5",
        ExportFormat::Safetensors => "model.safetensors",
        ExportFormat::Mlflow => "mlflow-model",
    }
}

fn write_folder(out: &Path, model: &Model) -> anyhow::Result<()> {
    let created = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
    Ok(mlflow::write(out, model, &mlflow::Logged { created: &created, ..mlflow::Logged::default() })?)
}

fn json_line(out: &Path, format: ExportFormat, about: &About, bytes: u64) -> String {
    let format = format.to_possible_value().map(|value| value.get_name().to_owned());
    json!({"path": out.display().to_string(), "format": format, "model": about.model_id, "bytes": bytes,
        "labels": about.labels, "preprocessing": about.preprocessing, "temperature": about.temperature})
    .to_string()
}

fn text(out: &Path, about: &About, bytes: u64) -> String {
    let (id, megabytes) = (&about.model_id, bytes as f64 / 1e6);
    format!(
        "{id} in `{}`, {megabytes:.1} MB\ninput: {}: {}\noutput: {}: {}",
        out.display(),
        about.input,
        describe(&about.preprocessing),
        about.output,
        about.labels.join(", ")
    )
}

/// What a caller does to an image.
fn describe(preprocessing: &Preprocessing) -> String {
    let [height, width, _] = preprocessing.image_size;
    let crop = match preprocessing.crop {
        Crop::None => "",
        Crop::Body => "cropped to the body, ",
        Crop::Band => "cropped to a band as wide as the body, ",
    };
    let scaling = match preprocessing.normalization {
        Normalization::Caffe => "BGR minus 103.939, 116.779, 123.68",
        Normalization::Torchvision => "RGB in 0 to 1, minus .485, .456, .406, over .229, .224, .225",
        Normalization::Unit => "RGB in 0 to 1",
    };
    format!("{crop}resized to {height}x{width}, {scaling}")
}
