//! Which rows stand beside endpoints, see [`PlacedEndpoint`].

use hashbrown::HashMap;
use observer_ebpf::policy::{
    NEAR_ROWS, NearRow, PlacedEndpoint, PolicyEndpoint, PolicyRow, PolicyRowKey, endpoint_flags,
};

/// Rows by peer, each peer's in the order of their tables; `None` of one whose rows have no room.
#[derive(Default)]
pub(super) struct NearRows(HashMap<u32, Option<[NearRow; NEAR_ROWS]>>);

impl NearRows {
    /// Of all rows, or of all those of some peers.
    pub(super) fn of<'a>(rows: impl Iterator<Item = (&'a PolicyRowKey, PolicyRow)>) -> Self {
        let mut near = Self::default();
        for (&PolicyRowKey { table, peer }, row) in rows {
            let of_peer = near.0.entry(peer).or_insert(Some([NearRow::default(); NEAR_ROWS]));
            *of_peer = of_peer.and_then(|of_peer| with(of_peer, NearRow::new(table, row)?));
        }
        near
    }

    /// An endpoint with the rows of its peer; of one that has none, none is all.
    pub(super) fn beside(&self, endpoint: PolicyEndpoint) -> PlacedEndpoint {
        let Some(rows) = self.0.get(&endpoint.peer).copied().unwrap_or(Some(Default::default())) else {
            return PlacedEndpoint { endpoint, ..PlacedEndpoint::default() };
        };
        let flags = endpoint.flags | endpoint_flags::ROWS;
        PlacedEndpoint { endpoint: PolicyEndpoint { flags, ..endpoint }, rows }
    }
}

/// A peer's rows with one more, if there is room.
fn with(mut rows: [NearRow; NEAR_ROWS], row: NearRow) -> Option<[NearRow; NEAR_ROWS]> {
    *rows.iter_mut().find(|place| place.row().len == 0)? = row;
    // The same rows are the same bytes, in whichever order they came.
    rows.sort_unstable_by_key(|place| (place.row().len == 0, place.table));
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: u32 = 5;
    const ENDPOINT: PolicyEndpoint = PolicyEndpoint { peer: PEER, subject: 3, flags: endpoint_flags::LOCAL };

    const fn row(begin: u32, len: u32) -> PolicyRow {
        PolicyRow { begin, len }
    }

    /// The endpoint with what is beside it, where its peer has these rows and another has one.
    fn beside(rows: &[(u32, PolicyRow)]) -> PlacedEndpoint {
        let mut all = vec![(PolicyRowKey { table: 1, peer: PEER + 1 }, row(9, 9))];
        all.extend(rows.iter().map(|&(table, row)| (PolicyRowKey { table, peer: PEER }, row)));
        let placed = NearRows::of(all.iter().map(|(key, row)| (key, *row))).beside(ENDPOINT);
        assert_eq!(placed.alone(), ENDPOINT);
        placed
    }

    /// The same, as tables and rows; `None` where they are not all of its peer's.
    fn all(rows: &[(u32, PolicyRow)]) -> Option<Vec<(u32, PolicyRow)>> {
        let PlacedEndpoint { endpoint, rows } = beside(rows);
        let used = rows.iter().filter(|place| place.row().len > 0);
        let used = used.map(|place| (place.table, place.row())).collect();
        (endpoint.flags & endpoint_flags::ROWS != 0).then_some(used)
    }

    #[test]
    fn few_rows_are_beside_and_more_are_not() {
        let (low, high) = ((0, row(0, 1)), (7, row(4, 2047)));
        assert_eq!(all(&[]), Some(vec![]));
        assert_eq!(all(&[high]), Some(vec![high]));
        assert_eq!(all(&[low, high]), Some(vec![low, high]));
        assert_eq!(all(&[low, high, (8, row(0, 1))]), None);
        assert_eq!(all(&[low, high, (8, row(0, 1)), (9, row(0, 1))]), None);
        // The order in which they come is not written.
        assert_eq!(beside(&[high, low]), beside(&[low, high]));
    }

    #[test]
    fn a_row_whose_numbers_are_too_large_is_not_beside() {
        let largest = (1, row((1 << 21) - 1, 1));
        assert_eq!(all(&[largest]), Some(vec![largest]));
        for too_large in [(1, row(1 << 21, 1)), (1, row(0, 2048)), (1, row(0, 0))] {
            assert_eq!(all(&[too_large]), None, "{too_large:?}");
            assert_eq!(all(&[too_large, largest]), None, "{too_large:?}");
        }
    }
}
