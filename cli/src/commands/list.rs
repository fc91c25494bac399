//! `observe list nodes` and `observe list namespaces`.

use crate::{
    Failure,
    args::{FORMATTING, Globals},
    complete,
    connect::Target,
    output, rpc,
};
use clap::{Args, Subcommand};
use observer_proto::{
    json,
    observer::{GetNamespacesRequest, GetNodesRequest, observer_client::ObserverClient},
    text::list,
};
use std::io;

/// `observe list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The nodes that the server knows, and how they are
    #[command(visible_alias = "node")]
    Nodes(OutputArgs),
    /// Namespaces with flows in the last hour
    Namespaces(OutputArgs),
}

#[derive(Args)]
struct OutputArgs {
    /// table, wide or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", help_heading = FORMATTING,
          add = complete::of(&["table", "wide", "json"]))]
    output: String,
}

pub(super) async fn run(globals: &Globals, args: ListArgs) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let target = Target::choose(&settings)?;
    let mut client = ObserverClient::new(target.connect().await?);
    let mut text = String::new();
    // Hubble looks at the format after the answer has come.
    let is_wide = |OutputArgs { output }: &OutputArgs| match output.as_str() {
        "json" => Ok(None),
        "table" => Ok(Some(false)),
        "wide" => Ok(Some(true)),
        _ => Err(format!("unknown output format: {output}")),
    };
    match args.what {
        What::Nodes(args) => {
            let mut nodes = match client.get_nodes(rpc::request(&settings, GetNodesRequest {})).await {
                Ok(answer) => answer.into_inner().nodes,
                Err(status) => return Err(Failure::Text(target.failed(&status).await)),
            };
            nodes.sort_by(|one, other| one.name.cmp(&other.name));
            match is_wide(&args)? {
                None => text = indented(&nodes)?,
                Some(wide) => list::nodes(&nodes, wide, &mut text).map_err(io::Error::other)?,
            }
        }
        What::Namespaces(args) => {
            let request = rpc::request(&settings, GetNamespacesRequest {});
            let namespaces = match client.get_namespaces(request).await {
                Ok(answer) => answer.into_inner().namespaces,
                Err(status) => return Err(Failure::Text(target.failed(&status).await)),
            };
            match is_wide(&args)? {
                None => text = indented(&namespaces)?,
                Some(wide) => list::namespaces(&namespaces, wide, &mut text).map_err(io::Error::other)?,
            }
        }
    }
    output::whole(&text)
}

/// A list of messages as JSON over many lines; of none `null`, as Go writes it.
fn indented<M: prost::Message + prost::Name>(messages: &[M]) -> Result<String, Failure> {
    if messages.is_empty() {
        return Ok("null\n".to_owned());
    }
    let lines: Result<Vec<String>, _> = messages.iter().map(json::line).collect();
    let compact = format!("[{}]", lines.map_err(io::Error::other)?.join(","));
    Ok(json::indented(&compact) + "\n")
}
