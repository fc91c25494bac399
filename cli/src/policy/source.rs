//! Who judges: the daemon by its control socket, or this program by files.

use super::listed::one_line;
use crate::{
    Failure,
    args::{FORMATTING, SELECTORS, SERVER},
    connect::{Connection, Target},
    rpc,
    settings::Settings,
};
use clap::Args;
use observer_inventory::{self as inventory, Snapshot};
use observer_policy::{
    Dialect,
    engine::{Change, Engine},
    model::Policy,
    source::{self, Options},
    wire::{self, Besides},
};
use observer_proto::control::{
    ExplainPolicyRequest, ExplainPolicyResponse, ListPoliciesRequest, ListPoliciesResponse,
    SetPolicyModeRequest, SetPolicyModeResponse, control_client::ControlClient, policy::SetBy,
};
use std::{path::PathBuf, sync::Arc};
use tonic::{Code, Status};

/// Ten thousand policies with their rules.
const MAX_ANSWER: usize = 64 << 20;

/// What to judge by in place of the daemon.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = SELECTORS)]
pub(crate) struct FileArgs {
    /// Names, labels and addresses from this file, as the daemon's --inventory
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,
    /// The node from which all is seen; others are remote nodes [default: the inventory's first]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Whose reading of a NetworkPolicy
    #[arg(long, value_name = "WHOSE", default_value = "kubernetes")]
    pub(crate) dialect: Reading,
}

/// Whose reading of a NetworkPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Reading {
    /// What Kubernetes' documentation says
    #[default]
    Kubernetes,
    /// What Cilium makes of it
    Cilium,
}

/// Who is asked about policies.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = SELECTORS)]
pub(crate) struct SourceArgs {
    /// Policies from this file or folder in place of the daemon's; may be given several times
    #[arg(long, value_name = "PATH")]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    control: ControlArgs,
}

/// Where the daemon is controlled.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ControlArgs {
    /// The daemon's control socket [default: control.sock beside the server's socket, else in /run/observer]
    #[arg(long, value_name = "PATH", env = "OBSERVE_CONTROL", hide_env_values = true, help_heading = SERVER)]
    control_socket: Option<String>,
}

impl ControlArgs {
    async fn connect(&self, settings: &Settings) -> Result<ControlClient<Connection>, Failure> {
        let target = Target::control(self.control_socket.as_deref(), settings)?;
        Ok(ControlClient::new(target.connect().await?).max_decoding_message_size(MAX_ANSWER))
    }

    /// Has the daemon put a policy into a mode.
    pub(crate) async fn set_mode(
        &self,
        settings: &Settings,
        request: SetPolicyModeRequest,
    ) -> Result<SetPolicyModeResponse, Failure> {
        let mut client = self.connect(settings).await?;
        let answer = client.set_policy_mode(rpc::request(settings, request)).await;
        Ok(answer.map_err(|status| failed("set the mode", &status))?.into_inner())
    }
}

/// `-o` of what is one message.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LayoutArgs {
    /// How it looks
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = FORMATTING)]
    pub(crate) output: crate::answers::TextOrJson,
}

/// Somebody who knows policies.
pub(crate) enum Source {
    Daemon(Box<ControlClient<Connection>>),
    Files(Box<Judge>),
}

impl Source {
    pub(crate) async fn open(args: &SourceArgs, settings: &Settings) -> Result<Self, Failure> {
        if !args.policies.is_empty() {
            return Ok(Self::Files(Box::new(Judge::load(&args.files, &args.policies)?)));
        }
        if args.files.inventory.is_some() || args.files.node.is_some() {
            return Err("--inventory and --node are for judging by files: name these with --policies"
                .to_owned()
                .into());
        }
        Ok(Self::Daemon(Box::new(args.control.connect(settings).await?)))
    }

    pub(crate) async fn list(
        &mut self,
        settings: &Settings,
        request: ListPoliciesRequest,
    ) -> Result<ListPoliciesResponse, Failure> {
        match self {
            Self::Files(judge) => Ok(judge.list(&request)),
            Self::Daemon(client) => {
                let answer = client.list_policies(rpc::request(settings, request)).await;
                Ok(answer.map_err(|status| failed("list policies", &status))?.into_inner())
            }
        }
    }

    pub(crate) async fn explain(
        &mut self,
        settings: &Settings,
        request: ExplainPolicyRequest,
    ) -> Result<ExplainPolicyResponse, Failure> {
        match self {
            Self::Files(judge) => Ok(judge.explain(&request)?),
            Self::Daemon(client) => {
                let answer = client.explain_policy(rpc::request(settings, request)).await;
                Ok(answer.map_err(|status| failed("explain", &status))?.into_inner())
            }
        }
    }
}

fn failed(what: &str, status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => {
            Failure::Text(format!("cannot {what}: {}", one_line(status.message())))
        }
        Code::Unimplemented => Failure::Text(format!(
            "cannot {what}: the daemon answers {:?}\nhint: --policies DIR --inventory FILE judges without a daemon",
            status.message()
        )),
        _ => Failure::Text(format!("cannot {what}: {}", rpc::text(status))),
    }
}

/// Policies and what they are about, from files.
pub(crate) struct Judge {
    pub(crate) engine: Engine,
    options: Options,
}

/// What came of a connection, by the sides that were judged: egress, ingress.
pub(crate) type Judgement = ExplainPolicyResponse;

impl Judge {
    /// The inventory, without policies.
    pub(crate) fn new(files: &FileArgs) -> Result<Self, Failure> {
        let snapshot = match &files.inventory {
            None => Snapshot::default(),
            Some(path) => {
                // Which pods are local decides nothing here.
                let read = inventory::read(path).and_then(|text| inventory::parse(path, &text, ""));
                read.map_err(|error| error.to_string())?
            }
        };
        let nodes = &snapshot.surroundings.nodes;
        let own = match &files.node {
            Some(name) if !nodes.iter().any(|node| node.name == *name) => {
                return Err(format!("--node: the inventory has no node {name}").into());
            }
            Some(name) => name.as_str(),
            None => nodes.first().map_or("", |node| &node.name),
        };
        let endpoints = inventory::policy::endpoints(&snapshot, own);
        let surroundings = Some(inventory::policy::surroundings(&snapshot.surroundings));
        let mut engine = Engine::new(false);
        let endpoints = endpoints.into_iter().map(|(name, endpoint)| (name, Some(endpoint))).collect();
        engine.apply(Change { endpoints, surroundings, ..Change::default() });
        let dialect = match files.dialect {
            Reading::Kubernetes => Dialect::Kubernetes,
            Reading::Cilium => Dialect::Cilium,
        };
        let cluster = snapshot.pods.first().map_or("default", |pod| &pod.cluster).into();
        Ok(Self { engine, options: Options { dialect, cluster } })
    }

    fn load(files: &FileArgs, policies: &[PathBuf]) -> Result<Self, Failure> {
        let mut judge = Self::new(files)?;
        let policies = judge.read(policies)?;
        judge.set(policies);
        Ok(judge)
    }

    /// Policies of files, as their dialect has them.
    pub(crate) fn read(&self, paths: &[PathBuf]) -> Result<Vec<Policy>, String> {
        source::load(paths, &self.options).map_err(|error| error.to_string())
    }

    /// Judges by these from now on.
    pub(crate) fn set(&mut self, policies: Vec<Policy>) {
        let with_mode = policies.into_iter().map(|policy| {
            let mode = policy.mode.unwrap_or_default();
            (Arc::new(policy), mode)
        });
        let policies = self.engine.difference(with_mode.collect());
        self.engine.apply(Change { policies, ..Change::default() });
    }

    pub(crate) fn list(&self, request: &ListPoliciesRequest) -> ListPoliciesResponse {
        let set_by = |policy: &Policy| Besides {
            set_by: if policy.mode.is_some() { SetBy::PolicyAnnotation } else { SetBy::Default },
            hits: None,
        };
        wire::list(&self.engine, request, set_by)
    }

    pub(crate) fn explain(&self, request: &ExplainPolicyRequest) -> Result<Judgement, String> {
        wire::explain(&self.engine, request)
    }
}
