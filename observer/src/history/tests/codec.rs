//! What goes in comes out.

use super::super::{
    draft::Draft,
    frame::{self, PieceHead},
    piece::{KnownEnds, Piece},
};
use crate::{
    endpoint::{Endpoint, Service},
    flow::{Flow, Sample, any::any_flow},
    store::{Cursor, Lot, Steps},
};
use proptest::prelude::*;
use std::{ops::Range, sync::Arc};

fn draft(base: u64, flows: &[Sample]) -> Draft {
    let mut draft = Draft::new(base);
    for flow in flows {
        draft.push(&flow.flow());
    }
    draft
}

/// Through the bytes on the disk.
fn back(draft: &Draft, range: Range<usize>, known: &mut KnownEnds) -> Piece {
    let packed = frame::pack(draft, range.clone()).unwrap();
    let place = PieceHead::read(&packed, 0).unwrap();
    assert_eq!((place.base, place.flows as usize), (draft.base() + range.start as u64, range.len()));
    assert_eq!((place.first_ns, place.last_ns), draft.times(range));
    let content = frame::unpack(&place, &packed[PieceHead::LEN..]).unwrap();
    Piece::open(place.base, place.flows as usize, content, known).unwrap()
}

fn assert_same(read: &Flow<'_>, written: &Flow<'_>) {
    assert_eq!(format!("{:?}", read.record), format!("{:?}", written.record));
    assert_eq!((read.source, read.destination), (written.source, written.destination));
    let services = |flow: &Flow<'_>| (flow.source_service.cloned(), flow.destination_service.cloned());
    assert_eq!(services(read), services(written));
    assert_eq!((read.link, read.tunnel, read.drop), (written.link, written.tunnel, written.drop));
    assert_eq!((read.policy, read.translated, read.l7), (written.policy, written.translated, written.l7));
}

fn each(piece: &Piece, mut visit: impl FnMut(u64, &Flow<'_>)) {
    let mut cursor = Cursor::new(piece.store().unwrap(), piece.base());
    let mut place = 0;
    while let Steps::Flows(lot) = cursor.steps() {
        assert_same_columns(piece, place, &lot);
        place += lot.count();
        lot.flows().for_each(|stored| visit(stored.sequence, &stored.flow()));
    }
}

/// What filters ask of a piece is what they ask of the store.
fn assert_same_columns(piece: &Piece, place: usize, lot: &Lot<'_>) {
    for (whole, part) in piece.columns().into_iter().zip(lot.columns()) {
        assert_eq!(&whole[place..place + lot.count()], part);
    }
}

/// With services, names and ends that are shared.
fn any_flows() -> impl Strategy<Value = Vec<Sample>> {
    let flow = (any_flow(), any::<bool>(), any::<bool>(), any::<bool>());
    prop::collection::vec(flow, 1..20).prop_map(|flows| {
        let service = Arc::new(Service { namespace: "shop".into(), name: "api".into() });
        let end = Arc::new(Endpoint { pod_name: "one".into(), local: true, ..Endpoint::default() });
        let shared = |(mut flow, has_service, has_end, has_names): (Sample, bool, bool, bool)| {
            flow.source_service = has_service.then(|| Arc::clone(&service));
            if has_end {
                flow.destination = Arc::clone(&end);
            }
            flow.translated = flow.translated.filter(|_| has_names);
            flow
        };
        flows.into_iter().map(shared).collect()
    })
}

proptest! {
    #[test]
    fn any_flow_is_read_back_as_it_was(base in 0..u64::MAX / 2, flows in any_flows(), cut in any::<prop::sample::Index>()) {
        let draft = draft(base, &flows);
        let cut = cut.index(flows.len());
        let mut known = KnownEnds::default();
        for range in [0..flows.len(), 0..cut, cut..flows.len()] {
            if range.is_empty() {
                continue;
            }
            let piece = back(&draft, range.clone(), &mut known);
            let mut next = range.start;
            each(&piece, |sequence, flow| {
                assert_eq!(sequence, base + next as u64);
                assert_same(flow, &flows[next].flow());
                next += 1;
            });
            prop_assert_eq!(next, range.end);
        }
    }

    #[test]
    fn damaged_content_is_no_panic(flows in any_flows(), at in any::<prop::sample::Index>(), bits in 1..=255u8) {
        let mut content = draft(0, &flows).encode(0..flows.len());
        let at = at.index(content.len());
        content[at] ^= bits;
        if let Some(piece) = Piece::open(0, flows.len(), content, &mut KnownEnds::default()) {
            let _ = piece.store();
        }
    }
}

#[test]
fn ends_that_were_met_are_shared() {
    let mut known = KnownEnds::default();
    let flows = [super::numbered(0), super::numbered(0)];
    let draft = draft(0, &flows);
    let (one, other) = (back(&draft, 0..1, &mut known), back(&draft, 1..2, &mut known));
    assert!(one.ends().iter().zip(other.ends()).all(|(one, other)| Arc::ptr_eq(one, other)));
    assert_eq!(one.ends().len(), 2);
}
