//! The stage: reads what `ingest` and `prepare` left, fits, writes the bundle and the Keras file.

use std::{fmt, path::Path, path::PathBuf};

use burn::tensor::Device;
use nephros_core::{
    bundle::{Bundle, BundleParts},
    digest::sha256,
    input_gate::{InputGate, Traits},
    keras::{self, ModelFile},
    network::Architecture,
    predictor::Predictor,
    preprocessing::Preprocessing,
    weights::Weights,
};
use serde_json::json;

use super::{
    TrainError,
    checkpoint::Checkpoint,
    data::{Pipeline, Sample, View, load_images},
    drawn::draw,
    features::{FeatureStore, Key},
    fit::{Fit, Fitted},
    history,
    inputs::Inputs,
    network::{Layout, Trained},
    pretraining::pretrained_on_drawn,
    sampling::Sampler,
};
use crate::{
    augment::AugmentationRanges,
    calibrate::{self, Measured, Reading},
    config::{ClassWeights, Optimizer, Params, Sampling},
    input_gate::{self, Seen, Validation, measure},
    phantom::golden_images,
    progress::{Progress, Training, Unit, check},
    split::{Split, Subset},
    stages::{Dataset, Project},
};

/// What a training came to.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSummary {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The model's id.
    pub model: String,
    /// Images trained on, and chosen by.
    pub images: [usize; 2],
    /// Epochs run.
    pub epochs: usize,
    /// Epoch that was kept.
    pub best_epoch: usize,
    /// Its validation loss.
    pub validation_loss: f64,
    /// Its validation AUROC.
    pub validation_auroc: Option<f64>,
}

impl fmt::Display for TrainSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, validation] = self.images;
        writeln!(f, "{} trained on {train} images, chosen on {validation}", self.model)?;
        write!(
            f,
            "epoch {} of {}: validation loss {:.4}, AUROC {}; written to {}",
            self.best_epoch,
            self.epochs,
            self.validation_loss,
            self.validation_auroc.map_or("undefined".into(), |auroc| format!("{auroc:.3}")),
            self.bundle.display()
        )
    }
}

/// Trains and writes `bundle/`, `model.h5`, `history.csv` and `split.csv`.
///
/// # Errors
/// See [`TrainError`]. A model that was there stays until the new one is whole.
pub fn train(project: &Project, progress: &dyn Progress) -> Result<TrainSummary, TrainError> {
    let dataset = Dataset::load(project)?;
    let params = &project.params;
    let split = Split::new(&dataset.records, params)?;
    split.check_disjoint()?;
    let folder = project.path(&project.config.training.root_dir);
    split.write(&folder.join("split.csv"))?;
    let (preprocessing, initial) = prepared(project, dataset.labels.len())?;
    let layout = layout(params, dataset.labels.len());
    let trained = trained_part(params);
    if params.pooling.asks_the_higher_half() {
        tracing::info!("of two halves the one that looks more like `{}` answers", dataset.labels[1]);
    }
    let pipeline = pipeline(params, &preprocessing);
    let [train_records, validation_records] =
        [Subset::Train, Subset::Validation].map(|subset| dataset.subset(&split, subset));
    let train_samples = load_images(&dataset.root, &train_records, &preprocessing, progress)?;
    let validation_samples = load_images(&dataset.root, &validation_records, &preprocessing, progress)?;
    let framed = |image: &_, shown: &_| preprocessing.resize_as(image, shown);
    let drawn = draw(params, &dataset.labels, &framed, progress)?;
    let cache = project.path(&project.config.artifacts_root).join("cache");
    let initial = pretrained_on_drawn(params, layout, &pipeline, &drawn, initial, &cache, progress)?;
    let store;
    let [train, validation] = match trained {
        Trained::Head => {
            let path = cache.join("features.bin");
            let views = if params.augmentation { params.augmentation_views } else { 0 };
            let sets: [(&[Sample], usize); 2] = [(&train_samples, views), (&validation_samples, 0)];
            let keys;
            (store, keys) = cached_features(&path, layout, &initial, &pipeline, sets, progress)?;
            let inputs = |keys, samples: &[Sample]| Inputs::Features {
                store: &store,
                keys,
                labels: samples.iter().map(|sample| sample.label).collect(),
            };
            let [train_keys, validation_keys] = keys;
            [inputs(train_keys, &train_samples), inputs(validation_keys, &validation_samples)]
        }
        Trained::Layers { .. } => {
            let images = |samples| Inputs::Images { samples, pipeline: &pipeline };
            let train = train_samples.iter().chain(&drawn).collect();
            [images(train), images(validation_samples.iter().collect())]
        }
    };
    let run = run_digest(project, &dataset.digest, &split, &initial)?;
    progress.training(&Training { digest: &run, dataset: &dataset, split: &split });
    let checkpoint = Checkpoint::new(folder.join("checkpoint"), run);
    let labels: Vec<usize> = train_samples.iter().map(|sample| sample.label).collect();
    let groups = split.groups(&dataset.records, Subset::Train);
    let sampler = Sampler::new(params, &labels, &groups).with_drawn(drawn.len(), params.phantom_share);
    let fit = Fit {
        params,
        layout,
        trained,
        initial: &initial,
        class_weights: class_weights(params, &labels, layout.classes),
        sampler,
        train,
        validation,
        checkpoint: Some(checkpoint.clone()),
    };
    let fitted = fit.run(&Device::flex(), progress)?;
    history::write(&folder.join("history.csv"), &fitted.history)?;
    let images = [train_samples.len(), validation_samples.len()];
    let measured = Measured {
        predictions: fit.validation.predict(layout, &fitted.weights)?,
        groups: split.groups(&dataset.records, Subset::Validation),
        unit: split.unit,
        classes: layout.classes,
    };
    let reading = calibrate::fit(&measured, params);
    let traits = |records| measure(&dataset.root, records, progress);
    let traits = [traits(&train_records)?, traits(&validation_records)?];
    let (cases, case_unit) = input_gate::cases(&dataset.records);
    let of_subset = |subset| split.indices(subset).into_iter().map(|index| cases[index]).collect();
    let train_side = input_gate::Training {
        seen: Seen::default(),
        paths: train_records.iter().map(|(record, _)| record.path.as_str()).collect(),
        labels,
        cases: of_subset(Subset::Train),
        case_unit,
    };
    let gate = input_gate(&fit, &fitted, traits, train_side, of_subset(Subset::Validation), &measured)?;
    let summary = write_model(project, &dataset, &split, &preprocessing, &fitted, (reading, &gate), images)?;
    checkpoint.clear()?;
    Ok(summary)
}

/// What decides which pictures get a label, from images that are trained on and validated with.
fn input_gate(
    fit: &Fit,
    fitted: &Fitted,
    [train, validation]: [Vec<Traits>; 2],
    training: input_gate::Training<'_>,
    cases: Vec<usize>,
    measured: &Measured,
) -> Result<InputGate, TrainError> {
    let Layout { architecture, image_size, .. } = fit.layout;
    let channels = architecture.feature_shape(image_size).channels;
    let pooled = |inputs: &Inputs, positions: Vec<usize>| {
        inputs.pooled_features(&positions, fit.layout, &fitted.weights)
    };
    // Drawn phantoms come after the images in the inputs and are left out.
    let kept = input_gate::kept(train.len(), channels);
    let training =
        input_gate::Training { seen: Seen { pooled: pooled(&fit.train, kept)?, traits: train }, ..training };
    let validation = Validation {
        seen: Seen { pooled: pooled(&fit.validation, (0..validation.len()).collect())?, traits: validation },
        cases,
        groups: measured.groups.clone(),
        unit: measured.unit,
    };
    Ok(input_gate::fit(&training, &validation, channels, image_size[0].min(image_size[1])))
}

fn write_model(
    project: &Project,
    dataset: &Dataset,
    split: &Split,
    preprocessing: &Preprocessing,
    fitted: &Fitted,
    (reading, gate): (Reading, &InputGate),
    images: [usize; 2],
) -> Result<TrainSummary, TrainError> {
    let params = &project.params;
    let best = fitted.history[fitted.best_epoch - 1];
    let parts = BundleParts {
        architecture: params.architecture,
        hidden_units: params.head_units(),
        labels: dataset.labels.clone(),
        preprocessing: preprocessing.clone(),
        params: serde_json::to_value(params).map_err(std::io::Error::from)?,
        dataset_digest: dataset.digest.clone(),
        split_digest: split.digest(),
        metrics: json!({ "best_epoch": fitted.best_epoch, "validation": best }),
        calibration: Some(reading.calibration),
        abstention: Some(reading.abstention),
        patient: reading.patient,
    };
    let bundle = project.bundle_dir();
    let meta = Bundle::save_with(&bundle, parts, &fitted.weights, &golden_images(), Some(gate))?;
    let path = project.path(&project.config.training.trained_model_path);
    write_keras(&path, params, Some(dataset.labels.len()), &fitted.weights)?;
    Ok(TrainSummary {
        bundle,
        model: meta.id,
        images,
        epochs: fitted.history.len(),
        best_epoch: fitted.best_epoch,
        validation_loss: best.validation_loss,
        validation_auroc: best.validation_auroc,
    })
}

/// Writes a Keras file; `classes` is `None` for a base model without a head.
pub(crate) fn write_keras(
    path: &Path,
    params: &Params,
    classes: Option<usize>,
    weights: &Weights,
) -> Result<(), TrainError> {
    let file = ModelFile {
        architecture: params.architecture,
        image_size: params.image_size,
        hidden_units: params.head_units(),
        classes,
        weights,
        frozen: trained_part(params) == Trained::Head,
        optimizer: match params.optimizer {
            Optimizer::Sgd => keras::Optimizer::Sgd { momentum: params.momentum },
            // Keras has no L-BFGS to go on with.
            Optimizer::Lbfgs => keras::Optimizer::Sgd { momentum: 0.0 },
            Optimizer::Adam => keras::Optimizer::Adam,
        },
        learning_rate: params.learning_rate,
    };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    Ok(keras::write_model(path, &file)?)
}

/// The prepared network's preprocessing and weights, checked against params.yaml.
fn prepared(project: &Project, classes: usize) -> Result<(Preprocessing, Weights), TrainError> {
    let params = &project.params;
    let path = project.path(&project.config.prepare_base_model.updated_base_model_path);
    let model = keras::read_model(&path)?;
    let describe =
        |architecture: Architecture, [height, width, _]: [usize; 3], hidden: usize, classes: usize| {
            format!("{architecture} for {height}x{width} pixels, {hidden} hidden units, {classes} classes")
        };
    let expected = describe(params.architecture, params.image_size, params.head_units(), classes);
    let got = describe(model.architecture, model.image_size, model.hidden_units, model.classes);
    if expected != got {
        return Err(TrainError::Prepared { path: path.display().to_string(), expected, got });
    }
    let preprocessing = project.read_preprocessing()?;
    Ok((preprocessing, model.weights))
}

/// What the parameters say about the network.
fn layout(params: &Params, classes: usize) -> Layout {
    Layout {
        architecture: params.architecture,
        image_size: params.image_size,
        hidden_units: params.head_units(),
        classes,
    }
}

/// Part that learns: `compact` is always trained whole, a network with weights as `FREEZE_ALL` and
/// `FREEZE_TILL` say.
pub fn trained_part(params: &Params) -> Trained {
    let layers = params.architecture.layers().len();
    match (params.architecture.is_published(), params.freeze_all, params.freeze_till) {
        (true, true, _) => Trained::Head,
        (true, false, Some(last)) => Trained::Layers { last: last.min(layers) },
        (false, ..) | (true, false, None) => Trained::Layers { last: layers },
    }
}

fn pipeline(params: &Params, preprocessing: &Preprocessing) -> Pipeline {
    Pipeline {
        preprocessing: preprocessing.clone(),
        ranges: AugmentationRanges::from(params),
        seed: params.seed,
    }
}

/// Weight of each class in the loss: `images / (classes * images of the class)` when balanced.
pub fn class_weights(params: &Params, labels: &[usize], classes: usize) -> Vec<f32> {
    let weight = |class: usize| {
        let count = labels.iter().filter(|&&label| label == class).count();
        labels.len() as f32 / (classes * count.max(1)) as f32
    };
    match params.class_weights {
        // Sampling by patient balances the classes itself.
        _ if params.sampling == Sampling::Patient => vec![1.0; classes],
        ClassWeights::Balanced => (0..classes).map(weight).collect(),
        ClassWeights::None => vec![1.0; classes],
    }
}

/// Digest of everything that a training depends on: a checkpoint of another is not resumed.
fn run_digest(
    project: &Project,
    dataset: &str,
    split: &Split,
    initial: &Weights,
) -> Result<String, TrainError> {
    let params = serde_json::to_string(&project.params).map_err(std::io::Error::from)?;
    let weights = sha256(&initial.to_bytes()?);
    let version = env!("CARGO_PKG_VERSION");
    Ok(sha256([dataset, &split.digest(), &params, &weights, version].join("\n").as_bytes()))
}

/// Keys of the cached views of each image.
type Keys = Vec<Vec<Key>>;

/// Computes the features that are not on disk yet: the plain view of every image, and `views`
/// augmented ones.
///
/// # Errors
/// The store cannot be written, or the network gives no finite features.
pub fn cached_features(
    path: &Path,
    layout: Layout,
    weights: &Weights,
    pipeline: &Pipeline,
    sets: [(&[Sample], usize); 2],
    progress: &dyn Progress,
) -> Result<(FeatureStore, [Keys; 2]), TrainError> {
    let classes = (0..layout.classes).map(|class| class.to_string()).collect();
    let predictor = Predictor::from_parts(
        layout.architecture,
        layout.hidden_units,
        classes,
        pipeline.preprocessing.clone(),
        weights,
        String::new(),
    )?;
    let base = base_digest(layout.architecture, weights)?;
    let about = serde_json::to_string(&pipeline.preprocessing).map_err(std::io::Error::from)?;
    let architecture = layout.architecture.name();
    let augmentation = format!("{:?} seed {}", pipeline.ranges, pipeline.seed);
    let key = |sample: &Sample, view: View| {
        let view = match view {
            View::Plain => "plain".to_owned(),
            View::Augmented(number) => format!("{augmentation} view {number}"),
        };
        Key::new(&[&sample.sha256, &about, architecture, &base, &view])
    };
    let mut store = FeatureStore::open(path, layout.architecture.feature_len(layout.image_size))?;
    let mut missing = Vec::new();
    let keys = sets.map(|(samples, views)| {
        let of = |sample| {
            let views = (1..=views as u64).map(View::Augmented);
            std::iter::once(View::Plain)
                .chain(views)
                .map(|view| (key(sample, view), view))
                .collect::<Vec<_>>()
        };
        let keyed: Vec<_> = samples.iter().map(of).collect();
        for (sample, views) in samples.iter().zip(&keyed) {
            missing.extend(
                views.iter().filter(|(key, _)| !store.contains(key)).map(|&(key, view)| (key, sample, view)),
            );
        }
        keyed.into_iter().map(|views| views.into_iter().map(|(key, _)| key).collect()).collect()
    });
    let task = progress.task("computing features", Some(missing.len() as u64), Unit::Items);
    for group in missing.chunks(GROUP) {
        check(progress)?;
        let input: Vec<f32> =
            group.iter().flat_map(|(_, sample, view)| pipeline.input(sample, *view)).collect();
        let features = predictor.features(&input, group.len())?;
        let vectors = features.chunks_exact(features.len() / group.len());
        let named: Vec<_> =
            group.iter().zip(vectors).map(|((key, ..), values)| (*key, values.to_vec())).collect();
        store.append(&named)?;
        task.advance(group.len() as u64);
    }
    Ok((store, keys))
}

/// Images whose features are computed and written at a time.
const GROUP: usize = 16;

/// Digest of the arrays of the feature extractor alone, so that another head keeps the cache.
fn base_digest(architecture: Architecture, weights: &Weights) -> Result<String, TrainError> {
    let names = architecture.expected_feature_shapes();
    let arrays = names.iter().map(|(key, shape)| Ok((key.clone(), weights.get(key, shape)?.clone())));
    let base = Weights(arrays.collect::<Result<_, TrainError>>()?);
    Ok(sha256(&base.to_bytes()?))
}
