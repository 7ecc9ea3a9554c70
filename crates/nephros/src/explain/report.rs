//! The lines of `explain`: text or JSON.

use std::path::Path;

use nephros_core::{
    explain::{Explanation, Faithfulness, Method, lesion::InLesion, overlay},
    input_gate::Similar,
};
use serde::Serialize;

use crate::{
    errors::Status,
    output,
    predict::report::{Failure, similar_line, write_failure},
};

/// One explained file.
#[derive(Debug)]
pub struct Explained {
    /// The map and its check.
    pub explanation: Explanation,
    /// The map against a mask, where there is one with a lesion.
    pub in_lesion: Option<InLesion>,
    /// The nearest training slices, where they were asked for.
    pub similar: Option<Vec<Similar>>,
    /// From reading the file to having written the overlay.
    pub milliseconds: f64,
}

/// Writes outcomes as they come and counts them.
#[derive(Debug)]
pub struct Report<'a> {
    json: bool,
    method: Method,
    labels: &'a [String],
    explained: usize,
    faithful: usize,
    failed: usize,
    in_lesion: Vec<InLesion>,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    label: &'a str,
    class: &'a str,
    method: &'a str,
    overlay: &'a str,
    faithful: Option<bool>,
    drop_hot: Option<f64>,
    drop_random: Option<f64>,
    milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mass_in_lesion: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lesion_share_of_body: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similar: Option<&'a [Similar]>,
}

impl<'a> Report<'a> {
    /// A report without lines yet.
    pub fn new(json: bool, method: Method, labels: &'a [String]) -> Self {
        Self { json, method, labels, explained: 0, faithful: 0, failed: 0, in_lesion: Vec::new() }
    }

    /// Writes the outcome of one path.
    pub fn add(
        &mut self,
        path: &Path,
        overlay: &Path,
        outcome: Result<Explained, Failure>,
    ) -> anyhow::Result<()> {
        let (path, overlay) = (path.to_string_lossy(), overlay.to_string_lossy());
        let explained = match outcome {
            Ok(explained) => explained,
            Err(failure) => {
                self.failed += 1;
                return write_failure(self.json, &path, &failure);
            }
        };
        self.explained += 1;
        let check = explained.explanation.faithfulness.as_ref();
        self.faithful += usize::from(check.is_some_and(Faithfulness::is_faithful));
        self.in_lesion.extend(explained.in_lesion);
        let line = self.line(&path, &overlay, &explained);
        if self.json {
            return output::line(&serde_json::to_string(&line)?);
        }
        let (label, verdict) = (line.class, overlay::verdict(&explained.explanation));
        output::line(&format!("{path}  {label}  {overlay}\n  {verdict}"))?;
        explained.similar.iter().flatten().try_for_each(|slice| output::line(&similar_line(slice)))
    }

    fn line<'b>(&'b self, path: &'b str, overlay: &'b str, explained: &'b Explained) -> Line<'b> {
        let Explained { explanation, in_lesion, similar, milliseconds } = explained;
        let check = explanation.faithfulness.as_ref();
        Line {
            path,
            label: &self.labels[explanation.prediction.top()],
            class: &self.labels[explanation.class],
            method: self.method.name(),
            overlay,
            faithful: check.map(Faithfulness::is_faithful),
            drop_hot: check.map(|check| check.drop_hot),
            drop_random: check.map(|check| check.drop_random),
            milliseconds: (milliseconds * 1e3).round() / 1e3,
            mass_in_lesion: in_lesion.map(|found| found.mass),
            lesion_share_of_body: in_lesion.map(|found| found.area),
            similar: similar.as_deref(),
        }
    }

    /// Writes the summary, unless `quiet`, and gives the status of the command.
    pub fn finish(&self, quiet: bool) -> Status {
        if !quiet {
            self.summary().into_iter().for_each(|line| output::note(&line));
        }
        if self.failed == 0 { Status::Done } else { Status::Failed }
    }

    fn summary(&self) -> Vec<String> {
        let (explained, faithful) = (self.explained, self.faithful);
        let failed = match self.failed {
            0 => String::new(),
            failed => format!("; {failed} could not be read"),
        };
        let first = format!("{explained} explained, {faithful} of the maps faithful{failed}");
        let count = self.in_lesion.len();
        if count == 0 {
            return vec![first];
        }
        let percent = |value: &dyn Fn(&InLesion) -> f64| {
            100.0 * self.in_lesion.iter().map(value).sum::<f64>() / count as f64
        };
        let second = format!(
            "{:.1} % of the maps' mass lies in the lesions, which are {:.1} % of the body; \
             the hottest pixel does in {:.0} % of {count} slices",
            percent(&|found| found.mass),
            percent(&|found| found.area),
            percent(&|found| f64::from(u8::from(found.peak_inside))),
        );
        vec![first, second]
    }
}
