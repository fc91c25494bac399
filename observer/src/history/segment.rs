//! Files of pieces: how they are named, found, looked through and cut.

use super::frame::{FileHead, Foreign, PieceHead, Place, VERSION};
use jiff::Timestamp;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

const SUFFIX: &str = ".flows";
/// The file of flows that have no piece yet. Its name has the format's version: that of another is left alone.
pub(super) const UNSEALED: &str = "unsealed-1.flows";
const _: () = assert!(VERSION == 1);
const TIME: &str = "%Y-%m-%dT%H-%M-%SZ";

/// `00000a0000000000-2026-05-01T12-00-00Z.flows`: by the first flow's number, so that names are in the order of flows, and
/// for people by the time when the file was begun.
pub(super) fn name(base: u64, time_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(time_ns.into()).unwrap_or_default();
    format!("{base:016x}-{}{SUFFIX}", time.strftime(TIME))
}

/// The first flow's number, where it is such a name.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let (base, rest) = name.split_once('-')?;
    let is_ours = base.len() == 16 && base.bytes().all(|b| b.is_ascii_hexdigit()) && rest.ends_with(SUFFIX);
    u64::from_str_radix(base, 16).ok().filter(|_| is_ours)
}

/// Flows tell who talks to whom: for the owner alone.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// A file and the pieces in it, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) pieces: Vec<Place>,
    /// Until behind the last piece.
    pub(super) bytes: u64,
    /// The latest time of a flow in it.
    pub(super) last_ns: i64,
    pub(super) flows: u64,
}

impl Segment {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pieces: Vec::new(), bytes: FileHead::LEN, last_ns: i64::MIN, flows: 0 }
    }

    pub(super) fn add(&mut self, place: Place) {
        self.bytes = place.behind();
        self.last_ns = self.last_ns.max(place.last_ns);
        self.flows += u64::from(place.flows);
        self.pieces.push(place);
    }

    /// Sequence number behind its last flow.
    pub(super) fn end(&self) -> u64 {
        self.pieces.last().map_or(0, Place::end)
    }
}

/// What was found in a file.
pub(super) enum Found {
    /// Its history's number, its pieces, and how many bytes stand behind the last whole one.
    Ours(u64, Segment, u64),
    /// It was begun and holds nothing yet, not even its own beginning.
    Empty,
    /// It is none of ours.
    Foreign(Foreign),
}

/// How a file is looked through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// From head to head.
    Heads,
    /// The pieces too: the file may have been written when the daemon or the machine fell.
    All,
}

/// Looks a file through.
pub(super) fn look(path: &Path, how: Look) -> io::Result<Found> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; FileHead::LEN as usize];
    if length < FileHead::LEN {
        let begun = &mut head[..length as usize];
        file.read_exact_at(begun, 0)?;
        let is_ours = FileHead::is_begun(begun);
        return Ok(if is_ours { Found::Empty } else { Found::Foreign(Foreign::Other) });
    }
    file.read_exact_at(&mut head, 0)?;
    let life = match FileHead::read(&head) {
        Ok(life) => life,
        Err(foreign) => return Ok(Found::Foreign(foreign)),
    };
    let mut segment = Segment::new(path.to_owned());
    while let Some(place) = piece_at(&file, segment.bytes, length, how)? {
        // Numbers only grow; what does not continue is none of this file.
        if place.base < segment.end() {
            break;
        }
        segment.add(place);
    }
    let behind = length - segment.bytes;
    Ok(Found::Ours(life, segment, behind))
}

fn piece_at(file: &File, at: u64, length: u64, how: Look) -> io::Result<Option<Place>> {
    if at + PieceHead::LEN as u64 > length {
        return Ok(None);
    }
    let mut head = [0; PieceHead::LEN];
    file.read_exact_at(&mut head, at)?;
    let Some(place) = PieceHead::read(&head, at).filter(|place| place.behind() <= length) else {
        return Ok(None);
    };
    Ok(match how {
        Look::Heads => Some(place),
        Look::All => Some(place).filter(|place| read(file, place).is_ok_and(|packed| place.is_of(&packed))),
    })
}

/// The packed content of a piece.
pub(super) fn read(file: &File, place: &Place) -> io::Result<Vec<u8>> {
    let mut packed = vec![0; place.packed as usize];
    file.read_exact_at(&mut packed, place.at)?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_in_the_order_of_their_flows() {
        let time = "2026-05-01T12:00:00Z".parse::<Timestamp>().unwrap();
        let name = |base| name(base, time.as_nanosecond() as i64);
        assert_eq!(name(10 << 40), "00000a0000000000-2026-05-01T12-00-00Z.flows");
        assert!(name(9) < name(10) && name(1 << 40) < name(u64::MAX));
        for base in [0, 10 << 40, u64::MAX] {
            assert_eq!(base_of(&name(base)), Some(base));
        }
        for other in [UNSEALED, "0-x.flows", "00000a0000000000-x", "+0000a0000000000-x.flows", "lock"] {
            assert_eq!(base_of(other), None, "{other}");
        }
    }
}
