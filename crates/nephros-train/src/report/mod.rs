//! The report of an evaluation: one page that a radiologist can read, the same as JSON, and the
//! plots as files.
//!
//! [`Report::new`] makes it of values alone; [`files`] is what is written of it. Both name patients
//! as the user's CSV does, and the page shows pictures of them: it goes no further than the data.

mod checks;
mod curves;
mod html;
mod model;
mod orientations;
mod plots;
mod sections;
mod svg;
#[cfg(test)]
mod tests;
mod thumbnails;

use std::io;

use serde::Serialize;

pub use curves::{AbstentionPoint, ClassCurves, PrecisionRecallPoint, RocPoint};
pub use model::{Evidence, ModelCard, PatientRow, Report, SplitSummary, SubsetSummary, WrongImage};
pub use orientations::OrientationRow;
pub use thumbnails::{HeatPicture, Thumbnail, thumbnails};

/// The files of a report, by their path below the folder of the evaluation. All are made before the
/// first is written.
///
/// # Errors
/// A value that cannot be written as JSON or CSV.
pub fn files(report: &Report, thumbnails: &[Thumbnail]) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    let mut files = vec![
        ("report.json", json),
        ("plots/roc.csv", roc_table(report)?),
        ("plots/pr.csv", precision_recall_table(report)?),
        ("plots/reliability.csv", rows(&report.scores.calibration.reliability)?),
        ("plots/abstention.csv", rows(&report.abstention_curve)?),
    ];
    let plots = plots::all(report).into_iter();
    files.extend(plots.map(|plot| (plot.file, plot.svg.into_bytes())));
    files.push(("report.html", html::page(report, thumbnails).into_bytes()));
    Ok(files)
}

/// A line for each value, its fields as columns.
fn rows<T: Serialize>(values: &[T]) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for value in values {
        writer.serialize(value).map_err(io::Error::other)?;
    }
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn roc_table(report: &Report) -> io::Result<Vec<u8>> {
    let values = |p: &RocPoint| (p.threshold, [p.false_positive_rate, p.true_positive_rate]);
    table(report, ["false_positive_rate", "true_positive_rate"], |curves| &curves.roc, values)
}

fn precision_recall_table(report: &Report) -> io::Result<Vec<u8>> {
    let values = |p: &PrecisionRecallPoint| (p.threshold, [p.recall, p.precision]);
    table(report, ["recall", "precision"], |curves| &curves.precision_recall, values)
}

/// The points of a curve of every class, one below the other, the class in front. The point above all
/// thresholds has an empty one.
fn table<T>(
    report: &Report,
    columns: [&str; 2],
    points: impl Fn(&ClassCurves) -> &[T],
    values: impl Fn(&T) -> (Option<f32>, [f64; 2]),
) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["class", "threshold", columns[0], columns[1]])?;
    for curves in &report.curves {
        for (threshold, [x, y]) in points(curves).iter().map(&values) {
            let threshold = threshold.map_or(String::new(), |threshold| threshold.to_string());
            writer.write_record([&curves.class, &threshold, &x.to_string(), &y.to_string()])?;
        }
    }
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}
