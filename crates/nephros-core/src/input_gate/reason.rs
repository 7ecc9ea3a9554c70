//! Why a picture gets no label, as codes with a sentence each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The codes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Fewer pixels than half of the smallest image trained on, or than the network sees.
    TooSmall,
    /// One grey value, or no body.
    Empty,
    /// More coloured pixels than images trained on have.
    Coloured,
    /// No dark surround as around a patient, or more grain than a slice has.
    NotCt,
    /// The grey values of tissue are not distributed as those trained on.
    WrongWindow,
    /// More white tissue, or more black inside the body, than images trained on have.
    Saturated,
    /// Less fine detail than images trained on have.
    Blurred,
    /// The body is larger, smaller, wider or higher in the picture than those trained on.
    BodyShape,
    /// The slice lies in another way than those trained on: it resembles them more when turned, or
    /// bright tissue, which is bone above all, does not lie where it does in them.
    Orientation,
    /// The network's features are far from those of the images trained on.
    OutOfRange,
    /// A near copy of an image trained on; the only code with which a label is given.
    NearCopy,
}

impl ReasonCode {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 11] = [
        Self::TooSmall,
        Self::Empty,
        Self::Coloured,
        Self::NotCt,
        Self::WrongWindow,
        Self::Saturated,
        Self::Blurred,
        Self::BodyShape,
        Self::Orientation,
        Self::OutOfRange,
        Self::NearCopy,
    ];

    /// As it is written in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooSmall => "too_small",
            Self::Empty => "empty",
            Self::Coloured => "coloured",
            Self::NotCt => "not_ct",
            Self::WrongWindow => "wrong_window",
            Self::Saturated => "saturated",
            Self::Blurred => "blurred",
            Self::BodyShape => "body_shape",
            Self::Orientation => "orientation",
            Self::OutOfRange => "out_of_range",
            Self::NearCopy => "near_copy",
        }
    }

    /// Whether a picture with this code gets no label.
    pub fn refuses(self) -> bool {
        self != Self::NearCopy
    }
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which.
    pub code: ReasonCode,
    /// With the figures; lower case and without a full stop.
    pub sentence: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// The first reason that refuses a label, if one does.
pub fn refusal(reasons: &[Reason]) -> Option<&Reason> {
    reasons.iter().find(|reason| reason.code.refuses())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_by_its_name_and_only_a_copy_keeps_its_label() {
        for code in ReasonCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert_eq!(code.refuses(), code.name() != "near_copy");
        }
        let mut sorted = ReasonCode::ALL;
        sorted.sort();
        assert_eq!(sorted, ReasonCode::ALL);
    }
}
