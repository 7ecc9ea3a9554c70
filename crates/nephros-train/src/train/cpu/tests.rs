//! A whole step by the kernels against Burn's autodiff.

use burn::{
    module::{Module as _, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData, activation::log_softmax},
};
use nephros_core::{network::Architecture, weights::Weights};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Classifier, CpuGradients, Layout, Said};
use crate::{
    config::{Params, WeightsSource},
    prepare::add_head,
    pretrained,
    progress::Silent,
    train::Trained,
};

const BATCH: usize = 6;

/// Of the difference, relative to the length of the gradient: both sides round to f32, and sum in
/// another order.
const TOLERANCE: f64 = 2e-4;

/// Both gradients of each parameter that Burn has one for.
struct Compare<'a> {
    burn: &'a GradientsParams,
    kernels: &'a GradientsParams,
    /// Relative distance of each pair.
    distances: Vec<f64>,
}

impl ModuleVisitor for Compare<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let values = |gradients: &GradientsParams| {
            let gradient = gradients.get::<D>(parameter.id)?;
            assert_eq!(gradient.dims(), parameter.val().dims());
            Some(gradient.into_data().iter::<f32>().map(f64::from).collect::<Vec<f64>>())
        };
        let (burn, kernels) = (values(self.burn), values(self.kernels));
        assert_eq!(burn.is_some(), kernels.is_some(), "{:?}", parameter.val().dims());
        let (Some(burn), Some(kernels)) = (burn, kernels) else { return };
        let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = length(&mut burn.iter().zip(&kernels).map(|(a, b)| a - b));
        let size = length(&mut burn.iter().copied());
        // A bias before a batch norm has no gradient but Burn's rounding, a length of 6e-7 where
        // this was written; the kernel before it has one of more than 0.01.
        self.distances.push(difference / size.max(1e-2));
    }
}

struct Step {
    layout: Layout,
    last: usize,
    weights: Weights,
    input: Vec<f32>,
}

impl Step {
    fn new(architecture: Architecture, size: usize, last: usize, hidden_units: usize) -> Self {
        let image_size = [size, size, 3];
        let params = Params { image_size, architecture, hidden_units, ..crate::testing::params() };
        let folder = tempfile::tempdir().unwrap();
        let source = WeightsSource::None;
        let base = pretrained::load(architecture, image_size, &source, 3, folder.path(), &Silent).unwrap();
        let mut weights = base.weights;
        add_head(&mut weights, &params, 2);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let input = (0..BATCH * size * size * 3).map(|_| rng.random_range(0.0..1.0f32)).collect();
        Self { layout: Layout { architecture, image_size, hidden_units, classes: 2 }, last, weights, input }
    }

    fn model(&self, device: &Device) -> Classifier {
        Classifier::new(self.layout, Trained::Layers { last: self.last }, &self.weights, device).unwrap()
    }

    fn loss(said: Said, device: &Device) -> Tensor<1> {
        let targets: Vec<f32> = (0..BATCH).flat_map(|i| [[0.9, 0.1], [0.2, 1.8]][i % 2]).collect();
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [BATCH, 2]), device);
        let image = (log_softmax(said.logits, 1) * targets).sum().neg() / BATCH as f32;
        // What is known of places comes in as a loss of the evidence.
        said.evidence.map_or(image.clone(), |evidence| image + evidence.powi_scalar(2).mean())
    }

    fn check(&self) {
        let device = Device::flex().autodiff();
        let (by_burn, by_kernels) = (self.model(&device), self.model(&device));
        let [height, width, channels] = self.layout.image_size;
        let data = TensorData::new(self.input.clone(), [BATCH, height, width, channels]);
        let said = by_burn.forward(self.layout.architecture, Tensor::from_data(data, &device));
        let burn_loss = Self::loss(said, &device);
        let burn = GradientsParams::from_grads(burn_loss.backward(), &by_burn);
        let mut kernels = CpuGradients::new(self.layout, self.last, &self.weights).unwrap();
        let loss = |said| Self::loss(said, &device);
        let (loss, gradients) = kernels.gradients(&by_kernels, &self.input, BATCH, &device, loss).unwrap();
        let (loss, burn_loss) = (loss.into_scalar::<f32>(), burn_loss.into_scalar::<f32>());
        assert!((loss - burn_loss).abs() < 1e-5, "loss {loss}, by Burn {burn_loss}");
        self.check_gradients(&by_burn, &by_kernels, &burn, &gradients);
        let trained = Trained::Layers { last: self.last };
        let running = by_kernels.to_weights(self.layout, trained, self.weights.clone());
        for (key, tensor) in by_burn.to_weights(self.layout, trained, self.weights.clone()).0 {
            for (got, expected) in running.0[&key].values.iter().zip(&tensor.values) {
                assert!((got - expected).abs() < 1e-5, "`{key}`: {got}, by Burn {expected}");
            }
        }
    }

    /// The two models have other parameter ids, so Burn's gradients change their names first.
    fn check_gradients(
        &self,
        by_burn: &Classifier,
        by_kernels: &Classifier,
        burn: &GradientsParams,
        kernels: &GradientsParams,
    ) {
        let mut renamed = GradientsParams::new();
        let mut names = Names { ids: Vec::new(), from: kernels, to: &mut renamed, position: 0 };
        by_burn.visit(&mut names);
        names.renaming(by_kernels);
        let mut compare = Compare { burn, kernels: &renamed, distances: Vec::new() };
        by_burn.visit(&mut compare);
        assert!(compare.distances.len() >= 2, "{}: no gradients", self.last);
        for (position, distance) in compare.distances.iter().enumerate() {
            assert!(*distance < TOLERANCE, "parameter {position}: {distance}");
        }
    }
}

/// Gives gradients of one model the parameter ids of another of the same shape.
struct Names<'a> {
    ids: Vec<burn::module::ParamId>,
    from: &'a GradientsParams,
    to: &'a mut GradientsParams,
    position: usize,
}

struct Renaming<'a, 'b>(&'a mut Names<'b>);

impl Names<'_> {
    fn renaming(&mut self, model: &Classifier) {
        model.visit(&mut Renaming(self));
    }
}

impl ModuleVisitor for Names<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.ids.push(parameter.id);
    }
}

impl ModuleVisitor for Renaming<'_, '_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let names = &mut *self.0;
        if let Some(gradient) = names.from.get::<D>(parameter.id) {
            names.to.register(names.ids[names.position], gradient);
        }
        names.position += 1;
    }
}

#[test]
fn a_network_that_judges_places_learns_as_by_burn() {
    Step::new(Architecture::CompactPlaces, 32, 8, 0).check();
}

#[test]
fn compact_learns_as_burn_says() {
    let all = Architecture::Compact.layers().len();
    for (size, hidden_units) in [(32, 0), (37, 7)] {
        Step::new(Architecture::Compact, size, all, hidden_units).check();
    }
}

#[test]
fn layers_that_are_frozen_have_no_gradient() {
    // Of the eleven layers of `compact` the last six start at conv4, the last five at conv5; the
    // last one is the global average, so that the head alone learns.
    for last in [6, 5, 1] {
        Step::new(Architecture::Compact, 32, last, 0).check();
    }
}

#[test]
fn vgg16_learns_as_burn_says() {
    // All layers, and block 5.
    for last in [Architecture::Vgg16.layers().len(), 4] {
        Step::new(Architecture::Vgg16, 32, last, 4).check();
    }
}
