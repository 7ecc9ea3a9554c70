//! The estimated plane of real slices whose plane was read from the pictures.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, in its helpers too")]

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use nephros_core::pixels::decode;
use nephros_train::orientation::Plane;
use rayon::prelude::*;

/// First and last file number of the coronal slices of each class; all others are axial. The numbers are
/// those of the collection that both sets were taken from, as in `scripts/real-cohort`.
const CORONAL: [(&str, u32, u32); 4] =
    [("Normal", 637, 715), ("Normal", 999, 999), ("Tumor", 701, 856), ("Tumor", 950, 973)];

fn shared(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = std::env::var_os("NEPHROS_SHARED").map_or(default, PathBuf::from).join("data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// Class and number of `…/Tumor/Tumor- (7).jpg`.
fn numbered(name: &str) -> Option<(String, u32)> {
    let (folders, file) = name.rsplit_once('/')?;
    let class = folders.rsplit('/').next()?;
    let number = file.split_once('(')?.1.split_once(')')?.0.parse().ok()?;
    ["Normal", "Tumor"].contains(&class).then(|| (class.to_owned(), number))
}

#[test]
fn real_slices_are_told_apart() {
    let (mut right, mut all, mut coronal) = (0, 0, 0);
    for set in ["kidney-ct-scan-image.zip", "kidney-ct-4class.zip"] {
        let Some(path) = shared(set) else { return };
        let mut archive = zip::ZipArchive::new(fs_err::File::open(path).unwrap()).unwrap();
        let mut slices = Vec::new();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).unwrap();
            let name = file.name().unwrap().into_owned();
            let Some((class, number)) = numbered(&name) else { continue };
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let is_coronal =
                CORONAL.iter().any(|(of, first, last)| *of == class && (*first..=*last).contains(&number));
            slices.push((name, if is_coronal { Plane::Coronal } else { Plane::Axial }, bytes));
        }
        let wrong: Vec<&String> = slices
            .par_iter()
            .filter(|(_, plane, bytes)| Plane::estimate(&decode(bytes).unwrap()) != Some(*plane))
            .map(|(name, ..)| name)
            .collect();
        println!("{set}: {} of {} wrong: {wrong:?}", wrong.len(), slices.len());
        coronal += slices.iter().filter(|(_, plane, _)| *plane == Plane::Coronal).count();
        all += slices.len();
        right += slices.len() - wrong.len();
    }
    assert!(all > 1200 && coronal > 200, "{all} slices, {coronal} of them coronal");
    assert_eq!(right, all);
}
