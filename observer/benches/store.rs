//! What a flow costs: put into the store, read back through a filter, encoded.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use observer::{
    endpoint::Endpoint,
    flow::{Flow, Link, LinkKind, Notes, Tristate},
    serve::{NodeInfo, encode::Encoder},
    store::{Store, StoreConfig},
};
use std::{hint::black_box, ops::ControlFlow, sync::Arc};

fn pod(name: &str) -> Arc<Endpoint> {
    let labels = (0..7).map(|n| format!("k8s:app.kubernetes.io/label-{n}=some-value")).collect();
    let endpoint = Endpoint {
        id: 12,
        identity: 4001,
        cluster: "default".into(),
        namespace: "shop".into(),
        labels,
        pod_name: name.into(),
        ..Endpoint::default()
    };
    Arc::new(endpoint)
}

fn flow() -> Flow {
    Flow {
        time_ns: 1_767_608_130_123_456_789,
        uuid_high: 0x0123_4567_89ab_cdef,
        source_ip: "10.0.1.60".parse().ok(),
        destination_ip: "10.0.1.5".parse().ok(),
        source_xlated: None,
        source_port: 44916,
        destination_port: 8080,
        protocol: 6,
        ip_version: 4,
        tcp_flags: 0x12,
        icmp_type: 0,
        icmp_code: 0,
        event_type: 4,
        sub_type: 0,
        verdict: 1,
        direction: 1,
        observation_point: 101,
        trace_reason: 1,
        is_reply: Tristate::No,
        ethernet: true,
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: pod("web-0"),
        destination: pod("api-1"),
        source_service: None,
        destination_service: None,
        link: Some(Arc::new(Link { index: 4, name: "veth12345".into(), kind: LinkKind::Pod })),
        tunnel: None,
        drop: None,
        packets: 12,
        bytes: 3400,
        first_ns: 1_767_608_130_000_000_000,
        retransmits: 0,
        resets: 0,
        notes: Notes::default(),
        frontend_ip: None,
        frontend_port: 0,
    }
}

fn store(c: &mut Criterion) {
    let sample = flow();
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(1));
    group.bench_function("push", |b| {
        let (_, mut writer) = Store::new(StoreConfig::default());
        b.iter(|| writer.push(sample.clone()));
    });
    group.bench_function("encode", |b| {
        let mut encoder = Encoder::new(&NodeInfo {
            cluster: "default".into(),
            name: "node-1".into(),
            labels: vec![],
            version: "0.1.0".into(),
        });
        let mut out = Vec::with_capacity(4096);
        b.iter(|| {
            out.clear();
            encoder.response(&mut out, black_box(7), black_box(&sample), None);
            out.len()
        });
    });
    group.finish();

    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(65_536));
    group.bench_function("65,536 flows by port", |b| {
        let (store, mut writer) = Store::new(StoreConfig { flows: 65_536, bytes: usize::MAX });
        for _ in 0..65_536 {
            writer.push(sample.clone());
        }
        b.iter(|| {
            let mut found = 0;
            store.rewind(|_, flow| {
                found += u32::from(flow.destination_port == black_box(80));
                ControlFlow::Continue(())
            });
            found
        });
    });
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
