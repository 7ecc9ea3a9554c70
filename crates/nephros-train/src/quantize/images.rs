//! Which images calibrate and which are compared on.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use nephros_core::digest::sha256;
use rayon::prelude::*;

use super::{QuantizeError, QuantizeRequest, Unreadable};
use crate::{
    ingest::sidecar,
    manifest::Manifest,
    progress::{Progress, Unit, check},
};

/// Most images that calibrate: more hardly move the ranges of the maps, and take time.
pub const CALIBRATION_IMAGES: usize = 128;
/// Fewest images that are divided.
pub const FEWEST_IMAGES: usize = 16;
/// Files that are hashed between two looks at whether the user wants to stop.
const GROUP: usize = 256;

/// An image of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// SHA-256 of the file.
    pub(super) sha256: String,
    /// Position of its folder's name among the labels.
    pub(super) label: Option<usize>,
    pub(super) patient: Option<String>,
}

impl Image {
    /// What must not be on both sides.
    fn unit(&self) -> &str {
        self.patient.as_deref().unwrap_or(&self.sha256)
    }
}

/// The two sides.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) calibration: Vec<Image>,
    pub(super) holdout: Vec<Image>,
}

/// Different images with what is known about them; exact copies count once.
pub(super) fn list(
    request: &QuantizeRequest<'_>,
    labels: &[String],
    unreadable: &mut Vec<Unreadable>,
    progress: &dyn Progress,
) -> Result<Vec<Image>, QuantizeError> {
    let places: Vec<Place> =
        request.images.iter().map(|path| Place::of(path, request.folder, labels)).collect();
    let patients = known_patients(request.folder, &places, labels)?;
    let task = progress.task("hashing", Some(places.len() as u64), Unit::Items);
    let (mut images, mut seen) = (Vec::new(), HashSet::new());
    for group in places.chunks(GROUP) {
        check(progress)?;
        let digests: Vec<_> =
            group.par_iter().map(|place| nephros_core::digest::sha256_file(&place.path)).collect();
        for (Place { path, key, label }, digest) in group.iter().zip(digests) {
            match digest {
                Ok(sha256) if seen.insert(sha256.clone()) => {
                    let patient = key.as_ref().and_then(|key| patients.get(key)).cloned();
                    images.push(Image { path: path.clone(), sha256, label: *label, patient });
                }
                Ok(_) => {}
                Err(error) => {
                    unreadable.push(Unreadable { path: path.clone(), error: error.to_string() });
                }
            }
        }
        task.advance(group.len() as u64);
    }
    let (folder, expected, got) = (request.folder.to_owned(), FEWEST_IMAGES, images.len());
    if got < expected { Err(QuantizeError::TooFewImages { folder, expected, got }) } else { Ok(images) }
}

/// Where an image lies.
struct Place {
    path: PathBuf,
    /// From its class folder on, with `/`.
    key: Option<String>,
    label: Option<usize>,
}

impl Place {
    /// The class is that of the nearest folder, at most `folder` itself, with a label's name.
    fn of(path: &Path, folder: &Path, labels: &[String]) -> Self {
        let inner = folder.parent().and_then(|above| path.strip_prefix(above).ok()).unwrap_or(path);
        let names: Vec<_> = inner.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        let folders = &names[..names.len().saturating_sub(1)];
        let class = folders.iter().rposition(|name| labels.iter().any(|label| label == name));
        let label = class.and_then(|class| labels.iter().position(|label| *label == names[class]));
        Self { path: path.to_owned(), key: class.map(|class| names[class..].join("/")), label }
    }
}

/// Patients by key: of the manifest that `ingest` wrote beside or in the folder, else of a CSV in it.
fn known_patients(
    folder: &Path,
    places: &[Place],
    labels: &[String],
) -> Result<HashMap<String, String>, QuantizeError> {
    let beside = folder.parent().unwrap_or(Path::new("")).join("manifest.csv");
    for path in [folder.join("manifest.csv"), beside] {
        if path.is_file() {
            let records = Manifest::read(&path, folder.to_owned())?.records.into_iter();
            let known = records.filter(|record| !record.patient.is_empty());
            return Ok(known.map(|record| (record.path, record.patient)).collect());
        }
    }
    let classes = |place: &Place| Some((place.key.clone()?, labels[place.label?].clone()));
    let images: BTreeMap<String, String> = places.iter().filter_map(classes).collect();
    match sidecar::find(folder, folder)? {
        Some(csv) if !images.is_empty() => Ok(sidecar::read(&csv, &images, labels)?.by_path),
        _ => Ok(HashMap::new()),
    }
}

/// Divides by patient, or by image where the patient is not known, in the order of the units'
/// digests: up to half of the images and [`CALIBRATION_IMAGES`] calibrate.
pub(super) fn divide(images: Vec<Image>) -> Result<Parts, QuantizeError> {
    let target = CALIBRATION_IMAGES.min(images.len() / 2);
    let mut units: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for image in images {
        units.entry(sha256(image.unit().as_bytes())).or_default().push(image);
    }
    let last = units.len().saturating_sub(1);
    let mut parts = Parts { calibration: Vec::new(), holdout: Vec::new() };
    for (position, mut unit) in units.into_values().enumerate() {
        unit.sort_by(|a, b| a.sha256.cmp(&b.sha256));
        if parts.calibration.len() < target && (position < last || position == 0) {
            parts.calibration.extend(unit);
        } else {
            parts.holdout.extend(unit);
        }
    }
    if parts.holdout.is_empty() {
        let images = parts.calibration.len();
        let patient = parts.calibration.first().map(|image| image.unit().to_owned()).unwrap_or_default();
        return Err(QuantizeError::OnePatient { images, patient });
    }
    // The rest of the last patient is on neither side.
    parts.calibration.truncate(CALIBRATION_IMAGES);
    Ok(parts)
}

/// Number of patients, if all are known.
pub(super) fn patients(images: &[Image]) -> Option<usize> {
    let known: Option<HashSet<&str>> = images.iter().map(|image| image.patient.as_deref()).collect();
    known.map(|known| known.len())
}

/// SHA-256 of the sorted digests, one a line.
pub(super) fn digest(images: &[Image]) -> String {
    let mut digests: Vec<&str> = images.iter().map(|image| image.sha256.as_str()).collect();
    digests.sort_unstable();
    sha256(digests.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(number: usize, patient: Option<usize>) -> Image {
        let sha256 = sha256(number.to_string().as_bytes());
        Image {
            path: PathBuf::from(format!("{number}.png")),
            sha256,
            label: None,
            patient: patient.map(|patient| format!("P{patient}")),
        }
    }

    fn units(images: &[Image]) -> HashSet<&str> {
        images.iter().map(Image::unit).collect()
    }

    #[test]
    fn no_patient_is_on_both_sides_whatever_the_order() {
        let mut images: Vec<Image> = (0..60).map(|number| image(number, Some(number / 6))).collect();
        let parts = divide(images.clone()).unwrap();
        // Five of ten patients are 30 images.
        assert_eq!((parts.calibration.len(), parts.holdout.len()), (30, 30));
        assert!(units(&parts.calibration).is_disjoint(&units(&parts.holdout)));
        images.reverse();
        let again = divide(images).unwrap();
        assert_eq!((again.calibration, again.holdout), (parts.calibration, parts.holdout));
    }

    #[test]
    fn a_bounded_number_calibrates() {
        let parts = divide((0..1000).map(|number| image(number, None)).collect()).unwrap();
        assert_eq!((parts.calibration.len(), parts.holdout.len()), (CALIBRATION_IMAGES, 872));
        // Patients of 50: three are taken to reach 128, and 22 images of the last are left out.
        let parts = divide((0..1000).map(|number| image(number, Some(number / 50))).collect()).unwrap();
        assert_eq!((parts.calibration.len(), parts.holdout.len()), (CALIBRATION_IMAGES, 850));
    }

    #[test]
    fn one_patient_cannot_be_divided() {
        let error = divide((0..20).map(|number| image(number, Some(7))).collect()).unwrap_err();
        assert_eq!(error.to_string(), "expected images of at least 2 patients, got 20 images of `P7` alone");
    }

    #[test]
    fn the_class_is_the_nearest_folder_with_a_labels_name() {
        let labels = ["Normal".to_owned(), "Tumor".to_owned()];
        let place = |path: &str, folder: &str| {
            let place = Place::of(Path::new(path), Path::new(folder), &labels);
            (place.key, place.label)
        };
        assert_eq!(place("a/set/Tumor/1.png", "a/set"), (Some("Tumor/1.png".into()), Some(1)));
        assert_eq!(place("a/Tumor/Normal/x/1.png", "a"), (Some("Normal/x/1.png".into()), Some(0)));
        assert_eq!(place("a/Tumor/1.png", "a/Tumor"), (Some("Tumor/1.png".into()), Some(1)));
        assert_eq!(place("Tumor/set/1.png", "Tumor/set"), (None, None), "above the folder");
        assert_eq!(place("set/Tumor", "set"), (None, None), "a file of that name");
    }
}
