//! The memory that keys and values lie in: written by one owner, then shared and never changed.
//!
//! 1. A [`Buffer`] has one owner, and only that one writes. [`Bytes`] share a buffer that nobody writes any more, so what
//!    they show never changes. The way back, [`Bytes::into_buffer`], copies unless nobody else holds the buffer.
//! 2. A buffer counts in the [`Memory`] it came from exactly as long as somebody holds it: once, however many do.
//! 3. A buffer begins at a page boundary of the operating system, so that a device can take the memory where it lies.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The largest page of the operating systems that we run on.
const PAGE_BYTES: usize =
    if cfg!(all(target_os = "macos", target_arch = "aarch64")) { 16_384 } else { 4_096 };

/// Where buffers come from, and how many bytes of them somebody holds. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    held: Arc<AtomicU64>,
}

/// Bytes that count in a [`Memory`] until this is dropped.
#[derive(Debug)]
pub struct Counted {
    memory: Memory,
    bytes: u64,
}

/// Zeroed, page-aligned memory with one owner.
pub struct Buffer {
    /// Longer than asked for, so that an aligned range of the length lies in it; never grown, so that it stays aligned.
    data: Vec<u8>,
    start: usize,
    len: usize,
    counted: Counted,
}

/// A range of a buffer that is not written any more. Clones share the memory.
#[derive(Clone)]
pub struct Bytes {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

/// Tells whether somebody holds some bytes, without holding them.
#[derive(Clone, Debug)]
pub struct Watch(Weak<Buffer>);

impl Watch {
    /// Does somebody?
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Memory {
    /// Zeros.
    pub fn buffer(&self, len: usize) -> Buffer {
        let data = vec![0; len + PAGE_BYTES];
        let start = data.as_ptr().align_offset(PAGE_BYTES);
        Buffer { data, start, len, counted: self.count(len) }
    }

    /// Counts memory that lies elsewhere.
    pub fn count(&self, bytes: usize) -> Counted {
        let bytes = bytes.next_multiple_of(PAGE_BYTES) as u64;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Counted { memory: self.clone(), bytes }
    }

    /// Bytes of all that is held, in whole pages of the operating system.
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Buffer {
    /// Ends the writing.
    pub fn share(self) -> Bytes {
        let range = 0..self.len;
        Bytes { buffer: Arc::new(self), range }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = self.counted.memory.buffer(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} bytes", self.len)
    }
}

impl Bytes {
    /// A part of these, `range` counted from their first byte.
    ///
    /// # Panics
    /// When the range does not lie inside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} bytes", self.len());
        let from = self.range.start;
        Self { buffer: Arc::clone(&self.buffer), range: from + range.start..from + range.end }
    }

    /// What these form if they lie in one buffer one behind the other, in order.
    pub fn join<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let mut joined = parts.next()?.clone();
        for next in parts {
            if !Arc::ptr_eq(&joined.buffer, &next.buffer) || joined.range.end != next.range.start {
                return None;
            }
            joined.range.end = next.range.end;
        }
        Some(joined)
    }

    /// A buffer with these bytes: this one's own when nobody else holds it and the bytes are all of it, else a copy.
    pub fn into_buffer(self) -> Buffer {
        let Self { buffer, range } = self;
        // A buffer that is only watched moves out of where it was watched.
        if range == (0..buffer.len) {
            return Arc::unwrap_or_clone(buffer);
        }
        let mut copy = buffer.counted.memory.buffer(range.len());
        copy.copy_from_slice(&buffer[range]);
        copy
    }

    /// Where they begin, which tells bytes of one length apart as long as somebody holds them.
    pub fn place(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.buffer) as usize, self.range.start)
    }

    /// To see whether their buffer is still held.
    pub fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.buffer))
    }

    /// Do both lie in one buffer?
    pub fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// A copy, counted nowhere else.
impl From<Vec<u8>> for Bytes {
    fn from(data: Vec<u8>) -> Self {
        let mut buffer = Memory::default().buffer(data.len());
        buffer.copy_from_slice(&data);
        buffer.share()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_counted_once_until_the_last_holder_lets_go() {
        let memory = Memory::default();
        for len in [0, 1, 4_096, 70_001] {
            let buffer = memory.buffer(len);
            assert_eq!(buffer.as_ptr().align_offset(PAGE_BYTES), 0);
            assert!(buffer.len() == len && buffer.iter().all(|byte| *byte == 0));
            let counted = len.next_multiple_of(PAGE_BYTES) as u64;
            assert_eq!(memory.held_bytes(), counted);
            let bytes = buffer.share();
            let others = [bytes.clone(), bytes.slice(0..len / 2)];
            drop(bytes);
            assert_eq!(memory.held_bytes(), counted);
            drop(others);
            assert_eq!(memory.held_bytes(), 0);
        }
    }

    #[test]
    fn writing_again_copies_exactly_when_somebody_else_would_see_it() {
        let memory = Memory::default();
        let mut buffer = memory.buffer(3 * PAGE_BYTES);
        buffer.fill(7);
        let address = buffer.as_ptr();
        let buffer = buffer.share().into_buffer();
        assert_eq!(buffer.as_ptr(), address, "nobody else held it");
        let shared = buffer.share();
        let mut own = shared.clone().into_buffer();
        own.fill(8);
        assert!(shared.iter().all(|byte| *byte == 7));
        let mut part = shared.slice(PAGE_BYTES..2 * PAGE_BYTES).into_buffer();
        part.fill(9);
        assert!(part.len() == PAGE_BYTES && shared.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn only_neighbours_of_one_buffer_join() {
        let bytes = Memory::default().buffer(10).share();
        let [a, b, c] = [0..3, 3..3, 3..10].map(|range| bytes.slice(range));
        assert!(Bytes::join([&a, &b, &c]).is_some_and(|all| all.len() == 10 && all.shares_with(&a)));
        assert!(Bytes::join([&a, &bytes.slice(4..10)]).is_none(), "a gap");
        assert!(Bytes::join([&c, &a]).is_none(), "the wrong order");
        assert!(Bytes::join([&a, &Bytes::from(vec![0; 7])]).is_none(), "another buffer");
        assert!(Bytes::join([]).is_none());
    }
}
