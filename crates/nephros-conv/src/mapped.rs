//! Files read through the page cache without copying.

use std::{fs::File, io};

use memmap2::Mmap;

/// A read-only view of a file as it was when mapped.
///
/// It lives in this crate because mapping is `unsafe` in every library that offers it.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a whole file.
    ///
    /// # Errors
    /// The system refuses, as for a file on a file system without mapping.
    #[allow(unsafe_code, reason = "mapping a file is unsafe")]
    pub fn open(file: &File) -> io::Result<Self> {
        // SAFETY: nephros maps only files that it appends to and never shortens while mapped, in a
        // project folder that one process at a time may write.
        unsafe { Mmap::map(file) }.map(Self)
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
