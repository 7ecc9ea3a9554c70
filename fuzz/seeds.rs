//! Writes the first inputs of each target into a folder, for `scripts/fuzz --seeds`.
//!
//! All of them are drawn. The weights are zeros, which an input does not have to hold; see
//! `nephros_fuzz::expand`.

use std::{
    error::Error,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use nephros_core::{
    abstention::{Abstention, AbstentionMethod, Scope},
    bundle::{Bundle, BundleParts, CalibrationSet, Gate, Holdout, Quantized, record_evaluation},
    calibration::{Calibration, CalibrationMethod},
    input_gate::{
        CaseUnit, Cases, FalseAlarms, InputGate, InputProfile, Limit, Prints, Statistic, TrainingImages,
        Traits, Upright,
    },
    keras::{self, ModelFile, Optimizer},
    network::Architecture,
    patient::PatientReading,
    pixels::RgbImage,
    preprocessing::{Normalization, Preprocessing},
    weights::{Tensor, Weights},
};
use nephros_fuzz::{
    bundle::{BREAK, FILES},
    expand::pack,
};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIZE: [usize; 3] = [16, 24, 3];
/// Pictures of the tests, of which nothing larger is taken.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/nephros-core/tests/golden/pixels");
const LARGEST: usize = 3000;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("expected a folder")?);
    let pictures = pictures()?;
    for (name, bytes) in &pictures {
        write(&folder, "decode", name, bytes)?;
    }
    let find = |name: &str| {
        let found = pictures.iter().find(|(picture, _)| picture == name);
        found.map(|(_, bytes)| bytes.as_slice()).ok_or(format!("no `{name}`"))
    };
    bodies(&folder, find("one_bit.png")?, find("tiny.jpg")?)?;
    batches(&folder, find("one_bit.png")?, find("tiny.jpg")?)?;
    bundles(&folder)?;
    keras_files(&folder)
}

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = folder.join(target);
    fs_err::create_dir_all(&folder)?;
    Ok(fs_err::write(folder.join(name), bytes)?)
}

fn pictures() -> Result<Vec<(String, Vec<u8>)>> {
    let mut pictures = Vec::new();
    for entry in fs_err::read_dir(PICTURES)? {
        let entry = entry?;
        let bytes = fs_err::read(entry.path())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if bytes.len() <= LARGEST && !name.ends_with(".json") {
            pictures.push((name, bytes));
        }
    }
    pictures.sort();
    Ok(pictures)
}

fn base64(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let symbols = bytes.chunks(3).flat_map(|chunk| {
        let bits =
            chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |place| SYMBOLS[(bits >> (18 - 6 * place)) as usize & 63] as char)
    });
    symbols.collect()
}

fn bodies(folder: &Path, png: &[u8], jpeg: &[u8]) -> Result<()> {
    let seed = |name: &str, line: &str, body: &[u8]| {
        write(folder, "body", name, &[line.as_bytes(), b"\n", body].concat())
    };
    let image = base64(png);
    seed("predict", "p", json!({"image": image}).to_string().as_bytes())?;
    seed(
        "one",
        "jsimilar=3&heatmap=true",
        format!(r#"{{"image": "data:image/png;base64,{image}"}}"#).as_bytes(),
    )?;
    seed("many", "j", json!({"images": [image, "*", base64(jpeg)], "note": [{}]}).to_string().as_bytes())?;
    seed("escaped", "j", br#"{"image": "Zm\u0039v"}"#)?;
    seed("raw", "rheatmap=false", png)?;
    seed("octets", "capplication/octet-stream", jpeg)?;
    seed("problem_json", "capplication/problem+json; charset=utf-8", br#"{"images": []}"#)?;
    let part = |name: &str, file: &str| {
        format!(
            "--X\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\nContent-Type: image/png\r\n\r\n"
        )
    };
    let form = [
        part("note", "").as_bytes(),
        b"none\r\n",
        part("image", "; filename=\"a.png\"").as_bytes(),
        png,
        b"\r\n",
        part("image", "; filename*=UTF-8''b%20.png").as_bytes(),
        b"\r\n--X--\r\n",
    ]
    .concat();
    seed("form", "m; boundary=X", &form)?;
    seed("form_quoted", "m; boundary=\"X\"", &form[..form.len() / 2])?;
    seed("feedback", "f1", br#"{"verdict": "corrects", "label": "Tumor", "comment": "small"}"#)?;
    seed("batch", "b", br#"{"path": "a/../b"}"#)?;
    seed("load", "l", br#"{"model": "models:/kidney@champion"}"#)
}

fn batches(folder: &Path, png: &[u8], jpeg: &[u8]) -> Result<()> {
    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};
    for (name, method) in [("stored", CompressionMethod::Stored), ("deflated", CompressionMethod::Deflated)] {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        archive.add_directory("a", options)?;
        for (path, bytes) in
            [("a/1.png", png), ("a/2.JPG", jpeg), ("note.txt", b"no image"), ("ü.bmp", b"BM")]
        {
            archive.start_file(path, options)?;
            archive.write_all(bytes)?;
        }
        archive.set_comment("drawn")?;
        write(folder, "batch", name, &archive.finish()?.into_inner())?;
    }
    let mut large = ZipWriter::new(Cursor::new(Vec::new()));
    large.start_file("1.png", SimpleFileOptions::default().large_file(true))?;
    large.write_all(png)?;
    write(folder, "batch", "zip64", &large.finish()?.into_inner())
}

fn weights(hidden_units: usize) -> Weights {
    let shapes = Architecture::Compact.expected_shapes(2, hidden_units, SIZE);
    let zeros = |shape: Vec<usize>| Tensor { values: vec![0.0; shape.iter().product()], shape };
    Weights(shapes.into_iter().map(|(key, shape)| (key, zeros(shape))).collect())
}

fn parts(hidden_units: usize) -> BundleParts {
    BundleParts {
        architecture: Architecture::Compact,
        hidden_units,
        labels: ["Normal", "Tumor"].map(str::to_owned).into(),
        preprocessing: Preprocessing::new(SIZE, Normalization::Unit),
        params: json!({"EPOCHS": 3}),
        dataset_digest: "d".into(),
        split_digest: "5".into(),
        metrics: json!({"loss": 0.25}),
        calibration: None,
        abstention: None,
        patient: None,
    }
}

fn picture() -> Result<RgbImage> {
    let pixels = (0..16 * 24 * 3).map(|place| (place * 7 % 256) as u8);
    Ok(RgbImage::new(24, 16, pixels.collect()).ok_or("no picture")?)
}

fn gate() -> Result<InputGate> {
    let channels = Architecture::Compact.feature_shape(SIZE).channels;
    let hash = Traits::of(&picture()?).hash();
    let names = ["Normal/a.png", "Normal/b.png", "Tumor/c.png"].map(str::to_owned);
    let prints = Prints::new(names.into_iter().enumerate().map(|(index, name)| (hash << index, name)));
    let cases = Cases { labels: vec![0, 0, 1], groups: vec![4, 4, 9], rows: vec![0, 1, 2] };
    let images = TrainingImages::new(&vec![0.0; 3 * channels], channels, prints);
    Ok(InputGate {
        profile: InputProfile {
            sha256: String::new(),
            rate: 0.01,
            neighbours: 2,
            near_copy_bits: Some(2),
            case_unit: Some(CaseUnit::Patient),
            grey: vec![0.5; 32],
            limits: [(Statistic::Side, Limit { low: Some(8.0), high: None })].into(),
            validation: FalseAlarms {
                images: 3,
                groups: 2,
                unit: "patient".into(),
                refused: 0,
                share: 0.0,
                by_code: std::collections::BTreeMap::new(),
            },
        },
        images: images.with_upright(Upright::new(vec![[7; 256], [9; 256]])).with_cases(cases),
    })
}

fn bundles(folder: &Path) -> Result<()> {
    let place = tempfile::tempdir()?;
    let dir = place.path().join("bundle");
    Bundle::save(&dir, parts(0), &weights(0), &[picture()?])?;
    write(folder, "bundle", "plain", &packed(&dir)?)?;
    Bundle::save(&dir, parts(3), &weights(3), &[picture()?])?;
    write(folder, "bundle", "hidden", &packed(&dir)?)?;
    let calibration = Calibration {
        method: CalibrationMethod::Temperature,
        temperature: 1.5,
        images: 20,
        groups: 4,
        unit: "patient".into(),
        ece_before: 0.75,
        ece_after: 0.5,
    };
    let abstention = Abstention {
        method: AbstentionMethod::HierarchicalConformal,
        error_rate: 0.1,
        scope: Scope::Label,
        thresholds: vec![0.25, 0.25],
        groups: 40,
        groups_of_label: vec![20, 20],
        needed: 9,
        unit: "patient".into(),
        chosen_by_validation: false,
    };
    let read = BundleParts {
        calibration: Some(calibration.clone()),
        abstention: Some(abstention.clone()),
        patient: Some(PatientReading { calibration, abstention }),
        ..parts(0)
    };
    Bundle::save_with(&dir, read, &weights(0), &[picture()?], Some(&gate()?))?;
    record_evaluation(&dir, Gate::new(vec![]), "5".into())?;
    write(folder, "bundle", "gated", &packed(&dir)?)?;
    let (meta, arrays) = Bundle::open_weights(&dir)?;
    let mut calibrator = meta.architecture.calibrator(&arrays, SIZE)?;
    calibrator.add(&meta.preprocessing.apply(&picture()?), 1)?;
    let quantized = Quantized::new(&dir, &calibrator.finish())?;
    let calibration = CalibrationSet { images: 20, patients: Some(4), digest: "c".into() };
    let holdout = Holdout {
        images: 20,
        patients: None,
        digest: "h".into(),
        largest_change: 0.125,
        mean_change: 0.03125,
        labels_changed: 1,
        share_changed: 0.0,
        tolerance: 0.1,
        auroc_f32: Some(0.75),
        auroc_int8: None,
        feature_distance: None,
    };
    quantized.save(&dir, &dir, calibration, holdout)?;
    write(folder, "bundle", "quantized", &packed(&dir)?)
}

/// The input that stands for a bundle.
fn packed(dir: &Path) -> Result<Vec<u8>> {
    let mut meta = fs_err::read_to_string(dir.join(FILES[0]))?;
    let mut input = Vec::new();
    for name in &FILES[1..] {
        let path = dir.join(name);
        input.extend_from_slice(BREAK);
        if !path.exists() {
            continue;
        }
        let bytes = fs_err::read(path)?;
        meta = meta.replace(&nephros_core::digest::sha256(&bytes), &format!("sha256:{name}"));
        if name.ends_with(".json") {
            input.extend_from_slice(&bytes);
            continue;
        }
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("no header")?;
        let (header, arrays) = rest.split_at(u64::from_le_bytes(*length) as usize);
        input.extend_from_slice(header);
        input.push(b'\n');
        input.extend_from_slice(&pack(arrays));
    }
    Ok([meta.into_bytes(), input].concat())
}

fn keras_files(folder: &Path) -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = place.path().join("model");
    for (name, hidden_units, optimizer) in
        [("sgd", 0, Optimizer::Sgd { momentum: 0.9 }), ("hidden", 3, Optimizer::Adam)]
    {
        let weights = weights(hidden_units);
        let model = ModelFile {
            architecture: Architecture::Compact,
            image_size: SIZE,
            hidden_units,
            classes: Some(2),
            weights: &weights,
            frozen: false,
            optimizer,
            learning_rate: 0.01,
        };
        keras::write_model(&path, &model)?;
        write(folder, "keras", &format!("{name}.h5"), &pack(&fs_err::read(&path)?))?;
        keras::write_archive(&path, &model, "{}")?;
        write(folder, "keras", &format!("{name}.keras"), &pack(&fs_err::read(&path)?))?;
    }
    Ok(())
}
