//! Lesion masks of a drawn cohort.

use std::{
    io,
    path::{Path, PathBuf},
};

use nephros_core::pixels::{self, RgbImage};

use crate::errors::CliError;

/// The mask of an image `CLASS/NAME.*`, at `CLASS/NAME.png` below `masks`; `[height, width]`.
pub fn read(masks: &Path, image_path: &Path, image: &RgbImage) -> anyhow::Result<Vec<bool>> {
    let path = place(masks, image_path);
    let bytes = match fs_err::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CliError::NoMask { path }.into()),
        bytes => bytes?,
    };
    let mask = pixels::decode(&bytes)?;
    if (mask.width(), mask.height()) != (image.width(), image.height()) {
        let size = |image: &RgbImage| format!("{}x{}", image.width(), image.height());
        return Err(CliError::MaskSize { path, expected: size(image), got: size(&mask) }.into());
    }
    Ok(mask.pixels().as_chunks::<3>().0.iter().map(|pixel| pixel[0] >= 128).collect())
}

fn place(masks: &Path, image: &Path) -> PathBuf {
    let class = image.parent().and_then(Path::file_name).unwrap_or_default();
    masks.join(class).join(image.file_name().unwrap_or_default()).with_extension("png")
}
