//! The audit on real scans, on drawn patients with shuffled names, and on damaged and doubled files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use image::{DynamicImage, ImageFormat, imageops::FilterType};
use nephros_train::{
    audit::{Audit, AuditError, audit, groups::Reason},
    config::{CONFIG_TEMPLATE, Config, PARAMS_TEMPLATE, Params},
    ingest::ingest,
    phantom::{self, Cohort, PhantomClass, write_cohort},
    progress::Silent,
    split::{Split, Unit},
    stages::{Dataset, Project},
};

/// A file of the shared scans, unless this machine has none.
fn shared(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = std::env::var_os("NEPHROS_SHARED").map_or(default, PathBuf::from).join("data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// Agreement of two partitions: 1 when equal, 0 on average by chance.
///
/// Source: Hubert and Arabie, Comparing partitions, 1985.
fn adjusted_rand_index(pairs: &[(usize, String)]) -> f64 {
    let choose = |count: &f64| count * (count - 1.0) / 2.0;
    let mut cells: BTreeMap<(usize, &str), f64> = BTreeMap::new();
    let (mut found, mut true_): (BTreeMap<usize, f64>, BTreeMap<&str, f64>) = Default::default();
    for (group, truth) in pairs {
        *cells.entry((*group, truth)).or_default() += 1.0;
        *found.entry(*group).or_default() += 1.0;
        *true_.entry(truth).or_default() += 1.0;
    }
    let index: f64 = cells.values().map(choose).sum();
    let (found, true_) = (found.values().map(choose).sum::<f64>(), true_.values().map(choose).sum::<f64>());
    let expected = found * true_ / choose(&(pairs.len() as f64));
    (index - expected) / (found.midpoint(true_) - expected)
}

#[test]
fn the_rand_index_of_known_partitions() {
    let pairs = |rows: &[(usize, &str)]| rows.iter().map(|&(g, t)| (g, t.to_owned())).collect::<Vec<_>>();
    assert!((adjusted_rand_index(&pairs(&[(0, "a"), (0, "a"), (1, "b"), (1, "b")])) - 1.0).abs() < 1e-12);
    // scikit-learn: adjusted_rand_score([0, 0, 1, 2], [0, 0, 1, 1]) = 0.571428…: pairs together in both 1,
    // in the first 1, in the second 2, of 6. (1 - 1/3) / (3/2 - 1/3) = 4/7
    let index = adjusted_rand_index(&pairs(&[(0, "a"), (0, "a"), (1, "b"), (2, "b")]));
    assert!((index - 4.0 / 7.0).abs() < 1e-12, "{index}");
}

/// Group and truth of each image; `truth` by path.
fn agreement(audit: &Audit, truth: &BTreeMap<String, String>) -> f64 {
    let pairs: Vec<(usize, String)> =
        audit.members.iter().map(|member| (member.group, truth[&member.subject.path].clone())).collect();
    adjusted_rand_index(&pairs)
}

/// `path` and another column of a CSV, the path without what stands before the class folder.
fn column(csv: &Path, name: &str) -> BTreeMap<String, String> {
    let mut reader = csv::Reader::from_path(csv).unwrap();
    let header = reader.headers().unwrap().clone();
    let position = |name: &str| header.iter().position(|title| title == name).unwrap();
    let (path, value) = (position("path"), position(name));
    let below = |path: &str| {
        path.rsplitn(3, '/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/")
    };
    reader.records().map(|row| row.unwrap()).map(|row| (below(&row[path]), row[value].to_owned())).collect()
}

#[test]
fn the_series_of_the_real_four_classes_are_found() {
    let (Some(zip), Some(csv)) = (shared("kidney-ct-4class.zip"), shared("kidney-ct-4class-series.csv"))
    else {
        return;
    };
    let audit = audit(&zip, None, &Silent).unwrap();
    let series = column(&csv, "series");
    let index = agreement(&audit, &series);
    println!("kidney-ct-4class: adjusted Rand index {index:.3}\n{audit}");
    assert!(index >= 0.90, "{index}");
    assert_eq!((audit.members.len(), audit.exact_duplicates), (1152, 0));
    // A group of two classes is a conflict; there is neither.
    let mixed = mixed_groups(&audit);
    assert_eq!(mixed, audit.conflicting_groups());
    assert_eq!(mixed, 0);
    assert!(audit.leaked_share() > 0.99, "{}", audit.leaked_share());
    let votes = audit.votes.unwrap();
    assert!(votes.random > 0.99 && votes.by_group < 0.7, "{votes:?}");
}

/// Groups that hold images of several classes, counted apart from the audit's own list.
fn mixed_groups(audit: &Audit) -> usize {
    let classes = |group: usize| {
        let members = audit.members.iter().filter(move |member| member.group == group);
        members.map(|member| member.subject.class.as_str()).collect::<std::collections::BTreeSet<_>>().len()
    };
    (0..audit.sizes.len()).filter(|&group| classes(group) > 1).count()
}

#[test]
fn the_465_real_scans_fall_into_few_groups() {
    let Some(zip) = shared("kidney-ct-scan-image.zip") else { return };
    let audit = audit(&zip, None, &Silent).unwrap();
    println!("{audit}");
    // scripts/real-cohort knows 7 patients in 10 or more series.
    assert!((10..=20).contains(&audit.sizes.len()), "{}", audit.sizes.len());
    let group = |path: &str| audit.members.iter().find(|member| member.subject.path == path).unwrap().group;
    // One coronal series, and the axial one that follows it by number.
    assert_eq!(group("Normal/Normal- (637).jpg"), group("Normal/Normal- (715).jpg"));
    assert_ne!(group("Normal/Normal- (715).jpg"), group("Normal/Normal- (716).jpg"));
    assert_eq!(group("Tumor/Tumor- (701).jpg"), group("Tumor/Tumor- (856).jpg"));
}

/// A drawn cohort whose files are named in the order of their digests. Gives the truth by path.
fn shuffled(folder: &Path, cohort: &Cohort) -> BTreeMap<String, String> {
    let drawn = folder.join("drawn");
    write_cohort(cohort, &drawn, &Silent).unwrap();
    let mut images: Vec<_> = column(&drawn.join("patients.csv"), "patient")
        .into_iter()
        .map(|(path, patient)| {
            (nephros_core::digest::sha256_file(&drawn.join(&path)).unwrap(), path, patient)
        })
        .collect();
    images.sort();
    let mut truth = BTreeMap::new();
    for (number, (_, path, patient)) in images.into_iter().enumerate() {
        let named = format!("{}/{number}.jpg", path.split_once('/').unwrap().0);
        let target = folder.join("shuffled").join(&named);
        fs_err::create_dir_all(target.parent().unwrap()).unwrap();
        fs_err::rename(drawn.join(path), target).unwrap();
        truth.insert(named, patient);
    }
    truth
}

#[test]
fn drawn_patients_are_found_though_names_are_shuffled() {
    let folder = tempfile::tempdir().unwrap();
    let classes = vec![PhantomClass::Normal, PhantomClass::Tumor, PhantomClass::Cyst];
    let cohort = Cohort { patients: 24, slices: 10, seed: 5, classes, size: 256, ..Cohort::default() };
    let truth = shuffled(folder.path(), &cohort);
    let audit = audit(&folder.path().join("shuffled"), None, &Silent).unwrap();
    let index = agreement(&audit, &truth);
    println!("24 drawn patients, shuffled names: adjusted Rand index {index:.3}\n{audit}");
    assert!(index >= 0.95, "{index}");
    assert!(audit.conflicts.is_empty(), "{:?}", audit.conflicts);
    assert!(
        audit.members.iter().all(|member| member.reason != Reason::FileNumber),
        "numbers say nothing here"
    );
}

/// Two drawn patients a class in `Normal` and `Tumor`, without their CSV.
fn small(folder: &Path) -> PathBuf {
    let cohort =
        Cohort { patients: 8, slices: 4, size: 128, format: phantom::ImageFormat::Png, ..Cohort::default() };
    let set = folder.join("set");
    write_cohort(&cohort, &set, &Silent).unwrap();
    fs_err::remove_file(set.join("patients.csv")).unwrap();
    set
}

fn open(path: &Path) -> DynamicImage {
    image::load_from_memory(&fs_err::read(path).unwrap()).unwrap()
}

fn save(image: &DynamicImage, path: &Path, format: ImageFormat) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    fs_err::write(path, bytes.into_inner()).unwrap();
}

fn member<'a>(audit: &'a Audit, path: &str) -> &'a nephros_train::audit::Member {
    audit.members.iter().find(|member| member.subject.path == path).unwrap()
}

#[test]
fn copies_are_found_whatever_the_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let set = small(folder.path());
    let original = open(&set.join("Normal/Normal- (1).png"));
    // The same pixels in another format, and the same picture smaller and darker.
    save(&original, &set.join("Normal/x.bmp"), ImageFormat::Bmp);
    let smaller = original.resize_exact(97, 97, FilterType::Triangle).brighten(-12);
    save(&smaller, &set.join("Normal/y.png"), ImageFormat::Png);
    let audit = audit(&set, None, &Silent).unwrap();
    assert_eq!(audit.exact_duplicates, 1);
    let [first, same, near] =
        ["Normal/Normal- (1).png", "Normal/x.bmp", "Normal/y.png"].map(|path| member(&audit, path));
    assert_eq!((same.reason, near.reason), (Reason::ExactDuplicate, Reason::NearDuplicate));
    assert_eq!((same.group, near.group), (first.group, first.group));
    assert!(audit.conflicts.is_empty());
}

#[test]
fn a_picture_in_two_classes_is_reported_exact_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let set = small(folder.path());
    fs_err::copy(set.join("Normal/Normal- (1).png"), set.join("Tumor/copy.png")).unwrap();
    let picture = open(&set.join("Tumor/Tumor- (9).png"));
    save(&picture.brighten(7), &set.join("Normal/other.bmp"), ImageFormat::Bmp);
    let audit = audit(&set, None, &Silent).unwrap();
    let found: Vec<usize> = audit.conflicts.iter().map(|conflict| conflict.group).collect();
    let expected = ["Tumor/copy.png", "Normal/other.bmp"].map(|path| member(&audit, path).group);
    assert_eq!(audit.conflicting_groups(), 2);
    assert!(expected.iter().all(|group| found.contains(group)), "{found:?} {expected:?}");
    assert!(audit.conflicts.iter().all(|conflict| conflict.what == "classes"));
    assert_eq!(mixed_groups(&audit), 2);
    assert!(audit.to_string().contains("conflicts in 2 groups"), "{audit}");
}

#[test]
fn one_picture_of_two_known_patients_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let set = small(folder.path());
    fs_err::copy(set.join("Normal/Normal- (1).png"), set.join("Normal/copy.png")).unwrap();
    let csv = "path,class,patient\nNormal/Normal- (1).png,Normal,P1\nNormal/copy.png,Normal,P2\n";
    fs_err::write(set.join("patients.csv"), csv).unwrap();
    let audit = audit(&set, None, &Silent).unwrap();
    let kinds: Vec<&str> = audit.conflicts.iter().map(|conflict| conflict.what).collect();
    assert_eq!(kinds, ["patients"]);
    assert_eq!(member(&audit, "Normal/copy.png").reason, Reason::Patient);
}

#[test]
fn broken_images_are_listed_and_nothing_else_stops() {
    let folder = tempfile::tempdir().unwrap();
    let set = small(folder.path());
    fs_err::write(set.join("Normal/broken.jpg"), b"\xff\xd8\xff\xe0 cut").unwrap();
    fs_err::write(set.join("Tumor/page.png"), b"<!DOCTYPE html>").unwrap();
    let found = audit(&set, None, &Silent).unwrap();
    let broken: Vec<&str> = found.broken.iter().map(|broken| broken.path.as_str()).collect();
    assert_eq!((found.members.len(), broken), (32, vec!["Normal/broken.jpg", "Tumor/page.png"]));
    assert!(found.to_string().contains("2 files cannot be decoded"), "{found}");
    fs_err::remove_dir_all(&set).unwrap();
    fs_err::create_dir(&set).unwrap();
    assert!(matches!(audit(&set, None, &Silent), Err(AuditError::NoImages { .. })));
    fs_err::write(set.join("only.png"), b"text").unwrap();
    assert!(matches!(audit(&set, None, &Silent), Err(AuditError::NoUsable { broken: 1, .. })));
}

#[test]
fn ingest_finds_groups_where_patients_are_unknown_and_takes_the_corrected_file() {
    let folder = tempfile::tempdir().unwrap();
    let set = small(folder.path());
    let config = Config::parse(Path::new("config.yaml"), CONFIG_TEMPLATE).unwrap();
    let params = Params::parse(Path::new("params.yaml"), PARAMS_TEMPLATE).unwrap();
    let mut project = Project { root: folder.path().into(), config, params };
    project.config.data_ingestion.source_url = "set".into();
    assert_eq!(ingest(&project, &Silent).unwrap().patients, 0);
    let dataset = Dataset::load(&project).unwrap();
    let split = Split::new(&dataset.records, &project.params).unwrap();
    assert_eq!(split.unit, Unit::Group);
    split.check_disjoint().unwrap();

    // The groups of the audit, of the manifest as of the folder, are taken for patients.
    let manifest = folder.path().join("artifacts/data_ingestion/manifest.csv");
    let found = audit(&manifest, None, &Silent).unwrap();
    assert_eq!(found.members, audit(&set, None, &Silent).unwrap().members);
    found.write_groups(&folder.path().join("groups.csv")).unwrap();
    project.config.data_ingestion.patients_file = Some("groups.csv".into());
    assert_eq!(ingest(&project, &Silent).unwrap().patients, found.sizes.len());
    let dataset = Dataset::load(&project).unwrap();
    assert_eq!(Split::new(&dataset.records, &project.params).unwrap().unit, Unit::Patient);
}
