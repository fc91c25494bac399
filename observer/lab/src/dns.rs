//! As much of DNS (RFC 1035) as the lab's server and its clients speak: one question, A and AAAA answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::scenario::Scenario;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;
/// Offset of the question's name, as a compression pointer.
const NAME_POINTER: u16 = 0xc000 | HEADER as u16;

/// Names and their addresses.
pub(crate) type Zone = BTreeMap<String, Vec<IpAddr>>;

/// What the lab's DNS server knows: services and externals.
pub(crate) fn zone(scenario: &Scenario) -> Zone {
    let services = scenario.services.iter().map(|service| {
        (format!("{}.{}.svc.cluster.local", service.name, service.namespace), service.cluster_ips.clone())
    });
    let externals = scenario
        .externals
        .iter()
        .filter_map(|external| Some((external.dns_name.clone()?, external.addresses.clone())));
    services.chain(externals).collect()
}

/// A query for A (or AAAA) of a name. The token goes along as an EDNS option of the local range (RFC 6891), so that the
/// server can tell the ledger which query it answered.
pub(crate) fn query(id: u64, name: &str, ipv4: bool, token: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(96);
    message.extend((id as u16).to_be_bytes());
    // Flags: recursion desired. One question, one additional record.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(label.len() as u8);
        message.extend(label);
    }
    message.push(0);
    put(&mut message, &[if ipv4 { TYPE_A } else { TYPE_AAAA }, CLASS_IN]);
    // OPT: root name, type 41, 1232 bytes accepted, no flags, then the option.
    message.push(0);
    put(&mut message, &[41, 1232, 0, 0, token.len() as u16 + 4, 65001, token.len() as u16]);
    message.extend(token);
    message
}

fn put(message: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        message.extend(word.to_be_bytes());
    }
}

/// The server's answer, or `None` where the message is no query it understands. The question is repeated as it came,
/// and the query's additional record is left out.
pub(crate) fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (name, end) = read_name(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let question = query.get(HEADER..end + 4)?;
    let known = zone.get(&name);
    let matching: Vec<_> = known
        .into_iter()
        .flatten()
        .filter(|address| kind == if address.is_ipv4() { TYPE_A } else { TYPE_AAAA })
        .collect();
    // Response, authoritative, recursion desired and available; code 3 (NXDOMAIN) for an unknown name.
    let flags = 0x8580 | if known.is_none() { 3 } else { 0 };
    let mut message = query.get(..2)?.to_vec();
    put(&mut message, &[flags, 1, matching.len() as u16, 0, 0]);
    message.extend(question);
    for address in matching {
        put(&mut message, &[NAME_POINTER, kind, CLASS_IN, 0, 30]);
        match address {
            IpAddr::V4(v4) => {
                put(&mut message, &[4]);
                message.extend(v4.octets());
            }
            IpAddr::V6(v6) => {
                put(&mut message, &[16]);
                message.extend(v6.octets());
            }
        }
    }
    Some(message)
}

/// The question's name in lower case, and where it ends.
fn read_name(query: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)),
            1..=63 => labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase()),
            _ => return None,
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_type_and_name() {
        let zone: Zone = [(
            "api.x.svc.cluster.local".to_owned(),
            vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        )]
        .into();
        for (name, ipv4, code, answers) in [
            ("api.x.svc.cluster.local", true, 0, 1),
            ("API.x.svc.cluster.local", false, 0, 1),
            ("nothing.local", true, 3, 0),
        ] {
            let answer = answer(&query(7, name, ipv4, b"lab-000000000007"), &zone).unwrap();
            assert_eq!((answer[1], answer[3] & 15, answer[7]), (7, code, answers), "{name}");
        }
        assert!(answer(&[0; 12], &zone).is_none());
        assert!(answer(b"", &zone).is_none());
    }
}
