//! Bytes of a kernel record -> an [`Event`] whose fields can't be wrong. No record makes this stage panic.

mod clock;
mod drop_reason;
mod drop_site;
mod event;
mod tuple;

pub use clock::Clock;
pub use drop_reason::{DropReasons, nearest_hubble_reason};
pub use drop_site::{DropSites, Symbols};
pub use event::{
    Denied, DropEvent, Event, FactEvent, FlowEvent, FlowFlags, FlowReason, Hook, Macs, Packet, Payload,
    PayloadKind,
};
pub use tuple::{End, Tuple};

use observer_ebpf::{
    ABI_VERSION, DeniedRecord, DropRecord, FactRecord, FlowRecord, Header, JudgedFlowRecord, PayloadRecord,
    TunneledFlowRecord, kind,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Why a record could not be read. The caller counts it as a loss of its own cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a header.
    #[error("a record of {0} bytes is shorter than its header")]
    Short(usize),
    /// Written by programs of another version.
    #[error("record of ABI version {0}, this daemon reads {ABI_VERSION}")]
    Version(u8),
    /// An unknown [`kind`].
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// The bytes, or the size that the header tells, are not those of this kind.
    #[error("record of kind {kind} has {got} bytes, not {want}")]
    Size {
        /// The record's kind.
        kind: u8,
        /// Its length.
        got: usize,
        /// The length of this kind in this version.
        want: usize,
    },
    /// A field holds a number that the ABI doesn't define.
    #[error("field {field} of a record holds {value}, which the ABI does not define")]
    Field {
        /// The field's name in the ABI.
        field: &'static str,
        /// What stands in it.
        value: u8,
    },
}

/// The stage: it holds the clock and the places of drops that were met.
#[derive(Debug)]
pub struct Decoder<S> {
    /// Kernel time to unix time; the caller re-measures it about once a second.
    pub clock: Clock,
    /// Places of drops.
    pub sites: DropSites<S>,
}

impl<S: Symbols> Decoder<S> {
    /// One record from a ring.
    #[inline]
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let (header, _) = Header::read_from_prefix(bytes).map_err(|_| DecodeError::Short(bytes.len()))?;
        if header.version != ABI_VERSION {
            return Err(DecodeError::Version(header.version));
        }
        match header.kind {
            kind::FLOW => {
                let mut askew = None;
                FlowEvent::new(record::<FlowRecord>(&header, bytes, &mut askew)?, &self.clock)
                    .map(Event::Flow)
            }
            kind::TUNNELED_FLOW => {
                let mut askew = None;
                let record = record::<TunneledFlowRecord>(&header, bytes, &mut askew)?;
                FlowEvent::tunneled(record, &self.clock).map(Event::Flow)
            }
            kind::DROP => {
                let mut askew = None;
                let record = record::<DropRecord>(&header, bytes, &mut askew)?;
                let site = self.sites.site(record.reason, record.location);
                DropEvent::new(record, site, &self.clock).map(Event::Drop)
            }
            kind::JUDGED_FLOW => {
                let mut askew = None;
                let record = record::<JudgedFlowRecord>(&header, bytes, &mut askew)?;
                FlowEvent::judged(record, &self.clock).map(Event::Flow)
            }
            kind::DENIED => {
                let mut askew = None;
                let record = record::<DeniedRecord>(&header, bytes, &mut askew)?;
                let site = self.sites.site(record.drop.reason, record.drop.location);
                DropEvent::denied(record, site, &self.clock).map(Event::Drop)
            }
            kind::FACT => {
                let mut askew = None;
                FactEvent::new(record::<FactRecord>(&header, bytes, &mut askew)?, &self.clock)
                    .map(Event::Fact)
            }
            kind::PAYLOAD => {
                let (record, copied) = payload(&header, bytes)?;
                FlowEvent::payload(&record, copied, &self.clock).map(Event::Flow)
            }
            other => Err(DecodeError::Kind(other)),
        }
    }
}

/// The whole record, if both its length and the length it tells are right: as it lies, as in a ring. Where it doesn't begin
/// at a whole word, as in a recording, it is copied to `askew`.
#[inline]
fn record<'a, R: FromBytes + KnownLayout + Immutable>(
    header: &Header,
    bytes: &'a [u8],
    askew: &'a mut Option<R>,
) -> Result<&'a R, DecodeError> {
    let want = size_of::<R>();
    let wrong = |got| DecodeError::Size { kind: header.kind, got, want };
    if usize::from(header.size) != want {
        return Err(wrong(usize::from(header.size)));
    }
    if let Ok(record) = R::ref_from_bytes(bytes) {
        return Ok(record);
    }
    let copied = R::read_from_bytes(bytes).map_err(|_| wrong(bytes.len()))?;
    Ok(askew.insert(copied))
}

/// The one record whose length differs, and what stands behind it.
fn payload<'a>(header: &Header, bytes: &'a [u8]) -> Result<(PayloadRecord, &'a [u8]), DecodeError> {
    let want = size_of::<PayloadRecord>();
    let wrong = |got, want| DecodeError::Size { kind: header.kind, got, want };
    let (record, copied) = PayloadRecord::read_from_prefix(bytes).map_err(|_| wrong(bytes.len(), want))?;
    let want = want + usize::from(record.copied);
    if usize::from(header.size) != want || bytes.len() != want || record.length < record.copied.into() {
        return Err(wrong(bytes.len(), want));
    }
    Ok((record, copied))
}

#[cfg(test)]
mod tests;
