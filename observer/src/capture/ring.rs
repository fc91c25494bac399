//! The reading side of a BPF ring buffer, through a window that moves on with the records.
//!
//! aya maps a ring whole, and its data twice, since a record may reach over the end; the kernel counts each of these pages
//! as the daemon's memory: 20 MiB for the two rings.
#![expect(unsafe_code, reason = "a BPF ring buffer is memory that is shared with the kernel")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

use super::error::CaptureError;

/// What stands before each record, and the two bits above its length (linux/bpf.h).
const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Bytes of a ring that are mapped at a time: some 2,000 records, beside which moving on is cheap.
const WINDOW: usize = 256 << 10;

pub(super) struct Ring {
    map: MapData,
    /// Bytes of data, a power of two.
    size: usize,
    consumer: Pages,
    producer: Pages,
    window: Pages,
    /// Position of the window's first byte.
    window_start: usize,
    /// Position of the next record. Positions only grow; where they lie is their remainder by the size.
    position: usize,
}

impl Ring {
    /// The map of this name as a ring.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, CaptureError> {
        let Map::RingBuf(map) = map else {
            return Err(CaptureError::Map { name, error: "is no ring buffer".into() });
        };
        let size = map.info().map_err(CaptureError::map(name))?.max_entries() as usize;
        let page = |number, access| {
            let pages = Pages::map(map.fd().as_fd(), number * page_size(), page_size(), access);
            pages.map_err(CaptureError::system("mapping a ring"))
        };
        let consumer = page(0, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = page(1, ProtFlags::READ)?;
        // The first record moves it over itself.
        let window = page(2, ProtFlags::READ)?;
        let position = consumer.position().load(Ordering::Acquire);
        Ok(Self { map, size, consumer, producer, window, window_start: 0, position })
    }

    /// Gives up to `most` records to `each`, in their order; returns how many there were.
    pub(super) fn drain(&mut self, most: usize, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        let end = self.producer.position().load(Ordering::Acquire);
        let mut count = 0;
        let mut result = Ok(());
        while count < most && self.position != end {
            match self.step(each) {
                Ok(Step::Record) => count += 1,
                Ok(Step::Discarded) => {}
                Ok(Step::Busy) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        // The kernel uses the room again, and wakes by the next record that finds none before it.
        self.consumer.position().store(self.position, Ordering::Release);
        result.map(|()| count)
    }

    fn step(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<Step> {
        let at = self.look_at(HEADER)?;
        let header = self.window.word(at).load(Ordering::Acquire);
        if header & BUSY != 0 {
            return Ok(Step::Busy);
        }
        let length = (header & !DISCARDED) as usize;
        let step = if header & DISCARDED == 0 {
            let at = self.look_at(HEADER + length)?;
            each(self.window.bytes(at + HEADER, length));
            Step::Record
        } else {
            Step::Discarded
        };
        self.position = self.position.wrapping_add((HEADER + length).next_multiple_of(HEADER));
        Ok(step)
    }

    /// Where in the window the next `length` bytes are; moves it if they are not.
    fn look_at(&mut self, length: usize) -> io::Result<usize> {
        let at = self.position.wrapping_sub(self.window_start);
        if at.checked_add(length).is_some_and(|end| end <= self.window.length) {
            return Ok(at);
        }
        let at = self.position % page_size();
        let start = self.position.wrapping_sub(at);
        let wanted = (at + length).next_multiple_of(page_size()).max(WINDOW.min(self.size));
        // Behind the data stands the same again, for what reaches over the end.
        let offset = 2 * page_size() + start % self.size;
        self.window = Pages::map(self.map.fd().as_fd(), offset, wanted, ProtFlags::READ)?;
        self.window_start = start;
        Ok(at)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

enum Step {
    Record,
    Discarded,
    Busy,
}

/// Pages of the ring; unmapped when dropped.
pub(super) struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is the process's, and what is read of it is atomic or no longer written.
unsafe impl Send for Pages {}

impl Pages {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: usize,
        length: usize,
        access: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses touches no other memory.
        let start = unsafe { mmap(null_mut(), length, access, MapFlags::SHARED, fd, offset as u64) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// The position that stands first in the consumer's and in the producer's page.
    pub(super) fn position(&self) -> &AtomicUsize {
        // SAFETY: at least a page, so large and aligned enough, mapped as long as `self` lives; the kernel as well
        // writes it as one word.
        unsafe { self.start.cast().as_ref() }
    }

    /// The length of a record and its two bits.
    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at + size_of::<AtomicU32>() <= self.length && at.is_multiple_of(HEADER));
        // SAFETY: within the mapping and aligned, as asserted; the kernel writes it as one word.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(at + length <= self.length);
        // SAFETY: within the mapping, as asserted; the kernel writes no record whose busy bit is gone before its room is
        // given back, which `drain` does after its last use.
        unsafe { slice::from_raw_parts(self.start.add(at).as_ptr(), length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and all references into it ended with `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own: {unmapped:?}");
    }
}
