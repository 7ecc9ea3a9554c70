//! Which images of a dataset are likely one patient's, and what a random split would leak of them.
//!
//! Each picture is remembered by a fingerprint; all pairs are compared; equal pixels, near
//! duplicates, resembling slices and adjacent file numbers are joined into pseudo-patients. The
//! groups are found, not known: two series of one patient that look different stay apart.

pub mod chains;
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

pub use error::AuditError;
use fingerprint::Fingerprint;
use groups::Grouping;
use nephros_core::pixels;
use rayon::prelude::*;
pub use report::{Audit, Broken, Conflict, Member, Summary, Votes};
use source::{Source, Subject};

use crate::{
    ingest::inspect::MAX_FILE_BYTES,
    progress::{Cancelled, Progress, Unit, check},
};

/// Audits a folder, a zip or a `manifest.csv`.
///
/// # Errors
/// See [`AuditError`].
pub fn audit(path: &Path, progress: &dyn Progress) -> Result<Audit, AuditError> {
    let source = Source::open(path, progress)?;
    let audit = examine(&source.root, source.subjects, progress)?;
    if audit.members.is_empty() {
        return Err(AuditError::NoUsable { path: path.into(), broken: audit.broken.len() });
    }
    Ok(audit)
}

/// Audits images below `root`; those that cannot be decoded are listed.
///
/// # Errors
/// [`Cancelled`].
pub fn examine(root: &Path, subjects: Vec<Subject>, progress: &dyn Progress) -> Result<Audit, Cancelled> {
    let prints = fingerprints(root, &subjects, progress)?;
    let (mut members, mut usable, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for (subject, print) in subjects.into_iter().zip(prints) {
        match print {
            Ok(print) => {
                usable.push(print);
                members.push(subject);
            }
            Err(reason) => broken.push(Broken { path: subject.path, reason }),
        }
    }
    if members.is_empty() {
        return Ok(Audit { broken, ..Audit::default() });
    }
    let grouping = Grouping::of(&usable, &members.iter().collect::<Vec<_>>(), progress)?;
    let votes = Votes::of(&usable, &members, &grouping.groups, progress)?;
    Ok(Audit::new(members, &grouping, votes, broken))
}

/// A fingerprint of each image, or why there is none; on all cores, in order.
fn fingerprints(
    root: &Path,
    subjects: &[Subject],
    progress: &dyn Progress,
) -> Result<Vec<Result<Fingerprint, String>>, Cancelled> {
    let task = progress.task("read images", Some(subjects.len() as u64), Unit::Items);
    let stopped = AtomicBool::new(false);
    let prints: Vec<_> = subjects
        .par_iter()
        .filter_map(|subject| {
            if stopped.load(Ordering::Relaxed) || check(progress).is_err() {
                stopped.store(true, Ordering::Relaxed);
                return None;
            }
            let print = fingerprint(&root.join(&subject.path));
            task.advance(1);
            Some(print)
        })
        .collect();
    if stopped.into_inner() { Err(Cancelled) } else { Ok(prints) }
}

fn fingerprint(path: &Path) -> Result<Fingerprint, String> {
    let length = fs_err::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("expected at most {MAX_FILE_BYTES} bytes, got {length}"));
    }
    let bytes = fs_err::read(path).map_err(|error| error.to_string())?;
    let image = pixels::decode(&bytes).map_err(|error| error.to_string())?;
    Ok(Fingerprint::of(&image))
}
