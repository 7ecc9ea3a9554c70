//! From a source to checked class folders and a manifest.
//!
//! Source, then download, extraction, layout, inspection, patients, placement. All of it happens in
//! a staging folder; the class folders are swapped in at once, and the manifest is written last, so
//! that an interrupted run leaves nothing that looks whole.

pub mod download;
mod error;
pub mod extract;
pub mod google_drive;
pub mod inspect;
pub mod layout;
mod report;
pub mod sidecar;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

pub use error::IngestError;
use inspect::Inspected;
use layout::Layout;
use nephros_core::digest;
pub use report::{ClassReport, Quarantined, Report};
use sidecar::Patients;
use source::{Origin, Source};

use crate::{
    audit::{self, source::Subject},
    config::SplitBy,
    files,
    manifest::{Manifest, Record},
    progress::{self, Progress, Unit},
    stages::Project,
};

/// Name of the folder that holds the class folders, as the reference has it.
pub const DATASET_FOLDER: &str = "kidney-ct-scan-image";

/// What stage `ingest` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestSummary {
    /// Usable images.
    pub images: usize,
    /// Class names in label order with their images.
    pub classes: Vec<(String, usize)>,
    /// Different patients; 0 when unknown.
    pub patients: usize,
    /// Files that are no usable images.
    pub quarantined: usize,
    /// Images whose bytes another image of their class has too.
    pub duplicates: usize,
    /// Images whose bytes stand in several classes.
    pub conflicts: usize,
    /// Size of the usable images.
    pub bytes: u64,
    /// Folder of the class folders.
    pub root: PathBuf,
}

/// How remote sources are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Where Google Drive is.
    pub drive: String,
    /// Patience of downloads.
    pub downloader: download::Downloader,
}

impl Default for Network {
    fn default() -> Self {
        Self { drive: google_drive::BASE.into(), downloader: download::Downloader::default() }
    }
}

/// Runs stage `ingest`. Where source and settings are unchanged, what is there is verified by its
/// digests and kept.
///
/// # Errors
/// See [`IngestError`].
pub fn ingest(project: &Project, progress: &dyn Progress) -> Result<IngestSummary, IngestError> {
    ingest_over(project, &Network::default(), progress)
}

/// [`ingest`] with another Google Drive or patience.
///
/// # Errors
/// See [`IngestError`].
pub fn ingest_over(
    project: &Project,
    network: &Network,
    progress: &dyn Progress,
) -> Result<IngestSummary, IngestError> {
    let places = Places::of(project);
    fs_err::create_dir_all(&places.stage)?;
    fs_err::create_dir_all(&places.unzip)?;
    let _lock = lock(&places.stage)?;
    remove_leftovers(&places.unzip)?;
    let config = &project.config.data_ingestion;
    let source = Source::of(&config.source_url, &project.root)?;
    let origin = source.fetch(config, &places.zip, network, progress)?;
    Job { project, places, progress }.run(&origin)
}

/// Where things of this stage lie.
struct Places {
    stage: PathBuf,
    unzip: PathBuf,
    zip: PathBuf,
    dataset: PathBuf,
    manifest: PathBuf,
    report: PathBuf,
    quarantine: PathBuf,
    quarantine_list: PathBuf,
}

impl Places {
    fn of(project: &Project) -> Self {
        let config = &project.config.data_ingestion;
        let stage = project.root.join(&config.root_dir);
        let unzip = project.root.join(&config.unzip_dir);
        Self {
            zip: project.root.join(&config.local_data_file),
            dataset: unzip.join(DATASET_FOLDER),
            manifest: stage.join("manifest.csv"),
            report: stage.join("ingest_report.json"),
            quarantine: stage.join("quarantine"),
            quarantine_list: stage.join("quarantine.csv"),
            stage,
            unzip,
        }
    }
}

struct Job<'a> {
    project: &'a Project,
    places: Places,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn run(&self, origin: &Origin) -> Result<IngestSummary, IngestError> {
        match origin {
            Origin::Zip { path, sha256 } => {
                let fingerprint = self.fingerprint(sha256, self.configured_patients().as_deref())?;
                if let Some(summary) = self.reuse(&fingerprint)? {
                    return Ok(summary);
                }
                let staging = self.staging()?;
                let base = staging.path().join("extracted");
                extract::extract(path, &base, &extract::Limits::default(), self.progress)?;
                let layout = self.layout(&base)?;
                self.build(&layout, &base, staging.path(), fingerprint, Placement::Move)
            }
            Origin::Folder { path } => {
                self.refuse_overlap(path)?;
                let layout = self.layout(path)?;
                let patients = self.patients_file(&layout.root, path)?;
                let fingerprint = self.fingerprint(&inspect::fingerprint(&layout)?, patients.as_deref())?;
                if let Some(summary) = self.reuse(&fingerprint)? {
                    return Ok(summary);
                }
                let staging = self.staging()?;
                self.build(&layout, path, staging.path(), fingerprint, Placement::Copy)
            }
        }
    }

    /// Everything after the class folders are found.
    fn build(
        &self,
        layout: &Layout,
        base: &Path,
        staging: &Path,
        fingerprint: String,
        placement: Placement,
    ) -> Result<IngestSummary, IngestError> {
        let inspected = inspect::inspect(layout, self.progress)?;
        let patients = self.patients(layout, base)?;
        let quarantined = quarantined(&inspected);
        report::write_quarantine(&self.places.quarantine_list, &quarantined)?;
        let groups = self.groups(layout, &inspected, &patients)?;
        let manifest = self.manifest(layout, &inspected, &patients, &groups);
        let report = self.report(layout, &inspected, &manifest, quarantined, patients.unmatched, fingerprint);
        self.check_enough(layout, &inspected, &manifest, &report)?;
        self.place(layout, &inspected, staging, placement)?;
        report.write(&self.places.report)?;
        manifest.write(&self.places.manifest)?;
        warn(&report);
        Ok(self.summary(&report))
    }

    fn layout(&self, base: &Path) -> Result<Layout, IngestError> {
        let params = &self.project.params;
        let dataset = &self.project.config.data_ingestion.source_url;
        Ok(layout::find(base, dataset, params.class_names.as_deref(), params.classes)?)
    }

    fn staging(&self) -> Result<tempfile::TempDir, IngestError> {
        Ok(tempfile::Builder::new().prefix(STAGING_PREFIX).tempdir_in(&self.places.unzip)?)
    }

    fn configured_patients(&self) -> Option<PathBuf> {
        let file = self.project.config.data_ingestion.patients_file.as_ref()?;
        Some(self.project.root.join(file))
    }

    fn patients_file(&self, root: &Path, base: &Path) -> Result<Option<PathBuf>, IngestError> {
        match self.configured_patients() {
            Some(file) => Ok(Some(file)),
            None => Ok(sidecar::find(root, base)?),
        }
    }

    fn patients(&self, layout: &Layout, base: &Path) -> Result<Patients, IngestError> {
        let Some(file) = self.patients_file(&layout.root, base)? else { return Ok(Patients::default()) };
        let images: BTreeMap<String, String> =
            layout.files.iter().map(|file| (file.path.clone(), layout.classes[file.class].clone())).collect();
        Ok(sidecar::read(&file, &images, &layout.classes)?)
    }

    /// SHA-256 over what the result depends on.
    fn fingerprint(&self, source: &str, patients: Option<&Path>) -> Result<String, IngestError> {
        let patients = match patients {
            Some(file) if !file.exists() => {
                return Err(sidecar::SidecarError::Missing { path: file.into() }.into());
            }
            Some(file) => digest::sha256_file(file)?,
            None => String::new(),
        };
        let params = &self.project.params;
        let settings = serde_json::to_string(&(
            env!("CARGO_PKG_VERSION"),
            // Manifests from before it are made anew.
            "with groups",
            source,
            patients,
            &params.class_names,
            params.classes,
            params.split_by,
        ))?;
        Ok(digest::sha256(settings.as_bytes()))
    }

    /// The earlier result, if it belongs to `fingerprint` and every file is as it was.
    fn reuse(&self, fingerprint: &str) -> Result<Option<IngestSummary>, IngestError> {
        let Some(report) =
            Report::read(&self.places.report).filter(|report| report.fingerprint == fingerprint)
        else {
            return Ok(None);
        };
        let Ok(manifest) = Manifest::read(&self.places.manifest, self.places.dataset.clone()) else {
            return Ok(None);
        };
        let is_listed = self.places.quarantine_list.is_file();
        if manifest.digest() != report.manifest_digest || !is_listed || !self.is_intact(&manifest)? {
            return Ok(None);
        }
        tracing::info!("the dataset is there already and unchanged");
        Ok(Some(self.summary(&report)))
    }

    /// Whether the dataset folder holds the files of the manifest and no others.
    fn is_intact(&self, manifest: &Manifest) -> Result<bool, IngestError> {
        let task = self.progress.task("verify images", Some(manifest.records.len() as u64), Unit::Items);
        for record in &manifest.records {
            progress::check(self.progress)?;
            let path = manifest.root.join(&record.path);
            let same_size = fs_err::metadata(&path).is_ok_and(|metadata| metadata.len() == record.bytes);
            if !same_size || digest::sha256_file(&path)? != record.sha256 {
                return Ok(false);
            }
            task.advance(1);
        }
        let files = walkdir::WalkDir::new(&manifest.root).into_iter().filter_map(Result::ok);
        Ok(files.filter(|entry| entry.file_type().is_file()).count() == manifest.records.len())
    }

    /// Where a split by patient is asked for and not all patients are known: the images that are
    /// likely one patient's, by path.
    fn groups(
        &self,
        layout: &Layout,
        inspected: &[Inspected],
        patients: &Patients,
    ) -> Result<HashMap<String, String>, IngestError> {
        let subject = |image: &Inspected| Subject {
            path: image.file.path.clone(),
            class: layout.classes[image.file.class].clone(),
            patient: patients.by_path.get(&image.file.path).cloned().unwrap_or_default(),
            subset: String::new(),
        };
        let usable = inspected.iter().filter(|image| image.size.is_ok());
        let subjects: Vec<Subject> = usable.map(subject).collect();
        let known = subjects.iter().all(|subject| !subject.patient.is_empty());
        if known || self.project.params.split_by != SplitBy::Patient {
            return Ok(HashMap::new());
        }
        let audit = audit::examine(&layout.root, subjects, None, self.progress)?;
        tracing::info!("{} groups of images are likely one patient's", audit.sizes.len());
        let named = |member: &audit::Member| (member.subject.path.clone(), audit.group_name(member.group));
        Ok(audit.members.iter().map(named).collect())
    }

    fn manifest(
        &self,
        layout: &Layout,
        inspected: &[Inspected],
        patients: &Patients,
        groups: &HashMap<String, String>,
    ) -> Manifest {
        let records = inspected
            .iter()
            .filter_map(|image| {
                let (width, height) = *image.size.as_ref().ok()?;
                let path = image.file.path.clone();
                Some(Record {
                    class: layout.classes[image.file.class].clone(),
                    sha256: image.sha256.clone(),
                    bytes: image.bytes,
                    width,
                    height,
                    patient: patients.by_path.get(&path).cloned().unwrap_or_default(),
                    group: groups.get(&path).cloned().unwrap_or_default(),
                    orientation: patients.orientations.get(&path).cloned().unwrap_or_default(),
                    path,
                })
            })
            .collect();
        Manifest { root: self.places.dataset.clone(), records }
    }

    fn report(
        &self,
        layout: &Layout,
        inspected: &[Inspected],
        manifest: &Manifest,
        quarantined: Vec<Quarantined>,
        unmatched: Vec<(u64, String)>,
        fingerprint: String,
    ) -> Report {
        let twins = inspect::twins(inspected);
        let class = |name: &String| {
            let records = || manifest.records.iter().filter(|record| record.class == *name);
            ClassReport { name: name.clone(), images: records().count(), patients: count_patients(records()) }
        };
        Report {
            source: self.project.config.data_ingestion.source_url.clone(),
            fingerprint,
            manifest_digest: manifest.digest(),
            classes: layout.classes.iter().map(class).collect(),
            images: manifest.records.len(),
            bytes: manifest.records.iter().map(|record| record.bytes).sum(),
            patients: count_patients(manifest.records.iter()),
            images_without_patient: manifest
                .records
                .iter()
                .filter(|record| record.patient.is_empty())
                .count(),
            quarantined,
            duplicates: twins.duplicates,
            conflicts: twins.conflicts,
            unmatched_patient_lines: unmatched,
            unused_folders: layout.unused.clone(),
        }
    }

    /// Every class needs images, and patients where the split is by patient, on two sides.
    fn check_enough(
        &self,
        layout: &Layout,
        inspected: &[Inspected],
        manifest: &Manifest,
        report: &Report,
    ) -> Result<(), IngestError> {
        let source_url = report.source.clone();
        for (index, class) in report.classes.iter().enumerate() {
            if class.images < 2 {
                return Err(IngestError::TooFewImages {
                    source_url,
                    class: class.name.clone(),
                    usable: class.images,
                    files: inspected.iter().filter(|image| image.file.class == index).count(),
                    quarantine: self.places.quarantine_list.clone(),
                });
            }
            let known = manifest
                .records
                .iter()
                .all(|record| record.class != class.name || !record.patient.is_empty());
            if self.project.params.split_by == SplitBy::Patient && known && class.patients < 2 {
                return Err(IngestError::TooFewPatients {
                    source_url,
                    class: layout.classes[index].clone(),
                    patients: class.patients,
                    images: class.images,
                });
            }
        }
        Ok(())
    }

    /// Sorts the files into the dataset and the quarantine folder.
    fn place(
        &self,
        layout: &Layout,
        inspected: &[Inspected],
        staging: &Path,
        placement: Placement,
    ) -> Result<(), IngestError> {
        let organised = staging.join("organised");
        if placement == Placement::Copy {
            files::ensure_space(staging, inspected.iter().map(|image| image.bytes).sum())?;
        }
        let task = self.progress.task("sort images", Some(inspected.len() as u64), Unit::Items);
        let (good, bad): (Vec<_>, Vec<_>) = inspected.iter().partition(|image| image.size.is_ok());
        for image in good {
            progress::check(self.progress)?;
            placement.place(&layout.root.join(&image.file.path), &organised.join(&image.file.path))?;
            task.advance(1);
        }
        // From here on the old result is gone; the new one counts when the manifest is written.
        for old in [&self.places.manifest, &self.places.report] {
            if old.exists() {
                fs_err::remove_file(old)?;
            }
        }
        if self.places.quarantine.exists() {
            fs_err::remove_dir_all(&self.places.quarantine)?;
        }
        for image in bad {
            // The two folders may lie on different disks, which a rename cannot cross.
            Placement::Copy
                .place(&layout.root.join(&image.file.path), &self.places.quarantine.join(&image.file.path))?;
            task.advance(1);
        }
        if self.places.dataset.exists() {
            fs_err::rename(&self.places.dataset, staging.join("old"))?;
        }
        fs_err::rename(&organised, &self.places.dataset)?;
        Ok(())
    }

    /// A source inside the destination would be swapped away, one around it would contain the result.
    fn refuse_overlap(&self, source: &Path) -> Result<(), IngestError> {
        let source = fs_err::canonicalize(source)?;
        let destination = fs_err::canonicalize(&self.places.unzip)?.join(DATASET_FOLDER);
        if source.starts_with(&destination) || destination.starts_with(&source) {
            let source_url = self.project.config.data_ingestion.source_url.clone();
            return Err(IngestError::Overlap { source_url, destination });
        }
        Ok(())
    }

    fn summary(&self, report: &Report) -> IngestSummary {
        IngestSummary {
            images: report.images,
            classes: report.classes.iter().map(|class| (class.name.clone(), class.images)).collect(),
            patients: report.patients,
            quarantined: report.quarantined.len(),
            duplicates: report.duplicates.iter().map(|group| group.len() - 1).sum(),
            conflicts: report.conflicts.iter().map(Vec::len).sum(),
            bytes: report.bytes,
            root: self.places.dataset.clone(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    Move,
    Copy,
}

impl Placement {
    fn place(self, from: &Path, to: &Path) -> Result<(), IngestError> {
        if let Some(folder) = to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        match self {
            Self::Move => fs_err::rename(from, to)?,
            Self::Copy => drop(fs_err::copy(from, to)?),
        }
        Ok(())
    }
}

const STAGING_PREFIX: &str = ".ingest-";

/// Held while one process works in `folder`; the system releases it when the process ends.
fn lock(folder: &Path) -> Result<fs_err::File, IngestError> {
    let file = fs_err::File::create(folder.join(".ingest.lock"))?;
    match file.file().try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(IngestError::Busy { folder: folder.into() }),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Staging folders of killed runs.
fn remove_leftovers(folder: &Path) -> Result<(), IngestError> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) && entry.file_type()?.is_dir() {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn quarantined(inspected: &[Inspected]) -> Vec<Quarantined> {
    inspected
        .iter()
        .filter_map(|image| {
            let reason = image.size.as_ref().err()?.clone();
            Some(Quarantined { path: image.file.path.clone(), reason })
        })
        .collect()
}

fn count_patients<'a>(records: impl Iterator<Item = &'a Record>) -> usize {
    let patients: BTreeSet<&str> = records.map(|record| record.patient.as_str()).collect();
    patients.iter().filter(|patient| !patient.is_empty()).count()
}

/// Says what a user should look at; paths stay in the report, since they may name patients.
fn warn(report: &Report) {
    let warnings = [
        (report.quarantined.len(), "files are no usable images, see quarantine.csv"),
        (report.duplicates.len(), "groups of images have the same bytes, see ingest_report.json"),
        (report.conflicts.len(), "images stand in several classes, see ingest_report.json"),
        (
            report.unmatched_patient_lines.len(),
            "lines of the patients' CSV name no file, see ingest_report.json",
        ),
        (report.unused_folders.len(), "folders with images are not used, see ingest_report.json"),
    ];
    for (count, text) in warnings.into_iter().filter(|(count, _)| *count > 0) {
        tracing::warn!("{count} {text}");
    }
    if report.patients == 0 {
        tracing::warn!("patients are unknown: name a CSV of them as `patients_file` for a split by patient");
    } else if report.images_without_patient > 0 {
        tracing::warn!("{} images have no patient", report.images_without_patient);
    }
}
