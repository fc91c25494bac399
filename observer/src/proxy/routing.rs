//! The policy routing that brings marked packets to the node's own sockets, wherever they are sent to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use observer_ebpf::proxy::{TO_PROXY, TO_PROXY_MASK};
use rustix::io::Errno;

use crate::capture::netlink::ask;

/// The table with one route: everything is local.
const TABLE: u32 = 2013;
/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
const MAIN: u32 = 254;
/// Before the rules of those who route pods' packets by tables of their own.
const PRIORITY: u32 = 101;
/// The kernel names the sender `lo` where it looks for the way back to one, or sends itself. With `src_valid_mark` or
/// `fwmark_reflect` it does so under the packet's mark, and our route would make every sender an address of the node.
const BACK_PRIORITY: u32 = PRIORITY - 1;
/// `RTPROT_STATIC`: routing daemons leave it alone.
const PROTOCOL: RouteProtocol = RouteProtocol::Static;
/// Every namespace's loopback link has this index.
const LOOPBACK: u32 = 1;

/// The rules and the routes; they are there as long as this value.
#[derive(Debug)]
pub struct Routing {
    families: Vec<AddressFamily>,
}

impl Routing {
    /// Sets them up in the calling thread's network namespace. What an earlier daemon left is gone on with. A kernel without
    /// IPv6 has none of it.
    pub fn set_up() -> io::Result<Self> {
        let mut routing = Self { families: Vec::new() };
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            match add(family) {
                Err(error) if family == AddressFamily::Inet6 && has_no_ipv6(&error) => {}
                added => {
                    // What was added before an error goes too.
                    routing.families.push(family);
                    added?;
                }
            }
        }
        Ok(routing)
    }

    /// Whether IPv6 has them too.
    pub fn has_ipv6(&self) -> bool {
        self.families.contains(&AddressFamily::Inet6)
    }

    /// Leaves them to the next daemon, for programs that stay.
    pub fn leave(mut self) {
        self.families.clear();
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        // Deleted from another namespace they are none of ours, and not there.
        for family in self.families.drain(..) {
            remove(family);
        }
    }
}

/// Takes away what a daemon left, if it did.
pub fn take_down() {
    remove(AddressFamily::Inet);
    remove(AddressFamily::Inet6);
}

fn remove(family: AddressFamily) {
    for rule in rules(family) {
        // It may not be there, and nobody can do anything about another error.
        let _ = ask(RouteNetlinkMessage::DelRule(rule), NLM_F_ACK);
    }
    let _ = ask(RouteNetlinkMessage::DelRoute(route(family)), NLM_F_ACK);
}

fn add(family: AddressFamily) -> io::Result<()> {
    // First the route: a rule before it would lead nowhere.
    ask(RouteNetlinkMessage::NewRoute(route(family)), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)?;
    for rule in rules(family) {
        match ask(RouteNetlinkMessage::NewRule(rule), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
            added => {
                added?;
            }
        }
    }
    Ok(())
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let codes = [Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::NODEV].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn route(family: AddressFamily) -> RouteMessage {
    let all: IpAddr = if family == AddressFamily::Inet {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    route.header.kind = RouteType::Local;
    route.header.scope = if all.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    route.header.protocol = PROTOCOL;
    route.attributes = vec![RouteAttribute::Table(TABLE), RouteAttribute::Oif(LOOPBACK)];
    route
}

fn rules(family: AddressFamily) -> [RuleMessage; 2] {
    let rule = |priority, table, iif: Option<&str>| {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Priority(priority),
            RuleAttribute::FwMark(TO_PROXY),
            RuleAttribute::FwMask(TO_PROXY_MASK),
            RuleAttribute::Table(table),
            RuleAttribute::Protocol(PROTOCOL),
        ];
        rule.attributes.extend(iif.map(|name| RuleAttribute::Iifname(name.to_owned())));
        rule
    };
    [rule(BACK_PRIORITY, MAIN, Some("lo")), rule(PRIORITY, TABLE, None)]
}
