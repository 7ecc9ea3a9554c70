//! `predict`: images in, labels out, in the order given.

pub mod inputs;
mod patients;
pub mod report;

use std::time::Instant;

use anyhow::Context as _;
use nephros_core::{input_gate::Traits, predictor::Predictor};
use nephros_train::progress::{Cancelled, Progress as _, Unit};
use rayon::prelude::*;

use self::{
    inputs::Input,
    patients::Patients,
    report::{Failure, Outcome, Predicted, Report},
};
use crate::{
    cli::{Global, PredictArgs},
    errors::Status,
    interrupt, model, output,
    progress::Display,
};

/// Files decoded and classified together: enough for all cores, few enough for any memory.
const CHUNK: usize = 32;

/// Runs the command; [`Status::Failed`] when any path failed.
pub fn run(args: &PredictArgs, global: &Global) -> anyhow::Result<Status> {
    let predictor = model::load(&args.model, global)?;
    if args.similar > 0 {
        model::check_cases(&predictor)?;
    }
    if args.patients && !predictor.knows_patients() && !global.quiet {
        output::note(
            "note: this model knows no error rate for patients: their probability is the mean of their images', and \
             none is referred to a radiologist; train it on images of known patients",
        );
    }
    let inputs: Vec<Input> = args.paths.iter().flat_map(|path| inputs::list(path)).collect();
    let widest = inputs.iter().map(|input| input.path.to_string_lossy().chars().count()).max();
    let mut report = Report::new(args.json, &predictor, widest.unwrap_or_default());
    let mut patients = args.patients.then(Patients::default);
    let task = Display::new(global).task("predicting", Some(inputs.len() as u64), Unit::Items);
    for chunk in inputs.chunks(CHUNK) {
        if interrupt::requested() {
            return Err(Cancelled.into());
        }
        for (input, outcome) in chunk.iter().zip(predict_chunk(chunk, &predictor, args.similar)?) {
            if let Some(patients) = &mut patients {
                patients.add(&input.path, outcome.as_ref().ok());
            }
            report.add(&input.path, outcome)?;
        }
        task.advance(chunk.len() as u64);
    }
    drop(task);
    for patient in patients.iter().flat_map(Patients::all) {
        report.add_patient(patient)?;
    }
    Ok(report.finish(global.quiet))
}

/// One outcome for each input, in order.
///
/// An image is measured and brought to the network's size as soon as it is decoded: what is in memory at a time
/// is one image a core and the network input of a chunk, however large the images are.
fn predict_chunk(chunk: &[Input], predictor: &Predictor, similar: usize) -> anyhow::Result<Vec<Outcome>> {
    let read: Vec<Result<Prepared, Failure>> =
        chunk.par_iter().map(|input| prepare(input, predictor)).collect();
    let inputs: Vec<&[f32]> = read.iter().flatten().map(|prepared| prepared.values.as_slice()).collect();
    let begun = Instant::now();
    let features = predictor.features(&inputs.concat(), inputs.len())?;
    let predictions = predictor.predict_features(&features, inputs.len())?;
    let shared_ms = milliseconds(begun) / inputs.len().max(1) as f64;
    let each = features.chunks_exact((features.len() / inputs.len().max(1)).max(1));
    let mut answers = predictions.into_iter().zip(each);
    let outcomes = read.into_iter().map(|read| {
        let Prepared { traits, milliseconds, .. } = read?;
        let (prediction, features) = answers.next().context("the model gave fewer answers than images")?;
        let reasons = predictor.reasons(traits.as_ref(), features);
        let similar = (similar > 0).then(|| predictor.similar(features, similar));
        Ok(Predicted { prediction, reasons, similar, milliseconds: milliseconds + shared_ms })
    });
    Ok(outcomes.collect())
}

/// An image before the network.
struct Prepared {
    /// Network input.
    values: Vec<f32>,
    /// What the input gate needs.
    traits: Option<Traits>,
    /// What it took.
    milliseconds: f64,
}

fn prepare(input: &Input, predictor: &Predictor) -> Result<Prepared, Failure> {
    let begun = Instant::now();
    let image = input.read()?;
    let (values, traits) = (predictor.preprocessing().apply(&image), predictor.traits(&image));
    Ok(Prepared { values, traits, milliseconds: milliseconds(begun) })
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
