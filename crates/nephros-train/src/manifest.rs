//! `manifest.csv`: one line for each image that can be used.

use std::{
    io,
    path::{Path, PathBuf},
};

use nephros_core::{digest, hint::Hint};
use serde::{Deserialize, Serialize};

use crate::{config::Params, files::write_atomic};

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Path relative to the folder of the class folders, with `/`.
    pub path: String,
    /// Name of the class folder.
    pub class: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Patient (or series), empty when unknown.
    pub patient: String,
    /// Images that are likely one patient's, as the audit found them; empty where that was not asked
    /// for because all patients are known.
    #[serde(default)]
    pub group: String,
    /// Plane of the slice as the CSV of patients names it, such as `axial`; empty when it does not.
    #[serde(default)]
    pub orientation: String,
}

impl Record {
    /// What the image is drawn with in a bootstrap: its patient, else the group that was found, else
    /// its own digest.
    pub(crate) fn unit_name(&self) -> String {
        [&self.patient, &self.group].into_iter().find(|name| !name.is_empty()).unwrap_or(&self.sha256).clone()
    }
}

/// All usable images, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Folder of the class folders.
    pub root: PathBuf,
    /// One record an image.
    pub records: Vec<Record>,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// No such file.
    #[error("`{path}` does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Not CSV, or other columns.
    #[error("`{path}` is not a manifest")]
    Csv {
        /// The file.
        path: PathBuf,
        /// What the reader says, with the line.
        source: csv::Error,
    },
    /// The manifest has other classes than `CLASS_NAMES`.
    #[error("`CLASS_NAMES`: expected {expected}, the classes of the manifest, got {got}")]
    Classes {
        /// Classes of the manifest.
        expected: String,
        /// `CLASS_NAMES`.
        got: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Hint for ManifestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(_) => None,
            _ => Some("run `nephros ingest` first".into()),
        }
    }
}

impl Manifest {
    /// Reads a `manifest.csv`; `root` is the folder that its paths start from.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn read(path: &Path, root: PathBuf) -> Result<Self, ManifestError> {
        let bytes = match fs_err::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing { path: path.into() });
            }
            other => other?,
        };
        let mut records: Vec<Record> = csv::Reader::from_reader(bytes.as_slice())
            .deserialize()
            .collect::<Result<_, _>>()
            .map_err(|source| ManifestError::Csv { path: path.into(), source })?;
        records.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root, records })
    }

    /// Writes `manifest.csv`, whole or not at all.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let csv_error = |source| ManifestError::Csv { path: path.into(), source };
        for record in &self.records {
            writer.serialize(record).map_err(csv_error)?;
        }
        let bytes = writer.into_inner().map_err(|error| csv_error(error.into_error().into()))?;
        Ok(write_atomic(path, &bytes)?)
    }

    /// SHA-256 of what a model can depend on: the sorted lines `path,class,sha256,patient`, and the
    /// group where there is one.
    pub fn digest(&self) -> String {
        let mut lines: Vec<String> = self
            .records
            .iter()
            .map(|record| {
                let group =
                    if record.group.is_empty() { String::new() } else { format!("\t{}", record.group) };
                format!("{}\t{}\t{}\t{}{group}\n", record.path, record.class, record.sha256, record.patient)
            })
            .collect();
        lines.sort();
        digest::sha256(lines.concat().as_bytes())
    }

    /// Class names in label order: `CLASS_NAMES`, else those of the manifest, sorted.
    ///
    /// # Errors
    /// [`ManifestError::Classes`] when `CLASS_NAMES` are other names than the manifest's.
    pub fn labels(&self, params: &Params) -> Result<Vec<String>, ManifestError> {
        let mut found: Vec<String> = self.records.iter().map(|record| record.class.clone()).collect();
        found.sort();
        found.dedup();
        let Some(names) = &params.class_names else { return Ok(found) };
        let mut sorted = names.clone();
        sorted.sort();
        if sorted == found {
            return Ok(names.clone());
        }
        let list = |names: &[String]| format!("`{}`", names.join("`, `"));
        Err(ManifestError::Classes { expected: list(&found), got: list(names) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PARAMS_TEMPLATE;

    fn manifest() -> Manifest {
        let record = |path: &str, class: &str, patient: &str| Record {
            path: path.into(),
            class: class.into(),
            sha256: digest::sha256(path.as_bytes()),
            bytes: 3,
            width: 512,
            height: 400,
            patient: patient.into(),
            group: String::new(),
            orientation: String::new(),
        };
        let records = vec![record("Normal/a, \"b\".jpg", "Normal", "P1"), record("Tumor/ü.jpg", "Tumor", "")];
        Manifest { root: "images".into(), records }
    }

    #[test]
    fn a_written_manifest_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.csv");
        manifest().write(&path).unwrap();
        assert!(
            fs_err::read_to_string(&path)
                .unwrap()
                .starts_with("path,class,sha256,bytes,width,height,patient,group,orientation\n")
        );
        assert_eq!(Manifest::read(&path, "images".into()).unwrap(), manifest());
    }

    #[test]
    fn the_digest_sees_contents_and_patients_but_not_order_or_place() {
        let original = manifest();
        let mut other = manifest();
        other.records.reverse();
        other.root = "elsewhere".into();
        assert_eq!(original.digest(), other.digest());
        other.records[0].patient = "P2".into();
        assert_ne!(original.digest(), other.digest());
        let mut grouped = manifest();
        grouped.records[0].group = "G001".into();
        assert_ne!(original.digest(), grouped.digest());
    }

    #[test]
    fn a_manifest_from_before_groups_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.csv");
        let text = "path,class,sha256,bytes,width,height,patient\nNormal/1.jpg,Normal,ab,3,5,4,P1\n";
        fs_err::write(&path, text).unwrap();
        let manifest = Manifest::read(&path, "images".into()).unwrap();
        assert_eq!((manifest.records[0].patient.as_str(), manifest.records[0].group.as_str()), ("P1", ""));
    }

    #[test]
    fn labels_follow_class_names_and_refuse_others() {
        let mut params = Params::parse(Path::new("params.yaml"), PARAMS_TEMPLATE).unwrap();
        assert_eq!(manifest().labels(&params).unwrap(), ["Normal", "Tumor"]);
        params.class_names = Some(vec!["Tumor".into(), "Normal".into()]);
        assert_eq!(manifest().labels(&params).unwrap(), ["Tumor", "Normal"]);
        params.class_names = Some(vec!["Cyst".into(), "Normal".into()]);
        assert!(matches!(manifest().labels(&params), Err(ManifestError::Classes { .. })));
    }

    #[test]
    fn a_damaged_manifest_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.csv");
        assert!(matches!(Manifest::read(&path, "x".into()), Err(ManifestError::Missing { .. })));
        fs_err::write(&path, "path,class\nNormal/1.jpg,Normal\n").unwrap();
        assert!(matches!(Manifest::read(&path, "x".into()), Err(ManifestError::Csv { .. })));
    }
}
