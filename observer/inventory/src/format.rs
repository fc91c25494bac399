//! The file's form, as it is written; every checked value keeps its place in the file.

use super::Fault;
use serde::Deserialize;
use serde_saphyr::{Error, Location, Spanned};
use std::collections::BTreeMap;

/// An inventory needs no aliases; a few are harmless, many are a bomb.
const MAX_ALIASES: usize = 1024;
/// The deepest field is at 5.
const MAX_DEPTH: usize = 16;
/// A pod of the usual size has 30 nodes, so this is more than the largest file can hold in earnest.
const MAX_NODES: usize = 16_000_000;

pub(super) type Text = Spanned<String>;
pub(super) type Labels = BTreeMap<String, Text>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) cluster: Option<Text>,
    pub(super) nodes: Vec<Node>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) pods: Vec<Pod>,
    pub(super) services: Vec<Service>,
    pub(super) cidr_groups: Vec<CidrGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) addresses: Vec<Text>,
    pub(super) hubble_address: Option<Text>,
    #[serde(default)]
    pub(super) labels: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespace {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) annotations: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pod {
    pub(super) name: Text,
    pub(super) namespace: Option<Text>,
    pub(super) uid: Option<Text>,
    pub(super) node: Option<Text>,
    #[serde(default)]
    pub(super) ips: Vec<Text>,
    #[serde(default)]
    pub(super) host_network: bool,
    #[serde(default)]
    pub(super) labels: Labels,
    pub(super) owner: Option<Owner>,
    pub(super) service_account: Option<Text>,
    #[serde(default)]
    pub(super) phase: Phase,
    #[serde(default)]
    pub(super) ports: Vec<PodPort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodPort {
    pub(super) name: Text,
    pub(super) port: Spanned<u16>,
    #[serde(default)]
    pub(super) protocol: Protocol,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    pub(super) kind: Text,
    pub(super) name: Text,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    #[default]
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: Text,
    pub(super) namespace: Option<Text>,
    #[serde(default)]
    pub(super) cluster_ips: Vec<Text>,
    #[serde(default)]
    pub(super) ports: Vec<ServicePort>,
    #[serde(default)]
    pub(super) selector: Labels,
    #[serde(default)]
    pub(super) labels: Labels,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicePort {
    pub(super) port: Spanned<u16>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    pub(super) target_port: Option<Text>,
    pub(super) node_port: Option<Spanned<u16>>,
    pub(super) name: Option<Text>,
}

#[derive(Deserialize, Default, Clone, Copy)]
pub(super) enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp = 6,
    #[serde(rename = "UDP")]
    Udp = 17,
    #[serde(rename = "SCTP")]
    Sctp = 132,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CidrGroup {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) cidrs: Vec<Text>,
    #[serde(default)]
    pub(super) labels: Labels,
}

/// Reads the form; an empty file is an empty inventory.
pub(super) fn parse(text: &str) -> Result<File, Fault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
        },
        with_snippet: false,
    };
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    // The closure's error type is the parser's own, so the path goes out on the side.
    let mut path = String::from(".");
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    result.map_err(|error: Error| {
        let place = error.location().unwrap_or(Location::UNKNOWN);
        // `Spanned` reads its value through a field of its own.
        let path = path.strip_suffix(".value").unwrap_or(&path).to_owned();
        let problem = say(&error);
        Fault { line: place.line(), column: place.column(), path, problem }
    })
}

/// The parser's words for what users get wrong most, and ours, which say what would be right.
const WORDS: &[(&str, &str)] = &[
    ("expected mapping start", "a mapping such as {name: x} belongs here"),
    ("expected sequence start", "a list such as [x, y] belongs here"),
    ("invalid boolean", "write true or false"),
    ("invalid u16", "write a number from 1 to 65535"),
    (", set DuplicateKeyPolicy in Options if acceptable", "; write it once"),
];

/// The parser's message on one line, without the place, which stands before it.
fn say(error: &Error) -> String {
    let text = error.without_snippet().to_string().replace('\n', " ");
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned();
    WORDS.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
}
