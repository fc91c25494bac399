//! `observe status`: the server, or with `--capture` the daemon's work in the kernel.

mod capture;

use crate::{
    Failure,
    args::{FORMATTING, Globals, SERVER},
    complete,
    connect::Target,
    output,
    print::Format,
    rpc,
    settings::Settings,
};
use clap::Args;
use observer_proto::{
    control::{CaptureStatusRequest, control_client::ControlClient},
    json,
    observer::{ServerStatusRequest, observer_client::ObserverClient},
    text::status as layout,
};
use std::{fmt::Write as _, io};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// The name under which Hubble's servers answer health checks; not the gRPC service's name.
const HEALTH_SERVICE: &str = "hubble.server.Observer";

/// `observe status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// compact, dict, json or table; with --capture, compact or json
    #[arg(short, long, value_name = "FORMAT", default_value = "compact", help_heading = FORMATTING,
          add = complete::of(&["compact", "dict", "json", "table"]))]
    pub(crate) output: String,
    /// What is attached in the kernel, and where every event went; needs the rights of root
    #[arg(long)]
    pub(crate) capture: bool,
    /// The daemon's control socket [default: control.sock beside the server's socket, else in /run/observer]
    #[arg(long, value_name = "PATH", env = "OBSERVE_CONTROL", hide_env_values = true, help_heading = SERVER)]
    pub(crate) control_socket: Option<String>,
}

pub(crate) async fn run(globals: &Globals, args: StatusArgs) -> Result<(), Failure> {
    let settings = &globals.settings()?;
    let format = Format::named(&args.output)?;
    if args.capture { of_capture(settings, &args, format).await } else { of_server(settings, format).await }
}

async fn of_server(settings: &Settings, format: Format) -> Result<(), Failure> {
    let target = Target::choose(settings)?;
    let channel = target.connect().await?;
    let failed = async |status: tonic::Status| {
        Failure::Text(format!("failed getting status: {}", target.failed(&status).await))
    };
    let mut health = HealthClient::new(channel.clone());
    let health = match health
        .check(rpc::request(settings, HealthCheckRequest { service: HEALTH_SERVICE.to_owned() }))
        .await
    {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(failed(status).await),
    };
    let healthy = health.status() == ServingStatus::Serving;
    if format == Format::Compact {
        let state =
            if healthy { "Ok".to_owned() } else { format!("Unavailable: {}", health.status().as_str_name()) };
        let mut text = String::new();
        layout::healthcheck(&target.to_string(), &state, &mut text).map_err(io::Error::other)?;
        output::whole(&text)?;
    }
    if !healthy {
        return Err(Failure::Text("not healthy".to_owned()));
    }
    let status = match ObserverClient::new(channel)
        .server_status(rpc::request(settings, ServerStatusRequest {}))
        .await
    {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(failed(status).await),
    };
    let mut text = String::new();
    match format {
        Format::Compact => layout::compact(&status, &mut text),
        Format::Dict => layout::dict(&status, &mut text),
        Format::Table => layout::table(&status, &mut text),
        Format::Json | Format::JsonPb => writeln!(text, "{}", json::line(&status).map_err(io::Error::other)?),
        Format::Wide => {
            return Err("output format wide is for flows; use compact, dict, json or table"
                .to_owned()
                .into());
        }
    }
    .map_err(io::Error::other)?;
    output::whole(&text)
}

async fn of_capture(settings: &Settings, args: &StatusArgs, format: Format) -> Result<(), Failure> {
    if matches!(format, Format::Dict | Format::Table | Format::Wide) {
        return Err(format!(
            "output format {} is not available with --capture; use compact or json",
            args.output
        )
        .into());
    }
    let target = Target::control(args.control_socket.as_deref(), settings)?;
    let status = ControlClient::new(target.connect().await?)
        .capture_status(rpc::request(settings, CaptureStatusRequest {}))
        .await
        .map_err(|s| Failure::Text(format!("failed getting the capture's status: {}", rpc::text(&s))))?
        .into_inner();
    if format == Format::Compact {
        output::whole(&capture::text(&status))
    } else {
        output::whole(&(json::line(&status).map_err(io::Error::other)? + "\n"))
    }
}
