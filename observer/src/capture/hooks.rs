//! Whether the programs are still where they were put: anybody with the rights can take them off, and nothing tells.

use aya::programs::links::FdLink;
use aya::programs::tc::SchedClassifierLink;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};

use super::clsact;

/// What a look at a link's two hooks found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hooks {
    /// Both programs of ours are there.
    pub(super) ours: bool,
    /// Programs of others on ingress and egress.
    pub(super) others: [usize; 2],
}

/// Looks at the hooks of a link; `attached` and `programs` are the attachments and the programs' ids, ingress first.
pub(super) fn look(
    name: &str,
    ifindex: u32,
    attached: &[SchedClassifierLink],
    programs: [u32; 2],
) -> Option<Hooks> {
    let mut hooks = Hooks { ours: true, others: [0; 2] };
    let sides = [TcAttachType::Ingress, TcAttachType::Egress];
    for (index, (hook, link)) in sides.into_iter().zip(attached).enumerate() {
        let tcx = SchedClassifier::query_tcx(name, hook);
        let found: Vec<u32> = tcx.iter().flat_map(|(_, found)| found).map(ProgramInfo::id).collect();
        hooks.others[index] = found.iter().filter(|id| **id != programs[index]).count();
        hooks.ours &= if <&FdLink>::try_from(link).is_ok() {
            tcx.ok()?;
            found.contains(&programs[index])
        } else {
            let filters = clsact::filters(ifindex, hook).ok()?;
            let place = (link.priority().ok()?, link.handle().ok()?);
            let ours = filters.iter().filter(|filter| filter.is_at(place)).count();
            hooks.others[index] += filters.len() - ours;
            ours > 0
        };
    }
    Some(hooks)
}

#[cfg(test)]
mod tests {
    use super::super::kernel::load::patiently;
    use super::*;
    use crate::capture::object::{EGRESS, INGRESS, OBJECT};
    use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
    use aya::{Ebpf, programs::LinkOrder};
    use observer_lab::{Namespaces, netns, unique_prefix};

    const LINK: &str = "hooks0";
    const INDEX: u32 = 77;

    fn run(line: &str) {
        let mut words = line.split(' ');
        let output = std::process::Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn attach(ebpf: &mut Ebpf, classic: bool) -> (Vec<SchedClassifierLink>, [u32; 2]) {
        let (mut links, mut ids) = (Vec::new(), [0; 2]);
        let sides = [(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)];
        for (id, (name, hook)) in ids.iter_mut().zip(sides) {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap();
            let options = if classic {
                TcAttachOptions::Netlink(NlOptions::default())
            } else {
                TcAttachOptions::TcxOrder(LinkOrder::default())
            };
            let link = program.attach_with_options(LINK, hook, options).unwrap();
            links.push(program.take_link(link).unwrap());
            *id = program.info().unwrap().id();
        }
        (links, ids)
    }

    #[test]
    fn a_program_that_was_taken_off_is_missed() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI_NO_SKIP").is_none(), "skipped: not root");
            println!("SKIP: attaching programs needs root");
            return;
        }
        let name = unique_prefix("hooks");
        let _namespaces = Namespaces::make(&name, &[&name]).unwrap();
        netns::inside(&name, || {
            run(&format!("ip link add {LINK} index {INDEX} type bridge"));
            qdisc_add_clsact(LINK).unwrap();
            // Classic filters, as on kernels before 6.6.
            let mut ebpf = Ebpf::load(OBJECT).unwrap();
            let (links, ids) = attach(&mut ebpf, true);
            let look = || look(LINK, INDEX, &links, ids);
            assert_eq!(look(), Some(Hooks { ours: true, others: [0; 2] }));
            run(&format!("tc filter del dev {LINK} egress"));
            assert_eq!(look().map(|hooks| hooks.ours), Some(false));
            Ok(())
        })
        .unwrap();
        netns::inside(&name, || {
            let mut ebpf = Ebpf::load(OBJECT).unwrap();
            let (links, ids) = attach(&mut ebpf, false);
            let look = || look(LINK, INDEX, &links, ids);
            assert_eq!(look(), Some(Hooks { ours: true, others: [0; 2] }));
            let mut other = Ebpf::load(OBJECT).unwrap();
            let _others = attach(&mut other, false);
            assert_eq!(look(), Some(Hooks { ours: true, others: [1; 2] }));
            let id = <&FdLink>::try_from(&links[0]).unwrap().info().unwrap().id();
            run(&format!("bpftool link detach id {id}"));
            assert_eq!(look(), Some(Hooks { ours: false, others: [1; 2] }));
            Ok(())
        })
        .unwrap();
    }
}
