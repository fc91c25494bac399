//! Golden signals: requests and responses of HTTP and DNS by server, and by server and route.

use super::{
    BUCKETS,
    names::{Name, Names},
    table::{Counts, Row, Table},
};
use crate::{flow::Tristate, store::Stored};
use hashbrown::Equivalent;
use observer_proto::answers::{
    groups,
    signals::{Protocol, Route, Sums},
};

/// Rows of each protocol: a row is some 100 bytes for each five seconds in which it was asked.
const MOST_SERVERS: usize = 256;
const MOST_ROUTES: usize = 512;

/// Who was asked, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SignalKey {
    /// Who was asked.
    pub server: Name,
    /// Method and path, or type and name; empty where all of the server are meant.
    pub route: Name,
}

/// A [`SignalKey`] to look for.
#[derive(Hash)]
struct Wanted {
    server: u64,
    route: u64,
}

impl Equivalent<SignalKey> for Wanted {
    fn equivalent(&self, key: &SignalKey) -> bool {
        (self.server, self.route) == (key.server.id, key.route.id)
    }
}

impl Counts for Sums {
    fn weight(&self) -> (u64, u64) {
        groups::Counts::weight(self)
    }
}

/// Of a protocol.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) servers: Table<SignalKey, Sums>,
    pub(super) routes: Table<SignalKey, Sums>,
}

impl Default for Signals {
    fn default() -> Self {
        Self { servers: Table::new(MOST_SERVERS, BUCKETS), routes: Table::new(MOST_ROUTES, BUCKETS) }
    }
}

impl Signals {
    pub(super) fn turn(&mut self) {
        self.servers.turn();
        self.routes.turn();
    }

    pub(super) fn folded(&self) -> u64 {
        self.servers.folded() + self.routes.folded()
    }
}

/// Of all protocols.
#[derive(Debug, Default)]
pub(super) struct AllSignals([Signals; Protocol::ALL.len()]);

impl AllSignals {
    pub(super) fn of(&self, protocol: Protocol) -> &Signals {
        &self.0[protocol as usize]
    }

    pub(super) fn turn(&mut self) {
        self.0.iter_mut().for_each(Signals::turn);
    }

    pub(super) fn folded(&self) -> u64 {
        self.0.iter().map(Signals::folded).sum()
    }

    /// Counts a request or a response; says whether it is of what is counted.
    pub(super) fn examine(&mut self, stored: &Stored<'_>, names: &mut Names) -> bool {
        let flow = stored.flow();
        let l7 = flow.l7.map(|l7| l7.message());
        let Some(((protocol, sums), route)) = l7.and_then(Sums::of).zip(l7.and_then(Route::of)) else {
            return false;
        };
        let server = if flow.is_reply == Tristate::Yes { flow.source } else { flow.destination };
        let name = &names.end(server.serial(), server).name;
        let of_server = Wanted { server: name.id, route: 0 };
        let signals = &mut self.0[protocol as usize];
        let key = || SignalKey { server: name.clone(), route: Name::default() };
        let row: Row = signals.servers.row(&of_server, key);
        signals.servers.add(row, sums);
        let name = name.clone();
        let id = names.id(&route);
        let key = || SignalKey { server: name.clone(), route: Name { id, text: route.to_string().into() } };
        let row = signals.routes.row(&Wanted { server: name.id, route: id }, key);
        signals.routes.add(row, sums);
        true
    }
}
