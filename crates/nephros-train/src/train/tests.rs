//! The training loop on small drawn images.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use nephros_core::{
    network::Architecture,
    predictor::Predictor,
    preprocessing::{Normalization, Preprocessing},
    weights::Weights,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    Checkpoint, Classifier, Fit, Fitted, Inputs, Layout, Sampler, TrainError, Trained,
    data::{Lesion, Pipeline, Sample, View},
};
use crate::{
    augment::AugmentationRanges,
    config::{Optimizer, Params, Pooling, WeightsSource},
    prepare::add_head,
    pretrained,
    progress::{Progress, Silent, Task, Unit},
};

const SIZE: usize = 32;

fn params() -> Params {
    Params {
        architecture: Architecture::Compact,
        image_size: [SIZE, SIZE, 3],
        batch_size: 8,
        epochs: 4,
        learning_rate: 2e-3,
        optimizer: Optimizer::Adam,
        ..crate::testing::params()
    }
}

/// Noise with a bright disc in one half of the images.
fn samples(count: usize, seed: u64) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = |index: usize| {
        let label = index % 2;
        let (x, y) = (rng.random_range(10.0..22.0f64), rng.random_range(10.0..22.0f64));
        let mut pixels = Vec::with_capacity(SIZE * SIZE * 3);
        for position in 0..SIZE * SIZE {
            let (row, column) = ((position / SIZE) as f64, (position % SIZE) as f64);
            let disc = label == 1 && (row - y).hypot(column - x) < 6.0;
            let grey = rng.random_range(60..110u8) + if disc { 90 } else { 0 };
            pixels.extend([grey; 3]);
        }
        Sample { sha256: format!("{seed}-{index}"), label, pixels, lesion: None }
    };
    (0..count).map(&mut sample).collect()
}

fn pipeline(params: &Params) -> Pipeline {
    let preprocessing = Preprocessing::new(params.image_size, Normalization::Unit);
    Pipeline { preprocessing, ranges: AugmentationRanges::from(params), seed: params.seed }
}

fn initial(params: &Params) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let source = WeightsSource::None;
    let size = params.image_size;
    let base =
        pretrained::load(params.architecture, size, &source, params.seed, folder.path(), &Silent).unwrap();
    let mut weights = base.weights;
    add_head(&mut weights, params, 2);
    weights
}

fn layout(params: &Params) -> Layout {
    Layout {
        architecture: params.architecture,
        image_size: params.image_size,
        hidden_units: params.hidden_units,
        classes: 2,
    }
}

fn fit(
    params: &Params,
    checkpoint: Option<Checkpoint>,
    progress: &dyn Progress,
) -> Result<Fitted, TrainError> {
    let (train, validation) = (samples(32, 1), samples(16, 2));
    let pipeline = pipeline(params);
    let initial = initial(params);
    let fit = Fit {
        params,
        layout: layout(params),
        trained: Trained::Layers { last: params.architecture.layers().len() },
        initial: &initial,
        class_weights: vec![1.0, 1.0],
        sampler: Sampler::each_once(train.len()),
        train: Inputs::Images { samples: train.iter().collect(), pipeline: &pipeline },
        validation: Inputs::Images { samples: validation.iter().collect(), pipeline: &pipeline },
        checkpoint,
    };
    fit.run(&Device::flex(), progress)
}

/// Stops the training at a given check, in the middle of an epoch.
struct StopAt(AtomicUsize);

impl Progress for StopAt {
    fn task(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        Silent.task(name, total, unit)
    }

    fn is_cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[test]
fn a_disc_is_learned_and_the_same_seed_gives_the_same_bits() {
    let params = Params { epochs: 8, ..params() };
    let first = fit(&params, None, &Silent).unwrap();
    let last = first.history.last().unwrap();
    assert!(last.train_loss < first.history[0].train_loss, "{:?}", first.history);
    assert!(last.validation_auroc.unwrap() > 0.9, "{last:?}");
    assert_eq!(fit(&params, None, &Silent).unwrap().weights, first.weights);
    let other = Params { seed: 7, ..params };
    assert_ne!(fit(&other, None, &Silent).unwrap().weights, first.weights);
}

#[test]
fn a_training_that_was_killed_ends_like_one_that_was_not() {
    for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
        let params = Params { optimizer, momentum: 0.9, ..params() };
        let whole = fit(&params, None, &Silent).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(folder.path().join("checkpoint"), "run".into());
        // 4 steps an epoch: the tenth check is in the middle of the third epoch.
        let stop = StopAt(AtomicUsize::new(10));
        let stopped = fit(&params, Some(checkpoint.clone()), &stop);
        assert!(matches!(stopped, Err(TrainError::Cancelled(_))), "{stopped:?}");
        let resumed = fit(&params, Some(checkpoint.clone()), &Silent).unwrap();
        assert_eq!(resumed.resumed_after, 2);
        assert_eq!(resumed.weights, whole.weights, "{optimizer:?}");
        let other = Checkpoint::new(folder.path().join("checkpoint"), "another run".into());
        assert_eq!(fit(&params, Some(other), &Silent).unwrap().resumed_after, 0);
    }
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    // A rate this high makes later epochs worse than an early one.
    let params = Params { early_stopping_patience: 2, epochs: 12, learning_rate: 0.05, ..params() };
    let fitted = fit(&params, None, &Silent).unwrap();
    let best = fitted.history.iter().min_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss)).unwrap();
    assert_eq!(best.epoch, fitted.best_epoch);
    assert!(fitted.history.len() <= fitted.best_epoch + 2);
}

#[test]
fn running_statistics_are_of_the_weights_that_are_kept() {
    // At this rate a step moves all statistics far. One batch is all images, so that theirs are the batch's.
    let params = Params { batch_size: 32, epochs: 2, learning_rate: 0.05, ..params() };
    let kept = fit(&params, None, &Silent).unwrap().weights;
    let (samples, pipeline, layout) = (samples(32, 1), pipeline(&params), layout(&params));
    let inputs = Inputs::Images { samples: samples.iter().collect(), pipeline: &pipeline };
    let device = Device::flex().autodiff();
    let trained = Trained::Layers { last: params.architecture.layers().len() };
    let mut model = Classifier::new(layout, trained, &kept, &device).unwrap();
    model.set_momentum(1.0);
    let values = inputs.batch(&(0..32).collect::<Vec<_>>(), Some(2));
    let input = TensorData::new(values, [32, SIZE, SIZE, 3]);
    let _logits = model.forward(layout.architecture, Tensor::from_data(input, &device));
    let measured = model.to_weights(layout, trained, kept.clone());
    let mut compared = 0;
    for (key, tensor) in kept.0.iter().filter(|(key, _)| key.contains("running")) {
        for (kept, measured) in tensor.values.iter().zip(&measured.0[key].values) {
            assert!(
                (kept - measured).abs() <= 1e-3 * measured.abs().max(1e-2),
                "`{key}`: {kept}, {measured}"
            );
            compared += 1;
        }
    }
    assert!(compared > 0, "no running statistics");
}

#[test]
fn the_trained_network_and_the_engine_that_serves_agree() {
    for architecture in [Architecture::Compact, Architecture::CompactPlaces] {
        served_as_trained(&Params { architecture, epochs: 2, ..params() });
    }
}

fn served_as_trained(params: &Params) {
    let weights = fit(params, None, &Silent).unwrap().weights;
    let layout = layout(params);
    let (samples, pipeline) = (samples(8, 3), pipeline(params));
    let inputs = Inputs::Images { samples: samples.iter().collect(), pipeline: &pipeline };
    let served = inputs.predict(layout, &weights).unwrap();
    let device = Device::flex();
    let trained = Trained::Layers { last: params.architecture.layers().len() };
    let model = Classifier::new(layout, trained, &weights, &device).unwrap();
    let input = TensorData::new(inputs.batch(&[0, 1, 2, 3, 4, 5, 6, 7], None), [8, SIZE, SIZE, 3]);
    let said = model.forward(layout.architecture, Tensor::from_data(input, &device));
    let probabilities: Vec<f32> = softmax(said.logits, 1).into_data().iter::<f32>().collect();
    for (trained, served) in probabilities.iter().zip(served.probabilities.concat()) {
        assert!((trained - served).abs() < 1e-5, "{trained} and {served}");
    }
}

#[test]
fn a_hypercolumn_is_the_same_for_the_trained_network_and_the_engine_that_serves() {
    let image_size = [48, 32, 3];
    let params = Params { architecture: Architecture::Vgg16Hypercolumn, image_size, ..params() };
    let (weights, layout, pipeline) = (initial(&params), layout(&params), pipeline(&params));
    let samples: Vec<Sample> = samples(4, 3)
        .into_iter()
        .map(|sample| {
            let pixels = [&sample.pixels[..], &sample.pixels[..SIZE * SIZE * 3 / 2]].concat();
            Sample { pixels, ..sample }
        })
        .collect();
    let inputs = || Inputs::Images { samples: samples.iter().collect(), pipeline: &pipeline };
    let served = inputs().predict(layout, &weights).unwrap().probabilities.concat();
    let model = Classifier::new(layout, Trained::Layers { last: 4 }, &weights, &Device::flex()).unwrap();
    let input = TensorData::new(inputs().batch(&[0, 1, 2, 3], None), [4, 48, 32, 3]);
    let said = model.forward(layout.architecture, Tensor::from_data(input, &Device::flex()));
    let probabilities: Vec<f32> = softmax(said.logits, 1).into_data().iter::<f32>().collect();
    for (trained, served) in probabilities.iter().zip(&served) {
        assert!((trained - served).abs() < 1e-5, "{trained} and {served}");
    }
    // The last convolutions learn, and nothing below them does.
    let params = Params { epochs: 1, batch_size: 4, optimizer: Optimizer::Sgd, learning_rate: 0.1, ..params };
    let fit = Fit {
        params: &params,
        layout,
        trained: Trained::Layers { last: 4 },
        initial: &weights,
        class_weights: vec![1.0, 1.0],
        sampler: Sampler::each_once(4),
        train: inputs(),
        validation: inputs(),
        checkpoint: None,
    };
    let fitted = fit.run(&Device::flex(), &Silent).unwrap().weights;
    let changed = |key: &&String| fitted.0[*key] != weights.0[*key];
    let changed: Vec<&str> = fitted.0.keys().filter(changed).map(String::as_str).collect();
    let expected =
        [24, 26, 28].map(|layer| [format!("features.{layer}.bias"), format!("features.{layer}.weight")]);
    let head = ["head.bias".to_owned(), "head.weight".to_owned()];
    assert_eq!(changed, [expected.concat(), head.to_vec()].concat());
}

#[test]
fn a_head_on_cached_features_agrees_with_the_engine_that_serves() {
    for hidden_units in [0, 5] {
        let params = Params {
            architecture: Architecture::Vgg16,
            // Two by two positions are left, so that the order of the features matters.
            image_size: [64, 64, 3],
            hidden_units,
            ..params()
        };
        let (weights, pipeline) = (initial(&params), pipeline(&params));
        let layout =
            Layout { architecture: params.architecture, image_size: [64, 64, 3], hidden_units, classes: 2 };
        let labels = vec!["0".into(), "1".into()];
        let predictor = Predictor::from_parts(
            layout.architecture,
            hidden_units,
            labels,
            pipeline.preprocessing.clone(),
            &weights,
            String::new(),
        )
        .unwrap();
        let noise = Sample {
            pixels: samples(4, 9).into_iter().flat_map(|s| s.pixels).collect(),
            ..samples(1, 9)[0].clone()
        };
        let features = predictor.features(&pipeline.input(&noise, View::Plain), 1).unwrap();
        let served = predictor.predict_features(&features, 1).unwrap()[0].probabilities.clone();
        let device = Device::flex();
        let model = Classifier::new(layout, Trained::Head, &weights, &device).unwrap();
        let input = TensorData::new(features.clone(), [1, features.len()]);
        let logits = model.forward_head(Tensor::from_data(input, &device));
        let trained: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
        assert!((trained[0] - served[0]).abs() < 1e-5, "{trained:?} and {served:?}");
        assert_eq!(model.to_weights(layout, Trained::Head, weights.clone()), weights);
    }
}

#[test]
fn the_head_fitted_to_its_optimum_is_one_that_the_engine_reads_the_same_way() {
    for pooling in [Pooling::None, Pooling::Avg, Pooling::Halves, Pooling::Mil, Pooling::Asymmetry] {
        fitted_head_is_served(Architecture::Vgg16, pooling);
    }
    fitted_head_is_served(Architecture::Vgg16Hypercolumn, Pooling::Asymmetry);
}

fn fitted_head_is_served(architecture: Architecture, pooling: Pooling) {
    let params = Params {
        architecture,
        image_size: [64, 64, 3],
        optimizer: Optimizer::Lbfgs,
        pooling,
        weight_decay: 0.01,
        epochs: 400,
        ..params()
    };
    let (initial, pipeline) = (initial(&params), pipeline(&params));
    let layout = Layout {
        architecture: params.architecture,
        image_size: [64, 64, 3],
        hidden_units: params.head_units(),
        classes: 2,
    };
    let larger = |sample: Sample| Sample { pixels: sample.pixels.repeat(4), ..sample };
    let [train, validation] = [(32, 1), (16, 2)]
        .map(|(count, seed)| samples(count, seed).into_iter().map(larger).collect::<Vec<_>>());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.bin");
    let sets: [(&[Sample], usize); 2] = [(&train, 1), (&validation, 0)];
    let (store, [train_keys, validation_keys]) =
        super::cached_features(&path, layout, &initial, &pipeline, sets, &Silent).unwrap();
    let inputs = |keys, samples: &[Sample]| Inputs::Features {
        store: &store,
        keys,
        labels: samples.iter().map(|sample| sample.label).collect(),
    };
    let fit = Fit {
        params: &params,
        layout,
        trained: Trained::Head,
        initial: &initial,
        class_weights: vec![1.0, 1.0],
        sampler: Sampler::each_once(train.len()),
        train: inputs(train_keys, &train),
        validation: inputs(validation_keys, &validation),
        checkpoint: None,
    };
    let fitted = fit.run(&Device::flex(), &Silent).unwrap();
    let last = fitted.history.last().unwrap();
    assert!(fitted.history.len() < params.epochs, "no optimum after {} steps", fitted.history.len());
    assert!(last.train_loss < 0.3, "{last:?}");
    // The loop reads features one way, the engine that serves another: the same answers.
    let images = Inputs::Images { samples: validation.iter().collect(), pipeline: &pipeline };
    let served = images.predict(layout, &fitted.weights).unwrap().metrics(2);
    assert!((served.loss - last.validation_loss).abs() < 1e-5, "{served:?}, {last:?}");
    assert_eq!(fit.run(&Device::flex(), &Silent).unwrap().weights, fitted.weights);
    // 2×2 places, those of a channel side by side; the lower row is the middle one.
    let key = if pooling.asks_the_higher_half() { "head.hidden.weight" } else { "head.weight" };
    let head = &fitted.weights.0[key].values;
    let all = |holds: fn(&[f32]) -> bool| head.chunks_exact(4).all(holds);
    let uniform = |places: &[f32]| places.windows(2).all(|pair| pair[0].to_bits() == pair[1].to_bits());
    assert_eq!(all(uniform), pooling == Pooling::Avg);
    let lower = |places: &[f32]| places[..2] == [0.0; 2] && places[2].to_bits() == places[3].to_bits();
    assert_eq!(all(lower), pooling == Pooling::Halves);
    if pooling.asks_the_higher_half() {
        let rows: Vec<&[f32]> = head.chunks_exact(head.len() / 3).collect();
        // The lead of the left half, the same with its sign turned, and how far that of the right one is before it.
        // Where halves are compared, what the other one shows counts too.
        let places = rows[0].chunks_exact(4).zip(rows[1].chunks_exact(4)).zip(rows[2].chunks_exact(4));
        let mut across = 0;
        for ((left, turned), before) in places {
            let [.., own, other] = *left else { panic!("{left:?}") };
            let expected =
                [[0.0, 0.0, own, other], [0.0, 0.0, -own, -other], [0.0, 0.0, other - own, own - other]];
            assert_eq!([left, turned, before], expected);
            across += usize::from(other != 0.0);
        }
        assert_eq!(across > 0, pooling == Pooling::Asymmetry);
    }
}

/// Where the disc of [`samples`] is, read off the picture, or nowhere.
fn with_lesions(samples: Vec<Sample>) -> Vec<Sample> {
    let drawn = |sample: Sample| {
        let bright =
            sample.pixels.as_chunks::<3>().0.iter().map(|pixel| if pixel[0] >= 150 { 255 } else { 0 });
        let share = if sample.label == 1 { bright.collect() } else { vec![0; SIZE * SIZE] };
        Sample { lesion: Some(Lesion { label: (sample.label == 1).then_some(1), share }), ..sample }
    };
    samples.into_iter().map(drawn).collect()
}

#[test]
fn places_are_learned_from_drawn_lesions_and_found_in_images_without() {
    let params = Params {
        architecture: Architecture::CompactPlaces,
        augmentation: false,
        phantom_epochs: 12,
        epochs: 4,
        ..params()
    };
    let (pipeline, layout, start) = (pipeline(&params), layout(&params), initial(&params));
    let cache = tempfile::tempdir().unwrap();
    let pretrain_on = |params: &Params, drawn: &[Sample]| {
        let initial = start.clone();
        super::pretrained_on_drawn(params, layout, &pipeline, drawn, initial, cache.path(), &Silent).unwrap()
    };
    let pretrain = |params: &Params| pretrain_on(params, &with_lesions(samples(48, 3)));
    let pretrained = pretrain(&params);
    assert_ne!(pretrained, start);
    let kept = || std::fs::read_dir(cache.path()).unwrap().count();
    // What changes from fold to fold changes nothing here.
    let of_other_fold = Params { validation_split: 0.3, phantom_share: 0.7, epochs: 9, ..params.clone() };
    assert_eq!((pretrain(&of_other_fold), kept()), (pretrained.clone(), 1));
    assert_eq!((pretrain(&Params { phantom_epochs: 0, ..params.clone() }), kept()), (start.clone(), 1));
    // A control hides a part of what is drawn, under the names of the slices as they were drawn.
    let short = Params { phantom_epochs: 1, ..params.clone() };
    let whole = pretrain(&short);
    let mut drawn = with_lesions(samples(48, 3));
    for sample in &mut drawn {
        sample.pixels[..SIZE * SIZE].fill(0);
    }
    assert_ne!(pretrain_on(&short, &drawn), whole);
    let (train, validation, drawn) = (samples(32, 1), samples(16, 2), with_lesions(samples(48, 3)));
    let fit = Fit {
        params: &params,
        layout,
        trained: Trained::Layers { last: params.architecture.layers().len() },
        initial: &pretrained,
        class_weights: vec![1.0, 1.0],
        sampler: Sampler::each_once(train.len()).with_drawn(drawn.len(), 0.5),
        train: Inputs::Images { samples: train.iter().chain(&drawn).collect(), pipeline: &pipeline },
        validation: Inputs::Images { samples: validation.iter().collect(), pipeline: &pipeline },
        checkpoint: None,
    };
    let fitted = fit.run(&Device::flex(), &Silent).unwrap();
    let last = fitted.history.last().unwrap();
    assert!(last.validation_auroc.unwrap() > 0.9, "{last:?}");
    assert_eq!(fit.run(&Device::flex(), &Silent).unwrap().weights, fitted.weights);
    // The window that answers for a slice with a disc is on it: its middle is bright.
    let head = params.architecture.build_place_head(&fitted.weights, 2, params.image_size).unwrap();
    let features = params.architecture.build_features(&fitted.weights, params.image_size).unwrap();
    let mut found = 0;
    for sample in validation.iter().filter(|sample| sample.label == 1) {
        let mut map = vec![0.0; head.map().len()];
        features.forward(&pipeline.input(sample, View::Plain), 1, &mut map).unwrap();
        let winner = head.winners(&map)[0];
        let (row, column) = (winner.row * 8 + 12, winner.column * 8 + 12);
        let middle = (row - 4..row + 4).flat_map(|row| &sample.pixels[(row * SIZE + column - 4) * 3..][..24]);
        found += usize::from(middle.map(|&value| usize::from(value)).sum::<usize>() > 192 * 110);
    }
    assert!(found >= 6, "{found} of 8");
}

#[test]
fn a_lesion_moves_as_its_image_does() {
    let params = Params { architecture: Architecture::CompactPlaces, noise_range: 0.0, ..params() };
    let pipeline = pipeline(&params);
    // The image is its own mask, in grey.
    let mut share = vec![0; SIZE * SIZE];
    for row in 4..15 {
        share[row * SIZE + 8..row * SIZE + 23].fill(255);
    }
    let pixels = share.iter().flat_map(|&value| [value; 3]).collect();
    let lesion = Some(Lesion { label: Some(1), share });
    let sample = Sample { sha256: "moved".into(), label: 1, pixels, lesion };
    for view in [View::Plain, View::Augmented(1), View::Augmented(2)] {
        let input = pipeline.input(&sample, view);
        let places = pipeline.lesion(&sample, view, 8).unwrap();
        let mut expected = vec![0.0; 16];
        for (pixel, value) in input.iter().step_by(3).enumerate() {
            expected[pixel / SIZE / 8 * 4 + pixel % SIZE / 8] += value / 64.0;
        }
        for (got, expected) in places.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-4, "{view:?}: {places:?}, {expected:?}");
        }
    }
    let real = Sample { lesion: None, ..sample };
    assert_eq!(pipeline.lesion(&real, View::Plain, 8), None);
}

/// 36 by 44 pixels are 4 by 5 places of 8 pixels and a rest.
#[test]
fn places_are_counted_as_the_network_counts_them() {
    let image_size = [36, 44, 3];
    let params =
        Params { architecture: Architecture::CompactPlaces, image_size, augmentation: false, ..params() };
    let (pipeline, layout) = (pipeline(&params), layout(&params));
    let share = (0..36 * 44).map(|pixel| if pixel % 44 >= 32 && pixel / 44 < 8 { 255 } else { 0 }).collect();
    let lesion = Some(Lesion { label: Some(1), share });
    let sample = Sample { sha256: "wide".into(), label: 1, pixels: vec![0; 36 * 44 * 3], lesion };
    let images = Inputs::Images { samples: vec![&sample], pipeline: &pipeline };
    let side = layout.architecture.place_side();
    let places = images.lesions(&[0], 1, side).swap_remove(0).unwrap().1;
    let map = layout.architecture.feature_shape(image_size);
    assert_eq!((places.len(), map.height, map.width), (20, 4, 5));
    let lesion: Vec<usize> = (0..20).filter(|&place| places[place] > 0.99).collect();
    assert_eq!(lesion, [4]);
}
