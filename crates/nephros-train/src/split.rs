//! Which images are for training, validation and test: decided once, written down, checked before
//! every fit and evaluation.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::Path,
};

use nephros_core::{digest::sha256, hint::Hint};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Params, SplitBy},
    files::write_atomic,
    manifest::Record,
};

/// Side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subset {
    /// Fitted on.
    Train,
    /// Chooses the best epoch.
    Validation,
    /// Scored once, at the end.
    Test,
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// What kept images together when the split was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Patients (or series) of the manifest.
    Patient,
    /// Groups that the audit found, because no patient is known.
    Group,
    /// Runs of adjacent file numbers, because no patient is known and the groups are too few.
    Run,
    /// Nothing: each image on its own.
    Image,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patient => "patient",
            Self::Group => "group",
            Self::Run => "run",
            Self::Image => "image",
        })
    }
}

impl Unit {
    /// What `SPLIT_BY` keeps together among these records: patients only if all are known, else the
    /// groups that the audit found if they can be shared out.
    pub fn of(records: &[Record], split_by: SplitBy) -> Self {
        match split_by {
            SplitBy::Patient if records.iter().all(|record| !record.patient.is_empty()) => Self::Patient,
            SplitBy::Patient if can_share_groups(records) => Self::Group,
            SplitBy::Patient => Self::Run,
            SplitBy::Random | SplitBy::Keras => Self::Image,
        }
    }
}

/// One image's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// As in the manifest.
    pub path: String,
    /// Class folder.
    pub class: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Patient, empty when unknown.
    pub patient: String,
    /// Group that the audit found, empty when there is none.
    pub group: String,
    /// Its side.
    pub subset: Subset,
}

/// A split of a manifest, in the manifest's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// One for each image.
    pub assignments: Vec<Assignment>,
    /// What was kept together.
    pub unit: Unit,
}

/// A split that cannot be made, read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not a split.
    #[error("`{path}` is not a split file")]
    Format {
        /// The file.
        path: String,
        /// What the reader says.
        source: csv::Error,
    },
    /// A subset would lack a class.
    #[error("the {subset} set would hold no `{class}` image: {have} {unit} of that class to share out")]
    TooFew {
        /// The subset.
        subset: Subset,
        /// The class.
        class: String,
        /// Units of the class.
        have: usize,
        /// Plural name of the units.
        unit: &'static str,
    },
    /// The same patient on two sides.
    #[error("patient `{patient}` is in the {first} set and in the {second} set")]
    PatientLeak {
        /// The patient.
        patient: String,
        /// One side.
        first: Subset,
        /// The other.
        second: Subset,
    },
    /// The same found group on two sides.
    #[error("group `{group}` is in the {first} set and in the {second} set")]
    GroupLeak {
        /// The group.
        group: String,
        /// One side.
        first: Subset,
        /// The other.
        second: Subset,
    },
    /// The same image on two sides.
    #[error(
        "the same image is in the {first} set (`{first_path}`) and in the {second} set (`{second_path}`)"
    )]
    ImageLeak {
        /// One side.
        first: Subset,
        /// Its path there.
        first_path: String,
        /// The other.
        second: Subset,
        /// Its path there.
        second_path: String,
    },
    /// The split was made for other images.
    #[error("the split is of other images than the manifest: {detail}")]
    OtherImages {
        /// The first difference.
        detail: String,
    },
}

impl Hint for SplitError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io(_) => return None,
            Self::Format { path, .. } => format!("delete `{path}` and train again: the split is then made anew"),
            Self::TooFew { .. } => {
                "add patients of that class, lower TEST_SPLIT or VALIDATION_SPLIT, or set SPLIT_BY: random and \
                 read the score as one that leaks"
                    .into()
            }
            Self::PatientLeak { .. } | Self::GroupLeak { .. } | Self::ImageLeak { .. } => {
                "run `nephros train` to make a new split; a score across a leak says nothing about new patients"
                    .into()
            }
            Self::OtherImages { .. } => "the data changed since training: run `nephros train` again".into(),
        })
    }
}

impl Split {
    /// Shares the images of a manifest out as `SPLIT_BY`, `VALIDATION_SPLIT`, `TEST_SPLIT` and
    /// `SEED` say. `records` are those of the classes in use.
    ///
    /// # Errors
    /// [`SplitError::TooFew`].
    pub fn new(records: &[Record], params: &Params) -> Result<Self, SplitError> {
        let unit = Unit::of(records, params.split_by);
        let subsets = match params.split_by {
            SplitBy::Keras => keras_subsets(records, params),
            SplitBy::Patient | SplitBy::Random => unit_subsets(records, params, unit),
        };
        let split = Self::from_subsets(records, &subsets, unit);
        split.check_classes()?;
        Ok(split)
    }

    /// Builds a split from a side for each record, as cross-validation does.
    pub fn from_subsets(records: &[Record], subsets: &[Subset], unit: Unit) -> Self {
        let assignments = records
            .iter()
            .zip(subsets)
            .map(|(record, &subset)| Assignment {
                path: record.path.clone(),
                class: record.class.clone(),
                sha256: record.sha256.clone(),
                patient: record.patient.clone(),
                group: record.group.clone(),
                subset,
            })
            .collect();
        Self { assignments, unit }
    }

    /// Positions of a subset's images in the manifest.
    pub fn indices(&self, subset: Subset) -> Vec<usize> {
        let sides = self.assignments.iter().enumerate();
        sides.filter(|(_, assignment)| assignment.subset == subset).map(|(index, _)| index).collect()
    }

    /// Distinct known patients in a subset.
    pub fn patients(&self, subset: Subset) -> BTreeSet<&str> {
        let members = self.assignments.iter().filter(|assignment| assignment.subset == subset);
        members.map(|assignment| assignment.patient.as_str()).filter(|patient| !patient.is_empty()).collect()
    }

    /// Groups of a subset that the audit found.
    pub fn groups_found(&self, subset: Subset) -> BTreeSet<&str> {
        let members = self.assignments.iter().filter(|assignment| assignment.subset == subset);
        members.map(|assignment| assignment.group.as_str()).filter(|group| !group.is_empty()).collect()
    }

    /// For each image of a subset its group: those that were kept together share it.
    pub fn groups(&self, records: &[Record], subset: Subset) -> Vec<usize> {
        let groups = grouped(records, self.unit);
        self.indices(subset).into_iter().map(|index| groups[index]).collect()
    }

    /// SHA-256 over what was decided.
    pub fn digest(&self) -> String {
        // Without groups the line, and so the digest, is that of earlier versions.
        let group =
            |a: &Assignment| if a.group.is_empty() { String::new() } else { format!("\t{}", a.group) };
        let line =
            |a: &Assignment| format!("{}\t{}\t{}\t{}{}\n", a.sha256, a.class, a.patient, a.subset, group(a));
        let lines: Vec<String> = self.assignments.iter().map(line).collect();
        sha256(lines.concat().as_bytes())
    }

    /// Checks that no patient and no image is on two sides, and no group where the split is by group.
    /// A split by image ([`Unit::Image`]) may share patients: that is what makes its score optimistic,
    /// and evaluation says so.
    ///
    /// # Errors
    /// [`SplitError::PatientLeak`], [`SplitError::GroupLeak`] and [`SplitError::ImageLeak`].
    pub fn check_disjoint(&self) -> Result<(), SplitError> {
        let mut images: HashMap<&str, &Assignment> = HashMap::new();
        let mut patients: HashMap<&str, Subset> = HashMap::new();
        let mut groups: HashMap<&str, Subset> = HashMap::new();
        for assignment in &self.assignments {
            let seen = images.entry(&assignment.sha256).or_insert(assignment);
            if seen.subset != assignment.subset {
                return Err(SplitError::ImageLeak {
                    first: seen.subset,
                    first_path: seen.path.clone(),
                    second: assignment.subset,
                    second_path: assignment.path.clone(),
                });
            }
            let second = assignment.subset;
            if self.unit == Unit::Group && !assignment.group.is_empty() {
                let first = *groups.entry(&assignment.group).or_insert(second);
                if first != second {
                    return Err(SplitError::GroupLeak { group: assignment.group.clone(), first, second });
                }
            }
            if self.unit == Unit::Image || assignment.patient.is_empty() {
                continue;
            }
            let first = *patients.entry(&assignment.patient).or_insert(second);
            if first != second {
                return Err(SplitError::PatientLeak { patient: assignment.patient.clone(), first, second });
            }
        }
        Ok(())
    }

    /// Checks that this is a split of these records.
    ///
    /// # Errors
    /// [`SplitError::OtherImages`].
    pub fn check_matches(&self, records: &[Record]) -> Result<(), SplitError> {
        if self.assignments.len() != records.len() {
            let detail =
                format!("{} images split, {} in the manifest", self.assignments.len(), records.len());
            return Err(SplitError::OtherImages { detail });
        }
        for (assignment, record) in self.assignments.iter().zip(records) {
            if assignment.sha256 != record.sha256 || assignment.class != record.class {
                let detail = format!("`{}` differs", record.path);
                return Err(SplitError::OtherImages { detail });
            }
        }
        Ok(())
    }

    /// Writes one `path,class,sha256,patient,subset,unit,group` line an image. Files of earlier versions
    /// lack the last column and are read too.
    ///
    /// # Errors
    /// [`SplitError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), SplitError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for assignment in &self.assignments {
            let Assignment { path: image, class, sha256, patient, group, subset } = assignment.clone();
            let row = Row { path: image, class, sha256, patient, subset, unit: self.unit, group };
            writer.serialize(row).map_err(|source| SplitError::format(path, source))?;
        }
        let bytes = writer.into_inner().map_err(|error| SplitError::Io(error.into_error()))?;
        Ok(write_atomic(path, &bytes)?)
    }

    /// Reads what [`Split::write`] wrote.
    ///
    /// # Errors
    /// [`SplitError::Io`] and [`SplitError::Format`].
    pub fn read(path: &Path) -> Result<Self, SplitError> {
        let bytes = fs_err::read(path)?;
        let mut unit = Unit::Image;
        let mut assignments = Vec::new();
        for row in csv::Reader::from_reader(bytes.as_slice()).deserialize::<Row>() {
            let row = row.map_err(|source| SplitError::format(path, source))?;
            let Row { path, class, sha256, patient, subset, unit: made_by, group } = row;
            unit = made_by;
            assignments.push(Assignment { path, class, sha256, patient, group, subset });
        }
        Ok(Self { assignments, unit })
    }

    fn check_classes(&self) -> Result<(), SplitError> {
        let classes: BTreeSet<&str> = self.assignments.iter().map(|a| a.class.as_str()).collect();
        for class in classes {
            for subset in [Subset::Train, Subset::Validation, Subset::Test] {
                let members = || self.assignments.iter().filter(|a| a.class == class);
                if members().any(|a| a.subset == subset) {
                    continue;
                }
                let distinct =
                    |name: fn(&Assignment) -> &str| members().map(name).collect::<BTreeSet<_>>().len();
                let (have, unit) = match self.unit {
                    Unit::Patient => (distinct(|a| &a.patient), "patients"),
                    Unit::Group => (distinct(|a| &a.group), "groups"),
                    Unit::Run | Unit::Image => (members().count(), "images"),
                };
                return Err(SplitError::TooFew { subset, class: class.into(), have, unit });
            }
        }
        Ok(())
    }
}

impl SplitError {
    fn format(path: &Path, source: csv::Error) -> Self {
        Self::Format { path: path.display().to_string(), source }
    }
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Row {
    path: String,
    class: String,
    sha256: String,
    patient: String,
    subset: Subset,
    unit: Unit,
    #[serde(default)]
    group: String,
}

/// Keras' `validation_split`: the first `int(p * n)` sorted names of each class are the test set,
/// the next ones the validation set.
fn keras_subsets(records: &[Record], params: &Params) -> Vec<Subset> {
    let mut subsets = vec![Subset::Train; records.len()];
    for members in by_class(records).values() {
        let mut sorted = members.clone();
        sorted.sort_by(|&a, &b| records[a].path.cmp(&records[b].path));
        let share = |split: f64| (split * sorted.len() as f64) as usize;
        let (test, validation) = (share(params.test_split), share(params.validation_split));
        for (rank, &index) in sorted.iter().enumerate() {
            subsets[index] = match rank {
                _ if rank < test => Subset::Test,
                _ if rank < test + validation => Subset::Validation,
                _ => Subset::Train,
            };
        }
    }
    subsets
}

/// Shuffles the units of each class and fills test, then validation, up to their share of the
/// class's images; what remains is for training.
fn unit_subsets(records: &[Record], params: &Params, unit: Unit) -> Vec<Subset> {
    let groups = grouped(records, unit);
    let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
    let mut subsets = vec![Subset::Train; records.len()];
    for (class, members) in by_class(records) {
        // A group belongs to the class of its first image, so that a patient with slices of two
        // classes is shared out once.
        let mut units: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, &group) in groups.iter().enumerate() {
            if records[group].class == class {
                units.entry(group).or_default().push(index);
            }
        }
        let mut units: Vec<Vec<usize>> = units.into_values().collect();
        units.shuffle(&mut rng);
        let mut units = units.into_iter().peekable();
        for (subset, share) in
            [(Subset::Test, params.test_split), (Subset::Validation, params.validation_split)]
        {
            let goal = share * members.len() as f64;
            let mut taken = 0.0;
            // A unit is taken when that brings the subset nearer to its share; one always is.
            while let Some(next) =
                units.next_if(|next| taken == 0.0 || taken + next.len() as f64 / 2.0 <= goal)
            {
                taken += next.len() as f64;
                for index in next {
                    subsets[index] = subset;
                }
            }
        }
    }
    subsets
}

/// Images of each class, in manifest order.
fn by_class(records: &[Record]) -> BTreeMap<&str, Vec<usize>> {
    let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        classes.entry(&record.class).or_default().push(index);
    }
    classes
}

/// For each image the first image of its group. Exact copies of an image are always together.
pub(crate) fn grouped(records: &[Record], unit: Unit) -> Vec<usize> {
    let mut keys: Vec<HashMap<String, usize>> = vec![HashMap::new(), HashMap::new()];
    let mut parents: Vec<usize> = (0..records.len()).collect();
    let runs = if unit == Unit::Run { runs(records) } else { Vec::new() };
    for (index, record) in records.iter().enumerate() {
        let unit_key = match unit {
            Unit::Patient => record.patient.clone(),
            Unit::Group => record.group.clone(),
            Unit::Run => format!("run {}", runs[index]),
            Unit::Image => format!("image {index}"),
        };
        for (key, first) in [record.sha256.clone(), unit_key].into_iter().zip(&mut keys) {
            let other = *first.entry(key).or_insert(index);
            union(&mut parents, index, other);
        }
    }
    (0..records.len()).map(|index| root(&mut parents, index)).collect()
}

/// Whether every image has a group, and every class as many as there are sides. A group counts to the
/// class of its first image, as in [`unit_subsets`].
fn can_share_groups(records: &[Record]) -> bool {
    let mut class_of: BTreeMap<&str, &str> = BTreeMap::new();
    for record in records {
        class_of.entry(&record.group).or_insert(&record.class);
    }
    let groups = |class: &str| class_of.values().filter(|of| **of == class).count();
    !class_of.contains_key("") && by_class(records).keys().all(|class| groups(class) >= SIDES)
}

/// Training, validation and test.
const SIDES: usize = 3;

/// Joins two groups under the smaller first image.
pub(crate) fn union(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}

pub(crate) fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

/// Without patients, neighbours by file number are the likeliest to be one patient's: images of a
/// class in natural order are cut into [`RUNS`] runs of equal length.
fn runs(records: &[Record]) -> Vec<String> {
    let mut runs = vec![String::new(); records.len()];
    for (class, members) in by_class(records) {
        let mut sorted = members;
        sorted.sort_by_cached_key(|&index| natural_key(&records[index].path));
        let count = sorted.len();
        for (rank, index) in sorted.into_iter().enumerate() {
            runs[index] = format!("{class} {}", rank * RUNS / count);
        }
    }
    runs
}

/// Runs a class is cut into when no patient is known.
const RUNS: usize = 10;

/// Digits compare as numbers: `a (9)` before `a (10)`.
fn natural_key(path: &str) -> Vec<(String, u64)> {
    let mut key: Vec<(String, u64)> = vec![(String::new(), 0)];
    for character in path.chars() {
        match (character.to_digit(10), key.last_mut()) {
            (Some(digit), Some((_, number))) => {
                *number = number.saturating_mul(10).saturating_add(digit.into());
            }
            (None, Some((text, 0))) => text.push(character),
            (None, _) => key.push((character.to_string(), 0)),
            (Some(_), None) => {}
        }
    }
    key
}

#[cfg(test)]
mod tests {
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
        let records: Vec<Record> = (0..100)
            .map(|n| record("Normal", n, ""))
            .chain((0..100).map(|n| record("Tumor", n, "")))
            .collect();
        let split = Split::new(&records, &params(SplitBy::Patient)).unwrap();
        assert_eq!(split.unit, Unit::Run);
        // 100 images of a class are 10 runs of 10: neighbours differ in side at most 9 times.
        let changes =
            split.assignments[..100].windows(2).filter(|pair| pair[0].subset != pair[1].subset).count();
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

    #[test]
    fn file_numbers_sort_as_numbers() {
        assert!(natural_key("a (9).jpg") < natural_key("a (10).jpg"));
    }

    proptest! {
        #[test]
        fn no_cohort_leaks(patients in 12usize..40, slices in 1usize..6, seed: u64) {
            let params = Params { seed, ..params(SplitBy::Patient) };
            let split = Split::new(&cohort(patients, slices), &params).unwrap();
            prop_assert!(split.check_disjoint().is_ok());
        }
    }
}
