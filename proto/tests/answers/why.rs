//! What `why` says of each cause of a drop, and of what is no drop.

use super::*;

fn why(flags: &str, flows: &[Flow]) -> Report {
    answer(flags, flows).report()
}

fn answer(flags: &str, flows: &[Flow]) -> Why {
    let words: Vec<&str> = flags.split_whitespace().collect();
    let pairs = words.chunks(2).map(|pair| (pair[0].trim_start_matches('-'), pair[1]));
    let lists = filter::parse(pairs).expect(flags);
    let route = Route::new(lists.whitelist[0].clone()).expect(flags);
    let mut why = Why::new(route, about());
    for flow in flows {
        why.flow(flow);
    }
    why
}

#[test]
fn why_tells_who_stands_behind_a_service() {
    let flows = flows();
    let backend = |address: &str, state: &str, pod: &str| stats::ServiceBackend {
        address: address.to_owned(),
        ports: vec![8080],
        state: state.to_owned(),
        pod: pod.to_owned(),
    };
    let service = |name: &str, state: &str| stats::Service {
        name: name.to_owned(),
        backends: vec![
            backend("10.0.0.9", state, "payments/\u{1b}[2Jpod"),
            backend("fd00::9", "not ready", ""),
        ],
        more: 3,
    };
    let mut seen = answer("--from-pod web/frontend-app --to-service payments/payments-api", &flows);
    assert_eq!(seen.services(), ["payments/payments-api"]);
    let before = seen.report();
    seen.behind(vec![service("payments/payments-api", "ready")]);
    let report = seen.report();
    assert_eq!((report.services.len(), &report.advice), (before.services.len(), &before.advice));
    let text = report.text(None);
    for part in ["10.0.0.9:8080", "[fd00::9]:8080", "not ready", "and 3 endpoints more"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}') && !before.text(None).contains("endpoint"), "{text}");
    // Nobody is called, and nothing was seen.
    let mut idle = answer("--from-pod web/nobody --to-service payments/idle", &flows);
    idle.behind(vec![service("payments/idle", "not ready")]);
    let report = idle.report();
    assert_eq!(report.outcome, Outcome::NotSeen);
    assert!(
        report
            .advice
            .as_ref()
            .is_some_and(|advice| advice.starts_with("no endpoint of the service payments/idle is ready"))
    );
    let text = report.text(None);
    assert!(text.contains("payments/idle, no flow through it seen"), "{text}");
    idle.behind(vec![stats::Service { name: "payments/idle".to_owned(), ..stats::Service::default() }]);
    assert!(idle.report().text(None).contains("no endpoint stands behind it"));
}

/// Each cause of a drop in the demo: by the flags that ask for it, what Observer's flows say, and what those of other
/// servers say.
const CAUSES: &[(&str, Cause, Cause)] = &[
    (
        "--from-pod tenant-a/tenant-a-client --to-pod tenant-b/tenant-b-server --to-port 7000",
        Cause::Firewall,
        Cause::Policy,
    ),
    (
        "--from-pod web/frontend-app --to-pod payments/payments-api --to-port 9000",
        Cause::Firewall,
        Cause::Policy,
    ),
    (
        "--from-pod data/analytics-service --to-pod ops/finance-tool",
        Cause::NothingListens,
        Cause::NothingListens,
    ),
    (
        "--from-pod ops/finance-tool --to-pod data/analytics-service --to-port 7999",
        Cause::NothingListens,
        Cause::NothingListens,
    ),
    ("--from-pod tenant-b/tenant-b-client --to-ip 198.51.100.20", Cause::NoRoute, Cause::NoRoute),
    ("--from-pod tenant-b/tenant-b-client --to-ip 2001:db8:51::20", Cause::NoRoute, Cause::NoRoute),
    ("--from-pod data/analytics-service --to-ip 198.51.100.10", Cause::RouteDiscards, Cause::NoRoute),
    ("--from-pod data/analytics-service --to-ip 2001:db8:51::10", Cause::RouteDiscards, Cause::NoRoute),
    ("--from-pod ops/finance-tool --to-ip 203.0.113.10", Cause::TtlExceeded, Cause::TtlExceeded),
    ("--from-pod ops/finance-tool --to-ip 2001:db8:113::10", Cause::TtlExceeded, Cause::TtlExceeded),
    ("--from-pod payments/payments-api --to-ip 198.51.100.30", Cause::TooBig, Cause::TooBig),
    ("--from-pod payments/payments-api --to-ip 2001:db8:51::30", Cause::TooBig, Cause::TooBig),
    ("--from-pod tenant-a/tenant-a-client --to-ip 198.51.100.40", Cause::NoNeighbour, Cause::NoNeighbour),
    ("--from-pod tenant-a/tenant-a-client --to-ip 2001:db8:51::40", Cause::NoNeighbour, Cause::NoNeighbour),
];

#[test]
fn why_names_each_cause_of_the_demo() {
    let (flows, plain) = (flows(), plain());
    for (flags, ours, others) in CAUSES {
        for (flows, cause) in [(&flows, ours), (&plain, others)] {
            let report = why(flags, flows);
            assert_eq!(report.outcome, Outcome::Blocked, "{flags}: {report:?}");
            assert_eq!(report.ports[0].cause, Some(*cause), "{flags}: {report:?}");
            assert!(!report.ports[0].drops.is_empty(), "{flags}");
        }
        let report = why(flags, &flows);
        for drop in report.ports.iter().flat_map(|port| &port.drops) {
            assert!(drop.kernel_location.as_ref().is_some_and(|place| place.contains("+0x")), "{drop:?}");
            assert!(drop.packets > Some(0), "{drop:?}");
        }
    }
}

#[test]
fn why_blames_no_policy_for_what_the_kernel_gives_a_reason_for() {
    for (reason, cause) in [
        ("NETFILTER_DROP", Cause::Firewall),
        ("unknown on this kernel", Cause::Firewall),
        ("TC_INGRESS", Cause::Program),
        ("XFRM_POLICY", Cause::Other),
        ("TCP_MD5FAILURE", Cause::Other),
    ] {
        let hubble = if cause == Cause::Other { "AUTH_REQUIRED" } else { "POLICY_DENIED" };
        let line = DEMO.lines().find(|line| line.contains("NETFILTER_DROP") && line.contains("\"payments\""));
        let line = line.expect("one in the demo").replace("NETFILTER_DROP", reason);
        let line = line.replace("POLICY_DENIED", hubble);
        let Some(ResponseTypes::Flow(flow)) =
            json::read::<GetFlowsResponse>(&line).expect(&line).response_types
        else {
            panic!("{line}")
        };
        let report = why("--from-pod web/frontend-app --to-pod payments/", &[flow]);
        assert_eq!(report.ports[0].cause, Some(cause), "{reason}");
    }
}

#[test]
fn why_shows_the_route_that_discards() {
    for (to, command) in [
        ("198.51.100.10", "on n1: ip route show match 198.51.100.10"),
        ("2001:db8:51::10", "on n1: ip -6 route show match 2001:db8:51::10"),
    ] {
        let report = why(&format!("--from-pod data/analytics-service --to-ip {to}"), &flows());
        assert_eq!(report.ports[0].cause, Some(Cause::RouteDiscards));
        assert_eq!(report.advice.as_deref(), Some(command));
    }
}

/// What is there and well, and what is not there at all.
#[test]
fn why_says_what_is_no_drop() {
    let flows = flows();
    for (flags, outcome, part) in [
        ("--from-pod web/frontend-app --to-pod payments/ --to-port 8080", Outcome::Answered, "it can"),
        ("--from-pod web/frontend-app --to-service payments/payments-api", Outcome::Answered, "it can"),
        (
            "--from-pod web/frontend-app --to-pod tenant-b/",
            Outcome::NotSeen,
            "the first sent nothing to the second",
        ),
        ("--from-pod web/frontend --to-pod payments/ --to-port 81", Outcome::NotSeen, "8080/TCP, 9000/TCP"),
        ("--from-pod no/body --to-pod payments/", Outcome::NotSeen, "the first was not seen"),
        ("--from-pod no/body --to-pod no/thing", Outcome::NotSeen, "neither was seen"),
    ] {
        let report = why(flags, &flows);
        assert_eq!(report.outcome, outcome, "{flags}: {report:?}");
        assert!(report.sentence.contains(part), "{flags}: {}", report.sentence);
    }
    assert_eq!(why("--from-pod a/ --to-pod b/", &[]).sentence, "no flow was seen at all");
}

#[test]
fn why_names_policies_by_verdicts_and_takes_none_for_a_packet() {
    let mut flows = flows();
    let flags = "--from-pod web/frontend-app --to-pod payments/ --to-port 8080";
    let before = why(flags, &flows);
    let to_payments = |flow: &&Flow| flow.destination.as_ref().is_some_and(|end| end.namespace == "payments");
    let from_web = |flow: &&Flow| flow.source.as_ref().is_some_and(|end| end.namespace == "web");
    let is_open = |flow: &&Flow| flow.verdict() == Verdict::Forwarded;
    let packet =
        flows.iter().filter(from_web).filter(to_payments).find(is_open).expect("one in the demo").clone();
    flows.push(would_be_denied(packet));
    let after = why(flags, &flows);
    let named: Vec<_> = after.policies.iter().flatten().map(|counted| counted.what.as_str()).collect();
    assert_eq!(named, ["would deny by payments/p"]);
    assert_eq!(after.outcome, before.outcome);
    assert_eq!(format!("{:?}", after.ports), format!("{:?}", before.ports));
}

#[test]
fn why_knows_what_packets_told_where_others_flows_are_none() {
    let mut flows = flows();
    let flags = "--from-pod web/frontend-app --to-pod payments/ --to-port 8080";
    let before = why(flags, &flows).retransmits;
    assert!(before.is_some());
    let packet = flows
        .iter()
        .find(|flow| flow.destination.as_ref().is_some_and(|end| end.namespace == "payments"))
        .expect("one in the demo")
        .clone();
    flows.push(Flow {
        event_type: Some(CiliumEventType { r#type: 129, sub_type: 0 }),
        l7: Some(Layer7 { r#type: L7FlowType::Request as i32, ..Layer7::default() }),
        extensions: None,
        ..packet.clone()
    });
    flows.push(Flow { verdict: Verdict::Dropped.into(), ..would_be_denied(packet.clone()) });
    assert_eq!(why(flags, &flows).retransmits, before);
    flows.push(Flow { extensions: None, ..packet });
    assert_eq!(why(flags, &flows).retransmits, None, "a packet that tells of none");
}

#[test]
fn why_tells_a_denied_packet_once_and_requests_by_themselves() {
    let flags = "--from-pod web/frontend-app --to-pod payments/ --to-port 8080";
    let is_between = |flow: &&Flow| {
        let is_of = |end: &Option<observer_proto::flow::Endpoint>, namespace| {
            end.as_ref().is_some_and(|end| end.namespace == namespace)
        };
        is_of(&flow.source, "web") && is_of(&flow.destination, "payments")
    };
    let packet = flows().into_iter().find(|flow| is_between(&flow)).expect("one in the demo");
    let also = Policy { name: "q".into(), ..Policy::default() };
    let denied = Flow {
        egress_denied_by: vec![also],
        verdict: Verdict::Dropped.into(),
        drop_reason_desc: DropReason::PolicyDenied.into(),
        ..would_be_denied(packet.clone())
    };
    let dropped = Flow {
        event_type: Some(CiliumEventType { r#type: 1, sub_type: DropReason::PolicyDenied as i32 }),
        extensions: packet.extensions.clone(),
        ..denied.clone()
    };
    let report = why(flags, &[denied, dropped.clone()]);
    let [port] = &report.ports[..] else { panic!("{report:?}") };
    let [drop] = &port.drops[..] else { panic!("{report:?}") };
    assert_eq!((drop.reason.as_str(), drop.cause, drop.flows), ("Policy denied", Cause::Policy, 1));
    assert!(drop.packets > Some(0), "{drop:?}");
    assert_eq!(drop.policies, ["payments/p", "q"]);
    let row = report.text(None).lines().find(|line| line.contains("  Policy denied  ")).map(str::to_owned);
    assert!(
        row.as_ref().is_some_and(|row| row.contains("  payments/p q  ") && row.contains(&drop.address)),
        "{row:?}"
    );
    assert_eq!(report.advice.as_deref(), Some("observe policy show payments/p; observe policy show q"));

    let request = Flow {
        event_type: Some(CiliumEventType { r#type: 129, sub_type: 0 }),
        l7: Some(Layer7 { record: Some(Record::Http(Http::default())), ..Layer7::default() }),
        drop_reason_desc: 0,
        extensions: None,
        ..dropped
    };
    let report = why(flags, std::slice::from_ref(&request));
    let [port] = &report.ports[..] else { panic!("{report:?}") };
    assert_eq!(port.cause, Some(Cause::Request));
    assert_eq!((port.drops[0].reason.as_str(), port.drops[0].packets), ("HTTP request denied", None));
    assert_eq!(report.sentence, "a network policy refuses requests: payments/p q");
    let top = top(By::Reason, std::slice::from_ref(&request)).text(None);
    assert!(top.contains("HTTP request denied  ") && top.contains("    1          -        -\n"), "{top}");
    let counted = |by| aggregate(by, std::slice::from_ref(&request), 1).json();
    assert!(counted("reason").contains("\"HTTP request denied\""), "{}", counted("reason"));
    assert!(
        counted("drop-reason-desc").contains("\"DROP_REASON_UNKNOWN\""),
        "{}",
        counted("drop-reason-desc")
    );

    let answer = Flow {
        time: request.time,
        ip: packet.ip.map(|ip| Ip { source: ip.destination, destination: ip.source, ..ip }),
        l4: packet.l4.map(|_| Layer4 {
            protocol: Some(Protocol::Tcp(Tcp { source_port: 8080, destination_port: 40_000, flags: None })),
        }),
        source: packet.destination,
        destination: packet.source,
        is_reply: Some(true),
        extensions: None,
        ..Flow::default()
    };
    let report = why(flags, &[request, answer]);
    assert_eq!(report.outcome, Outcome::PartlyDropped);
    assert!(report.sentence.starts_with("the server answers, but a network policy refuses"), "{report:?}");
}

/// A question to DNS and its answer, between the ends of such packets.
fn asked(flows: &[Flow], name: &str, rcode: u32, ips: &[&str]) -> [Flow; 2] {
    let of_web = |end: &Option<observer_proto::flow::Endpoint>| {
        end.as_ref().is_some_and(|end| end.pod_name.starts_with("frontend-app"))
    };
    let is_dns = |flow: &&Flow, port| {
        matches!(flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()),
            Some(Protocol::Udp(udp)) if udp.source_port == port || udp.destination_port == port)
    };
    let question =
        flows.iter().find(|flow| is_dns(flow, 53) && of_web(&flow.source)).expect("in the demo").clone();
    let answer =
        flows.iter().find(|flow| is_dns(flow, 53) && of_web(&flow.destination)).expect("as well").clone();
    let dns = Dns { query: format!("{name}."), qtypes: vec!["A".into()], ..Dns::default() };
    let ips = ips.iter().map(|ip| (*ip).to_owned()).collect();
    let said = |kind: L7FlowType, latency_ns, dns, packet| Flow {
        l7: Some(Layer7 { r#type: kind as i32, latency_ns, record: Some(Record::Dns(dns)) }),
        event_type: Some(CiliumEventType { r#type: 129, sub_type: 0 }),
        extensions: None,
        ..packet
    };
    [
        said(L7FlowType::Request, 0, dns.clone(), question),
        said(L7FlowType::Response, 1_500_000, Dns { rcode, ips, ..dns }, answer),
    ]
}

#[test]
fn why_tells_what_dns_said_of_the_second() {
    let demo = flows();
    let flags = "--from-pod web/frontend-app --to-pod payments/payments-api --to-port 9000";
    let before = why(flags, &demo);
    assert_eq!(before.dns, None, "the demo's recording has no DNS");
    let mut flows = demo.clone();
    // By its name; by an address that packets between both have; another's in vain, and another's.
    flows.extend(asked(&demo, "payments-api.payments.svc.cluster.local", 0, &["10.96.0.20"]));
    flows.extend(asked(&demo, "pay.example", 0, &["10.244.1.20"]));
    flows.extend(asked(&demo, "nothing.example", 3, &[]));
    flows.extend(asked(&demo, "else.example", 0, &["203.0.113.9"]));
    let report = why(flags, &flows);
    assert_eq!((report.outcome, &report.sentence), (before.outcome, &before.sentence));
    let dns = report.dns.as_ref().expect("DNS");
    let names = |names: &[observer_proto::answers::why::Name]| {
        names.iter().map(|name| name.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&dns.names), ["pay.example", "payments-api.payments.svc.cluster.local"]);
    assert_eq!((names(&dns.failed), dns.others), (vec!["nothing.example".to_owned()], 1));
    let first = &dns.names[0];
    assert_eq!((first.queries, first.answers, first.slowest_ms), (1, 1, Some(1.5)));
    assert_eq!(first.addresses, ["10.244.1.20"]);
    same(&report.text(Some(100)), "why-dns-100.txt");
    same(&(report.json() + "\n"), "why-dns.json");
}

#[test]
fn why_blames_dns_where_nothing_was_tried() {
    let demo = flows();
    for (flags, name, rcode, part) in [
        ("--to-service db/db", "db.db", 3, "DNS told the first no address of db.db: NXDOMAIN 1"),
        ("--to-fqdn *.shop.example", "a.shop.example", 2, "no address of a.shop.example: SERVFAIL 1"),
    ] {
        let flags = format!("--from-pod web/frontend-app {flags}");
        let mut flows = demo.clone();
        flows.extend(asked(&demo, name, rcode, &[]));
        let report = why(&flags, &flows);
        assert_eq!(report.outcome, Outcome::NotSeen);
        assert!(report.sentence.contains(part), "{}", report.sentence);
        assert!(report.advice.is_some());
        // The question alone.
        flows.truncate(flows.len() - 1);
        assert!(why(&flags, &flows).sentence.contains("did not answer"), "{flags}");
        // Once it was told, DNS is not to blame.
        flows.extend(asked(&demo, name, 0, &["203.0.113.77"]));
        assert!(!why(&flags, &flows).sentence.contains("DNS"), "{flags}");
    }
}

#[test]
fn why_blames_policies_that_deny_what_the_first_asks_dns() {
    let demo = flows();
    let flags = "--from-pod web/frontend-app --to-fqdn *.shop.example";
    let policy = Policy { name: "p".into(), namespace: "web".into(), ..Policy::default() };
    let [question, answer] = asked(&demo, "a.shop.example", 0, &["203.0.113.77"]);
    let at = |seconds, flow: &Flow| Flow {
        time: flow.time.map(|time| prost_types::Timestamp { seconds: time.seconds + seconds, ..time }),
        ..flow.clone()
    };
    let denied =
        Flow { verdict: Verdict::Dropped.into(), egress_denied_by: vec![policy], ..question.clone() };
    // What was answered before it is in force is no news.
    let mut flows = vec![question.clone(), answer.clone(), at(60, &denied)];
    let report = why(flags, &flows);
    assert_eq!(report.outcome, Outcome::NotSeen);
    assert_eq!(report.sentence, "a network policy denies the first's DNS queries for a.shop.example: web/p");
    assert_eq!(report.advice.as_deref(), Some("observe policy show web/p"));
    let text = report.text(None);
    assert!(text.contains("denied by policy 1"), "{text}");
    // It is in force no longer.
    flows.extend([at(90, &question), at(90, &answer)]);
    assert!(!why(flags, &flows).sentence.contains("policy"));
    // Another's name is named as one asked for in vain.
    let report = why("--from-pod web/frontend-app --to-fqdn db.example", &[denied]);
    let failed = &report.dns.as_ref().expect("DNS").failed;
    assert_eq!(
        (failed[0].name.as_str(), failed[0].denied, &failed[0].denied_by[..]),
        ("a.shop.example", 1, &["web/p".to_owned()][..])
    );
    assert!(report.text(None).contains("  denied by policy 1  "), "{}", report.text(None));
}

/// Replicas call each other: both ends are the same pods, and an answer is no call.
#[test]
fn why_tells_calls_from_answers_where_both_ends_are_the_same() {
    let report = why("--from-pod payments/payments-api --to-pod payments/payments-api", &flows());
    let [port] = &report.ports[..] else { panic!("{report:?}") };
    assert_eq!((report.outcome, port.port.as_str()), (Outcome::Answered, "8080/TCP"), "{report:?}");
    assert!(port.answers > 0 && port.flows > 0, "{report:?}");
}

#[test]
fn why_tells_icmp_errors_that_were_dropped_from_those_received() {
    let flags = "--from-pod ops/finance-tool --to-ip 203.0.113.10";
    let mut flows = flows();
    let before = why(flags, &flows);
    assert!(!before.icmp_errors.is_empty() && before.icmp_drops.is_empty(), "{before:?}");
    let is_error = |flow: &&Flow| {
        flow.destination.as_ref().is_some_and(|end| end.namespace == "ops")
            && matches!(flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()), Some(Protocol::IcmPv4(_)))
    };
    let error = flows.iter().find(is_error).expect("one in the demo").clone();
    flows.push(Flow {
        event_type: Some(CiliumEventType { r#type: 1, sub_type: DropReason::TtlExceeded as i32 }),
        verdict: Verdict::Dropped.into(),
        ..error
    });
    let after = why(flags, &flows);
    assert_eq!(after.icmp_errors, before.icmp_errors);
    assert_eq!(after.icmp_drops.iter().map(|error| error.drop.flows).sum::<u64>(), 1);
    let text = after.text(None);
    assert!(text.contains("ICMP errors for the first that were dropped:"), "{text}");
    // With what dropped it, as other drops.
    let row = text.lines().find(|line| line.starts_with("  ICMPv4 ")).unwrap_or_default();
    assert!(row.contains("  TTL exceeded  ") && row.contains("  ops/finance-tool"), "{text}");
    assert!(text.contains(", TTL exceeded: 1 flow\n"), "{text}");
}

#[test]
fn why_tells_icmp_errors_of_the_family_that_is_asked_about() {
    let flows = flows();
    for (to, families) in [
        ("--to-ip 203.0.113.10", &["ICMPv4"][..]),
        ("--to-ip 2001:db8:113::10", &["ICMPv6"]),
        ("--to-ip 203.0.113.0/24 --to-ip 2001:db8::/32", &["ICMPv4", "ICMPv6"]),
        ("--to-identity world", &["ICMPv4", "ICMPv6"]),
    ] {
        let report = why(&format!("--from-pod ops/finance-tool {to}"), &flows);
        let told = |family: &&str| report.icmp_errors.iter().any(|error| error.what.starts_with(family));
        let families_told: Vec<_> = ["ICMPv4", "ICMPv6"].into_iter().filter(told).collect();
        assert_eq!(families_told, families, "{to}");
    }
}

/// A drop that no program saw, on a node without a daemon: the reset tells.
#[test]
fn why_reads_resets_where_no_drop_was_seen() {
    let flags = "--from-pod data/analytics-service --to-pod ops/finance-tool --to-port 7999";
    let seen: Vec<Flow> = flows().into_iter().filter(|flow| flow.drop_reason_desc == 0).collect();
    let report = why(flags, &seen);
    assert_eq!(report.outcome, Outcome::Refused, "{report:?}");
    assert!(report.ports[0].refused > 0 && report.ports[0].cause.is_none(), "{report:?}");
    let silent: Vec<Flow> = seen.into_iter().filter(|flow| flow.is_reply != Some(true)).collect();
    assert_eq!(why(flags, &silent).outcome, Outcome::Unanswered);
}

#[test]
fn a_question_needs_both_ends() {
    for (flag, part) in [(("from-pod", "a/b"), "--to-pod"), (("to-pod", "a/b"), "--from-pod")] {
        let lists = filter::parse([flag]).expect("a filter");
        let error = Route::new(lists.whitelist[0].clone()).expect_err("half a question");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn pages_of_why() {
    let (flows, plain) = (flows(), plain());
    let guarded = "--from-pod web/frontend-app --to-pod payments/payments-api --to-port 9000";
    same(&why(guarded, &flows).text(Some(80)), "why-guarded-80.txt");
    same(&(why(guarded, &flows).json() + "\n"), "why-guarded.json");
    same(&why(guarded, &plain).text(Some(80)), "plain-why-guarded-80.txt");
    let all = "--from-pod web/frontend-app --to-pod payments/payments-api";
    same(&why(all, &flows).text(Some(100)), "why-all-ports-100.txt");
    same(&why(all, &flows).text(None), "why-all-ports.txt");
    same(
        &why("--from-pod web/frontend-app --to-pod tenant-b/", &flows).text(Some(60)),
        "why-not-seen-60.txt",
    );
}
