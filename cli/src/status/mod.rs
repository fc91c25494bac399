//! `observe status`: the server, or with `--capture` the daemon's work in the kernel.

mod capture;
mod server;

use crate::{
    Failure,
    args::{ServerArgs, StatusArgs},
    connect::Target,
    output, print, rpc,
};
use observer_proto::{
    control::{CaptureStatusRequest, control_client::ControlClient},
    observer::{ServerStatusRequest, observer_client::ObserverClient},
};
use std::time::Duration;
use tonic::Request;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Hubble's limit for a single answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);
/// The name under which Hubble's servers answer health checks; not the gRPC service's name.
const HEALTH_SERVICE: &str = "hubble.server.Observer";

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}

pub(crate) async fn run(server: &ServerArgs, args: &StatusArgs) -> Result<(), Failure> {
    let format = print::Format::named(&args.output)?;
    if args.capture { of_capture(args, format).await } else { of_server(server, format).await }
}

async fn of_server(server: &ServerArgs, format: print::Format) -> Result<(), Failure> {
    let target = Target::choose(server)?;
    let channel = target.connect().await?;
    let failed =
        |status: tonic::Status| Failure::Text(format!("failed getting status: {}", rpc::text(&status)));
    let health = HealthClient::new(channel.clone())
        .check(request(HealthCheckRequest { service: HEALTH_SERVICE.to_owned() }))
        .await
        .map_err(failed)?
        .into_inner();
    let healthy = health.status() == ServingStatus::Serving;
    if format == print::Format::Compact {
        let state =
            if healthy { "Ok".to_owned() } else { format!("Unavailable: {}", health.status().as_str_name()) };
        output::whole(&format!("Healthcheck (via {target}): {state}\n"))?;
    }
    if !healthy {
        return Err(Failure::Text("not healthy".to_owned()));
    }
    let status = ObserverClient::new(channel)
        .server_status(request(ServerStatusRequest {}))
        .await
        .map_err(failed)?
        .into_inner();
    match format {
        print::Format::Compact => output::whole(&server::text(&status)),
        print::Format::Json => json(&status, "observer.ServerStatusResponse"),
    }
}

async fn of_capture(args: &StatusArgs, format: print::Format) -> Result<(), Failure> {
    let channel = Target::control(&args.control_socket)?.connect().await?;
    let status = ControlClient::new(channel)
        .capture_status(request(CaptureStatusRequest {}))
        .await
        .map_err(|s| Failure::Text(format!("failed getting the capture's status: {}", rpc::text(&s))))?
        .into_inner();
    match format {
        print::Format::Compact => output::whole(&capture::text(&status)),
        print::Format::Json => json(&status, "control.CaptureStatusResponse"),
    }
}

fn json(message: &impl prost::Message, full_name: &str) -> Result<(), Failure> {
    let mut line = Vec::new();
    print::json(message, full_name, &mut line)?;
    output::whole(&String::from_utf8_lossy(&line))
}
