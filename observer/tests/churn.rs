//! Pods that come and go while the daemon runs, and links that flap, are renamed or take another's index: attached within
//! a second, named with their first packet, gone without a trace.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{Inventory, Lab, scenario::Pod, unique_prefix};
use observer_proto::{
    control::Link,
    flow::Flow,
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use support::{
    Daemon, Sums, can_run, ends,
    late::{Late, ip_tool, server, until},
    name, scaled, scenario,
};

/// What the design promises for the programs on a new link.
const SOON: Duration = Duration::from_secs(1);

fn link(daemon: &Daemon, name: &str) -> Option<Link> {
    daemon.capture_status().links.into_iter().find(|link| link.name == name)
}

#[test]
fn a_new_pod_is_told_by_name_and_leaves_nothing_behind() {
    if !can_run("churn") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("churn")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let links_before = daemon.capture_status().links.len();
    let files_before = daemon.open_files();
    let late = Late::new(&lab, "late", "10.244.1.99");

    let mut grown = lab.scenario().clone();
    let pod = Pod { name: "late".to_owned(), ips: vec![late.ip], ..grown.pods[0].clone() };
    grown.pods.push(pod);
    let inventory = daemon.dir.path().join("inventory.yaml");
    std::fs::write(&inventory, Inventory::of(&grown).to_text().unwrap()).unwrap();
    late.up();
    let attached = until("the new pod's link attached", || link(&daemon, &late.link));
    assert_eq!((attached.kind.as_str(), attached.problem.as_str()), ("pod", ""), "{attached:?}");
    until("the inventory read again", || daemon.log().contains("inventory reloaded").then_some(()));

    let client = late.send(0, server(&lab));
    let of_late = |flow: &&observer_proto::flow::Flow| {
        support::ends(flow).is_some_and(|(_, source, destination)| source == client || destination == client)
    };
    let flows = daemon.flows_until(|flows| {
        let told = flows.iter().filter(of_late).filter(|flow| flow.is_reply == Some(false)).count();
        (told == 0).then(|| "the new pod's first packet".to_owned())
    });
    for flow in flows.iter().filter(of_late) {
        let ip = flow.ip.as_ref().unwrap();
        let (late, ip) = if ip.source == client.ip().to_string() {
            (&flow.source, &ip.source)
        } else {
            (&flow.destination, &ip.destination)
        };
        assert_eq!(name(late.as_ref(), ip), "web/late", "{flow:?}");
    }

    late.down();
    until("the link gone from the status", || link(&daemon, &late.link).is_none().then_some(()));
    assert_eq!(daemon.capture_status().links.len(), links_before);
    until("the files closed", || (daemon.open_files() <= files_before).then_some(()));
}

#[test]
fn a_flapping_pod_leaks_nothing() {
    if !can_run("flapping") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("flap")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    // The client's own connection is one of the daemon's files.
    daemon.capture_status();
    let files_before = daemon.open_files();
    let late = Late::new(&lab, "late", "10.244.1.99");
    let mut attached = 0;
    for _ in 0..20 {
        late.up();
        let seen = until("the link attached", || link(&daemon, &late.link));
        assert_eq!(seen.problem, "");
        attached = daemon.open_files().max(attached);
        late.down();
        until("the link gone", || link(&daemon, &late.link).is_none().then_some(()));
    }
    assert!(attached > files_before, "an attached link is open files: {attached} after {files_before}");
    until("the files closed", || (daemon.open_files() <= files_before).then_some(()));
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

/// Namespaces made and deleted as fast as a busy node does it, or faster. An address is used again after 3 seconds:
/// names of local namespaces may be a look behind.
#[test]
fn many_pods_leak_nothing_and_are_not_mixed_up() {
    const WORKERS: u16 = 3;
    /// 200 in 10 seconds.
    const PACE: Duration = Duration::from_millis(50 * WORKERS as u64);
    if !can_run("many") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("many")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let (links_before, files_before) = (daemon.capture_status().links.len(), daemon.open_files());
    let held_before = daemon.bpf_ids();
    let everything = daemon.follow(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() });

    let rounds = scaled(15, 2000);
    let start = Instant::now();
    let worker = |worker: u16| {
        let mut times = Vec::new();
        let mut names = HashMap::new();
        for round in 0..rounds {
            let due = start + PACE * u32::from(round);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let pod = format!("w{worker}r{round}");
            let late = Late::new(&lab, &pod, &format!("10.244.1.{}", 100 + 20 * worker + round % 20));
            late.up();
            times.push(late.attached());
            let client = late.send(20_000 + round, server(&lab));
            names.insert(client, format!("netns/{}", late.netns));
            late.down();
        }
        (times, names)
    };
    let (mut times, mut names) = (Vec::new(), HashMap::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || worker(number))).collect();
        for worker in workers {
            let (waits, owners) = worker.join().unwrap();
            times.extend(waits);
            names.extend(owners);
        }
    });
    times.sort_unstable();
    let [median, most, longest] = [times.len() / 2, times.len() * 99 / 100, times.len() - 1];
    eprintln!(
        "{} namespaces in {:.1?}: attached after {:.0?} (median), {:.0?} (99 of 100), {:.0?} (longest)",
        times.len(),
        start.elapsed(),
        times[median],
        times[most],
        times[longest]
    );
    // On a machine that does much else some wait for it, not for the daemon.
    assert!(times[scaled(median, most)] < SOON, "{times:?}");

    until("the links gone", || (daemon.capture_status().links.len() == links_before).then_some(()));
    until("the files closed", || (daemon.open_files() <= files_before + 1).then_some(()));
    until("programs, maps and attachments are those of the start", || {
        (daemon.bpf_ids() == held_before).then_some(())
    });
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    Sums::of(&daemon.settled()).check();

    let mut told = HashMap::new();
    let mut take = |response| {
        let ResponseTypes::Flow(flow) = response else { panic!("something lost: {response:?}") };
        for (end, client) in clients(&flow) {
            let Some(right) = names.get(&client) else { continue };
            let ip = client.ip().to_string();
            let shown = name(end, &ip);
            assert!(shown == *right || shown == ip, "{shown} for {right}: {flow:?}");
            *told.entry(client).or_insert(false) |= shown == *right;
        }
        told.len()
    };
    everything.until("each pod's packet", |response| (take(response) == names.len()).then_some(()));
    for response in everything.responses.try_iter() {
        take(response.unwrap().response_types.unwrap());
    }
    eprintln!("{} of {} by their names", told.values().filter(|named| **named).count(), told.len());
}

/// Both ends with their addresses.
fn clients(flow: &Flow) -> Vec<(Option<&observer_proto::flow::Endpoint>, SocketAddr)> {
    let both = |(_, source, destination)| {
        vec![(flow.source.as_ref(), source), (flow.destination.as_ref(), destination)]
    };
    ends(flow).map_or_else(Vec::new, both)
}

#[test]
fn a_link_that_flaps_moves_or_is_renamed_has_its_programs() {
    if !can_run("renamed") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("renamed")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let late = Late::new(&lab, "late", "10.244.1.99");
    late.up();
    late.attached();
    let index = until("the link in the status", || link(&daemon, &late.link)).index;
    let attached = daemon.attached(index);
    assert_eq!(attached.len(), 2);
    let flap = format!("link set {0} down\nlink set {0} up\n", late.link);
    let flaps = flap.repeat(scaled(100, 1000));
    ip_tool(&format!("-n {} -batch -", late.node), &flaps);
    assert_eq!(daemon.attached(index), attached, "a link that is down keeps them");
    late.route();
    late.send(0, server(&lab));
    until("packets counted", || {
        link(&daemon, &late.link).filter(|link| link.received_packets > 0 && link.sent_packets > 0)
    });

    // Another namespace's link for a moment: the programs don't go with it, and come on again when it is back.
    let elsewhere = format!("{}-elsewhere", late.node);
    let _elsewhere = observer_lab::Namespaces::make(&elsewhere, &[&elsewhere]).unwrap();
    ip_tool(&format!("-n {} link set {} netns {elsewhere}", late.node, late.link), "");
    until("the link gone", || link(&daemon, &late.link).is_none().then_some(()));
    ip_tool(&format!("-n {elsewhere} link set {} netns {}", late.link, late.node), "");
    late.attached();
    let back = until("the link back", || link(&daemon, &late.link));
    assert_eq!((back.problem.as_str(), back.repairs), ("", 0), "{back:?}");
    late.route();
    late.send(0, server(&lab));
    let (index, attached) = (back.index, daemon.attached(back.index));
    assert_eq!(attached.len(), 2);
    let before =
        until("packets counted again", || link(&daemon, &late.link).filter(|link| link.received_packets > 0));

    ip_tool(&format!("-n {} link set {} name renamed0", late.node, late.link), "");
    let after = until("the new name", || link(&daemon, "renamed0"));
    assert_eq!((after.index, after.problem.as_str(), after.repairs), (index, "", 0), "{after:?}");
    assert!(after.received_packets >= before.received_packets, "{after:?} after {before:?}");
    assert!(link(&daemon, &late.link).is_none());
    assert_eq!(daemon.attached(index), attached, "the same as before");
    let client = late.send(0, server(&lab));
    daemon.flows_until(|flows| {
        let of_it = |flow: &&Flow| clients(flow).iter().any(|(_, address)| *address == client);
        let named = flows.iter().filter(of_it).any(|flow| {
            flow.interface.as_ref().is_some_and(|link| link.name == "renamed0" && link.index == index)
        });
        (!named).then(|| "a flow on the link's new name".to_owned())
    });
}

/// Deleted and made again at once, with the same index and name, in front of another pod.
#[test]
fn an_index_that_is_used_again_is_a_new_link() {
    if !can_run("reused") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("reused")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    daemon.capture_status();
    let files_before = daemon.open_files();
    let mut before: Option<Late> = None;
    for round in 0..scaled(10, 100) {
        let mut late = Late::new(&lab, &format!("r{round}"), &format!("10.244.1.{}", 100 + round));
        (late.index, late.link) = (Some(777), "vethreused".to_owned());
        if let Some(before) = before.replace(late) {
            before.down();
        }
        let late = before.as_ref().unwrap();
        late.up();
        late.attached();
        let client = late.send(0, server(&lab));
        let right = format!("netns/{}", late.netns);
        let of_it = |flow: &&Flow| clients(flow).iter().any(|(_, address)| *address == client);
        let flows = daemon.flows_until(|flows| {
            let mut own = flows.iter().filter(of_it).filter_map(|flow| flow.interface.as_ref());
            let told = own.any(|link| link.index == 777 && link.name == late.link);
            (!told).then(|| "the answer on the pod's own link".to_owned())
        });
        for flow in flows.iter().filter(of_it) {
            let (end, _) = clients(flow).into_iter().find(|(_, address)| *address == client).unwrap();
            let ip = late.ip.to_string();
            let shown = name(end, &ip);
            assert!(shown == right || shown == ip, "{shown} for {right}: {flow:?}");
        }
    }
    before.unwrap().down();
    until("the link gone", || link(&daemon, "vethreused").is_none().then_some(()));
    until("the files closed", || (daemon.open_files() <= files_before).then_some(()));
}
