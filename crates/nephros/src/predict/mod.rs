//! `predict`: images in, labels out, in the order given.

pub mod inputs;
pub mod report;

use std::time::Instant;

use anyhow::Context as _;
use nephros_core::predictor::Predictor;
use nephros_train::progress::{Cancelled, Progress as _, Unit};
use rayon::prelude::*;

use self::{
    inputs::Input,
    report::{Failure, Outcome, Report},
};
use crate::{
    cli::{Global, PredictArgs},
    errors::Status,
    interrupt, model,
    progress::Display,
};

/// Files decoded and classified together: enough for all cores, few enough for any memory.
const CHUNK: usize = 32;

/// Runs the command; [`Status::Failed`] when any path failed.
pub fn run(args: &PredictArgs, global: &Global) -> anyhow::Result<Status> {
    let predictor = model::load(&args.model, global)?;
    let inputs: Vec<Input> = args.paths.iter().flat_map(|path| inputs::list(path)).collect();
    let widest = inputs.iter().map(|input| input.path.to_string_lossy().chars().count()).max();
    let mut report = Report::new(args.json, &predictor, widest.unwrap_or_default());
    let task = Display::new(global).task("predicting", Some(inputs.len() as u64), Unit::Items);
    for chunk in inputs.chunks(CHUNK) {
        if interrupt::requested() {
            return Err(Cancelled.into());
        }
        for (input, outcome) in chunk.iter().zip(predict_chunk(chunk, &predictor)?) {
            report.add(&input.path, outcome)?;
        }
        task.advance(chunk.len() as u64);
    }
    drop(task);
    Ok(report.finish(global.quiet))
}

/// One outcome for each input, in order.
///
/// An image is brought to the network's size as soon as it is decoded: what is in memory at a time
/// is one image a core and the network input of a chunk, however large the images are.
fn predict_chunk(chunk: &[Input], predictor: &Predictor) -> anyhow::Result<Vec<Outcome>> {
    let read: Vec<Result<(Vec<f32>, f64), Failure>> =
        chunk.par_iter().map(|input| prepare(input, predictor)).collect();
    let inputs: Vec<&[f32]> = read.iter().flatten().map(|(values, _)| values.as_slice()).collect();
    let begun = Instant::now();
    let mut predictions = predictor.predict_input(&inputs.concat(), inputs.len())?.into_iter();
    let shared_ms = milliseconds(begun) / inputs.len().max(1) as f64;
    let outcomes = read.into_iter().map(|read| {
        let (_, prepare_ms) = read?;
        let prediction = predictions.next().context("the model gave fewer answers than images")?;
        Ok((prediction, prepare_ms + shared_ms))
    });
    Ok(outcomes.collect())
}

/// Network input of a file, and the milliseconds that it took.
fn prepare(input: &Input, predictor: &Predictor) -> Result<(Vec<f32>, f64), Failure> {
    let begun = Instant::now();
    let values = predictor.preprocessing().apply(&input.read()?);
    Ok((values, milliseconds(begun)))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
