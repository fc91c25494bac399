//! The same flags on the same flows by Hubble's command line and by ours: what is printed, on both streams, and how it
//! ends. Hubble filters a file by itself; `observe` once does so, too, and once asks a server that filters with our code. So
//! filters, their errors, every layout, the reading of files and of the command line are held to Hubble's own, for sets of
//! flags that nobody has thought of.

mod dice;
mod flags;
mod flows;
mod server;

use crate::{
    programs::{Client, Ran},
    tally::{Outcome, Tally, ensure, same},
};
use dice::Dice;
use observer_proto::{
    json,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use std::fmt::Write as _;

const FLOWS: usize = 600;
const SETS: u64 = 300;

#[test]
fn random_flows_and_flags() {
    let mut dice = Dice::new(1);
    let responses: Vec<GetFlowsResponse> = (0..FLOWS)
        .map(|nth| {
            let flow = flows::flow(&mut dice, nth);
            GetFlowsResponse {
                node_name: flow.node_name.clone(),
                time: flow.time,
                response_types: Some(ResponseTypes::Flow(flow)),
            }
        })
        .collect();
    let lines = responses.iter().fold(String::new(), |mut text, response| {
        writeln!(text, "{}", json::line(response).unwrap()).unwrap();
        text
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flows.jsonl");
    std::fs::write(&file, lines).unwrap();
    let server = server::start(responses, folder.path());
    let hubble = Client::hubble("unix:///nonexistent");
    let observe = Client::observe(format!("unix://{}", server.socket.display()));

    let mut tally = Tally::default();
    let (mut refused, mut printed) = (0, 0);
    for seed in 0..SETS {
        let set = flags::set(&mut Dice::new(seed + 1000));
        let own = ["observe", "--input-file", file.to_str().unwrap()].map(str::to_owned);
        let wanted = hubble.run_words(own.iter().chain(&set));
        let of_server = observe.run_words(&set);
        let of_file = observe.run_words(own[1..].iter().chain(&set));
        refused += usize::from(wanted.code != Some(0));
        printed += wanted.stdout.lines().count();
        tally.case("random", &format!("{seed} {}", set.join(" ")), alike(&of_server, &wanted));
        tally.case("random", &format!("{seed} from a file: {}", set.join(" ")), alike(&of_file, &wanted));
    }
    println!(
        "differential: {SETS} sets of flags on {FLOWS} flows; {printed} lines printed, {refused} sets refused"
    );
    assert!(refused > 20 && printed > 5000, "{refused} refused, {printed} lines");
}

fn alike(found: &Ran, wanted: &Ran) -> Outcome {
    same("stdout", &found.stdout, &wanted.stdout)?;
    // With -D Hubble tells of its own work, too. Go's library has a blank of its own choice behind its name, another one in
    // each build.
    let own = |line: &&str| !line.starts_with("time=") || !line.contains(" level=DEBUG ");
    let stderr = wanted.stderr.lines().filter(own).fold(String::new(), |text, line| text + line + "\n");
    let stderr = stderr.replace("proto:\u{a0}", "proto: ").replace("proto:  ", "proto: ");
    same("stderr", &found.stderr, &stderr)?;
    ensure(found.code == wanted.code, || format!("exit code {:?}, Hubble's {:?}", found.code, wanted.code))
}
