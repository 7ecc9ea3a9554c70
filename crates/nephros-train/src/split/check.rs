//! What is checked of a split before anything is fitted or scored.

use std::collections::{BTreeSet, HashMap};

use super::{Assignment, Split, SplitError, Subset, Unit};
use crate::manifest::Record;

impl Split {
    /// Checks that no patient and no image is on two sides, and no group where the split is by group.
    /// A split by image ([`Unit::Image`]) may share patients: that is what makes its score optimistic,
    /// and evaluation says so.
    ///
    /// # Errors
    /// [`SplitError::PatientLeak`], [`SplitError::GroupLeak`] and [`SplitError::ImageLeak`].
    pub fn check_disjoint(&self) -> Result<(), SplitError> {
        let mut images: HashMap<&str, &Assignment> = HashMap::new();
        let mut patients: HashMap<&str, Subset> = HashMap::new();
        let mut groups: HashMap<&str, Subset> = HashMap::new();
        for assignment in &self.assignments {
            let seen = images.entry(&assignment.sha256).or_insert(assignment);
            if seen.subset != assignment.subset {
                return Err(SplitError::ImageLeak {
                    first: seen.subset,
                    first_path: seen.path.clone(),
                    second: assignment.subset,
                    second_path: assignment.path.clone(),
                });
            }
            let second = assignment.subset;
            if self.unit == Unit::Group && !assignment.group.is_empty() {
                let first = *groups.entry(&assignment.group).or_insert(second);
                if first != second {
                    return Err(SplitError::GroupLeak { group: assignment.group.clone(), first, second });
                }
            }
            if self.unit == Unit::Image || assignment.patient.is_empty() {
                continue;
            }
            let first = *patients.entry(&assignment.patient).or_insert(second);
            if first != second {
                return Err(SplitError::PatientLeak { patient: assignment.patient.clone(), first, second });
            }
        }
        Ok(())
    }

    /// Checks that this is a split of these records.
    ///
    /// # Errors
    /// [`SplitError::OtherImages`].
    pub fn check_matches(&self, records: &[Record]) -> Result<(), SplitError> {
        if self.assignments.len() != records.len() {
            let detail =
                format!("{} images split, {} in the manifest", self.assignments.len(), records.len());
            return Err(SplitError::OtherImages { detail });
        }
        for (assignment, record) in self.assignments.iter().zip(records) {
            if assignment.sha256 != record.sha256 || assignment.class != record.class {
                let detail = format!("`{}` differs", record.path);
                return Err(SplitError::OtherImages { detail });
            }
        }
        Ok(())
    }

    pub(super) fn check_classes(&self) -> Result<(), SplitError> {
        let classes: BTreeSet<&str> = self.assignments.iter().map(|a| a.class.as_str()).collect();
        for class in classes {
            for subset in [Subset::Train, Subset::Validation, Subset::Test] {
                let members = || self.assignments.iter().filter(|a| a.class == class);
                if members().any(|a| a.subset == subset) {
                    continue;
                }
                let distinct =
                    |name: fn(&Assignment) -> &str| members().map(name).collect::<BTreeSet<_>>().len();
                let (have, unit) = match self.unit {
                    Unit::Patient => (distinct(|a| &a.patient), "patients"),
                    Unit::Group => (distinct(|a| &a.group), "groups"),
                    Unit::Run | Unit::Image => (members().count(), "images"),
                };
                return Err(SplitError::TooFew { subset, class: class.into(), have, unit });
            }
        }
        Ok(())
    }
}
