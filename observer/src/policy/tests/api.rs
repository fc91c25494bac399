//! Policies of the Kubernetes API beside those of files.

use super::*;
use observer_kubernetes::{Access, Batch, Config, Resource, Shown, Since, Sink, Timing, by_hand::ByHand};
use observer_policy::source::Options;
use serde_json::json;

/// Names come from elsewhere here.
struct Nobody;

impl Sink for Nobody {
    fn pods(&mut self, _: Batch, _: Since) {}

    fn surroundings(&mut self, _: Surroundings) {}

    fn pods_are_complete(&mut self) {}

    fn confirm(&mut self) {}
}

fn api() -> (Shown, ByHand) {
    let config = Config {
        access: Access::Usual,
        node: "n1".to_owned(),
        cluster: "default".to_owned(),
        peers: None,
        policies: Some(Options::default()),
        timing: Timing::default(),
    };
    let shown = Shown::new(&config);
    let by_hand = ByHand::new(&config, shown.clone(), Box::new(Nobody));
    (shown, by_hand)
}

fn tell(by_hand: &mut ByHand, kind: &str, name: &str, port: u32) {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [{"ports": [{"port": port}]}]}});
    let line = json!({"type": kind, "object": object}).to_string();
    by_hand.line(Resource::NetworkPolicies, line.as_bytes()).unwrap();
}

#[test]
fn those_of_the_api_count_once_all_are_known_and_each_by_itself() {
    let (api, mut by_hand) = api();
    let file = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: file, namespace: shop}\n\
                spec: {podSelector: {matchLabels: {app: web}}}\n";
    let mut bed = Bed::new(Mode::Audit, file);
    let config = PolicyConfig {
        files: vec![bed.folder.path().to_owned()],
        of_kubernetes: true,
        ..PolicyConfig::default()
    };
    bed.updater = Updater::load(config, "default", Arc::clone(&bed.cache), Some(&api)).unwrap();
    let policies = Arc::clone(bed.updater.policies());
    bed.judge = Judge::new(Arc::clone(&policies), Arc::clone(&bed.cache));

    tell(&mut by_hand, "ADDED", "api", 80);
    bed.updater.follow_api();
    assert_eq!((policies.set().ids().len(), policies.set().revision), (1, 1), "not all are known");
    for resource in Resource::ALL {
        by_hand.end(resource);
    }
    bed.updater.follow_api();
    assert_eq!((policies.set().ids().len(), policies.set().revision), (2, 2));
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80"), ["ingress forwarded 3: NetworkPolicy shop/api []"]);
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:81"), ["ingress audit 0: NetworkPolicy shop/api []"]);
    bed.updater.follow_api();
    assert_eq!(policies.set().revision, 2, "nothing is new");

    // A wrong one changes nothing, and is told once; another one counts all the same.
    tell(&mut by_hand, "MODIFIED", "api", 70_000);
    tell(&mut by_hand, "ADDED", "more", 81);
    bed.updater.follow_api();
    tell(&mut by_hand, "MODIFIED", "more", 82);
    bed.updater.follow_api();
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80"), ["ingress forwarded 3: NetworkPolicy shop/api []"]);
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:82"), ["ingress forwarded 3: NetworkPolicy shop/more []"]);
    let problem = policies.problem().unwrap();
    assert!(problem.starts_with("NetworkPolicy shop/api: spec.ingress[0].ports[0].port: 70000"), "{problem}");
    assert_eq!(policies.counters.refused.load(Ordering::Relaxed), 1);

    // Of one name the file's counts.
    tell(&mut by_hand, "MODIFIED", "api", 80);
    tell(&mut by_hand, "ADDED", "file", 1);
    bed.updater.follow_api();
    assert_eq!(policies.set().ids().len(), 3);
    assert_eq!(
        policies.problem().unwrap(),
        "NetworkPolicy shop/file of the Kubernetes API is also in a file, which counts here"
    );
    tell(&mut by_hand, "DELETED", "file", 1);
    tell(&mut by_hand, "DELETED", "api", 80);
    bed.updater.follow_api();
    assert_eq!((policies.problem(), policies.set().ids().len()), (None, 2));
    // A file that is bad is named as long as it is, whatever the API tells.
    fs::write(bed.folder.path().join("policies.yaml"), "kind: [").unwrap();
    (0..3).for_each(|_| bed.updater.look());
    tell(&mut by_hand, "MODIFIED", "more", 83);
    bed.updater.follow_api();
    assert!(policies.problem().unwrap().contains("policies.yaml:1:"), "{:?}", policies.problem());
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:83"), ["ingress forwarded 3: NetworkPolicy shop/more []"]);
    // A changed file leaves the API's alone.
    fs::write(bed.folder.path().join("policies.yaml"), "").unwrap();
    (0..3).for_each(|_| bed.updater.look());
    assert_eq!((policies.set().ids().len(), policies.problem()), (1, None));
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:83"), ["ingress forwarded 3: NetworkPolicy shop/more []"]);
}

#[test]
fn a_service_without_a_selector_has_the_endpoints_that_are_told() {
    let (shown, mut by_hand) = api();
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: out, namespace: shop}\n\
                  spec: {endpointSelector: {matchLabels: {app: web}}, egress: [{toServices: [{k8sService: {serviceName: db}}]}]}\n";
    let mut bed = Bed::new(Mode::Audit, policy);
    let config = PolicyConfig { files: vec![bed.folder.path().to_owned()], ..PolicyConfig::default() };
    bed.updater = Updater::load(config, "default", Arc::clone(&bed.cache), Some(&shown)).unwrap();
    bed.judge = Judge::new(Arc::clone(bed.updater.policies()), Arc::clone(&bed.cache));
    let db = ServiceEntry { namespace: "shop".into(), name: "db".into(), ..ServiceEntry::default() };
    let surroundings = Surroundings { services: vec![db], ..Surroundings::default() };
    bed.cache.set_surroundings(Rank::Kubernetes, surroundings);
    let mut allows = |by_hand: &mut ByHand, kind: &str, ready: bool| {
        let labels = json!({"kubernetes.io/service-name": "db"});
        let object = json!({"metadata": {"name": "db-1", "namespace": "shop", "labels": labels},
            "endpoints": [{"addresses": ["203.0.113.9"], "conditions": {"ready": ready}}]});
        let line = json!({"type": kind, "object": object}).to_string();
        by_hand.line(Resource::EndpointSlices, line.as_bytes()).unwrap();
        by_hand.end(Resource::EndpointSlices);
        bed.updater.follow_names();
        let told = ["203.0.113.9:5432", "203.0.113.8:5432"].map(|to| bed.connect("10.0.0.1", to));
        let is_forwarded = |told: &Vec<String>| told[0].starts_with("egress forwarded ");
        assert!(!is_forwarded(&told[1]) && told[1][0].starts_with("egress audit "), "{told:?}");
        is_forwarded(&told[0])
    };
    assert!(!allows(&mut by_hand, "ADDED", false));
    assert!(allows(&mut by_hand, "MODIFIED", true));
    assert!(!allows(&mut by_hand, "DELETED", true));
}
