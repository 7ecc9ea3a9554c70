//! What each control says of drawn patients: of honest ones, of a leak, and of a planted shortcut.

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use nephros_core::{digest::sha256, network::Architecture};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{CONFIG_TEMPLATE, Config, Optimizer, WeightsSource},
    manifest::Manifest,
    phantom::{Cohort, Patient, slice},
    progress::{Cancelled, Silent, Task},
    split::Subset,
    train::data::read_images,
};

const SIZE: usize = 64;

/// Drawn patients on disk, and splits of them.
struct Drawn {
    folder: TempDir,
    project: Project,
    dataset: Dataset,
    pictures: Vec<Vec<u8>>,
    split: Split,
}

impl Drawn {
    /// `mark` may change the grey values of a slice of a class.
    fn new(patients: usize, slices: usize, mark: impl Fn(&mut [u8], usize)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cohort = Cohort { patients, slices, seed: 4, size: SIZE, ..Cohort::default() };
        let mut records = Vec::new();
        for index in 0..patients {
            let patient = Patient::new(&cohort, index);
            let (center, width) = patient.window();
            for number in 0..slices {
                let mut grey = slice(&patient, number).windowed(center, width);
                mark(&mut grey, index % 2);
                let mut png = Vec::new();
                PngEncoder::new(&mut png)
                    .write_image(&grey, SIZE as u32, SIZE as u32, ExtendedColorType::L8)
                    .unwrap();
                let path = format!("{index:02}-{number}.png");
                fs_err::write(folder.path().join(&path), &png).unwrap();
                records.push(Record {
                    path,
                    class: ["Normal", "Tumor"][index % 2].into(),
                    sha256: sha256(&png),
                    patient: format!("P{index:02}"),
                    ..Record::default()
                });
            }
        }
        Self::of(folder, records)
    }

    fn of(folder: TempDir, records: Vec<Record>) -> Self {
        let params = Params {
            weights: WeightsSource::None,
            architecture: Architecture::Compact,
            image_size: [32, 32, 3],
            batch_size: 8,
            epochs: 4,
            learning_rate: 2e-3,
            optimizer: Optimizer::Adam,
            augmentation: false,
            test_split: 0.4,
            ..crate::testing::params()
        };
        let split = Split::new(&records, &params).unwrap();
        let dataset = Dataset::new(Manifest { root: folder.path().into(), records }, &params).unwrap();
        let config = Config::parse(std::path::Path::new("config.yaml"), CONFIG_TEMPLATE).unwrap();
        let project = Project { root: folder.path().into(), config, params };
        let members: Vec<_> = dataset.records.iter().zip(dataset.targets.iter().copied()).collect();
        let pictures = read_images(&dataset.root, &members, |_, _, image| picture(image), &Silent).unwrap();
        Self { folder, project, dataset, pictures, split }
    }

    fn random(&self) -> Split {
        self.split.at_random(&self.dataset.records, 1)
    }

    fn case<'a>(&'a self, rounds: &'a [Split], random: &'a [Split], answers: &'a Predictions) -> Case<'a> {
        let Self { project, dataset, pictures, .. } = self;
        Case { project, dataset, params: &project.params, rounds, random, answers, pictures }
    }

    /// What the recipe answers on its own split.
    fn answers(&self) -> Predictions {
        let recipe =
            Recipe::load(&self.project, &self.dataset, self.project.params.clone(), None, &Silent).unwrap();
        recipe.round(&self.split, &Silent).unwrap()
    }
}

#[test]
fn raw_pixels_know_patients_and_not_classes() {
    let drawn = Drawn::new(20, 16, |_, _| ());
    let (rounds, random) = ([drawn.split.clone()], [drawn.random()]);
    let control = drawn.case(&rounds, &random, &Predictions::default()).nearest_pixels(&Silent).unwrap();
    assert_eq!(control.warning, None);
    let [low, high] = control.chance_auroc_95.unwrap();
    assert!((low..=high).contains(&control.figures.auroc.unwrap()), "{control:?}");
    let leaked = control.random_split.unwrap();
    assert!(leaked.auroc.unwrap() > 0.95 && leaked.accuracy > 0.9, "{leaked:?}");
    assert!(control.figures.accuracy < leaked.accuracy - 0.2, "{:?}", control.figures);
}

#[test]
fn shuffled_labels_fall_to_chance_unless_patients_are_on_both_sides() {
    let drawn = Drawn::new(20, 16, |_, _| ());
    let score = |split: Split| {
        let (rounds, answers) = ([split], Predictions::default());
        let case = drawn.case(&rounds, &[], &answers);
        let dealt = shuffled(&case.units(), &drawn.dataset.targets, &rounds, 1);
        // The nearest pixels stand for a model that remembers whom it saw, in no time.
        let votes = nearest(&drawn.pictures, &dealt, 2, &rounds, &Silent).unwrap();
        case.judge(ControlKind::ShuffledLabels, &votes)
    };
    let honest = score(drawn.split.clone());
    assert_eq!(honest.warning, None, "{honest:?}");
    let leak = score(drawn.random());
    let warning = leak.warning.unwrap();
    assert!(warning.contains("does not fall to chance") && leak.figures.auroc.unwrap() > 0.9, "{warning}");
}

#[test]
fn honest_patients_raise_no_warning_and_the_main_answers_stay() {
    let drawn = Drawn::new(24, 4, |_, _| ());
    let (rounds, random) = ([drawn.split.clone()], [drawn.random()]);
    let answers = drawn.answers();
    let Findings { gap, controls } = drawn.case(&rounds, &random, &answers).examine(true, &Silent).unwrap();
    let kinds: Vec<ControlKind> = controls.iter().map(|control| control.control).collect();
    let all = [
        ControlKind::NearestPixels,
        ControlKind::ShuffledLabels,
        ControlKind::BorderOnly,
        ControlKind::CentreMasked,
    ];
    assert_eq!(kinds, all);
    for control in &controls {
        assert_eq!(control.warning, None, "{control:?}");
        assert_eq!(
            (control.figures.n, control.figures.majority_accuracy.to_bits()),
            (answers.len(), 0.5_f64.to_bits())
        );
    }
    let gap = gap.unwrap();
    assert_eq!(gap.by_split.auroc, answers.metrics(2).auroc);
    assert_eq!((gap.split_by, gap.random_split.n), (Unit::Patient, answers.len()));
    let expected = gap.random_split.accuracy - gap.by_split.accuracy;
    assert_eq!(gap.difference.accuracy.to_bits(), expected.to_bits());
    // The features of no network are cached, and nothing else is left behind.
    assert!(!drawn.folder.path().join("artifacts").exists());
}

#[test]
fn a_mark_outside_the_body_is_found() {
    // A thin bar in the corner of every tumour slice: letters of one hospital.
    let drawn = Drawn::new(40, 4, |grey, class| {
        for row in (2..4).filter(|_| class == 1) {
            grey[row * SIZE + 1..row * SIZE + 25].fill(220);
        }
    });
    let rounds = [drawn.split.clone()];
    let controls = drawn.case(&rounds, &[], &drawn.answers()).examine(true, &Silent).unwrap().controls;
    let find = |kind| controls.iter().find(|control| control.control == kind).unwrap();
    let warning = |kind| find(kind).warning.clone();
    let border = find(ControlKind::BorderOnly);
    assert!(border.figures.auroc.unwrap() > 0.95, "{border:?}");
    assert!(border.warning.as_ref().unwrap().contains("outside the body"), "{border:?}");
    assert!(warning(ControlKind::CentreMasked).is_some());
    assert_eq!(warning(ControlKind::ShuffledLabels), None);
}

#[test]
fn a_gap_needs_a_split_that_keeps_patients_together() {
    let checks = Checks { gap: true, controls: false };
    assert_eq!(checks.fit(Unit::Image), Err(NoGap));
    assert_eq!((checks.fit(Unit::Group), Checks::default().fit(Unit::Image)), (Ok(()), Ok(())));
}

/// Stops at once.
struct Stopped;

impl Progress for Stopped {
    fn task(&self, name: &str, total: Option<u64>, unit: Count) -> Box<dyn Task> {
        Silent.task(name, total, unit)
    }

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_control_stops_on_request() {
    let drawn = Drawn::new(12, 4, |_, _| ());
    let rounds = [drawn.split.clone()];
    assert_eq!(
        nearest(&drawn.pictures, &drawn.dataset.targets, 2, &rounds, &Stopped).unwrap_err(),
        Cancelled
    );
    let recipe =
        Recipe::load(&drawn.project, &drawn.dataset, drawn.project.params.clone(), None, &Silent).unwrap();
    assert!(matches!(recipe.round(&drawn.split, &Stopped), Err(TrainError::Cancelled(_))));
    assert_eq!(drawn.split.indices(Subset::Test).len() % 4, 0);
}
