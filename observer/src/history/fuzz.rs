//! What must hold for any bytes in a file of the history.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use super::{
    draft::Draft,
    frame::{self, MOST_FLOWS, PieceHead},
    piece::{KnownEnds, Piece},
    segment::{self, Found, Look},
};
use crate::store::{Cursor, Step};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{fs::File, io::Write as _, os::fd::AsRawFd as _, path::PathBuf};

/// A file; or, behind a zero, the content of a piece, to which no fuzzer finds the way through the checksums: the number of its
/// flows in two bytes, then it.
pub fn history(data: &[u8]) {
    match data {
        [0, low, high, content @ ..] => piece(u16::from_le_bytes([*low, *high]).into(), content),
        _ => file(data),
    }
}

fn file(data: &[u8]) {
    let mut file = File::from(memfd_create("history", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(data).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let (heads, all) = (segment::look(&path, Look::Heads).unwrap(), segment::look(&path, Look::All).unwrap());
    let (Found::Ours(_, heads, _), Found::Ours(_, all, behind)) = (heads, all) else { return };
    assert!(heads.pieces.starts_with(&all.pieces));
    assert_eq!(all.bytes + behind, data.len() as u64);
    assert!(all.pieces.is_sorted_by(|one, next| one.end() <= next.base && one.behind() < next.at));
    for place in &all.pieces {
        let packed = segment::read(&file, place).unwrap();
        if let Some(content) = frame::unpack(place, &packed) {
            piece(place.flows as usize, &content);
        }
    }
}

fn piece(count: usize, content: &[u8]) {
    if !(1..=MOST_FLOWS).contains(&count) {
        return;
    }
    let mut known = KnownEnds::default();
    let Some(read) = Piece::open(7, count, content.to_vec(), &mut known) else { return };
    assert!(read.columns().iter().all(|column| column.len() == count));
    let Some(store) = read.store() else { return };
    assert_eq!((store.oldest(), store.len()), (7, count as u64));
    // What was read is written and read as the same.
    let mut draft = Draft::new(7);
    let each = |store, visit: &mut dyn FnMut(&crate::flow::Flow<'_>)| {
        let mut cursor = Cursor::new(store, 7);
        while let Step::Flow(stored) = cursor.step() {
            visit(&stored.flow());
        }
    };
    let text = |flow: &crate::flow::Flow<'_>| {
        let names = [flow.source, flow.destination].map(|end| end.json().to_vec());
        format!("{:?} {names:?} {:?} {:?} {:?}", flow.record, flow.tunnel, flow.drop, flow.policy)
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    each(store, &mut |flow| {
        before.push(text(flow));
        draft.push(flow);
    });
    let packed = frame::pack(&draft, 0..count).unwrap();
    let place = PieceHead::read(&packed, 0).unwrap();
    let again = frame::unpack(&place, packed.get(PieceHead::LEN..).unwrap()).unwrap();
    let again = Piece::open(7, count, again, &mut known).unwrap().store().unwrap();
    each(again, &mut |flow| after.push(text(flow)));
    assert_eq!(before, after);
}
