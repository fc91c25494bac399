//! The flow program on crafted frames, without any link: what this kernel can't send, and what nobody should.

use aya::maps::{PerCpuHashMap, PerCpuValues, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use observer::capture::kernel::load::patiently;
use observer_ebpf::{
    Config, FlowRecord, LinkState, LinkTraffic, TunneledFlowRecord, aggregation, flow_flags, flow_reason,
    kind, link_kind, tunnel_kind,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::support::skip;

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf"));
const LINK: usize = size_of::<LinkState>();
/// `lo`, whose index a test run gives.
const IFINDEX: u32 = 1;

pub(crate) struct Programs {
    ebpf: Ebpf,
    flows: RingBuf<aya::maps::MapData>,
}

impl Programs {
    pub(crate) fn load(level: u32) -> Self {
        let config = Config {
            aggregation: level,
            ephemeral_low: 32_768,
            ephemeral_high: 60_999,
            interval_ns: 5_000_000_000,
            new_flow_cost_ns: 0,
            new_flow_burst: 1,
            coarse_clock: 1,
            ..Config::default()
        };
        let mut ebpf =
            EbpfLoader::new().override_global("CONFIG", config.as_bytes(), true).load(OBJECT).unwrap();
        let mut links: PerCpuHashMap<_, u32, [u8; LINK]> = ebpf.map_mut("LINKS").unwrap().try_into().unwrap();
        let state = LinkState { kind: u32::from(link_kind::POD), ..LinkState::default() };
        let state: [u8; LINK] = state.as_bytes().try_into().unwrap();
        let cpus = aya::util::nr_cpus().unwrap();
        links.insert(IFINDEX, PerCpuValues::try_from(vec![state; cpus]).unwrap(), 0).unwrap();
        for name in ["observer_ingress", "observer_egress"] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap();
        }
        let flows = RingBuf::try_from(ebpf.take_map("FLOWS").unwrap()).unwrap();
        Self { ebpf, flows }
    }

    /// Runs the ingress program; the result must be `TCX_NEXT` whatever the frame is, and the frame as it was.
    /// `None` where the kernel itself refuses the frame: it takes none that ends inside the IP header.
    pub(crate) fn try_run(&mut self, frame: &[u8], repeat: u32) -> Option<std::time::Duration> {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut("observer_ingress").unwrap().try_into().unwrap();
        let mut after = vec![0; frame.len() + 64];
        let mut options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        options.data_out = Some(&mut after);
        let result = program.test_run(options).ok()?;
        assert_eq!(result.return_value as i32, -1);
        assert_eq!(&after[..result.data_size_out as usize], frame, "the program changed the frame");
        Some(result.duration)
    }

    fn run(&mut self, frame: &[u8], repeat: u32) -> std::time::Duration {
        self.try_run(frame, repeat).unwrap()
    }

    /// The next record, without what is around a tunneled one.
    pub(crate) fn record(&mut self) -> Option<FlowRecord> {
        let record = self.flows.next()?;
        Some(FlowRecord::read_from_prefix(&record).unwrap().0)
    }

    fn malformed(&self) -> u64 {
        self.traffic().malformed
    }

    /// What was counted of the link.
    pub(crate) fn traffic(&self) -> LinkTraffic {
        let links: PerCpuHashMap<_, u32, [u8; LINK]> = self.ebpf.map("LINKS").unwrap().try_into().unwrap();
        let mut sum = LinkTraffic::default();
        for value in links.get(&IFINDEX, 0).unwrap().iter() {
            let [each, _] = LinkState::read_from_bytes(value).unwrap().traffic;
            sum.packets += each.packets;
            sum.bytes += each.bytes;
            sum.not_ip += each.not_ip;
            sum.malformed += each.malformed;
        }
        sum
    }
}

pub(crate) fn ethernet(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(rest);
    frame
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2; `place` is the flags and fragment offset.
pub(crate) fn ipv4(protocol: u8, options: &[u8], place: u16, rest: &[u8]) -> Vec<u8> {
    let length = 20 + options.len() + rest.len();
    let mut packet = vec![0x45 + (options.len() / 4) as u8, 0, (length >> 8) as u8, length as u8, 0, 7];
    packet.extend(place.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend(rest);
    packet
}

pub(crate) fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(rest);
    packet
}

/// Source 40000, destination 80.
pub(crate) const PORTS: [u8; 4] = [0x9c, 0x40, 0, 80];

pub(crate) fn tcp_syn() -> Vec<u8> {
    let mut header = PORTS.to_vec();
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
    header
}

pub(crate) fn udp() -> Vec<u8> {
    [&PORTS[..], &[0, 8, 0, 0]].concat()
}

/// Hop-by-hop, routing, destination options, authentication, then what is given.
fn extensions(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![43, 0, 1, 4, 0, 0, 0, 0];
    bytes.extend([60, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([next, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(rest);
    bytes
}

pub(crate) fn frames() -> Vec<(&'static str, u8, u16, Vec<u8>)> {
    let options = [1, 1, 1, 1, 1, 1, 1, 0];
    let vlan = |rest: Vec<u8>| [&[0, 42, 8, 0][..], &rest].concat();
    let qinq = [&[0, 7, 0x81, 0, 0, 42, 8, 0][..], &ipv4(17, &[], 0, &udp())].concat();
    vec![
        ("IPv4 TCP", 6, 0, ethernet(0x0800, &ipv4(6, &[], 0, &tcp_syn()))),
        ("IPv4 options", 6, 0, ethernet(0x0800, &ipv4(6, &options, 0, &tcp_syn()))),
        ("SCTP", 132, 0, ethernet(0x0800, &ipv4(132, &[], 0, &udp()))),
        ("VLAN", 17, 42, ethernet(0x8100, &vlan(ipv4(17, &[], 0, &udp())))),
        ("QinQ", 17, 7, ethernet(0x88a8, &qinq)),
        ("IPv6 TCP", 6, 0, ethernet(0x86dd, &ipv6(6, &tcp_syn()))),
        ("IPv6 extensions", 17, 0, ethernet(0x86dd, &ipv6(0, &extensions(17, &udp())))),
    ]
}

#[test]
fn every_header_is_followed() {
    if skip() {
        return;
    }
    for (name, protocol, vlan, frame) in frames() {
        let mut programs = Programs::load(aggregation::NONE);
        programs.run(&frame, 1);
        let record = programs.record().unwrap_or_else(|| panic!("{name}: no record"));
        let tuple = record.tuple;
        assert_eq!(
            (tuple.protocol, tuple.source_port, tuple.destination_port),
            (protocol, 40_000, 80),
            "{name}"
        );
        assert_eq!((record.packets, record.bytes), (1, u64::from(record.packet_len)), "{name}");
        assert_eq!(record.source_mac, [2, 0, 0, 0, 0, 1], "{name}");
        assert_eq!(record.vlan_tci, vlan, "{name}");
        assert_eq!(programs.malformed(), 0, "{name}");
    }
}

/// VXLAN in GRE, each around a TCP SYN from 10.0.0.1:40000 to 10.0.0.2:80.
pub(crate) fn tunneled() -> Vec<(&'static str, u8, u32, Vec<u8>)> {
    let syn = ipv4(6, &[], 0, &tcp_syn());
    let vxlan = |vni: u8| {
        let header = [0x9c, 0x40, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, vni, 0];
        [&header[..], &ethernet(0x0800, &syn)].concat()
    };
    let gre = |key: u8, rest: &[u8]| [&[0x20, 0, 8, 0, 0, 0, 0, key][..], rest].concat();
    vec![
        ("VXLAN", tunnel_kind::VXLAN, 5, ethernet(0x0800, &ipv4(17, &[], 0, &vxlan(5)))),
        ("VXLAN over IPv6", tunnel_kind::VXLAN, 6, ethernet(0x86dd, &ipv6(17, &vxlan(6)))),
        ("GRE", tunnel_kind::GRE, 9, ethernet(0x0800, &ipv4(47, &[], 0, &gre(9, &syn)))),
        ("VXLAN in GRE", tunnel_kind::GRE, 8, {
            ethernet(0x0800, &ipv4(47, &[], 0, &gre(8, &ipv4(17, &[], 0, &vxlan(7)))))
        }),
        ("IP in IP", tunnel_kind::IP, 0, ethernet(0x0800, &ipv4(4, &[], 0, &syn))),
    ]
}

#[test]
fn the_packet_inside_a_tunnel_is_the_flow() {
    if skip() {
        return;
    }
    // One table for all: the same connection in two networks is two connections.
    let mut programs = Programs::load(aggregation::MEDIUM);
    for (name, kind, vni, frame) in tunneled() {
        programs.run(&frame, 1);
        let record = programs.flows.next().unwrap_or_else(|| panic!("{name}: no record"));
        let record = TunneledFlowRecord::read_from_bytes(&record)
            .unwrap_or_else(|_| panic!("{name}: {:?}", FlowRecord::read_from_bytes(&record)));
        let (flow, tunnel) = (record.flow, record.tunnel);
        assert_eq!((flow.header.kind, flow.reason), (kind::TUNNELED_FLOW, flow_reason::NEW), "{name}");
        let inner = (flow.tuple.protocol, flow.tuple.source_port, flow.tuple.destination_port);
        assert_eq!(inner, (6, 40_000, 80), "{name}");
        assert_eq!((flow.packets, flow.tcp_flags), (1, 2), "{name}");
        assert_eq!((tunnel.kind, tunnel.vni), (kind, vni), "{name}");
        assert_ne!(tunnel.tuple.protocol, 6, "{name}");
    }
    assert_eq!(programs.malformed(), 0);
}

#[test]
fn a_cut_tunnel_is_told_as_far_as_it_can_be_read() {
    if skip() {
        return;
    }
    let mut programs = Programs::load(aggregation::NONE);
    for (name, _, _, frame) in tunneled() {
        for end in 34..frame.len() {
            if programs.try_run(&frame[..end], 1).is_none() {
                continue;
            }
            while let Some(record) = programs.flows.next() {
                if let Ok(whole) = TunneledFlowRecord::read_from_bytes(&record) {
                    let inner = whole.flow.tuple;
                    assert!([80, 4789].contains(&inner.destination_port), "{name} cut at {end}");
                } else {
                    let outer = FlowRecord::read_from_bytes(&record).unwrap();
                    assert_ne!(outer.tuple.protocol, 6, "{name} cut at {end}");
                }
            }
        }
    }
}

#[test]
fn frames_cut_at_every_byte_are_counted_not_believed() {
    if skip() {
        return;
    }
    let mut programs = Programs::load(aggregation::NONE);
    let (mut runs, mut told) = (0, 0);
    for (_, _, _, frame) in frames() {
        // A test run takes no frame shorter than its Ethernet header.
        for end in 14..frame.len() {
            if programs.try_run(&frame[..end], 1).is_none() {
                continue;
            }
            runs += 1;
            while let Some(record) = programs.record() {
                // Enough of it was there: ports at least.
                assert_eq!((record.tuple.source_port, record.tuple.destination_port), (40_000, 80));
                told += 1;
            }
        }
    }
    assert_eq!(programs.malformed() + told, runs);
    assert!(runs > 150 && told > 0, "{runs} runs, {told} told");
}

#[test]
fn fragments_have_the_ports_of_their_first() {
    if skip() {
        return;
    }
    let mut programs = Programs::load(aggregation::NONE);
    programs.run(&ethernet(0x0800, &ipv4(17, &[], 185, b"no first was seen")), 1);
    let orphan = programs.record().unwrap();
    assert_eq!(orphan.tuple.source_port, 0);
    programs.run(&ethernet(0x0800, &ipv4(17, &[], 0x2000, &udp())), 1);
    programs.run(&ethernet(0x0800, &ipv4(17, &[], 185, b"the rest of it")), 1);
    let (first, later) = (programs.record().unwrap(), programs.record().unwrap());
    assert_eq!(first.flags & flow_flags::FRAGMENT, 0);
    assert_eq!((later.flags & flow_flags::FRAGMENT != 0, later.tuple.source_port), (true, 40_000));
    assert_eq!(later.packets, 2);
}
