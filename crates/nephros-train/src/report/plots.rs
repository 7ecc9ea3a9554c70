//! The pictures of a report.

use super::{
    model::Report,
    svg::{Anchor, COLORS, Frame, INK, Point, Svg, shorten},
};
use crate::{evaluate::Scores, train::history::Epoch};

/// One picture.
#[derive(Debug)]
pub(super) struct Plot {
    /// Path below the folder of the evaluation.
    pub file: &'static str,
    /// What it is.
    pub caption: String,
    /// The whole file.
    pub svg: String,
}

/// All of them, always: a picture without data says so, because a pipeline expects its file.
pub(super) fn all(report: &Report) -> [Plot; 6] {
    [
        roc(report),
        precision_recall(report),
        confusion_matrix(&report.scores),
        reliability(&report.scores),
        abstention(report),
        training(&report.history),
    ]
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 400.0;

/// The frame of a picture with one pair of axes.
fn frame(x: [f64; 2], y: [f64; 2]) -> Frame {
    Frame { left: 64.0, top: 16.0, width: 356.0, height: 330.0, x, y, whole_x: false }
}

const UNIT: [f64; 2] = [0.0, 1.0];

fn empty(file: &'static str, title: &str, why: &str) -> Plot {
    let mut svg = Svg::new(WIDTH, 80.0, title, why);
    svg.text((WIDTH / 2.0, 44.0), Anchor::Middle, why);
    Plot { file, caption: title.to_owned(), svg: svg.finish() }
}

/// Names of lines, one below the other, the last ending at `end`.
fn legend(svg: &mut Svg, (x, end): Point, names: &[String]) {
    for (index, name) in names.iter().enumerate() {
        let y = end - 19.0 * (names.len() - 1 - index) as f64;
        let width = 7.4 * name.chars().count() as f64;
        svg.rectangle((x - width - 26.0, y - 14.0), width + 30.0, 19.0, "#ffffff", 0.85);
        svg.line([(x - width - 22.0, y - 4.0), (x - width - 6.0, y - 4.0)], color(index), false);
        svg.text((x - width, y), Anchor::Start, name);
    }
}

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

const ONE_CLASS: &str = "All test images are of one class: there is no curve.";

fn roc(report: &Report) -> Plot {
    let title = "ROC curve";
    if report.curves.is_empty() {
        return empty("plots/roc.svg", title, ONE_CLASS);
    }
    let name = |class: &str, auroc: f64| format!("{} AUROC {auroc:.3}", shorten(class, 14));
    let names: Vec<String> = report.curves.iter().map(|curves| name(&curves.class, curves.auroc)).collect();
    let mut svg = Svg::new(WIDTH, HEIGHT, title, &names.join(", "));
    let frame = frame(UNIT, UNIT);
    frame.draw(&mut svg, "1 − specificity", "sensitivity");
    svg.line([(0.0, 0.0), (1.0, 1.0)].map(|point| frame.place(point)), INK, true);
    for (index, curves) in report.curves.iter().enumerate() {
        let points = curves.roc.iter().map(|p| frame.place((p.false_positive_rate, p.true_positive_rate)));
        svg.line(points, color(index), false);
    }
    legend(&mut svg, (412.0, 334.0), &names);
    let caption = "ROC curve. A model that guesses lies on the dashed line.".to_owned();
    Plot { file: "plots/roc.svg", caption, svg: svg.finish() }
}

fn precision_recall(report: &Report) -> Plot {
    let title = "Precision-recall curve";
    if report.curves.is_empty() {
        return empty("plots/pr.svg", title, ONE_CLASS);
    }
    let name = |class: &str, ap: f64| format!("{} AP {ap:.3}", shorten(class, 14));
    let names: Vec<String> =
        report.curves.iter().map(|curves| name(&curves.class, curves.average_precision)).collect();
    let mut svg = Svg::new(WIDTH, HEIGHT, title, &names.join(", "));
    let frame = frame(UNIT, UNIT);
    frame.draw(&mut svg, "recall (sensitivity)", "precision");
    for (index, curves) in report.curves.iter().enumerate() {
        let share = curves.prevalence;
        svg.line([(0.0, share), (1.0, share)].map(|point| frame.place(point)), color(index), true);
        let points = curves.precision_recall.iter().map(|p| frame.place((p.recall, p.precision)));
        svg.line(points, color(index), false);
    }
    legend(&mut svg, (412.0, 334.0), &names);
    let caption = "Precision-recall curve. A model that guesses lies on the dashed line.".to_owned();
    Plot { file: "plots/pr.svg", caption, svg: svg.finish() }
}

fn confusion_matrix(scores: &Scores) -> Plot {
    let (title, classes) = ("Confusion matrix", scores.labels.len());
    let side = (300.0 / classes.max(1) as f64).min(110.0);
    let (left, top) = (130.0, 62.0);
    let across = side * classes as f64;
    let described: Vec<String> = scores
        .labels
        .iter()
        .zip(&scores.confusion_matrix)
        .map(|(label, row)| {
            let called = row.iter().zip(&scores.labels).map(|(n, named)| format!("{n} called {named}"));
            format!("of {label}, {}", called.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let (width, height) = ((left + across + 20.0).max(260.0), top + across + 16.0);
    let mut svg = Svg::new(width, height, title, &described.join("; "));
    svg.text((left + across / 2.0, 18.0), Anchor::Middle, "the model says");
    svg.upright_text((16.0, top + across / 2.0), "true class");
    // About seven pixels a letter.
    let letters = (side / 7.0) as usize;
    for (row, label) in scores.labels.iter().enumerate() {
        let (x, y) = (left + side * row as f64, top + side * row as f64);
        svg.text((x + side / 2.0, top - 9.0), Anchor::Middle, &shorten(label, letters));
        svg.text((left - 8.0, y + side / 2.0 + 4.0), Anchor::End, &shorten(label, 13));
        let images: usize = scores.confusion_matrix[row].iter().sum();
        for (column, &n) in scores.confusion_matrix[row].iter().enumerate() {
            let share = n as f64 / images.max(1) as f64;
            let corner = (left + side * column as f64, y);
            cell(&mut svg, corner, side, n, share);
        }
    }
    let caption = "Confusion matrix: images, and their share of the true class.".to_owned();
    Plot { file: "plots/confusion_matrix.svg", caption, svg: svg.finish() }
}

/// One square, darker the larger its share of the row, but never too dark for the text.
fn cell(svg: &mut Svg, (x, y): Point, side: f64, n: usize, share: f64) {
    svg.rectangle((x, y), side, side, COLORS[0], 0.7 * share);
    let (x, y) = (x + side / 2.0, y + side / 2.0);
    svg.text((x, y - 2.0), Anchor::Middle, &n.to_string());
    svg.text((x, y + 15.0), Anchor::Middle, &format!("{:.0} %", 100.0 * share));
}

fn reliability(scores: &Scores) -> Plot {
    let calibration = &scores.calibration;
    let description = format!("calibration error {:.3} in {} bins", calibration.ece, calibration.ece_bins);
    let mut svg = Svg::new(WIDTH, HEIGHT, "Reliability", &description);
    let frame = frame(UNIT, UNIT);
    frame.draw(&mut svg, "the model's probability", "share that is right");
    svg.line([(0.0, 0.0), (1.0, 1.0)].map(|point| frame.place(point)), INK, true);
    let points: Vec<Point> =
        calibration.reliability.iter().map(|bin| frame.place((bin.confidence, bin.accuracy))).collect();
    svg.line(points.iter().copied(), COLORS[0], false);
    for (point, bin) in points.iter().zip(&calibration.reliability) {
        // The area is as the number of images.
        let radius = 3.0 + 9.0 * (bin.n as f64 / scores.n.max(1) as f64).sqrt();
        svg.circle(*point, radius, COLORS[0]);
    }
    let caption = "Reliability. Above the dashed line the model is right more often than it says, below it \
                   less often. The larger a dot, the more images."
        .to_owned();
    Plot { file: "plots/reliability.svg", caption, svg: svg.finish() }
}

fn abstention(report: &Report) -> Plot {
    let curve = &report.abstention_curve;
    let Some(all) = curve.last() else {
        return empty("plots/abstention.svg", "Abstention", "There are no test images.");
    };
    let description = format!("with every image answered, {:.3} of the answers are wrong", all.error_rate);
    let mut svg = Svg::new(WIDTH, HEIGHT, "Abstention", &description);
    let point = report
        .scores
        .abstention
        .as_ref()
        .and_then(|abstention| Some((1.0 - abstention.abstention_rate, abstention.error_rate_answered?)));
    let errors = curve.iter().map(|p| p.error_rate).chain(point.map(|(_, error)| error));
    let frame = frame(UNIT, [0.0, (1.1 * errors.fold(0.0, f64::max)).clamp(0.05, 1.0)]);
    frame.draw(&mut svg, "share answered", "share of answers that are wrong");
    svg.line(curve.iter().map(|p| frame.place((p.answered, p.error_rate))), COLORS[0], false);
    if let Some(point) = point {
        let (x, y) = frame.place(point);
        svg.circle((x, y), 7.0, COLORS[1]);
        // About seven pixels a letter; a box, because the curve may pass there.
        let (name, width) = ("as the bundle answers", 148.0);
        let left = if x > WIDTH / 2.0 { x - 11.0 - width } else { x + 11.0 };
        let y = (y - 8.0).max(frame.top + 16.0);
        svg.rectangle((left, y - 14.0), width, 19.0, "#ffffff", 0.85);
        svg.text((left + width / 2.0, y), Anchor::Middle, name);
    }
    let dot = match (&report.scores.abstention, point) {
        (None, _) => "The bundle has no error rate, so there is no dot.",
        (_, None) => "At the bundle's error rate no image is answered, so there is no dot.",
        _ => "The dot is what the bundle's error rate makes of it.",
    };
    let caption = format!(
        "Abstention. From right to left the model answers fewer images, the least sure left out first. {dot}"
    );
    Plot { file: "plots/abstention.svg", caption, svg: svg.finish() }
}

fn training(history: &[Epoch]) -> Plot {
    let (Some(first), Some(last)) = (history.first(), history.last()) else {
        return empty("plots/training.svg", "Training", "The history of the training is not there.");
    };
    let description = format!(
        "after {} epochs the validation loss is {:.3} and the validation accuracy {:.3}",
        last.epoch, last.validation_loss, last.validation_accuracy
    );
    let mut svg = Svg::new(WIDTH, 620.0, "Training", &description);
    let names = ["training", "validation"].map(String::from);
    // An axis needs some length, after one epoch too.
    let epochs = [first.epoch as f64, last.epoch.max(first.epoch + 1) as f64];
    let losses = history.iter().flat_map(|epoch| [epoch.train_loss, epoch.validation_loss]);
    let most = losses.filter(|loss| loss.is_finite()).fold(0.0, f64::max).max(1e-3);
    let upper = Frame { height: 230.0, whole_x: true, ..frame(epochs, [0.0, 1.05 * most]) };
    let lower = Frame { top: 326.0, ..Frame { y: UNIT, ..upper } };
    upper.draw(&mut svg, "epoch", "loss (nats)");
    lower.draw(&mut svg, "epoch", "accuracy");
    let mut curve = |frame: Frame, color: &str, value: fn(&Epoch) -> f64| {
        let points = history.iter().map(|epoch| (epoch.epoch as f64, value(epoch)));
        let points = points.filter(|(_, value)| value.is_finite()).map(|point| frame.place(point));
        svg.line(points, color, false);
    };
    curve(upper, COLORS[0], |epoch| epoch.train_loss);
    curve(upper, COLORS[1], |epoch| epoch.validation_loss);
    curve(lower, COLORS[0], |epoch| epoch.train_accuracy);
    curve(lower, COLORS[1], |epoch| epoch.validation_accuracy);
    legend(&mut svg, (412.0, 54.0), &names);
    legend(&mut svg, (412.0, 544.0), &names);
    let caption = "Training: loss and accuracy of each epoch.".to_owned();
    Plot { file: "plots/training.svg", caption, svg: svg.finish() }
}
