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
mod orientation;
mod profile;
mod reason;
mod similar;
mod traits;

pub use images::{Prints, TrainingImages, pooled_features};
pub use orientation::{Orientation, Picture, Upright};
pub use profile::{CaseUnit, FalseAlarms, InputProfile, Limit, Statistic, reference_grey};
pub use reason::{Reason, ReasonCode, refusal};
pub use similar::{Cases, Similar};
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
        let mut values = self.orientation(traits);
        values.extend(traits.values(&self.profile.grey));
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

    /// The nearest training slices of `count` patients, the nearest first, by `features` as in
    /// [`Self::reasons`]; `labels` are the model's. None for a gate that does not know whose its
    /// images are.
    pub fn similar(&self, features: &[f32], labels: &[String], count: usize) -> Vec<Similar> {
        let pooled = pooled_features(features, self.images.channels());
        let unit = self.profile.case_unit;
        let similar = |(path, label, group, distance): (&str, u32, u32, f64)| Similar {
            path: path.to_owned(),
            class: labels.get(label as usize).cloned().unwrap_or_default(),
            patient: (unit == Some(CaseUnit::Patient)).then_some(group),
            group: (unit == Some(CaseUnit::Group)).then_some(group),
            // As many decimals as anyone reads.
            distance: (distance * 1e4).round() / 1e4,
        };
        self.images.similar(&pooled, count).into_iter().map(similar).collect()
    }

    /// How the picture lies, where that can be told.
    fn orientation(&self, traits: &Traits) -> Vec<(Statistic, f64)> {
        let told = traits.picture().and_then(|picture| self.images.upright.orientation(picture, |_| true));
        told.map_or_else(Vec::new, Statistic::of_orientation)
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
