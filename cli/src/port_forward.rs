//! `--port-forward`: the way to hubble-relay through the Kubernetes API. Each connection is a stream of its own over a
//! websocket; unlike Hubble's, no local port is opened, so none can be in use.

use crate::settings::PortForward;
use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource,
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::{
    Api, Client, Config,
    api::{ListParams, Portforward},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::Deserialize;
use std::{collections::BTreeMap, io};
use tokio::io::{AsyncRead, AsyncWrite};

/// The service in front of the relay, in every installation.
const SERVICE: &str = "hubble-relay";

/// A pod, as far as it is asked about: whole pods would be a megabyte of program.
#[derive(Clone, Debug, Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodSpec {
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodStatus {
    phase: Option<String>,
}

/// A service likewise.
#[derive(Clone, Debug, Deserialize)]
struct Service {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ServiceSpec {
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    port: i32,
    target_port: Option<IntOrString>,
}

/// How the API names them.
macro_rules! resource {
    ($kind:ident, $plural:literal) => {
        impl Resource for $kind {
            const API_VERSION: &'static str = "v1";
            const GROUP: &'static str = "";
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = "v1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = NamespaceResourceScope;
        }

        impl Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Pod, "pods");
resource!(Service, "services");

impl Portforward for Pod {}

/// Opens a stream to the first pod that runs behind the service, on the port that its first port leads to.
pub(crate) async fn open(
    settings: &PortForward,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
    let client = client(settings).await.map_err(io::Error::other)?;
    let namespace = &settings.namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let service = Api::<Service>::namespaced(client, namespace).get(SERVICE).await;
    let service = service.map_err(|error| {
        io::Error::other(format!("the service {namespace}/{SERVICE} can't be read: {}", one_line(&error)))
    })?;
    let spec = service.spec;
    let selector: Vec<String> =
        spec.selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
    let found = pods.list(&ListParams::default().labels(&selector.join(","))).await;
    let found = found.map_err(|error| {
        io::Error::other(format!(
            "the pods behind {namespace}/{SERVICE} can't be listed: {}",
            one_line(&error)
        ))
    })?;
    let runs = |pod: &&Pod| pod.status.phase.as_deref() == Some("Running");
    let pod = found.items.iter().find(runs).ok_or_else(|| {
        io::Error::other(format!(
            "no pod runs behind the service {namespace}/{SERVICE} ({} exist)",
            found.items.len()
        ))
    })?;
    let port = spec.ports.into_iter().next();
    let port = port.and_then(|port| match port.target_port {
        Some(IntOrString::Int(number)) => u16::try_from(number).ok(),
        Some(IntOrString::String(name)) => port_named(pod, &name),
        None => u16::try_from(port.port).ok(),
    });
    let port = port.ok_or_else(|| {
        io::Error::other(format!("the service {namespace}/{SERVICE} has no port that its pods know"))
    })?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    let mut forwarder = pods.portforward(pod, &[port]).await.map_err(|error| {
        io::Error::other(format!("the pod {namespace}/{pod} can't be reached: {}", one_line(&error)))
    })?;
    forwarder.take_stream(port).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

async fn client(settings: &PortForward) -> Result<Client, String> {
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|error| format!("--kubeconfig: {}: {}", path.display(), one_line(&error)))?;
            Config::from_custom_kubeconfig(file, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    let config = config.map_err(|error| format!("the kubeconfig does not do: {}", one_line(&error)))?;
    Client::try_from(config).map_err(|error| one_line(&error))
}

fn port_named(pod: &Pod, name: &str) -> Option<u16> {
    let mut ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.container_port).ok()
}

/// An error and its causes.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Some errors have their cause's text already.
        if !text.contains(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}
