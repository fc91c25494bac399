//! HTTP and DNS.

use super::*;
use crate::layer7::Layer7;
use observer_proto::flow::{self as wire, Dns, Http, L7FlowType, layer7::Record as Kind};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A flow of a client to a server, or back.
fn said(kind: Kind, took_ms: Option<u64>) -> Sample {
    let is_response = took_ms.is_some();
    let mut sample = with(|flow| {
        let record = &mut flow.record;
        (record.event_type, record.flags_or_type, record.observation_point) = (Record::L7_EVENT, 0, 0);
        record.time_ns = 1_700_000_000_250_000_000;
        if matches!(kind, Kind::Dns(_)) {
            (record.protocol, record.destination_port) = (17, 53);
        }
    });
    if is_response {
        std::mem::swap(&mut sample.source, &mut sample.destination);
        let record = &mut sample.record;
        std::mem::swap(&mut record.source_ip, &mut record.destination_ip);
        std::mem::swap(&mut record.source_port, &mut record.destination_port);
        (record.is_reply, record.direction) = (Tristate::Yes, 2);
    }
    let kind_of = if is_response { L7FlowType::Response } else { L7FlowType::Request };
    let latency_ns = took_ms.unwrap_or(0) * 1_000_000;
    let message = wire::Layer7 { r#type: kind_of.into(), latency_ns, record: Some(kind) };
    sample.l7 = Some(Arc::new(Layer7::new(message, TRACE)));
    sample
}

fn http(code: u32) -> Kind {
    Kind::Http(Http {
        code,
        method: "GET".into(),
        url: "http://db/".into(),
        protocol: "HTTP/1.1".into(),
        headers: Vec::new(),
    })
}

fn dns(kind: &str, rcode: u32, ips: usize, rrtypes: &[&str]) -> Kind {
    Kind::Dns(Dns {
        query: "db.data.".into(),
        ips: vec!["10.0.0.2".into(); ips],
        rcode,
        qtypes: vec![kind.into()],
        rrtypes: rrtypes.iter().map(ToString::to_string).collect(),
        ..Dns::default()
    })
}

fn flows() -> Vec<Sample> {
    let denied = |mut sample: Sample| {
        sample.record.verdict = 2;
        sample
    };
    vec![
        said(http(0), None),
        said(http(503), Some(30)),
        said(dns("A", 0, 0, &[]), None),
        said(dns("A", 0, 2, &["A", "A", "CNAME"]), Some(1)),
        said(dns("A", 3, 0, &[]), Some(1)),
        said(dns("AAAA", 0, 0, &[]), None),
        denied(said(dns("A", 0, 0, &[]), None)),
    ]
}

#[test]
fn each_counts_what_hubbles_does() {
    let mut wrong = String::new();
    for (metric, wanted) in [
        (
            "dns:ignoreAAAA",
            &[
                "dns_queries_total{rcode=\"\",qtypes=\"A\",ips_returned=\"0\"} 1",
                "dns_queries_total{rcode=\"Policy denied\",qtypes=\"A\",ips_returned=\"0\"} 1",
                "dns_responses_total{rcode=\"No Error\",qtypes=\"A\",ips_returned=\"2\"} 1",
                "dns_responses_total{rcode=\"Non-Existent Domain\",qtypes=\"A\",ips_returned=\"0\"} 1",
                "dns_response_types_total{type=\"A\",qtypes=\"A\"} 2",
                "dns_response_types_total{type=\"CNAME\",qtypes=\"A\"} 1",
            ][..],
        ),
        (
            "dns:query;sourceContext=app",
            &[
                "dns_queries_total{rcode=\"\",qtypes=\"A\",ips_returned=\"0\",query=\"db.data.\",source=\"web\"} 1",
                "dns_queries_total{rcode=\"\",qtypes=\"AAAA\",ips_returned=\"0\",query=\"db.data.\",source=\"web\"} 1",
                "dns_queries_total{rcode=\"Policy denied\",qtypes=\"A\",ips_returned=\"0\",query=\"db.data.\",source=\"web\"} 1",
                "dns_responses_total{rcode=\"No Error\",qtypes=\"A\",ips_returned=\"2\",query=\"db.data.\",source=\"db\"} 1",
                "dns_responses_total{rcode=\"Non-Existent Domain\",qtypes=\"A\",ips_returned=\"0\",query=\"db.data.\",source=\"db\"} 1",
                "dns_response_types_total{type=\"A\",qtypes=\"A\",query=\"db.data.\",source=\"db\"} 2",
                "dns_response_types_total{type=\"CNAME\",qtypes=\"A\",query=\"db.data.\",source=\"db\"} 1",
            ],
        ),
        (
            "flow",
            &[
                "flows_processed_total{protocol=\"HTTP\",type=\"L7\",subtype=\"HTTP\",verdict=\"FORWARDED\"} 2",
                "flows_processed_total{protocol=\"DNS\",type=\"L7\",subtype=\"DNS\",verdict=\"FORWARDED\"} 4",
                "flows_processed_total{protocol=\"DNS\",type=\"L7\",subtype=\"DNS\",verdict=\"DROPPED\"} 1",
            ],
        ),
        // What is said is of no packet, and of no policy's verdict.
        ("tcp policy", &[]),
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

/// Those of HTTP, and nothing else.
fn page(metric: &str, form: Form) -> String {
    let mut bed = Bed::new(metric, 1000);
    bed.push(&flows());
    bed.count();
    let text = bed.text(form);
    let lines = text.lines().filter(|line| line.contains("hubble_http"));
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// The buckets of 30 ms.
fn buckets(labels: &str, bounds: [&str; 12], example: &str) -> String {
    let line = |(place, bound): (usize, &str)| {
        let (count, example) = (u64::from(place >= 3), if place == 3 { example } else { "" });
        format!("hubble_http_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}{example}\n")
    };
    bounds.into_iter().enumerate().map(line).collect()
}

const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];

#[test]
fn requests_have_their_time_in_hubbles_buckets() {
    let labels = "method=\"GET\",reporter=\"client\",source=\"db\"";
    let wanted = format!(
        "# HELP hubble_http_requests_total Requests of HTTP.\n\
         # TYPE hubble_http_requests_total counter\n\
         hubble_http_requests_total{{method=\"GET\",protocol=\"HTTP/1.1\",reporter=\"server\",source=\"web\"}} 1\n\
         # HELP hubble_http_responses_total Responses of HTTP.\n\
         # TYPE hubble_http_responses_total counter\n\
         hubble_http_responses_total{{method=\"GET\",protocol=\"HTTP/1.1\",status=\"503\",reporter=\"client\",source=\"db\"}} 1\n\
         # HELP hubble_http_request_duration_seconds Time between requests of HTTP and their responses.\n\
         # TYPE hubble_http_request_duration_seconds histogram\n\
         {}hubble_http_request_duration_seconds_sum{{{labels}}} 0.03\n\
         hubble_http_request_duration_seconds_count{{{labels}}} 1\n",
        buckets(labels, BOUNDS, "")
    );
    // The older form has no examples.
    assert_eq!(page("http:sourceContext=app;exemplars=true", Form::Text), wanted);
}

#[test]
fn the_newer_form_tells_who_asked_and_an_example() {
    let ends = "source_pod=\"web-0\",destination_app=\"db\"";
    let labels = format!("method=\"GET\",reporter=\"client\",{ends},source=\"shop/web\"");
    let mut bounds = BOUNDS;
    (bounds[7], bounds[9], bounds[10]) = ("1.0", "5.0", "10.0");
    let example = |value| format!(" # {{traceID=\"{TRACE}\"}} {value} 1700000000.250");
    let wanted = format!(
        "# HELP hubble_http_requests Requests of HTTP that were answered.\n\
         # TYPE hubble_http_requests counter\n\
         hubble_http_requests_total{{method=\"GET\",protocol=\"HTTP/1.1\",status=\"503\",reporter=\"client\",{ends},source=\"shop/web\"}} 1{}\n\
         # HELP hubble_http_request_duration_seconds Time between requests of HTTP and their responses.\n\
         # TYPE hubble_http_request_duration_seconds histogram\n\
         {}hubble_http_request_duration_seconds_sum{{{labels}}} 0.03\n\
         hubble_http_request_duration_seconds_count{{{labels}}} 1\n",
        example("1"),
        buckets(&labels, bounds, &example("0.03"))
    );
    let asked = "httpV2:exemplars=true;labelsContext=source_pod,destination_app;sourceContext=workload";
    assert_eq!(page(asked, Form::OpenMetrics), wanted);
    assert!(!page(&asked.replace("true", "false"), Form::OpenMetrics).contains(TRACE));
}

#[test]
fn a_histogram_takes_the_room_of_its_samples() {
    let mut bed = Bed::new("httpV2", 14);
    bed.push(&flows());
    bed.count();
    let text = bed.text(Form::Text);
    assert!(text.contains("observer_metrics_series 1\n"), "{text}");
    let other = "hubble_http_request_duration_seconds_count{method=\"other\",reporter=\"other\"} 1\n";
    assert!(text.contains(other), "{text}");
}

#[test]
fn a_known_series_is_counted_without_an_allocation() {
    let mut bed = Bed::new("dns:query httpV2:exemplars=true;sourceContext=dns|workload", 1000);
    bed.push(&flows());
    bed.count();
    bed.push(&flows());
    let counted = allocation_counter::measure(|| bed.count());
    assert_eq!(counted.count_total, 0);
}

#[test]
fn what_is_wrong_with_their_options_is_told() {
    for (metrics, wanted) in [
        ("dns:port", "`port` is no option of dns"),
        ("http:exemplars", "exemplars: write `exemplars=true` or `exemplars=false`"),
        ("http httpV2", "http and httpV2 have series of one name: leave out the one or the other"),
        ("kafka", "not built in: kafka, as flows don't tell of it yet; there are dns, drop"),
    ] {
        let (flag, error) = config(metrics).unwrap_err();
        assert!(flag == "--metrics" && error.starts_with(wanted), "{metrics}: {flag}: {error}");
    }
}
