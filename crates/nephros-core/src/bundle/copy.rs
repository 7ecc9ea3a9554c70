//! A bundle beside another: every file that it names, verified on the way, and its verdict.

use std::path::Path;

use super::{
    Bundle, BundleError, BundleMeta, GOLDEN_FILE, INPUT_GATE_FILE, META_FILE, WEIGHTS_FILE,
    evaluation::{EVALUATION_FILE, FORCED_FILE},
    meta_bytes,
    quantization::{GOLDEN_INT8_FILE, WEIGHTS_INT8_FILE, copy},
    read_meta, read_verified,
};
use crate::weights::write_synced;

impl Bundle {
    /// Copies the bundle at `from` into the folder `to`, which is made and must hold no bundle.
    ///
    /// `bundle.json` is written last: what is left of a copy that fails is none.
    ///
    /// # Errors
    /// [`BundleError::NotFound`], [`BundleError::MissingFile`] and [`BundleError::Hash`] of the bundle
    /// at `from`, and failures to write.
    pub fn copy(from: &Path, to: &Path) -> Result<BundleMeta, BundleError> {
        let meta = read_meta(from)?;
        fs_err::create_dir_all(to)?;
        for (name, digest) in files(&meta) {
            write_synced(&to.join(name), &read_verified(&from.join(name), digest)?)?;
        }
        for name in [EVALUATION_FILE, FORCED_FILE] {
            copy(&from.join(name), &to.join(name))?;
        }
        write_synced(&to.join(META_FILE), &meta_bytes(to, &meta)?)?;
        Ok(meta)
    }
}

/// Name and SHA-256 of every file that `bundle.json` names.
fn files(meta: &BundleMeta) -> Vec<(&'static str, &str)> {
    let mut files =
        vec![(WEIGHTS_FILE, meta.weights_sha256.as_str()), (GOLDEN_FILE, meta.golden_sha256.as_str())];
    files.extend(meta.input_gate.iter().map(|profile| (INPUT_GATE_FILE, profile.sha256.as_str())));
    if let Some(quantization) = &meta.quantization {
        files.push((WEIGHTS_INT8_FILE, &quantization.weights_sha256));
        files.push((GOLDEN_INT8_FILE, &quantization.golden_sha256));
    }
    files
}
