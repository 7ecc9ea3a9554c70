//! compact

use super::FeatureLayer;

/// The feature extractor.
pub const LAYERS: &[FeatureLayer] = &[];
