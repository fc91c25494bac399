use super::*;
use crate::decode::FactEvent;
use proptest::prelude::*;

const SERVICE_CALL: &str = "pod in new tcp 10.0.1.1:4000>10.96.0.1:80";
const SERVICE_ENTRY: &str = "tcp 10.0.1.1:4000>10.96.0.1:80 10.0.2.2:8080>10.0.1.1:4000";
const OTHER_ENTRY: &str = "udp 10.0.1.9:1>10.0.1.8:1 10.0.1.8:1>10.0.1.9:1";
const MS: u64 = 1_000_000;

fn run(tracker: &mut Tracker, lines: &[(&str, u64)], table: &ConntrackTable, now_ns: u64) -> Vec<String> {
    let mut events = lines.iter().map(|(line, time)| event(line, *time, Family::Four)).collect();
    let mut out = Vec::new();
    tracker.batch(&mut events, Some(table), now_ns, &Lab, &mut |tracked| out.push(kept(tracked)));
    assert!(events.is_empty());
    out.iter().map(show).collect()
}

#[test]
fn a_young_call_waits_for_conntracks_word() {
    let mut tracker = Tracker::default();
    let unknown = entries(&[OTHER_ENTRY], Family::Four);
    let told = run(&mut tracker, &[(SERVICE_CALL, 10 * MS)], &unknown, 11 * MS);
    assert_eq!((told.len(), tracker.waiting()), (0, 1));
    let known = entries(&[SERVICE_ENTRY], Family::Four);
    let told = run(&mut tracker, &[], &known, 11 * MS);
    assert_eq!(told, ["to-stack new egress 10.0.1.1:4000>10.0.2.2:8080 via 10.96.0.1:80"]);
    assert_eq!((tracker.counters().waited, tracker.waiting()), (1, 0));
}

#[test]
fn what_comes_after_waits_too_so_that_the_order_stays() {
    let mut tracker = Tracker::default();
    let unknown = entries(&[OTHER_ENTRY], Family::Four);
    let lines = [
        ("pod out flags tcp 10.0.1.3:1>10.0.1.4:2", 12 * MS),
        (SERVICE_CALL, 11 * MS),
        ("drop udp 10.0.1.3:1>10.0.1.4:2", 10 * MS),
    ];
    let told = run(&mut tracker, &lines, &unknown, 12 * MS);
    assert_eq!(told, ["drop egress 10.0.1.3:1>10.0.1.4:2"]);
    let told =
        run(&mut tracker, &[("pod out flags tcp 10.0.1.3:1>10.0.1.4:3", 11 * MS + 1)], &unknown, 20 * MS);
    assert_eq!(
        told,
        [
            "to-stack new egress 10.0.1.1:4000>10.96.0.1:80",
            "to-endpoint established ingress 10.0.1.3:1>10.0.1.4:3",
            "to-endpoint established ingress 10.0.1.3:1>10.0.1.4:2",
        ]
    );
}

#[test]
fn what_is_later_than_the_batch_waits_for_what_came_before_it() {
    let mut tracker = Tracker::default();
    let table = entries(&[], Family::Four);
    let early = ("pod out flags tcp 10.0.1.3:1>10.0.1.4:2", 10 * MS);
    let late = ("pod out flags tcp 10.0.1.3:1>10.0.1.4:3", 12 * MS);
    let told = run(&mut tracker, &[late, early], &table, 11 * MS);
    assert_eq!(told, ["to-endpoint established ingress 10.0.1.3:1>10.0.1.4:2"]);
    assert_eq!((tracker.waiting(), tracker.waits_for_conntrack()), (1, false));
    let told = run(&mut tracker, &[("drop udp 10.0.1.3:1>10.0.1.4:2", 11 * MS + 1)], &table, 12 * MS);
    assert_eq!(
        told,
        ["drop egress 10.0.1.3:1>10.0.1.4:2", "to-endpoint established ingress 10.0.1.3:1>10.0.1.4:3"]
    );
    let far = vec![("pod out flags tcp 10.0.1.3:1>10.0.1.4:2", 20 * MS); MOST_WAITING + 5];
    assert_eq!(run(&mut tracker, &far, &table, 12 * MS).len(), 5, "a clock from elsewhere fills no memory");
}

#[test]
fn only_what_conntrack_may_still_tell_of_waits() {
    let unknown = entries(&[OTHER_ENTRY], Family::Four);
    for (line, waits) in [
        (SERVICE_CALL, true),
        ("pod in new icmp 10.0.1.1:4>10.96.0.1:4", true),
        ("uplink in new tcp 203.0.113.5:1>192.168.0.1:30080", true),
        ("pod in flags tcp 10.0.1.1:4000>10.96.0.1:80", false),
        ("pod in new+guess tcp 10.0.1.1:4000>10.96.0.1:80", false),
        ("pod in new+reply tcp 10.0.1.1:4000>10.96.0.1:80", false),
        ("pod in new udp 10.0.1.1:4000>224.0.0.251:5353", false),
        ("pod in new tcp 10.0.1.1:4000>10.0.1.2:80", false),
        ("pod out new tcp 203.0.113.5:1>10.0.1.2:80", false),
        ("drop tcp 10.0.1.1:4000>10.96.0.1:80", false),
    ] {
        let mut tracker = Tracker::default();
        run(&mut tracker, &[(line, 10 * MS)], &unknown, 11 * MS);
        assert_eq!(tracker.waiting() == 1, waits, "{line}");
        let mut old = Tracker::default();
        run(&mut old, &[(line, 10 * MS)], &unknown, 12 * MS);
        assert_eq!(old.waiting(), 0, "{line}, 2 ms old");
        let mut idle = Tracker::default();
        run(&mut idle, &[(line, 10 * MS)], &entries(&[], Family::Four), 11 * MS);
        assert_eq!(idle.waiting(), 0, "{line}, conntrack is not in use");
    }
}

#[test]
fn a_call_from_ports_of_an_ended_one_waits() {
    let mut table = entries(&[SERVICE_ENTRY], Family::Four);
    table.end(0, &ends("10.0.1.1:4000>10.96.0.1:80", "tcp", Family::Four), 9 * MS);
    let mut tracker = Tracker::default();
    run(&mut tracker, &[(SERVICE_CALL, 10 * MS)], &table, 11 * MS);
    assert_eq!(tracker.waiting(), 1);
    let told = run(&mut tracker, &[], &table, 12 * MS);
    assert_eq!(told, ["to-stack new egress 10.0.1.1:4000>10.96.0.1:80"], "not the old backend");
}

#[test]
fn no_more_wait_than_there_is_room_for() {
    let mut tracker = Tracker::default();
    let unknown = entries(&[OTHER_ENTRY], Family::Four);
    let lines = vec![(SERVICE_CALL, 10 * MS); MOST_WAITING + 5];
    let told = run(&mut tracker, &lines, &unknown, 11 * MS);
    assert_eq!((told.len(), tracker.waiting()), (5, MOST_WAITING));
    assert_eq!(tracker.counters().wait_refused, 5);
}

fn fact(tuple: &str, time_ns: i64, retransmits: u32, connect_failed: bool) -> Event {
    let tuple = ends(tuple, "tcp", Family::Four);
    let packet = Some(packet(tuple, 0));
    Event::Fact(FactEvent {
        time_ns,
        kernel_ns: time_ns as u64,
        packet,
        netns: 1,
        retransmits,
        connect_failed,
    })
}

#[test]
fn facts_join_the_flow_through_the_translation_and_in_both_directions() {
    let table = entries(&[SERVICE_ENTRY], Family::Four);
    let mut tracker = Tracker::default();
    let mut events = vec![
        fact("10.0.1.1:4000>10.96.0.1:80", 10, 2, false),
        fact("10.0.1.1:4000>10.96.0.1:80", 11, 3, true),
        event("pod out flags+reply tcp 10.96.0.1:80>10.0.1.1:4000", 12, Family::Four),
        event("pod in sweep tcp 10.0.1.1:4000>10.96.0.1:80", 13, Family::Four),
        event("pod in new tcp 10.0.1.1:4000>10.96.0.1:80", 14, Family::Four),
    ];
    let mut out = Vec::new();
    tracker.batch(&mut events, Some(&table), u64::MAX, &Lab, &mut |tracked| out.push(kept(tracked)));
    let seen: Vec<_> = out
        .iter()
        .map(|tracked| match tracked {
            Tracked::Flow(flow) => {
                (flow.retransmits, flow.notes.has(Notes::CONNECT_FAILED), flow.notes.has(Notes::FINAL))
            }
            Tracked::Drop(_) => panic!("no drop was sent"),
        })
        .collect();
    assert_eq!(seen, [(3, true, false), (3, true, true), (0, false, false)]);
    assert_eq!(tracker.counters().facts, 2);
}

#[test]
fn an_earlier_connections_facts_are_not_the_new_ones() {
    let table = entries(&[], Family::Four);
    let mut tracker = Tracker::default();
    let mut events = vec![
        fact("10.0.1.1:4000>10.0.2.2:80", 10, 2, true),
        event("pod in new tcp 10.0.1.1:4000>10.0.2.2:80", 20, Family::Four),
    ];
    let mut out = Vec::new();
    tracker.batch(&mut events, Some(&table), u64::MAX, &Lab, &mut |tracked| out.push(kept(tracked)));
    let [Tracked::Flow(flow)] = &out[..] else { panic!("one flow") };
    assert_eq!((flow.retransmits, flow.notes), (0, Notes::default()));
}

#[test]
fn facts_join_a_drop_of_the_connection() {
    let mut tracker = Tracker::default();
    let mut events = vec![
        fact("10.0.1.1:4000>10.0.2.2:80", 10, 2, false),
        event("drop tcp 10.0.1.1:4000>10.0.2.2:80", 20, Family::Four),
        event("drop tcp 10.0.1.1:4001>10.0.2.2:80", 20, Family::Four),
    ];
    let mut out = Vec::new();
    tracker.batch(&mut events, None, u64::MAX, &Lab, &mut |tracked| out.push(kept(tracked)));
    let [Tracked::Drop(dropped), Tracked::Drop(other)] = &out[..] else { panic!("two drops") };
    assert_eq!((dropped.retransmits, other.retransmits), (2, 0));
}

#[test]
fn a_packet_inside_a_tunnel_is_told_where_no_device_or_pod_tells_it() {
    let (node, other) = ("192.168.0.1", "192.168.0.2");
    for (line, from, to, want) in [
        // The node's own tunnel: its device tells what is inside.
        ("uplink out new tcp 10.0.1.1:4000>10.0.2.2:80", node, other, Some("carried")),
        ("uplink in new tcp 10.0.2.2:80>10.0.1.1:4000", other, node, Some("carried")),
        // Somebody else's.
        ("uplink in new tcp 10.0.2.2:80>10.0.1.1:4000", other, "192.168.0.3", None),
        ("pod out new tcp 10.0.1.1:4000>10.0.2.2:80", "10.0.1.8", "10.0.1.9", None),
        ("pod in new tcp 10.0.1.1:4000>10.0.1.2:80", "10.0.1.8", "10.0.2.9", None),
    ] {
        let Event::Flow(mut flow) = event(line, 1, Family::Four) else { panic!("a flow") };
        let end = |text: &str| (text.parse().unwrap(), 4789);
        let ends = Some((end(from), end(to)));
        flow.tunnel = Some(Arc::new(Tunnel { kind: TunnelKind::Vxlan, protocol: 17, ends, vni: 1 }));
        let mut tracker = Tracker::default();
        let mut out = Vec::new();
        // Its addresses are also those of a connection of this network.
        let table = entries(&["tcp 10.0.1.1:4000>10.0.2.2:80 10.0.9.9:80>10.0.1.1:4000"], Family::Four);
        tracker.batch(&mut vec![Event::Flow(flow)], Some(&table), u64::MAX, &Lab, &mut |tracked| {
            out.push(kept(tracked));
        });
        let carried = (tracker.counters().carried == 1).then_some("carried");
        assert_eq!((carried, out.len()), (want, usize::from(want.is_none())), "{line}");
        if let [Tracked::Flow(flow)] = &out[..] {
            assert_eq!(flow.ends.frontend, None, "no translation of this network: {line}");
        }
    }
}

#[test]
fn only_tcp_met_in_its_middle_is_partial() {
    for (line, partial) in [
        ("pod out flags+guess tcp 10.0.1.1:4000>10.0.1.2:80", true),
        ("pod out flags tcp 10.0.1.1:4000>10.0.1.2:80", false),
        // Of UDP only the opener can be a guess: it has no middle.
        ("pod out flags+guess udp 10.0.1.1:4000>10.0.1.2:80", false),
    ] {
        let mut out = Vec::new();
        Tracker::default().batch(
            &mut vec![event(line, 1, Family::Four)],
            None,
            u64::MAX,
            &Lab,
            &mut |tracked| out.push(kept(tracked)),
        );
        let [Tracked::Flow(flow)] = &out[..] else { panic!("one flow") };
        assert_eq!(flow.notes.has(Notes::PARTIAL), partial, "{line}");
    }
}

#[test]
fn what_is_not_ip_is_told_without_ends() {
    let Event::Flow(flow) = event("pod out new tcp 10.0.1.1:1>10.0.1.2:2", 1, Family::Four) else {
        panic!("a flow")
    };
    let mut out = Vec::new();
    let mut events = vec![Event::Flow(FlowEvent { packet: None, ..flow })];
    Tracker::default().batch(&mut events, None, u64::MAX, &Lab, &mut |tracked| out.push(kept(tracked)));
    let [Tracked::Flow(flow)] = &out[..] else { panic!("one flow") };
    assert_eq!((*flow.ends, flow.is_reply), (Ends::default(), Tristate::No));
}

proptest! {
    /// Whatever comes, in whatever batches: records in = told + suppressed + facts + waiting, in the order of time.
    #[test]
    fn nothing_is_lost_in_silence(
        batches in prop::collection::vec(
            prop::collection::vec((0usize..8, 0u64..4, 1u8..4, 1u8..4), 0..12), 1..12),
    ) {
        let table = entries(&[SERVICE_ENTRY, OTHER_ENTRY], Family::Four);
        let mut tracker = Tracker::default();
        let (mut sent, mut told) = (0, 0);
        let mut now_ns = 10 * MS;
        for batch in batches {
            now_ns += MS;
            let mut events: Vec<Event> = batch
                .into_iter()
                .map(|(what, age, from, to)| {
                    let tuple = format!("10.0.{from}.1:4000>10.96.0.{to}:80");
                    let time = now_ns - age * MS / 2;
                    match what {
                        0 => fact(&tuple, time as i64, 1, false),
                        1 => event(&format!("drop tcp {tuple}"), time, Family::Four),
                        2 => event(&format!("pod out new tcp {tuple}"), time, Family::Four),
                        3 => event(&format!("uplink out new+forwarded tcp {tuple}"), time, Family::Four),
                        4 => event(&format!("uplink in new+local tcp {tuple}"), time, Family::Four),
                        _ => event(&format!("pod in new tcp {tuple}"), time, Family::Four),
                    }
                })
                .collect();
            sent += events.len() as u64;
            tracker.batch(&mut events, Some(&table), now_ns, &Lab, &mut |_| told += 1);
            let c = tracker.counters();
            prop_assert_eq!(told, c.flows + c.drops);
            let facts = c.facts + c.facts_turned_away + c.facts_without_ends;
            prop_assert_eq!(sent, told + c.suppressed() + facts + tracker.waiting() as u64);
        }
    }
}
