//! Arguments of `phantom` and `demo`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nephros_train::phantom::{self, PhantomClass};

/// Arguments of `phantom`.
#[derive(Debug, Args)]
pub struct PhantomArgs {
    /// Number of patients
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub patients: u32,
    /// Slices of each patient
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slices: u32,
    /// Seed of the drawing
    #[arg(long, value_name = "S")]
    pub seed: u64,
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classes to draw, separated by commas
    #[arg(long, value_name = "CLASS", value_enum, value_delimiter = ',', default_value = "normal,tumor")]
    pub classes: Vec<Finding>,
    /// Rows and columns of an image
    #[arg(long, value_name = "PIXELS", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(64..=2048))]
    pub size: u32,
    /// Image format
    #[arg(long, value_enum, default_value_t = ImageFormat::Jpeg)]
    pub format: ImageFormat,
    /// Write the lesions' masks too, as masks/CLASS/NAME.png
    #[arg(long)]
    pub masks: bool,
}

/// What is drawn in the kidneys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Finding {
    /// Healthy kidneys
    Normal,
    /// An enhancing mass
    Tumor,
    /// A fluid-filled cyst
    Cyst,
    /// A stone
    Stone,
}

impl From<Finding> for PhantomClass {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Normal => Self::Normal,
            Finding::Tumor => Self::Tumor,
            Finding::Cyst => Self::Cyst,
            Finding::Stone => Self::Stone,
        }
    }
}

/// Image format of a drawn cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImageFormat {
    /// JPEG
    Jpeg,
    /// PNG
    Png,
}

impl From<ImageFormat> for phantom::ImageFormat {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Jpeg => Self::Jpeg,
            ImageFormat::Png => Self::Png,
        }
    }
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder of the demo project
    #[arg(long, value_name = "DIR", default_value = "nephros-demo")]
    pub dir: PathBuf,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Stop after the scores
    #[arg(long)]
    pub no_serve: bool,
}
