//! What a trainable network is made of, checked once.

use super::{activation::pooled, map::Map, pack::Channels};
use crate::{ConvError, Shape};

/// One layer of a [`TrainableNetwork`](super::TrainableNetwork).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainableLayer {
    /// 3×3 convolution, stride 1, zero padding 1, and ReLU, with batch norm between the two where
    /// `batch_norm`.
    Conv3x3 {
        /// Output channels.
        outputs: usize,
        /// Whether the batch's statistics normalise the result.
        batch_norm: bool,
    },
    /// 2×2 maximum, stride 2; an odd last row or column is dropped. Its gradient goes to the first
    /// maximum in scan order.
    MaxPool2x2,
    /// Mean over rows and columns, at the end only.
    GlobalAveragePool,
    /// Maximum over rows and columns, at the end only. Its gradient goes to the first maximum in
    /// scan order.
    GlobalMaxPool,
}

/// A convolution and what follows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// What the convolution reads.
    pub(super) input: Map,
    /// What it writes.
    pub(super) output: Map,
    pub(super) channels: Channels,
    pub(super) batch_norm: bool,
    pub(super) pool: bool,
}

impl Block {
    /// The map after pooling.
    pub(super) fn pooled(&self) -> Map {
        if self.pool { pooled(self.output) } else { self.output }
    }

    /// Values in the kernel as the maps hold it.
    pub(super) fn kernel_len(&self) -> usize {
        9 * self.input.channels * self.output.channels
    }
}

/// Pooling over the whole map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    Average,
    Max,
}

/// The chain of blocks.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) blocks: Vec<Block>,
    pub(super) global: Option<Global>,
    /// Shape of the features.
    pub(super) output: Shape,
}

impl Plan {
    /// # Errors
    /// [`ConvError::Incompatible`].
    pub(super) fn new(input: Shape, layers: &[TrainableLayer]) -> Result<Self, ConvError> {
        let mut plan = Self { blocks: Vec::new(), global: None, output: input };
        if input.is_empty() {
            return Err(ConvError::Incompatible { layer: 0, input, why: "an axis would be zero" });
        }
        for (index, &layer) in layers.iter().enumerate() {
            let from = plan.output;
            plan.push(layer).map_err(|why| ConvError::Incompatible { layer: index, input: from, why })?;
        }
        let why = "the first layer has to be a convolution";
        if plan.blocks.is_empty() {
            return Err(ConvError::Incompatible { layer: 0, input, why });
        }
        Ok(plan)
    }

    fn push(&mut self, layer: TrainableLayer) -> Result<(), &'static str> {
        if self.global.is_some() {
            return Err("global pooling has to be the last layer");
        }
        let from = self.output;
        match layer {
            TrainableLayer::Conv3x3 { outputs: 0, .. } => return Err("it has no outputs"),
            TrainableLayer::Conv3x3 { outputs, batch_norm } => {
                self.output.channels = outputs;
                let input = if self.blocks.is_empty() { Map::input(from) } else { Map::inner(from) };
                let output = Map::inner(self.output);
                let channels = Channels {
                    inputs: from.channels,
                    outputs,
                    held_inputs: input.channels,
                    held_outputs: output.channels,
                };
                self.blocks.push(Block { input, output, channels, batch_norm, pool: false });
            }
            TrainableLayer::MaxPool2x2 => {
                let last = self.blocks.last_mut().filter(|block| !block.pool);
                last.ok_or("pooling has to follow a convolution")?.pool = true;
                self.output = Shape { height: from.height / 2, width: from.width / 2, ..from };
                if self.output.is_empty() {
                    return Err("2x2 pooling needs two rows and two columns");
                }
            }
            TrainableLayer::GlobalAveragePool => self.global = Some(Global::Average),
            TrainableLayer::GlobalMaxPool => self.global = Some(Global::Max),
        }
        if self.global.is_some() {
            self.output = Shape { height: 1, width: 1, ..from };
        }
        Ok(())
    }
}
