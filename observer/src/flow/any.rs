//! Any flow at all, for property tests.

use super::{DropSite, Link, LinkKind, Notes, Record, Sample, Translated, Tristate, Tunnel, TunnelKind};
use crate::{
    endpoint::{Endpoint, Service, Workload},
    layer7::{Layer7, Tls},
    policy_verdict::{PolicyName, PolicyTold, PolicyVerdict},
};
use observer_proto::flow as proto;
use proptest::prelude::*;
use std::{net::IpAddr, sync::Arc};

fn end(name: &str, labels: usize) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        id: 7,
        identity: 4001,
        cluster: "default".into(),
        namespace: "shop".into(),
        labels: (0..labels).map(|n| format!("k8s:label-{n}=value").into()).collect(),
        pod_name: name.into(),
        workloads: vec![Workload { kind: "Deployment".into(), name: name.into() }; labels % 3].into(),
        ..Endpoint::default()
    })
}

fn any_tunnel() -> impl Strategy<Value = Option<Arc<Tunnel>>> {
    const KINDS: [TunnelKind; 5] =
        [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre, TunnelKind::IpInIp, TunnelKind::Forgotten];
    let end = || (any::<IpAddr>(), any::<u16>());
    let tunnel =
        (prop::sample::select(&KINDS[..]), any::<u8>(), prop::option::of((end(), end())), any::<u32>())
            .prop_map(|(kind, protocol, ends, vni)| Arc::new(Tunnel { kind, protocol, ends, vni }));
    prop::option::of(tunnel)
}

fn any_policy() -> impl Strategy<Value = Option<Arc<PolicyVerdict>>> {
    const KINDS: [&str; 2] = ["NetworkPolicy", "CiliumClusterwideNetworkPolicy"];
    let text = || "[a-zé<\"\n]{0,20}".prop_map(Box::<str>::from);
    let name = (prop::sample::select(&KINDS[..]), text(), text())
        .prop_map(|(kind, namespace, name)| PolicyName { kind, namespace, name });
    let names = prop::collection::vec(name, 0..3);
    let told =
        (any::<bool>(), any::<bool>(), 0..7u8, names, prop::collection::vec(text(), 0..3), any::<u64>())
            .prop_map(|(is_egress, denies, match_type, policies, log, revision)| {
                let told = PolicyTold { is_egress, denies, match_type, policies, log, revision };
                Arc::new(PolicyVerdict::new(told))
            });
    prop::option::of(told)
}

fn any_names() -> impl Strategy<Value = Vec<Box<str>>> {
    prop::collection::vec("[a-zé<\"\n]{0,20}".prop_map(Box::<str>::from), 0..3)
}

fn any_l7() -> impl Strategy<Value = Option<Arc<Layer7>>> {
    use proto::layer7::Record;
    let text = || "[a-zé<\"\n]{0,20}";
    let texts = || prop::collection::vec(text(), 0..3);
    let field = || (text(), text()).prop_map(|(key, value)| proto::HttpHeader { key, value });
    let http = (any::<u32>(), text(), "[a-z/:?é]{0,200}", text(), prop::collection::vec(field(), 0..4))
        .prop_map(|(code, method, url, protocol, headers)| {
            Record::Http(proto::Http { code, method, url, protocol, headers })
        });
    let dns = (text(), texts(), any::<u32>(), texts(), 0..12_u32, texts(), texts()).prop_map(
        |(query, ips, ttl, cnames, rcode, qtypes, rrtypes)| {
            let observation_source = "observer".to_owned();
            Record::Dns(proto::Dns { query, ips, ttl, cnames, observation_source, rcode, qtypes, rrtypes })
        },
    );
    let l7 = (prop_oneof![http, dns], 0..4_i32, any::<u64>(), text()).prop_map(
        |(record, r#type, latency_ns, trace_id)| {
            Arc::new(Layer7::new(proto::Layer7 { r#type, latency_ns, record: Some(record) }, &trace_id))
        },
    );
    let version = prop::option::of(prop::sample::select(vec!["SSL 3.0", "TLS 1.3"]));
    let alert = prop::option::of("[a-z_]{1,20}");
    let tls = ("[!-~]{0,300}", version, alert, any::<bool>(), any::<u64>()).prop_map(
        |(server_name, version, alert, is_answer, latency_ns)| {
            Arc::new(Layer7::tls_began(Tls { server_name, version, alert }, is_answer, latency_ns))
        },
    );
    prop::option::of(prop_oneof![l7, tls])
}

/// A flow of which each part may be there or not, and be any.
pub(crate) fn any_flow() -> impl Strategy<Value = Sample> {
    let ip = || prop::option::of(any::<IpAddr>());
    (
        (any::<i64>(), ip(), ip(), ip(), any::<u16>(), any::<u16>(), any::<u8>()),
        (prop::sample::select(vec![0u8, 4, 6]), any::<u16>(), prop::sample::select(vec![1u8, 4, 5, 129])),
        (0..8u8, 0..3u8, any::<u8>(), 0..9u8, 0..3u8, any::<[u8; 6]>(), any::<[u8; 6]>()),
        (
            0..40usize,
            "[a-zé<>&\"\\\\\u{2028}\n]{0,200}",
            any::<bool>(),
            any::<bool>(),
            prop::option::of(prop_oneof![Just(0), 130..205u16, any::<u16>()]),
        ),
        (any::<u64>(), any::<u64>(), any::<i64>(), any::<u16>(), 0..64u16, ip(), any_tunnel(), any_policy()),
        any_l7(),
        (any_names(), any_names()),
    )
        .prop_map(|(a, b, c, d, e, l7, names)| Sample {
            record: Record {
                time_ns: a.0,
                source_ip: a.1,
                destination_ip: a.2,
                source_port: a.4,
                destination_port: a.5,
                protocol: a.6,
                ip_version: b.0,
                flags_or_type: b.1,
                event_type: b.2,
                verdict: c.0,
                direction: c.1,
                observation_point: c.2,
                trace_reason: c.3,
                is_reply: [Tristate::Unset, Tristate::No, Tristate::Yes][usize::from(c.4)],
                source_mac: c.5,
                destination_mac: c.6,
                packets: e.0,
                bytes: e.1,
                first_ns: e.2,
                retransmits: e.3,
                resets: e.3,
                notes: Notes(e.4),
            },
            translated: Some(Arc::new(Translated {
                source_names: Some(names.0.into()),
                destination_names: Some(names.1.into()),
                source: a.3,
                frontend: e.5.map(|ip| (ip, a.4)),
            })),
            source: end(&d.1, d.0),
            destination_service: d
                .2
                .then(|| Arc::new(Service { namespace: String::new(), name: d.1.clone() })),
            link: d.3.then(|| Arc::new(Link { index: 0, name: d.1.clone(), kind: LinkKind::Other })),
            drop: d.4.map(|hubble_reason| {
                Arc::new(DropSite {
                    kernel_reason: d.1.clone(),
                    hubble_reason,
                    location: if d.3 { Ok(d.1.clone()) } else { Err("no symbols".into()) },
                })
            }),
            tunnel: e.6,
            policy: e.7,
            l7,
            ..Sample::default()
        })
}
