//! A cohort as files: class folders and the sidecar CSV of its patients.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use fs_err as fs;
use rayon::prelude::*;
use walkdir::WalkDir;

use super::{Cohort, ImageFormat, Patient, PhantomClass, PhantomError, encode::encode, slice};
use crate::progress::{self, Progress, Task, Unit};

/// Sidecar with the columns `path,class,patient`.
const SIDECAR: &str = "patients.csv";
/// What was drawn; marks a folder as one of ours.
pub(crate) const MARKER: &str = "phantom.json";
/// Folder of the lesion masks, beside the class folders.
pub(crate) const MASKS: &str = "masks";
const STAGING: &str = ".nephros-phantom-";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CohortSummary {
    /// The folder of the class folders.
    pub root: PathBuf,
    /// The sidecar CSV in it.
    pub sidecar: PathBuf,
    /// Patients drawn.
    pub patients: usize,
    /// Images written, by class.
    pub images: BTreeMap<PhantomClass, usize>,
}

/// Draws a cohort into `out`: `<Class>/<Class>- (n).jpg`, `patients.csv` and `phantom.json`.
///
/// Patients are drawn in parallel into a folder beside the final ones, which are then renamed. A
/// folder that holds an earlier cohort and nothing else is replaced.
///
/// # Errors
/// See [`PhantomError`]; `out` then holds no half-written image.
pub fn write_cohort(
    cohort: &Cohort,
    out: &Path,
    progress: &dyn Progress,
) -> Result<CohortSummary, PhantomError> {
    validate(cohort)?;
    let created = !out.exists();
    let written = write_into(cohort, out, progress);
    if written.is_err() && created {
        // Only succeeds while the folder is still empty, which is all that is wanted.
        let _ = fs::remove_dir(out);
    }
    written?;
    let mut images = BTreeMap::new();
    for patient in 0..cohort.patients {
        *images.entry(cohort.class_of(patient)).or_default() += cohort.slices;
    }
    Ok(CohortSummary {
        root: out.to_path_buf(),
        sidecar: out.join(SIDECAR),
        patients: cohort.patients,
        images,
    })
}

fn validate(cohort: &Cohort) -> Result<(), PhantomError> {
    let Cohort { patients, slices, size, .. } = *cohort;
    let classes = cohort.classes.len();
    if patients == 0 {
        return Err(PhantomError::Nothing { what: "patient" });
    }
    if slices == 0 {
        return Err(PhantomError::Nothing { what: "slice a patient" });
    }
    if classes == 0 || cohort.classes.iter().collect::<BTreeSet<_>>().len() < classes {
        let names: Vec<&str> = cohort.classes.iter().map(|class| class.name()).collect();
        return Err(PhantomError::Classes { found: names.join(", ") });
    }
    if patients < classes {
        return Err(PhantomError::TooFewPatients { classes, patients });
    }
    if !(64..=2048).contains(&size) {
        return Err(PhantomError::Size { size });
    }
    Ok(())
}

fn write_into(cohort: &Cohort, out: &Path, progress: &dyn Progress) -> Result<(), PhantomError> {
    fs::create_dir_all(out).map_err(PhantomError::write(out))?;
    let earlier = own_entries(out)?;
    check_space(cohort, out)?;
    let staging = tempfile::Builder::new()
        .prefix(STAGING)
        .tempdir_in(out)
        .map_err(|source| PhantomError::Write { path: out.to_path_buf(), source })?;
    draw_all(cohort, staging.path(), progress)?;
    write_sidecar(cohort, &staging.path().join(SIDECAR))?;
    let description = serde_json::to_vec_pretty(cohort).unwrap_or_default();
    let marker = staging.path().join(MARKER);
    fs::write(&marker, description).map_err(PhantomError::write(&marker))?;
    for entry in earlier {
        let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
        removed.map_err(PhantomError::write(&entry))?;
    }
    publish(cohort, staging.path(), out)
}

/// Moves the marker first, so that an interrupted move leaves a folder that is known as ours, and
/// the sidecar last, so that whoever finds it finds all images.
fn publish(cohort: &Cohort, staging: &Path, out: &Path) -> Result<(), PhantomError> {
    let folders = cohort.classes.iter().map(|class| class.name());
    let masks = cohort.masks.then_some(MASKS);
    for name in std::iter::once(MARKER).chain(folders).chain(masks).chain([SIDECAR]) {
        let target = out.join(name);
        fs::rename(staging.join(name), &target).map_err(PhantomError::write(&target))?;
    }
    Ok(())
}

/// What an earlier cohort left in `out`, to be removed.
fn own_entries(out: &Path) -> Result<Vec<PathBuf>, PhantomError> {
    let mut entries = Vec::new();
    let marked = out.join(MARKER).is_file();
    for entry in fs::read_dir(out).map_err(PhantomError::write(out))? {
        let path = entry.map_err(PhantomError::write(out))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Left by a cohort that was killed while it was drawn.
        let leftover = name.starts_with(STAGING) && path.is_dir();
        if !leftover && let Some(found) = foreign(out, &path, marked) {
            return Err(PhantomError::Occupied { path: out.to_path_buf(), found });
        }
        entries.push(path);
    }
    Ok(entries)
}

/// The first file under `path` that no cohort writes.
fn foreign(out: &Path, path: &Path, marked: bool) -> Option<String> {
    let relative = |path: &Path| path.strip_prefix(out).unwrap_or(path).display().to_string();
    if !marked {
        return Some(relative(path));
    }
    WalkDir::new(path)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| relative(entry.path()).replace('\\', "/"))
        .find(|name| !is_own_name(name))
}

/// Whether a cohort could have written a file of this name.
fn is_own_name(name: &str) -> bool {
    if name == MARKER || name == SIDECAR {
        return true;
    }
    let name = name.strip_prefix("masks/").unwrap_or(name);
    let Some((folder, file)) = name.split_once('/') else {
        return false;
    };
    let known = ["Normal", "Tumor", "Cyst", "Stone"].contains(&folder);
    let number = file
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix("- ("))
        .and_then(|rest| rest.strip_suffix(").jpg").or_else(|| rest.strip_suffix(").png")));
    known && number.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Refuses before the disk fills: a grey slice takes at most about a quarter byte a pixel as JPEG.
fn check_space(cohort: &Cohort, out: &Path) -> Result<(), PhantomError> {
    let pixels = (cohort.size * cohort.size) as u64;
    let image = match cohort.format {
        ImageFormat::Jpeg => pixels / 4,
        ImageFormat::Png => pixels * 3 / 4,
    };
    let needed = (cohort.patients as u64).saturating_mul(cohort.slices as u64).saturating_mul(image + 4096);
    let available = fs4::available_space(out).map_err(PhantomError::write(out))?;
    if needed > available {
        return Err(PhantomError::NoSpace { path: out.to_path_buf(), needed, available });
    }
    Ok(())
}

fn draw_all(cohort: &Cohort, root: &Path, progress: &dyn Progress) -> Result<(), PhantomError> {
    for class in &cohort.classes {
        let mut folders = vec![root.join(class.name())];
        folders.extend(cohort.masks.then(|| root.join(MASKS).join(class.name())));
        for folder in folders {
            fs::create_dir_all(&folder).map_err(PhantomError::write(&folder))?;
        }
    }
    let total = cohort.patients.saturating_mul(cohort.slices);
    let task = progress.task("drawing slices", Some(total as u64), Unit::Items);
    (0..cohort.patients)
        .into_par_iter()
        .try_for_each(|index| draw_patient(cohort, index, root, progress, task.as_ref()))
}

fn draw_patient(
    cohort: &Cohort,
    index: usize,
    root: &Path,
    progress: &dyn Progress,
    task: &dyn Task,
) -> Result<(), PhantomError> {
    let patient = Patient::new(cohort, index);
    let (center, width) = patient.window();
    for number in 0..cohort.slices {
        progress::check(progress)?;
        let drawn = slice(&patient, number);
        let name = relative_path(cohort, index, number);
        write_image(&root.join(&name), &drawn.windowed(center, width), cohort.size, cohort.format)?;
        if cohort.masks {
            let mask: Vec<u8> = drawn.lesion.iter().map(|inside| u8::from(*inside) * 255).collect();
            let path = root.join(MASKS).join(&name).with_extension("png");
            write_image(&path, &mask, cohort.size, ImageFormat::Png)?;
        }
        task.advance(1);
    }
    Ok(())
}

fn write_image(path: &Path, pixels: &[u8], size: usize, format: ImageFormat) -> Result<(), PhantomError> {
    encode(pixels, size, format)
        .and_then(|bytes| fs::write(path, bytes))
        .map_err(|source| PhantomError::Write { path: path.to_path_buf(), source })
}

/// `Tumor/Tumor- (13).jpg`: numbers run on through the patients of a class, from 1.
fn relative_path(cohort: &Cohort, patient: usize, slice: usize) -> String {
    let class = cohort.class_of(patient).name();
    let number = patient / cohort.classes.len() * cohort.slices + slice + 1;
    format!("{class}/{class}- ({number}).{}", cohort.format.extension())
}

fn write_sidecar(cohort: &Cohort, path: &Path) -> Result<(), PhantomError> {
    let write = || -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["path", "class", "patient"])?;
        for patient in 0..cohort.patients {
            let name = Patient::name_of(patient);
            let class = cohort.class_of(patient).name();
            for slice in 0..cohort.slices {
                writer.write_record([&relative_path(cohort, patient, slice), class, &name])?;
            }
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    };
    write()
        .map_err(std::io::Error::other)
        .and_then(|bytes| fs::write(path, bytes))
        .map_err(|source| PhantomError::Write { path: path.to_path_buf(), source })
}
