//! Recordings: everything that enters the stages after capture, in its order, in a file. Played into the same stages it
//! gives the same flows, on any machine. `docs/recording-format.md` has the layout.

mod frame;
mod reader;
mod recorder;
#[cfg(test)]
mod tests;

pub use frame::{Cut, CutReason};
pub use reader::{Reader, RecordingError, Totals, read_all};
pub use recorder::{Recorded, Recorder};

use crate::{
    capture::{HookStatus, LinkTable},
    enrich::source::Change,
    track::Update,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The first bytes of a file. The first is no text and no UTF-8; a transfer that changes line ends breaks the last two.
const MAGIC: [u8; 8] = *b"\x89OBSRE\r\n";
/// Raised by every change of the layout, which follows the types of [`Head`] and [`Input`] down to the last field, and of
/// what a field means.
pub const VERSION: u16 = 2;

/// What stands before all inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Name of the node.
    pub node: String,
    /// Name of its cluster.
    pub cluster: String,
    /// The kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The level of aggregation, for readers; nothing depends on it.
    pub aggregation: String,
    /// Unix time minus kernel time at the start, nanoseconds.
    pub offset_ns: i64,
    /// The kernel's drop reasons: number and name.
    pub drop_reasons: Vec<(u32, String)>,
    /// The programs, and whether they ran.
    pub hooks: Vec<HookStatus>,
    /// Why there was no conntrack to listen to, where there was none.
    pub no_conntrack: Option<String>,
}

/// Something that enters the stages, or that they ask for. Times are kernel time, nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// A record of the kernel's rings.
    Record(#[serde(borrow, with = "bytes")] &'a [u8]),
    /// A record that a sweep of the kernel's tables made.
    Swept(#[serde(borrow, with = "bytes")] &'a [u8]),
    /// What conntrack told.
    Conntrack(Update),
    /// All inputs up to here are one batch, taken through the stages at this time.
    Batch(u64),
    /// The rings had no room for this many records, after the first time and not after the second.
    Lost(u32, u64, u64),
    /// From this time on unix time minus kernel time is another one.
    Clock(u64, i64),
    /// The links and the node's addresses are these.
    Links(Cow<'a, LinkTable>),
    /// A source of names told this.
    Names(Cow<'a, Change>),
    /// The name of an address in the kernel's code, or why it has none.
    Symbol(u64, Result<Cow<'a, str>, Cow<'a, str>>),
    /// The capture ended in order: nothing waits any longer.
    End,
}

/// As bytes, which have a form of their own in serde; a slice would go through it number by number.
mod bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<&'a [u8], D::Error> {
        <&[u8]>::deserialize(from)
    }
}
