//! From a source to checked class folders and a manifest.
