//! Which program is on which hook of an interface, in the order in which they run.

use super::{Chosen, Inspection, give};
use crate::{
    capture::{LinkKind, OnHook},
    serve::Answer,
};
use observer_proto::control::{InspectResponse, InspectedLink};

impl Inspection {
    pub(super) fn links(&self, chosen: &Chosen, answer: &Answer) {
        let (hooks, notes) = self.inspector.hooks(&chosen.links());
        let status = self.status.status();
        let mut shown = Vec::new();
        for link in status.links.iter().filter(|status| chosen.has(&status.link.name)) {
            let of = InspectedLink {
                index: link.link.ifindex,
                interface: link.link.name.clone(),
                kind: kind(link.link.kind).to_owned(),
                endpoint: self.behind.name(link.link.ifindex),
                ..InspectedLink::default()
            };
            for (number, traffic) in [link.ingress, link.egress].into_iter().enumerate() {
                let here = hooks.iter().filter(|on| on.ifindex == of.index && on.hook == number);
                let of = InspectedLink { hook: hook(number).to_owned(), ..of.clone() };
                let counted = InspectedLink {
                    packets: Some(traffic.packets),
                    bytes: Some(traffic.bytes),
                    ..of.clone()
                };
                if !here.clone().any(|on| on.ours) {
                    let problem =
                        link.link.error.as_deref().unwrap_or("taken off; it is put on again in seconds");
                    shown.push(InspectedLink { ours: true, problem: problem.to_owned(), ..counted.clone() });
                }
                shown.extend(here.map(|on| place(on, if on.ours { counted.clone() } else { of.clone() })));
            }
        }
        if give(answer, shown, |links| InspectResponse { links, ..InspectResponse::default() }) {
            answer.give(InspectResponse { notes, ..InspectResponse::default() });
        }
    }
}

fn place(on: &OnHook, link: InspectedLink) -> InspectedLink {
    InspectedLink {
        by: on.by.to_owned(),
        program_id: on.program,
        program: on.name.clone(),
        ours: on.ours,
        position: on.position,
        of: on.of,
        link_id: on.link,
        pinned: on.pinned,
        ..link
    }
}

/// As tcx names it, by its number.
pub(super) fn hook(number: usize) -> &'static str {
    ["ingress", "egress"][number]
}

pub(super) fn kind(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Pod => "pod",
        LinkKind::Uplink => "uplink",
        LinkKind::Tunnel => "tunnel",
        LinkKind::Bridge => "bridge",
    }
}
