//! Ports, ICMP types and requests of a Cilium rule.

use super::{check, cilium_peers};
use crate::{
    l7::{HttpRule, L7, Pattern},
    model::{Direction, ICMP, ICMPV6, PortClause, PortRule, Ports, Protocols, SCTP, TCP, UDP},
    source::field::{Field, Map, Read},
};

/// Where a rule stands, by which some of what it could say makes no sense.
pub(super) struct Context {
    pub(super) direction: Direction,
    pub(super) deny: bool,
    pub(super) on_node: bool,
}

/// The CRD's bound, for ports of an entry and for its ICMP types.
const MAX_PORTS: usize = 40;
const REFUSED: &[(&str, &str)] = &[
    ("terminatingTLS", "TLS interception is not supported; take it out"),
    ("originatingTLS", "TLS interception is not supported; take it out"),
    ("serverNames", "rules on TLS server names are not supported; use toFQDNs"),
    ("listener", "Envoy listeners are not supported; take it out"),
    ("rules", "a deny rule denies whole connections; take the requests out"),
];
const REFUSED_L7: &[(&str, &str)] = &[
    ("kafka", "Kafka rules are not supported; take them out, then the port is judged without requests"),
    ("l7proto", "Envoy's protocols are not supported; write http or dns"),
    ("l7", "Envoy's protocols are not supported; write http or dns"),
];

/// The ports of a rule, `None` where it names none.
pub(super) fn read(map: &Map<'_>, context: &Context) -> Read<Option<Vec<PortRule>>> {
    let list = |name| map.get(name).map(|field| field.list()).transpose();
    let ports = list("toPorts")?.unwrap_or_default();
    let icmps = list("icmps")?.unwrap_or_default();
    if let (Some(icmp), false) = (icmps.first(), ports.is_empty()) {
        return Err(icmp.fault("toPorts is here too; make an entry of each"));
    }
    if ports.is_empty() && icmps.is_empty() {
        return Ok(None);
    }
    let mut rules: Vec<_> = ports.iter().map(|field| port_rule(field, context)).collect::<Read<_>>()?;
    for field in icmps {
        rules.push(PortRule { ports: icmp(&field)?, l7: None });
    }
    Ok(Some(rules))
}

fn port_rule(field: &Field<'_>, context: &Context) -> Read<PortRule> {
    let known: &[&str] = if context.deny { &["ports"] } else { &["ports", "rules"] };
    let map = field.map(known, REFUSED)?;
    let items = map.get("ports").map(|field| field.list()).transpose()?.unwrap_or_default();
    if let Some(over) = items.get(MAX_PORTS) {
        return Err(over.fault(format!("more than {MAX_PORTS} ports; make another entry")));
    }
    let l7 = map.get("rules").map(|field| l7(&field, context)).transpose()?.flatten();
    let ports = items.iter().map(|item| port(item, l7.as_ref())).collect::<Read<_>>()?;
    Ok(PortRule { ports, l7 })
}

fn port(field: &Field<'_>, l7: Option<&L7>) -> Read<PortClause> {
    let map = field.map(&["port", "endPort", "protocol"], &[])?;
    let protocols = match map.get("protocol") {
        None => Protocols::WithPorts,
        Some(field) => match field.text()? {
            "ANY" => Protocols::WithPorts,
            "TCP" => Protocols::One(TCP),
            "UDP" => Protocols::One(UDP),
            "SCTP" => Protocols::One(SCTP),
            other @ ("VRRP" | "IGMP") => {
                return Err(field.fault(format!("{other} is not supported; take the port out")));
            }
            other => {
                return Err(
                    field.fault(format!("{other:?} is no protocol here; write ANY, TCP, UDP or SCTP"))
                );
            }
        },
    };
    let port_field = map.need("port", "a port in quotes, such as \"80\"")?;
    let text = port_field.text()?;
    let end = match map.get("endPort") {
        None => 0,
        Some(field) => {
            let number = field.int()?;
            u16::try_from(number)
                .map_err(|_| field.fault(format!("{number} is no port; write 0 to 65535")))?
        }
    };
    let ports = if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        match text.parse::<u16>() {
            Ok(0) => Ports::All,
            Ok(first) => Ports::Range(first, if end == 0 { first } else { end }),
            Err(_) => return Err(port_field.fault(format!("{text} is no port; write 0 to 65535"))),
        }
    } else {
        Ports::Named(check::port_name(text, &port_field, false)?.to_ascii_lowercase().into())
    };
    let dns = match l7 {
        None => return Ok(PortClause { protocols, ports }),
        Some(l7) => matches!(l7, L7::Dns(_)),
    };
    if ports == Ports::All {
        return Err(port_field.fault("rules on requests need a port; 0 is every one"));
    }
    if !dns && protocols != Protocols::One(TCP) {
        return Err(field.fault("rules on HTTP requests need protocol: TCP"));
    }
    if dns && end != 0 {
        return Err(field.fault("rules on DNS queries need one port; take endPort out"));
    }
    Ok(PortClause { protocols, ports })
}

fn l7(field: &Field<'_>, context: &Context) -> Read<Option<L7>> {
    let map = field.map(&["http", "dns"], REFUSED_L7)?;
    if map.is_empty() {
        return Ok(None);
    }
    let list = |name| map.get(name).map(|field| Ok((field.list()?, field))).transpose();
    let ((items, given), is_http) = match (list("http")?, list("dns")?) {
        (Some(_), Some((_, dns))) => return Err(dns.fault("http is here too; make an entry of each")),
        (Some(http), None) => (http, true),
        (None, Some(dns)) => (dns, false),
        (None, None) => return Ok(None),
    };
    if items.is_empty() {
        return Err(given.fault("no rule; write at least one ({} is every request), or take it out"));
    }
    if !is_http && context.direction == Direction::Ingress {
        return Err(given.fault("DNS queries are judged at egress; write the rule there"));
    }
    if is_http && context.on_node {
        return Err(given.fault("the host's own requests are not judged; only DNS at egress is"));
    }
    Ok(Some(if is_http {
        L7::Http(items.iter().map(http).collect::<Read<_>>()?)
    } else {
        L7::Dns(items.iter().map(cilium_peers::dns_name).collect::<Read<_>>()?)
    }))
}

fn http(field: &Field<'_>) -> Read<HttpRule> {
    let refused =
        [("headerMatches", "matching headers by secrets and rewriting them is not supported; use headers")];
    let map = field.map(&["method", "path", "host", "headers"], &refused)?;
    let pattern = |name| {
        let Some(field) = map.get(name) else { return Ok(None) };
        let text = field.text()?;
        let wrong = |problem| field.fault(format!("no regular expression: {problem}"));
        if text.is_empty() { Ok(None) } else { Pattern::regex(text).map(Some).map_err(wrong) }
    };
    let (method, path, host) = (pattern("method")?, pattern("path")?, pattern("host")?);
    let items = map.get("headers").map(|field| field.list()).transpose()?.unwrap_or_default();
    let header = |item: &Field<'_>| {
        let text = item.text()?;
        let (name, value) = text.split_once(' ').unwrap_or((text, ""));
        let name = name.strip_suffix(':').unwrap_or(name);
        if name.is_empty() {
            return Err(item.fault("write a header's name, or `Name: value`"));
        }
        Ok((name.to_ascii_lowercase().into(), (!value.is_empty()).then(|| value.into())))
    };
    Ok(HttpRule { method, path, host, headers: items.iter().map(header).collect::<Read<_>>()? })
}

fn icmp(field: &Field<'_>) -> Read<Vec<PortClause>> {
    let map = field.map(&["fields"], &[])?;
    let items = map.get("fields").map(|field| field.list()).transpose()?.unwrap_or_default();
    if let Some(over) = items.get(MAX_PORTS) {
        return Err(over.fault(format!("more than {MAX_PORTS} types; make another entry")));
    }
    let clause = |item: &Field<'_>| {
        let map = item.map(&["family", "type"], &[])?;
        let family = map.get("family");
        let number = match family.as_ref().map(Field::text).transpose()? {
            None | Some("IPv4") => ICMP,
            Some("IPv6") => ICMPV6,
            Some(other) => {
                return Err(family
                    .as_ref()
                    .unwrap_or(item)
                    .fault(format!("{other:?} is no family; write IPv4 or IPv6")));
            }
        };
        let field = map.need("type", "the ICMP type, such as 8")?;
        let kind = match field.as_int() {
            Some(kind) => u8::try_from(kind).ok(),
            None => icmp_type(number, field.text()?),
        };
        let Some(kind) = kind else {
            return Err(field.fault("no ICMP type; write 0 to 255, or a name such as EchoRequest"));
        };
        let ports = Ports::Range(u16::from(kind), u16::from(kind));
        Ok(PortClause { protocols: Protocols::One(number), ports })
    };
    items.iter().map(clause).collect()
}

/// A type by Cilium's name for it, or by its number in quotes.
fn icmp_type(protocol: u8, name: &str) -> Option<u8> {
    const V4: &[(u8, &str)] = &[
        (0, "EchoReply"),
        (3, "DestinationUnreachable"),
        (5, "Redirect"),
        (8, "EchoRequest"),
        (9, "RouterAdvertisement"),
        (10, "RouterSelection"),
        (11, "TimeExceeded"),
        (12, "ParameterProblem"),
        (13, "Timestamp"),
        (14, "TimestampReply"),
        (40, "Photuris"),
        (42, "ExtendedEchoRequest"),
        (43, "ExtendedEchoReply"),
    ];
    const V6: &[(u8, &str)] = &[
        (1, "DestinationUnreachable"),
        (2, "PacketTooBig"),
        (3, "TimeExceeded"),
        (4, "ParameterProblem"),
        (128, "EchoRequest"),
        (129, "EchoReply"),
        (130, "MulticastListenerQuery"),
        (131, "MulticastListenerReport"),
        (132, "MulticastListenerDone"),
        (133, "RouterSolicitation"),
        (134, "RouterAdvertisement"),
        (135, "NeighborSolicitation"),
        (136, "NeighborAdvertisement"),
        (137, "RedirectMessage"),
        (138, "RouterRenumbering"),
        (139, "ICMPNodeInformationQuery"),
        (140, "ICMPNodeInformationResponse"),
        (141, "InverseNeighborDiscoverySolicitation"),
        (142, "InverseNeighborDiscoveryAdvertisement"),
        (144, "HomeAgentAddressDiscoveryRequest"),
        (145, "HomeAgentAddressDiscoveryReply"),
        (146, "MobilePrefixSolicitation"),
        (147, "MobilePrefixAdvertisement"),
        (157, "DuplicateAddressRequestCodeSuffix"),
        (158, "DuplicateAddressConfirmationCodeSuffix"),
        (160, "ExtendedEchoRequest"),
        (161, "ExtendedEchoReply"),
    ];
    let table = if protocol == ICMP { V4 } else { V6 };
    let named = table.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
    named.or_else(|| name.parse().ok())
}
