//! Names, labels, ports and CIDRs, by the API server's own rules.

use crate::{
    label::{K8S, RESERVED},
    source::{
        Fault,
        field::{Field, Read},
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&c| inner(c))
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            let bytes = part.as_bytes();
            !bytes.is_empty()
                && bytes.iter().all(|&c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
        })
}

/// The name part of a label's key, and a label's value where it is not empty.
fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

/// The name of most objects.
pub(super) fn dns_subdomain<'a>(field: &Field<'a>) -> Read<&'a str> {
    let text = field.text()?;
    if is_subdomain(text) {
        return Ok(text);
    }
    Err(field.fault(format!("{text:?} is no name; write lower-case letters, digits, - and ., at most 253")))
}

/// The name of a namespace.
pub(super) fn dns_label<'a>(field: &Field<'a>) -> Read<&'a str> {
    let text = field.text()?;
    if is_label(text) {
        return Ok(text);
    }
    Err(field.fault(format!("{text:?} is no namespace; write lower-case letters, digits and -, at most 63")))
}

/// A key of a label; `field` is where a fault is told.
pub(super) fn label_key(key: &str, field: &Field<'_>) -> Read<()> {
    if is_key(key) {
        return Ok(());
    }
    let right = "letters, digits, -, _ and ., at most 63, perhaps after a DNS name and /";
    Err(field.fault(format!("{key:?} is no label's key; write {right}")))
}

/// A value of a label.
pub(super) fn label_value<'a>(field: &Field<'a>) -> Read<&'a str> {
    let text = field.text()?;
    if text.is_empty() || is_qualified(text) {
        return Ok(text);
    }
    let right = "letters, digits, -, _ and ., at most 63, with a letter or digit at both ends";
    Err(field.fault(format!("{text:?} is no label's value; write {right}")))
}

/// A key of a Cilium selector: its source, where it has one other than `any`, and the rest.
pub(super) fn cilium_key<'k>(key: &'k str, field: &Field<'_>) -> Read<(Option<&'k str>, &'k str)> {
    let (source, key) = match key.split_once(':') {
        None | Some(("any", _)) => (None, key.strip_prefix("any:").unwrap_or(key)),
        Some((source @ (K8S | RESERVED), key)) => (Some(source), key),
        Some((source @ ("cidr" | "cidrgroup" | "fqdn" | "node"), _)) => {
            let way = "use fromCIDRSet, toFQDNs or nodeSelector";
            return Err(field.fault(format!("selecting by {source}: labels is not supported; {way}")));
        }
        Some((source, key)) => (Some(source), key),
    };
    label_key(key, field)?;
    Ok((source, key))
}

/// A number from 1 to 65535.
pub(super) fn port(field: &Field<'_>) -> Read<u16> {
    let number = field.int()?;
    u16::try_from(number)
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| field.fault(format!("{number} is no port; write 1 to 65535")))
}

/// A port's name as IANA has it, in the case that is given.
pub(super) fn port_name<'a>(text: &'a str, field: &Field<'_>, lower: bool) -> Read<&'a str> {
    let bytes = text.as_bytes();
    let inner =
        |c: &u8| (if lower { c.is_ascii_lowercase() } else { c.is_ascii_alphabetic() }) || c.is_ascii_digit();
    let right = (1..=15).contains(&bytes.len())
        && bytes.iter().all(|c| inner(c) || *c == b'-')
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && !text.contains("--");
    if right {
        return Ok(text);
    }
    let letters = if lower { "lower-case letters" } else { "letters" };
    Err(field.fault(format!(
        "{text:?} is no port; write a number, or a name of {letters}, digits and -, at most 15"
    )))
}

/// A CIDR as the API server reads it: leading zeros and bits behind the length are let through.
pub(super) fn cidr(field: &Field<'_>) -> Read<IpNet> {
    let text = field.text()?;
    read_cidr(text).ok_or_else(|| no_cidr(text, field))
}

/// A CIDR as Cilium reads it: no leading zeros.
pub(super) fn strict_cidr(field: &Field<'_>) -> Read<IpNet> {
    let text = field.text()?;
    let read = |text: &str| {
        let (address, length) = text.split_once('/')?;
        // The standard library reads no leading zeros in an address, and here none stand in a length.
        let length = Some(length).filter(|length| *length == "0" || !length.starts_with(['0', '+']))?;
        IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
    };
    read(text).map(|net| net.trunc()).ok_or_else(|| no_cidr(text, field))
}

fn no_cidr(text: &str, field: &Field<'_>) -> Fault {
    field.fault(format!("{text:?} is no CIDR; write one such as 10.0.0.0/8 or fd00::/8"))
}

fn read_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || length.len() > 4 || !length.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    if address.contains(':') {
        let address: Ipv6Addr = address.parse().ok()?;
        return Ipv6Net::new(address, length).ok().map(|net| IpNet::V6(net.trunc()));
    }
    // The API server reads 010 as ten, as Go once did.
    let mut octets = [0_u8; 4];
    let mut parts = address.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|c| c.is_ascii_digit()) || part.len() > 16 {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    if parts.next().is_some() {
        return None;
    }
    Ipv4Net::new(Ipv4Addr::from(octets), length).ok().map(|net| IpNet::V4(net.trunc()))
}

/// What is left out of a CIDR; `strictly` where it must be smaller than that.
pub(super) fn excepts(net: IpNet, field: Option<Field<'_>>, strictly: bool) -> Read<Vec<IpNet>> {
    let items = field.map(|field| field.list()).transpose()?.unwrap_or_default();
    let mut excepts = Vec::with_capacity(items.len());
    for item in items {
        let except = cidr(&item)?;
        if !net.contains(&except) || strictly && net == except {
            return Err(item.fault(format!("{except} must lie inside of {net}; correct one of them")));
        }
        excepts.push(except);
    }
    Ok(excepts)
}
