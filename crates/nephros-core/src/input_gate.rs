//! Whether a picture is like those that a model was trained on, before it gets a label.
//!
//! A training measures its images ([`Traits`]) and sets a [`Limit`] for each [`Statistic`] on
//! validation patients; the [`InputProfile`] in `bundle.json` holds the limits, and
//! [`TrainingImages`] what single images are compared with. A picture outside a limit gets a
//! [`Reason`] instead of a label.
//!
//! Whether a picture lies outside the training range in feature space is told by its distance to
//! the k-th nearest training image.
//! Source: Sun, Ming, Zhu and Li, Out-of-Distribution Detection with Deep Nearest Neighbors, 2022
//! (<https://arxiv.org/abs/2204.06507>).

mod images;
mod profile;
mod reason;
mod traits;

pub use images::{Prints, TrainingImages, pooled_features};
pub use profile::{FalseAlarms, InputProfile, Limit, Statistic, reference_grey};
pub use reason::{Reason, ReasonCode, refusal};
pub use traits::Traits;

/// What a model knows about the images that it was trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct InputGate {
    /// Limits and where they come from.
    pub profile: InputProfile,
    /// The images themselves, as far as they are remembered.
    pub images: TrainingImages,
}

impl InputGate {
    /// What speaks against a picture, in the order of [`ReasonCode::ALL`]; `features` are the
    /// last feature map, flattened in `(y, x, channel)` order.
    ///
    /// A picture without a body is not measured any further.
    pub fn reasons(&self, traits: &Traits, features: &[f32]) -> Vec<Reason> {
        let mut values = traits.values(&self.profile.grey);
        if traits.has_body() {
            let pooled = pooled_features(features, self.images.channels());
            let distance = self.images.distance(&pooled, self.profile.neighbours);
            values.push((Statistic::FeatureDistance, distance));
        }
        let outside = values.iter().filter_map(|&(statistic, value)| self.profile.outside(statistic, value));
        let mut reasons: Vec<Reason> = outside.collect();
        if !traits.has_body() {
            reasons.push(Reason { code: ReasonCode::Empty, sentence: "the picture shows no body".into() });
        }
        reasons.extend(self.near_copy(traits));
        // One code is told once, by the statistic that comes first.
        reasons.sort_by_key(|reason| reason.code);
        reasons.dedup_by_key(|reason| reason.code);
        reasons
    }

    fn near_copy(&self, traits: &Traits) -> Option<Reason> {
        let most = self.profile.near_copy_bits?;
        let (bits, path) = self.images.prints.nearest(traits.hash())?;
        (traits.has_body() && bits <= most).then(|| Reason {
            code: ReasonCode::NearCopy,
            sentence: format!("a near copy of `{path}`, which the model was trained on"),
        })
    }
}
