//! What must hold for any datagram of conntrack.
#![expect(clippy::missing_panics_doc, reason = "it does nothing else")]

use super::{
    conntrack::{ConntrackTable, TableLimits},
    ctnetlink::{Message, messages},
};

const LIMITS: TableLimits = TableLimits { entries: 4, grace_ns: 1_000 };

/// A datagram, as the kernel sends it. Every message is taken into a small table.
pub fn conntrack(data: &[u8]) {
    let mut table = ConntrackTable::new(LIMITS);
    table.begin_dump();
    let mut time_ns = 0;
    let mut count = 0;
    for message in messages(data) {
        count += 1;
        time_ns += 400;
        match message {
            Ok(Message::New(entry, _)) => {
                let turned_away = table.counters().turned_away;
                table.insert(entry);
                let known = table.translate(&entry.original, None);
                if table.counters().turned_away == turned_away {
                    let known = known.expect("it was taken in");
                    assert_eq!(
                        (known.client, known.frontend),
                        (entry.original.source, entry.original.destination)
                    );
                }
            }
            Ok(Message::End { id, original }) => table.end(id, &original, time_ns),
            Ok(Message::Done) => {
                table.finish_dump(time_ns);
                table.begin_dump();
            }
            Ok(Message::Error(_) | Message::Other) | Err(_) => {}
        }
        table.expire(time_ns);
        let counters = table.counters();
        let held = table.len() as u64;
        assert_eq!(counters.added, held + counters.replaced + counters.expired + counters.displaced);
        assert!(table.len() <= LIMITS.entries);
    }
    assert!(count <= data.len().div_ceil(16), "{count} messages in {} bytes", data.len());
}
