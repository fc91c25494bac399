//! Addresses and prefixes.

use super::{compile::InvalidFilter, go::quote};
use ipnet::IpNet;
use std::net::IpAddr;

/// Any of some addresses and CIDRs.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    exact: Vec<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl Addresses {
    pub(super) fn compile(values: &[String]) -> Result<Self, InvalidFilter> {
        let mut out = Self { exact: Vec::new(), prefixes: Vec::new() };
        for value in values {
            if value.contains('/') {
                out.prefixes.push(value.parse().map_err(|_| {
                    InvalidFilter::new(format!(
                        "invalid IP prefix {q} in filter: netip.ParsePrefix({q}): {why}",
                        q = quote(value),
                        why = prefix_fault(value),
                    ))
                })?);
            } else {
                out.exact.push(value.parse().map_err(|_| {
                    InvalidFilter::new(format!(
                        "invalid IP address {q} in filter: ParseAddr({q}): unable to parse IP",
                        q = quote(value)
                    ))
                })?);
            }
        }
        Ok(out)
    }

    /// A mapped IPv4 address in an IPv6 packet stays IPv6, as in Hubble.
    pub(super) fn matches(&self, ip: Option<IpAddr>) -> bool {
        ip.is_some_and(|ip| self.exact.contains(&ip) || self.prefixes.iter().any(|p| p.contains(&ip)))
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
