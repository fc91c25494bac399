//! Putting the flow programs on links: as the last of the tcx programs there, or by clsact on kernels without tcx.

use std::collections::HashMap;

use aya::Ebpf;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::clsact::{self, Filter};
use super::error::chain;
use super::hooks::{self, Hooks};
use super::object::{EGRESS, INGRESS};

const HOOKS: [(&str, TcAttachType); 2] = [(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)];

/// What became of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attached {
    /// Programs of others on the two hooks. With tcx ours run after them, with clsact before those that are there: what
    /// a filter of theirs accepts is shown to no filter behind it.
    pub(super) chained: [usize; 2],
    /// `tcx` or `clsact`.
    pub(super) by: &'static str,
    /// Filters that a killed daemon had left on the two hooks, and that ours took the place of.
    pub(super) replaced: [usize; 2],
}

/// Our programs on one link. Dropping it takes them off.
#[derive(Debug, Default)]
struct OnLink {
    programs: Vec<SchedClassifierLink>,
    /// The link, where its clsact is to go with our filters.
    made_qdisc: Option<u32>,
}

impl Drop for OnLink {
    fn drop(&mut self) {
        self.programs.clear();
        if let Some(ifindex) = self.made_qdisc {
            // Gone with the link is as good.
            let _ = clsact::remove_unused_qdisc(ifindex);
        }
    }
}

/// Owns the programs; dropping it detaches everything.
#[derive(Debug)]
pub(super) struct Attacher {
    ebpf: Ebpf,
    tcx: bool,
    links: HashMap<u32, OnLink>,
}

impl Attacher {
    pub(super) fn new(ebpf: Ebpf, tcx: bool) -> Self {
        Self { ebpf, tcx, links: HashMap::new() }
    }

    pub(super) fn attach(&mut self, ifindex: u32, name: &str) -> Result<Attached, String> {
        let mut on_link = OnLink::default();
        let attached = if self.tcx {
            self.attach_tcx(name, &mut on_link)
        } else {
            self.attach_clsact(ifindex, name, &mut on_link)
        }?;
        self.links.insert(ifindex, on_link);
        Ok(attached)
    }

    fn attach_tcx(&mut self, name: &str, on_link: &mut OnLink) -> Result<Attached, String> {
        let mut attached = Attached { by: "tcx", ..Attached::default() };
        for (index, (program, hook)) in HOOKS.into_iter().enumerate() {
            attached.chained[index] =
                SchedClassifier::query_tcx(name, hook).map_or(0, |(_, others)| others.len());
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            on_link.programs.push(self.put(program, name, hook, options)?);
        }
        Ok(attached)
    }

    fn attach_clsact(&mut self, ifindex: u32, name: &str, on_link: &mut OnLink) -> Result<Attached, String> {
        let mut attached = Attached { by: "clsact", ..Attached::default() };
        // Refused where it is there already: then others may rely on it, if it isn't from a killed daemon.
        on_link.made_qdisc = qdisc_add_clsact(name).is_ok().then_some(ifindex);
        let mut found: [(Vec<Filter>, Vec<Filter>); 2] = Default::default();
        for (found, (program, hook)) in found.iter_mut().zip(HOOKS) {
            let filters =
                clsact::filters(ifindex, hook).map_err(|error| format!("listing filters: {error}"))?;
            *found = filters.into_iter().partition(|filter| filter.is_ours(program));
        }
        if found.iter().any(|(stale, _)| stale.iter().any(Filter::made_qdisc)) {
            on_link.made_qdisc = Some(ifindex);
        }
        let handle = clsact::handle(on_link.made_qdisc.is_some());
        for (index, ((program, hook), (stale, others))) in HOOKS.into_iter().zip(&found).enumerate() {
            let options = NlOptions { handle, ..NlOptions::default() };
            on_link.programs.push(self.put(program, name, hook, TcAttachOptions::Netlink(options))?);
            attached.chained[index] = others.len();
            // After ours is there: no packet goes by unseen.
            for filter in stale {
                clsact::remove(ifindex, hook, filter)
                    .map_err(|error| format!("removing {program}: {error}"))?;
                attached.replaced[index] += 1;
            }
        }
        Ok(attached)
    }

    fn put(
        &mut self,
        program: &str,
        link: &str,
        hook: TcAttachType,
        options: TcAttachOptions,
    ) -> Result<SchedClassifierLink, String> {
        let program = self.ebpf.program_mut(program).ok_or("the program is not loaded")?;
        let program: &mut SchedClassifier = program.try_into().map_err(|e| chain(&e))?;
        let id = program.attach_with_options(link, hook, options).map_err(|e| chain(&e))?;
        program.take_link(id).map_err(|e| chain(&e))
    }

    pub(super) fn detach(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// Ids of the flow programs, ingress first; `None` where they are not loaded.
    pub(super) fn program_ids(&self) -> Option<[u32; 2]> {
        let id = |program| {
            let program: &SchedClassifier = self.ebpf.program(program)?.try_into().ok()?;
            Some(program.info().ok()?.id())
        };
        Some([id(INGRESS)?, id(EGRESS)?])
    }

    /// What is on the hooks of a link that was attached to; `None` where the kernel doesn't say.
    pub(super) fn hooks(&self, ifindex: u32, name: &str, programs: [u32; 2]) -> Option<Hooks> {
        hooks::look(name, ifindex, &self.links.get(&ifindex)?.programs, programs)
    }

    /// Takes every program off its hook, the tracing ones too.
    pub(super) fn detach_all(self) {
        drop(self);
    }
}
