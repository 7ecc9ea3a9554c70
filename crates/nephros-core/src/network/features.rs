//! A feature extractor that runs, in either precision.

use std::fmt;

use nephros_conv::{ConvError, Network, QuantizedNetwork, Shape};
use serde::{Deserialize, Serialize};

use super::hypercolumn;

/// Images whose earlier maps are in memory at a time.
const GROUP: usize = 8;

/// Arithmetic of a feature extractor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 8-bit whole numbers.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// A feature extractor of either precision.
#[derive(Debug)]
pub struct Features {
    first: Chain,
    /// The layers after the map that is joined to the last one, where one is, and how many of its rows and
    /// columns are one of the last.
    rest: Option<(Chain, usize)>,
}

/// Layers one after the other.
#[derive(Debug)]
pub(super) enum Chain {
    /// In 32-bit floats.
    F32(Network),
    /// On 8-bit maps.
    Int8(QuantizedNetwork),
}

impl Features {
    /// All layers as one chain.
    pub(super) fn of_last_map(first: Chain) -> Self {
        Self { first, rest: None }
    }

    /// The layers up to the map that is joined to the last one, and the rest, which pools it to squares of `side`
    /// rows and columns.
    pub(super) fn joined(first: Chain, rest: Chain, side: usize) -> Self {
        Self { first, rest: Some((rest, side)) }
    }

    /// Shape of the map that the head sees.
    pub fn output(&self) -> Shape {
        let first = self.first.output();
        self.rest.as_ref().map_or(first, |(rest, _)| hypercolumn::joined(first, rest.output()))
    }

    /// As [`Network::forward`].
    ///
    /// # Errors
    /// As [`Network::forward`]; `output` may then hold the maps of images before the one that fails.
    pub fn forward(&self, input: &[f32], batch: usize, output: &mut [f32]) -> Result<(), ConvError> {
        let Some((rest, side)) = &self.rest else { return self.first.forward(input, batch, output) };
        let (early, last, joined) = (self.first.output(), rest.output(), self.output());
        let expected = batch.saturating_mul(joined.len());
        if output.len() != expected {
            let got = output.len();
            return Err(ConvError::BufferLength { what: "output", batch, expected, got });
        }
        if batch == 0 || !input.len().is_multiple_of(batch) {
            // Says what is wrong with the input.
            return self.first.forward(input, batch, &mut vec![0.0; batch.saturating_mul(early.len())]);
        }
        let image = input.len() / batch;
        let mut early_maps = vec![0.0; batch.min(GROUP) * early.len()];
        let mut last_maps = vec![0.0; batch.min(GROUP) * last.len()];
        let groups = input.chunks(GROUP * image.max(1)).zip(output.chunks_mut(GROUP * joined.len()));
        for (group, (images, results)) in groups.enumerate() {
            let count = results.len() / joined.len();
            let early_maps = &mut early_maps[..count * early.len()];
            let last_maps = &mut last_maps[..count * last.len()];
            self.first.forward(images, count, early_maps).map_err(|error| after(error, group * GROUP))?;
            // What overflowed is no input of the rest, and no number in the end, as in one chain.
            let overflowed =
                |at: &usize| early_maps[at * early.len()..][..early.len()].iter().any(|v| !v.is_finite());
            let broken: Vec<usize> = (0..count).filter(overflowed).collect();
            for at in &broken {
                early_maps[at * early.len()..][..early.len()].fill(0.0);
            }
            rest.forward(early_maps, count, last_maps)?;
            let maps = early_maps.chunks_exact(early.len()).zip(last_maps.chunks_exact(last.len()));
            for ((early_map, last_map), result) in maps.zip(results.chunks_exact_mut(joined.len())) {
                hypercolumn::join((early_map, early), (last_map, last), *side, result);
            }
            for at in broken {
                results[at * joined.len()..][..joined.len()].fill(f32::NAN);
            }
        }
        Ok(())
    }
}

impl Chain {
    fn output(&self) -> Shape {
        match self {
            Self::F32(network) => network.output(),
            Self::Int8(network) => network.output(),
        }
    }

    fn forward(&self, input: &[f32], batch: usize, output: &mut [f32]) -> Result<(), ConvError> {
        match self {
            Self::F32(network) => network.forward(input, batch, output),
            Self::Int8(network) => network.forward(input, batch, output),
        }
    }
}

/// The same error, with `offset` images before its batch.
fn after(error: ConvError, offset: usize) -> ConvError {
    match error {
        ConvError::NotFinite { image, position, value } => {
            ConvError::NotFinite { image: image + offset, position, value }
        }
        other => other,
    }
}
