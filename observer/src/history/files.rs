//! Writing: the file that grows, the one of flows without a piece, and the removal of what is too much.

use super::{
    counters::{Counters, add},
    frame::{FileHead, PieceHead, Place},
    segment::{self, Segment, UNSEALED},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
};
use zerocopy::IntoBytes as _;

/// All files with their pieces, oldest first; readers find pieces here.
#[derive(Debug, Default)]
pub(super) struct Index(RwLock<Vec<Segment>>);

impl Index {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        Self(RwLock::new(segments))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Vec<Segment>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Segment>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is appended to.
#[derive(Debug)]
struct Growing {
    file: File,
    len: u64,
    /// Something in it may not have reached the disk.
    is_dirty: bool,
    /// There is something behind `len` that could not be taken back.
    is_torn: bool,
    /// Of a file that has no piece yet, which readers are not told of.
    begun: Option<Segment>,
}

impl Growing {
    fn new(file: File, life: u64) -> io::Result<Self> {
        let mut this = Self { file, len: 0, is_dirty: true, is_torn: false, begun: None };
        this.append(FileHead::new(life).as_bytes())?;
        Ok(this)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_dirty = true;
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.is_torn |= self.file.set_len(self.len).is_err();
                Err(error)
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.sync_data()?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

/// The folder's files as the keeper has them.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    life: u64,
    most_bytes: u64,
    index: Arc<Index>,
    counters: Arc<Counters>,
    /// The newest file with pieces; nothing before the first piece of this life.
    current: Option<Growing>,
    unsealed: Option<Growing>,
    /// What is in `unsealed` has pieces now.
    is_stale: bool,
}

impl Files {
    pub(super) fn new(
        folder: PathBuf,
        life: u64,
        most_bytes: u64,
        index: Arc<Index>,
        counters: Arc<Counters>,
        is_stale: bool,
    ) -> Self {
        let files =
            Self { folder, life, most_bytes, index, counters, current: None, unsealed: None, is_stale };
        files.count_bytes();
        files
    }

    /// Appends a piece, which can be read from then on; another file begins where this one is full.
    pub(super) fn append(&mut self, piece: &[u8], now_ns: i64) -> io::Result<()> {
        let Some(mut place) = PieceHead::read(piece, 0) else {
            return Err(io::Error::other("a piece that can't be read"));
        };
        self.make_room(piece.len() as u64);
        let most = segment_bytes(self.most_bytes);
        if let Some(full) = self.current.as_mut().filter(|file| file.len + piece.len() as u64 > most) {
            full.sync()?;
            self.current = None;
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => self.current.insert(self.begin(&place, now_ns)?),
        };
        place.at += current.len;
        if let Err(error) = current.append(piece) {
            match current.begun.take() {
                // The next one may have its name.
                Some(begun) => _ = fs::remove_file(begun.path),
                // The next start cuts it off.
                None if current.is_torn => {}
                None => return Err(error),
            }
            self.current = None;
            return Err(error);
        }
        let mut segments = self.index.write();
        segments.extend(current.begun.take());
        if let Some(segment) = segments.last_mut() {
            segment.add(place);
        }
        drop(segments);
        self.count_bytes();
        Ok(())
    }

    fn begin(&self, first: &Place, now_ns: i64) -> io::Result<Growing> {
        let path = self.folder.join(segment::name(first.base, now_ns));
        let file = segment::options().create_new(true).open(&path)?;
        let begun = Growing::new(file, self.life).and_then(|growing| self.sync_folder().map(|()| growing));
        match begun {
            Ok(growing) => Ok(Growing { begun: Some(Segment::new(path)), ..growing }),
            Err(error) => {
                // It would be in the way of the next try.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// A new file's name must be there after a fall of the machine.
    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Appends flows that have no piece yet, and brings them to the disk.
    pub(super) fn flush(&mut self, piece: &[u8]) -> io::Result<()> {
        self.forget_stale()?;
        if self.unsealed.is_none() {
            let path = self.folder.join(UNSEALED);
            let file = segment::options().create(true).truncate(true).open(path)?;
            let growing = Growing::new(file, self.life)?;
            self.sync_folder()?;
            self.unsealed = Some(growing);
        }
        let Some(unsealed) = &mut self.unsealed else { return Ok(()) };
        let written = unsealed.append(piece).and_then(|()| unsealed.sync());
        if unsealed.is_torn {
            // Pieces behind the torn one would not be found.
            unsealed.file.set_len(unsealed.len).map(|()| unsealed.is_torn = false)?;
        }
        self.count_bytes();
        written
    }

    /// The flows without a piece have one now.
    pub(super) fn have_pieces(&mut self) {
        self.is_stale |= self.unsealed.as_ref().is_some_and(|file| file.len > FileHead::LEN);
    }

    /// Brings all pieces to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(current) = &mut self.current {
            current.sync()?;
        }
        self.forget_stale()
    }

    /// Empties the file of flows without a piece, once their pieces are on the disk.
    fn forget_stale(&mut self) -> io::Result<()> {
        if !self.is_stale {
            return Ok(());
        }
        if let Some(current) = &mut self.current {
            current.sync()?;
        }
        match &mut self.unsealed {
            Some(unsealed) => {
                unsealed.file.set_len(FileHead::LEN)?;
                unsealed.len = FileHead::LEN;
            }
            // Of an earlier life.
            None => fs::remove_file(self.folder.join(UNSEALED)).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?,
        }
        self.is_stale = false;
        self.count_bytes();
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let unsealed = self.unsealed.as_ref().map_or(0, |file| file.len);
        self.index.read().iter().map(|segment| segment.bytes).sum::<u64>() + unsealed
    }

    fn count_bytes(&self) {
        self.counters.bytes.store(self.bytes(), Ordering::Relaxed);
    }

    /// Removes the oldest files until there is room for so many bytes more.
    fn make_room(&mut self, bytes: u64) {
        while self.bytes() + bytes > self.most_bytes && self.remove_oldest() {}
    }

    /// Removes the oldest file if all its flows are older than this; whether it did.
    pub(super) fn remove_older(&mut self, than_ns: i64) -> bool {
        let is_old = self.index.read().first().is_some_and(|oldest| oldest.last_ns < than_ns);
        is_old && self.remove_oldest()
    }

    /// The one that is written stays.
    fn remove_oldest(&mut self) -> bool {
        let mut segments = self.index.write();
        if segments.len() <= usize::from(self.current.is_some()) {
            return false;
        }
        let oldest = &segments[0];
        if let Err(error) = fs::remove_file(&oldest.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return false;
        }
        add(&self.counters.removed, oldest.flows);
        segments.remove(0);
        drop(segments);
        self.count_bytes();
        true
    }
}

/// A file is removed as a whole: each is a small part of all.
pub(super) fn segment_bytes(most_bytes: u64) -> u64 {
    (most_bytes / 16).clamp(256 << 10, 64 << 20)
}
