//! 50,000 packets a second of one pod, beside one drop a second of another: every event is accounted for to the unit,
//! every drop is told once, and a follower gets every flow or is told how many it did not get.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{Entry, Lab, unique_prefix};
use observer_proto::{
    flow::{Flow, FlowFilter, LostEventSource, Verdict},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use prost_types::FieldMask;
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use support::{Daemon, Follower, PATIENCE, Sums, can_run, ends, extensions, late::until, scaled, scenario};

/// Packets of the flood in a second.
const RATE: u64 = 50_000;

#[test]
fn with_aggregation_a_flood_loses_nothing() {
    let Some(sums) = flood("medium", &[]) else { return };
    assert_eq!(sums.lost(), 0, "{sums:?}");
    let aggregated = sums.suppressed("flows egress", "aggregation");
    assert!(aggregated > scaled(4, 60) * RATE / 2, "{sums:?}");
}

#[test]
fn at_50000_events_a_second_a_flood_loses_nothing() {
    let Some(sums) = flood("low", &["--aggregation", "low"]) else { return };
    assert!(sums.flows + sums.lost() >= scaled(4, 60) * RATE, "every packet once: {sums:?}");
    // Without optimization the daemon may be too slow on a busy machine; then the sums still hold.
    if cfg!(debug_assertions) && sums.lost() > 0 {
        eprintln!("lost {} of {} by a build without optimization", sums.lost(), sums.flows);
    } else {
        assert_eq!(sums.lost(), 0, "{sums:?}");
    }
}

fn flood(name: &str, args: &[&str]) -> Option<Sums> {
    if !can_run("flood") {
        return None;
    }
    let mut scenario = scenario("flood.toml");
    let seconds = scaled(4, 60);
    for traffic in &mut scenario.traffic {
        traffic.count = Some(seconds * if traffic.name == "flood" { RATE } else { 1 });
    }
    let mut lab = Lab::up(&scenario, &unique_prefix(&format!("flood-{name}"))).unwrap();
    let daemon = Daemon::start(&lab, "n1", args);
    // From the oldest flow on: then it passes as many slots as the store has ever had.
    let everything = daemon.follow(GetFlowsRequest {
        number: u64::MAX,
        follow: true,
        field_mask: Some(FieldMask { paths: vec!["uuid".to_owned()] }),
        ..GetFlowsRequest::default()
    });
    let (awake, sleeping) = mpsc::channel();
    let gate = Arc::clone(&everything.gate);
    let slow = std::thread::spawn(move || sleep(&gate, &sleeping));
    let drops = daemon.follow(GetFlowsRequest {
        number: u64::MAX,
        follow: true,
        whitelist: vec![FlowFilter { verdict: vec![Verdict::Dropped as i32], ..FlowFilter::default() }],
        ..GetFlowsRequest::default()
    });
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    let entries = lab.ledger();
    let flooded: u64 = entries.iter().filter(|entry| entry.traffic == "flood").map(|entry| entry.sent).sum();
    assert_eq!(flooded, seconds * RATE);
    let dropped: Vec<&Entry> = entries.iter().filter(|entry| entry.traffic == "drop").collect();
    assert_eq!(dropped.len() as u64, seconds);

    let sums = Sums::of(&daemon.settled());
    sums.check();
    // What the network says by itself may come between the two.
    until("what the pipeline delivered is what the store has seen", || {
        (Sums::of(&daemon.settled()).flows == daemon.seen()).then_some(())
    });
    let [made, _, lost] = sums.stages["drops"];
    assert!(made >= seconds && lost == 0, "no flood takes the drops' ring: {sums:?}");
    check_drops(&drops, &dropped);

    // The reader slept through the flood: what the store had to overwrite is told, to the unit.
    drop(awake);
    slow.join().unwrap();
    let seen = daemon.seen();
    read_up_to(&everything, seen);
    Some(sums)
}

/// Keeps a reader from reading until `woken`, but for moments in which it says that it is alive: the server closes the
/// connection of one that doesn't.
fn sleep(gate: &Mutex<()>, woken: &Receiver<()>) {
    loop {
        let shut = gate.lock().unwrap();
        if woken.recv_timeout(Duration::from_secs(4)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        drop(shut);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Reads until every slot below `seen` was passed: flows that came + flows told to be lost.
fn read_up_to(follower: &Follower, seen: u64) {
    let deadline = Instant::now() + PATIENCE;
    let (mut examined, mut lost, mut next) = (0, 0, 0);
    while examined + lost < seen {
        let left = deadline.saturating_duration_since(Instant::now());
        let response = follower.responses.recv_timeout(left);
        let Ok(response) = response else { panic!("{examined} came and {lost} were lost, of {seen}") };
        match response.unwrap().response_types {
            Some(ResponseTypes::Flow(flow)) => {
                let sequence = sequence(&flow);
                assert!(sequence >= next, "flow {sequence} after {next}");
                next = sequence + 1;
                examined += 1;
            }
            Some(ResponseTypes::LostEvents(event)) if event.source() == LostEventSource::HubbleRingBuffer => {
                lost += event.num_events_lost;
            }
            _ => {}
        }
    }
    assert!(examined > 0);
    assert_eq!(examined + lost, next.max(seen), "{examined} + {lost}, and the next flow is {next}");
    eprintln!("a slow reader got {examined} flows and was told of {lost} lost");
}

/// The second half of a flow's uuid, but for the bits of the uuid's variant.
fn sequence(flow: &Flow) -> u64 {
    let digits: String = flow.uuid.chars().filter(|c| *c != '-').skip(16).collect();
    u64::from_str_radix(&digits, 16).unwrap() & (u64::MAX >> 2)
}

/// Each drop of the other pod has a port of its own, and one packet.
fn check_drops(follower: &Follower, dropped: &[&Entry]) {
    let (mut told, mut lost) = (vec![0; dropped.len()], 0);
    while told.contains(&0) {
        // What was lost is not waited for in vain.
        let patience = if lost > 0 { Duration::from_secs(5) } else { PATIENCE };
        let Ok(response) = follower.responses.recv_timeout(patience) else { break };
        lost += count(response.unwrap().response_types, dropped, &mut told);
    }
    for response in follower.responses.try_iter() {
        lost += count(response.unwrap().response_types, dropped, &mut told);
    }
    if cfg!(debug_assertions) && lost > 0 {
        // Its filter, without optimization, looks at fewer than 50,000 flows a second; it must be told of that.
        eprintln!("the reader of drops was overtaken by {lost} flows in a build without optimization");
        assert!(told.iter().all(|packets| *packets <= 1), "{told:?}: a drop twice");
    } else {
        assert_eq!(told, vec![1; dropped.len()], "each drop once; {lost} lost");
    }
}

/// Takes in what is a drop; returns how many flows the stream was too slow for.
fn count(response: Option<ResponseTypes>, dropped: &[&Entry], told: &mut [u64]) -> u64 {
    let flow = match response {
        Some(ResponseTypes::Flow(flow)) => flow,
        Some(ResponseTypes::LostEvents(event)) if event.source() == LostEventSource::HubbleRingBuffer => {
            return event.num_events_lost;
        }
        _ => return 0,
    };
    let packets = extensions(&flow).get("packets").and_then(|text| text.parse().ok()).unwrap_or(0);
    let of = |entry: &&Entry| ends(&flow) == Some((entry.protocol, entry.source, entry.called));
    if let Some(index) = dropped.iter().position(of) {
        told[index] += packets;
    }
    0
}
