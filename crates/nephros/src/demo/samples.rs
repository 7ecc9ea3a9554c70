//! Images to click: of patients that training never saw.

use std::{collections::BTreeMap, path::Path};

use nephros_server::Sample;
use nephros_train::manifest::Record;

/// Patients of each class whose images are offered.
const PATIENTS_A_CLASS: usize = 3;

/// The middle slice of the first patients of each class, classes in turn; `records` are the test
/// images and `root` is the folder that their paths start from.
///
/// # Errors
/// An image cannot be read.
pub fn choose(root: &Path, records: &[(&Record, usize)]) -> anyhow::Result<Vec<Sample>> {
    middle_slices(records).into_iter().map(|record| sample(root, record)).collect()
}

fn middle_slices<'a>(records: &[(&'a Record, usize)]) -> Vec<&'a Record> {
    let mut classes: BTreeMap<usize, BTreeMap<&str, Vec<&Record>>> = BTreeMap::new();
    for &(record, label) in records {
        classes.entry(label).or_default().entry(&record.patient).or_default().push(record);
    }
    let mut chosen: Vec<(usize, &Record)> = Vec::new();
    for patients in classes.values() {
        let middles = patients.values().map(|slices| slices[slices.len() / 2]);
        chosen.extend(middles.take(PATIENTS_A_CLASS).enumerate());
    }
    chosen.sort_by_key(|(turn, _)| *turn);
    chosen.into_iter().map(|(_, record)| record).collect()
}

fn sample(root: &Path, record: &Record) -> anyhow::Result<Sample> {
    let path = root.join(&record.path);
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("png") => "image/png",
        _ => "image/jpeg",
    };
    Ok(Sample {
        name: record.patient.clone(),
        label: Some(record.class.clone()),
        bytes: fs_err::read(&path)?.into(),
        content_type: content_type.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_take_turns_and_the_middle_slice_is_shown() {
        let record = |patient: &str, slice: usize, class: &str| Record {
            path: format!("{patient}-{slice}.png"),
            class: class.into(),
            sha256: String::new(),
            bytes: 0,
            width: 0,
            height: 0,
            patient: patient.into(),
            group: String::new(),
            orientation: String::new(),
        };
        let mut records = Vec::new();
        for (label, class, patients) in [(0, "Normal", ["p1", "p2"]), (1, "Tumor", ["p3", "p4"])] {
            for patient in patients {
                records.extend((0..3).map(|slice| (record(patient, slice, class), label)));
            }
        }
        let records: Vec<(&Record, usize)> = records.iter().map(|(record, label)| (record, *label)).collect();
        let chosen: Vec<&str> = middle_slices(&records).iter().map(|record| record.path.as_str()).collect();
        assert_eq!(chosen, ["p1-1.png", "p3-1.png", "p2-1.png", "p4-1.png"]);
    }
}
