//! `observe watch peers`.

use crate::session::ended_by_signal;
use crate::{Failure, args::Globals, connect::Target, output, rpc};
use clap::{Args, Subcommand};
use observer_proto::{
    peer::{NotifyRequest, peer_client::PeerClient},
    text::list,
};
use std::io;
use tonic::Code;

/// `observe watch`.
#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Nodes of the cluster, as they come, go and change
    #[command(visible_alias = "peer")]
    Peers,
}

pub(super) async fn run(globals: &Globals, args: WatchArgs) -> Result<(), Failure> {
    let What::Peers = args.what;
    let target = Target::choose(&globals.settings()?)?;
    let watched = async {
        let mut client = PeerClient::new(target.connect().await?);
        let mut stream = match client.notify(NotifyRequest {}).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Err(Failure::Text(target.failed(&status).await)),
        };
        loop {
            match stream.message().await {
                Ok(Some(change)) => {
                    let mut line = String::new();
                    list::peer(&change, &mut line).map_err(io::Error::other)?;
                    output::whole(&line)?;
                }
                Ok(None) => return Ok(()),
                Err(status) if status.code() == Code::Cancelled => return Ok(()),
                Err(status) => return Err(Failure::Text(rpc::text(&status))),
            }
        }
    };
    tokio::select! {
        result = watched => result,
        result = ended_by_signal() => Ok(result?),
        () = output::reader_gone() => Err(Failure::PipeClosed),
    }
}
