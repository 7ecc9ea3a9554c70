//! Limits of what a model was trained on, as `bundle.json` holds them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Orientation, Picture, Reason, ReasonCode, refusal,
    traits::{BINS, BodyTraits, Traits},
};

/// What is measured of a picture; each stands for a field of `Traits`, or for what comes of
/// comparing it with the training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Shorter side, in pixels.
    Side,
    /// Share of pixels with a colour.
    Chroma,
    /// Share of the picture's edge that is darker than tissue.
    Surround,
    /// Mean difference, in grey levels, from the grey values of the tissue trained on.
    Window,
    /// Share of the tissue that is white.
    White,
    /// Share of the body that is black.
    Black,
    /// Logarithm of the mean Laplacian in tissue over the deviation of its grey values.
    Detail,
    /// Share of the picture that the body's box takes.
    BodyShare,
    /// Logarithm of the width of the body's box over its height.
    Aspect,
    /// Mean row of the brightest tissue, 0 to 1 from the top of the body.
    BrightRow,
    /// Mean column of the brightest tissue, 0 to 1 from the left of the body.
    BrightColumn,
    /// How much more the slice resembles those trained on as it stands than upside down.
    Upright,
    /// How much more the slice resembles those trained on as it stands than after a quarter turn.
    Unturned,
    /// Distance of the network's features from the k-th nearest training image's, in standard
    /// deviations of one channel.
    FeatureDistance,
}

/// Range of a statistic that a picture with a label keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

impl Limit {
    /// Whether a value is in the range; what is not a number is not.
    pub fn holds(&self, value: f64) -> bool {
        self.low.is_none_or(|low| value >= low) && self.high.is_none_or(|high| value <= high)
    }
}

/// How often the limits refuse what they should not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FalseAlarms {
    /// Images measured, slices all of them.
    pub images: usize,
    /// Their patients, or what stands for them.
    pub groups: usize,
    /// What a group is: `patient`, `group`, `run` or `image`.
    pub unit: String,
    /// Images that would get no label.
    pub refused: usize,
    /// The same as a share of the images.
    pub share: f64,
    /// Images by code, [`ReasonCode::NearCopy`] among them.
    pub by_code: BTreeMap<ReasonCode, usize>,
}

impl FalseAlarms {
    /// Of what the gate says about each image; `groups` of them there are, and `unit` says what those are.
    pub fn count(reasons: &[Vec<Reason>], groups: usize, unit: String) -> Self {
        let refused = reasons.iter().filter(|reasons| refusal(reasons).is_some()).count();
        let mut by_code: BTreeMap<ReasonCode, usize> = BTreeMap::new();
        for reason in reasons.iter().flatten() {
            *by_code.entry(reason.code).or_default() += 1;
        }
        let share = refused as f64 / reasons.len().max(1) as f64;
        // Six decimals are read back from JSON as they were written.
        Self { images: reasons.len(), groups, unit, refused, share: (share * 1e6).ceil() / 1e6, by_code }
    }

    /// The codes that refuse, with how many images each refuses, comma-separated: `blurred 2, orientation 1`.
    pub fn codes(&self) -> String {
        let refusing = self.by_code.iter().filter(|(code, _)| code.refuses());
        refusing.map(|(code, count)| format!("{} {count}", code.name())).collect::<Vec<_>>().join(", ")
    }
}

/// `input_gate` in `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputProfile {
    /// SHA-256 of `input_gate.safetensors`.
    pub sha256: String,
    /// Share of the validation images that each limit may leave outside.
    pub rate: f64,
    /// Which nearest training image the feature distance is measured to.
    pub neighbours: usize,
    /// Largest number of bits in which the hash of a near copy differs; `None` where images of
    /// different patients are that close themselves.
    pub near_copy_bits: Option<u32>,
    /// What the numbers of similar cases stand for; `None` in bundles that know no cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_unit: Option<CaseUnit>,
    /// Mean over training images of the shares of tissue with a grey value of at most 7, 15, … 255.
    pub grey: Vec<f32>,
    /// Limit of each statistic.
    pub limits: BTreeMap<Statistic, Limit>,
    /// What the limits say about the validation images, all checks together.
    pub validation: FalseAlarms,
}

/// What keeps the slices of one case together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseUnit {
    /// Patients.
    Patient,
    /// Groups that the audit found, because not all patients are known.
    Group,
}

impl InputProfile {
    /// Whether the values can be used.
    pub fn is_usable(&self) -> bool {
        let finite = |value: Option<f64>| value.is_none_or(f64::is_finite);
        let limits = self.limits.values().all(|limit| finite(limit.low) && finite(limit.high));
        limits
            && self.grey.len() == BINS
            && self.neighbours > 0
            && self.grey.iter().all(|share| share.is_finite())
    }

    /// What is wrong with a value, if it is outside its limit.
    pub(super) fn outside(&self, statistic: Statistic, value: f64) -> Option<Reason> {
        let limit = self.limits.get(&statistic).filter(|limit| !limit.holds(value))?;
        let too_low = limit.low.is_some_and(|low| value < low);
        let code = statistic.code(too_low);
        let sentence = format!("{}, {}", statistic.told(value), statistic.expected(limit, too_low));
        Some(Reason { code, sentence })
    }
}

impl Statistic {
    /// All that a [`Traits`] has alone, without training images to compare with.
    pub const OF_TRAITS: [Self; 11] = [
        Self::Side,
        Self::Chroma,
        Self::Surround,
        Self::Window,
        Self::White,
        Self::Black,
        Self::Detail,
        Self::BodyShare,
        Self::Aspect,
        Self::BrightRow,
        Self::BrightColumn,
    ];

    /// How a slice lies, as values.
    pub fn of_orientation(orientation: Orientation) -> Vec<(Self, f64)> {
        let Orientation { upright, unturned } = orientation;
        vec![(Self::Upright, upright), (Self::Unturned, unturned)]
    }

    /// The code of a value below or above the limit.
    fn code(self, too_low: bool) -> ReasonCode {
        match self {
            Self::Side => ReasonCode::TooSmall,
            Self::Chroma => ReasonCode::Coloured,
            Self::Window => ReasonCode::WrongWindow,
            Self::White | Self::Black => ReasonCode::Saturated,
            Self::Detail if too_low => ReasonCode::Blurred,
            Self::Surround | Self::Detail => ReasonCode::NotCt,
            Self::BodyShare | Self::Aspect => ReasonCode::BodyShape,
            Self::BrightRow | Self::BrightColumn | Self::Upright | Self::Unturned => ReasonCode::Orientation,
            Self::FeatureDistance => ReasonCode::OutOfRange,
        }
    }

    /// What the value says.
    fn told(self, value: f64) -> String {
        let percent = 100.0 * value;
        match self {
            Self::Side => format!("the shorter side has {value:.0} pixels"),
            Self::Chroma => format!("{percent:.1} % of the picture is coloured"),
            Self::Surround => format!("{percent:.0} % of the picture's edge is dark as around a patient"),
            Self::Window => format!("grey values of tissue are {value:.0} levels from those trained on"),
            Self::White => format!("{percent:.1} % of the tissue is white"),
            Self::Black => format!("{percent:.1} % of the body is black"),
            Self::Detail => format!("fine detail measures {value:.2}"),
            Self::BodyShare => format!("the body takes {percent:.0} % of the picture"),
            Self::Aspect => format!("the body is {:.2} times as wide as high", value.exp()),
            Self::BrightRow => {
                format!("bright tissue lies at {percent:.0} % of the body's height from the top")
            }
            Self::BrightColumn => {
                format!("bright tissue lies at {percent:.0} % of the body's width from the left")
            }
            Self::Upright => {
                format!("upside down the slice would resemble those trained on more, by {:.2}", -value)
            }
            Self::Unturned => {
                format!(
                    "turned by 90 degrees the slice would resemble those trained on more, by {:.2}",
                    -value
                )
            }
            Self::FeatureDistance => {
                format!("the features are {value:.1} from those of the images trained on")
            }
        }
    }

    /// What it should have said.
    fn expected(self, limit: &Limit, too_low: bool) -> String {
        let (word, bound) = if too_low { ("least", limit.low) } else { ("most", limit.high) };
        let bound = bound.unwrap_or_default();
        // Told the other way round, so that no value is negative.
        let (word, bound) = match self {
            Self::Upright | Self::Unturned => ("most", -bound),
            _ => (word, bound),
        };
        let bound = match self {
            Self::Side | Self::Window => format!("{bound:.0}"),
            Self::Chroma | Self::White | Self::Black => format!("{:.1} %", 100.0 * bound),
            Self::Surround | Self::BodyShare | Self::BrightRow | Self::BrightColumn => {
                format!("{:.0} %", 100.0 * bound)
            }
            Self::Detail | Self::Upright | Self::Unturned => format!("{bound:.2}"),
            Self::Aspect => format!("{:.2}", bound.exp()),
            Self::FeatureDistance => format!("{bound:.1}"),
        };
        format!("expected at {word} {bound}")
    }
}

impl Traits {
    /// Whether a body was found.
    pub fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Perceptual hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The body at a glance, by which the way it lies is told.
    pub fn picture(&self) -> Option<&Picture> {
        self.body.as_ref().map(|body| &body.picture)
    }

    /// Each statistic of the picture; without a body there are two. `grey` is the mean of the
    /// training images.
    pub fn values(&self, grey: &[f32]) -> Vec<(Statistic, f64)> {
        let mut values = vec![(Statistic::Side, self.side as f64), (Statistic::Chroma, self.chroma)];
        if let Some(body) = &self.body {
            values.extend([
                (Statistic::Surround, body.surround),
                (Statistic::Window, window(body, grey)),
                (Statistic::White, body.white),
                (Statistic::Black, body.black),
                (Statistic::Detail, body.detail),
                (Statistic::BodyShare, body.share),
                (Statistic::Aspect, body.aspect),
                (Statistic::BrightRow, body.bright_row),
                (Statistic::BrightColumn, body.bright_column),
            ]);
        }
        values
    }
}

/// Earth mover's distance of two distributions of grey values, in grey levels.
fn window(body: &BodyTraits, grey: &[f32]) -> f64 {
    let differences = body.grey.iter().zip(grey).map(|(&a, &b)| f64::from((a - b).abs()));
    differences.sum::<f64>() * (256 / BINS) as f64
}

/// Mean distribution of the grey values of tissue, for [`InputProfile::grey`].
pub fn reference_grey(traits: &[Traits]) -> Vec<f32> {
    let bodies: Vec<&BodyTraits> = traits.iter().filter_map(|traits| traits.body.as_ref()).collect();
    let mean = |bin: usize| {
        bodies.iter().map(|body| f64::from(body.grey[bin])).sum::<f64>() / bodies.len().max(1) as f64
    };
    (0..BINS).map(|bin| mean(bin) as f32).collect()
}
