//! Rings that are full change no verdict, and what they don't take is counted to the unit.

use crate::{
    ALLOWED, DENIED, LAB, namespace_of, only,
    support::{Daemon, Sums, can_run},
    talk::{any_port, got_nothing},
};
use observer_lab::{Lab, Scenario, netns, unique_prefix};
use observer_proto::{
    flow::{FlowFilter, LostEventSource, Verdict},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};
use std::{fs, net::UdpSocket};

/// So many connections of each kind; each ring has room for less.
const CONNECTIONS: usize = 200;

#[test]
fn full_rings_change_no_verdict() {
    if !can_run("full_rings_change_no_verdict") {
        return;
    }
    let lab = Lab::up(&Scenario::parse(LAB, "full").unwrap(), &unique_prefix("full")).unwrap();
    let policies = tempfile::tempdir().unwrap();
    let file = policies.path().join("only.yaml");
    fs::write(&file, only("only", "server", ALLOWED)).unwrap();
    let rings = ["--flow-ring-kib", "4", "--priority-ring-kib", "4"];
    let mut flags = vec!["--policy", file.to_str().unwrap(), "--policy-mode", "enforce"];
    flags.extend(rings);
    let daemon = Daemon::start(&lab, "n1", &flags);
    // No flow is so; what was lost is told to every stream.
    let losses = daemon.follow(GetFlowsRequest {
        follow: true,
        whitelist: vec![FlowFilter { verdict: vec![Verdict::Error as i32], ..FlowFilter::default() }],
        ..GetFlowsRequest::default()
    });
    let ip = lab.scenario().pod("shop", "server").unwrap().ips[0];
    let [allowed, denied] = netns::inside(&namespace_of(&lab, "shop", "server"), || {
        Ok([ALLOWED, DENIED].map(|port| UdpSocket::bind((ip, port)).unwrap()))
    })
    .unwrap();
    denied.set_nonblocking(true).unwrap();

    kill_process(daemon.pid(), Signal::STOP).unwrap();
    waitpid(Some(daemon.pid()), WaitOptions::UNTRACED).unwrap();
    let mut buffer = [0; 16];
    netns::inside(&namespace_of(&lab, "web", "client"), || {
        for number in 0..CONNECTIONS as u64 {
            let socket = any_port(ip);
            socket.send_to(b"denied", (ip, DENIED)).unwrap();
            // Another connection, though of the same socket; it takes the same way.
            socket.send_to(&number.to_be_bytes(), (ip, ALLOWED)).unwrap();
            let (length, _) = allowed.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..length], number.to_be_bytes());
            got_nothing(denied.recv(&mut [0; 16]));
        }
        Ok(())
    })
    .unwrap();
    kill_process(daemon.pid(), Signal::CONT).unwrap();

    let sums = Sums::of(&daemon.settled());
    sums.check();
    let [made, _, lost] = sums.stages["denied packets"];
    // The system may give a port twice, which is then the same connection.
    let summed = sums.suppressed("denied packets", "summed");
    assert!(made + summed >= CONNECTIONS as u64 && lost > 0, "{sums:?}");
    assert!(sums.stages["flows egress"][2] > 0, "{sums:?}");
    let mut told = 0;
    while told < sums.lost() {
        told += losses.until(&format!("{} lost, not only {told}", sums.lost()), |response| match response {
            ResponseTypes::LostEvents(event) if event.source() == LostEventSource::PerfEventRingBuffer => {
                Some(event.num_events_lost)
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, sums.lost());
}
