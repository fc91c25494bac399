//! What the daemon says of what it has in the kernel, while there is traffic and another's programs beside its own.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer::capture::{Capture, CaptureConfig, LinkHook, OnHook};
use observer_lab::{Lab, netns, scenario::Pod, unique_prefix};
use observer_proto::control::{
    InspectRequest, InspectResponse, InspectedLink, InspectedRule, control_client::ControlClient,
    inspect_request::What, policy::Mode,
};
use prost::Message as _;
use std::{
    collections::BTreeSet,
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};
use support::{Daemon, OBSERVER, PATIENCE, Sums, can_run, scenario};
use tonic::{Code, Status};

/// The answer of the daemon, put together.
fn ask(daemon: &Daemon, request: InspectRequest) -> Result<InspectResponse, Status> {
    daemon.control(async |channel| {
        let mut parts = ControlClient::new(channel).inspect(request).await?.into_inner();
        let mut answer = InspectResponse::default();
        while let Some(part) = parts.message().await? {
            answer.merge(&part.encode_to_vec()[..]).unwrap();
        }
        Ok(answer)
    })
}

fn asked(what: What) -> InspectRequest {
    InspectRequest { what: what as i32, ..InspectRequest::default() }
}

/// Asks until it is as wanted.
fn until(
    daemon: &Daemon,
    request: &InspectRequest,
    wanted: impl Fn(&InspectResponse) -> bool,
) -> InspectResponse {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(daemon, request.clone()).unwrap();
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{request:?} is never answered as wanted: {answer:?}");
    }
}

/// The other package's binary, which a build of the workspace puts beside this one's.
fn observe(daemon: &Daemon, args: &[&str]) -> Output {
    let binary = Path::new(OBSERVER).with_file_name("observe");
    assert!(binary.exists(), "{} is missing: build it with `cargo build -p observe`", binary.display());
    let socket: PathBuf = daemon.dir.path().join("control.sock");
    let mut command = Command::new(binary);
    command.env_remove("COLUMNS").env("OBSERVE_CONTROL", socket).arg("inspect").args(args);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_is_in_the_kernel_is_shown_with_its_names() {
    if !can_run("inspect") {
        return;
    }
    let mut lab = Lab::up(&scenario("routed.toml"), &unique_prefix("inspect")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let mut traffic =
        lab.scenario().traffic.iter().find(|traffic| traffic.name == "direct-http").unwrap().clone();
    // Until it is stopped.
    (traffic.count, traffic.interval_ms, traffic.delay_ms) = (None, 20, 0);
    lab.play(traffic).unwrap();

    programs_and_their_cost(&daemon);
    links(&lab, &daemon);
    maps_and_rings(&lab, &daemon);
    flows(&lab, &daemon);
    addresses(&lab, &daemon);
    requests_that_are_wrong(&daemon);
    the_command(&daemon);
    lab.stop_traffic();
    assert!(daemon.stop().0.success());
}

/// As on kernels before 6.6: filters have no numbers of their own, and are known by the program's.
#[test]
fn classic_filters_are_shown_in_their_order() {
    if !can_run("inspect_clsact") {
        return;
    }
    let lab = support::empty_node("inspclsact");
    let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
    let shown = netns::inside(&node, || {
        let config = CaptureConfig { link_hook: LinkHook::Clsact, ..CaptureConfig::default() };
        let (first, second) =
            (Capture::start(&config).unwrap(), Capture::start(&CaptureConfig::default()).unwrap());
        let links = first.links();
        let (hooks, problems) = first.inspector().hooks(&links.links.iter().collect::<Vec<_>>());
        assert_eq!(problems, [""; 0]);
        drop((first, second));
        Ok(hooks)
    })
    .unwrap();
    // What tcx has runs before.
    let line = |on: &OnHook| {
        assert!(on.program != 0 && (on.link != 0) == (on.by == "tcx"), "{on:?}");
        format!("{} {} of {} {} ours {} pinned {}", on.hook, on.position, on.of, on.by, on.ours, on.pinned)
    };
    assert_eq!(
        shown.iter().map(line).collect::<Vec<_>>(),
        [
            "0 1 of 2 tcx ours false pinned false",
            "0 2 of 2 clsact ours true pinned true",
            "1 1 of 2 tcx ours false pinned false",
            "1 2 of 2 clsact ours true pinned true",
        ]
    );
}

/// Policies that the kernel judges by, as its maps have them: what allows and what denies, with names.
#[test]
fn policies_in_the_kernel_are_shown_with_their_names() {
    if !can_run("inspect_policy") {
        return;
    }
    let lab = Lab::up(&scenario("demo.toml"), &unique_prefix("inspol")).unwrap();
    let set = |name: &str| format!("{}/../testdata/policy/sets/{name}", env!("CARGO_MANIFEST_DIR"));
    let daemon = Daemon::start(&lab, "n1", &["--policy", &set("payments"), "--policy", &set("tenants")]);
    let answer = ask(&daemon, asked(What::Policy)).unwrap();
    let lines: BTreeSet<String> =
        answer.policy.iter().filter(|rule| rule.slot == rule.generation & 1).map(line).collect();
    for expected in [
        "payments/payments-api-6c8f7d9b5-k4m2p and 1 more ingress web/frontend-app-7b5b9c6d4-x2x9z 6:8080-8080 audit requests \
         payments/payments-api",
        "payments/payments-api-6c8f7d9b5-k4m2p and 1 more ingress web/frontend-app-7b5b9c6d4-x2x9z rest audit \
         payments/payments-api",
        "payments/payments-api-6c8f7d9b5-k4m2p and 1 more ingress others rest audit payments/payments-api",
        "payments/payments-api-6c8f7d9b5-k4m2p and 1 more egress kube-system/coredns-76f75df574-7xkzq 17:53-53 pass \
         payments/payments-dns",
        "payments/payments-api-6c8f7d9b5-k4m2p and 1 more ingress host rest pass ",
        "tenant-a/tenant-a-client-0 egress others rest audit tenant-a/tenant-a, tenants-default-deny, tenants-dns",
    ] {
        assert!(lines.contains(expected), "{expected}: not in {lines:#?}");
    }
    // What the addresses are judged as.
    let known = ask(&daemon, asked(What::Ipcache)).unwrap().ipcache;
    let of = |ip: &str| known.iter().find(|entry| entry.net == ip).unwrap();
    let subject = of("10.244.1.20").subject;
    assert!(
        subject.is_some() && subject == of("10.244.1.21").subject && subject != of("10.244.1.10").subject
    );
    assert_eq!(of("203.0.113.0/24").peer, of("2001:db8:113::/48").peer, "one rule names both");
    assert!(of("203.0.113.0/24").subject.is_none() && of("203.0.113.0/24").peer.is_some());

    let maps = ask(&daemon, asked(What::Maps)).unwrap();
    let slot = answer.policy[0].slot;
    let of =
        |name: &str, slot| maps.maps.iter().find(|map| map.name == name && map.slot == Some(slot)).unwrap();
    assert!(of("POLICY_ROWS", slot).btf && of("POLICY_FRONTENDS", slot).entries > Some(0), "{maps:?}");
    assert!(of("POLICY_NETS", 1 - slot).entries.is_some(), "{maps:?}");
    let output = observe(&daemon, &["policy", "--limit", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("is in force, in slot") && text.contains("more; --limit shows more"), "{text}");
}

/// What stays without the daemon is shown as that, and records of denied packets are counted with the ring that they are in.
#[test]
fn what_is_enforced_is_shown_as_pinned() {
    if !can_run("inspect_pinned") {
        return;
    }
    let lab = Lab::up(&scenario("drops.toml"), &unique_prefix("insppin")).unwrap();
    let policies = tempfile::tempdir().unwrap();
    let file = policies.path().join("none.yaml");
    fs::write(
        &file,
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none, namespace: shop}\n\
         spec: {podSelector: {matchLabels: {app: server}}}\n",
    )
    .unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--policy", file.to_str().unwrap()]);
    let ours = || -> Vec<bool> {
        let links = ask(&daemon, asked(What::Links)).unwrap().links;
        links.iter().filter(|on| on.ours).map(|on| on.pinned).collect()
    };
    let hooks = ours().len();
    assert!(hooks > 2 * pod_links(&lab).len(), "its pods and an uplink");
    assert_eq!(ours(), vec![false; hooks]);
    daemon.set_mode("shop", "none", Mode::Enforce);
    assert_eq!(ours(), vec![true; hooks]);

    let client = lab.scenario().pod("web", "client").unwrap();
    let server = lab.scenario().pod("shop", "server").unwrap().ips[0];
    let name = lab.pod_netns(client).file_name().unwrap().to_string_lossy().into_owned();
    netns::inside(&name, || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        socket.send_to(b"denied", (server, 9100)).unwrap();
        Ok(())
    })
    .unwrap();
    let made = |sums: &Sums, stages: &[&str]| stages.iter().map(|stage| sums.stages[*stage][0]).sum::<u64>();
    until(&daemon, &asked(What::Rings), |answer| {
        let sums = Sums::of(&daemon.settled());
        let ring = |name: &str| answer.rings.iter().find(|ring| ring.name == name).unwrap();
        let (flows, priority) = (ring("FLOWS"), ring("PRIORITY"));
        // The network says things by itself between the two looks.
        sums.stages["denied packets"][0] > 0
            && priority.made == made(&sums, &["denied packets", "drops"])
            && flows.made == made(&sums, &["flows ingress", "flows egress"])
            && [flows, priority].iter().all(|ring| ring.made == ring.submitted + ring.lost)
    });
    assert!(daemon.stop().0.success());
    assert!(lab.command_in("n1", OBSERVER).arg("detach").output().unwrap().status.success());
}

/// Of a rule what the sets say themselves, without numbers.
fn line(rule: &InspectedRule) -> String {
    let peer = rule.peer.map_or("others", |_| &rule.peer_name);
    let ports = match (rule.protocol, rule.first_port, rule.last_port) {
        (Some(protocol), Some(first), Some(last)) => format!("{protocol}:{first}-{last}"),
        (None, None, None) => "rest".to_owned(),
        other => format!("{other:?}"),
    };
    let decision = match (rule.denied, rule.audit_denied) {
        (false, false) if rule.requests => "requests",
        (false, false) if rule.audit_requests => "audit requests",
        (false, false) => "pass",
        (false, true) => "audit",
        (true, _) => "deny",
    };
    let policies = rule.policies.join(", ");
    format!("{} {} {peer} {ports} {decision} {policies}", rule.subject_name, rule.direction)
}

fn programs_and_their_cost(daemon: &Daemon) {
    let request = InspectRequest { statistics_ms: 100, ..asked(What::Programs) };
    let names = ["observer_ingress", "observer_egress"];
    let is_flow = |name: &str| names.contains(&name);
    let answer = until(daemon, &request, |answer| {
        let mut flow = answer.programs.iter().filter(|program| is_flow(&program.name));
        flow.all(|program| program.window_runs() > 0 && program.window_run_ns() > 0)
    });
    assert_eq!(answer.statistics_ms, 100);
    assert!(answer.time.is_some() && answer.node_name.ends_with("/n1"), "{answer:?}");
    let ours: Vec<_> = answer.programs.iter().filter(|program| program.ours).collect();
    let known: BTreeSet<u32> = ours.iter().map(|program| program.id).collect();
    assert_eq!(known, daemon.bpf_ids()["prog"], "what it holds open");
    for program in ours {
        assert!(
            program.xlated_bytes > 0 && program.memlock_bytes > 0 && program.loaded.is_some(),
            "{program:?}"
        );
        assert_eq!(program.tag.len(), 16, "{program:?}");
        let [first, ..] = &program.attached[..] else { panic!("{program:?} is nowhere") };
        if is_flow(&program.name) {
            let hook = program.name.strip_prefix("observer_").unwrap();
            assert!(program.attached.iter().all(|place| place.starts_with(hook)), "{program:?}");
            assert_eq!(program.r#type, "sched_cls");
        } else {
            assert!(first.contains(' '), "a way and a tracepoint: {program:?}");
        }
    }
    // Counts rise by the next window's runs, at least.
    let before = |name: &str| answer.programs.iter().find(|program| program.name == name).unwrap().runs;
    until(daemon, &request, |later| {
        names.iter().all(|name| {
            later.programs.iter().any(|program| program.name == *name && program.runs > before(name))
        })
    });
}

fn pod_links(lab: &Lab) -> Vec<String> {
    lab.scenario().pods.iter().filter(|pod| pod.node == "n1").map(|pod| lab.pod_link(pod)).collect()
}

fn links(lab: &Lab, daemon: &Daemon) {
    let node = lab.node_netns("n1").file_name().unwrap().to_string_lossy().into_owned();
    let other = netns::inside(&node, || Ok(Capture::start(&CaptureConfig::default()).unwrap())).unwrap();
    let links = ask(daemon, asked(What::Links)).unwrap().links;
    for name in pod_links(lab) {
        for hook in ["ingress", "egress"] {
            let here: Vec<&InspectedLink> =
                links.iter().filter(|link| link.interface == name && link.hook == hook).collect();
            let [ours, theirs] = here[..] else { panic!("{name} {hook}: {links:?}") };
            assert_eq!((ours.kind.as_str(), ours.by.as_str(), ours.problem.as_str()), ("pod", "tcx", ""));
            assert_eq!(ours.program, format!("observer_{hook}"));
            assert!(ours.ours && ours.packets.is_some() && !ours.pinned, "{ours:?}");
            assert!(daemon.attached(ours.index).contains(&ours.link_id), "{ours:?}");
            assert_eq!((ours.position, ours.of, theirs.position, theirs.of), (1, 2, 2, 2));
            // As the kernel cuts it.
            assert!(!theirs.ours && theirs.program == format!("observer_{hook}")[..15], "{theirs:?}");
            assert!(theirs.packets.is_none() && theirs.program_id != ours.program_id, "{theirs:?}");
        }
    }
    let first = &pod_links(lab)[0];
    let of = |pattern: &str| InspectRequest { interfaces: vec![pattern.to_owned()], ..asked(What::Links) };
    let one = ask(daemon, of(first)).unwrap().links;
    assert!(one.len() == 4 && one.iter().all(|link| link.interface == *first), "{one:?}");
    let shown: BTreeSet<String> =
        ask(daemon, of("veth*")).unwrap().links.into_iter().map(|link| link.interface).collect();
    assert_eq!(shown, pod_links(lab).into_iter().collect());

    let programs = ask(daemon, asked(What::Programs)).unwrap().programs;
    let theirs: Vec<_> = programs.iter().filter(|program| !program.ours).collect();
    assert_eq!(theirs.len(), 2, "the flow programs of the other, by its links: {programs:?}");
    other.stop(&mut |_| {}).unwrap();
}

fn maps_and_rings(lab: &Lab, daemon: &Daemon) {
    let is_filled = |answer: &InspectResponse| {
        let entries =
            |name: &str| answer.maps.iter().find(|map| map.name == name).and_then(|map| map.entries);
        entries("SHORT_FLOW_TABLE") > Some(0) && entries("LOCAL") > Some(0)
    };
    let maps = until(daemon, &asked(What::Maps), is_filled).maps;
    let ids: BTreeSet<u32> = maps.iter().map(|map| map.id).collect();
    assert_eq!(ids, daemon.bpf_ids()["map"], "what it holds open");
    let map = |name: &str| maps.iter().find(|map| map.name == name).unwrap();
    let table = map("SHORT_FLOW_TABLE");
    assert!(
        table.entries.unwrap() <= u64::from(table.max_entries) && table.memlock_bytes > 1 << 20,
        "{table:?}"
    );
    // The node's pods and its uplink.
    assert_eq!(map("LINKS").entries, Some(pod_links(lab).len() as u64 + 1));
    assert_eq!(map("LINKS").flag_names, ["no_prealloc"]);
    assert_eq!(map("SETTINGS").entries, None, "an array is always full");

    let is_used = |answer: &InspectResponse| answer.rings.iter().any(|ring| ring.submitted > 0);
    let rings = until(daemon, &asked(What::Rings), is_used).rings;
    assert_eq!(rings.iter().map(|ring| ring.name.as_str()).collect::<Vec<_>>(), ["FLOWS", "PRIORITY"]);
    assert!(rings.iter().all(|ring| ring.used_bytes <= ring.bytes.into() && ring.lost == 0), "{rings:?}");
}

fn pod<'a>(lab: &'a Lab, name: &str) -> &'a Pod {
    lab.scenario().pods.iter().find(|pod| pod.name == name).unwrap()
}

fn flows(lab: &Lab, daemon: &Daemon) {
    let link = lab.pod_link(pod(lab, "client-b"));
    let of_link = InspectRequest { interfaces: vec![link.clone()], ..asked(What::Flows) };
    let is_told = |answer: &InspectResponse| {
        answer.flows.iter().any(|flow| {
            let (opener, responder) = (flow.opener.as_ref().unwrap(), flow.responder.as_ref().unwrap());
            let packets = [&flow.sent, &flow.received].map(|way| way.as_ref().unwrap().packets);
            flow.protocol_name == "TCP"
                && (opener.name.as_str(), responder.name.as_str()) == ("web/client-b", "shop/api-1")
                && responder.port == 8080
                && packets.iter().all(|packets| *packets >= 2)
                && !flow.guessed
        })
    };
    let answer = until(daemon, &of_link, is_told);
    assert!(answer.flows.iter().all(|flow| flow.interface == link), "{answer:?}");
    let limited = InspectRequest { limit: 1, ..of_link };
    until(daemon, &limited, |answer| answer.flows.len() == 1 && answer.more > 0);
}

fn addresses(lab: &Lab, daemon: &Daemon) {
    let known = ask(daemon, asked(What::Ipcache)).unwrap().ipcache;
    for pod in &lab.scenario().pods {
        for ip in &pod.ips {
            let entry = known.iter().find(|entry| entry.net == ip.to_string()).unwrap();
            assert_eq!(entry.name, format!("{}/{}", pod.namespace, pod.name));
            assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("pod", "inventory"));
            assert!(entry.identity >= 256 && !entry.labels.is_empty(), "{entry:?}");
        }
    }
    assert!(known.iter().any(|entry| entry.kind == "node" && entry.name == "n1"), "{known:?}");
    let client = pod(lab, "client-b");
    let of_link = InspectRequest { interfaces: vec![lab.pod_link(client)], ..asked(What::Ipcache) };
    // Who is behind a link is known once it has sent something.
    let answer = until(daemon, &of_link, |answer| answer.ipcache.len() == client.ips.len());
    assert!(answer.ipcache.iter().all(|entry| entry.name == "web/client-b"), "{answer:?}");
    let limited = ask(daemon, InspectRequest { limit: 2, ..asked(What::Ipcache) }).unwrap();
    assert_eq!((limited.ipcache.len(), limited.more), (2, known.len() as u64 - 2));
}

fn requests_that_are_wrong(daemon: &Daemon) {
    let of = |what, interface: &str| InspectRequest { interfaces: vec![interface.to_owned()], ..asked(what) };
    for (request, why) in [
        (
            of(What::Links, "nope*"),
            "interfaces: no interface with programs on it is called \"nope*\"; there are: ",
        ),
        (of(What::Flows, ""), "interfaces: `` matches no interface name"),
        (of(What::Maps, "veth*"), "interfaces: maps and rings belong to no interface"),
        (asked(What::Unknown), "what: one of programs, links, "),
        (InspectRequest { limit: 1_000_001, ..asked(What::Flows) }, "limit: at most 1000000"),
        (InspectRequest { statistics_ms: 60_001, ..asked(What::Programs) }, "statistics_ms: at most 60000"),
    ] {
        let status = ask(daemon, request.clone()).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}");
        assert!(status.message().starts_with(why), "{request:?}: {status:?}");
    }
}

fn the_command(daemon: &Daemon) {
    for (kind, key) in [
        ("programs", "programs"),
        ("links", "links"),
        ("maps", "maps"),
        ("rings", "rings"),
        ("ipcache", "ipcache"),
        ("flows", "flows"),
    ] {
        let output = observe(daemon, &[kind, "-o", "json"]);
        assert!(output.status.success(), "{kind}: {output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json[key].as_array().is_some_and(|entries| !entries.is_empty()), "{kind}: {json}");
        let output = observe(daemon, &[kind]);
        assert!(output.status.success() && output.stdout.is_ascii(), "{kind}: {output:?}");
        assert!(output.stdout.split(|byte| *byte == b'\n').count() > 2, "{kind}: {output:?}");
    }
    let output = observe(daemon, &["programs", "--stats", "--for", "10ms"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("runs of the last 10 ms"), "{output:?}");
    for (args, why) in [
        (&["links", "--interface", "nope"][..], "cannot inspect: interfaces: no interface"),
        (&["everything"], "unknown command \"everything\" for \"observe inspect\""),
        (&["flows", "--limit", "0"], "invalid argument \"0\" for \"--limit\" flag"),
    ] {
        let output = observe(daemon, args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{args:?}: {told}");
        assert!(told.starts_with(why), "{args:?}: {told}");
    }
}
