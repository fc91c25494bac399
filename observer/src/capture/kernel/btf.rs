//! Facts from the kernel's type information (BTF): offsets, drop reasons, tracepoint arguments.

use std::collections::BTreeMap;
use std::path::Path;

use btf_rs::{Btf, Type};
use observer_ebpf::Offsets;

/// Where a kernel with `CONFIG_DEBUG_INFO_BTF` shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why BTF can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// It can't be read.
    #[error("{VMLINUX}: {0}: the kernel needs CONFIG_DEBUG_INFO_BTF=y")]
    Read(String),
    /// A struct this kernel should have.
    #[error("{VMLINUX} has no {0}: this kernel is not supported")]
    Missing(String),
}

/// What the daemon needs to know of the kernel it runs on.
#[derive(Clone, Debug, Default)]
pub struct KernelFacts {
    /// Field offsets for the programs.
    pub offsets: Offsets,
    /// `enum skb_drop_reason`: number to name, without the `SKB_DROP_REASON_` prefix. Empty before Linux 5.17.
    pub drop_reasons: BTreeMap<u32, String>,
    /// How many arguments the `kfree_skb` tracepoint has, 0 where unknown. With 3 it tells the reason.
    pub kfree_skb_arguments: usize,
    /// Whether there is `bpf_ktime_get_coarse_ns` (5.11 on).
    pub coarse_clock: bool,
    /// Whether programs can be put on links by tcx (6.6 on).
    pub tcx: bool,
}

impl KernelFacts {
    /// Reads them from [`VMLINUX`]. Takes 0.2-0.4 s.
    pub fn read() -> Result<Self, BtfError> {
        Self::from_file(Path::new(VMLINUX))
    }

    fn from_file(path: &Path) -> Result<Self, BtfError> {
        let btf = Btf::from_file(path).map_err(|e| BtfError::Read(e.to_string()))?;
        Ok(Self {
            offsets: offsets(&btf)?,
            drop_reasons: drop_reasons(&btf),
            kfree_skb_arguments: tracepoint_arguments(&btf, "kfree_skb"),
            coarse_clock: enum_members(&btf, "bpf_func_id")
                .any(|(name, _)| name == "BPF_FUNC_ktime_get_coarse_ns"),
            tcx: enum_members(&btf, "bpf_attach_type").any(|(name, _)| name == "BPF_TCX_INGRESS"),
        })
    }

    /// The number of the reason that says nothing; 0, which is no reason, where the kernel has none.
    pub fn not_specified(&self) -> u32 {
        self.drop_reason_number("NOT_SPECIFIED").unwrap_or(0)
    }

    /// The number of a drop reason, where this kernel has one of the name.
    pub fn drop_reason_number(&self, name: &str) -> Option<u32> {
        self.drop_reasons.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    /// The name of a drop reason, `None` where this kernel has none for the number.
    pub fn drop_reason(&self, number: u32) -> Option<&str> {
        self.drop_reasons.get(&number).map(String::as_str)
    }
}

fn offsets(btf: &Btf) -> Result<Offsets, BtfError> {
    let at =
        |path: &[&str]| offset(btf, path[0], &path[1..]).ok_or_else(|| BtfError::Missing(path.join(".")));
    let sock = |path: &[&str]| at(&[&["sock", "__sk_common"], path].concat());
    Ok(Offsets {
        skb_dev: at(&["sk_buff", "dev"])?,
        skb_head: at(&["sk_buff", "head"])?,
        skb_data: at(&["sk_buff", "data"])?,
        skb_tail: at(&["sk_buff", "tail"])?,
        skb_transport_header: at(&["sk_buff", "transport_header"])?,
        skb_network_header: at(&["sk_buff", "network_header"])?,
        skb_len: at(&["sk_buff", "len"])?,
        skb_protocol: at(&["sk_buff", "protocol"])?,
        skb_sk: at(&["sk_buff", "sk"])?,
        skb_cb: at(&["sk_buff", "cb"])
            .and_then(|control| Ok(control + at(&["qdisc_skb_cb", "data"])?))
            .unwrap_or(0),
        dev_ifindex: at(&["net_device", "ifindex"])?,
        dev_net: at(&["net_device", "nd_net", "net"])?,
        net_inum: at(&["net", "ns", "inum"])?,
        // Kernels before 5.12 make the cookie when it is first asked for, behind another type.
        net_cookie: at(&["net", "net_cookie"]).unwrap_or(0),
        sk_net: sock(&["skc_net", "net"])?,
        sk_family: sock(&["skc_family"])?,
        inet_sport: at(&["inet_sock", "inet_sport"])?,
        sk_dport: sock(&["skc_dport"])?,
        sk_daddr: sock(&["skc_daddr"])?,
        sk_rcv_saddr: sock(&["skc_rcv_saddr"])?,
        // Kernels without IPv6 have no such fields, and no socket that would need them.
        sk_v6_daddr: sock(&["skc_v6_daddr"]).unwrap_or(0),
        sk_v6_rcv_saddr: sock(&["skc_v6_rcv_saddr"]).unwrap_or(0),
        sk_protocol: at(&["sock", "sk_protocol"])?,
        // Kernels before 5.17 tell no reason.
        trace_reason: at(&["trace_event_raw_kfree_skb", "reason"]).unwrap_or(0),
    })
}

/// The byte offset of a field by its path, through anonymous structs and unions.
fn offset(btf: &Btf, name: &str, path: &[&str]) -> Option<u32> {
    let types = btf.resolve_types_by_name(name).ok()?;
    types.iter().find_map(|kind| field(btf, kind, path))
}

fn field(btf: &Btf, kind: &Type, path: &[&str]) -> Option<u32> {
    let Some((first, rest)) = path.split_first() else { return Some(0) };
    let composite = match kind {
        Type::Struct(composite) | Type::Union(composite) => composite,
        Type::Typedef(alias) => return field(btf, &btf.resolve_chained_type(alias).ok()?, path),
        Type::Const(alias) | Type::Volatile(alias) => {
            return field(btf, &btf.resolve_chained_type(alias).ok()?, path);
        }
        _ => return None,
    };
    composite.members.iter().find_map(|member| {
        let rest = match btf.resolve_name(member).unwrap_or_default() {
            anonymous if anonymous.is_empty() => path,
            name if name == *first => rest,
            _ => return None,
        };
        let inner =
            if rest.is_empty() { 0 } else { field(btf, &btf.resolve_chained_type(member).ok()?, rest)? };
        Some(member.bit_offset() / 8 + inner)
    })
}

fn drop_reasons(btf: &Btf) -> BTreeMap<u32, String> {
    let reasons = enum_members(btf, "skb_drop_reason").filter_map(|(name, number)| {
        let name = name.strip_prefix("SKB_DROP_REASON_").or_else(|| name.strip_prefix("SKB_"))?;
        Some((number, name.to_owned()))
    });
    reasons.collect()
}

/// Names and values of an enum; none where this kernel has no such enum.
fn enum_members(btf: &Btf, name: &str) -> impl Iterator<Item = (String, u32)> {
    let types = btf.resolve_types_by_name(name).unwrap_or_default();
    let members = types.into_iter().filter_map(|kind| match kind {
        Type::Enum(listing) => Some(listing.members),
        _ => None,
    });
    members.flatten().filter_map(|member| Some((btf.resolve_name(&member).ok()?, member.val())))
}

/// The arguments of a tracepoint, without the context that each handler gets first.
fn tracepoint_arguments(btf: &Btf, name: &str) -> usize {
    let types = btf.resolve_types_by_name(&format!("btf_trace_{name}")).unwrap_or_default();
    let count = types.iter().find_map(|kind| {
        let Type::Typedef(alias) = kind else { return None };
        let Type::Ptr(pointer) = btf.resolve_chained_type(alias).ok()? else { return None };
        let Type::FuncProto(prototype) = btf.resolve_chained_type(&pointer).ok()? else { return None };
        Some(prototype.parameters.len())
    });
    count.unwrap_or(0).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_kernels_own_types() {
        if !Path::new(VMLINUX).exists() {
            eprintln!("SKIP: {VMLINUX} is not there");
            return;
        }
        let facts = KernelFacts::read().unwrap();
        // The UAPI fixes nothing here, but no kernel puts these at 0.
        assert!(facts.offsets.skb_head > 0 && facts.offsets.sk_net > 0);
        assert!(facts.offsets.dev_net > facts.offsets.dev_ifindex || facts.offsets.dev_net > 0);
        if facts.kfree_skb_arguments >= 3 {
            let no_socket = facts.drop_reasons.values().filter(|name| *name == "NO_SOCKET").count();
            assert_eq!(no_socket, 1, "{:?}", facts.drop_reasons);
        }
    }
}
