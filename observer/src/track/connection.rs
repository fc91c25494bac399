//! One connection as nf_conntrack knows it, and what that says of a packet.

use crate::decode::{End, Tuple};
use serde::{Deserialize, Serialize};

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// One connection: the two tuples of nf_conntrack. Neither changes after the kernel told of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel's number for it, so that an old connection is told from a new one with the same tuple.
    pub id: u32,
    /// As the opener sends: client -> the address it called.
    pub original: Tuple,
    /// As the answer is sent: backend -> the address it was called from.
    pub reply: Tuple,
}

impl Entry {
    /// The ways in which a packet of the opener is seen: as sent, after the destination's translation, and after the
    /// source's too. Replies are seen in the same ways, reversed.
    pub fn views(&self) -> [Tuple; 3] {
        [0, 1, 2].map(|number| self.view(number))
    }

    /// One of [`Entry::views`].
    pub(super) fn view(&self, number: u32) -> Tuple {
        let called_from = self.reply.reversed();
        match number {
            0 => self.original,
            1 => {
                let mut between = Tuple { destination: called_from.destination, ..self.original };
                if matches!(self.original.protocol, ICMP | ICMP_V6) {
                    // Both "ports" are the echo identifier, which the source's translation changes.
                    between.destination = between.destination.with_port(self.original.destination.port());
                }
                between
            }
            _ => called_from,
        }
    }
}

/// What the kernel told of its connections. Times are kernel time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// A connection, by an event or in a dump.
    New(Entry),
    /// A connection's end: its number, its opener's tuple, and when that was learned.
    End(u32, Tuple, u64),
    /// A dump begins: what it doesn't tell of has ended unnoticed.
    DumpBegins,
    /// The dump is whole, as of this time.
    DumpEnds(u64),
    /// The kernel dropped events.
    Overrun,
}

/// What conntrack knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Whether the packet goes from the connection's opener to its responder.
    pub from_client: bool,
    /// The opener.
    pub client: End,
    /// What it called.
    pub frontend: End,
    /// Who answers.
    pub backend: End,
    /// Whom the backend sees as its peer.
    pub called_from: End,
}

impl Translation {
    /// Whether the called address is not the backend's.
    pub fn destination_translated(&self) -> bool {
        self.frontend != self.backend
    }

    /// Whether the backend sees another address than the client's.
    pub fn source_translated(&self) -> bool {
        !self.client.is_at(&self.called_from)
    }
}
