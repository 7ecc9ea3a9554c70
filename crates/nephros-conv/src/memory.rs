//! Buffers on cache-line boundaries, and a map that several threads fill.

use std::{marker::PhantomData, ops::Range, slice};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Floats in a cache line, the alignment of an [`Aligned`] buffer.
const LINE: usize = 16;

/// Floats that start on a cache line: a vector that straddles two costs two accesses.
///
/// A large buffer is a mapping of its own, on large pages where the system has them: it hands those out
/// 512 times less often, and reading misses fewer translations. An allocator that uses them too shares them
/// among buffers, and keeps a page for what is left on it.
#[derive(Default)]
pub(crate) struct Aligned {
    memory: Memory,
    start: usize,
}

enum Memory {
    Heap(Vec<f32>),
    #[cfg_attr(any(not(target_os = "linux"), miri), allow(dead_code, reason = "Linux has it"))]
    Mapped(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Memory {
    /// Zeros on large pages; `None` where the system has none, or does not say so.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn mapped(bytes: usize) -> Option<Self> {
        /// Bytes from which a buffer is a mapping of its own.
        const LARGE_PAGE: usize = 2 << 20;

        let pages = (bytes >= LARGE_PAGE).then(|| MmapMut::map_anon(bytes))?.ok()?;
        pages.advise(memmap2::Advice::HugePage).ok()?;
        Some(Self::Mapped(pages))
    }

    #[cfg(any(not(target_os = "linux"), miri))]
    fn mapped(_: usize) -> Option<Self> {
        None
    }
}

impl Aligned {
    pub(crate) fn zeroed(len: usize) -> Self {
        if let Some(memory) = Memory::mapped(len * size_of::<f32>()) {
            return Self { memory, start: 0 };
        }
        let values = vec![0.0; len + LINE - 1];
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1);
        Self { memory: Memory::Heap(values), start }
    }

    /// The first `len` values, after growing where the buffer is shorter. What they hold is
    /// unspecified.
    pub(crate) fn of_len(&mut self, len: usize) -> &mut [f32] {
        if self.values().len() < len {
            // Free the old values first: both at once would be the peak of a call's memory.
            *self = Self::default();
            *self = Self::zeroed(len);
        }
        &mut self.values_mut()[..len]
    }

    /// `len` zeros of another type.
    pub(crate) fn zeroed_as<T: Pod>(len: usize) -> Self {
        Self::zeroed((len * size_of::<T>()).div_ceil(size_of::<f32>()))
    }

    /// As [`Self::of_len`], as another type.
    pub(crate) fn of_len_as<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let floats = (len * size_of::<T>()).div_ceil(size_of::<f32>());
        &mut bytemuck::cast_slice_mut(self.of_len(floats))[..len]
    }

    /// The values as another type, and perhaps some zeros after them.
    pub(crate) fn values_as<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self.values())
    }

    /// As [`Self::values_as`].
    pub(crate) fn values_as_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.values_mut())
    }

    pub(crate) fn values(&self) -> &[f32] {
        match &self.memory {
            Memory::Heap(values) => &values[self.start..],
            Memory::Mapped(pages) => bytemuck::cast_slice(pages),
        }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Heap(values) => &mut values[self.start..],
            Memory::Mapped(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

/// A map whose pixels and channels are written by several threads, each its own.
pub(crate) struct SharedMap<'a, T = f32> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from a mutable borrow that lasts as long as the value, values that
// may be sent between threads are written by several, and `part` makes its callers keep their parts apart.
#[allow(unsafe_code, reason = "output blocks interleave in memory, so the map cannot be split by chunks")]
unsafe impl<T: Send> Sync for SharedMap<'_, T> {}

impl<'a, T> SharedMap<'a, T> {
    pub(crate) fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), borrow: PhantomData }
    }

    /// A part of the map to write.
    ///
    /// # Safety
    /// No other part that overlaps `range` may be alive.
    #[allow(unsafe_code, reason = "output blocks interleave in memory, so the map cannot be split by chunks")]
    #[allow(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    #[inline]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part of the map leaves it");
        // SAFETY: the range lies in the slice that `new` borrowed for as long as `self` lives, and
        // the caller holds no other part that overlaps.
        unsafe { slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
