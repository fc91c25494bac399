//! Requests judged in connections between pods, both sides in one pass.

use super::*;
use observer_policy::l7::Request;
use std::net::SocketAddr;

const API: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  \
    endpointSelector: {matchLabels: {app: api}}\n  ingress:\n  - fromEndpoints: [{matchLabels: {app: web}}]\n    toPorts:\n    - \
    ports: [{port: \"80\", protocol: TCP}]\n      rules: {http: [{method: GET, path: /charges}, {method: POST, path: \
    \"/pay/.*\", host: api, headers: [\"X-Token: one\"]}]}\n  - fromEndpoints: [{matchLabels: {app: tool, \
    io.kubernetes.pod.namespace: ops}}]\n    toPorts:\n    - ports: [{port: \"80\", protocol: TCP}]\n      rules: {http: \
    [{method: POST, path: /refunds}]}\n";
const WEB: &str = "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec:\n  \
    endpointSelector: {matchLabels: {app: web}}\n  egress:\n  - toEndpoints: [{matchLabels: {app: api}}]\n    toPorts:\n    - \
    ports: [{port: \"80\", protocol: TCP}]\n      rules: {http: [{path: \"/charges|/pay/a\"}]}\n";
const PLAIN: &str = "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: plain, namespace: shop}\nspec:\n  \
    endpointSelector: {matchLabels: {app: api}}\n  ingress:\n  - fromEndpoints: [{matchLabels: {app: tool, \
    io.kubernetes.pod.namespace: ops}}]\n    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]\n";

const WEB_POD: &str = "10.0.0.1";
const TOOL_POD: &str = "10.0.0.3";
const FAR_POD: &str = "10.0.1.1";

fn request(method: &str, path: &str) -> Request {
    let headers = vec![("x-token".to_owned(), "one".to_owned())];
    Request::Http { method: method.into(), path: path.into(), host: "api".into(), headers }
}

fn judged(bed: &Bed, client: &str, request: &Request, meant: Option<&Request>) -> Judged {
    let end = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    bed.updater.policies().judge_request(end(client, 40_000), end("10.0.0.2", 80), 6, request, meant)
}

/// Whether it passes, and the names of those who say so, with a minus before those who deny.
fn said(bed: &Bed, client: &str, method: &str, path: &str) -> (bool, String) {
    let judged = judged(bed, client, &request(method, path), None);
    let names = judged.told.iter().flat_map(|told| {
        let sign = if told.denies { "-" } else { "" };
        told.policies.iter().map(move |policy| format!("{sign}{}", policy.name))
    });
    (judged.passes, names.collect::<Vec<_>>().join(" "))
}

#[test]
fn what_any_rule_allows_passes_where_both_sides_let_it() {
    let bed = Bed::new(Mode::Enforce, &format!("{API}{WEB}"));
    for (client, method, path, expected) in [
        (WEB_POD, "GET", "/charges", (true, "web api")),
        (WEB_POD, "POST", "/charges", (false, "web -api")),
        (WEB_POD, "POST", "/pay/a", (true, "web api")),
        (WEB_POD, "POST", "/pay/b", (false, "-web api")),
        (WEB_POD, "GET", "/charges/x", (false, "-web -api")),
        (WEB_POD, "GET", "/charges?x", (false, "-web -api")),
        (TOOL_POD, "POST", "/refunds", (true, "api")),
        (TOOL_POD, "GET", "/charges", (false, "-api")),
        // What a pod of another node may ask that node knows.
        (FAR_POD, "POST", "/refunds", (true, "api")),
    ] {
        let (passes, names) = said(&bed, client, method, path);
        assert_eq!((passes, &*names), expected, "{client} {method} {path}");
    }
}

#[test]
fn a_plain_rule_lets_every_request_of_its_peers_pass() {
    let bed = Bed::new(Mode::Enforce, &format!("{API}{PLAIN}"));
    assert!(said(&bed, TOOL_POD, "DELETE", "/anything").0);
    assert!(!said(&bed, WEB_POD, "DELETE", "/anything").0);
}

#[test]
fn what_a_server_may_take_it_for_must_pass_too() {
    let bed = Bed::new(Mode::Enforce, API);
    let (asked, meant) = (request("POST", "/pay/../refunds"), request("POST", "/refunds"));
    assert!(judged(&bed, WEB_POD, &asked, None).passes);
    assert!(!judged(&bed, WEB_POD, &asked, Some(&meant)).passes);
    assert!(judged(&bed, WEB_POD, &asked, Some(&request("POST", "/pay/x"))).passes);
}

#[test]
fn audited_policies_deny_nothing_and_are_told() {
    let bed = Bed::new(Mode::Audit, API);
    let judged = judged(&bed, WEB_POD, &request("DELETE", "/charges"), None);
    assert_eq!((judged.passes, judged.passes_audited), (true, false));
    assert!(judged.told.iter().any(|told| told.denies && &*told.policies[0].name == "api"));
}
