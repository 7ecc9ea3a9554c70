//! `predict`: images in, labels out, in the order given.

mod inputs;
mod report;

use std::time::Instant;

use nephros_core::pixels::RgbImage;
use nephros_train::progress::{Cancelled, Progress as _, Unit};
use rayon::prelude::*;

use self::{
    inputs::Input,
    report::{Failure, Outcome, Report},
};
use crate::{
    cli::{Global, PredictArgs},
    errors::Status,
    interrupt,
    model::{self, Predictor},
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
fn predict_chunk(chunk: &[Input], predictor: &Predictor) -> anyhow::Result<Vec<Outcome>> {
    let read: Vec<Result<(RgbImage, f64), Failure>> = chunk.par_iter().map(read_timed).collect();
    let mut images = Vec::with_capacity(chunk.len());
    let read_ms: Vec<Result<f64, Failure>> = read
        .into_iter()
        .map(|read| {
            let (image, read_ms) = read?;
            images.push(image);
            Ok(read_ms)
        })
        .collect();
    let begun = Instant::now();
    let mut predictions = predictor.predict_batch(&images)?.into_iter();
    let shared_ms = milliseconds(begun) / images.len().max(1) as f64;
    let outcomes = read_ms.into_iter().map(|read_ms| {
        let read_ms = read_ms?;
        Ok((predictions.next().unwrap_or_default(), read_ms + shared_ms))
    });
    Ok(outcomes.collect())
}

/// A decoded image and the milliseconds that took.
fn read_timed(input: &Input) -> Result<(RgbImage, f64), Failure> {
    let begun = Instant::now();
    let image = input.read()?;
    Ok((image, milliseconds(begun)))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
