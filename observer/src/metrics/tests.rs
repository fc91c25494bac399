//! What is asked for, what is counted, and what a scraper gets of it.

mod l7;

use super::{
    config::{File, Flags, MetricsConfig},
    flows::Flows,
    http::Service,
    page::{Form, Page},
};
use crate::{
    decode::Clock,
    dynamic,
    endpoint::{Endpoint, Workload},
    enrich::{
        ipcache::IpCache,
        source::{Pod, Rank, Snapshot, Window},
    },
    flow::{DropSite, Record, Sample, Tristate},
    serve::view::NodeView,
    store::{Cursor, Store, StoreConfig, Writer},
};
use ::http::{Method, StatusCode};
use std::{collections::BTreeSet, fmt::Write as _, fs, net::IpAddr, sync::Arc};
use tokio::sync::watch;

fn config(metrics: &str) -> Result<MetricsConfig, (&'static str, String)> {
    let flags =
        Flags { server: Some("127.0.0.1:0".into()), metrics: Some(metrics.into()), ..Flags::default() };
    flags.check().map(|config| config.unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(namespace: &str, name: &str, app: &str) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        identity: 5000,
        namespace: namespace.into(),
        pod_name: name.into(),
        labels: [format!("k8s:app={app}").into()].into(),
        workloads: [Workload { kind: "Deployment".into(), name: app.into() }].into(),
        ..Endpoint::default()
    })
}

fn world() -> Arc<Endpoint> {
    let labels = ["reserved:world".into()].into();
    Arc::new(Endpoint { identity: 2, labels, ..Endpoint::default() })
}

/// A SYN of a pod to another.
fn syn() -> Sample {
    Sample {
        record: Record {
            source_ip: Some(ip("10.0.0.1")),
            destination_ip: Some(ip("10.0.0.2")),
            source_port: 40_000,
            destination_port: 80,
            protocol: 6,
            ip_version: 4,
            flags_or_type: 0x02,
            event_type: Record::TRACE_EVENT,
            verdict: 1,
            direction: 1,
            observation_point: 101,
            is_reply: Tristate::No,
            ..Record::default()
        },
        source: pod("shop", "web-0", "web"),
        destination: pod("data", "db-0", "db"),
        ..Sample::default()
    }
}

fn with(change: impl FnOnce(&mut Sample)) -> Sample {
    let mut sample = syn();
    change(&mut sample);
    sample
}

/// Flows of every kind.
fn flows() -> Vec<Sample> {
    let drop = Arc::new(DropSite {
        kernel_reason: "NETFILTER_DROP".into(),
        hubble_reason: 196,
        location: Err("unknown".into()),
    });
    vec![
        syn(),
        with(|reply| {
            (reply.record.flags_or_type, reply.record.is_reply) = (0x12, Tristate::Yes);
            reply.record.direction = 2;
        }),
        with(|last| (last.record.flags_or_type, last.record.observation_point) = (0x15, 3)),
        with(|drop_of_seven| {
            let record = &mut drop_of_seven.record;
            (record.event_type, record.verdict, record.packets) = (Record::DROP_EVENT, 2, 7);
            (record.is_reply, record.observation_point) = (Tristate::Unset, 0);
            drop_of_seven.drop = Some(Arc::clone(&drop));
        }),
        with(|out| {
            out.destination = world();
            (out.record.destination_ip, out.record.destination_port) = (Some(ip("1.1.1.1")), 53);
            (out.record.protocol, out.record.direction) = (17, 2);
        }),
        with(|ping| {
            let record = &mut ping.record;
            (record.protocol, record.flags_or_type) = (1, 0x0800);
        }),
        with(|verdict| {
            let record = &mut verdict.record;
            (record.event_type, record.verdict) = (Record::POLICY_EVENT, 4);
        }),
    ]
}

struct Bed {
    flows: Arc<Flows>,
    writer: Writer,
    cursor: Cursor,
}

impl Bed {
    fn new(metrics: &str, most_series: usize) -> Self {
        let (store, writer) = Store::new(StoreConfig::default());
        let flows = Flows::new(config(metrics).unwrap().wanted, most_series, NodeView::default());
        Self { flows: Arc::new(flows), writer, cursor: Cursor::new(store, 0) }
    }

    fn push(&mut self, samples: &[Sample]) {
        for sample in samples {
            self.writer.add(&sample.flow());
        }
        self.writer.publish();
    }

    fn count(&mut self) {
        while !self.flows.count(&mut self.cursor).1 {}
    }

    fn text(&self, form: Form) -> String {
        let mut page = Page::new(form);
        self.flows.write(&mut page);
        page.end()
    }

    /// Samples of Hubble's metrics of flows.
    fn samples(&self) -> BTreeSet<String> {
        let text = self.text(Form::Text);
        let lines = text.lines().filter(|line| line.starts_with("hubble_") && !line.contains("lost_events"));
        lines.map(|line| line.trim_start_matches("hubble_").to_owned()).collect()
    }
}

#[test]
fn each_metric_counts_what_hubbles_does() {
    let mut wrong = String::new();
    for (metric, wanted) in [
        ("drop", &["drop_total{reason=\"TTL_EXCEEDED\",protocol=\"TCP\"} 7"][..]),
        (
            "flow",
            &[
                "flows_processed_total{protocol=\"TCP\",type=\"Trace\",subtype=\"to-endpoint\",verdict=\"FORWARDED\"} 2",
                "flows_processed_total{protocol=\"TCP\",type=\"Trace\",subtype=\"to-stack\",verdict=\"FORWARDED\"} 1",
                "flows_processed_total{protocol=\"TCP\",type=\"Drop\",subtype=\"\",verdict=\"DROPPED\"} 1",
                "flows_processed_total{protocol=\"UDP\",type=\"Trace\",subtype=\"to-endpoint\",verdict=\"FORWARDED\"} 1",
                "flows_processed_total{protocol=\"ICMPv4\",type=\"Trace\",subtype=\"to-endpoint\",verdict=\"FORWARDED\"} 1",
                "flows_processed_total{protocol=\"TCP\",type=\"PolicyVerdict\",subtype=\"\",verdict=\"AUDIT\"} 1",
            ],
        ),
        (
            "flows-to-world:port",
            &["flows_to_world_total{protocol=\"UDP\",verdict=\"FORWARDED\",port=\"53\"} 1"],
        ),
        ("flows-to-world:syn-only", &[]),
        ("icmp", &["icmp_total{family=\"IPv4\",type=\"EchoRequest\"} 1"]),
        ("policy", &["policy_verdicts_total{direction=\"ingress\",match=\"none\",action=\"audit\"} 1"]),
        (
            "port-distribution",
            &[
                "port_distribution_total{protocol=\"TCP\",port=\"80\"} 2",
                "port_distribution_total{protocol=\"UDP\",port=\"53\"} 1",
                "port_distribution_total{protocol=\"ICMPv4\",port=\"0\"} 1",
            ],
        ),
        (
            "tcp",
            &[
                "tcp_flags_total{flag=\"SYN\",family=\"IPv4\"} 1",
                "tcp_flags_total{flag=\"SYN-ACK\",family=\"IPv4\"} 1",
                "tcp_flags_total{flag=\"FIN\",family=\"IPv4\"} 1",
                "tcp_flags_total{flag=\"RST\",family=\"IPv4\"} 1",
            ],
        ),
        (
            "icmp:sourceContext=workload|reserved-identity;destinationContext=app",
            &["icmp_total{family=\"IPv4\",type=\"EchoRequest\",source=\"shop/web\",destination=\"db\"} 1"],
        ),
        (
            "flows-to-world:sourceContext=pod;destinationContext=dns|reserved-identity;destinationIngressContext=ip",
            &[
                "flows_to_world_total{protocol=\"UDP\",verdict=\"FORWARDED\",source=\"shop/web-0\",destination=\"reserved:world\"} 1",
            ],
        ),
        (
            "icmp:labelsContext=destination_ip,source_pod,source_workload_kind,traffic_direction,destination_app",
            &[
                "icmp_total{family=\"IPv4\",type=\"EchoRequest\",source_pod=\"web-0\",source_workload_kind=\"Deployment\",\
               destination_ip=\"10.0.0.2\",destination_app=\"db\",traffic_direction=\"ingress\"} 1",
            ],
        ),
    ] {
        let mut bed = Bed::new(metric, 1000);
        bed.push(&flows());
        bed.count();
        let wanted: BTreeSet<String> = wanted.iter().map(|&line| line.to_owned()).collect();
        let found = bed.samples();
        if found != wanted {
            let _ = writeln!(wrong, "{metric}:\nfound  {found:#?}\nwanted {wanted:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_known_series_is_counted_without_an_allocation() {
    let all = "drop flow:sourceContext=workload|ip tcp flows-to-world port-distribution icmp:labelsContext=source_ip,source_pod policy";
    let mut bed = Bed::new(all, 1000);
    bed.push(&flows());
    bed.count();
    bed.push(&flows());
    let counted = allocation_counter::measure(|| bed.count());
    assert_eq!(counted.count_total, 0);
}

#[test]
fn series_have_a_limit_and_the_rest_is_summed() {
    let mut bed = Bed::new("flow:destinationContext=ip tcp:destinationContext=ip", 100);
    let samples: Vec<Sample> = (0..=255)
        .map(|last| with(|sample| sample.record.destination_ip = Some(ip(&format!("10.9.0.{last}")))))
        .collect();
    for _ in 0..2 {
        bed.push(&samples);
        bed.count();
    }
    let text = bed.text(Form::Text);
    let values = |name: &str| -> Vec<u64> {
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.contains("\"other\""));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    let (flows, tcp) = (values("hubble_flows_processed_total"), values("hubble_tcp_flags_total"));
    assert_eq!(flows.len() + tcp.len(), 100);
    assert!(flows.iter().chain(&tcp).all(|count| *count == 2), "{text}");
    let rest = |kept: &Vec<u64>| 2 * (256 - kept.len());
    let other = "protocol=\"other\",type=\"other\",subtype=\"other\",verdict=\"other\",destination=\"other\"";
    assert!(text.contains(&format!("hubble_flows_processed_total{{{other}}} {}\n", rest(&flows))), "{text}");
    assert!(text.contains("observer_metrics_series 100\n"));
    let folded = rest(&flows) + rest(&tcp);
    assert!(text.contains(&format!("observer_metrics_flows_folded_total {folded}\n")), "{text}");
}

#[test]
fn the_series_of_a_pod_go_with_it() {
    let names = IpCache::new("n1");
    let known =
        |name: &str| Pod { uid: name.into(), namespace: "shop".into(), name: name.into(), ..Pod::default() };
    let replace = |pods: Vec<Pod>| {
        let now = Clock::kernel_now();
        let snapshot = Snapshot { pods, ..Snapshot::default() };
        names.replace(Rank::Inventory, snapshot, Window { since: now, at: now });
    };
    let mut bed =
        Bed::new("tcp:sourceContext=pod flow:sourceContext=workload icmp:labelsContext=source_ip", 100);
    let samples = ["web-0", "web-1"].map(|name| {
        [6, 1].map(|protocol| {
            with(|sample| {
                sample.source = pod("shop", name, "web");
                sample.record.protocol = protocol;
                sample.record.source_ip = Some(ip(if name == "web-0" { "10.0.0.1" } else { "10.0.0.9" }));
            })
        })
    });
    bed.push(&samples.concat());
    bed.count();
    replace(vec![known("web-0"), known("web-1")]);
    let tells = |bed: &Bed| {
        ["web-0", "web-1", "10.0.0.1", "10.0.0.9", "shop/web\""]
            .map(|text| bed.samples().iter().any(|sample| sample.contains(text)))
    };
    for _ in 0..3 {
        bed.flows.forget_pods(&names);
    }
    assert_eq!(tells(&bed), [true; 5]);
    replace(vec![known("web-1")]);
    bed.flows.forget_pods(&names);
    assert_eq!(tells(&bed), [true; 5], "not at the first look");
    bed.flows.forget_pods(&names);
    assert_eq!(tells(&bed), [false, true, false, true, true]);
    assert!(bed.text(Form::Text).contains("observer_metrics_series 4\n"), "{}", bed.text(Form::Text));
}

#[test]
fn what_is_wrong_is_told_with_what_would_be_right() {
    for (metrics, wanted) in [
        ("drops", "no metric is named `drops`; there are dns, drop, flow"),
        ("drop:port", "`port` is no option of drop"),
        ("flow:sourceContext=pods", "sourceContext: unknown context `pods`; there are identity, namespace"),
        ("flow:labelsContext=source", "labelsContext: unknown label `source`; there are source_ip"),
        ("tcp tcp", "tcp is there twice"),
    ] {
        let (flag, error) = config(metrics).unwrap_err();
        assert!(flag == "--metrics" && error.starts_with(wanted), "{metrics}: {flag}: {error}");
    }
    let wrong = |flags: Flags| flags.check().unwrap_err();
    let server = || Some("127.0.0.1:0".to_owned());
    let alone = Flags { metrics: Some("drop".into()), ..Flags::default() };
    assert_eq!(wrong(alone).0, "--metrics");
    for server in ["9965", "localhost:9965", "127.0.0.1"] {
        assert_eq!(wrong(Flags { server: Some(server.into()), ..Flags::default() }).0, "--metrics-server");
    }
    let both =
        Flags { server: server(), metrics: Some("drop".into()), file: Some("f".into()), ..Flags::default() };
    assert_eq!(wrong(both).0, "--dynamic-metrics-config-path");
    let none = Flags { server: server(), most_series: Some(0), ..Flags::default() };
    assert_eq!(wrong(none).0, "--metrics-max-series");
    let all = Flags { server: Some(":9965".into()), ..Flags::default() }.check().unwrap().unwrap();
    assert_eq!(all.address.to_string(), "[::]:9965");
}

#[test]
fn ciliums_file_says_the_same_as_the_flag() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |text: &str| {
        fs::write(file.path(), text).unwrap();
        let read = dynamic::read(file.path(), File::check);
        read.map_err(|error| error.strip_prefix(&format!("{}:", file.path().display())).unwrap().to_owned())
    };
    let text = "metrics:\n- name: drop\n  contextOptions:\n  - name: sourceContext\n    values: [pod, ip]\n  \
                - name: labelsContext\n    values: [source_ip]\n  includeFilters: []\n- name: flows-to-world\n  \
                contextOptions:\n  - name: any-drop\n";
    let flag = "drop:sourceContext=pod|ip;labelsContext=source_ip flows-to-world:any-drop";
    assert_eq!(read(text).unwrap(), config(flag).unwrap().wanted);
    assert_eq!(read("").unwrap(), []);
    for (text, wanted) in [
        ("metrics:\n- name: drops\n", "2:9: metrics[0]: no metric is named `drops`"),
        ("metrics:\n- name: drop\n- name: drop\n", "3:9: metrics[1].name: drop is there twice"),
        (
            "metrics:\n- name: drop\n  contextOptions:\n  - name: sourceContext\n    values: [pods]\n",
            "2:9: metrics[0]: sourceContext: unknown context `pods`",
        ),
        (
            "metrics:\n- name: drop\n  includeFilters:\n  - source_ip: [x]\n",
            "4:5: metrics[0].includeFilters[0]: invalid IP address \"x\"",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(wanted), "{text}\n{error}");
    }
}

#[test]
fn a_filter_says_which_flows_count_and_a_change_keeps_what_stays() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |text: &str| {
        fs::write(file.path(), text).unwrap();
        dynamic::read(file.path(), File::check).unwrap()
    };
    let filtered = "metrics:\n- name: port-distribution\n  includeFilters:\n  - protocol: [udp]\n";
    let mut bed = Bed::new("icmp", 100);
    bed.flows.become_these(read(filtered));
    bed.push(&flows());
    bed.count();
    let udp = "port_distribution_total{protocol=\"UDP\",port=\"53\"} ";
    assert_eq!(bed.samples(), BTreeSet::from([format!("{udp}1")]));
    bed.flows.become_these(read(&format!("{filtered}- name: icmp\n")));
    bed.push(&flows());
    bed.count();
    let icmp = "icmp_total{family=\"IPv4\",type=\"EchoRequest\"} 1".to_owned();
    assert_eq!(bed.samples(), BTreeSet::from([format!("{udp}2"), icmp]));
    bed.flows.become_these(Vec::new());
    assert!(bed.text(Form::Text).contains("observer_metrics_series 0\n"));
}

#[test]
fn both_forms_and_the_other_paths_are_answered() {
    let mut bed = Bed::new("drop:sourceContext=app", 100);
    bed.push(&[with(|sample| {
        sample.record.verdict = 2;
        sample.source = pod("shop", "x", "quo\"te\\and\nline");
    })]);
    bed.count();
    let flows = Arc::clone(&bed.flows);
    let (stop, ending) = watch::channel(false);
    let service = Service::new(Arc::new(move |page: &mut Page| flows.write(page)), ending);
    let get = |path: &str, accept: Option<&str>| {
        let response = service.answer(&Method::GET, path, accept);
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let status = response.status();
        let body = runtime.block_on(http_body_util::BodyExt::collect(response.into_body())).unwrap();
        (status, kind, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    };
    let (status, kind, text) = get("/metrics", None);
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    let sample = "hubble_drop_total{reason=\"DROP_REASON_UNKNOWN\",protocol=\"TCP\",source=\"quo\\\"te\\\\and\\nline\"} 1\n";
    assert!(text.contains(&format!("# TYPE hubble_drop_total counter\n{sample}")), "{text}");
    assert!(!text.contains("# EOF"));
    let accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5";
    let (_, kind, text) = get("/metrics", Some(accept));
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(
        text.contains(&format!("# TYPE hubble_drop counter\n{sample}")) && text.ends_with("# EOF\n"),
        "{text}"
    );
    assert!(text.contains("hubble_metrics_http_handler_requests_total{code=\"200\"} 1\n"), "{text}");
    assert_eq!(get("/healthz", None).0, StatusCode::OK);
    assert_eq!(get("/readyz", None).0, StatusCode::OK);
    assert_eq!(get("/", None).0, StatusCode::NOT_FOUND);
    assert_eq!(service.answer(&Method::POST, "/metrics", None).status(), StatusCode::METHOD_NOT_ALLOWED);
    stop.send_replace(true);
    assert_eq!(
        (get("/readyz", None).0, get("/healthz", None).0),
        (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK)
    );
}
