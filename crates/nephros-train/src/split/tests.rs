//! Splits of drawn-up manifests.

use proptest::prelude::*;

use super::*;

fn params(split_by: SplitBy) -> Params {
    Params { split_by, ..crate::testing::params() }
}

fn record(class: &str, number: usize, patient: &str) -> Record {
    Record {
        path: format!("{class}/{class}- ({number}).jpg"),
        class: class.into(),
        sha256: format!("{class}{number}"),
        bytes: 1,
        width: 1,
        height: 1,
        patient: patient.into(),
        group: String::new(),
        orientation: String::new(),
    }
}

fn cohort(patients: usize, slices: usize) -> Vec<Record> {
    let image = |index: usize| {
        let patient = index / slices;
        let class = if patient.is_multiple_of(2) { "Normal" } else { "Tumor" };
        record(class, index, &format!("P{patient}"))
    };
    (0..patients * slices).map(image).collect()
}

#[test]
fn patients_stay_together_and_shares_are_near_the_goal() {
    let split = Split::new(&cohort(40, 5), &params(SplitBy::Patient)).unwrap();
    split.check_disjoint().unwrap();
    assert_eq!(split.unit, Unit::Patient);
    // 20 patients a class, shares 0.2: 4 patients of 5 slices in each of two classes.
    assert_eq!(split.indices(Subset::Test).len(), 2 * 4 * 5);
    assert_eq!(split.indices(Subset::Validation).len(), 2 * 4 * 5);
    assert_eq!(split.patients(Subset::Train).len(), 40 - 16);
}

#[test]
fn a_split_survives_its_file_and_the_seed_decides_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.csv");
    let split = Split::new(&cohort(20, 3), &params(SplitBy::Patient)).unwrap();
    split.write(&path).unwrap();
    assert_eq!(Split::read(&path).unwrap(), split);
    let other = Params { seed: 7, ..params(SplitBy::Patient) };
    assert_ne!(Split::new(&cohort(20, 3), &other).unwrap().digest(), split.digest());
}

#[test]
fn a_patient_on_two_sides_is_refused_by_name() {
    let mut split = Split::new(&cohort(20, 3), &params(SplitBy::Patient)).unwrap();
    let index = split.indices(Subset::Test)[0];
    split.assignments[index].subset = Subset::Train;
    let error = split.check_disjoint().unwrap_err();
    assert!(matches!(error, SplitError::PatientLeak { .. }), "{error}");
}

#[test]
fn copies_of_an_image_stay_on_one_side() {
    let mut records = cohort(20, 3);
    let copied = records[0].sha256.clone();
    for record in records.iter_mut().step_by(7) {
        record.sha256.clone_from(&copied);
    }
    Split::new(&records, &params(SplitBy::Random)).unwrap().check_disjoint().unwrap();
}

#[test]
fn a_random_split_of_the_same_sizes_shares_patients() {
    let records = cohort(40, 5);
    let split = Split::new(&records, &params(SplitBy::Patient)).unwrap();
    let random = split.at_random(&records, 1);
    random.check_disjoint().unwrap();
    for subset in [Subset::Train, Subset::Validation, Subset::Test] {
        for class in ["Normal", "Tumor"] {
            let count = |split: &Split| {
                split.assignments.iter().filter(|a| a.subset == subset && a.class == class).count()
            };
            assert_eq!(count(&random), count(&split), "{subset} {class}");
        }
    }
    // 40 images of 40 patients with 5 slices: more than half of the tested are trained on too.
    let shared = random.patients(Subset::Test).intersection(&random.patients(Subset::Train)).count();
    assert!(shared > 10, "{shared}");
    assert_ne!(random, split.at_random(&records, 2));
}

#[test]
fn keras_takes_the_first_sorted_names_of_each_class() {
    let records: Vec<Record> =
        (0..10).map(|n| record("Normal", n, "")).chain((0..10).map(|n| record("Tumor", n, ""))).collect();
    let split = Split::new(&records, &params(SplitBy::Keras)).unwrap();
    // int(0.2 * 10) = 2 a class for test, the next 2 for validation.
    assert_eq!(split.indices(Subset::Test), [0, 1, 10, 11]);
    assert_eq!(split.indices(Subset::Validation), [2, 3, 12, 13]);
}

#[test]
fn unknown_patients_are_split_by_runs_of_file_numbers() {
    let records: Vec<Record> =
        (0..100).map(|n| record("Normal", n, "")).chain((0..100).map(|n| record("Tumor", n, ""))).collect();
    let split = Split::new(&records, &params(SplitBy::Patient)).unwrap();
    assert_eq!(split.unit, Unit::Run);
    // 100 images of a class are 10 runs of 10: neighbours differ in side at most 9 times.
    let changes = split.assignments[..100].windows(2).filter(|pair| pair[0].subset != pair[1].subset).count();
    assert!(changes <= 9, "{changes}");
}

/// Patients unknown, but found: those of [`cohort`].
fn found(patients: usize, slices: usize) -> Vec<Record> {
    let mut records = cohort(patients, slices);
    for record in &mut records {
        record.group = std::mem::take(&mut record.patient);
    }
    records
}

#[test]
fn unknown_patients_are_split_by_the_groups_that_were_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.csv");
    let mut split = Split::new(&found(20, 3), &params(SplitBy::Patient)).unwrap();
    assert_eq!(split.unit, Unit::Group);
    split.check_disjoint().unwrap();
    split.write(&path).unwrap();
    assert_eq!(Split::read(&path).unwrap(), split);
    let index = split.indices(Subset::Test)[0];
    split.assignments[index].subset = Subset::Train;
    assert!(matches!(split.check_disjoint(), Err(SplitError::GroupLeak { .. })));
}

#[test]
fn groups_too_few_to_share_out_leave_the_runs() {
    // Two groups a class, three sides.
    assert_eq!(Unit::of(&found(4, 30), SplitBy::Patient), Unit::Run);
    assert_eq!(Unit::of(&found(6, 30), SplitBy::Patient), Unit::Group);
    let mut partly = found(6, 30);
    partly[7].group.clear();
    assert_eq!(Unit::of(&partly, SplitBy::Patient), Unit::Run);
}

#[test]
fn a_split_file_from_before_groups_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.csv");
    let text = "path,class,sha256,patient,subset,unit\nNormal/1.jpg,Normal,ab,,train,run\n";
    fs_err::write(&path, text).unwrap();
    let split = Split::read(&path).unwrap();
    assert_eq!((split.unit, split.assignments[0].group.as_str()), (Unit::Run, ""));
}

#[test]
fn too_few_patients_is_an_error_that_counts_them() {
    let error = Split::new(&cohort(4, 5), &params(SplitBy::Patient)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the train set would hold no `Normal` image: 2 patients of that class to share out"
    );
}

proptest! {
    #[test]
    fn no_cohort_leaks(patients in 12usize..40, slices in 1usize..6, seed: u64) {
        let params = Params { seed, ..params(SplitBy::Patient) };
        let split = Split::new(&cohort(patients, slices), &params).unwrap();
        prop_assert!(split.check_disjoint().is_ok());
    }
}
