//! What is sent to a service is judged by its backends before one is chosen.

use observer_ebpf::policy::{OTHERS, judged_flags, side};

use super::*;
use crate::support::skip;

const EGRESS: usize = side::EGRESS;
const SERVICE: &str = "10.96.0.1";
const FRONTEND: u32 = judged_flags::FRONTEND;
const MIXED: u32 = FRONTEND | judged_flags::MIXED | judged_flags::AUDIT_MIXED;

/// Pod 1 may reach pod 2 at 8080, pod 3 nowhere, the other node only in audit.
fn world(backends: &[(&str, u16)]) -> World {
    World::new()
        .row(1, EGRESS, OTHERS, &all(BY_RULE))
        .row(1, EGRESS, 2, &only(8080, ALLOWED))
        .row(1, EGRESS, 3, &all(DEFAULT))
        .row(1, EGRESS, OTHER_NODE, &all(AUDITED))
        .service(SERVICE, 80, backends)
}

#[test]
fn all_none_and_some() {
    if skip() {
        return;
    }
    let (two, three) = (("10.0.0.2", 8080), ("10.0.0.3", 8080));
    let node = ("10.0.1.254", 8080);
    for (backends, dropped, egress, flags) in [
        (&[two, two][..], false, ALLOWED, FRONTEND),
        (&[three, ("10.0.0.2", 81)], true, DEFAULT, FRONTEND),
        (&[("203.0.113.9", 80), three], true, BY_RULE, FRONTEND),
        (&[two, three], false, DEFAULT, MIXED),
        (&[node, node], false, AUDITED, FRONTEND),
        (&[two, node], false, AUDITED, FRONTEND | judged_flags::AUDIT_MIXED),
        (&[node, three], false, DEFAULT, FRONTEND | judged_flags::MIXED),
        // Itself, where it may always go.
        (&[("10.0.0.1", 8080), three], false, DEFAULT, MIXED),
    ] {
        let mut judging = Judging::new(world(backends));
        let outcome = judging.see(FROM_POD, &tcp("10.0.0.1", SERVICE, 40_000, 80, SYN));
        assert_eq!(outcome.dropped, dropped, "{backends:?}");
        let judged = outcome.judged.unwrap();
        assert_eq!((judged.egress, judged.ingress, judged.flags), (egress, 0, flags), "{backends:?}");
        // What was chosen answers from the service's address.
        let reply = judging.see(TO_POD, &tcp(SERVICE, "10.0.0.1", 80, 40_000, SYN | ACK));
        assert_eq!(reply.dropped, dropped, "{backends:?}");
        // At another port there is no service, only an address of the world.
        assert!(judging.see(FROM_POD, &tcp("10.0.0.1", SERVICE, 40_000, 81, SYN)).dropped);
    }
}

#[test]
fn nothing_is_decided_of_no_backends_and_of_too_many() {
    if skip() {
        return;
    }
    let many = vec![("10.0.0.3", 8080); 32];
    assert!(Judging::new(world(&many)).see(FROM_POD, &tcp("10.0.0.1", SERVICE, 1, 80, SYN)).dropped);
    let too_many = vec![("10.0.0.3", 8080); 33];
    for backends in [&[][..], &[("10.0.0.1", 8080)], &too_many] {
        let mut judging = Judging::new(world(backends));
        assert!(!judging.see(FROM_POD, &tcp("10.0.0.1", SERVICE, 40_000, 80, SYN)).dropped);
    }
}

#[test]
fn what_was_chosen_is_judged_where_it_comes_out() {
    if skip() {
        return;
    }
    let mut judging = Judging::new(world(&[("10.0.0.2", 8080), ("10.0.0.3", 8080)]));
    judging.set_local(&["10.0.0.1"]);
    assert!(!judging.see(TO_POD, &tcp("10.0.0.1", "10.0.0.2", 40_000, 8080, SYN)).dropped);
    assert!(judging.see(TO_POD, &tcp("10.0.0.1", "10.0.0.3", 40_000, 8080, SYN)).dropped);
    assert!(judging.see(TO_WORLD, &tcp("10.0.0.1", "203.0.113.9", 40_000, 8080, SYN)).dropped);
}
