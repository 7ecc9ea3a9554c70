//! What an audit found, as text, as a CSV of groups and as a line of JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    fingerprint::Fingerprint,
    groups::{FeatureEvidence, Grouping, Reason},
    neighbours::{folds_by_group, folds_by_image, nearest_votes},
    source::Subject,
};
use crate::{
    files::write_atomic,
    progress::{Cancelled, Progress},
};

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// Usable images, sorted by path.
    pub members: Vec<Member>,
    /// Images of each group.
    pub sizes: Vec<usize>,
    /// Images whose pixels an earlier image has.
    pub exact_duplicates: usize,
    /// Images with a near duplicate: the same picture at another size, brightness or quality, or the
    /// next slice.
    pub near_duplicates: usize,
    /// Correlation from which images of one class were taken for one patient's.
    pub threshold: f32,
    /// What the features of a model brought, where one was given.
    pub features: Option<FeatureEvidence>,
    /// Groups that hold what should be apart.
    pub conflicts: Vec<Conflict>,
    /// Files that cannot be decoded.
    pub broken: Vec<Broken>,
    /// What a vote of the nearest pictures scores; `None` where a class has fewer than two groups.
    pub votes: Option<Votes>,
}

/// A usable image and its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The image.
    pub subject: Subject,
    /// Position in [`Audit::sizes`].
    pub group: usize,
    /// What puts it there.
    pub reason: Reason,
}

/// A file that is no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Path below the root.
    pub path: String,
    /// What the decoder says.
    pub reason: String,
}

/// A group that holds what should be apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Position in [`Audit::sizes`].
    pub group: usize,
    /// `classes`, `patients` or `subsets`.
    pub what: &'static str,
    /// Each class, patient or subset with an image of the group.
    pub between: BTreeMap<String, String>,
}

/// Accuracy of a vote of the five nearest pictures over five folds: no training, so that what the
/// first has over the second is leakage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Votes {
    /// Folds drawn by image.
    pub random: f64,
    /// Folds that keep groups whole.
    pub by_group: f64,
    /// Always naming the largest class.
    pub majority: f64,
}

impl Votes {
    /// Lets the nearest pictures vote; `None` where a class has fewer than two groups, or there is
    /// one class only.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn of(
        prints: &[Fingerprint],
        subjects: &[Subject],
        groups: &[usize],
        progress: &dyn Progress,
    ) -> Result<Option<Self>, Cancelled> {
        let mut counts: BTreeMap<&str, (usize, BTreeSet<usize>)> = BTreeMap::new();
        for (subject, &group) in subjects.iter().zip(groups) {
            let (images, groups) = counts.entry(&subject.class).or_default();
            *images += 1;
            groups.insert(group);
        }
        if counts.len() < 2 || counts.values().any(|(_, groups)| groups.len() < 2) {
            return Ok(None);
        }
        let names: Vec<&str> = counts.keys().copied().collect();
        let class = |subject: &Subject| names.iter().position(|name| *name == subject.class).unwrap_or(0);
        let classes: Vec<usize> = subjects.iter().map(class).collect();
        let largest = counts.values().map(|(images, _)| *images).max().unwrap_or(0);
        let ways = [folds_by_image(prints), folds_by_group(groups, &classes)];
        let [random, by_group] = nearest_votes(prints, &classes, [&ways[0], &ways[1]], progress)?;
        Ok(Some(Self { random, by_group, majority: largest as f64 / subjects.len() as f64 }))
    }
}

/// The line of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Usable images.
    pub images: usize,
    /// Images whose pixels an earlier image has.
    pub exact_duplicates: usize,
    /// Groups.
    pub groups: usize,
    /// Images of the largest group.
    pub largest_group: usize,
    /// Groups that hold several classes, several known patients, or several sides of a split.
    pub conflicts: usize,
    /// The CSV of groups.
    pub groups_file: PathBuf,
}

/// One line of the CSV.
#[derive(Serialize)]
struct Row<'a> {
    path: &'a str,
    class: &'a str,
    group: String,
    known_patient: &'a str,
    reason: Reason,
    conflict: String,
}

/// Share of the images that a random split is asked to hold out.
const TEST_SHARE: f64 = 0.2;
/// Conflicts and broken files that the text names; the CSV has all conflicts.
const SHOWN: usize = 20;

impl Audit {
    pub(super) fn new(
        subjects: Vec<Subject>,
        grouping: &Grouping,
        votes: Option<Votes>,
        broken: Vec<Broken>,
    ) -> Self {
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        let mut sizes = Vec::new();
        let mut members = Vec::with_capacity(subjects.len());
        for ((subject, &first), &reason) in subjects.into_iter().zip(&grouping.groups).zip(&grouping.reasons)
        {
            let group = *numbers.entry(first).or_insert_with(|| {
                sizes.push(0);
                sizes.len() - 1
            });
            sizes[group] += 1;
            members.push(Member { subject, group, reason });
        }
        let Grouping { exact_duplicates, near_duplicates, threshold, features, .. } = *grouping;
        let conflicts = conflicts(&members);
        Self {
            members,
            sizes,
            exact_duplicates,
            near_duplicates,
            threshold,
            features,
            conflicts,
            broken,
            votes,
        }
    }

    /// `G001`, …
    pub fn group_name(&self, group: usize) -> String {
        let width = self.sizes.len().to_string().len().max(3);
        format!("G{:0width$}", group + 1)
    }

    /// Images of the largest group.
    pub fn largest_group(&self) -> usize {
        self.sizes.iter().copied().max().unwrap_or(0)
    }

    /// Groups with at least one conflict.
    pub fn conflicting_groups(&self) -> usize {
        self.conflicts.iter().map(|conflict| conflict.group).collect::<BTreeSet<_>>().len()
    }

    /// Different known patients.
    fn patients(&self) -> usize {
        let patients: BTreeSet<&str> = self.members.iter().map(|m| m.subject.patient.as_str()).collect();
        patients.iter().filter(|patient| !patient.is_empty()).count()
    }

    /// The figures of `--json`.
    pub fn summary(&self, groups_file: &Path) -> Summary {
        Summary {
            images: self.members.len(),
            exact_duplicates: self.exact_duplicates,
            groups: self.sizes.len(),
            largest_group: self.largest_group(),
            conflicts: self.conflicting_groups(),
            groups_file: groups_file.to_owned(),
        }
    }

    /// Writes one `path,class,group,known_patient,reason,conflict` line an image, whole or not at all.
    /// `nephros ingest` takes the file as `patients_file`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_groups(&self, path: &Path) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for Member { subject, group, reason } in &self.members {
            let of_group = self.conflicts.iter().filter(|conflict| conflict.group == *group);
            writer.serialize(Row {
                path: &subject.path,
                class: &subject.class,
                group: self.group_name(*group),
                known_patient: &subject.patient,
                reason: *reason,
                conflict: of_group.map(|conflict| conflict.what).collect::<Vec<_>>().join(" "),
            })?;
        }
        write_atomic(path, &writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
    }

    /// Of the test images of a random split by image, the share that has an image of its own group in
    /// training, as expected over all such splits.
    pub fn leaked_share(&self) -> f64 {
        leaked_share(&self.sizes, TEST_SHARE)
    }

    fn write_classes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut classes: BTreeMap<&str, BTreeMap<usize, usize>> = BTreeMap::new();
        for member in &self.members {
            *classes.entry(&member.subject.class).or_default().entry(member.group).or_default() += 1;
        }
        let width = classes.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "{:width$}  images  groups  largest", "class")?;
        for (class, groups) in classes {
            let (images, largest) = (groups.values().sum::<usize>(), groups.values().max().unwrap_or(&0));
            writeln!(f, "{class:width$}  {images:>6}  {:>6}  {largest:>7}", groups.len())?;
        }
        Ok(())
    }

    fn write_conflicts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conflicts.is_empty() {
            return writeln!(
                f,
                "conflicts: no group holds two classes, two known patients or two sides of a split"
            );
        }
        writeln!(f, "conflicts in {} groups:", self.conflicting_groups())?;
        for Conflict { group, what, between } in self.conflicts.iter().take(SHOWN) {
            let images: Vec<String> =
                between.iter().take(4).map(|(name, path)| format!("{name} (`{path}`)")).collect();
            let more = if between.len() > 4 { ", …" } else { "" };
            writeln!(
                f,
                "  {} holds {} {what}: {}{more}",
                self.group_name(*group),
                between.len(),
                images.join(", ")
            )?;
        }
        write_rest(f, self.conflicts.len())
    }

    fn write_broken(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.broken.is_empty() {
            return Ok(());
        }
        writeln!(f, "{} files cannot be decoded and are in no group:", self.broken.len())?;
        for Broken { path, reason } in self.broken.iter().take(SHOWN) {
            writeln!(f, "  `{path}`: {reason}")?;
        }
        write_rest(f, self.broken.len())
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patients = match self.patients() {
            0 => "patients unknown".to_owned(),
            patients => format!("{patients} known patients"),
        };
        writeln!(f, "{} images, {patients}", self.members.len())?;
        writeln!(f, "exact duplicates: {} images have the pixels of an earlier one", self.exact_duplicates)?;
        writeln!(f, "near duplicates: {} images, most of them neighbouring slices", self.near_duplicates)?;
        writeln!(
            f,
            "{} groups of images that are likely one patient's (correlation from {:.2}); the largest has {}",
            self.sizes.len(),
            self.threshold,
            self.largest_group()
        )?;
        if let Some(FeatureEvidence { cosine, joined }) = self.features {
            writeln!(
                f,
                "the model's features joined {joined} groups to others that nearly resemble them (cosine from {cosine:.2})"
            )?;
        }
        self.write_classes(f)?;
        self.write_conflicts(f)?;
        self.write_broken(f)?;
        write!(
            f,
            "a random split that tests on {:.0} % of the images would leak: {:.1} % of them have an image of their \
             group in training",
            100.0 * TEST_SHARE,
            100.0 * self.leaked_share()
        )?;
        if let Some(Votes { random, by_group, majority }) = self.votes {
            write!(
                f,
                "\nwithout any training, a vote of the five nearest pictures is right for {random:.3} of the images \
                 when folds are drawn at random, for {by_group:.3} when groups are kept whole; naming the largest \
                 class for {majority:.3}"
            )?;
        }
        Ok(())
    }
}

fn write_rest(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > SHOWN { writeln!(f, "  and {} more", count - SHOWN) } else { Ok(()) }
}

/// Groups with several classes, known patients, or sides of a split, in this order of kinds.
fn conflicts(members: &[Member]) -> Vec<Conflict> {
    type Name = fn(&Subject) -> &String;
    let kinds: [(&'static str, Name); 3] = [
        ("classes", |subject| &subject.class),
        ("patients", |subject| &subject.patient),
        ("subsets", |subject| &subject.subset),
    ];
    let mut found = Vec::new();
    for (what, name) in kinds {
        let mut groups: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
        for member in members.iter().filter(|member| !name(&member.subject).is_empty()) {
            let between = groups.entry(member.group).or_default();
            between.entry(name(&member.subject).clone()).or_insert_with(|| member.subject.path.clone());
        }
        groups.retain(|_, between| between.len() > 1);
        found.extend(groups.into_iter().map(|(group, between)| Conflict { group, what, between }));
    }
    found
}

/// See [`Audit::leaked_share`]; exact. Given that an image is among `tested` of `images`, each of the
/// others of its group is too with the hypergeometric chance `(tested - k) / (images - k)`.
fn leaked_share(sizes: &[usize], share: f64) -> f64 {
    let images: usize = sizes.iter().sum();
    let tested = (share * images as f64).round();
    let leaked = |size: usize| {
        let none: f64 =
            (1..size).map(|k| ((tested - k as f64) / (images as f64 - k as f64)).max(0.0)).product();
        1.0 - none
    };
    sizes.iter().map(|&size| size as f64 * leaked(size)).sum::<f64>() / images.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(members: &[(&str, &str, &str, &str, usize)]) -> Audit {
        let subjects: Vec<Subject> = members
            .iter()
            .map(|&(path, class, patient, subset, _)| Subject {
                path: path.into(),
                class: class.into(),
                patient: patient.into(),
                subset: subset.into(),
            })
            .collect();
        let grouping = Grouping {
            groups: members.iter().map(|member| member.4).collect(),
            reasons: vec![Reason::Resemblance; members.len()],
            exact_duplicates: 1,
            near_duplicates: 2,
            threshold: 0.93,
            features: None,
        };
        let broken = vec![Broken { path: "Tumor/x.jpg".into(), reason: "the file is empty".into() }];
        Audit::new(subjects, &grouping, Some(Votes { random: 1.0, by_group: 0.5, majority: 0.75 }), broken)
    }

    #[test]
    fn the_share_that_leaks_is_exact() {
        // 5 images, 1 tested. A pair: if one is tested the other cannot be. A single one never leaks.
        assert!((leaked_share(&[2, 2, 1], 0.2) - 4.0 / 5.0).abs() < 1e-12);
        // 10 images, 2 tested: the partner is tested too with 1/9. (10 * 8/9) / 10
        assert!((leaked_share(&[2; 5], 0.2) - 8.0 / 9.0).abs() < 1e-12);
        assert!(leaked_share(&[1; 7], 0.2).abs() < 1e-12);
        assert!(leaked_share(&[], 0.2).abs() < 1e-12);
    }

    #[test]
    fn the_text_names_conflicts_and_broken_files() {
        let audit = audit(&[
            ("Cyst/1.jpg", "Cyst", "P1", "", 0),
            ("Cyst/2.jpg", "Cyst", "P1", "", 0),
            ("Tumor/3.jpg", "Tumor", "P2", "", 0),
            ("Tumor/4.jpg", "Tumor", "", "", 3),
        ]);
        insta::assert_snapshot!(audit.to_string());
        let json = serde_json::to_string(&audit.summary(Path::new("g.csv"))).unwrap();
        insta::assert_snapshot!(json, @r#"{"images":4,"exact_duplicates":1,"groups":2,"largest_group":3,"conflicts":1,"groups_file":"g.csv"}"#);
    }

    #[test]
    fn sides_of_a_split_conflict_too() {
        let audit = audit(&[("test/A/1.jpg", "A", "", "test", 0), ("train/A/1.jpg", "A", "", "train", 0)]);
        let kinds: Vec<&str> = audit.conflicts.iter().map(|conflict| conflict.what).collect();
        assert_eq!((kinds, audit.conflicting_groups()), (vec!["subsets"], 1));
    }

    #[test]
    fn the_csv_has_a_line_for_each_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/groups.csv");
        audit(&[("A/1.jpg", "A", "P1", "", 0), ("B/2.jpg", "B", "", "", 0)]).write_groups(&path).unwrap();
        insta::assert_snapshot!(fs_err::read_to_string(path).unwrap(), @r"
        path,class,group,known_patient,reason,conflict
        A/1.jpg,A,G001,P1,resemblance,classes
        B/2.jpg,B,G001,,resemblance,classes
        ");
    }
}
