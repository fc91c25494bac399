//! Putting the flow programs on links: as the last of the tcx programs there, or by clsact on kernels without tcx.

use std::collections::HashMap;

use aya::Ebpf;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::error::chain;
use super::hooks::{self, Hooks};
use super::object::{EGRESS, INGRESS};

/// What became of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attached {
    /// Programs of others on the two hooks; ours run after them.
    pub(super) chained: [usize; 2],
    /// `tcx` or `clsact`.
    pub(super) by: &'static str,
}

/// Owns the programs; dropping it detaches everything.
#[derive(Debug)]
pub(super) struct Attacher {
    ebpf: Ebpf,
    links: HashMap<u32, Vec<SchedClassifierLink>>,
}

impl Attacher {
    pub(super) fn new(ebpf: Ebpf) -> Self {
        Self { ebpf, links: HashMap::new() }
    }

    pub(super) fn attach(&mut self, ifindex: u32, name: &str) -> Result<Attached, String> {
        let mut attached = Attached::default();
        let mut links = Vec::with_capacity(2);
        let hooks = [(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)];
        for (index, (program, hook)) in hooks.into_iter().enumerate() {
            attached.chained[index] =
                SchedClassifier::query_tcx(name, hook).map_or(0, |(_, others)| others.len());
            let program = self.ebpf.program_mut(program).ok_or("the program is not loaded")?;
            let program: &mut SchedClassifier = program.try_into().map_err(|e| chain(&e))?;
            let tcx =
                program.attach_with_options(name, hook, TcAttachOptions::TcxOrder(LinkOrder::default()));
            let id = match tcx {
                Ok(id) => {
                    attached.by = "tcx";
                    id
                }
                // Kernels before 6.6 have no tcx.
                Err(tcx) => {
                    // It is there already where others attach this way too.
                    let _ = qdisc_add_clsact(name);
                    attached.by = "clsact";
                    program
                        .attach_with_options(name, hook, TcAttachOptions::Netlink(NlOptions::default()))
                        .map_err(|clsact| format!("tcx: {}; clsact: {}", chain(&tcx), chain(&clsact)))?
                }
            };
            links.push(program.take_link(id).map_err(|e| chain(&e))?);
        }
        self.links.insert(ifindex, links);
        Ok(attached)
    }

    pub(super) fn detach(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// What is on the hooks of a link that was attached to; `None` where the kernel doesn't say.
    pub(super) fn hooks(&self, ifindex: u32, name: &str) -> Option<Hooks> {
        let id = |program| {
            let program: &SchedClassifier = self.ebpf.program(program)?.try_into().ok()?;
            Some(program.info().ok()?.id())
        };
        hooks::look(name, ifindex, self.links.get(&ifindex)?, [id(INGRESS)?, id(EGRESS)?])
    }

    /// Takes every program off its hook, the tracing ones too.
    pub(super) fn detach_all(self) {
        drop(self);
    }
}
