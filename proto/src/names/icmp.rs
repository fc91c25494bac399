//! ICMP type and code names as they stand in a flow's Summary. Held to testdata/hubble-api/icmp-names.tsv.

/// Type, its name, the names of its codes from 0 on.
type Row = (u8, &'static str, &'static [&'static str]);

const V4: &[Row] = &[
    (0, "EchoReply", &[]),
    (
        3,
        "DestinationUnreachable",
        &[
            "Net",
            "Host",
            "Protocol",
            "Port",
            "FragmentationNeeded",
            "SourceRoutingFailed",
            "NetUnknown",
            "HostUnknown",
            "SourceIsolated",
            "NetAdminProhibited",
            "HostAdminProhibited",
            "NetTOS",
            "HostTOS",
            "CommAdminProhibited",
            "HostPrecedence",
            "PrecedenceCutoff",
        ],
    ),
    (4, "SourceQuench", &[]),
    (5, "Redirect", &["Net", "Host", "TOS+Net", "TOS+Host"]),
    (8, "EchoRequest", &[]),
    (9, "RouterAdvertisement", &[]),
    (10, "RouterSolicitation", &[]),
    (11, "TimeExceeded", &["TTLExceeded", "FragmentReassemblyTimeExceeded"]),
    (12, "ParameterProblem", &["PointerIndicatesError", "MissingOption", "BadLength"]),
    (13, "TimestampRequest", &[]),
    (14, "TimestampReply", &[]),
    (15, "InfoRequest", &[]),
    (16, "InfoReply", &[]),
    (17, "AddressMaskRequest", &[]),
    (18, "AddressMaskReply", &[]),
];

const V6: &[Row] = &[
    (
        1,
        "DestinationUnreachable",
        &[
            "NoRouteToDst",
            "AdminProhibited",
            "BeyondScopeOfSrc",
            "AddressUnreachable",
            "PortUnreachable",
            "SrcAddressFailedPolicy",
            "RejectRouteToDst",
        ],
    ),
    (2, "PacketTooBig", &[]),
    (3, "TimeExceeded", &["HopLimitExceeded", "FragmentReassemblyTimeExceeded"]),
    (4, "ParameterProblem", &["ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedIPv6Option"]),
    (128, "EchoRequest", &[]),
    (129, "EchoReply", &[]),
    (133, "RouterSolicitation", &[]),
    (134, "RouterAdvertisement", &[]),
    (135, "NeighborSolicitation", &[]),
    (136, "NeighborAdvertisement", &[]),
    (137, "Redirect", &[]),
];

/// The name of an ICMPv4 type and, where it has one, of its code.
pub fn icmp_v4(icmp_type: u8, code: u8) -> Option<(&'static str, Option<&'static str>)> {
    look_up(V4, icmp_type, code)
}

/// The name of an ICMPv6 type and, where it has one, of its code.
pub fn icmp_v6(icmp_type: u8, code: u8) -> Option<(&'static str, Option<&'static str>)> {
    look_up(V6, icmp_type, code)
}

fn look_up(table: &[Row], icmp_type: u8, code: u8) -> Option<(&'static str, Option<&'static str>)> {
    let row = table.iter().find(|row| row.0 == icmp_type)?;
    Some((row.1, row.2.get(usize::from(code)).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_table() {
        let table = include_str!("../../../testdata/hubble-api/icmp-names.tsv");
        let mut rows = 0;
        for line in table.lines().skip(1) {
            let cells: Vec<&str> = line.split('\t').collect();
            let code = cells[3].parse().unwrap_or(0);
            let name = (cells[4] != "-").then_some(cells[4]);
            let found = if cells[0] == "4" { icmp_v4 } else { icmp_v6 }(cells[1].parse().unwrap(), code);
            assert_eq!(found, Some((cells[2], name)), "{line}");
            rows += 1;
        }
        let ours: usize = V4.iter().chain(V6).map(|row| row.2.len().max(1)).sum();
        assert_eq!(rows, ours);
    }
}
