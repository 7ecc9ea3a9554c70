//! Splits that cannot be made, read or trusted.

use nephros_core::hint::Hint;

use super::Subset;

/// A split that cannot be made, read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not a split.
    #[error("`{path}` is not a split file")]
    Format {
        /// The file.
        path: String,
        /// What the reader says.
        source: csv::Error,
    },
    /// A subset would lack a class.
    #[error("the {subset} set would hold no `{class}` image: {have} {unit} of that class to share out")]
    TooFew {
        /// The subset.
        subset: Subset,
        /// The class.
        class: String,
        /// Units of the class.
        have: usize,
        /// Plural name of the units.
        unit: &'static str,
    },
    /// The same patient on two sides.
    #[error("patient `{patient}` is in the {first} set and in the {second} set")]
    PatientLeak {
        /// The patient.
        patient: String,
        /// One side.
        first: Subset,
        /// The other.
        second: Subset,
    },
    /// The same found group on two sides.
    #[error("group `{group}` is in the {first} set and in the {second} set")]
    GroupLeak {
        /// The group.
        group: String,
        /// One side.
        first: Subset,
        /// The other.
        second: Subset,
    },
    /// The same image on two sides.
    #[error(
        "the same image is in the {first} set (`{first_path}`) and in the {second} set (`{second_path}`)"
    )]
    ImageLeak {
        /// One side.
        first: Subset,
        /// Its path there.
        first_path: String,
        /// The other.
        second: Subset,
        /// Its path there.
        second_path: String,
    },
    /// The split was made for other images.
    #[error("the split is of other images than the manifest: {detail}")]
    OtherImages {
        /// The first difference.
        detail: String,
    },
}

impl Hint for SplitError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io(_) => return None,
            Self::Format { path, .. } => format!("delete `{path}` and train again: the split is then made anew"),
            Self::TooFew { .. } => {
                "add patients of that class, lower TEST_SPLIT or VALIDATION_SPLIT, or set SPLIT_BY: random and \
                 read the score as one that leaks"
                    .into()
            }
            Self::PatientLeak { .. } | Self::GroupLeak { .. } | Self::ImageLeak { .. } => {
                "run `nephros train` to make a new split; a score across a leak says nothing about new patients"
                    .into()
            }
            Self::OtherImages { .. } => "the data changed since training: run `nephros train` again".into(),
        })
    }
}
