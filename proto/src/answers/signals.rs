//! Golden signals: requests, failures and times of HTTP and DNS, by server and by route. The daemon counts with these sums over
//! all flows; where it doesn't, `Signals` makes the same answer of the flows that were read.

use super::{
    ends,
    groups::{Counts, Groups},
};
use crate::{
    flow::{Flow, Http, L7FlowType, Layer7, layer7::Record},
    stats::{CodeCount, GetSignalsResponse, ProtocolSignals, Signal, Window},
};
use prost_types::Duration;
use std::{
    borrow::Cow,
    fmt::{Display, Formatter, Result as Write},
    hash::Hash,
    ops::AddAssign,
};

/// Rows kept of servers, and of routes, of each protocol.
const MOST: usize = 1024;
/// Upper bounds of the buckets of time, in microseconds; the last bucket has none.
pub const BOUNDS_US: [u64; 17] = [
    50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];
/// Of fewer answers a percentile says nothing.
pub const LEAST_ANSWERS: u64 = 20;

const HTTP_CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const DNS_CODES: [&str; 5] = ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "other codes"];

/// A protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Routes are method and path.
    #[default]
    Http,
    /// Routes are types and names.
    Dns,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http, Self::Dns];
}

/// What is counted of a row. Small, since the daemon keeps one for each five seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    requests: u32,
    /// Responses, by [`HTTP_CODES`] or [`DNS_CODES`].
    codes: [u32; 5],
    /// Responses whose time is known, by [`BOUNDS_US`].
    times: [u32; BOUNDS_US.len() + 1],
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let add = |own: &mut u32, other: u32| *own = own.saturating_add(other);
        add(&mut self.requests, other.requests);
        self.codes.iter_mut().zip(other.codes).for_each(|(own, other)| add(own, other));
        self.times.iter_mut().zip(other.times).for_each(|(own, other)| add(own, other));
    }
}

impl Counts for Sums {
    fn weight(&self) -> (u64, u64) {
        (u64::from(self.requests) + self.responses(), 0)
    }
}

impl Sums {
    /// Of one request or response; nothing for other protocols.
    pub fn of(l7: &Layer7) -> Option<(Protocol, Self)> {
        let (protocol, code) = match l7.record.as_ref()? {
            // A status is of three digits.
            Record::Http(http) => (Protocol::Http, (http.code as usize / 100).clamp(1, 5) - 1),
            Record::Dns(dns) => (Protocol::Dns, dns_code(dns.rcode)),
            #[expect(deprecated, reason = "Hubble tells none any more")]
            Record::Kafka(..) => return None,
        };
        let mut sums = Self::default();
        match l7.r#type() {
            L7FlowType::Request => sums.requests = 1,
            L7FlowType::Response => {
                sums.codes[code] = 1;
                if l7.latency_ns > 0 {
                    let bucket = BOUNDS_US.partition_point(|bound| bound * 1000 <= l7.latency_ns);
                    sums.times[bucket] = 1;
                }
            }
            L7FlowType::UnknownL7Type | L7FlowType::Sample => return None,
        }
        Some((protocol, sums))
    }

    fn responses(&self) -> u64 {
        self.codes.iter().copied().map(u64::from).sum()
    }

    /// As the message.
    pub fn told(&self, protocol: Protocol, server: &str, route: &str) -> Signal {
        let [first, second, third, fourth, fifth] = self.codes.map(u64::from);
        let (names, client_errors, server_errors) = match protocol {
            Protocol::Http => (HTTP_CODES, fourth, fifth),
            Protocol::Dns => (DNS_CODES, second, third + fourth + fifth),
        };
        let codes = names.into_iter().zip([first, second, third, fourth, fifth]);
        let codes = codes.filter(|(_, responses)| *responses > 0);
        let times = self.times.map(u64::from);
        let percentile = |share| match percentile(&times, share) {
            Percentile::Below(bound_us) => Some(Duration {
                seconds: (bound_us / 1_000_000) as i64,
                nanos: (bound_us % 1_000_000 * 1000) as i32,
            }),
            Percentile::Unknown | Percentile::Above => None,
        };
        Signal {
            server: server.to_owned(),
            route: route.to_owned(),
            requests: self.requests.into(),
            responses: self.responses(),
            client_errors,
            server_errors,
            p50: percentile(0.5),
            p90: percentile(0.9),
            p99: percentile(0.99),
            codes: codes.map(|(code, responses)| CodeCount { code: code.to_owned(), responses }).collect(),
            times: times.into(),
        }
    }
}

fn dns_code(rcode: u32) -> usize {
    match rcode {
        0 => 0,
        3 => 1,
        2 => 2,
        5 => 3,
        _ => 4,
    }
}

/// IANA's name of a code of DNS.
pub fn rcode(code: u32) -> String {
    match code {
        0 => "NOERROR".into(),
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        other => format!("RCODE{other}"),
    }
}

/// Where a share of the times is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    /// Below this many microseconds.
    Below(u64),
    /// Above all bounds.
    Above,
    /// Too few times are known.
    Unknown,
}

/// Where this share of the times is, which are counted by [`BOUNDS_US`].
pub fn percentile(times: &[u64], share: f64) -> Percentile {
    let all: u64 = times.iter().sum();
    if all < LEAST_ANSWERS {
        return Percentile::Unknown;
    }
    let wanted = (all as f64 * share).ceil() as u64;
    let mut sum = 0;
    let at = times.iter().position(|count| {
        sum += count;
        sum >= wanted
    });
    at.and_then(|at| BOUNDS_US.get(at)).map_or(Percentile::Above, |bound| Percentile::Below(*bound))
}

/// What is asked for of a server; two are equal whose texts are.
#[derive(Clone, Debug, Hash)]
pub struct Route<'a> {
    /// Method or types.
    what: Cow<'a, str>,
    /// Path or name.
    of: &'a str,
}

impl<'a> Route<'a> {
    /// Of a request or response; nothing for other protocols.
    pub fn of(l7: &'a Layer7) -> Option<Self> {
        match l7.record.as_ref()? {
            Record::Http(http) => Some(Self { what: http.method.as_str().into(), of: path(http) }),
            Record::Dns(dns) => {
                let what = match &dns.qtypes[..] {
                    [one] => one.into(),
                    more => more.join(",").into(),
                };
                Some(Self { what, of: dns.query.trim_end_matches('.') })
            }
            #[expect(deprecated, reason = "Hubble tells none any more")]
            Record::Kafka(..) => None,
        }
    }
}

impl Display for Route<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Write {
        write!(f, "{} {}", self.what, self.of)
    }
}

/// Without what stands behind `?`.
fn path(http: &Http) -> &str {
    let url = &http.url;
    let path = url.find("://").map_or(url.as_str(), |at| {
        let rest = &url[at + 3..];
        rest.find('/').map_or("/", |slash| &rest[slash..])
    });
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Takes in flows that were read.
#[derive(Debug)]
pub(super) struct Signals([[Groups<(String, String), Sums>; 2]; Protocol::ALL.len()]);

impl Default for Signals {
    fn default() -> Self {
        Self([(); 2].map(|()| [(); 2].map(|()| Groups::new(MOST))))
    }
}

impl Signals {
    /// Takes in a flow; whether it is one of HTTP or DNS.
    pub(super) fn flow(&mut self, flow: &Flow) -> bool {
        let l7 = flow.l7.as_ref();
        let Some(((protocol, sums), route)) = l7.and_then(Sums::of).zip(l7.and_then(Route::of)) else {
            return false;
        };
        let server = ends::workload(flow, ends::callers(flow).1);
        let [servers, routes] = &mut self.0[protocol as usize];
        servers.add((server.clone(), String::new()), sums);
        routes.add((server, route.to_string()), sums);
        true
    }

    pub(super) fn answer(&self, window: Option<Window>) -> GetSignalsResponse {
        let told = |protocol| {
            let [servers, routes] = &self.0[protocol as usize];
            let rows = |groups: &Groups<(String, String), Sums>| {
                let (rows, other) = groups.heaviest(MOST);
                let told =
                    rows.iter().map(|((server, route), sums)| sums.told(protocol, server, route)).collect();
                (told, (other.rows > 0).then(|| other.counts.told(protocol, "", "")))
            };
            let (servers, other_servers) = rows(servers);
            let (routes, other_routes) = rows(routes);
            ProtocolSignals { servers, other_servers, routes, other_routes }
        };
        GetSignalsResponse {
            not_built_in: String::new(),
            window,
            http: Some(told(Protocol::Http)),
            dns: Some(told(Protocol::Dns)),
            bounds_us: BOUNDS_US.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Dns;

    fn answer(record: Record, us: u64) -> Flow {
        let l7 = Layer7 { r#type: L7FlowType::Response as i32, latency_ns: us * 1000, record: Some(record) };
        Flow { l7: Some(l7), is_reply: Some(true), ..Flow::default() }
    }

    #[test]
    fn answers_are_counted_by_route() {
        let mut signals = Signals::default();
        for (code, us) in [(200, 3000), (404, 3000), (500, 30_000_000)] {
            let http = Http {
                code,
                method: "GET".into(),
                url: format!("http://cart:80/cart/7?user={us}"),
                ..Http::default()
            };
            assert!(signals.flow(&answer(Record::Http(http), us)));
        }
        let mut asked = answer(Record::Dns(Dns { query: "a.b.".into(), ..Dns::default() }), 0);
        asked.l7.as_mut().unwrap().r#type = L7FlowType::Request as i32;
        assert!(signals.flow(&asked));
        let qtypes = vec!["A".into()];
        let dns = Dns { query: "a.b.".into(), rcode: 3, qtypes, ..Dns::default() };
        assert!(signals.flow(&answer(Record::Dns(dns), 0)));
        assert!(!signals.flow(&Flow::default()));

        let told = signals.answer(None);
        let http = told.http.unwrap();
        let [route] = &http.routes[..] else { panic!("{http:?}") };
        assert_eq!((&*route.route, route.requests, route.responses), ("GET /cart/7", 0, 3));
        assert_eq!((route.client_errors, route.server_errors, route.times[6], route.times[17]), (1, 1, 2, 1));
        assert_eq!((&http.servers[0].times, &*http.servers[0].route), (&route.times, ""));
        assert_eq!(http.other_routes, None);
        let dns = told.dns.unwrap();
        assert_eq!((dns.servers.len(), dns.servers[0].requests, dns.servers[0].responses), (1, 1, 1));
        let code = CodeCount { code: "NXDOMAIN".into(), responses: 1 };
        let row = dns.routes.iter().find(|row| row.route == "A a.b").unwrap();
        assert_eq!((&row.codes, row.client_errors), (&vec![code], 1));
    }

    #[test]
    fn percentiles_are_bounds_and_few_answers_have_none() {
        let mut times = [0; BOUNDS_US.len() + 1];
        times[0] = LEAST_ANSWERS - 1;
        assert_eq!(percentile(&times, 0.5), Percentile::Unknown);
        times[4] = 1;
        assert_eq!([0.5, 0.99].map(|share| percentile(&times, share)), [50, 1000].map(Percentile::Below));
        times[17] = 30;
        assert_eq!(percentile(&times, 0.99), Percentile::Above);
        // A time of a bound's length is not below it.
        let at =
            |us| Sums::of(answer(Record::Http(Http::default()), us).l7.as_ref().unwrap()).unwrap().1.times;
        assert_eq!((at(49)[0], at(50)[1], at(9_999_999)[16], at(10_000_000)[17]), (1, 1, 1, 1));
    }
}
