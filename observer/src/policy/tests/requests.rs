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

fn request<'a>(method: &'a str, path: &'a str) -> Request<'a> {
    Request::Http { method, path, host: "api", headers: vec![("x-token", "one".into())] }
}

fn end(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn judged(bed: &Bed, client: &str, request: &Request<'_>, meant: Option<&Request<'_>>) -> Judged {
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

#[test]
fn of_many_in_a_connection_each_is_told_as_if_it_were_the_only_one() {
    let mut bed = Bed::new(Mode::Enforce, &format!("{API}{WEB}"));
    let targets = ["/charges", "/pay/a", "/pay/b", "/refunds", "/charges?x"];
    let asked: Vec<Request<'_>> =
        targets.iter().flat_map(|path| ["GET", "POST"].map(|method| request(method, path))).collect();
    let same = |bed: &Bed, said: &Said, client: &str| {
        let ends = (end(client, 40_000), end("10.0.0.2", 80), 6);
        let told = |ruled: &Ruled| ruled.told.as_ref().map(|verdict| verdict.told().clone());
        for (request, meant) in asked.iter().flat_map(|one| asked.iter().map(move |other| (one, other))) {
            for meant in [None, Some(meant)] {
                let by_itself = judged(bed, client, request, meant).ruled();
                let another = bed.updater.policies().judge_another(said, ends, request, meant);
                assert_eq!((another.passes, another.verdict), (by_itself.passes, by_itself.verdict));
                assert_eq!(told(&another), told(&by_itself), "{request:?} {meant:?}");
            }
        }
    };
    let said = [WEB_POD, TOOL_POD, FAR_POD].map(|client| (client, Said::default()));
    for (client, said) in &said {
        same(&bed, said, client);
    }
    // What was said by earlier policies is not said again.
    fs::write(bed.folder.path().join("policies.yaml"), format!("{API}{PLAIN}")).unwrap();
    (0..3).for_each(|_| bed.updater.look());
    for (client, said) in &said {
        same(&bed, said, client);
    }
}
