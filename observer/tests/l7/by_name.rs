//! What policies allow by name follows the answers of the lab's DNS server.

use super::{NAME, once, pod, said};
use crate::support::{Daemon, PATIENCE, can_run, scenario};
use observer_lab::{Lab, Outcome, unique_prefix};
use observer_proto::{
    control::policy::Mode,
    flow::{Flow, L7FlowType, Verdict, layer7::Record},
};
use std::time::{Duration, Instant};

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-name, namespace: web}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
    - toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}]
    - toFQDNs: [{matchPattern: '*.partner.example'}]
      toPorts: [{ports: [{port: '8080', protocol: TCP}]}]
";

/// Verdicts on calls of the partner by IPv4, in their order.
fn verdicts(flows: &[Flow]) -> Vec<(Verdict, usize)> {
    let is_it = |flow: &&Flow| {
        flow.event_type.is_some_and(|event| event.r#type == 5)
            && flow.ip.as_ref().is_some_and(|ip| ip.destination == "203.0.113.10")
            && pod(flow.source.as_ref()) == "web/client-a"
    };
    let told = flows.iter().filter(is_it);
    told.map(|flow| (flow.verdict(), flow.egress_allowed_by.len())).collect()
}

fn until(daemon: &Daemon, count: usize) -> Vec<(Verdict, usize)> {
    let flows = daemon.flows_until(|flows| {
        let told = verdicts(flows).len();
        (told < count).then(|| format!("{told} of {count} verdicts"))
    });
    verdicts(&flows)
}

#[test]
fn policies_allow_by_name_what_dns_told() {
    if !can_run("policies_allow_by_name_what_dns_told") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("by-name.yaml"), POLICY).unwrap();
    let mut lab = Lab::up(&scenario("routed.toml"), &unique_prefix("l7p")).unwrap();
    let policies = folder.path().to_str().unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--l7", "dns", "--policy", policies]);
    let has = |text: &str| {
        let warnings = daemon.policies().policies.into_iter().flat_map(|policy| policy.warnings);
        warnings.map(|warning| format!("{warning:?}")).any(|warning| warning.contains(text))
    };
    let warned = || has("no DNS answer told addresses");
    assert!(warned(), "nobody asked for the name yet");
    assert!(has("the first connection to a name may come too early"));
    once(&mut lab, "outside", "/api/v1/charges");
    assert_eq!(until(&daemon, 1), [(Verdict::Audit, 0)]);

    once(&mut lab, "dns", NAME);
    let is_answer = |flow: &Flow| matches!(said(flow), Some((L7FlowType::Response, _, Record::Dns(dns))) if !dns.ips.is_empty());
    daemon.flows_until(|flows| (!flows.iter().any(is_answer)).then(|| "the answer".to_owned()));
    // There is no event for "the policies have it".
    let deadline = Instant::now() + PATIENCE;
    while warned() {
        assert!(Instant::now() < deadline, "{:?}", daemon.policies());
        std::thread::sleep(Duration::from_millis(20));
    }
    once(&mut lab, "outside", "/api/v1/charges");
    assert_eq!(until(&daemon, 2)[1], (Verdict::Forwarded, 1));

    if daemon.set_mode("web", "by-name", Mode::Enforce).policies[0].mode() != Mode::Enforce {
        return println!("SKIP: policies_allow_by_name_what_dns_told: nothing can be enforced here");
    }
    let before = lab.ledger().len();
    once(&mut lab, "outside", "/api/v1/charges");
    once(&mut lab, "service-http", "/healthz");
    let ledger = lab.ledger();
    let outcomes: Vec<_> =
        ledger[before..].iter().map(|entry| (entry.traffic.as_str(), entry.outcome == Outcome::Ok)).collect();
    assert_eq!(outcomes, [("outside", true), ("service-http", false)]);
    assert_eq!(until(&daemon, 3)[2], (Verdict::Forwarded, 1));
}
