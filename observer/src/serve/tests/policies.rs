//! The control service's answers about policies.

use super::calls::{Capture, config, connect};
use crate::{
    enrich::{
        ipcache::IpCache,
        source::{Pod, Rank, Snapshot, Window},
    },
    policy::{Cap, PolicyConfig, Updater},
    serve::{ServeConfig, start},
    store::{Store, StoreConfig},
};
use observer_policy::model::Mode;
use observer_proto::{
    control::{
        ExplainPolicyRequest, ListPoliciesRequest, PolicyEnd, SetPolicyModeRequest,
        control_client::ControlClient,
        explain_policy_response::Outcome,
        policy::{self, SetBy},
        policy_end::End,
    },
    flow::agent_event::Notification,
};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};
use tonic::Code;

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop, annotations: {observer/policy-mode: enforce}}
spec:
  podSelector: {}
  ingress: [{ports: [{port: 80}]}]
";

fn updater(folder: &Path) -> (Updater, Arc<IpCache>) {
    let file = folder.join("policy.yaml");
    fs::write(&file, POLICY).unwrap();
    let cache = Arc::new(IpCache::new("n1"));
    let pod = Pod {
        uid: "w".into(),
        namespace: "shop".into(),
        name: "web-0".into(),
        ips: vec!["10.0.0.1".parse().unwrap()],
        labels: vec!["k8s:io.kubernetes.pod.namespace=shop".into()],
        ..Pod::default()
    };
    cache.replace(Rank::Inventory, Snapshot { pods: vec![pod], ..Snapshot::default() }, Window::exact(0));
    let cap = Some(Cap { most: Mode::Audit, why: "a test drops nothing".into() });
    let config = PolicyConfig { files: vec![file], mode: Mode::Audit, cap, ..PolicyConfig::default() };
    (Updater::load(config, "default", Arc::clone(&cache), None).unwrap(), cache)
}

#[tokio::test]
async fn policies_are_listed_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let (updater, names) = updater(directory.path());
    let policies = Some(Arc::clone(updater.policies()));
    let updater = Some(Arc::new(Mutex::new(updater)));
    let config = ServeConfig { policies, updater, ..config(directory.path()) };
    let socket = config.control_socket.clone();
    let _server = start(config, store, Arc::new(Capture)).await.unwrap();
    let mut client = ControlClient::new(connect(&socket).await);

    let listed = client.list_policies(ListPoliciesRequest::default()).await.unwrap().into_inner();
    assert_eq!((&*listed.node_name, &*listed.problem, listed.loaded.is_some()), ("default/n1", "", true));
    let [policy] = &listed.policies[..] else { panic!("{listed:?}") };
    assert_eq!((&*policy.name, &policy.endpoints[..]), ("web", &["shop/web-0".to_owned()][..]));
    assert_eq!((policy.mode(), policy.mode_set_by()), (policy::Mode::Audit, SetBy::Cap));
    assert_eq!(policy.hits.unwrap(), observer_proto::control::PolicyHits::default());
    let [warning] = &policy.warnings[..] else { panic!("{policy:?}") };
    assert_eq!(warning.problem, "asks for mode enforce and is in mode audit: a test drops nothing");
    let of_none = ListPoliciesRequest { namespace: "other".into(), ..ListPoliciesRequest::default() };
    assert_eq!(client.list_policies(of_none).await.unwrap().into_inner().policies, []);

    let ask = |name: &str, mode: policy::Mode| SetPolicyModeRequest {
        name: name.to_owned(),
        mode: mode.into(),
        ..SetPolicyModeRequest::default()
    };
    let set = client.set_policy_mode(ask("web", policy::Mode::Observe)).await.unwrap().into_inner();
    let [policy] = &set.policies[..] else { panic!("{set:?}") };
    assert_eq!((policy.mode(), policy.mode_set_by()), (policy::Mode::Observe, SetBy::Command));
    assert_eq!((&*policy.kind, &policy.rules[..], &policy.warnings[..]), ("NetworkPolicy", &[][..], &[][..]));
    let listed = client.list_policies(ListPoliciesRequest::default()).await.unwrap().into_inner();
    let told = names.events().agent.read(0, 100).entries.into_iter().filter_map(|(_, event)| {
        let Some(Notification::PolicyUpdate(update)) = event.notification else { return None };
        Some(update.revision)
    });
    assert_eq!(
        (listed.revision, told.collect::<Vec<_>>()),
        (2, vec![1, 2]),
        "one number, by whomever it is told"
    );
    for (name, code) in [("", Code::InvalidArgument), ("none", Code::NotFound)] {
        let refused = client.set_policy_mode(ask(name, policy::Mode::Audit)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }

    let end = |end| Some(PolicyEnd { end: Some(end), at: String::new() });
    let question = |port| ExplainPolicyRequest {
        source: end(End::Address("203.0.113.9".into())),
        destination: end(End::Pod("shop/web-0".into())),
        protocol: 6,
        port,
        ..ExplainPolicyRequest::default()
    };
    for (port, outcome) in [(80, Outcome::Allowed), (81, Outcome::Denied)] {
        let explained = client.explain_policy(question(port)).await.unwrap().into_inner();
        assert_eq!((explained.outcome(), explained.revision), (outcome, 2), "{explained:?}");
    }
    let nobody = ExplainPolicyRequest { destination: end(End::Pod("shop/none".into())), ..question(80) };
    let refused = client.explain_policy(nobody).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("destination: no pod shop/none"), "{refused}");
}

#[tokio::test]
async fn without_policies_there_is_nothing_to_list_and_to_explain() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let config = config(directory.path());
    let socket = config.control_socket.clone();
    let _server = start(config, store, Arc::new(Capture)).await.unwrap();
    let mut client = ControlClient::new(connect(&socket).await);
    let listed = client.list_policies(ListPoliciesRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.policies, &*listed.node_name), (vec![], "default/n1"));
    let refused = client.explain_policy(ExplainPolicyRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--policy"), "{refused}");
    let refused = client.set_policy_mode(SetPolicyModeRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}
