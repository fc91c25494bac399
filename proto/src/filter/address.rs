//! Addresses and prefixes, and what is wrong with one in the words of Go's `netip`, which Hubble shows.

use super::{compile::InvalidFilter, go::quote};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

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
            let net: IpNet = if let Some((ip, bits)) = value.rsplit_once('/') {
                prefix(ip, bits).map_err(|why| {
                    let text = quote(value);
                    InvalidFilter::new(format!(
                        "invalid IP prefix {text} in filter: netip.ParsePrefix({text}): {why}"
                    ))
                })?
            } else {
                match address(value) {
                    Ok(Some(ip)) => ip.into(),
                    // No flow has an address with a zone.
                    Ok(None) => continue,
                    Err(why) => {
                        let text = quote(value);
                        return Err(InvalidFilter::new(format!(
                            "invalid IP address {text} in filter: {why}"
                        )));
                    }
                }
            };
            match net {
                IpNet::V4(net) => out.v4.push((net.network().to_bits(), net.netmask().to_bits())),
                IpNet::V6(net) => out.v6.push((net.network().to_bits(), net.netmask().to_bits())),
            }
        }
        Ok(out)
    }

    /// Those of IPv4, and whether there are others.
    pub(super) fn v4(&self) -> (&[(u32, u32)], bool) {
        (&self.v4, !self.v6.is_empty())
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

fn prefix(ip: &str, bits: &str) -> Result<IpNet, String> {
    let ip = address(ip)?.ok_or("IPv6 zones cannot be present in a prefix")?;
    let canonical = bits.len() < 2 || !bits.starts_with('0');
    let length = bits.parse::<u32>().ok().filter(|_| canonical && !bits.starts_with('+'));
    let length = length.ok_or_else(|| format!("bad bits after slash: {}", quote(bits)))?;
    let length = u8::try_from(length).ok().and_then(|length| IpNet::new(ip, length).ok());
    length.ok_or_else(|| "prefix length out of range".to_owned())
}

/// `None`: an IPv6 address with a zone.
fn address(text: &str) -> Result<Option<IpAddr>, String> {
    if let Ok(ip) = text.parse() {
        return Ok(Some(ip));
    }
    let without_zone = text.split_once('%').filter(|(_, zone)| !zone.is_empty());
    if without_zone.is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok()) {
        return Ok(None);
    }
    let (why, at) = match text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]) {
        None => ("unable to parse IP", ""),
        Some(b'.') => v4_fault(text, text),
        Some(b':') => v6_fault(text),
        Some(_) => ("missing IPv6 address", ""),
    };
    let at = if at.is_empty() { String::new() } else { format!(" (at {})", quote(at)) };
    Err(format!("ParseAddr({}): {why}{at}", quote(text)))
}

/// What is wrong, and from where on. `from` is the end of `text` where the address begins.
fn v4_fault<'a>(text: &'a str, from: &'a str) -> (&'static str, &'a str) {
    let end = text.find('%').unwrap_or(text.len());
    let begin = text.len() - from.len();
    let (mut dots, mut digits, mut value) = (0, 0, 0);
    for (at, c) in text[..end].char_indices().filter(|(at, _)| *at >= begin) {
        match c.to_digit(10) {
            Some(_) if digits == 1 && value == 0 => return ("IPv4 field has octet with leading zero", ""),
            Some(digit) => {
                (value, digits) = (value * 10 + digit, digits + 1);
                if value > 255 {
                    return ("IPv4 field has value >255", "");
                }
            }
            None if c != '.' => return ("unexpected character", &text[at..]),
            None if digits == 0 || at + 1 == end => {
                // Go looks at the field before the dot, and at the last dot, which has none after it.
                return ("IPv4 field must have at least one digit", &text[at..]);
            }
            None if dots == 3 => return ("IPv4 address too long", ""),
            None => (dots, digits, value) = (dots + 1, 0, 0),
        }
    }
    ("IPv4 address too short", "")
}

fn v6_fault(text: &str) -> (&'static str, &str) {
    let (mut rest, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
    if zone == Some("") {
        return ("zone must be a non-empty string", "");
    }
    let mut has_gap = false;
    if let Some(after) = rest.strip_prefix("::") {
        (rest, has_gap) = (after, true);
    }
    let mut groups = 0;
    while groups < 8 {
        let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if digits > 4 {
            return ("each group must have 4 or less digits", rest);
        }
        if digits == 0 {
            return ("each colon-separated field must have at least one digit", rest);
        }
        if rest[digits..].starts_with('.') {
            return if !has_gap && groups != 6 {
                ("embedded IPv4 address must replace the final 2 fields of the address", rest)
            } else if groups > 6 {
                ("too many hex fields to fit an embedded IPv4 at the end of the address", rest)
            } else {
                v4_fault(text, &text[text.len() - rest.len() - zone.map_or(0, |zone| zone.len() + 1)..])
            };
        }
        groups += 1;
        rest = &rest[digits..];
        if rest.is_empty() {
            break;
        }
        let Some(after) = rest.strip_prefix(':') else { return ("unexpected character, want colon", rest) };
        if after.is_empty() {
            return ("colon must be followed by more characters", rest);
        }
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            if has_gap {
                return ("multiple :: in address", rest);
            }
            (rest, has_gap) = (after, true);
            if rest.is_empty() {
                break;
            }
        }
    }
    match (rest.is_empty(), groups < 8, has_gap) {
        (false, ..) => ("trailing garbage after address", rest),
        (true, true, _) => ("address string too short", ""),
        (true, false, _) => ("the :: must expand to at least one field of zeros", ""),
    }
}
