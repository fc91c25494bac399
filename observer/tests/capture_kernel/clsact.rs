//! The way that kernels without tcx have: classic filters, which outlive who put them there.

use std::net::UdpSocket;
use std::process::Command;

use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};
use observer::capture::{CaptureConfig, LinkHook, detach, kernel::load::patiently};

use crate::frames::OBJECT;
use crate::support::{Lab, Wiring, skip};

/// The handles of our filters start so.
const OURS: &str = "handle 0x6f62";
const LINKS: [&str; 2] = ["pod1", "pod2"];

fn config() -> CaptureConfig {
    CaptureConfig { link_hook: LinkHook::Clsact, ..CaptureConfig::default() }
}

fn tc(lab: &Lab, words: &[&str]) -> String {
    let node = format!("--net=/run/netns/{}", lab.node.0);
    let output = Command::new("nsenter").args([&node, "tc"]).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Filters of a name on both hooks of all links.
fn filters(lab: &Lab, name: &str) -> usize {
    let on = |link: &str, hook| tc(lab, &["filter", "show", "dev", link, hook]).matches(name).count();
    LINKS.iter().map(|link| on(link, "ingress") + on(link, "egress")).sum()
}

fn qdiscs(lab: &Lab) -> usize {
    LINKS.iter().filter(|link| tc(lab, &["qdisc", "show", "dev", link]).contains("clsact")).count()
}

/// A filter of somebody else: classic BPF that never matches.
fn stranger(lab: &Lab, link: &str, hook: &str) {
    tc(lab, &["filter", "add", "dev", link, hook, "prio", "7", "bpf", "bytecode", "1,6 0 0 0,"]);
}

/// What a killed capture leaves: filters that nobody owns any more.
fn leave_behind(lab: &Lab, made_qdisc: bool) {
    lab.node.within(|| {
        let mut ebpf = aya::Ebpf::load(OBJECT).unwrap();
        for (name, hook) in
            [("observer_ingress", TcAttachType::Ingress), ("observer_egress", TcAttachType::Egress)]
        {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap();
            for link in LINKS {
                // The second program finds it there.
                let _ = qdisc_add_clsact(link);
                let handle = TcHandle::new(u16::from_be_bytes(*b"ob"), u16::from(made_qdisc));
                let options = TcAttachOptions::Netlink(NlOptions { handle, ..NlOptions::default() });
                let id = program.attach_with_options(link, hook, options).unwrap();
                std::mem::forget(program.take_link(id).unwrap());
            }
        }
    });
}

#[test]
fn it_counts_what_tcx_counts_and_leaves_nothing() {
    const SENT: u64 = 40;
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let watch = lab.capture(&config());
    let table = watch.capture.links();
    assert!(table.links.iter().all(|link| link.attached_by == "clsact"), "{table:?}");
    let receiver = lab.pods[1].within(|| UdpSocket::bind("10.77.0.2:53").unwrap());
    lab.pods[0].within(|| {
        let sender = UdpSocket::bind("10.77.0.1:40000").unwrap();
        for _ in 0..SENT {
            sender.send_to(b"12345678", "10.77.0.2:53").unwrap();
        }
    });
    for _ in 0..SENT {
        receiver.recv(&mut [0; 16]).unwrap();
    }
    let (flows, _, _) = watch.stop();
    let udp = flows.iter().filter(|flow| flow.tuple.protocol == 17);
    assert_eq!(udp.map(|flow| flow.packets).max(), Some(SENT));
    assert_eq!((filters(&lab, OURS), qdiscs(&lab)), (0, 0));
}

#[test]
fn what_a_killed_one_left_is_replaced_and_counted() {
    if skip() {
        return;
    }
    for made_qdisc in [true, false] {
        let lab = Lab::new(Wiring::Routed);
        leave_behind(&lab, made_qdisc);
        assert_eq!(filters(&lab, OURS), 4);
        let watch = lab.capture(&config());
        assert_eq!(filters(&lab, OURS), 4, "one on each hook of each link");
        let hooks = watch.capture.status().status().hooks;
        let notes = hooks.iter().filter(|hook| hook.note.contains("in the place of 2 that a killed"));
        assert_eq!(notes.count(), 2, "{hooks:?}");
        drop(watch);
        let left = if made_qdisc { 0 } else { 2 };
        assert_eq!((filters(&lab, OURS), qdiscs(&lab)), (0, left), "made by us: {made_qdisc}");
    }
}

#[test]
fn what_a_killed_one_left_is_detached_by_hand() {
    if skip() {
        return;
    }
    for (made_qdisc, left) in [(true, 1), (false, 2)] {
        let lab = Lab::new(Wiring::Routed);
        leave_behind(&lab, made_qdisc);
        stranger(&lab, "pod1", "ingress");
        let detached = lab.node.within(|| detach().unwrap());
        let names: Vec<&str> = detached.filters.iter().map(String::as_str).collect();
        assert_eq!((names, detached.kept.is_empty()), (vec!["pod1", "pod2"], true));
        // That of the other's filter stays anyway.
        assert_eq!((filters(&lab, OURS), qdiscs(&lab)), (0, left), "made by us: {made_qdisc}");
    }
}

#[test]
fn filters_of_others_stay_and_run_on() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    tc(&lab, &["qdisc", "add", "dev", "pod1", "clsact"]);
    stranger(&lab, "pod1", "ingress");
    let watch = lab.capture(&config());
    let chained = |name: &str| {
        let table = watch.capture.links();
        table.links.iter().find(|link| link.name == name).unwrap().chained
    };
    assert_eq!((chained("pod1"), chained("pod2")), ([1, 0], [0, 0]));
    // On what we made, later.
    stranger(&lab, "pod2", "egress");
    watch.stop();
    assert_eq!((filters(&lab, OURS), filters(&lab, "pref 7 bpf chain 0 handle"), qdiscs(&lab)), (0, 2, 2));
}
