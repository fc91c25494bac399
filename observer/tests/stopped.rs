//! The daemon is stopped while packets fill a small ring: what could not be kept is known to the unit, everywhere it is
//! told, and the packets don't wait.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{Lab, scenario::Traffic, unique_prefix};
use observer_proto::{
    flow::{FlowFilter, LostEvent, LostEventSource, Verdict},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};
use std::time::{Duration, Instant, SystemTime};
use support::{Daemon, Follower, Sums, can_run, ends, scaled, scenario};

#[test]
fn what_a_stopped_reader_misses_is_counted_to_the_unit() {
    if !can_run("what_a_stopped_reader_misses_is_counted_to_the_unit") {
        return;
    }
    let mut lab = Lab::up(&scenario("flood.toml"), &unique_prefix("stopped")).unwrap();
    // Each packet is two records, one at each link, and the ring has room for some 450.
    let daemon = Daemon::start(&lab, "n1", &["--aggregation", "none", "--flow-ring-kib", "64"]);
    let everything = daemon.follow(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() });
    // No flow is so; what was lost is told to every stream.
    let losses = daemon.follow(GetFlowsRequest {
        follow: true,
        whitelist: vec![FlowFilter { verdict: vec![Verdict::Error as i32], ..FlowFilter::default() }],
        ..GetFlowsRequest::default()
    });

    let named = |name: &str| -> Traffic {
        let mut all = lab.scenario().traffic.iter();
        all.find(|traffic| traffic.name == name).unwrap().clone()
    };
    let (mut flood, mut drop) = (named("flood"), named("drop"));
    (flood.count, flood.rate) = (Some(scaled(200_000, 1_000_000)), Some(scaled(50_000, 200_000)));
    let packets = flood.count.unwrap();
    let start = Instant::now();
    lab.play(flood).unwrap();
    everything
        .until("the flood's first flow", |response| matches!(response, ResponseTypes::Flow(_)).then_some(()));
    kill_process(daemon.pid(), Signal::STOP).unwrap();
    waitpid(Some(daemon.pid()), WaitOptions::UNTRACED).unwrap();
    let stopped = SystemTime::now();
    lab.wait_traffic();
    let took = start.elapsed();
    kill_process(daemon.pid(), Signal::CONT).unwrap();

    // Packets are told again, and drops. The first of them may still find the ring full.
    let woken = Instant::now();
    (drop.count, drop.interval_ms) = (None, 20);
    let port = drop.port;
    lab.play(drop).unwrap();
    let mut verdicts = vec![Verdict::Forwarded, Verdict::Dropped];
    everything.until("a packet after the stop, and its drop", |response| {
        let ResponseTypes::Flow(flow) = response else { return None };
        if ends(&flow).map(|(_, _, to)| to.port()) == port {
            verdicts.retain(|verdict| *verdict != flow.verdict());
        }
        verdicts.is_empty().then_some(())
    });
    let told = woken.elapsed();
    lab.stop_traffic();
    eprintln!(
        "{packets} packets in {took:.1?} beside a stopped reader; a flow after it was there in {told:.0?}"
    );

    let status = daemon.settled();
    let sums = Sums::of(&status);
    sums.check();
    let sent: u64 =
        lab.ledger().iter().filter(|entry| entry.traffic == "flood").map(|entry| entry.sent).sum();
    assert_eq!(sent, packets, "the lab itself");
    // At this aggregation each packet on a link is made a record, or is no IP.
    let seen =
        |packets: fn(&observer_proto::control::Link) -> u64| status.links.iter().map(packets).sum::<u64>();
    assert_eq!(
        sums.stages["flows ingress"][0],
        seen(|link| link.received_packets - link.received_other_packets)
    );
    assert_eq!(sums.stages["flows egress"][0], seen(|link| link.sent_packets - link.sent_other_packets));
    assert!(sums.stages["flows ingress"][0] >= packets && sums.stages["flows egress"][0] >= packets);
    assert_eq!(sums.stages["drops"][2], 0, "drops have a ring of their own");
    let lost = sums.lost();
    assert!(lost > packets, "most of it did not fit: {sums:?}");
    let [began, ended] = lost_is(&losses, lost);
    // Unix times follow the wall clock within a few milliseconds.
    let stopped = stopped + Duration::from_millis(20);
    assert!(began < stopped && stopped < ended, "{began:?} to {ended:?}, stopped at {stopped:?}");
    assert!(daemon.stop().0.success());
}

/// The stream tells of so many events lost in the kernel, no more and no less; when most of them were.
fn lost_is(follower: &Follower, lost: u64) -> [SystemTime; 2] {
    let mut told = 0;
    let mut most = LostEvent::default();
    let mut count = |response| match response {
        ResponseTypes::LostEvents(event) if event.source() == LostEventSource::PerfEventRingBuffer => {
            let count = event.num_events_lost;
            if count > most.num_events_lost {
                most = event;
            }
            count
        }
        other => panic!("{other:?}"),
    };
    while told < lost {
        told += follower.until(&format!("{lost} lost, not only {told}"), |response| Some(count(response)));
    }
    let more = follower.responses.recv_timeout(Duration::from_millis(1)).ok();
    told += more.and_then(|response| response.unwrap().response_types).map_or(0, count);
    assert_eq!(told, lost);
    [most.first, most.last].map(|time| time.unwrap().try_into().unwrap())
}
