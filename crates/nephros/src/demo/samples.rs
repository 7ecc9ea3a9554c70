//! Images to click: of patients that training never saw.

use std::{collections::BTreeMap, path::PathBuf};

use nephros_server::Sample;

/// Patients of each class whose images are offered.
const PATIENTS_A_CLASS: usize = 3;

/// A test image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestImage {
    /// Where it lies.
    pub path: PathBuf,
    /// Its true class.
    pub class: String,
    /// Whose it is.
    pub patient: String,
}

/// The middle slice of the first patients of each class, classes in turn.
///
/// # Errors
/// An image cannot be read.
pub fn choose(images: &[TestImage]) -> anyhow::Result<Vec<Sample>> {
    middle_slices(images).into_iter().map(sample).collect()
}

fn middle_slices(images: &[TestImage]) -> Vec<&TestImage> {
    let mut classes: BTreeMap<&str, BTreeMap<&str, Vec<&TestImage>>> = BTreeMap::new();
    for image in images {
        classes.entry(&image.class).or_default().entry(&image.patient).or_default().push(image);
    }
    let mut chosen: Vec<(usize, &TestImage)> = Vec::new();
    for patients in classes.values() {
        let middles = patients.values().map(|slices| slices[slices.len() / 2]);
        chosen.extend(middles.take(PATIENTS_A_CLASS).enumerate());
    }
    chosen.sort_by_key(|(turn, _)| *turn);
    chosen.into_iter().map(|(_, image)| image).collect()
}

fn sample(image: &TestImage) -> anyhow::Result<Sample> {
    let content_type = match image.path.extension().and_then(|extension| extension.to_str()) {
        Some("png") => "image/png",
        _ => "image/jpeg",
    };
    Ok(Sample {
        name: image.patient.clone(),
        label: Some(image.class.clone()),
        bytes: fs_err::read(&image.path)?.into(),
        content_type: content_type.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_take_turns_and_the_middle_slice_is_shown() {
        let mut images = Vec::new();
        for (class, patients) in [("Normal", ["p1", "p2"]), ("Tumor", ["p3", "p4"])] {
            for patient in patients {
                images.extend((0..3).map(|slice| TestImage {
                    path: format!("{patient}-{slice}.png").into(),
                    class: class.into(),
                    patient: patient.into(),
                }));
            }
        }
        let chosen: Vec<&str> = middle_slices(&images).iter().filter_map(|image| image.path.to_str()).collect();
        assert_eq!(chosen, ["p1-1.png", "p3-1.png", "p2-1.png", "p4-1.png"]);
    }
}
