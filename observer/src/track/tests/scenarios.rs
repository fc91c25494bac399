use super::*;

struct Scenario {
    name: &'static str,
    conntrack: &'static [&'static str],
    records: &'static [(&'static str, &'static str)],
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pod to pod, directly",
        conntrack: &["tcp 10.0.1.1:4000>10.0.1.2:80 10.0.1.2:80>10.0.1.1:4000"],
        records: &[
            ("pod in new tcp 10.0.1.1:4000>10.0.1.2:80", "not: local delivery"),
            (
                "pod out new tcp 10.0.1.1:4000>10.0.1.2:80",
                "to-endpoint new ingress 10.0.1.1:4000>10.0.1.2:80",
            ),
            ("pod in flags+reply tcp 10.0.1.2:80>10.0.1.1:4000", "not: local delivery"),
            (
                "pod out flags+reply tcp 10.0.1.2:80>10.0.1.1:4000",
                "to-endpoint reply egress 10.0.1.2:80>10.0.1.1:4000",
            ),
            (
                "pod out flags tcp 10.0.1.1:4000>10.0.1.2:80",
                "to-endpoint established ingress 10.0.1.1:4000>10.0.1.2:80",
            ),
        ],
    },
    Scenario {
        name: "pod to pod, without conntrack (bridged), every packet told",
        conntrack: &[],
        records: &[
            ("pod in new+local tcp 10.0.1.1:4000>10.0.1.2:80", "not: local delivery"),
            (
                "pod in packet+local tcp 10.0.1.1:4000>10.0.1.2:80",
                "from-endpoint new egress 10.0.1.1:4000>10.0.1.2:80",
            ),
            (
                "pod out packet tcp 10.0.1.1:4000>10.0.1.2:80",
                "to-endpoint new ingress 10.0.1.1:4000>10.0.1.2:80",
            ),
            (
                "pod in packet+reply tcp 10.0.1.2:80>10.0.1.1:4000",
                "from-endpoint reply ingress 10.0.1.2:80>10.0.1.1:4000",
            ),
        ],
    },
    Scenario {
        name: "ClusterIP to a local backend",
        conntrack: &["tcp 10.0.1.1:4000>10.96.0.1:80 10.0.1.2:8080>10.0.1.1:4000"],
        records: &[
            ("pod in new tcp 10.0.1.1:4000>10.96.0.1:80", "not: translated local"),
            (
                "pod out new tcp 10.0.1.1:4000>10.0.1.2:8080",
                "to-endpoint new ingress 10.0.1.1:4000>10.0.1.2:8080 via 10.96.0.1:80",
            ),
            ("pod in flags+reply tcp 10.0.1.2:8080>10.0.1.1:4000", "not: local delivery"),
            (
                "pod out flags+reply tcp 10.96.0.1:80>10.0.1.1:4000",
                "to-endpoint reply egress 10.0.1.2:8080>10.0.1.1:4000 via 10.96.0.1:80",
            ),
            (
                "drop tcp 10.0.1.1:4000>10.0.1.2:8080",
                "drop egress 10.0.1.1:4000>10.0.1.2:8080 via 10.96.0.1:80",
            ),
        ],
    },
    Scenario {
        name: "ClusterIP to a backend on another node",
        conntrack: &["tcp 10.0.1.1:4000>10.96.0.1:80 10.0.2.2:8080>10.0.1.1:4000"],
        records: &[
            (
                "pod in new tcp 10.0.1.1:4000>10.96.0.1:80",
                "to-stack new egress 10.0.1.1:4000>10.0.2.2:8080 via 10.96.0.1:80",
            ),
            ("tunnel out new+forwarded tcp 10.0.1.1:4000>10.0.2.2:8080", "not: forwarded"),
            ("uplink in flags+reply tcp 10.0.2.2:8080>10.0.1.1:4000", "not: forwarded"),
            (
                "pod out flags+reply tcp 10.96.0.1:80>10.0.1.1:4000",
                "to-endpoint reply egress 10.0.2.2:8080>10.0.1.1:4000 via 10.96.0.1:80",
            ),
        ],
    },
    Scenario {
        name: "hairpin: a pod calls its own service",
        conntrack: &["tcp 10.0.1.1:4000>10.96.0.1:80 10.0.1.1:8080>10.0.1.254:6000"],
        records: &[
            ("pod in new tcp 10.0.1.1:4000>10.96.0.1:80", "not: translated local"),
            (
                "pod out new tcp 10.0.1.254:6000>10.0.1.1:8080",
                "to-endpoint new ingress 10.0.1.1:4000>10.0.1.1:8080 via 10.96.0.1:80 as 10.0.1.254",
            ),
            ("pod in flags+reply tcp 10.0.1.1:8080>10.0.1.254:6000", "not: translated local"),
            (
                "pod out flags+reply tcp 10.96.0.1:80>10.0.1.1:4000",
                "to-endpoint reply egress 10.0.1.1:8080>10.0.1.1:4000 via 10.96.0.1:80",
            ),
            (
                "drop tcp 10.0.1.254:6000>10.0.1.1:8080",
                "drop egress 10.0.1.1:4000>10.0.1.1:8080 via 10.96.0.1:80",
            ),
        ],
    },
    Scenario {
        name: "pod to the outside, masqueraded",
        conntrack: &["tcp 10.0.1.1:4000>203.0.113.5:443 203.0.113.5:443>192.168.0.1:4000"],
        records: &[
            (
                "pod in new tcp 10.0.1.1:4000>203.0.113.5:443",
                "to-stack new egress 10.0.1.1:4000>203.0.113.5:443",
            ),
            ("uplink out new+forwarded tcp 192.168.0.1:4000>203.0.113.5:443", "not: masqueraded"),
            ("uplink out new tcp 192.168.0.1:4000>203.0.113.5:443", "not: masqueraded"),
            ("uplink in flags+reply tcp 203.0.113.5:443>192.168.0.1:4000", "not: masqueraded"),
            (
                "pod out flags+reply tcp 203.0.113.5:443>10.0.1.1:4000",
                "to-endpoint reply egress 203.0.113.5:443>10.0.1.1:4000",
            ),
        ],
    },
    Scenario {
        name: "pod to the outside, masqueraded, conntrack silent",
        conntrack: &[],
        records: &[
            ("uplink out new+forwarded tcp 192.168.0.1:4000>203.0.113.5:443", "not: forwarded"),
            ("uplink out new+forwarded tcp 10.0.1.1:4000>203.0.113.5:443", "not: forwarded"),
        ],
    },
    Scenario {
        name: "host to pod and pod to host",
        conntrack: &[
            "tcp 10.0.1.254:5000>10.0.1.1:8080 10.0.1.1:8080>10.0.1.254:5000",
            "tcp 10.0.1.1:4001>10.0.1.254:9100 10.0.1.254:9100>10.0.1.1:4001",
        ],
        records: &[
            (
                "pod out new tcp 10.0.1.254:5000>10.0.1.1:8080",
                "to-endpoint new ingress 10.0.1.254:5000>10.0.1.1:8080",
            ),
            (
                "pod in flags+reply tcp 10.0.1.1:8080>10.0.1.254:5000",
                "to-stack reply ingress 10.0.1.1:8080>10.0.1.254:5000",
            ),
            (
                "pod in new tcp 10.0.1.1:4001>10.0.1.254:9100",
                "to-stack new egress 10.0.1.1:4001>10.0.1.254:9100",
            ),
            (
                "pod out flags+reply tcp 10.0.1.254:9100>10.0.1.1:4001",
                "to-endpoint reply egress 10.0.1.254:9100>10.0.1.1:4001",
            ),
        ],
    },
    Scenario {
        name: "host to the outside and the outside to the host",
        conntrack: &["tcp 192.168.0.1:5000>203.0.113.5:443 203.0.113.5:443>192.168.0.1:5000"],
        records: &[
            (
                "uplink out new tcp 192.168.0.1:5000>203.0.113.5:443",
                "to-network new egress 192.168.0.1:5000>203.0.113.5:443",
            ),
            (
                "uplink in flags+reply tcp 203.0.113.5:443>192.168.0.1:5000",
                "from-network reply egress 203.0.113.5:443>192.168.0.1:5000",
            ),
            (
                "uplink in new tcp 203.0.113.5:6000>192.168.0.1:22",
                "from-network new ingress 203.0.113.5:6000>192.168.0.1:22",
            ),
            (
                "tunnel out new tcp 192.168.0.1:5001>10.0.2.2:80",
                "to-overlay new egress 192.168.0.1:5001>10.0.2.2:80",
            ),
            (
                "tunnel in flags+reply tcp 10.0.2.2:80>192.168.0.1:5001",
                "from-overlay reply egress 10.0.2.2:80>192.168.0.1:5001",
            ),
        ],
    },
    Scenario {
        name: "host to a ClusterIP",
        conntrack: &["tcp 192.168.0.1:5000>10.96.0.1:80 10.0.1.2:8080>192.168.0.1:5000"],
        records: &[
            (
                "pod out new tcp 192.168.0.1:5000>10.0.1.2:8080",
                "to-endpoint new ingress 192.168.0.1:5000>10.0.1.2:8080 via 10.96.0.1:80",
            ),
            (
                "pod in flags+reply tcp 10.0.1.2:8080>192.168.0.1:5000",
                "to-stack reply ingress 10.0.1.2:8080>192.168.0.1:5000 via 10.96.0.1:80",
            ),
        ],
    },
    Scenario {
        name: "the outside to a pod",
        conntrack: &["tcp 203.0.113.5:6000>10.0.1.1:80 10.0.1.1:80>203.0.113.5:6000"],
        records: &[
            ("uplink in new+local tcp 203.0.113.5:6000>10.0.1.1:80", "not: forwarded"),
            (
                "pod out new tcp 203.0.113.5:6000>10.0.1.1:80",
                "to-endpoint new ingress 203.0.113.5:6000>10.0.1.1:80",
            ),
            (
                "pod in flags+reply tcp 10.0.1.1:80>203.0.113.5:6000",
                "to-stack reply ingress 10.0.1.1:80>203.0.113.5:6000",
            ),
            ("uplink out flags+reply+forwarded tcp 10.0.1.1:80>203.0.113.5:6000", "not: forwarded"),
        ],
    },
    Scenario {
        name: "NodePort to a local backend, and to one on another node",
        conntrack: &[
            "tcp 203.0.113.5:6000>192.168.0.1:30080 10.0.1.2:8080>10.0.1.254:7000",
            "tcp 203.0.113.5:6001>192.168.0.1:30080 10.0.2.2:8080>192.168.0.1:7001",
        ],
        records: &[
            ("uplink in new tcp 203.0.113.5:6000>192.168.0.1:30080", "not: translated local"),
            (
                "pod out new tcp 10.0.1.254:7000>10.0.1.2:8080",
                "to-endpoint new ingress 203.0.113.5:6000>10.0.1.2:8080 via 192.168.0.1:30080 as 10.0.1.254",
            ),
            (
                "pod in flags+reply tcp 10.0.1.2:8080>10.0.1.254:7000",
                "to-stack reply ingress 10.0.1.2:8080>203.0.113.5:6000 via 192.168.0.1:30080",
            ),
            ("uplink out flags+reply+forwarded tcp 192.168.0.1:30080>203.0.113.5:6000", "not: masqueraded"),
            ("uplink in new tcp 203.0.113.5:6001>192.168.0.1:30080", "not: forwarded"),
            ("tunnel out new+forwarded tcp 192.168.0.1:7001>10.0.2.2:8080", "not: forwarded"),
            ("tunnel in flags+reply tcp 10.0.2.2:8080>192.168.0.1:7001", "not: forwarded"),
        ],
    },
    Scenario {
        name: "ping, masqueraded under another identifier, and errors",
        conntrack: &["icmp 10.0.1.1:7>203.0.113.5:7 203.0.113.5:9>192.168.0.1:9"],
        records: &[
            ("pod in new icmp 10.0.1.1:7>203.0.113.5:7", "to-stack new egress 10.0.1.1>203.0.113.5"),
            ("uplink out new+forwarded icmp 192.168.0.1:9>203.0.113.5:9", "not: masqueraded"),
            ("uplink in flags+reply icmp 203.0.113.5:9>192.168.0.1:9", "not: masqueraded"),
            (
                "pod out flags+reply icmp 203.0.113.5:7>10.0.1.1:7",
                "to-endpoint reply egress 203.0.113.5>10.0.1.1",
            ),
            (
                "pod out new+related error 10.0.1.254>10.0.1.1",
                "to-endpoint related ingress 10.0.1.254>10.0.1.1",
            ),
            (
                "pod in new+related+reply error 10.0.1.1>203.0.113.5",
                "to-stack related egress 10.0.1.1>203.0.113.5",
            ),
        ],
    },
    Scenario {
        name: "DNS through a ClusterIP",
        conntrack: &["udp 10.0.1.1:4053>10.96.0.10:53 10.0.1.5:53>10.0.1.1:4053"],
        records: &[
            ("pod in new udp 10.0.1.1:4053>10.96.0.10:53", "not: translated local"),
            (
                "pod out new udp 10.0.1.1:4053>10.0.1.5:53",
                "to-endpoint new ingress 10.0.1.1:4053>10.0.1.5:53 via 10.96.0.10:53",
            ),
            ("pod in new+reply udp 10.0.1.5:53>10.0.1.1:4053", "not: local delivery"),
            (
                "pod out new+reply udp 10.96.0.10:53>10.0.1.1:4053",
                "to-endpoint reply egress 10.0.1.5:53>10.0.1.1:4053 via 10.96.0.10:53",
            ),
        ],
    },
    Scenario {
        name: "met in the middle, conntrack knows the opener",
        conntrack: &["tcp 10.0.1.1:40000>10.0.2.2:50000 10.0.2.2:50000>10.0.1.1:40000"],
        records: &[
            (
                "pod out new+guess tcp 10.0.2.2:50000>10.0.1.1:40000",
                "to-endpoint reply egress 10.0.2.2:50000>10.0.1.1:40000",
            ),
            (
                "pod in flags+guess+reply tcp 10.0.1.1:40000>10.0.2.2:50000",
                "to-stack established egress 10.0.1.1:40000>10.0.2.2:50000",
            ),
        ],
    },
    Scenario {
        name: "met in the middle, conntrack doesn't know it",
        conntrack: &[],
        records: &[
            (
                "pod out new+guess tcp 10.0.2.2:50000>10.0.1.1:40000",
                "to-endpoint established ingress 10.0.2.2:50000>10.0.1.1:40000 guessed",
            ),
            (
                "pod in flags+guess+reply tcp 10.0.1.1:40000>10.0.2.2:50000",
                "to-stack reply ingress 10.0.1.1:40000>10.0.2.2:50000 guessed",
            ),
        ],
    },
    Scenario {
        name: "conntrack picked up an old connection the wrong way round: the kernel side saw the SYN",
        conntrack: &["tcp 10.0.2.2:80>10.0.1.1:4000 10.0.1.1:4000>10.0.2.2:80"],
        records: &[(
            "pod in new tcp 10.0.1.1:4000>10.0.2.2:80",
            "to-stack new egress 10.0.1.1:4000>10.0.2.2:80",
        )],
    },
    Scenario {
        name: "drops",
        conntrack: &["tcp 10.0.1.1:4000>10.96.0.1:80 10.0.2.2:8080>10.0.1.1:4000"],
        records: &[
            (
                "drop tcp 10.0.1.1:4000>10.96.0.1:80",
                "drop egress 10.0.1.1:4000>10.0.2.2:8080 via 10.96.0.1:80",
            ),
            (
                "drop tcp 10.96.0.1:80>10.0.1.1:4000",
                "drop ingress 10.0.2.2:8080>10.0.1.1:4000 via 10.96.0.1:80",
            ),
            ("drop udp 203.0.113.5:1>10.0.1.1:2", "drop ingress 203.0.113.5:1>10.0.1.1:2"),
            ("drop udp 192.168.0.1:1>203.0.113.5:2", "drop egress 192.168.0.1:1>203.0.113.5:2"),
            ("drop udp 203.0.113.5:1>192.168.0.1:2", "drop ingress 203.0.113.5:1>192.168.0.1:2"),
            (
                "drop udp 203.0.113.5:1>203.0.113.6:2",
                "drop traffic-direction-unknown 203.0.113.5:1>203.0.113.6:2",
            ),
        ],
    },
];

#[test]
fn each_record_of_each_scenario() {
    let mut wrong = Vec::new();
    for family in [Family::Four, Family::Six] {
        for Scenario { name, conntrack, records } in SCENARIOS {
            let table = entries(conntrack, family);
            for (record, want) in *records {
                let got = told(record, Some(&table), family);
                if got != *want {
                    wrong.push(format!("{name}: {record}\n  want {want}\n  got  {got}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_conntrack_services_are_known_by_address_only() {
    assert_eq!(
        told("pod in new tcp 10.0.1.1:4000>10.96.0.1:80", None, Family::Four),
        "to-stack new egress 10.0.1.1:4000>10.96.0.1:80"
    );
}
