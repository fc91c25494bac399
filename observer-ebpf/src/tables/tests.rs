use super::*;
use crate::parse::mapped;

#[test]
fn a_short_key_says_the_link_and_the_protocol() {
    let ends = Ends { local: mapped([10, 0, 0, 1]), remote: mapped([10, 0, 0, 2]) };
    let short = ShortKey {
        local: [10, 0, 0, 1],
        remote: [10, 0, 0, 2],
        ifindex: 7 | SHORT_UDP,
        local_port: 5000,
        remote_port: 53,
    };
    let long = FlowKey {
        local: mapped([10, 0, 0, 1]),
        remote: mapped([10, 0, 0, 2]),
        ifindex: 7,
        local_port: 5000,
        remote_port: 53,
        protocol: UDP,
        vni: [0; 3],
    };
    assert_eq!(short.between(ends), long);
    let tcp = FlowKey { protocol: TCP, ..long };
    for ifindex in [7, 7 | SHORT_IPV6] {
        assert_eq!(ShortKey { ifindex, ..short }.between(ends), tcp);
    }
    for key in [long, tcp] {
        assert_eq!(ShortKey::of_twin(&key).unwrap().between(ends), key);
        assert_eq!(ShortKey::of_twin(&FlowKey { ifindex: 7 | INSIDE_TUNNEL, ..key }), None);
    }
    assert_eq!(ShortKey::of_twin(&FlowKey { protocol: ICMPV6, ..long }), None);
}

#[test]
fn addresses_of_a_net_are_not_folded_into_one() {
    use std::collections::HashSet;
    let words = |first: u64, last: u128| {
        let address = (u128::from(first) << 64 | last).to_be_bytes();
        let (first, last) = address.split_at(8);
        [first, last].map(|half| u64::from_ne_bytes(half.try_into().unwrap()))
    };
    // The last four bytes, the last eight, and the nets of pods: few of them meet by chance.
    let places: [fn(u64) -> (u64, u128); 4] = [
        |n| (0xfd00 << 48, u128::from(n)),
        |n| (0xfd00 << 48, u128::from(n) << 12),
        |n| (0xfd00 << 48 | n, 1),
        |n| (0xfd00 << 48, u128::from(n) << 40 | 0xff_fe00_0001),
    ];
    for (place, most) in places.into_iter().zip([0, 64, 64, 64]) {
        let all: HashSet<_> = (0..1 << 17)
            .map(|n| {
                let (first, last) = place(n);
                folded(words(first, last))
            })
            .collect();
        assert!((1 << 17) - all.len() <= most, "{}", all.len());
    }
}

#[test]
fn an_echo_has_its_identifier_for_both_ports() {
    let key =
        FlowKey { local_port: 9, remote_port: 8 | ASKED_BY_REMOTE, protocol: ICMP, ..FlowKey::default() };
    assert_eq!(key.with_ports(), FlowKey { remote_port: 9, ..key });
    let udp = FlowKey { protocol: UDP, ..key };
    assert_eq!(udp.with_ports(), udp);
}

#[test]
fn the_lower_half_says_how_many_packets_were_told() {
    let mut value = FlowValue::default();
    for (packets, told) in [
        (0, 0),
        (7, 7),
        (9, 7),
        (u64::from(u32::MAX) + 3, u64::from(u32::MAX) - 2),
        (1 << 40, 0xff_ffff_fff0),
    ] {
        value.directions[1].packets = packets;
        value.told_packets[1] = told as u32;
        assert_eq!(value.told_packets(1), told, "{packets}");
    }
}

#[test]
fn ticks_pass_over_the_end_of_their_number() {
    assert_eq!(tick(3 << 20), 3);
    assert_eq!(tick((1 << 52) + (5 << 20)), 5);
    assert_eq!(ticks_since(5, 3), 2);
    assert_eq!(ticks_since(2, u32::MAX), 3);
    assert_eq!(ticks_since(3, 5), 0, "the other processor's clock is ahead");
}
