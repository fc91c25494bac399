//! Who is on the hooks of links, in the order in which they run.

use std::collections::BTreeSet;
use std::io;

use aya::programs::TcAttachType;
use aya::programs::links::{FdLink, PinnedLink};

use super::{Inspector, bpf, infos};
use crate::capture::clsact;
use crate::capture::links::Link;
use crate::capture::object::{EGRESS, INGRESS};
use crate::capture::pins::Pins;

const HOOKS: [(&str, TcAttachType); 2] = [(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)];

/// A program on a hook of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHook {
    /// The link's index.
    pub ifindex: u32,
    /// 0 at ingress, 1 at egress.
    pub hook: usize,
    /// `tcx` or `clsact`.
    pub by: &'static str,
    /// The program's number; 0 of a filter that is no eBPF.
    pub program: u32,
    /// Its name, in full where it is ours.
    pub name: String,
    /// Whether it is ours.
    pub ours: bool,
    /// From 1.
    pub position: u32,
    /// Of so many on the hook.
    pub of: u32,
    /// Of the attachment; 0 where it has none.
    pub link: u32,
    /// Whether it outlives the daemon.
    pub pinned: bool,
}

impl Inspector {
    /// All programs on these links of this thread's network namespace, and what could not be asked.
    pub fn hooks(&self, links: &[&Link]) -> (Vec<OnHook>, Vec<String>) {
        let pinned = pinned_links();
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for link in links {
            for (hook, (program, kind)) in HOOKS.into_iter().enumerate() {
                match self.on_hook(link, hook, program, kind, &pinned) {
                    Ok(here) => found.extend(here),
                    Err(error) => problems.push(format!("{}: {error}", link.name)),
                }
            }
        }
        let unnamed: Vec<u32> =
            found.iter().filter(|on| !on.ours && on.program != 0).map(|on| on.program).collect();
        for info in infos(&unnamed) {
            for on in found.iter_mut().filter(|on| on.program == info.id()) {
                on.name = String::from_utf8_lossy(info.name()).into_owned();
            }
        }
        (found, problems)
    }

    fn on_hook(
        &self,
        link: &Link,
        hook: usize,
        program: &str,
        kind: TcAttachType,
        pinned: &BTreeSet<u32>,
    ) -> io::Result<Vec<OnHook>> {
        let none = OnHook {
            ifindex: link.ifindex,
            hook,
            by: "tcx",
            program: 0,
            name: String::new(),
            ours: false,
            position: 0,
            of: 0,
            link: 0,
            pinned: false,
        };
        // Kernels before 6.6 have none.
        let tcx = match bpf::on_tcx(link.ifindex, hook) {
            Err(error) if link.attached_by == "tcx" => return Err(error),
            tcx => tcx.unwrap_or_default(),
        };
        let mut here: Vec<OnHook> = Vec::new();
        for on in tcx {
            let ours = self.handles.program(on.program);
            let name = ours.map_or_else(String::new, |program| program.name.clone());
            let pinned = pinned.contains(&on.link);
            here.push(OnHook {
                program: on.program,
                name,
                ours: ours.is_some(),
                link: on.link,
                pinned,
                ..none.clone()
            });
        }
        // They run after those.
        for filter in clsact::filters(link.ifindex, kind)? {
            let id = filter.program.unwrap_or(0);
            let ours = self.handles.program(id).is_some() || (id == 0 && filter.is_ours(program));
            let name = if ours { program.to_owned() } else { filter.name.clone().unwrap_or_default() };
            // Nothing but a hand takes it off.
            here.push(OnHook { by: "clsact", program: id, name, ours, pinned: true, ..none.clone() });
        }
        let of = here.len() as u32;
        for (on, position) in here.iter_mut().zip(1..) {
            (on.position, on.of) = (position, of);
        }
        Ok(here)
    }
}

/// Numbers of the attachments that are pinned for this thread's network namespace.
fn pinned_links() -> BTreeSet<u32> {
    // The handle is closed again and the pin stays.
    let links = Pins::here().links().into_iter().filter_map(|at| PinnedLink::from_pin(at.path).ok());
    links.filter_map(|link| Some(FdLink::from(link).info().ok()?.id())).collect()
}
