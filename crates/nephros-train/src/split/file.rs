//! The file of a split.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Assignment, Split, SplitError, Subset, Unit};
use crate::files::write_atomic;

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Row {
    path: String,
    class: String,
    sha256: String,
    patient: String,
    subset: Subset,
    unit: Unit,
    #[serde(default)]
    group: String,
}

impl Split {
    /// Writes one `path,class,sha256,patient,subset,unit,group` line an image. Files of earlier versions
    /// lack the last column and are read too.
    ///
    /// # Errors
    /// [`SplitError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), SplitError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for assignment in &self.assignments {
            let Assignment { path: image, class, sha256, patient, group, subset } = assignment.clone();
            let row = Row { path: image, class, sha256, patient, subset, unit: self.unit, group };
            writer.serialize(row).map_err(|source| SplitError::format(path, source))?;
        }
        let bytes = writer.into_inner().map_err(|error| SplitError::Io(error.into_error()))?;
        Ok(write_atomic(path, &bytes)?)
    }

    /// Reads what [`Split::write`] wrote.
    ///
    /// # Errors
    /// [`SplitError::Io`] and [`SplitError::Format`].
    pub fn read(path: &Path) -> Result<Self, SplitError> {
        let bytes = fs_err::read(path)?;
        let mut unit = Unit::Image;
        let mut assignments = Vec::new();
        for row in csv::Reader::from_reader(bytes.as_slice()).deserialize::<Row>() {
            let row = row.map_err(|source| SplitError::format(path, source))?;
            let Row { path, class, sha256, patient, subset, unit: made_by, group } = row;
            unit = made_by;
            assignments.push(Assignment { path, class, sha256, patient, group, subset });
        }
        Ok(Self { assignments, unit })
    }
}

impl SplitError {
    fn format(path: &Path, source: csv::Error) -> Self {
        Self::Format { path: path.display().to_string(), source }
    }
}
