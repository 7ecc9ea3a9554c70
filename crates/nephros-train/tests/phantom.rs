//! Phantom cohorts: what they promise to whoever trains on them.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use fs_err as fs;
use nephros_core::hint::Hint;
use nephros_train::{
    phantom::{Cohort, ImageFormat, Patient, PhantomClass, PhantomError, slice, write_cohort},
    progress::{Progress, Silent, Task, Unit},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

const ALL: [PhantomClass; 4] =
    [PhantomClass::Normal, PhantomClass::Tumor, PhantomClass::Cyst, PhantomClass::Stone];

fn small() -> Cohort {
    Cohort { patients: 4, slices: 2, size: 96, ..Cohort::default() }
}

/// All files below `root` by relative path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn written(cohort: &Cohort) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    write_cohort(cohort, &folder.path().join("cohort"), &Silent).unwrap();
    files(&folder.path().join("cohort"))
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let cohort = Cohort { masks: true, ..small() };
    let on = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| written(&cohort))
    };
    let one = on(1);
    assert_eq!(one.len(), 2 + 8 + 8); // sidecar and marker, 4 · 2 images, as many masks
    assert!(one == on(3), "bytes depend on the number of threads");
}

#[test]
fn another_seed_gives_other_images() {
    let (first, second) = (written(&small()), written(&Cohort { seed: 43, ..small() }));
    assert!(first.keys().eq(second.keys()));
    for (name, bytes) in first.iter().filter(|(name, _)| name.ends_with(".jpg")) {
        assert_ne!(bytes, &second[name], "`{name}` does not depend on the seed");
    }
}

#[test]
fn the_sidecar_lists_every_file_once_with_its_folder_and_patient() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let cohort = Cohort { patients: 5, slices: 3, classes: ALL.to_vec(), format, ..small() };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("deep/cohort");
        let summary = write_cohort(&cohort, &out, &Silent).unwrap();
        let mut reader = csv::Reader::from_path(&summary.sidecar).unwrap();
        assert_eq!(reader.headers().unwrap(), vec!["path", "class", "patient"]);
        let rows: Vec<[String; 3]> = reader.deserialize().map(Result::unwrap).collect();
        let listed: HashSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        let found = files(&out);
        let images: HashSet<&str> =
            found.keys().map(String::as_str).filter(|name| name.contains('/')).collect();
        assert_eq!(listed, images);
        assert_eq!(rows.len(), 15); // 5 · 3
        for [path, class, patient] in &rows {
            assert!(path.starts_with(&format!("{class}/{class}- (")), "`{path}` is not of `{class}`");
            let index: usize = patient[1..].parse::<usize>().unwrap() - 1;
            assert_eq!(class, cohort.class_of(index).name());
        }
        assert_eq!(summary.images[&PhantomClass::Normal], 6); // patients 1 and 5
        assert_eq!(summary.images[&PhantomClass::Stone], 3);
        let last = format!("Normal/Normal- (6).{}", format.extension());
        assert!(found.contains_key(&last), "numbers run on through the patients of a class");
    }
}

#[test]
fn png_files_hold_the_windowed_slice() {
    let cohort = Cohort { format: ImageFormat::Png, ..small() };
    let found = written(&cohort);
    let patient = Patient::new(&cohort, 1);
    let (center, width) = patient.window();
    let stored = image::load_from_memory(&found["Tumor/Tumor- (2).png"]).unwrap().into_luma8();
    assert_eq!(stored.into_raw(), slice(&patient, 1).windowed(center, width));
}

#[test]
fn jpeg_files_are_close_to_the_windowed_slice() {
    let cohort = Cohort { size: 256, ..small() };
    let found = written(&cohort);
    let patient = Patient::new(&cohort, 0);
    let (center, width) = patient.window();
    let bytes = &found["Normal/Normal- (1).jpg"];
    let mut decoder = mozjpeg::Decompress::new_mem(bytes).unwrap().grayscale().unwrap();
    let stored: Vec<u8> = decoder.read_scanlines().unwrap();
    decoder.finish().unwrap();
    let drawn = slice(&patient, 0).windowed(center, width);
    let sum: f64 = stored.iter().zip(&drawn).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    let mean = sum / drawn.len() as f64;
    assert!(mean < 4.0, "quality 90 should change a pixel by a few grey levels, got {mean}");
}

#[test]
fn exactly_the_slices_of_patients_with_a_lesion_show_one() {
    for size in [64, 192] {
        let cohort =
            Cohort { patients: 48, slices: 4, size, classes: ALL.to_vec(), ..Cohort::default() };
        (0..cohort.patients).into_par_iter().for_each(|index| {
            let patient = Patient::new(&cohort, index);
            for number in 0..cohort.slices {
                let pixels = slice(&patient, number).lesion.iter().filter(|inside| **inside).count();
                let expected = patient.class() != PhantomClass::Normal;
                assert_eq!(pixels > 0, expected, "{:?} {} slice {number}", patient.class(), patient.name());
            }
        });
    }
}

/// Nothing but the lesion may tell the classes apart, or a network would learn the wrong thing.
#[test]
fn the_class_changes_only_the_surroundings_of_the_lesion() {
    let cohort = Cohort { patients: 12, slices: 3, size: 192, ..Cohort::default() };
    // Fat, fillet and blur reach 9 + 12 + 2 mm beyond the mass; a pixel is at least 300/192 mm.
    let reach = 18;
    for index in 0..cohort.patients {
        let [normal, tumor] = [PhantomClass::Normal, PhantomClass::Tumor]
            .map(|class| Patient::with_class(&cohort, index, class));
        assert_eq!(normal.levels(), tumor.levels());
        assert_eq!(normal.window(), tumor.window());
        let (without, with) = (slice(&normal, 1), slice(&tumor, 1));
        let inside: Vec<usize> = (0..with.hu.len()).filter(|pixel| with.lesion[*pixel]).collect();
        let range = |axis: fn(usize) -> usize| {
            let values = inside.iter().map(|pixel| axis(*pixel));
            let (low, high) = (values.clone().min().unwrap(), values.max().unwrap());
            low.saturating_sub(reach)..=high + reach
        };
        let (columns, rows) = (range(|pixel| pixel % 192), range(|pixel| pixel / 192));
        for (pixel, (a, b)) in without.hu.iter().zip(&with.hu).enumerate() {
            let near = columns.contains(&(pixel % 192)) && rows.contains(&(pixel / 192));
            assert!(a == b || near, "patient {index}: pixel {pixel} differs far from the lesion");
        }
        assert_ne!(without.hu, with.hu);
    }
}

/// Mean absolute difference of two grey images.
fn difference(first: &[u8], second: &[u8]) -> f64 {
    let sum: u64 = first.iter().zip(second).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / first.len() as f64
}

#[test]
fn neighbouring_slices_are_more_alike_than_other_patients() {
    let cohort = Cohort { patients: 16, slices: 4, size: 128, ..Cohort::default() };
    let grey: Vec<Vec<Vec<u8>>> = (0..cohort.patients)
        .into_par_iter()
        .map(|index| {
            let patient = Patient::new(&cohort, index);
            (0..4).map(|number| slice(&patient, number).windowed(40.0, 400.0)).collect()
        })
        .collect();
    for (index, own) in grey.iter().enumerate() {
        let neighbour = own.windows(2).map(|pair| difference(&pair[0], &pair[1])).fold(0.0, f64::max);
        let stranger = grey
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, other)| difference(&own[0], &other[0]))
            .fold(f64::INFINITY, f64::min);
        assert!(neighbour < stranger, "patient {index}: {neighbour} to a neighbour, {stranger} to a stranger");
    }
}

/// One image of the nearest-neighbour test.
struct Sample {
    pixels: Vec<u8>,
    class: PhantomClass,
    patient: usize,
}

/// 64×64 grey pixels, each the mean of 4×4.
fn shrink(grey: &[u8]) -> Vec<u8> {
    (0..64 * 64)
        .map(|pixel| {
            let (column, row) = (pixel % 64 * 4, pixel / 64 * 4);
            let sum: u32 =
                (0..16).map(|part| u32::from(grey[(row + part / 4) * 256 + column + part % 4])).sum();
            (sum / 16) as u8
        })
        .collect()
}

/// Accuracy of the majority of the 5 nearest samples of other folds.
fn nearest_neighbours(samples: &[Sample], folds: &[usize]) -> f64 {
    let right = (0..samples.len())
        .into_par_iter()
        .filter(|test| {
            let mut others: Vec<(u64, PhantomClass)> = (0..samples.len())
                .filter(|other| folds[*other] != folds[*test])
                .map(|other| (distance(&samples[*test].pixels, &samples[other].pixels), samples[other].class))
                .collect();
            others.select_nth_unstable(4);
            let tumors = others[..5].iter().filter(|(_, class)| *class == PhantomClass::Tumor).count();
            (tumors >= 3) == (samples[*test].class == PhantomClass::Tumor)
        })
        .count();
    right as f64 / samples.len() as f64
}

fn distance(first: &[u8], second: &[u8]) -> u64 {
    first.iter().zip(second).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum()
}

/// As on the real scans, where the figures are 0.998 and 0.759, 1.000 and 0.574.
#[test]
fn pixel_neighbours_do_well_on_a_random_split_and_badly_across_patients() {
    let cohort = Cohort { patients: 40, slices: 10, size: 256, ..Cohort::default() };
    let samples: Vec<Sample> = (0..cohort.patients)
        .into_par_iter()
        .flat_map_iter(|index| {
            let patient = Patient::new(&cohort, index);
            let (center, width) = patient.window();
            (0..cohort.slices).map(move |number| Sample {
                pixels: shrink(&slice(&patient, number).windowed(center, width)),
                class: patient.class(),
                patient: index,
            })
        })
        .collect();
    // Patients 2k and 2k + 1 are of different classes and share a fold.
    let by_patient: Vec<usize> = samples.iter().map(|sample| sample.patient / 2 % 5).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut order: Vec<(bool, u64, usize)> = (0..samples.len())
        .map(|index| (samples[index].class == PhantomClass::Tumor, rng.next_u64(), index))
        .collect();
    order.sort_unstable();
    let mut at_random = vec![0; samples.len()];
    for (rank, (_, _, index)) in order.iter().enumerate() {
        at_random[*index] = rank % 5;
    }
    let random = nearest_neighbours(&samples, &at_random);
    let unseen = nearest_neighbours(&samples, &by_patient);
    println!("5 nearest neighbours: {random:.3} on a random split, {unseen:.3} on unseen patients");
    assert!(random >= 0.95, "random split: {random}");
    assert!(unseen <= 0.75, "unseen patients: {unseen}");
}

#[test]
fn cohorts_that_cannot_be_drawn_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("cohort");
    let refused = |cohort: Cohort| {
        let error = write_cohort(&cohort, &out, &Silent).unwrap_err();
        assert!(error.hint().is_some_and(|hint| !hint.ends_with('.')), "{error} has no hint");
        assert!(!out.exists(), "{error} left a folder behind");
        error.to_string()
    };
    assert_eq!(refused(Cohort { patients: 0, ..small() }), "a cohort needs at least 1 patient, got 0");
    assert_eq!(refused(Cohort { slices: 0, ..small() }), "a cohort needs at least 1 slice a patient, got 0");
    assert_eq!(
        refused(Cohort { patients: 3, classes: ALL.to_vec(), ..small() }),
        "a cohort of 4 classes needs at least 4 patients, got 3"
    );
    assert_eq!(
        refused(Cohort { classes: vec![PhantomClass::Cyst; 2], ..small() }),
        "a cohort needs one or more different classes, got `Cyst, Cyst`"
    );
    assert!(refused(Cohort { classes: vec![], ..small() }).ends_with("got ``"));
    assert_eq!(refused(Cohort { size: 63, ..small() }), "image size must be 64 to 2048 pixels, got 63");
    assert!(refused(Cohort { patients: usize::MAX, ..small() }).starts_with("the cohort needs about "));
}

#[test]
fn a_folder_with_foreign_files_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    fs::write(out.join("thesis.txt"), "years of work").unwrap();
    let error = write_cohort(&small(), out, &Silent).unwrap_err();
    assert!(matches!(&error, PhantomError::Occupied { found, .. } if found == "thesis.txt"), "{error}");
    fs::remove_file(out.join("thesis.txt")).unwrap();

    write_cohort(&small(), out, &Silent).unwrap();
    fs::write(out.join("Normal/scan of my uncle.jpg"), "irreplaceable").unwrap();
    let error = write_cohort(&small(), out, &Silent).unwrap_err();
    assert!(error.to_string().contains("Normal/scan of my uncle.jpg"), "{error}");
    assert_eq!(fs::read(out.join("Normal/scan of my uncle.jpg")).unwrap(), b"irreplaceable");
}

#[test]
fn a_folder_that_only_looks_like_a_cohort_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("Normal")).unwrap();
    fs::write(folder.path().join("Normal/Normal- (1).jpg"), "a real scan").unwrap();
    let error = write_cohort(&small(), folder.path(), &Silent).unwrap_err();
    assert!(matches!(error, PhantomError::Occupied { .. }), "{error}");
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn an_earlier_cohort_and_what_a_killed_one_left_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    write_cohort(&Cohort { masks: true, classes: ALL.to_vec(), ..small() }, out, &Silent).unwrap();
    fs::create_dir_all(out.join(".nephros-phantom-x1/Normal")).unwrap();
    fs::write(out.join(".nephros-phantom-x1/Normal/Normal- (1).jpg"), "half").unwrap();
    write_cohort(&small(), out, &Silent).unwrap();
    assert!(files(out) == written(&small()), "something of the earlier cohort is left");
}

#[test]
fn a_path_through_a_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for out in [folder.path().join("file"), folder.path().join("file/cohort")] {
        let error = write_cohort(&small(), &out, &Silent).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` cannot be written", out.display()));
        assert_eq!(error.hint().unwrap(), "a part of this path is a file; choose another folder");
    }
}

/// Asks to stop as soon as anything is drawn.
struct Impatient;

impl Progress for Impatient {
    fn task(&self, _name: &str, total: Option<u64>, _unit: Unit) -> Box<dyn Task> {
        assert_eq!(total, Some(8)); // 4 patients · 2 slices
        Box::new(Silent)
    }

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_stopped_cohort_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("cohort");
    let error = write_cohort(&small(), &out, &Impatient).unwrap_err();
    assert!(matches!(error, PhantomError::Cancelled(_)), "{error}");
    assert!(!out.exists());
}
