//! Places of drops, each made once and shared.

use super::DropReasons;
use crate::flow::DropSite;
use hashbrown::HashMap;
use observer_ebpf::policy::POLICY_REASON;
use std::sync::Arc;

/// Places kept. The kernel has a few thousand places that free packets; more than this is no kernel's doing.
const MOST_SITES: usize = 8192;

/// Resolves an address in the kernel.
pub trait Symbols {
    /// `symbol+0xoffset`, or why there is none.
    fn symbol(&self, address: u64) -> Result<String, &'static str>;
}

impl<F: Fn(u64) -> Result<String, &'static str>> Symbols for F {
    fn symbol(&self, address: u64) -> Result<String, &'static str> {
        self(address)
    }
}

/// One [`DropSite`] for each (reason, location).
#[derive(Debug)]
pub struct DropSites<S> {
    reasons: DropReasons,
    symbols: S,
    sites: HashMap<(u32, u64), Arc<DropSite>>,
    unshared: u64,
}

impl<S: Symbols> DropSites<S> {
    /// With the kernel's reason names and its symbols.
    pub fn new(reasons: DropReasons, symbols: S) -> Self {
        Self { reasons, symbols, sites: HashMap::new(), unshared: 0 }
    }

    /// The site of this reason number and address (0 = the kernel told none).
    pub fn site(&mut self, reason: u32, location: u64) -> Arc<DropSite> {
        if let Some(site) = self.sites.get(&(reason, location)) {
            return Arc::clone(site);
        }
        let place = match location {
            _ if reason & POLICY_REASON != 0 => Err("dropped by policies, where the flow programs are"),
            0 => Err("the kernel told no location"),
            address => self.symbols.symbol(address),
        };
        let site = Arc::new(self.reasons.site(reason, place));
        if self.sites.len() < MOST_SITES {
            self.sites.insert((reason, location), Arc::clone(&site));
        } else {
            self.unshared += 1;
        }
        site
    }

    /// Sites that were made anew because the table is full.
    pub fn unshared(&self) -> u64 {
        self.unshared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_ebpf::policy;

    fn sites() -> DropSites<impl Symbols> {
        let reasons = DropReasons::new([(12, "SKB_DROP_REASON_NETFILTER_DROP".to_owned())]);
        DropSites::new(reasons, |address| match address {
            0x10 => Ok("nf_hook_slow+0x0".to_owned()),
            _ => Err("no such symbol"),
        })
    }

    #[test]
    fn one_site_is_shared() {
        let mut sites = sites();
        let (first, second) = (sites.site(12, 0x10), sites.site(12, 0x10));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(first.kernel_reason, "NETFILTER_DROP");
        assert_eq!(first.hubble_reason, 133);
        assert_eq!(first.location.as_deref(), Ok("nf_hook_slow+0x0"));
        assert_eq!(sites.site(12, 0).location, Err("the kernel told no location".into()));
        assert_eq!(sites.site(12, 0x11).location, Err("no such symbol".into()));
    }

    #[test]
    fn a_number_without_a_name_is_told_as_a_number() {
        let site = sites().site(131, 0);
        assert_eq!(site.kernel_reason, "reason 131");
        assert_eq!(site.hubble_reason, 134);
    }

    #[test]
    fn what_policies_deny_is_told_by_cilium_s_numbers() {
        for (reason, number, name) in
            [(policy::POLICY_DENIED, 133, "POLICY_DENIED"), (policy::POLICY_DENY, 181, "POLICY_DENY")]
        {
            let site = sites().site(reason, 0x10);
            assert_eq!((site.kernel_reason.as_str(), site.hubble_reason), ("", number));
            assert_eq!((site.reason(), site.is_by_policies()), (name, true));
        }
        let firewall = sites().site(12, 0x10);
        assert_eq!((firewall.reason(), firewall.is_by_policies()), ("NETFILTER_DROP", false));
    }

    #[test]
    fn a_full_table_still_answers_and_counts() {
        let mut sites = sites();
        for location in 0..MOST_SITES as u64 + 3 {
            assert_eq!(sites.site(12, location).hubble_reason, 133);
        }
        assert_eq!(sites.unshared(), 3);
        assert_eq!(sites.sites.len(), MOST_SITES);
    }
}
