//! Filters asked of many flows at once: what they ask most stands in columns, and one pass over a column answers for all.

use super::{
    condition::{Condition, Protocol},
    endpoint::REMEMBERED,
    view::{L4, Side},
};
use crate::flow::Verdict;

/// The most flows that are asked about at once: an answer is a bit.
pub const LOT: usize = u64::BITS as usize;

/// A column has one number for each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The number of the source's endpoint (`EndpointView::serial`), 0 where it takes more than 32 bits.
    Source,
    /// Of the destination's.
    Destination,
    /// The source's IPv4 address, 0 where there is none.
    SourceV4,
    /// The destination's.
    DestinationV4,
    /// The source's port in the upper half, the destination's in the lower; 0 where there is none.
    Ports,
    /// See [`traits`].
    Traits,
}

impl Column {
    /// How many there are.
    pub const COUNT: usize = 6;

    fn end(side: Side) -> Self {
        match side {
            Side::Source => Self::Source,
            Side::Destination => Self::Destination,
        }
    }

    fn v4(side: Side) -> Self {
        match side {
            Side::Source => Self::SourceV4,
            Side::Destination => Self::DestinationV4,
        }
    }
}

/// Up to [`LOT`] flows, by [`Column`]. Each has an endpoint at both ends.
pub type Columns<'a> = [&'a [u32]; Column::COUNT];

/// Small numbers that share the column of traits: where their bits begin, and the largest that they hold. What is larger
/// stands as that, which then says "look at the flow".
#[derive(Clone, Copy)]
struct Field(u32, u32);

const VERDICT: Field = Field(0, 15);
const TRANSPORT: Field = Field(4, 7);
const REPLY: Field = Field(7, 3);
const DIRECTION: Field = Field(9, 3);
const IP_VERSION: Field = Field(11, 3);
/// One bit more than the flags, which says that there are any.
const TCP_FLAGS: Field = Field(13, 0x3ff);
const HAS_TCP_FLAGS: u32 = 0x200;

impl Field {
    fn put(self, value: u32) -> u32 {
        value.min(self.1) << self.0
    }

    /// What a flow's traits are to be for this value.
    fn is(self, value: u32) -> Equal {
        Equal { mask: self.1 << self.0, value: self.put(value) }
    }
}

fn transport(l4: Option<L4>) -> u32 {
    match l4 {
        None => 0,
        Some(L4::Tcp) => 1,
        Some(L4::Udp) => 2,
        Some(L4::IcmpV4) => 3,
        Some(L4::IcmpV6) => 4,
        Some(L4::Sctp) => 5,
        Some(L4::Vrrp) => 6,
        Some(L4::Igmp) => 7,
    }
}

fn reply(reply: Option<bool>) -> u32 {
    reply.map_or(0, |reply| 1 + u32::from(reply))
}

/// A flow's verdict, transport protocol, reply, direction, IP version and TCP flags, all as `FlowView` tells them, in one
/// number.
pub fn traits(
    verdict: u8,
    l4: Option<L4>,
    is_reply: Option<bool>,
    direction: u8,
    ip_version: u8,
    tcp_flags: Option<u16>,
) -> u32 {
    VERDICT.put(verdict.into())
        | TRANSPORT.put(transport(l4))
        | REPLY.put(reply(is_reply))
        | DIRECTION.put(direction.into())
        | IP_VERSION.put(ip_version.into())
        | tcp_flags.map_or(0, |flags| TCP_FLAGS.put(u32::from(flags & 0x1ff) | HAS_TCP_FLAGS))
}

/// The bits of `mask` have this value.
#[derive(Clone, Copy, Debug)]
struct Equal {
    mask: u32,
    value: u32,
}

/// What one condition asks of the columns.
#[derive(Clone, Debug)]
enum Ask {
    /// Any of these in a column.
    Any(Column, Vec<Equal>),
    /// A question about the end of a column, by its number.
    End(Column, usize),
}

/// A filter as far as the columns can tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Sieve {
    asks: Vec<Ask>,
    /// Some of what passes may have to be looked at.
    is_coarse: bool,
}

/// Of each flow of a lot: 1 for "passes".
type Hits = [u8; LOT];

/// Who answers the questions about ends.
pub(super) trait Answers {
    /// The few ends of which the answer is yes, if they are few.
    fn few(&self, test: usize) -> Option<&[u32]>;
    /// Of the end with this number, of the flow with this index in the lot.
    fn ask(&mut self, test: usize, side: Side, number: u32, index: usize) -> bool;
}

impl Sieve {
    pub(super) fn new(conditions: &[Condition]) -> Self {
        let mut sieve = Self::default();
        for condition in conditions {
            sieve.add(condition);
        }
        sieve
    }

    /// Whether what passes need not be looked at.
    pub(super) fn is_exact(&self) -> bool {
        !self.is_coarse
    }

    fn add(&mut self, condition: &Condition) {
        match condition {
            Condition::Endpoint(side, test) if *test < REMEMBERED => {
                self.asks.push(Ask::End(Column::end(*side), *test));
            }
            Condition::Ip(side, addresses) => {
                let (v4, more) = addresses.v4();
                let nets = v4.iter().map(|&(value, mask)| Equal { mask, value });
                self.any(Column::v4(*side), nets, more || v4.iter().any(|(network, _)| *network == 0));
            }
            Condition::Port(side, ports) => {
                let shift = if *side == Side::Source { 16 } else { 0 };
                let equal = |&port: &u16| Equal { mask: 0xffff << shift, value: u32::from(port) << shift };
                // Port 0 stands for none as well.
                self.is_coarse |= ports.contains(&0);
                self.any(Column::Ports, ports.iter().map(equal), false);
            }
            Condition::Verdict(list) => self.numbers(VERDICT, list),
            Condition::Direction(list) => self.numbers(DIRECTION, list),
            Condition::IpVersion(list) => self.numbers(IP_VERSION, list),
            Condition::Protocol(list) => self.protocols(list),
            Condition::Reply(list) => {
                let known = list.iter().map(|wanted| REPLY.is(reply(Some(*wanted))));
                // See `Condition::Reply`.
                let dropped = Equal {
                    mask: REPLY.is(0).mask | VERDICT.is(0).mask,
                    value: REPLY.put(0) | VERDICT.put(Verdict::Dropped as u32),
                };
                let unknown = list.contains(&false).then_some(dropped);
                self.any(Column::Traits, known.chain(unknown), false);
            }
            Condition::TcpFlags(list) => {
                let all_of = |flags: &u16| {
                    let wanted = TCP_FLAGS.put(u32::from(flags & 0x1ff) | HAS_TCP_FLAGS);
                    Equal { mask: wanted, value: wanted }
                };
                self.is_coarse |= list.iter().any(|flags| *flags > 0x1ff);
                self.any(Column::Traits, list.iter().map(all_of), false);
            }
            _ => self.is_coarse = true,
        }
    }

    /// `zero`: what has a 0 there must be looked at, too.
    fn any(&mut self, column: Column, equal: impl Iterator<Item = Equal>, zero: bool) {
        let zero_too = zero.then_some(Equal { mask: u32::MAX, value: 0 });
        self.is_coarse |= zero;
        self.asks.push(Ask::Any(column, equal.chain(zero_too).collect()));
    }

    /// What is negative no flow has.
    fn numbers(&mut self, field: Field, list: &[i32]) {
        let values = || list.iter().filter_map(|value| u32::try_from(*value).ok());
        self.is_coarse |= values().any(|value| value >= field.1);
        self.any(Column::Traits, values().map(|value| field.is(value)), false);
    }

    fn protocols(&mut self, list: &[Protocol]) {
        let mut equal = Vec::new();
        for protocol in list {
            match protocol {
                Protocol::Transport(l4) => equal.push(TRANSPORT.is(transport(Some(*l4)))),
                Protocol::AnyIcmp => {
                    equal.extend([L4::IcmpV4, L4::IcmpV6].map(|l4| TRANSPORT.is(transport(Some(l4)))));
                }
                // No column tells it.
                Protocol::Application(_) => return self.is_coarse = true,
            }
        }
        self.any(Column::Traits, equal.into_iter(), false);
    }

    /// Whether any of the flows may pass; `few` as [`Answers::few`].
    pub(super) fn look_ahead<'f>(
        &self,
        columns: &Columns<'_>,
        few: impl Fn(usize) -> Option<&'f [u32]>,
    ) -> bool {
        self.asks.iter().all(|ask| match ask {
            Ask::Any(column, list) => list.iter().any(|equal| has(columns[*column as usize], *equal)),
            Ask::End(column, test) => few(*test).is_none_or(|few| {
                few.iter().any(|&value| has(columns[*column as usize], Equal { mask: u32::MAX, value }))
            }),
        })
    }

    /// By bits: the flows that pass, as far as the columns tell.
    pub(super) fn select(&self, columns: &Columns<'_>, answers: &mut impl Answers) -> u64 {
        let mut passing = all(columns);
        for ask in &self.asks {
            if passing == 0 {
                break;
            }
            passing &= match ask {
                Ask::Any(column, list) => any(columns[*column as usize], list.iter().copied()),
                Ask::End(column, test) => {
                    let numbers = columns[*column as usize];
                    if let Some(few) = answers.few(*test) {
                        any(numbers, few.iter().map(|&value| Equal { mask: u32::MAX, value }))
                    } else {
                        let side = if *column == Column::Source { Side::Source } else { Side::Destination };
                        each(passing, |index| answers.ask(*test, side, numbers[index], index))
                    }
                }
            };
        }
        passing
    }
}

/// A bit for each flow.
pub(super) fn all(columns: &Columns<'_>) -> u64 {
    let count = columns[0].len().min(LOT);
    u64::MAX.checked_shr((LOT - count) as u32).unwrap_or(0)
}

/// Of the flows in `of`, those that `is` says yes to.
pub(super) fn each(of: u64, mut is: impl FnMut(usize) -> bool) -> u64 {
    let (mut left, mut found) = (of, 0);
    while left != 0 {
        let index = left.trailing_zeros();
        found |= u64::from(is(index as usize)) << index;
        left &= left - 1;
    }
    found
}

fn any(column: &[u32], list: impl Iterator<Item = Equal>) -> u64 {
    let mut hits: Hits = [0; LOT];
    // Of a known length it becomes a few wide instructions.
    if let Some(column) = column.first_chunk::<LOT>() {
        list.for_each(|equal| mark(&mut hits, column, equal));
    } else {
        list.for_each(|equal| mark(&mut hits, column, equal));
    }
    bits(&hits)
}

/// Whether one of the numbers is this: all are looked at, several at a time.
fn has(column: &[u32], equal: Equal) -> bool {
    column.iter().fold(0, |found, number| found | u8::from(number & equal.mask == equal.value)) != 0
}

#[inline]
fn mark(hits: &mut Hits, column: &[u32], equal: Equal) {
    for (hit, number) in hits.iter_mut().zip(column) {
        *hit |= u8::from(number & equal.mask == equal.value);
    }
}

/// Each byte's lowest bit.
fn bits(hits: &Hits) -> u64 {
    let (bytes, _) = hits.as_chunks::<8>();
    if bytes.iter().fold(0, |all, bytes| all | u64::from_le_bytes(*bytes)) == 0 {
        return 0;
    }
    // The product's top byte has bit n of byte n.
    let gather = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    bytes.iter().enumerate().fold(0, |all, (place, bytes)| all | gather(bytes) << (8 * place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_its_bit() {
        for count in [0, 1, 7, 8, 63, 64] {
            let column: Vec<u32> = (0..count).collect();
            for wanted in 0..count {
                let equal = Equal { mask: u32::MAX, value: wanted };
                assert_eq!(any(&column, [equal].into_iter()), 1 << wanted, "{wanted} of {count}");
            }
            let odd = Equal { mask: 1, value: 1 };
            let even = Equal { mask: 1, value: 0 };
            let all = u64::MAX.checked_shr(64 - count).unwrap_or(0);
            assert_eq!(any(&column, [odd, even].into_iter()), all);
            assert_eq!(any(&column, [odd].into_iter()), all & 0xaaaa_aaaa_aaaa_aaaa);
        }
    }
}
