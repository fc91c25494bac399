//! What earlier lives left: files are looked through, what is torn is cut off, and flows without a piece get one.

use super::{
    History, HistoryConfig, HistoryError, LIFE_BITS, READERS,
    counters::{Counters, add},
    draft::Draft,
    files::{Files, Index},
    frame::{self, MOST_FLOWS, Place},
    keeper::Keeper,
    piece::{KnownEnds, Piece},
    segment::{self, Found, Look, Segment, UNSEALED},
};
use crate::store::{Cursor, Steps};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
};
use tokio::sync::{Semaphore, watch};

impl History {
    /// Opens the folder, or makes it.
    pub fn open(config: &HistoryConfig) -> Result<(Arc<Self>, Keeper), HistoryError> {
        let HistoryConfig { folder, most_bytes, .. } = config;
        let failed = |error| HistoryError::Folder { folder: folder.clone(), error };
        // Flows tell who talks to whom: for the owner alone.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        // The folder itself, so that one on a disk that is read-only can be read.
        let lock = File::open(folder).map_err(failed)?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            return Err(match io::Error::from(error) {
                error if error.kind() == io::ErrorKind::WouldBlock => {
                    HistoryError::Taken { folder: folder.clone() }
                }
                error => failed(error),
            });
        }
        let counters = Arc::new(Counters::default());
        let left = Left::find(folder, &counters).map_err(failed)?;
        let unsealed = left.unsealed(&counters);
        let end = unsealed.iter().map(Draft::end).max().unwrap_or(0).max(left.end);
        let first = if end == 0 { 0 } else { (((end - 1) >> LIFE_BITS) + 1) << LIFE_BITS };
        let life = left.life.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        let index = Arc::new(Index::new(left.segments));
        let is_stale = left.unsealed.is_some();
        let files = Files::new(
            folder.clone(),
            life,
            *most_bytes,
            Arc::clone(&index),
            Arc::clone(&counters),
            is_stale,
        );
        let history = Arc::new(Self {
            life,
            first,
            most_bytes: *most_bytes,
            index,
            counters,
            sealed: watch::Sender::new(first),
            wanted: watch::Sender::new(0),
            readers: Arc::new(Semaphore::new(READERS)),
            _lock: lock,
        });
        let keeper = Keeper::new(Arc::clone(&history), files, config, unsealed);
        Ok((history, keeper))
    }
}

/// What stands in the folder.
#[derive(Default)]
struct Left {
    life: Option<u64>,
    segments: Vec<Segment>,
    unsealed: Option<Segment>,
    /// No file, foreign ones included, has a flow of this number or a later one.
    end: u64,
}

impl Left {
    fn find(folder: &Path, counters: &Counters) -> io::Result<Self> {
        let mut left = Self::default();
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            if let Some(base) = name.to_str().and_then(segment::base_of) {
                names.push((base, folder.join(name)));
            }
        }
        names.sort();
        let newest = names.last().map(|(_, path)| path.clone());
        for (base, path) in names {
            left.end = left.end.max(base.saturating_add(1));
            let how = if newest.as_ref() == Some(&path) { Look::All } else { Look::Heads };
            if let Some(segment) = left.look(&path, how, counters)? {
                // Overlapping numbers are no history of one daemon.
                if segment.pieces.first().is_some_and(|first| first.base >= left.sealed()) {
                    left.end = left.end.max(segment.end());
                    left.segments.push(segment);
                }
            }
        }
        let unsealed = folder.join(UNSEALED);
        if unsealed.exists() {
            if let Found::Foreign(why) = segment::look(&unsealed, Look::Heads)? {
                // It would be written over.
                return Err(io::Error::other(format!(
                    "{UNSEALED} {why}: move it away, or name another folder"
                )));
            }
            left.unsealed = left.look(&unsealed, Look::All, counters)?;
        }
        Ok(left)
    }

    fn sealed(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// The pieces of a file, if it is one of ours; what is torn is cut off.
    fn look(&mut self, path: &Path, how: Look, counters: &Counters) -> io::Result<Option<Segment>> {
        let shown = path.display();
        match segment::look(path, how)? {
            Found::Ours(life, segment, behind) => {
                self.life = Some(life);
                if behind > 0 {
                    add(&counters.torn, 1);
                    add(&counters.torn_bytes, behind);
                    tracing::warn!("{shown}: its last {behind} bytes are torn or damaged and left out");
                }
                if segment.pieces.is_empty() {
                    remove(path);
                    return Ok(None);
                }
                if behind > 0 && how == Look::All {
                    cut(path, segment.bytes);
                }
                Ok(Some(segment))
            }
            Found::Empty => {
                remove(path);
                Ok(None)
            }
            Found::Foreign(why) => {
                add(&counters.foreign, 1);
                tracing::warn!("{shown} {why}: it is left alone; move it away, or name another folder");
                Ok(None)
            }
        }
    }

    /// The flows that have no piece yet, in as many drafts as there are runs of numbers.
    fn unsealed(&self, counters: &Counters) -> Vec<Draft> {
        let Some(unsealed) = &self.unsealed else { return Vec::new() };
        let sealed = self.sealed();
        let mut drafts: Vec<Draft> = Vec::new();
        let mut known = KnownEnds::default();
        for place in unsealed.pieces.iter().filter(|place| place.base >= sealed) {
            if drafts.last().is_none_or(|draft| {
                draft.end() != place.base || draft.len() + place.flows as usize > MOST_FLOWS
            }) {
                drafts.push(Draft::new(place.base));
            }
            let Some(draft) = drafts.last_mut() else { continue };
            if copy(&unsealed.path, place, draft, &mut known).is_some() {
                add(&counters.recovered, place.flows.into());
            } else {
                add(&counters.damaged, 1);
                tracing::warn!("{}: a piece can't be read", unsealed.path.display());
            }
        }
        drafts.retain(|draft| draft.len() > 0);
        drafts
    }
}

fn copy(path: &Path, place: &Place, draft: &mut Draft, known: &mut KnownEnds) -> Option<()> {
    let packed = segment::read(&File::open(path).ok()?, place).ok()?;
    let content = frame::unpack(place, &packed)?;
    let store = Piece::open(place.base, place.flows as usize, content, known)?.store()?;
    let mut cursor = Cursor::new(Arc::clone(&store), place.base);
    while let Steps::Flows(lot) = cursor.steps() {
        lot.flows().for_each(|stored| draft.push(&stored.flow()));
    }
    Some(())
}

/// Nothing of it is read any more, so a disk that is read-only is no trouble.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("{}: it is empty and cannot be removed: {error}", path.display());
    }
}

fn cut(path: &Path, at: u64) {
    let cut = segment::options().open(path).and_then(|file| {
        file.set_len(at)?;
        file.sync_data()
    });
    if let Err(error) = cut {
        tracing::warn!("{}: what is torn cannot be cut off: {error}", path.display());
    }
}
