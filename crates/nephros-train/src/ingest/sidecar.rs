//! The CSV that says which image is of which patient.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
};

use nephros_core::hint::Hint;

/// Patients by image, and what did not fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patients {
    /// Patient (or series) by path below the folder of the class folders.
    pub by_path: HashMap<String, String>,
    /// Plane of the slice, in lower case, where the CSV has a column `orientation` or `plane`.
    pub orientations: HashMap<String, String>,
    /// Paths of lines that name no file, each with its line number.
    pub unmatched: Vec<(u64, String)>,
}

/// Why the CSV cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// No such file.
    #[error("`patients_file`: `{path}` does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Not CSV.
    #[error("`{path}` is not a CSV file")]
    Csv {
        /// The file.
        path: PathBuf,
        /// What the reader says, with the line.
        source: csv::Error,
    },
    /// Other columns.
    #[error("`{path}`: expected the columns `path`, `class` and `patient`, `series` or `group`, got `{got}`")]
    Columns {
        /// The file.
        path: PathBuf,
        /// The header.
        got: String,
    },
    /// A class other than the folder.
    #[error(
        "`{path}` line {line}: expected class `{expected}` for `{image}`, as its folder says, got `{got}`"
    )]
    Class {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The image.
        image: String,
        /// Class by the folder.
        expected: String,
        /// Class in the line.
        got: String,
    },
    /// Two patients for one image.
    #[error("`{path}` line {line}: expected one patient for `{image}`, got `{first}` and `{second}`")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Line of the second, from 1.
        line: u64,
        /// The image.
        image: String,
        /// Patient of the earlier line.
        first: String,
        /// Patient of this line.
        second: String,
    },
    /// A line without a patient.
    #[error("`{path}` line {line}: expected a patient for `{image}`, got nothing")]
    Empty {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The image.
        image: String,
    },
    /// The CSV is about other images.
    #[error(
        "`{path}`: expected paths of this dataset such as `{example}`, got {lines} lines and no match, such as `{got}`"
    )]
    NoMatch {
        /// The file.
        path: PathBuf,
        /// A path of the dataset.
        example: String,
        /// A path of the CSV.
        got: String,
        /// Lines in the CSV.
        lines: usize,
    },
    /// Several candidates beside the class folders.
    #[error("expected one CSV of patients, got {}", paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", "))]
    Several {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Hint for SidecarError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "correct `patients_file` in config.yaml, or remove it".into(),
            Self::Csv { .. } | Self::Columns { .. } => {
                "the first line is `path,class,patient`; each other line is one image, such as `Normal/1.jpg,Normal,P01`"
                    .into()
            }
            Self::Class { .. } => "move the image to the right class folder, or correct the line".into(),
            Self::Contradiction { .. } | Self::Empty { .. } => {
                "correct the line; an image of an unknown patient is left out of the CSV".into()
            }
            Self::NoMatch { .. } => "paths start at the class folders or at the dataset folder above them".into(),
            Self::Several { .. } => "name the right one as `patients_file` in config.yaml".into(),
            Self::Io(_) => return None,
        })
    }
}

/// The CSV with a fitting header in `folder` or above it, up to `base`; the nearest folder wins.
///
/// # Errors
/// [`SidecarError::Several`] and [`SidecarError::Io`].
pub fn find(folder: &Path, base: &Path) -> Result<Option<PathBuf>, SidecarError> {
    for folder in folder.ancestors().take_while(|folder| folder.starts_with(base)) {
        let mut found = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
            if is_csv && path.is_file() && reader(&path).is_ok_and(|(_, columns)| columns.is_some()) {
                found.push(path);
            }
        }
        found.sort();
        match found.len() {
            0 => {}
            1 => return Ok(found.pop()),
            _ => return Err(SidecarError::Several { paths: found }),
        }
    }
    Ok(None)
}

struct Columns {
    path: usize,
    class: usize,
    patient: usize,
    orientation: Option<usize>,
}

fn reader(path: &Path) -> Result<(csv::Reader<fs_err::File>, Option<Columns>), SidecarError> {
    let file = match fs_err::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SidecarError::Missing { path: path.into() });
        }
        other => other?,
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let header = reader.headers().map_err(|source| SidecarError::Csv { path: path.into(), source })?;
    let column = |name: &str| {
        // Excel begins UTF-8 files with a byte order mark.
        header.iter().position(|title| title.trim_start_matches('\u{feff}').eq_ignore_ascii_case(name))
    };
    // `group` is what the audit writes; a user who hands it over stands by it.
    let patient = ["patient", "series", "group"].into_iter().find_map(column);
    let columns = match (column("path"), column("class"), patient) {
        (Some(path), Some(class), Some(patient)) => {
            let orientation = ["orientation", "plane"].into_iter().find_map(column);
            Some(Columns { path, class, patient, orientation })
        }
        _ => None,
    };
    Ok((reader, columns))
}

/// Reads the CSV for images given as path below the class folders' parent, with their class.
/// Lines about classes that are not used are skipped.
///
/// # Errors
/// See [`SidecarError`].
pub fn read(
    path: &Path,
    images: &BTreeMap<String, String>,
    classes: &[String],
) -> Result<Patients, SidecarError> {
    let csv_error = |source| SidecarError::Csv { path: path.into(), source };
    let (mut reader, columns) = reader(path)?;
    let Some(columns) = columns else {
        let got = reader.headers().map_err(csv_error)?.iter().collect::<Vec<_>>().join(",");
        return Err(SidecarError::Columns { path: path.into(), got });
    };
    let mut patients = Patients::default();
    let mut lines = 0;
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |column: usize| record.get(column).unwrap_or_default().to_owned();
        let (image, class, patient) = (field(columns.path), field(columns.class), field(columns.patient));
        lines += 1;
        let Some((known, expected)) = matching(&image, images) else {
            if classes.contains(&class) {
                patients.unmatched.push((line, image));
            }
            continue;
        };
        if *expected != class {
            return Err(SidecarError::Class {
                path: path.into(),
                line,
                image,
                expected: expected.clone(),
                got: class,
            });
        }
        if patient.is_empty() {
            return Err(SidecarError::Empty { path: path.into(), line, image });
        }
        let orientation = columns.orientation.map(field).unwrap_or_default();
        if !orientation.is_empty() {
            patients.orientations.insert(known.clone(), orientation.to_lowercase());
        }
        match patients.by_path.insert(known.clone(), patient.clone()) {
            Some(first) if first != patient => {
                return Err(SidecarError::Contradiction {
                    path: path.into(),
                    line,
                    image,
                    first,
                    second: patient,
                });
            }
            _ => {}
        }
    }
    match (patients.by_path.is_empty(), images.keys().next(), patients.unmatched.first()) {
        (true, Some(example), got) => Err(SidecarError::NoMatch {
            path: path.into(),
            example: example.clone(),
            got: got.map(|(_, image)| image.clone()).unwrap_or_default(),
            lines,
        }),
        _ => Ok(patients),
    }
}

/// The image that `path` names, with or without folders above the class folders.
fn matching<'a>(path: &str, images: &'a BTreeMap<String, String>) -> Option<(&'a String, &'a String)> {
    let path = path.replace('\\', "/");
    let mut rest = path.trim_start_matches("./");
    loop {
        if let Some(found) = images.get_key_value(rest) {
            return Some(found);
        }
        rest = rest.split_once('/')?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Patients, SidecarError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("patients.csv");
        fs_err::write(&path, text).unwrap();
        let images = BTreeMap::from([
            ("Normal/1.jpg".to_owned(), "Normal".to_owned()),
            ("Tumor/2.jpg".to_owned(), "Tumor".to_owned()),
        ]);
        read(&path, &images, &["Normal".to_owned(), "Tumor".to_owned()])
    }

    #[test]
    fn paths_may_have_folders_before_them_and_columns_any_order() {
        let text =
            "\u{feff}series,Class,path\r\nN1,Normal,set/Normal/1.jpg\r\nT1,Tumor,set\\Tumor\\2.jpg\r\n";
        let patients = read_text(text).unwrap();
        assert_eq!(patients.by_path["Normal/1.jpg"], "N1");
        assert_eq!(patients.by_path["Tumor/2.jpg"], "T1");
    }

    #[test]
    fn the_plane_of_a_slice_may_be_told() {
        let text = "path,class,patient,Plane\nNormal/1.jpg,Normal,a,Axial\nTumor/2.jpg,Tumor,b,\n";
        let patients = read_text(text).unwrap();
        assert_eq!(patients.orientations, HashMap::from([("Normal/1.jpg".into(), "axial".into())]));
    }

    #[test]
    fn the_groups_of_an_audit_are_taken() {
        let header = "path,class,group,known_patient,reason,conflict\n";
        let text = format!("{header}Normal/1.jpg,Normal,G001,,alone,\nTumor/2.jpg,Tumor,G002,,alone,\n");
        assert_eq!(read_text(&text).unwrap().by_path["Tumor/2.jpg"], "G002");
    }

    #[test]
    fn lines_without_a_file_are_kept_but_not_those_of_unused_classes() {
        let text = "path,class,patient\nNormal/1.jpg,Normal,a\nNormal/9.jpg,Normal,a\nCyst/1.jpg,Cyst,b\n";
        assert_eq!(read_text(text).unwrap().unmatched, [(3, "Normal/9.jpg".to_owned())]);
    }

    #[test]
    fn wrong_class_other_columns_contradictions_and_strangers_are_refused() {
        let is = |text: &str, wanted: fn(&SidecarError) -> bool| wanted(&read_text(text).unwrap_err());
        assert!(is("path,class,patient\nNormal/1.jpg,Tumor,a\n", |e| matches!(
            e,
            SidecarError::Class { line: 2, .. }
        )));
        assert!(is("file,label\nx,y\n", |e| matches!(e, SidecarError::Columns { .. })));
        assert!(is("path,class,patient\nNormal/1.jpg,Normal,a\nNormal/1.jpg,Normal,b\n", |e| {
            matches!(e, SidecarError::Contradiction { line: 3, .. })
        }));
        assert!(is("path,class,patient\nNormal/1.jpg,Normal,\n", |e| matches!(
            e,
            SidecarError::Empty { .. }
        )));
        assert!(is("path,class,patient\nNormal/8.jpg,Normal,a\n", |e| matches!(
            e,
            SidecarError::NoMatch { .. }
        )));
        assert!(is("path,class,patient\nNormal/1.jpg,Normal\n", |e| matches!(e, SidecarError::Csv { .. })));
    }
}
