//! Sets of flags, most of them right, some of them wrong in one place or in several.

use super::{
    dice::Dice,
    flows::{
        ADDRESSES, CLUSTERS, KINDS, LABELS, LINKS, METHODS, NAMES, NAMESPACES, NODES, PODS, SERVICES,
        TRACE_IDS, uuid,
    },
};

/// Flags with values of this kind.
struct Group(&'static [&'static str], fn(&mut Dice) -> String);

const GROUPS: &[Group] = &[
    Group(&["--pod", "--from-pod", "--to-pod"], |dice| prefixed(dice, PODS)),
    Group(&["--service", "--from-service", "--to-service"], |dice| prefixed(dice, SERVICES)),
    Group(&["-n", "--namespace", "--from-namespace", "--to-namespace"], |dice| dice.text(NAMESPACES)),
    Group(&["--workload", "--from-workload", "--to-workload"], |dice| match dice.below(4) {
        0 => dice.text(&["web", "api", "db"]),
        1 => format!("{}/", dice.text(KINDS)),
        2 => format!("{}/{}", dice.text(KINDS), dice.text(&["web", "api"])),
        _ => dice.text(&["/", "a/b/c", "", "/web"]),
    }),
    Group(&["-l", "--label", "--from-label", "--to-label"], |dice| match dice.below(4) {
        0 => dice.text(LABELS),
        1 => format!("{},{}", dice.text(LABELS), dice.text(&["tier!=db", "!x", "app", "app in (web,api)"])),
        2 => dice.text(&["app notin (web)", "!k8s:app", "reserved:world", "tier=db", "app in (a, b), tier"]),
        _ => dice.text(&["a=(b", "=", "a==b,,c", "x in ()", "a=b=c", "-a=b"]),
    }),
    Group(&["--identity", "--from-identity", "--to-identity"], |dice| {
        dice.text(&[
            "world",
            "host",
            "4001",
            "0x2",
            "017",
            "0b10",
            "1_0",
            "bogus",
            "11",
            "-1",
            "kube-apiserver",
            "99999999999",
        ])
    }),
    Group(&["--ip", "--from-ip", "--to-ip", "--snat-ip"], |dice| match dice.below(3) {
        0 => dice.text(ADDRESSES),
        1 => dice.text(&["10.0.0.0/8", "10.0.1.0/24", "fd00::/8", "0.0.0.0/0", "::/0"]),
        _ => dice.text(&["10.0.0.300", "10.0.0.0/33", "x", "1.1.1.1/"]),
    }),
    Group(&["--fqdn", "--from-fqdn", "--to-fqdn"], |dice| match dice.below(3) {
        0 => dice.text(NAMES),
        1 => dice.text(&["*.example.com", "*", "a*.example.com", "EXAMPLE.com."]),
        _ => dice.text(&["a(b", "", "exa mple"]),
    }),
    Group(&["--port", "--from-port", "--to-port"], |dice| {
        dice.text(&[
            "53", "80", "443", "8080", "0", "40000", "65535", "65616", "99999", "nine", "-1", "0x50", "",
        ])
    }),
    Group(&["--protocol"], |dice| {
        dice.text(&[
            "tcp", "TCP", "udp", "sctp", "icmp", "icmpv4", "ICMPv6", "dns", "http", "vrrp", "igmp", "bogus",
            "",
        ])
    }),
    Group(&["--tcp-flags"], |dice| {
        dice.text(&["syn", "SYN,ack", "ack", "fin", "rst,psh", "foo", "", "syn,"])
    }),
    Group(&["--verdict"], |dice| {
        dice.text(&[
            "FORWARDED",
            "DROPPED",
            "AUDIT",
            "REDIRECTED",
            "ERROR",
            "TRACED",
            "TRANSLATED",
            "dropped",
            "VERDICT_UNKNOWN",
        ])
    }),
    Group(&["--drop-reason-desc"], |dice| {
        dice.text(&["POLICY_DENIED", "POLICY_DENY", "TTL_EXCEEDED", "nope", ""])
    }),
    Group(&["-t", "--type"], |dice| {
        dice.text(&[
            "drop",
            "trace",
            "l7",
            "policy-verdict",
            "capture",
            "trace-sock",
            "trace:to-endpoint",
            "trace:from-overlay",
            "trace:to-stack",
            "1:133",
            "4",
            "5:0",
            "agent",
            "trace:bogus",
            "bogus",
            "",
            "4294967295",
            "4294967296",
            "trace:",
        ])
    }),
    Group(&["--http-status"], |dice| dice.text(&["404", "5+", "20", "200", "999", "x", "", "+", "50+"])),
    Group(
        &["--http-method"],
        |dice| if dice.once_in(2) { dice.text(METHODS) } else { dice.text(&["get", "Post"]) },
    ),
    Group(&["--http-path"], |dice| dice.text(&["/v1", "/v1/.*", "^/$", "x", ""])),
    Group(&["--http-url"], |dice| dice.text(&["http://api.*", "example", "^https", ""])),
    Group(&["--http-header"], |dice| dice.text(&["foo:bar", "host:api", "Host:api", "foo", "foo:", ":"])),
    Group(&["--node-name"], |dice| match dice.below(2) {
        0 => dice.text(NODES),
        _ => dice.text(&["n1", "default/*", "*/n1", "n*", "a/b/c", "default/", "*"]),
    }),
    Group(&["--node-label"], |dice| {
        dice.text(&["zone=a", "io.cilium/egress-gateway", "zone!=a", "zone in (a,b)", "=", "x y"])
    }),
    Group(&["--cluster", "--from-cluster", "--to-cluster"], |dice| dice.text(CLUSTERS)),
    Group(&["--traffic-direction"], |dice| dice.text(&["ingress", "EGRESS", "sideways"])),
    Group(&["--interface"], |dice| dice.text(LINKS)),
    Group(&["--ip-version"], |dice| dice.text(&["v4", "6", "ipv6", "none", "bogus"])),
    Group(&["--trace-id"], |dice| dice.text(TRACE_IDS)),
    Group(&["--ip-trace-id"], |dice| dice.text(&["7", "42", "0", "x", "0x7"])),
    Group(&["--uuid"], |dice| {
        let nth = dice.below(500);
        if dice.once_in(3) { "nope".to_owned() } else { uuid(nth) }
    }),
];

const SWITCHES: &[&str] = &[
    "-A",
    "--from-all-namespaces",
    "--to-all-namespaces",
    "-4",
    "-6",
    "--encrypted",
    "--unencrypted",
    "--ipv4=x",
];

fn prefixed(dice: &mut Dice, names: &[&str]) -> String {
    match dice.below(4) {
        0 => dice.text(names),
        1 => format!("{}/", dice.text(NAMESPACES)),
        2 => format!("/{}", dice.text(names)),
        _ => format!("{}/{}", dice.text(NAMESPACES), dice.text(&["web", "api", "w"])),
    }
}

/// A command line's flags.
pub(super) fn set(dice: &mut Dice) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..dice.below(5) {
        if dice.once_in(4) {
            words.push(dice.text(&["--not", "--not", "--not", "--not=false"]));
        }
        if dice.once_in(6) {
            words.push(dice.text(SWITCHES));
            continue;
        }
        let Group(names, value) = dice.pick(GROUPS);
        let (name, value) = (dice.text(names), value(dice));
        match dice.below(3) {
            0 if name.starts_with("--") => words.push(format!("{name}={value}")),
            0 if !value.is_empty() => words.push(format!("{name}{value}")),
            _ => words.extend([name, value]),
        }
    }
    if dice.once_in(25) {
        words.push(dice.text(&["--not", "--bogus", "-x", "--all=maybe", "--last=x", "--=", "-fx"]));
    }
    match dice.below(4) {
        0 => words.extend(["--last".to_owned(), dice.text(&["1", "17", "100"])]),
        1 => words.extend(["--first".to_owned(), dice.text(&["1", "17", "100"])]),
        _ => words.push("--all".to_owned()),
    }
    if dice.once_in(25) {
        words.push(dice.text(&[
            "--last=3",
            "--first=3",
            "--since=yesterday",
            "--until=x",
            "--field-mask=verdict",
        ]));
    }
    words.extend([
        "-o".to_owned(),
        dice.text(&[
            "compact", "compact", "compact", "dict", "table", "tab", "json", "json", "jsonpb", "JSON",
        ]),
    ]);
    if dice.once_in(40) {
        words.extend(["-o".to_owned(), dice.text(&["Compact", "yaml", ""])]);
    }
    for flag in [
        "--print-node-name",
        "--print-policy-names",
        "--numeric",
        "--ip-translation=false",
        "--color=always",
        "-s",
        "-D",
    ] {
        if dice.once_in(4) {
            words.push(flag.to_owned());
        }
    }
    if dice.once_in(3) {
        words.extend([
            "--time-format".to_owned(),
            dice.text(&[
                "RFC3339",
                "rfc3339milli",
                "RFC3339Micro",
                "RFC3339Nano",
                "RFC1123Z",
                "YearMonthDay",
                "bogus",
            ]),
        ]);
    }
    words
}
