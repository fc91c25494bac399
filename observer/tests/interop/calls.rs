//! Everything but GetFlows, on a recording: cases 1 to 4 and 30 to 34.

use crate::{
    programs::{Client, replayed, socket},
    support::Daemon,
    tally::{Outcome, Tally, ensure, like, same},
};
use observer_proto::observer::{GetFlowsRequest, observer_client::ObserverClient};

/// Number, arguments of `hubble`, and the form of what it prints.
const CALLS: &[(&str, &str, &str)] = &[
    ("1", "status", "Healthcheck (via *): Ok\nCurrent/Max Flows: 831/65,536 (1.27%)\nFlows/s: *\n"),
    (
        "2",
        "status -o json",
        r#"{"num_flows":"831","max_flows":"65536","seen_flows":"831","uptime_ns":"*","version":"observer v*"*}"#,
    ),
    (
        "3",
        "status -o dict",
        "NUM FLOWS: 831
         MAX FLOWS: 65,536
         SEEN FLOWS: 831
         FLOWS PER SECOND: *
         UPTIME: *s
         NUM CONNECTED NODES: N/A
         NUM UNAVAIL. NODES: N/A
         VERSION: observer v*",
    ),
    (
        "3",
        "status -o table",
        "NUM FLOWS   MAX FLOWS   SEEN FLOWS   FLOWS PER SECOND   UPTIME *
         831         65,536      831  *s * observer v*",
    ),
    (
        "31",
        "list nodes",
        "NAME *STATUS *AGE *FLOWS/S *CURRENT/MAX-FLOWS
         *n1 *Connected * 831/65536 (  1.27%)",
    ),
    (
        "31",
        "list nodes -o wide",
        "NAME *STATUS *AGE *FLOWS/S *CURRENT/MAX-FLOWS *VERSION *ADDRESS *TLS
         *n1 *Connected * 831/65536 (  1.27%)   observer v* 127.0.0.1:* Disabled",
    ),
    ("31", "list nodes -o json", "[\n{\n\"name\": \"*n1\",\n...\n}\n]"),
    ("34", "observe agent-events --last 5 -o compact", "..."),
    ("34", "observe agent-events -o json", "..."),
    ("34", "observe debug-events", "..."),
    ("34", "observe debug-events --last 5 -o dict", "..."),
];

#[test]
fn calls_on_a_recording() {
    let daemon = replayed("demo", &["--listen", "127.0.0.1:0", "--insecure"]);
    let mut tally = Tally::default();
    let (hubble, observe) = (Client::hubble(socket(&daemon)), Client::observe(socket(&daemon)));
    for (number, arguments, template) in CALLS {
        for (name, client) in [("hubble", &hubble), ("observe", &observe)] {
            let ran = client.run(arguments, &[]).clean();
            let outcome = ran.and_then(|stdout| like("stdout", &stdout, template));
            tally.case(number, &format!("{name} {arguments}"), outcome);
        }
    }
    for arguments in ["agent-events --all -o json", "agent-events --all", "debug-events --all -o json"] {
        let run = |client: &Client| client.run(&format!("observe {arguments}"), &[]).clean();
        let outcome = run(&hubble).and_then(|wanted| same("stdout", &run(&observe)?, &wanted));
        tally.case("34", &format!("observe {arguments} beside hubble's"), outcome);
    }
    for arguments in ["list namespaces", "list namespaces -o json", "list nodes -o nothing"] {
        let (wanted, found) = (hubble.run(arguments, &[]), observe.run(arguments, &[]));
        let outcome = ensure(found == wanted, || format!("{found:?}, hubble {wanted:?}"));
        tally.case("30", &format!("observe {arguments} beside hubble's"), outcome);
    }
    for (number, address) in [("4", tcp(&daemon)), ("4", format!("dns:///{}", tcp(&daemon)))] {
        let ran = Client::hubble(&*address).run("status", &[]).clean();
        let outcome = ran.and_then(|out| like("stdout", &out, "Healthcheck (via *): Ok\n...\n"));
        tally.case(
            number,
            &format!("hubble status --server {}", address.replace(&tcp(&daemon), "HOST:PORT")),
            outcome,
        );
    }
    for (name, client) in [("hubble", &hubble), ("observe", &observe)] {
        tally.case("32", &format!("{name} watch peers"), first_peer(client, &tcp(&daemon)));
        tally.case("33", &format!("{name} reflect"), reflection(client));
    }
    tally.case("12", "GetFlows of first and follow", first_and_follow(&daemon));
    tally.case("1", "hubble status of a server that is gone", gone());
}

/// The address that it listens on, as it says.
pub(crate) fn tcp(daemon: &Daemon) -> String {
    let line = daemon.log_line("tcp=");
    line.split("tcp=").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

fn first_peer(hubble: &Client, address: &str) -> Outcome {
    let mut watch = hubble.start("watch peers");
    let line = watch.line().ok_or("no line")?;
    same("stdout", &line, &format!("PEER_ADDED   {address} n1"))?;
    let (code, stderr) = watch.interrupt();
    // Go's own end by a signal: the program doesn't catch it here.
    ensure(stderr.is_empty(), || format!("exit {code:?}: {stderr}"))
}

fn reflection(hubble: &Client) -> Outcome {
    let out = hubble.run("reflect", &[]).clean()?;
    let files: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["observer/observer.proto", "peer/peer.proto", "flow/flow.proto", "relay/relay.proto"] {
        ensure(files.iter().any(|file| file["name"] == name), || format!("{name} is missing"))?;
    }
    Ok(())
}

fn first_and_follow(daemon: &Daemon) -> Outcome {
    let request = GetFlowsRequest { first: true, follow: true, number: 1, ..GetFlowsRequest::default() };
    let refused = daemon.call(async |channel| ObserverClient::new(channel).get_flows(request).await);
    let status = refused.err().ok_or("it was accepted")?;
    ensure(
        status.code() == tonic::Code::InvalidArgument
            && status.message() == "first cannot be specified with follow",
        || format!("{status:?}"),
    )
}

fn gone() -> Outcome {
    let server = "unix:///nonexistent/hubble.sock";
    let (hubble, observe) =
        (Client::hubble(server).run("status", &[]), Client::observe(server).run("status", &[]));
    ensure(hubble.code == Some(1) && observe.code == Some(1), || format!("{hubble:?} {observe:?}"))
}
