//! Policies about requests of HTTP, enforced by the daemon in a lab, with real curl: who may ask what, by every way there; and
//! what the proxy bears.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

mod bed;
mod strain;
#[path = "../support/mod.rs"]
mod support;

use bed::{Bed, PORT, SERVER, SERVICE, curl};
use observer_proto::{
    control::policy::Mode,
    flow::{Flow, Verdict, layer7::Record},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};
use support::{Daemon, can_run};

/// Asks for what is denied in a connection that was open before that was denied.
fn is_reset(open: &mut TcpStream) {
    let _ = open.write_all(b"GET /api/v1/refunds HTTP/1.1\r\nHost: h\r\n\r\n");
    open.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let read = open.read(&mut [0; 100]);
    assert!(read.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "{read:?}");
}

/// How many such connections the daemon counted.
fn resets(daemon: &Daemon) -> u64 {
    let counters = daemon.capture_status().counters;
    counters.iter().find(|counter| counter.cause == "open connections reset, to be judged").unwrap().value
}

/// What a flow tells of a request.
fn told(flow: &Flow) -> Option<(i32, u32, String, String)> {
    let Some(Record::Http(http)) = &flow.l7.as_ref()?.record else { return None };
    Some((flow.verdict, http.code, http.method.clone(), http.url.clone()))
}

#[test]
fn who_may_ask_what_is_held_by_every_way() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let daemon = bed.daemon(&[]);
    bed.play("");
    bed.play("-far");
    // What was told of it.
    let flows = daemon.flows_until(|flows| {
        let has = |verdict: Verdict, method: &str| {
            flows.iter().filter_map(told).any(|(found, _, of, url)| {
                found == verdict as i32 && of == method && url.ends_with("/api/v1/charges")
            })
        };
        let all = has(Verdict::Forwarded, "GET") && has(Verdict::Dropped, "DELETE");
        (!all).then(|| format!("{:?}", flows.iter().filter_map(told).take(5).collect::<Vec<_>>()))
    });
    let denied = flows.iter().find(|flow| {
        told(flow)
            .is_some_and(|(verdict, _, method, _)| verdict == Verdict::Dropped as i32 && method == "DELETE")
    });
    let denied = denied.unwrap();
    assert_eq!(denied.ingress_denied_by[0].name, "payments", "{denied:?}");
    assert_eq!(denied.source.as_ref().unwrap().namespace, "shop");
    let answered =
        flows.iter().filter_map(told).any(|(_, code, method, _)| code == 403 && method == "DELETE");
    assert!(answered);
    assert!(flows.iter().any(|flow| flow.verdict == Verdict::Redirected as i32), "no verdict REDIRECTED");
}

#[test]
fn bridged_pods_are_held_to_it_too() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("bridged");
    let mut open = SERVER.map(|server| bed.open("frontend-app", server));
    let daemon = bed.daemon(&[]);
    open.iter_mut().for_each(is_reset);
    assert_eq!(resets(&daemon), 2);
    bed.play("");
    assert_eq!(resets(&daemon), 2);
}

#[test]
fn without_a_daemon_nothing_passes_unjudged_unless_that_was_said() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let client = bed.pod("frontend-app");
    let status = || {
        let output = curl(&client, "GET", SERVER[0], PORT, "/api/v1/charges");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let daemon = bed.daemon(&[]);
    assert_eq!(status(), "200");
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    assert_eq!(status(), "000", "it passed though nobody judged it");
    let daemon = bed.daemon(&["--l7-on-failure", "allow"]);
    assert_eq!(status(), "200");
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    assert_eq!(status(), "200");
    // A connection that was open before, unproxied, ends with the next daemon.
    let mut open = bed.open("frontend-app", SERVER[0]);
    let daemon = bed.daemon(&[]);
    is_reset(&mut open);
    assert_eq!(resets(&daemon), 1);
    assert_eq!(status(), "200");
    daemon.stop();
    let output = bed.lab.command_in("n1", support::OBSERVER).arg("detach").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rules = bed.lab.command_in("n1", "ip").args(["rule", "show"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&rules.stdout).contains("fwmark"), "{rules:?}");
}

#[test]
fn in_mode_audit_all_requests_pass_and_those_that_would_not_are_told() {
    if !can_run("http_policy") {
        return;
    }
    let bed = Bed::up("routed");
    let client = bed.pod("frontend-app");
    // Open before there are policies: it stays as it is, and nobody judges it.
    let mut open = bed.open("frontend-app", SERVER[0]);
    let daemon = bed.daemon_in("audit", &[]);
    open.write_all(b"DELETE /open HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    open.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    assert!(open.read(&mut [0; 100]).unwrap() > 0);
    assert_eq!(bed.asked(), ["10.71.0.1 DELETE /open HTTP/1.1"]);
    for family in 0..2 {
        for (address, port) in [(SERVER[family], PORT), (SERVICE[family], 80)] {
            for (method, path) in [("GET", "charges"), ("DELETE", "charges")] {
                let output = curl(&client, method, address, port, &format!("/api/v1/{path}"));
                assert_eq!(
                    String::from_utf8_lossy(&output.stdout),
                    "200",
                    "{method} to {address}: {output:?}"
                );
                assert_eq!(bed.asked().len(), 1);
            }
        }
    }
    // Another protocol is carried as it is: the server of the test reads lines of any kind.
    let mut other = bed.open("frontend-app", SERVER[1]);
    other.write_all(b"hello\r\n\r\n").unwrap();
    assert!(other.read(&mut [0; 100]).unwrap() > 0);
    assert_eq!(bed.asked(), ["fd71::1 hello"]);
    // Until that is enforced.
    daemon.set_mode("shop", "payments", Mode::Enforce);
    other.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    // What is left of the answer, and then the end.
    let end = other.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(matches!(end, Ok(_) | Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
    daemon.set_mode("shop", "payments", Mode::Audit);
    // Whom no rule allows anything is denied at the connection, and passes as well.
    let output = curl(&bed.pod("tenant"), "GET", SERVER[0], PORT, "/api/v1/charges");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}");
    let flows = daemon.flows_until(|flows| {
        let of = |wanted: Verdict, method: &str| {
            let told = flows.iter().filter_map(told);
            told.filter(|(verdict, code, of, _)| *verdict == wanted as i32 && *code == 0 && of == method)
                .count()
        };
        let found = (of(Verdict::Forwarded, "GET"), of(Verdict::Audit, "DELETE"));
        (found != (4, 4)).then(|| format!("{found:?}"))
    });
    assert!(flows.iter().any(|flow| flow.verdict == Verdict::Redirected as i32), "no verdict REDIRECTED");
    let is_audit = |flow: &&Flow| told(flow).is_some_and(|(verdict, ..)| verdict == Verdict::Audit as i32);
    let audited = flows.iter().find(is_audit).unwrap();
    assert_eq!(audited.ingress_denied_by[0].name, "payments", "{audited:?}");
    // A daemon that dies takes the programs with it: what it judged ends, what is new passes.
    let (_, _, _dir) = daemon.end(rustix::process::Signal::KILL);
    let output = curl(&client, "GET", SERVER[0], PORT, "/api/v1/charges");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}");
}
