//! Pictures joined into pseudo-patients.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{
    chains::chains,
    embedding::Embeddings,
    fingerprint::Fingerprint,
    neighbours::{Known, LEVELS, Neighbours, roots},
    source::Subject,
};
use crate::{
    progress::{Cancelled, Progress},
    split::union,
};

/// What puts an image into its group; the strongest of what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The patient is known.
    Patient,
    /// Another image has the same pixels.
    ExactDuplicate,
    /// Another image is the same picture at another size, brightness or quality, or the next slice.
    NearDuplicate,
    /// Another image looks like a slice of the same series.
    Resemblance,
    /// Another image that looks much like it has the same features, by the model that was given.
    Features,
    /// Only the adjacent file number, with more resemblance than chance.
    FileNumber,
    /// Nothing: it is alone.
    Alone,
}

/// Pseudo-patients.
#[derive(Debug)]
pub struct Grouping {
    /// For each image the first image of its group.
    pub groups: Vec<usize>,
    /// Why each is there.
    pub reasons: Vec<Reason>,
    /// Images whose pixels an earlier image has.
    pub exact_duplicates: usize,
    /// Images with a near duplicate.
    pub near_duplicates: usize,
    /// Correlation from which images were taken for one patient's.
    pub threshold: f32,
    /// What a model's features brought; `None` without a model, or where nothing sets its level.
    pub features: Option<FeatureEvidence>,
}

/// What a model's features brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureEvidence {
    /// Cosine from which images that resemble each other were taken for one patient's.
    pub cosine: f32,
    /// Groups that they joined to others.
    pub joined: usize,
}

/// Share of a folder's adjacent pairs that must resemble each other for its numbers to mean
/// something. Where names are shuffled it is about as small as chance.
const TELLING: f64 = 0.5;

impl Grouping {
    /// Joins equal pixels, near duplicates, resembling pictures of one class, adjacent file numbers
    /// and known patients; with `embeddings`, also pictures that nearly resemble each other and have
    /// the same features.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn of(
        prints: &[Fingerprint],
        subjects: &[&Subject],
        embeddings: Option<&Embeddings>,
        progress: &dyn Progress,
    ) -> Result<Self, Cancelled> {
        let known = known(subjects);
        let mut neighbours = Neighbours::find(prints, &known, progress)?;
        let level = neighbours.level(&known);
        let mut forest = neighbours.forest(level);
        let copies = join_equal(&mut forest, prints.iter().map(|print| Some(print.pixels.as_str())));
        let paths: Vec<&str> = subjects.iter().map(|subject| subject.path.as_str()).collect();
        join_chains(&mut forest, prints, &known, &paths, neighbours.chance);
        let patients =
            subjects.iter().map(|subject| Some(subject.patient.as_str()).filter(|p| !p.is_empty()));
        join_equal(&mut forest, patients);
        let before = roots(&mut forest);
        let cosine = embeddings.map(|embeddings| embeddings.level(&known, progress)).transpose()?.flatten();
        let alike: Vec<(usize, usize)> = match embeddings.zip(cosine) {
            Some((embeddings, level)) => {
                let open = neighbours.open.iter().copied();
                open.filter(|&(a, b)| before[a] != before[b] && embeddings.cosine(a, b) >= level).collect()
            }
            None => Vec::new(),
        };
        for &(a, b) in &alike {
            union(&mut forest, a, b);
        }
        let groups = roots(&mut forest);
        let threshold = LEVELS[level];
        let facts = Facts::of(&groups, &copies, &alike, &neighbours, threshold);
        let count = |groups: &[usize]| groups.iter().enumerate().filter(|&(image, &of)| image == of).count();
        let joined = count(&before) - count(&groups);
        Ok(Self {
            reasons: subjects
                .iter()
                .enumerate()
                .map(|(image, subject)| facts.reason(image, subject))
                .collect(),
            exact_duplicates: copies.iter().filter(|&&(_, first)| !first).count(),
            near_duplicates: neighbours.duplicated.iter().filter(|&&duplicated| duplicated).count(),
            threshold,
            features: cosine.map(|cosine| FeatureEvidence { cosine, joined }),
            groups,
        })
    }
}

/// What reasons are told from.
struct Facts<'a> {
    groups: &'a [usize],
    sizes: Vec<usize>,
    copies: HashSet<usize>,
    /// Images that features join to another group.
    alike: HashSet<usize>,
    neighbours: &'a Neighbours,
    threshold: f32,
}

impl<'a> Facts<'a> {
    fn of(
        groups: &'a [usize],
        copies: &[(usize, bool)],
        alike: &[(usize, usize)],
        neighbours: &'a Neighbours,
        threshold: f32,
    ) -> Self {
        let mut sizes = vec![0; groups.len()];
        for &group in groups {
            sizes[group] += 1;
        }
        let copies = copies.iter().map(|&(image, _)| image).collect();
        let alike = alike.iter().flat_map(|&(a, b)| [a, b]).collect();
        Self { groups, sizes, copies, alike, neighbours, threshold }
    }

    fn reason(&self, image: usize, subject: &Subject) -> Reason {
        if !subject.patient.is_empty() {
            Reason::Patient
        } else if self.copies.contains(&image) {
            Reason::ExactDuplicate
        } else if self.neighbours.duplicated[image] {
            Reason::NearDuplicate
        } else if self.neighbours.nearest[image] >= self.threshold {
            Reason::Resemblance
        } else if self.alike.contains(&image) {
            Reason::Features
        } else if self.sizes[self.groups[image]] > 1 {
            Reason::FileNumber
        } else {
            Reason::Alone
        }
    }
}

/// Classes and patients as numbers.
fn known(subjects: &[&Subject]) -> Vec<Known> {
    let (mut classes, mut patients) = (BTreeMap::new(), BTreeMap::new());
    let number = |names: &mut BTreeMap<String, usize>, name: &String| {
        let next = names.len();
        *names.entry(name.clone()).or_insert(next)
    };
    subjects
        .iter()
        .map(|subject| Known {
            class: number(&mut classes, &subject.class),
            patient: (!subject.patient.is_empty()).then(|| number(&mut patients, &subject.patient)),
        })
        .collect()
}

/// Joins images with the same key. Gives those that share theirs, and whether each is the first of
/// its key.
fn join_equal<'a>(forest: &mut [usize], keys: impl Iterator<Item = Option<&'a str>>) -> Vec<(usize, bool)> {
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (image, key) in keys.enumerate() {
        if let Some(key) = key {
            members.entry(key).or_default().push(image);
        }
    }
    let mut shared = Vec::new();
    for members in members.into_values().filter(|members| members.len() > 1) {
        for &image in &members {
            union(forest, members[0], image);
            shared.push((image, image == members[0]));
        }
    }
    shared
}

/// Joins adjacent file numbers that resemble each other more than 99 % of chance pairs, where the
/// numbers of that folder say anything at all.
fn join_chains(forest: &mut [usize], prints: &[Fingerprint], known: &[Known], paths: &[&str], chance: f32) {
    for pairs in chains(paths) {
        let alike: Vec<(usize, usize)> = pairs
            .iter()
            .copied()
            .filter(|&(a, b)| !known[a].apart(known[b]) && prints[a].correlation(&prints[b]) >= chance)
            .collect();
        if alike.len() as f64 >= TELLING * pairs.len() as f64 {
            for (a, b) in alike {
                union(forest, a, b);
            }
        }
    }
}
