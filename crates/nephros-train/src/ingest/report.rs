//! `ingest_report.json` and `quarantine.csv`: what was found, besides the usable images.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::files::write_atomic;

/// `ingest_report.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `source_URL`.
    pub source: String,
    /// SHA-256 over everything that the result depends on.
    pub fingerprint: String,
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// Usable images and their patients by class, in label order.
    pub classes: Vec<ClassReport>,
    /// Usable images.
    pub images: usize,
    /// Their size.
    pub bytes: u64,
    /// Different patients; 0 when unknown.
    pub patients: usize,
    /// Usable images without a patient.
    pub images_without_patient: usize,
    /// Files that are no usable images.
    pub quarantined: Vec<Quarantined>,
    /// Groups of images with the same bytes in one class.
    pub duplicates: Vec<Vec<String>>,
    /// Groups of images with the same bytes in several classes.
    pub conflicts: Vec<Vec<String>>,
    /// Lines of the patients' CSV that name no file: line number and path.
    pub unmatched_patient_lines: Vec<(u64, String)>,
    /// Folders with images that were not used.
    pub unused_folders: BTreeMap<String, usize>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Name of the folder.
    pub name: String,
    /// Usable images.
    pub images: usize,
    /// Different patients; 0 when unknown.
    pub patients: usize,
}

/// One line of `quarantine.csv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Path below the folder of the class folders.
    pub path: String,
    /// Why it is no usable image.
    pub reason: String,
}

impl Report {
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs_err::read(path).ok()?).ok()
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_atomic(path, serde_json::to_string_pretty(self)?.as_bytes())
    }
}

pub(super) fn write_quarantine(path: &Path, quarantined: &[Quarantined]) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(["path", "reason"])?;
    for line in quarantined {
        writer.serialize(line)?;
    }
    write_atomic(path, &writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}
