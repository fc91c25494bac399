//! The page as text.

use super::{
    dns::Name,
    report::{Counted, Endpoint, Endpoints, Port, Report},
};
use crate::{
    answers::{
        about::or_dash,
        table::{self, Column, cleaned},
    },
    text::{
        status::{counted, grouped},
        wide::columns::width,
    },
};
use std::fmt::Write as _;

/// Of what stands below a heading.
const INDENT: usize = 2;

const NOT_OBSERVED: &str = "not observed";
/// What only Observer's daemon counts.
const NOT_TOLD: &str = "not known: this server does not tell them";

const PORTS: [Column; 5] = [
    Column::word("PORT"),
    Column::word("STATE"),
    Column::number("FLOWS").rank(2),
    Column::number("ANSWERS").rank(3),
    Column::name("WHY").rank(1),
];

const DROPS: [Column; 8] = [
    Column::word("PORT"),
    Column::number("PACKETS"),
    Column::word("LAST").rank(1),
    Column::word("REASON"),
    Column::word("PLACE").rank(2),
    Column::name("TO").rank(5),
    Column::word("ADDRESS").rank(4),
    Column::name("NODE").rank(3),
];

const NAMES: [Column; 6] = [
    Column::name("NAME"),
    Column::number("QUERIES").rank(3),
    Column::number("ANSWERS").rank(4),
    Column::word("CODES"),
    Column::number("SLOWEST").rank(2),
    Column::name("ADDRESSES").rank(1),
];

const ENDPOINTS: [Column; 3] = [Column::name("ENDPOINT"), Column::word("STATE"), Column::name("POD")];
const BACKENDS: [Column; 4] =
    [Column::name("BACKEND"), Column::number("FLOWS"), Column::number("ANSWERS"), Column::number("DROPS")];

impl Report {
    /// One page; lines of at most `line` cells, but for words longer than that.
    pub fn text(&self, line: Option<usize>) -> String {
        let mut page = Page { out: String::new(), line };
        page.paragraph(0, &self.question);
        page.out.push('\n');
        page.paragraph(0, &format!("{}: {}", self.outcome.word(), self.sentence));
        if let Some(advice) = &self.advice {
            page.paragraph(0, &format!("next: {advice}"));
        }
        self.ports(&mut page);
        self.drops(&mut page);
        self.connections(&mut page);
        self.services(&mut page);
        page.heading("POLICY");
        page.counted(self.policies.as_deref(), NOT_OBSERVED, "none");
        self.dns(&mut page);
        page.heading("NOT SEEN");
        if self.not_seen.is_empty() {
            page.paragraph(INDENT, "nothing that was looked for is missing");
        }
        for missing in &self.not_seen {
            page.paragraph(INDENT, missing);
        }
        page.out.push('\n');
        let mut about = String::new();
        // Writing to a string can't fail, here and below.
        let _ = self.about.write(&mut about);
        page.paragraph(0, about.trim_end());
        page.out
    }

    fn ports(&self, page: &mut Page) {
        if self.ports.len() > 1 {
            page.heading("PORTS");
            let row = |port: &Port| {
                vec![
                    port.port.clone(),
                    port.outcome.word().to_owned(),
                    grouped(port.flows),
                    grouped(port.answers),
                    port.sentence.clone(),
                ]
            };
            page.table(&PORTS, &self.ports.iter().map(row).collect::<Vec<_>>());
        }
        if self.unjudged > 0 {
            page.paragraph(INDENT, &format!("of further ports: {}", counted(self.unjudged, "flow")));
        }
    }

    fn drops(&self, page: &mut Page) {
        page.heading("DROPS");
        let rows: Vec<Vec<String>> = self
            .ports
            .iter()
            .flat_map(|port| port.drops.iter().map(move |drop| (&port.port, drop)))
            .chain(self.icmp_drops.iter().map(|error| (&error.protocol, &error.drop)))
            .map(|(port, drop)| {
                vec![
                    port.clone(),
                    or_dash(drop.packets, grouped),
                    drop.last.clock(),
                    drop.reason.clone(),
                    // Of what policies deny the kernel has none.
                    match (&drop.kernel_location, &drop.policies[..]) {
                        (Some(place), _) => place.clone(),
                        (None, []) => "-".to_owned(),
                        (None, policies) => policies.join(" "),
                    },
                    drop.to.clone(),
                    drop.address.clone(),
                    drop.node.clone(),
                ]
            })
            .collect();
        if rows.is_empty() {
            page.paragraph(INDENT, "none seen");
        } else {
            page.table(&DROPS, &rows);
        }
    }

    fn connections(&self, page: &mut Page) {
        let sum = |count: fn(&Port) -> u64| self.ports.iter().map(count).sum::<u64>();
        page.heading("CONNECTIONS");
        let refused = sum(|port| port.refused);
        let (by_client, by_server) = (sum(|port| port.resets_by_client), sum(|port| port.resets_by_server));
        let failed: Option<u64> = self.ports.iter().map(|port| port.failed_connects).sum();
        for (name, text) in [
            ("retransmits", self.retransmits.map_or_else(|| NOT_TOLD.to_owned(), grouped)),
            (
                "resets",
                format!(
                    "{} in place of an answer, {} by the server later, {} by the client",
                    grouped(refused),
                    grouped(by_server),
                    grouped(by_client)
                ),
            ),
            ("never answered", failed.map_or_else(|| NOT_TOLD.to_owned(), |sum| counted(sum, "connect"))),
        ] {
            page.paragraph(INDENT, &format!("{name}: {text}"));
        }
        let dropped = self.icmp_drops.iter().map(|error| Counted {
            what: format!("{}, {}", error.what, error.drop.reason),
            flows: error.drop.flows,
        });
        for (errors, title) in [
            (
                self.icmp_errors.clone(),
                "ICMP errors that the first received (whose packets they answer is not told):",
            ),
            (dropped.collect(), "ICMP errors for the first that were dropped:"),
        ] {
            if !errors.is_empty() {
                page.paragraph(INDENT, title);
                page.counted(Some(&errors), "", "");
            }
        }
    }

    fn services(&self, page: &mut Page) {
        page.heading("SERVICE");
        if self.services.is_empty() {
            let is_seen = !self.ports.is_empty();
            let text = if is_seen { "none: the flows seen went to the address itself" } else { "none seen" };
            page.paragraph(INDENT, text);
        }
        for service in &self.services {
            let frontend =
                service.frontend.as_ref().map_or_else(String::new, |frontend| format!(" at {frontend}"));
            let seen = if service.backends.is_empty() { "no flow through it seen" } else { "backends seen:" };
            page.paragraph(INDENT, &format!("{}{frontend}, {seen}", service.name));
            let rows = service.backends.iter().map(|backend| {
                vec![
                    backend.name.clone(),
                    grouped(backend.flows),
                    grouped(backend.answers),
                    grouped(backend.drops),
                ]
            });
            page.table(&BACKENDS, &rows.collect::<Vec<_>>());
            if let Some(endpoints) = &service.endpoints {
                page.endpoints(endpoints);
            }
        }
    }

    fn dns(&self, page: &mut Page) {
        page.heading("DNS");
        let Some(dns) = &self.dns else { return page.paragraph(INDENT, NOT_OBSERVED) };
        if dns.names.is_empty() {
            page.paragraph(INDENT, "the first asked for no name of the second");
        }
        page.names(&dns.names);
        if !dns.failed.is_empty() {
            page.paragraph(INDENT, "other names that were asked for in vain:");
            page.names(&dns.failed);
        }
        if dns.others > 0 {
            page.paragraph(INDENT, &format!("no answer failed for {}", counted(dns.others, "other name")));
        }
        if dns.unlisted > 0 {
            let unlisted = grouped(dns.unlisted);
            page.paragraph(INDENT, &format!("{unlisted} questions or answers were about further names"));
        }
    }

    /// One object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

struct Page {
    out: String,
    line: Option<usize>,
}

impl Page {
    fn endpoints(&mut self, Endpoints { known, more }: &Endpoints) {
        if known.is_empty() {
            return self.paragraph(INDENT, "no endpoint stands behind it");
        }
        let row = |one: &Endpoint| vec![one.address.clone(), one.state.clone(), one.pod.clone()];
        self.table(&ENDPOINTS, &known.iter().map(row).collect::<Vec<_>>());
        if *more > 0 {
            self.paragraph(INDENT, &format!("and {} endpoints more", grouped(*more)));
        }
    }

    fn heading(&mut self, title: &str) {
        let _ = writeln!(self.out, "\n{title}");
    }

    fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        let _ = table::write(columns, rows, INDENT, self.line, &mut self.out);
    }

    fn counted(&mut self, rows: Option<&[Counted]>, absent: &str, empty: &str) {
        match rows {
            None => self.paragraph(INDENT, absent),
            Some([]) => self.paragraph(INDENT, empty),
            Some(rows) => {
                for row in rows {
                    self.paragraph(INDENT, &format!("{}: {}", row.what, counted(row.flows, "flow")));
                }
            }
        }
    }

    fn names(&mut self, names: &[Name]) {
        let rows = names.iter().map(|name| {
            vec![
                name.name.clone(),
                grouped(name.queries),
                grouped(name.answers),
                Some(name.codes()).filter(|codes| !codes.is_empty()).unwrap_or_else(|| "-".to_owned()),
                name.slowest_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms")),
                if name.addresses.is_empty() { "-".to_owned() } else { name.addresses.join(" ") },
            ]
        });
        if !names.is_empty() {
            self.table(&NAMES, &rows.collect::<Vec<_>>());
        }
    }

    /// Breaks lines between words.
    fn paragraph(&mut self, indent: usize, text: &str) {
        let (mut at, mut is_first) = (0, true);
        for word in cleaned(text).split(' ') {
            let cells = width(word);
            if !is_first && self.line.is_some_and(|line| at + 1 + cells > line.max(indent + 20)) {
                self.out.push('\n');
                at = 0;
            }
            if is_first || at == 0 {
                // What continues stands under it, a little further in.
                at = if is_first { indent } else { indent + 2 };
                is_first = false;
                let _ = write!(self.out, "{:at$}", "");
            } else {
                self.out.push(' ');
                at += 1;
            }
            self.out.push_str(word);
            at += cells;
        }
        self.out.push('\n');
    }
}
