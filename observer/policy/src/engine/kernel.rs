//! The tables as the kernel's maps hold them: rows by table and peer, and the cuts that they are made of.

use super::{Class, Decision, Engine, NO_GROUP, PeerId, SubjectId, peers::Peer, table::Table};
use crate::{model::Direction, world::Endpoint};
use hashbrown::HashSet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{mem, net::IpAddr, ops::Range, sync::Arc};

/// More addresses than these are not told one by one.
const MOST_TOUCHED: usize = 1 << 16;

/// The number of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// All rows of a table.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The table.
    pub table: TableId,
    rows: &'a Table,
}

impl<'a> Rows<'a> {
    /// From which protocol and port on which decision holds: one row after the other, each in order and from 0 on. The
    /// protocol stands in the third byte, the port below it.
    pub fn cuts(&self) -> &'a [(u32, Decision)] {
        self.rows.all_cuts()
    }

    /// Each peer that has a row, `None` for all others, with the row's place among the cuts. Many peers have the same.
    pub fn places(&self) -> impl Iterator<Item = (Option<PeerId>, Range<usize>)> + use<'a> {
        self.rows.places().map(|(peer, place)| (peer.map(PeerId), place))
    }
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// As a subject.
    pub subject: SubjectId,
    /// As a peer.
    pub peer: PeerId,
    /// Whether it is the own node.
    pub is_host: bool,
    /// Whether it is a node, own or other.
    pub is_node: bool,
}

/// What of all this has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Anything.
    All,
    /// Nothing but who has these addresses.
    Addresses(HashSet<IpAddr>),
}

impl Touched {
    pub(super) fn address(&mut self, address: IpAddr) {
        if let Self::Addresses(addresses) = self {
            addresses.insert(address);
            if addresses.len() > MOST_TOUCHED {
                *self = Self::All;
            }
        }
    }
}

impl Engine {
    /// What has changed since this was asked for the last time.
    pub fn touched(&mut self) -> Touched {
        mem::replace(&mut self.touched, Touched::Addresses(HashSet::new()))
    }

    /// Takes the addresses of an endpoint for such as have changed: the caller says something else of it.
    pub fn touch(&mut self, name: &str) {
        for address in self.endpoints.get(name).iter().flat_map(|known| &known.endpoint.addresses) {
            self.touched.address(*address);
        }
    }

    /// All tables with their rows.
    pub fn tables(&self) -> impl Iterator<Item = Rows<'_>> {
        let tables = self.tables.iter();
        tables.filter_map(|(table, rows)| Some(Rows { table: TableId(table as u32), rows: rows.as_ref()? }))
    }

    /// The tables that a kind of endpoint is judged by at egress and at ingress.
    pub fn sides(&self) -> impl Iterator<Item = (SubjectId, [Option<TableId>; 2])> {
        self.classes.iter().map(|(class, _)| {
            let table = |direction| self.tables_of[class][direction as usize].map(TableId);
            (SubjectId(class as u32), [Direction::Egress, Direction::Ingress].map(table))
        })
    }

    /// Every endpoint by the caller's name, and its kind.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Arc<str>, SubjectId, &Endpoint)> {
        self.known().map(|(name, class, endpoint)| (name, SubjectId(class), endpoint))
    }

    /// Every address that is an endpoint's, with the endpoint's name.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<str>, At)> {
        self.of_address
            .keys()
            .filter_map(|address| self.owner(*address).map(|(name, at)| (*address, name, at)))
    }

    /// Who has an address, with the endpoint's name.
    pub fn owner(&self, address: IpAddr) -> Option<(&Arc<str>, At)> {
        let (name, peer) = self.of_address.get(&address)?;
        let class = self.endpoints.get(name)?.class;
        let Class { is_host, ref labels, .. } = self.classes[class as usize];
        let at = At { subject: SubjectId(class), peer: PeerId(*peer), is_host, is_node: labels.is_node() };
        Some((name, at))
    }

    /// The world's peers by net, those of all addresses first: of several entries for a net the last one counts, and the
    /// longest net that has an address decides, as [`Engine::peer_at`] says.
    pub fn world_nets(&self) -> impl Iterator<Item = (IpNet, PeerId)> + '_ {
        let all = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        all.into_iter().map(|net| (net, NO_GROUP)).chain(self.addresses.nets()).filter_map(|(net, group)| {
            let class = self.world[usize::from(matches!(net, IpNet::V6(_)))];
            self.peers.number(Peer { class, group }).map(|number| (net, PeerId(number)))
        })
    }
}
