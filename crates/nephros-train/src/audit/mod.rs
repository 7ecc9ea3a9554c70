//! Which images of a dataset are likely one patient's, and what a random split would leak of them.
//!
//! Each picture is remembered by a fingerprint; all pairs are compared; equal pixels, near
//! duplicates, resembling slices and adjacent file numbers are joined into pseudo-patients. The
//! groups are found, not known: two series of one patient that look different stay apart.

pub mod chains;
pub mod embedding;
mod error;
pub mod fingerprint;
pub mod groups;
pub mod neighbours;
mod report;
pub mod source;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use embedding::Embeddings;
pub use error::AuditError;
use fingerprint::Fingerprint;
use groups::Grouping;
use nephros_core::{
    input_gate::pooled_features,
    pixels::{self, RgbImage},
    predictor::Predictor,
};
use rayon::prelude::*;
pub use report::{Audit, Broken, Conflict, Member, Summary, Votes};
use source::{Source, Subject};

use crate::{
    ingest::inspect::MAX_FILE_BYTES,
    progress::{Cancelled, Progress, Unit, check},
};

/// Audits a folder, a zip or a `manifest.csv`; `model` adds its features to the evidence.
///
/// # Errors
/// See [`AuditError`].
pub fn audit(path: &Path, model: Option<&Predictor>, progress: &dyn Progress) -> Result<Audit, AuditError> {
    let source = Source::open(path, progress)?;
    let audit = examine(&source.root, source.subjects, model, progress)?;
    if audit.members.is_empty() {
        return Err(AuditError::NoUsable { path: path.into(), broken: audit.broken.len() });
    }
    Ok(audit)
}

/// Audits images below `root`; those that cannot be decoded, or of which the model makes no features,
/// are listed.
///
/// # Errors
/// [`Cancelled`].
pub fn examine(
    root: &Path,
    subjects: Vec<Subject>,
    model: Option<&Predictor>,
    progress: &dyn Progress,
) -> Result<Audit, Cancelled> {
    let looks = looks(root, &subjects, model, progress)?;
    let (mut members, mut usable, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    let mut features = Vec::new();
    for (subject, look) in subjects.into_iter().zip(looks) {
        match look {
            Ok(look) => {
                usable.push(look.print);
                features.extend(look.features);
                members.push(subject);
            }
            Err(reason) => broken.push(Broken { path: subject.path, reason }),
        }
    }
    if members.is_empty() {
        return Ok(Audit { broken, ..Audit::default() });
    }
    let embeddings = model.map(|_| Embeddings::of(&features, features.len() / members.len()));
    let subjects: Vec<&Subject> = members.iter().collect();
    let grouping = Grouping::of(&usable, &subjects, embeddings.as_ref(), progress)?;
    let votes = Votes::of(&usable, &members, &grouping.groups, progress)?;
    Ok(Audit::new(members, &grouping, votes, broken))
}

/// What is remembered of an image.
struct Look {
    print: Fingerprint,
    /// Of the model, pooled to a value for each channel; none without a model.
    features: Vec<f32>,
}

/// A look at each image, or why there is none; on all cores, in order.
fn looks(
    root: &Path,
    subjects: &[Subject],
    model: Option<&Predictor>,
    progress: &dyn Progress,
) -> Result<Vec<Result<Look, String>>, Cancelled> {
    let task = progress.task("read images", Some(subjects.len() as u64), Unit::Items);
    let stopped = AtomicBool::new(false);
    let looks: Vec<_> = subjects
        .par_iter()
        .filter_map(|subject| {
            if stopped.load(Ordering::Relaxed) || check(progress).is_err() {
                stopped.store(true, Ordering::Relaxed);
                return None;
            }
            let look = decoded(&root.join(&subject.path)).and_then(|image| Look::at(&image, model));
            task.advance(1);
            Some(look)
        })
        .collect();
    if stopped.into_inner() { Err(Cancelled) } else { Ok(looks) }
}

impl Look {
    fn at(image: &RgbImage, model: Option<&Predictor>) -> Result<Self, String> {
        let features = model.map(|model| {
            let features = model.features(&model.preprocessing().apply(image), 1);
            features.map(|features| pooled_features(&features, model.feature_channels()))
        });
        let features = features.transpose().map_err(|error| error.to_string())?.unwrap_or_default();
        Ok(Self { print: Fingerprint::of(image), features })
    }
}

fn decoded(path: &Path) -> Result<RgbImage, String> {
    let length = fs_err::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("expected at most {MAX_FILE_BYTES} bytes, got {length}"));
    }
    let bytes = fs_err::read(path).map_err(|error| error.to_string())?;
    pixels::decode(&bytes).map_err(|error| error.to_string())
}
