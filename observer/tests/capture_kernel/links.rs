//! Links are found when they come, and forgotten when they go.

use std::time::Instant;

use observer::capture::{CaptureConfig, LinkKind};

use crate::support::{Lab, Netns, PATIENCE, Wiring, skip};

#[test]
fn a_pod_that_comes_is_attached_and_one_that_goes_is_forgotten() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let mut watch = lab.capture(&CaptureConfig::default());
    let table = watch.capture.links();
    assert_eq!(table.links.len(), 2, "{table:?}");
    assert_eq!(table.netns, lab.node.inode());
    for (link, pod) in table.links.iter().zip(&lab.pods) {
        assert_eq!((link.kind, link.peer_netns, link.attached_by), (LinkKind::Pod, Some(pod.inode()), "tcx"));
    }
    let third = Netns::new("c");
    lab.wire(&third, 3);
    watch.until("pod3", |watch| watch.capture.links().links.iter().any(|link| link.name == "pod3"));
    lab.node.run("ip link del pod3");
    watch.until("pod3 gone", |watch| watch.capture.links().links.len() == 2);
}

#[test]
fn nothing_is_left_behind() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let attached = || {
        use aya::programs::{SchedClassifier, TcAttachType};
        lab.node.within(|| SchedClassifier::query_tcx("pod1", TcAttachType::Ingress).unwrap().1.len())
    };
    // A child that another test's thread has forked holds a copy of every link until it executes its program.
    let detached = || {
        let deadline = Instant::now() + PATIENCE;
        while attached() != 0 {
            assert!(Instant::now() < deadline, "a program is still attached");
            std::thread::yield_now();
        }
    };
    let watch = lab.capture(&CaptureConfig::default());
    assert_eq!(attached(), 1);
    watch.stop();
    detached();
    let dropped = lab.capture(&CaptureConfig::default());
    drop(dropped);
    detached();
}
