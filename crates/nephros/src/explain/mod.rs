//! `explain`: images in, heat maps with their verdicts out, in the order given.

mod masks;
mod overlays;
mod report;

use std::{path::Path, time::Instant};

use nephros_core::explain::{Explainer, Question, lesion, overlay};
use nephros_train::{
    files::write_atomic,
    progress::{Cancelled, Progress as _, Unit},
};

use self::{
    overlays::Overlays,
    report::{Explained, Report},
};
use crate::{
    cli::{ExplainArgs, Global},
    errors::{CliError, Status},
    interrupt, model, output,
    predict::{inputs, report::Failure},
    progress::Display,
};

/// Runs the command; [`Status::Failed`] when any path failed.
pub fn run(args: &ExplainArgs, global: &Global) -> anyhow::Result<Status> {
    let path = model::find(args.model.model.as_deref(), global)?;
    let explainer = Explainer::load(
        &path,
        args.model.preprocessing.map(Into::into),
        args.model.precision.map(Into::into),
    )?;
    if let Some(assumption) = explainer.predictor().assumption() {
        output::note(&format!("note: {assumption}"));
    }
    if args.similar > 0 {
        model::check_cases(explainer.predictor())?;
    }
    let labels = explainer.predictor().labels();
    let class = args.class.as_deref().map(|name| class_of(name, labels)).transpose()?;
    let question = Question { method: args.method.into(), class, seed: args.seed };
    let mut overlays = Overlays::new(&args.out, question.method);
    let mut inputs = Vec::new();
    for root in &args.paths {
        inputs.extend(inputs::list(root).into_iter().map(|input| (overlays.name(root, &input.path), input)));
    }
    let mut report = Report::new(args.json, question.method, labels);
    let task = Display::new(global).task("explaining", Some(inputs.len() as u64), Unit::Items);
    for (overlay, input) in &inputs {
        if interrupt::requested() {
            return Err(Cancelled.into());
        }
        let explained = explain(input, overlay, &explainer, question, args)?;
        report.add(&input.path, overlay, explained)?;
        task.advance(1);
    }
    drop(task);
    Ok(report.finish(global.quiet))
}

/// The place of a class among the model's labels.
fn class_of(name: &str, labels: &[String]) -> Result<usize, CliError> {
    labels
        .iter()
        .position(|label| label == name)
        .ok_or_else(|| CliError::UnknownClass { class: name.to_owned(), known: labels.join(", ") })
}

/// Explains one file and writes its overlay. A file that cannot be read is one failure; an overlay
/// that cannot be written ends the command, as the next would fail too.
fn explain(
    input: &inputs::Input,
    overlay: &Path,
    explainer: &Explainer,
    question: Question,
    args: &ExplainArgs,
) -> anyhow::Result<Result<Explained, Failure>> {
    let begun = Instant::now();
    let image = match input.read() {
        Ok(image) => image,
        Err(failure) => return Ok(Err(failure)),
    };
    let lesion = match args.masks.as_deref().map(|masks| masks::read(masks, &input.path, &image)).transpose()
    {
        Ok(lesion) => lesion,
        Err(error) => return Ok(Err(error.into())),
    };
    let explanation = explainer.explain(&image, question)?;
    let label = &explainer.predictor().labels()[explanation.class];
    let png = overlay::png(&overlay::draw(&image, &explanation, label))?;
    write_atomic(overlay, &png)?;
    let in_lesion = lesion.and_then(|lesion| lesion::compare(&explanation, &image, &lesion));
    let similar = (args.similar > 0).then(|| explainer.similar(&image, args.similar)).transpose()?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    Ok(Ok(Explained { explanation, in_lesion, similar, milliseconds }))
}
