//! `observe policy mode`.

use super::show;
use crate::{
    Failure,
    answers::{TextOrJson, once},
    args::Globals,
    policy::{ControlArgs, LayoutArgs, in_mode},
};
use clap::Args;
use observer_proto::{
    control::{ListPoliciesRequest, SetPolicyModeRequest, policy},
    json,
};
use std::io;

pub(super) const AFTER_HELP: &str = "\
The daemon keeps it over restarts, and it is stronger than annotations of the policy and of its namespace, until `default` takes
it back. New connections are judged so at once, and open ones by their next packet.

Examples:
  observe policy mode shop/web enforce
  observe policy mode ccnp/host audit
  observe policy mode netpol/shop/web default";

/// `observe policy mode`.
#[derive(Args)]
pub(super) struct ModeArgs {
    /// Which, as observe policy show takes it
    #[arg(value_name = "[KIND/][NAMESPACE/]NAME")]
    name: String,
    /// What becomes of what it denies
    mode: Mode,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    control: ControlArgs,
}

/// What becomes of what a policy denies.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// It is counted
    Observe,
    /// It is told, as AUDIT
    Audit,
    /// It is dropped, and told
    Enforce,
    /// What annotations and the daemon say
    Default,
}

pub(super) async fn run(globals: &Globals, args: ModeArgs) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let ListPoliciesRequest { kind, namespace, name, .. } = show::request(&args.name)?;
    let mode = match args.mode {
        Mode::Observe => policy::Mode::Observe,
        Mode::Audit => policy::Mode::Audit,
        Mode::Enforce => policy::Mode::Enforce,
        Mode::Default => policy::Mode::Unknown,
    };
    let asked = SetPolicyModeRequest { kind, namespace, name, mode: mode.into() };
    let answer = args.control.set_mode(&settings, asked).await?;
    once(&match args.layout.output {
        TextOrJson::Text => in_mode(&answer),
        TextOrJson::Json => json::line(&answer).map_err(io::Error::other)?,
    })
}
