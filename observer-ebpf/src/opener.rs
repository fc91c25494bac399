//! Who opened a connection that is met.
//!
//! A SYN says so. Otherwise the entry is new in the middle of a connection: it began before the daemon did, or its
//! entry was evicted from the full table. Both look alike here, so both are marked as guessed and, for TCP, counted in
//! [`observer_ebpf::Counters::met_midway`]; but those of which the programs that judge were told who opened them.

use observer_ebpf::Config;
use observer_ebpf::parse::{self, Echo, Packet, TCP};

use crate::flow::{ACK, SYN};
use crate::maps::SERVICE_PORTS;

/// Who opened a connection whose first packet here is this one: (the sender did, that is a guess).
#[inline(always)]
pub(crate) fn opener(config: &Config, packet: &Packet) -> (bool, bool) {
    let tuple = &packet.tuple;
    let flags = u16::from(packet.tcp_flags);
    match tuple.protocol {
        TCP if flags & (SYN | ACK) == SYN => return (true, false),
        TCP if flags & SYN != 0 => return (false, false),
        parse::ICMP | parse::ICMPV6 => {
            return (parse::echo(tuple.protocol, tuple.icmp_type) != Echo::Reply, false);
        }
        _ => {}
    }
    let to_service = is_service(tuple.protocol, tuple.destination_port);
    let from_service = is_service(tuple.protocol, tuple.source_port);
    let ephemeral = |port: u16| port >= config.ephemeral_low && port <= config.ephemeral_high;
    let sender = if to_service == from_service {
        ephemeral(tuple.source_port) || !ephemeral(tuple.destination_port)
    } else {
        to_service
    };
    (sender, tuple.protocol == TCP || !sender)
}

#[inline(always)]
fn is_service(protocol: u8, port: u16) -> bool {
    let key = u32::from(protocol) << 16 | u32::from(port);
    SERVICE_PORTS.get_ptr(&key).is_some()
}
