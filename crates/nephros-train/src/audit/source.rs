//! Which images are audited: those of a folder, a zip or a manifest.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::AuditError;
use crate::{
    ingest::{
        DATASET_FOLDER,
        extract::{self, Limits},
        layout::{is_hidden, is_image_name, slashes},
        sidecar,
    },
    manifest::Manifest,
    progress::Progress,
};

/// An image to audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Path below the root, with `/`.
    pub path: String,
    /// Name of the class folder.
    pub class: String,
    /// Patient (or series), empty when unknown.
    pub patient: String,
    /// Side of a split by folders, such as `train`; empty when there is none.
    pub subset: String,
}

/// The images, and where they lie.
#[derive(Debug)]
pub struct Source {
    /// Folder that the paths start from.
    pub root: PathBuf,
    /// Sorted by path.
    pub subjects: Vec<Subject>,
    /// What a zip was extracted to; removed when dropped.
    _extracted: Option<tempfile::TempDir>,
}

/// Folders that are sides of a split, not classes.
const SUBSETS: [&str; 6] = ["train", "training", "val", "valid", "validation", "test"];

impl Source {
    /// Finds the images of `path`: a folder, a `.zip`, or a `manifest.csv`.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(path: &Path, progress: &dyn Progress) -> Result<Self, AuditError> {
        if path.is_dir() {
            return Self::folder(path, path, None);
        }
        if !path.exists() {
            return Err(AuditError::Missing { path: path.into() });
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            return Self::manifest(path);
        }
        let extracted = tempfile::tempdir()?;
        let folder = extracted.path().join("extracted");
        extract::extract(path, &folder, &Limits::default(), progress)?;
        Self::folder(&folder, path, Some(extracted))
    }

    fn manifest(path: &Path) -> Result<Self, AuditError> {
        let beside = path.parent().unwrap_or(Path::new(""));
        let root = match beside.join(DATASET_FOLDER) {
            folder if folder.is_dir() => folder,
            _ => beside.to_owned(),
        };
        let manifest = Manifest::read(path, root)?;
        let subjects = manifest.records.into_iter().map(|record| Subject {
            path: record.path,
            class: record.class,
            patient: record.patient,
            subset: String::new(),
        });
        Self { root: manifest.root, subjects: subjects.collect(), _extracted: None }.not_empty(path)
    }

    /// All images below `base`; `named` is what the user called it.
    fn folder(base: &Path, named: &Path, extracted: Option<tempfile::TempDir>) -> Result<Self, AuditError> {
        let mut files = Vec::new();
        let walk = WalkDir::new(base).follow_links(true).min_depth(1).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(|entry| !is_hidden(entry)) {
            let entry = entry.map_err(std::io::Error::from)?;
            if entry.file_type().is_file() && is_image_name(entry.path()) {
                files.push(entry.into_path());
            }
        }
        let root = common_folder(&files).unwrap_or(base).to_owned();
        let mut subjects: Vec<Subject> = files
            .iter()
            .filter_map(|file| file.strip_prefix(&root).ok())
            .map(|path| subject(path, &root))
            .collect();
        subjects.sort_by(|a, b| a.path.cmp(&b.path));
        add_patients(&mut subjects, &root, base)?;
        Self { root, subjects, _extracted: extracted }.not_empty(named)
    }

    fn not_empty(self, named: &Path) -> Result<Self, AuditError> {
        if self.subjects.is_empty() {
            return Err(AuditError::NoImages { path: named.into() });
        }
        Ok(self)
    }
}

/// The innermost folder that holds all files.
fn common_folder(files: &[PathBuf]) -> Option<&Path> {
    let mut folder = files.first()?.parent()?;
    while !files.iter().all(|file| file.starts_with(folder)) {
        folder = folder.parent()?;
    }
    Some(folder)
}

/// `Class/…/image`, `train/Class/…/image`, or an image in a folder of one class.
fn subject(path: &Path, root: &Path) -> Subject {
    let folders: Vec<String> = path
        .parent()
        .into_iter()
        .flat_map(Path::components)
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let is_subset = |name: &String| SUBSETS.contains(&name.to_lowercase().as_str());
    let (subset, folders) = match folders.split_first() {
        Some((first, rest)) if is_subset(first) => (first.clone(), rest),
        _ => (String::new(), folders.as_slice()),
    };
    let of_root = || root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let class = folders.first().cloned().unwrap_or_else(of_root);
    Subject { path: slashes(path), class, patient: String::new(), subset }
}

/// Fills in the patients of a CSV beside the class folders.
fn add_patients(subjects: &mut [Subject], root: &Path, base: &Path) -> Result<(), AuditError> {
    let Some(file) = sidecar::find(root, base)? else { return Ok(()) };
    let images: BTreeMap<String, String> =
        subjects.iter().map(|subject| (subject.path.clone(), subject.class.clone())).collect();
    let classes: Vec<String> = images.values().cloned().collect();
    let mut patients = sidecar::read(&file, &images, &classes)?;
    for subject in subjects {
        subject.patient = patients.by_path.remove(&subject.path).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn open(files: &[&str]) -> Result<Vec<[String; 3]>, AuditError> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join("set").join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, b"x").unwrap();
        }
        let source = Source::open(&folder.path().join("set"), &Silent)?;
        Ok(source.subjects.into_iter().map(|subject| [subject.path, subject.class, subject.subset]).collect())
    }

    #[test]
    fn classes_are_the_folders_below_the_first_fork() {
        assert_eq!(
            open(&["a/Normal/p/1.jpg", "a/Tumor/2.PNG", "a/Tumor/._2.png", "a/read.me"]).unwrap(),
            [["Normal/p/1.jpg", "Normal", ""], ["Tumor/2.PNG", "Tumor", ""]]
        );
        assert_eq!(open(&["Normal/1.jpg", "Normal/2.jpg"]).unwrap()[1], ["2.jpg", "Normal", ""]);
        assert_eq!(open(&["1.jpg", "2.jpg"]).unwrap()[0], ["1.jpg", "set", ""]);
    }

    #[test]
    fn train_and_test_are_sides_and_no_classes() {
        assert_eq!(
            open(&["test/Normal/1.jpg", "Train/Normal/2.jpg"]).unwrap(),
            [["Train/Normal/2.jpg", "Normal", "Train"], ["test/Normal/1.jpg", "Normal", "test"]]
        );
    }

    #[test]
    fn nothing_to_audit_is_an_error() {
        assert!(matches!(open(&["read.me"]), Err(AuditError::NoImages { .. })));
        let missing = Source::open(Path::new("/no/such/folder"), &Silent);
        assert!(matches!(missing, Err(AuditError::Missing { .. })));
    }

    #[test]
    fn patients_beside_the_class_folders_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["Normal/1.jpg", "Tumor/2.jpg"] {
            fs_err::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs_err::write(folder.path().join(path), b"x").unwrap();
        }
        fs_err::write(folder.path().join("patients.csv"), "path,class,patient\nTumor/2.jpg,Tumor,P2\n")
            .unwrap();
        let source = Source::open(folder.path(), &Silent).unwrap();
        let patients: Vec<&str> = source.subjects.iter().map(|subject| subject.patient.as_str()).collect();
        assert_eq!(patients, ["", "P2"]);
    }
}
