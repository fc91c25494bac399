//! The control service's answers about policies.

use super::calls::{Capture, config, connect};
use crate::{
    enrich::{
        ipcache::IpCache,
        source::{Pod, Rank, Snapshot, Window},
    },
    policy::{Policies, PolicyConfig, Updater},
    serve::{ServeConfig, start},
    store::{Store, StoreConfig},
};
use observer_policy::model::Mode;
use observer_proto::control::{
    ExplainPolicyRequest, ListPoliciesRequest, PolicyEnd,
    control_client::ControlClient,
    explain_policy_response::Outcome,
    policy::{self, SetBy},
    policy_end::End,
};
use std::{fs, path::Path, sync::Arc};
use tonic::Code;

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop, annotations: {observer/policy-mode: enforce}}
spec:
  podSelector: {}
  ingress: [{ports: [{port: 80}]}]
";

fn policies(folder: &Path) -> Arc<Policies> {
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
    let config = PolicyConfig { files: vec![file], mode: Mode::Audit, ..PolicyConfig::default() };
    Arc::clone(Updater::load(config, "default", cache).unwrap().policies())
}

#[tokio::test]
async fn policies_are_listed_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let config = ServeConfig { policies: Some(policies(directory.path())), ..config(directory.path()) };
    let socket = config.control_socket.clone();
    let _server = start(config, store, Arc::new(Capture)).await.unwrap();
    let mut client = ControlClient::new(connect(&socket).await);

    let listed = client.list_policies(ListPoliciesRequest::default()).await.unwrap().into_inner();
    assert_eq!((&*listed.node_name, &*listed.problem, listed.loaded.is_some()), ("default/n1", "", true));
    let [policy] = &listed.policies[..] else { panic!("{listed:?}") };
    assert_eq!((&*policy.name, &policy.endpoints[..]), ("web", &["shop/web-0".to_owned()][..]));
    assert_eq!((policy.mode(), policy.mode_set_by()), (policy::Mode::Enforce, SetBy::PolicyAnnotation));
    assert_eq!(policy.hits.unwrap(), observer_proto::control::PolicyHits::default());
    let [warning] = &policy.warnings[..] else { panic!("{policy:?}") };
    assert!(warning.problem.contains("enforce, which is not built in yet"), "{warning:?}");
    let of_none = ListPoliciesRequest { namespace: "other".into(), ..ListPoliciesRequest::default() };
    assert_eq!(client.list_policies(of_none).await.unwrap().into_inner().policies, []);

    let end = |end| Some(PolicyEnd { end: Some(end) });
    let question = |port| ExplainPolicyRequest {
        source: end(End::Address("203.0.113.9".into())),
        destination: end(End::Pod("shop/web-0".into())),
        protocol: 6,
        port,
        ..ExplainPolicyRequest::default()
    };
    for (port, outcome) in [(80, Outcome::Allowed), (81, Outcome::Denied)] {
        let explained = client.explain_policy(question(port)).await.unwrap().into_inner();
        assert_eq!(explained.outcome(), outcome, "{explained:?}");
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
}
