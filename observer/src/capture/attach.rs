//! Putting the flow programs on links: as the last of the tcx programs there, or by clsact on kernels without tcx.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::MapData;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::clsact::{self, Filter};
use super::error::chain;
use super::hooks::{self, Hooks};
use super::object::{EGRESS, INGRESS};
use super::pins::{self, Pins};

/// What the files of kept attachments are called, in the order of [`HOOKS`].
const SIDES: [&str; 2] = ["ingress", "egress"];

pub(super) const HOOKS: [(&str, TcAttachType); 2] =
    [(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)];

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

/// Says whether attachments are kept when the daemon goes.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Mutex<Option<Attacher>>>);

impl Keeper {
    pub(super) fn new(attacher: Attacher) -> Self {
        Self(Arc::new(Mutex::new(Some(attacher))))
    }

    /// The attacher, until it is dropped.
    pub(super) fn attacher(&self) -> MutexGuard<'_, Option<Attacher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on they are kept, or are not. Err: why they can't be.
    pub fn stay(&self, stays: bool) -> Result<(), String> {
        self.attacher().as_mut().map_or(Ok(()), |attacher| attacher.stay(stays))
    }
}

/// Owns the programs; dropping it detaches all that isn't kept.
#[derive(Debug)]
pub(super) struct Attacher {
    ebpf: Ebpf,
    tcx: bool,
    pins: Pins,
    /// Those of connections, by name; none where they are not to be gone on with.
    tables: Vec<(&'static str, MapData)>,
    /// Whether attachments are kept when the daemon goes.
    stays: bool,
    /// Attachments of earlier daemons that ours took over.
    taken_over: usize,
    links: HashMap<u32, OnLink>,
}

impl Attacher {
    pub(super) fn new(
        ebpf: Ebpf,
        tcx: bool,
        pins: Pins,
        tables: Vec<(&'static str, MapData)>,
        stays: bool,
    ) -> Self {
        Self { ebpf, tcx, pins, tables, stays, taken_over: 0, links: HashMap::new() }
    }

    pub(super) fn attach(&mut self, ifindex: u32, name: &str) -> Result<Attached, String> {
        let mut on_link = OnLink::default();
        let attached = if self.tcx {
            self.attach_tcx(ifindex, name, &mut on_link)
        } else {
            self.attach_clsact(ifindex, name, &mut on_link)
        }?;
        self.links.insert(ifindex, on_link);
        Ok(attached)
    }

    fn attach_tcx(&mut self, ifindex: u32, name: &str, on_link: &mut OnLink) -> Result<Attached, String> {
        let mut attached = Attached { by: "tcx", ..Attached::default() };
        for (index, (program, hook)) in HOOKS.into_iter().enumerate() {
            let path = self.pins.link(ifindex, SIDES[index]);
            let kept = self.take_over(program, &path);
            attached.chained[index] = SchedClassifier::query_tcx(name, hook)
                .map_or(0, |(_, there)| there.len().saturating_sub(usize::from(kept.is_some())));
            let link = if let Some(link) = kept {
                link
            } else {
                let options = TcAttachOptions::TcxOrder(LinkOrder::default());
                let link = self.put(program, name, hook, options)?;
                if self.stays { pin(link, &path)? } else { link }
            };
            on_link.programs.push(link);
        }
        Ok(attached)
    }

    /// Puts our program in the place of that of a daemon before us, between two packets.
    fn take_over(&mut self, program: &str, path: &Path) -> Option<SchedClassifierLink> {
        let link = FdLink::from(PinnedLink::from_pin(path).ok()?);
        let taken = (|| {
            let link = SchedClassifierLink::try_from(link).map_err(|e| chain(&e))?;
            let program = self.program(program)?;
            let id = program.attach_to_link(link).map_err(|e| chain(&e))?;
            program.take_link(id).map_err(|e| chain(&e))
        })();
        // Of a network link that is gone.
        let taken =
            taken.inspect_err(|error| tracing::debug!(error, path = %path.display(), "not taken over"));
        if taken.is_ok() {
            self.taken_over += 1;
        } else {
            let _ = pins::remove_file(path);
        }
        taken.ok()
    }

    /// From now on attachments are kept when the daemon goes, or are not.
    pub(super) fn stay(&mut self, stays: bool) -> Result<(), String> {
        if stays && !self.stays {
            if !self.tcx {
                return Err("clsact filters can't be kept: tcx needs Linux 6.6".to_owned());
            }
            self.pins.keep(&self.tables)?;
            for ifindex in self.links.keys().copied().collect::<Vec<_>>() {
                self.keep(ifindex)?;
            }
        }
        if stays != self.stays {
            let folder = self.pins.folder().display();
            tracing::info!(stays, %folder, "whether programs stay on without this daemon");
        }
        if !stays {
            let failed = |error| format!("cannot remove {}: {error}", self.pins.folder().display());
            self.pins.remove().map_err(failed)?;
        }
        self.stays = stays;
        Ok(())
    }

    /// Where it fails the programs are off the link, until they are put on again as when somebody else takes them off.
    fn keep(&mut self, ifindex: u32) -> Result<(), String> {
        let Some(mut on_link) = self.links.remove(&ifindex) else { return Ok(()) };
        for (link, side) in std::mem::take(&mut on_link.programs).into_iter().zip(SIDES) {
            on_link.programs.push(pin(link, &self.pins.link(ifindex, side))?);
        }
        self.links.insert(ifindex, on_link);
        Ok(())
    }

    /// After the first links were attached to: takes off what an earlier daemon kept and this one does not.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        if self.taken_over > 0 {
            let folder = self.pins.folder().display();
            tracing::info!(programs = self.taken_over, %folder, "took the place of programs that had stayed on");
        }
        if !self.stays {
            if self.pins.is_there() {
                tracing::warn!(
                    "what an earlier daemon enforced is not enforced any more: this one has no such policy"
                );
            }
            return self.stay(false);
        }
        for kept in self.pins.links() {
            if !self.links.contains_key(&kept.ifindex) {
                let failed = |error| format!("cannot remove {}: {error}", kept.path.display());
                pins::remove_file(&kept.path).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<&mut SchedClassifier, String> {
        let program = self.ebpf.program_mut(name).ok_or("the program is not loaded")?;
        program.try_into().map_err(|e: aya::programs::ProgramError| chain(&e))
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
        let program = self.program(program)?;
        let id = program.attach_with_options(link, hook, options).map_err(|e| chain(&e))?;
        program.take_link(id).map_err(|e| chain(&e))
    }

    pub(super) fn detach(&mut self, ifindex: u32) {
        for side in SIDES {
            // What is left is of a link that is gone, or says the next `attach`.
            let _ = pins::remove_file(&self.pins.link(ifindex, side));
        }
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
        match self.links.get(&ifindex) {
            Some(on_link) => hooks::look(name, ifindex, &on_link.programs, programs),
            None => Some(Hooks::default()),
        }
    }
}

/// Keeps an attachment as a file.
fn pin(link: SchedClassifierLink, path: &Path) -> Result<SchedClassifierLink, String> {
    // That of a link which had this index before.
    let failed =
        |error: &dyn std::error::Error| format!("cannot keep it as {}: {}", path.display(), chain(error));
    pins::remove_file(path).map_err(|error| failed(&error))?;
    let link = FdLink::try_from(link).map_err(|error| failed(&error))?;
    let pinned = link.pin(path).map_err(|error| failed(&error))?;
    SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(|error| failed(&error))
}
