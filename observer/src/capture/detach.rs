//! Taking out of the kernel what daemons left there: what one kept on purpose, and the filters of one that was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::attach::HOOKS;
use super::clsact::{self, Filter};
use super::netlink;
use super::pins::Pins;

/// What was taken out, by the links that it was on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Links whose attachments were kept.
    pub kept: BTreeSet<String>,
    /// Where.
    pub folder: PathBuf,
    /// Links with filters of ours.
    pub filters: BTreeSet<String>,
}

/// Where the programs of a daemon that is gone stay on in the calling thread's network namespace, if they do.
pub fn staying_on() -> Option<PathBuf> {
    let pins = Pins::here();
    (!pins.links().is_empty()).then(|| pins.folder().to_owned())
}

/// Takes everything of ours out of the calling thread's network namespace. No daemon may run there.
pub fn detach() -> io::Result<Detached> {
    let pins = Pins::here();
    let links: BTreeMap<u32, String> = netlink::links()?.iter().map(index_and_name).collect();
    // The programs of one that is gone went with it; the file stayed.
    let name = |ifindex| links.get(&ifindex).cloned().unwrap_or_else(|| format!("{ifindex} (gone)"));
    let kept = pins.links().into_iter().map(|kept| name(kept.ifindex)).collect();
    let mut detached = Detached { kept, folder: pins.folder().to_owned(), filters: BTreeSet::new() };
    pins.remove()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", pins.folder().display())))?;
    for (&ifindex, name) in &links {
        let mut made_qdisc = false;
        for (program, hook) in HOOKS {
            let filters = clsact::filters(ifindex, hook)?;
            for filter in filters.iter().filter(|filter| filter.is_ours(program)) {
                clsact::remove(ifindex, hook, filter)?;
                made_qdisc |= Filter::made_qdisc(filter);
                detached.filters.insert(name.clone());
            }
        }
        if made_qdisc {
            clsact::remove_unused_qdisc(ifindex)?;
        }
    }
    Ok(detached)
}

fn index_and_name(link: &LinkMessage) -> (u32, String) {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    (link.header.index, name.unwrap_or_default())
}
