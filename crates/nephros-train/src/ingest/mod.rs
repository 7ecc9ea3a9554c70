//! From a source to checked class folders and a manifest.

pub mod download;
pub mod google_drive;
