//! What calibration images say about the maps of a network.

use crate::{ConvError, Layer, Network, Shape, network::check_length};

/// The largest value after each convolution, over calibration images.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// One for each [`Layer::Conv3x3`], in order.
    pub maxima: Vec<f32>,
}

impl Calibration {
    /// Runs `batch` images of `[height, width, channels]` through the layers in f32 and keeps the
    /// largest value after each convolution.
    ///
    /// # Errors
    /// As [`Network::new`] and [`Network::forward`].
    pub fn measure(
        input: Shape,
        layers: &[Layer<'_>],
        images: &[f32],
        batch: usize,
    ) -> Result<Self, ConvError> {
        let mut calibrator = Calibrator::new(input, layers)?;
        calibrator.add(images, batch)?;
        Ok(calibrator.finish())
    }
}

/// Keeps the largest values over any number of images, some at a time: what is in memory is the
/// maps of one call.
#[derive(Debug)]
pub struct Calibrator {
    input: Shape,
    /// One network a layer, and the largest value of each that is a convolution.
    layers: Vec<(Network, Option<f32>)>,
}

impl Calibrator {
    /// Compiles the layers one by one, in f32.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn new(input: Shape, layers: &[Layer<'_>]) -> Result<Self, ConvError> {
        let mut calibrator = Self { input, layers: Vec::with_capacity(layers.len()) };
        layers.iter().try_for_each(|layer| calibrator.push(layer))?;
        Ok(calibrator)
    }

    /// As [`Self::new`] for one more layer, so that its weights need not outlive the call.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn push(&mut self, layer: &Layer<'_>) -> Result<(), ConvError> {
        let shape = self.layers.last().map_or(self.input, |(network, _)| network.output());
        let maximum = matches!(layer, Layer::Conv3x3 { .. }).then_some(0.0);
        self.layers.push((Network::new(shape, &[*layer])?, maximum));
        Ok(())
    }

    /// Runs `batch` images of `[height, width, channels]`.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn add(&mut self, images: &[f32], batch: usize) -> Result<(), ConvError> {
        check_length("input", batch, self.input.len(), images.len())?;
        let mut maps = images.to_vec();
        for (network, maximum) in &mut self.layers {
            let mut next = vec![0.0; batch * network.output().len()];
            network.forward(&maps, batch, &mut next)?;
            if let Some(maximum) = maximum {
                *maximum = next.iter().copied().fold(*maximum, f32::max);
            }
            maps = next;
        }
        Ok(())
    }

    /// The largest values so far.
    pub fn finish(self) -> Calibration {
        Calibration { maxima: self.layers.into_iter().filter_map(|(_, maximum)| maximum).collect() }
    }
}
