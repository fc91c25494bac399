//! Pods that talk through a VXLAN of their own: what is inside is told, where the outer packets are told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::{Lab, Wiring, skip};
use observer::capture::CaptureConfig;
use observer_ebpf::{TunneledFlowRecord, flow_flags, flow_reason, hook, kind, tunnel_kind};
use observer_lab::links::wait_ready;
use zerocopy::FromBytes as _;

#[test]
fn a_connection_inside_a_vxlan_between_pods() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    for (pod, own, other) in [(0, 1, 2), (1, 2, 1)] {
        let pod = &lab.pods[pod];
        pod.run(&format!(
            "ip link add vx0 type vxlan id 7 dstport 4789 local 10.77.0.{own} remote 10.77.0.{other} dev eth0"
        ));
        pod.run(&format!("ip addr add 192.168.77.{own}/24 dev vx0"));
        pod.run("ip link set vx0 up");
        wait_ready(&pod.0).unwrap();
    }
    let mut watch = lab.capture(&CaptureConfig::default());
    let listener = lab.pods[1].within(|| TcpListener::bind("192.168.77.2:8080").unwrap());
    let mut client = lab.pods[0].within(|| TcpStream::connect("192.168.77.2:8080").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();

    let mut told = Vec::new();
    let mut keep = |bytes: &[u8]| {
        if bytes[0] == kind::TUNNELED_FLOW {
            let record = TunneledFlowRecord::read_from_bytes(bytes).unwrap();
            if record.flow.tuple.protocol == 6 {
                told.push(record);
            }
        }
    };
    watch.capture.drain(&mut keep).unwrap();
    watch.capture.stop(&mut keep).unwrap();
    let of = |reason| told.iter().filter(move |record| record.flow.reason == reason).collect::<Vec<_>>();
    let news = of(flow_reason::NEW);
    assert_eq!(news.len(), 1, "{told:#?}");
    let tuple = &news[0].flow.tuple;
    assert_eq!(
        (&tuple.source[12..], &tuple.destination[12..]),
        (&[192, 168, 77, 1][..], &[192, 168, 77, 2][..])
    );
    assert_eq!((tuple.destination_port, news[0].flow.tcp_flags), (8080, 2));
    assert!(!of(flow_reason::SWEEP).is_empty(), "the last totals of what was not told yet");
    for record in &told {
        let (flow, tunnel) = (&record.flow, &record.tunnel);
        assert_eq!(flow.hook, hook::EGRESS, "told where it is delivered: {record:?}");
        assert_eq!(flow.flags & flow_flags::OPENER_GUESSED, 0, "{record:?}");
        assert_eq!((tunnel.kind, tunnel.vni), (tunnel_kind::VXLAN, 7), "{record:?}");
        assert_eq!((tunnel.tuple.protocol, tunnel.tuple.destination_port), (17, 4789));
        let reply = flow.flags & flow_flags::REPLY != 0;
        let outer = if reply { [10, 77, 0, 2] } else { [10, 77, 0, 1] };
        assert_eq!(tunnel.tuple.source[12..], outer, "{record:?}");
    }
}
