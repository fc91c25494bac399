//! Addresses and prefixes.

use super::{compile::InvalidFilter, go::quote};
use ipnet::IpNet;
use std::net::IpAddr;

/// Any of some addresses and CIDRs, as (network, mask): an address alone has all bits in its mask.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Addresses {
    pub(super) fn compile(values: &[String]) -> Result<Self, InvalidFilter> {
        let mut out = Self { v4: Vec::new(), v6: Vec::new() };
        for value in values {
            let net: IpNet = if value.contains('/') {
                value.parse().map_err(|_| {
                    InvalidFilter::new(format!(
                        "invalid IP prefix {q} in filter: netip.ParsePrefix({q}): {why}",
                        q = quote(value),
                        why = prefix_fault(value),
                    ))
                })?
            } else {
                let ip: IpAddr = value.parse().map_err(|_| {
                    InvalidFilter::new(format!(
                        "invalid IP address {q} in filter: ParseAddr({q}): unable to parse IP",
                        q = quote(value)
                    ))
                })?;
                ip.into()
            };
            match net {
                IpNet::V4(net) => out.v4.push((net.network().to_bits(), net.netmask().to_bits())),
                IpNet::V6(net) => out.v6.push((net.network().to_bits(), net.netmask().to_bits())),
            }
        }
        Ok(out)
    }

    /// A mapped IPv4 address in an IPv6 packet stays IPv6, as in Hubble.
    #[inline]
    pub(super) fn matches(&self, ip: Option<IpAddr>) -> bool {
        match ip {
            Some(IpAddr::V4(ip)) => self.v4.iter().any(|(network, mask)| ip.to_bits() & mask == *network),
            Some(IpAddr::V6(ip)) => self.v6.iter().any(|(network, mask)| ip.to_bits() & mask == *network),
            None => false,
        }
    }
}

fn prefix_fault(value: &str) -> String {
    match value.rsplit_once('/') {
        Some((ip, _)) if ip.parse::<IpAddr>().is_err() => {
            format!("ParseAddr({}): unable to parse IP", quote(ip))
        }
        Some((_, bits)) if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("bad bits after slash: {}", quote(bits))
        }
        _ => "prefix length out of range".to_owned(),
    }
}
