//! `observe policy explain`.

use crate::{
    Failure,
    answers::{TextOrJson, once},
    args::{FILTERS, Globals},
    policy::{LayoutArgs, Source, SourceArgs, end, explained, port, request},
};
use clap::Args;
use observer_proto::{
    control::{ExplainPolicyRequest, PolicyEnd, policy_end::End},
    json,
};
use std::io;

pub(super) const AFTER_HELP: &str = "\
Each side is judged by itself: the source's egress and the destination's ingress. A pod may be named by how its name begins, if
all pods that are meant have the same labels and ports. What is outside of the cluster is given by address, and so is a service:
what stands behind it is judged.

Examples:
  observe policy explain --from-pod shop/web --to-pod shop/db --to-port 5432/TCP
  observe policy explain --from-ip 203.0.113.9 --to-pod shop/web --to-port 443
  observe policy explain --from-pod shop/web --to-pod shop/api --to-port 80/TCP --http 'GET /v1/items'
  observe policy explain --from-pod shop/web --to-ip 10.96.0.10 --to-port 53/UDP --dns shop.example
  observe policy explain --policies new/ --inventory pods.yaml --from host --to-pod shop/db --to-port 22";

/// `observe policy explain`.
#[derive(Args)]
pub(super) struct ExplainArgs {
    /// The source, a pod
    #[arg(long, value_name = "NS/POD", help_heading = FILTERS, conflicts_with_all = ["from_ip", "from"])]
    from_pod: Option<String>,
    /// The source, by address
    #[arg(long, value_name = "IP", help_heading = FILTERS, conflicts_with = "from")]
    from_ip: Option<String>,
    /// The source: host, remote-node, kube-apiserver or world
    #[arg(long, value_name = "ENTITY", help_heading = FILTERS)]
    from: Option<String>,
    /// The destination, a pod
    #[arg(long, value_name = "NS/POD", help_heading = FILTERS, conflicts_with_all = ["to_ip", "to"])]
    to_pod: Option<String>,
    /// The destination, by address
    #[arg(long, value_name = "IP", help_heading = FILTERS, conflicts_with = "to")]
    to_ip: Option<String>,
    /// The destination: host, remote-node, kube-apiserver or world
    #[arg(long, value_name = "ENTITY", help_heading = FILTERS)]
    to: Option<String>,
    /// The destination's port: 80/TCP (also 80), 53/UDP, or ICMP's type as 8/ICMP
    #[arg(long, value_name = "PORT", help_heading = FILTERS)]
    to_port: String,
    /// A request in the connection: 'GET /x', also with host and headers: 'GET shop/x X-Token:a'
    #[arg(long, value_name = "REQUEST", help_heading = FILTERS, conflicts_with = "dns")]
    http: Option<String>,
    /// A DNS query in the connection
    #[arg(long, value_name = "NAME", help_heading = FILTERS)]
    dns: Option<String>,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) async fn run(globals: &Globals, args: ExplainArgs) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let (protocol, number) = port(&args.to_port).map_err(|why| format!("--to-port: {why}"))?;
    let dns = args.dns.as_ref().map(|name| format!("QUERY {name}"));
    let asked = args.http.as_ref().or(dns.as_ref());
    let asked = ExplainPolicyRequest {
        source: Some(one("from", args.from_pod.as_ref(), args.from_ip.as_ref(), args.from.as_ref())?),
        destination: Some(one("to", args.to_pod.as_ref(), args.to_ip.as_ref(), args.to.as_ref())?),
        protocol: protocol.into(),
        port: number.into(),
        request: asked.map(|text| request(text)).transpose()?,
    };
    let mut source = Source::open(&args.source, &settings).await?;
    let answer = source.explain(&settings, asked.clone()).await?;
    once(&match args.layout.output {
        TextOrJson::Text => explained(&asked, &answer),
        TextOrJson::Json => json::line(&answer).map_err(io::Error::other)?,
    })
}

/// The end that one of three flags names.
fn one(
    way: &str,
    pod: Option<&String>,
    ip: Option<&String>,
    entity: Option<&String>,
) -> Result<PolicyEnd, String> {
    let named = |of: fn(String) -> End| {
        move |text: &String| PolicyEnd { end: Some(of(text.clone())), at: String::new() }
    };
    pod.map(named(End::Pod))
        .or_else(|| ip.map(named(End::Address)))
        .or_else(|| entity.map(|text| end(text)))
        .ok_or_else(|| format!("which end? name it by --{way}-pod, --{way}-ip or --{way}"))
}
