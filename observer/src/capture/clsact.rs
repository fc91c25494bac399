//! Classic tc filters, where the kernel has no tcx (before 6.6). They are no links: nothing but a hand takes them off, so
//! ours carry marks by which the next daemon knows them.

use std::io;

use aya::programs::TcAttachType;
use aya::programs::tc::TcHandle;
use netlink_packet_core::{
    Emitable as _, NLM_F_ACK, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle as Handle, TcHeader, TcMessage};

use super::netlink::ask;

/// Of linux/rtnetlink.h.
const RTM_DELQDISC: u16 = 37;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
/// Of linux/rtnetlink.h, and of linux/pkt_cls.h for those within the options of a bpf filter.
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// `ETH_P_ALL` in network order: the protocol of our filters.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;

/// The handle of our filters, which the kernel leaves to us: "ob", and whether we made the queueing discipline too.
pub(super) fn handle(made_qdisc: bool) -> TcHandle {
    TcHandle::new(u16::from_be_bytes(*b"ob"), u16::from(made_qdisc))
}

/// A filter on one of a link's two hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    priority: u32,
    handle: u32,
    pub(super) name: Option<String>,
    /// The program's id.
    pub(super) program: Option<u32>,
}

impl Filter {
    /// Whether a daemon before us put it there, as a program of this name.
    pub(super) fn is_ours(&self, program: &str) -> bool {
        let marks = [handle(true), handle(false)].map(u32::from);
        self.name.as_deref() == Some(program) && marks.contains(&self.handle)
    }

    /// Whether it has this priority and handle.
    pub(super) fn is_at(&self, (priority, handle): (u16, TcHandle)) -> bool {
        (self.priority, self.handle) == (u32::from(priority), u32::from(handle))
    }

    /// Whether that daemon made the queueing discipline.
    pub(super) fn made_qdisc(&self) -> bool {
        self.handle == u32::from(handle(true))
    }
}

/// All filters of a hook. No clsact there is an empty list.
pub(super) fn filters(ifindex: u32, hook: TcAttachType) -> io::Result<Vec<Filter>> {
    let message = TcMessage::from_parts(header(ifindex, hook), Vec::new());
    let answers = ask(Raw::new(RTM_GETTFILTER, &message), NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(Raw::filter).collect())
}

/// Takes one filter off.
pub(super) fn remove(ifindex: u32, hook: TcAttachType, filter: &Filter) -> io::Result<()> {
    let header = TcHeader {
        handle: filter.handle.into(),
        info: filter.priority << 16 | ALL_PROTOCOLS,
        ..header(ifindex, hook)
    };
    ask(Raw::new(RTM_DELTFILTER, &TcMessage::from_parts(header, Vec::new())), NLM_F_ACK).map(drop)
}

/// Takes the queueing discipline away, unless somebody has a filter on it.
pub(super) fn remove_unused_qdisc(ifindex: u32) -> io::Result<()> {
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        if !filters(ifindex, hook)?.is_empty() {
            return Ok(());
        }
    }
    let header = TcHeader {
        index: ifindex as i32,
        parent: Handle::CLSACT,
        handle: Handle { major: u16::MAX, minor: 0 },
        ..TcHeader::default()
    };
    let message = TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".to_owned())]);
    ask(Raw::new(RTM_DELQDISC, &message), NLM_F_ACK).map(drop)
}

fn header(ifindex: u32, hook: TcAttachType) -> TcHeader {
    let minor = if hook == TcAttachType::Ingress { Handle::MIN_INGRESS } else { Handle::MIN_EGRESS };
    TcHeader { index: ifindex as i32, parent: Handle { major: u16::MAX, minor }, ..TcHeader::default() }
}

/// A message whose attributes are left as bytes: other people's filters have options that no parser here knows.
struct Raw {
    kind: u16,
    payload: Vec<u8>,
}

impl Raw {
    fn new(kind: u16, message: &TcMessage) -> Self {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        Self { kind, payload }
    }

    /// The filter that it tells of; a priority's own entry has no handle and is none.
    fn filter(&self) -> Option<Filter> {
        let header = TcHeader::parse(&self.payload).ok()?;
        let handle = u32::from(header.handle);
        let attributes = self.payload.get(header.buffer_len()..)?;
        let options = attribute(attributes, TCA_OPTIONS);
        let option = |kind| options.as_deref().and_then(|options| attribute(options, kind));
        let name = option(TCA_BPF_NAME);
        let name = name.map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned());
        let program = option(TCA_BPF_ID).and_then(|id| Some(u32::from_ne_bytes(id.try_into().ok()?)));
        (handle != 0).then_some(Filter { priority: header.info >> 16, handle, name, program })
    }
}

fn attribute(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    // One that can't be read ends the walk.
    let mut all = NlasIterator::new(bytes).map_while(Result::ok);
    all.find(|attribute| attribute.kind() & NLA_TYPE_MASK == kind).map(|attribute| attribute.value().to_vec())
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = std::convert::Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}
