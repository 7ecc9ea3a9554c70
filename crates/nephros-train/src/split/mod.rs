//! Which images are for training, validation and test: decided once, written down, checked before
//! every fit and evaluation.

mod check;
mod draw;
mod error;
mod file;
mod groups;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use nephros_core::digest::sha256;
use serde::{Deserialize, Serialize};

pub use error::SplitError;
pub(crate) use groups::{grouped, root, union};

use crate::{
    config::{Params, SplitBy},
    manifest::Record,
};

/// Side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subset {
    /// Fitted on.
    Train,
    /// Chooses the best epoch.
    Validation,
    /// Scored once, at the end.
    Test,
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// What kept images together when the split was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Patients (or series) of the manifest.
    Patient,
    /// Groups that the audit found, because no patient is known.
    Group,
    /// Runs of adjacent file numbers, because no patient is known and the groups are too few.
    Run,
    /// Nothing: each image on its own.
    Image,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patient => "patient",
            Self::Group => "group",
            Self::Run => "run",
            Self::Image => "image",
        })
    }
}

impl Unit {
    /// What `SPLIT_BY` keeps together among these records: patients only if all are known, else the
    /// groups that the audit found if they can be shared out.
    pub fn of(records: &[Record], split_by: SplitBy) -> Self {
        match split_by {
            SplitBy::Patient if records.iter().all(|record| !record.patient.is_empty()) => Self::Patient,
            SplitBy::Patient if groups::can_share(records) => Self::Group,
            SplitBy::Patient => Self::Run,
            SplitBy::Random | SplitBy::Keras => Self::Image,
        }
    }
}

/// One image's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// As in the manifest.
    pub path: String,
    /// Class folder.
    pub class: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Patient, empty when unknown.
    pub patient: String,
    /// Group that the audit found, empty when there is none.
    pub group: String,
    /// Its side.
    pub subset: Subset,
}

/// A split of a manifest, in the manifest's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// One for each image.
    pub assignments: Vec<Assignment>,
    /// What was kept together.
    pub unit: Unit,
}

impl Split {
    /// Shares the images of a manifest out as `SPLIT_BY`, `VALIDATION_SPLIT`, `TEST_SPLIT` and
    /// `SEED` say. `records` are those of the classes in use.
    ///
    /// # Errors
    /// [`SplitError::TooFew`].
    pub fn new(records: &[Record], params: &Params) -> Result<Self, SplitError> {
        let unit = Unit::of(records, params.split_by);
        let subsets = match params.split_by {
            SplitBy::Keras => draw::by_name(records, params),
            SplitBy::Patient | SplitBy::Random => draw::by_unit(records, params, unit),
        };
        let split = Self::from_subsets(records, &subsets, unit);
        split.check_classes()?;
        Ok(split)
    }

    /// Builds a split from a side for each record, as cross-validation does.
    pub fn from_subsets(records: &[Record], subsets: &[Subset], unit: Unit) -> Self {
        let assignments = records
            .iter()
            .zip(subsets)
            .map(|(record, &subset)| Assignment {
                path: record.path.clone(),
                class: record.class.clone(),
                sha256: record.sha256.clone(),
                patient: record.patient.clone(),
                group: record.group.clone(),
                subset,
            })
            .collect();
        Self { assignments, unit }
    }

    /// The same images on as large sides, each image put there on its own: what a split that does not
    /// keep patients together would be. Copies of an image stay together.
    #[must_use]
    pub fn at_random(&self, records: &[Record], seed: u64) -> Self {
        Self::from_subsets(records, &draw::by_image(records, self, seed), Unit::Image)
    }

    /// Positions of a subset's images in the manifest.
    pub fn indices(&self, subset: Subset) -> Vec<usize> {
        let sides = self.assignments.iter().enumerate();
        sides.filter(|(_, assignment)| assignment.subset == subset).map(|(index, _)| index).collect()
    }

    /// Distinct known patients in a subset.
    pub fn patients(&self, subset: Subset) -> BTreeSet<&str> {
        let members = self.assignments.iter().filter(|assignment| assignment.subset == subset);
        members.map(|assignment| assignment.patient.as_str()).filter(|patient| !patient.is_empty()).collect()
    }

    /// Groups of a subset that the audit found.
    pub fn groups_found(&self, subset: Subset) -> BTreeSet<&str> {
        let members = self.assignments.iter().filter(|assignment| assignment.subset == subset);
        members.map(|assignment| assignment.group.as_str()).filter(|group| !group.is_empty()).collect()
    }

    /// For each image of a subset its group: those that were kept together share it.
    pub fn groups(&self, records: &[Record], subset: Subset) -> Vec<usize> {
        let groups = grouped(records, self.unit);
        self.indices(subset).into_iter().map(|index| groups[index]).collect()
    }

    /// SHA-256 over what was decided.
    pub fn digest(&self) -> String {
        // Without groups the line, and so the digest, is that of earlier versions.
        let group =
            |a: &Assignment| if a.group.is_empty() { String::new() } else { format!("\t{}", a.group) };
        let line =
            |a: &Assignment| format!("{}\t{}\t{}\t{}{}\n", a.sha256, a.class, a.patient, a.subset, group(a));
        let lines: Vec<String> = self.assignments.iter().map(line).collect();
        sha256(lines.concat().as_bytes())
    }
}
