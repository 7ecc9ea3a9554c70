//! Training images in memory: resized once, augmented whenever they are used.

use std::path::{Path, PathBuf};

use nephros_core::{
    hint::Hint,
    pixels::{DecodeError, RgbImage, decode},
    preprocessing::Preprocessing,
};
use rayon::prelude::*;

use crate::{
    augment::{AugmentationRanges, Transform, view_rng},
    manifest::Record,
    progress::{Cancelled, Progress, Unit, check},
};

/// One image, resized to the network's input.
#[derive(Debug, Clone)]
pub struct Sample {
    /// SHA-256 of its file; names the image's random stream.
    pub sha256: String,
    /// Label.
    pub label: usize,
    /// `[height, width, 3]` RGB.
    pub pixels: Vec<u8>,
    /// Where its lesion is, of a drawn slice; `None` where that is not known.
    pub lesion: Option<Lesion>,
}

/// A lesion whose place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesion {
    /// Label whose lesion it is; `None` for one of no class, or for none at all.
    pub label: Option<usize>,
    /// How much of a pixel is the lesion, 0 to 255, `[height, width]`.
    pub share: Vec<u8>,
}

impl Sample {
    /// What training and evaluation keep of a decoded image.
    pub fn of(record: &Record, label: usize, image: &RgbImage, preprocessing: &Preprocessing) -> Self {
        let pixels = preprocessing.resize(image).pixels().to_vec();
        Self { sha256: record.sha256.clone(), label, pixels, lesion: None }
    }
}

/// An image of the manifest that cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is no image any more.
    #[error("`{}` cannot be decoded", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
    /// The file is not the one that was ingested.
    #[error("`{}` changed since it was ingested: expected SHA-256 {expected}, got {got}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Digest in the manifest.
        expected: String,
        /// Digest of the file.
        got: String,
    },
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Hint for DataError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(_) | Self::Decode { .. } | Self::Changed { .. } => {
                Some("run `nephros ingest` again".into())
            }
            Self::Cancelled(_) => None,
        }
    }
}

/// Reads, checks, decodes and resizes images on all cores; the order is that of `records`.
///
/// # Errors
/// See [`DataError`]; the first failing image in order.
pub fn load_images(
    root: &Path,
    records: &[(&Record, usize)],
    preprocessing: &Preprocessing,
    progress: &dyn Progress,
) -> Result<Vec<Sample>, DataError> {
    let sample = |record: &Record, label, image: &RgbImage| Sample::of(record, label, image, preprocessing);
    read_images(root, records, sample, progress)
}

/// Reads, checks and decodes images on all cores, and keeps what `take` makes of each with its
/// record and label; the order is that of `records`.
///
/// # Errors
/// See [`DataError`]; the first failing image in order.
pub fn read_images<T: Send>(
    root: &Path,
    records: &[(&Record, usize)],
    take: impl Fn(&Record, usize, &RgbImage) -> T + Sync,
    progress: &dyn Progress,
) -> Result<Vec<T>, DataError> {
    let task = progress.task("reading images", Some(records.len() as u64), Unit::Items);
    records
        .par_iter()
        .map(|(record, label)| {
            check(progress)?;
            let path = root.join(&record.path);
            let bytes = fs_err::read(&path)?;
            let got = nephros_core::digest::sha256(&bytes);
            if got != record.sha256 {
                return Err(DataError::Changed { path, expected: record.sha256.clone(), got });
            }
            let image = decode(&bytes).map_err(|source| DataError::Decode { path, source })?;
            task.advance(1);
            Ok(take(record, *label, &image))
        })
        .collect()
}

/// Which version of an image is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As it is.
    Plain,
    /// Augmented, by the stream of this number (an epoch or a cached view).
    Augmented(u64),
}

/// Turns samples into network input.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Size and normalisation.
    pub preprocessing: Preprocessing,
    /// Random transforms of [`View::Augmented`].
    pub ranges: AugmentationRanges,
    /// Seed of the random streams.
    pub seed: u64,
}

impl Pipeline {
    /// Network input `[height, width, 3]` of one view of one image; the same whenever and on
    /// whatever thread it is made.
    pub fn input(&self, sample: &Sample, view: View) -> Vec<f32> {
        let [height, width, channels] = self.preprocessing.image_size;
        let mut values: Vec<f32> = sample.pixels.iter().map(|&value| f32::from(value)).collect();
        if let Some(transform) = self.transform(sample, view) {
            values = transform.apply(&values, height, width, channels);
        }
        self.preprocessing.normalize(&mut values);
        values
    }

    /// Share of each place of a map that the lesion takes in a view, 0 to 1, `[height / side, width / side]`; a place
    /// is a square of `side` pixels. `None` where no lesion's place is known.
    pub fn lesion(&self, sample: &Sample, view: View, side: usize) -> Option<Vec<f32>> {
        let [height, width, _] = self.preprocessing.image_size;
        let lesion = sample.lesion.as_ref()?;
        let mut shares: Vec<f32> = lesion.share.iter().map(|&share| f32::from(share) / 255.0).collect();
        if let Some(transform) = self.transform(sample, view) {
            shares = transform.geometry().apply(&shares, height, width, 1);
        }
        let mut places = vec![0.0; (height / side) * (width / side)];
        let of_pixel = 1.0 / (side * side) as f32;
        for (row, shares) in shares.chunks_exact(width).take(height / side * side).enumerate() {
            for (column, share) in shares.iter().take(width / side * side).enumerate() {
                places[row / side * (width / side) + column / side] += of_pixel * share;
            }
        }
        Some(places)
    }

    /// The transform of a view of an image, the same whenever it is asked for.
    fn transform(&self, sample: &Sample, view: View) -> Option<Transform> {
        let View::Augmented(number) = view else { return None };
        let [height, width, _] = self.preprocessing.image_size;
        Some(self.ranges.draw(&mut view_rng(self.seed, &sample.sha256, number), height, width))
    }

    /// Input of several images, one after the other, made on all cores.
    pub fn batch(&self, samples: &[&Sample], view: View) -> Vec<f32> {
        let inputs: Vec<Vec<f32>> = samples.par_iter().map(|sample| self.input(sample, view)).collect();
        inputs.concat()
    }
}
