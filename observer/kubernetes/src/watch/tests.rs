//! What becomes of names while the API server is away, in every way, and how soon they are right again.

use super::*;
use crate::{
    ApiPolicies, Since, State,
    mock::{CIDR_GROUPS, Mock, Mode, NAMESPACES, PODS, until},
    pods::Batch,
};
use observer_inventory::{Pod, Surroundings};
use observer_policy::source::Options;
use std::collections::BTreeMap;

#[derive(Default)]
struct Told {
    pods: BTreeMap<String, Pod>,
    surroundings: Surroundings,
    complete: bool,
}

struct Teller(Arc<Mutex<Told>>);

impl Sink for Teller {
    fn pods(&mut self, batch: Batch, _: Since) {
        let mut told = self.0.lock().unwrap();
        for uid in batch.gone {
            told.pods.remove(&uid);
        }
        told.pods.extend(batch.pods.into_iter().map(|pod| (pod.uid.clone(), pod)));
    }

    fn surroundings(&mut self, surroundings: Surroundings) {
        self.0.lock().unwrap().surroundings = surroundings;
    }

    fn pods_are_complete(&mut self) {
        self.0.lock().unwrap().complete = true;
    }

    fn confirm(&mut self) {}
}

/// A daemon's watches beside their API server.
struct Bed {
    mock: Mock,
    board: Arc<Board>,
    policies: Arc<ApiPolicies>,
    told: Arc<Mutex<Told>>,
    _watches: JoinSet<Infallible>,
}

impl Bed {
    fn new(mock: Mock) -> Self {
        let config = Config {
            access: mock.access(),
            node: "n1".to_owned(),
            cluster: "default".to_owned(),
            peers: Some("observer/app=observer".parse().unwrap()),
            policies: Some(Options::default()),
            timing: Timing::default(),
        };
        let shown = Shown::new(&config);
        let told = Arc::new(Mutex::new(Told::default()));
        let mut watches = JoinSet::new();
        let sink = Box::new(Teller(Arc::clone(&told)));
        watches.spawn(run(config, shown.clone(), sink));
        let Shown { board, policies, .. } = shown;
        Self { mock, board, policies: policies.unwrap(), told, _watches: watches }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.told().pods.values().map(|pod| pod.name.to_string()).collect()
    }

    fn pod(&self, name: &str) -> bool {
        self.names().iter().any(|known| known == name)
    }

    fn state(&self, resource: Resource) -> State {
        self.board.of(resource).unwrap().state
    }

    async fn synced(&self) -> Duration {
        let of_builtin = || {
            let status = self.board.status();
            status.iter().all(|one| {
                one.state == if one.resource.is_optional() { State::Absent } else { State::Synced }
            })
        };
        until("synced", of_builtin).await
    }

    /// That no second had more requests than that, from then on.
    fn asked_slowly(&self, since: Instant) {
        let requests = self.mock.requests(since);
        let took = since.elapsed().as_secs_f64();
        assert!(requests.len() as f64 <= took + 1.0, "{} in {took} s: {requests:?}", requests.len());
        for pair in requests.windows(2) {
            let apart = pair[1].0 - pair[0].0;
            assert!(apart >= Duration::from_millis(990), "{apart:?}: {pair:?}");
        }
    }
}

fn put(mock: &Mock, name: &str, ip: &str) {
    let text = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"u-{name}","resourceVersion":"VERSION",
        "labels":{{"app":"{name}"}}}},"spec":{{"nodeName":"n1","serviceAccountName":"web"}},
        "status":{{"phase":"Running","podIP":"{ip}"}}}}"#
    );
    mock.put(PODS, name, &text.replace('\n', ""));
}

fn shop() -> Mock {
    let mock = Mock::new();
    let namespace = r#"{"metadata":{"name":"shop","resourceVersion":"VERSION","labels":{"team":"red"}}}"#;
    mock.put(NAMESPACES, "shop", namespace);
    put(&mock, "one", "10.0.0.1");
    mock
}

/// What is promised of the time after a server is back.
const BACK: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn what_changes_is_told_at_once_and_watches_go_on() {
    let bed = Bed::new(shop());
    bed.synced().await;
    assert!(bed.told().complete);
    assert!(
        bed.told().pods["u-one"].labels.contains(&"k8s:io.cilium.k8s.namespace.labels.team=red".to_owned())
    );
    put(&bed.mock, "two", "10.0.0.2");
    until("two", || bed.pod("two")).await;
    // Over the ends of several watches.
    sleep(200).await;
    bed.mock.delete(PODS, "one");
    put(&bed.mock, "three", "10.0.0.1");
    until("three", || bed.names() == ["three", "two"]).await;
    let pods = bed.board.of(Resource::Pods).unwrap();
    assert_eq!((pods.lists, pods.failures, pods.objects, pods.state), (1, 0, 2, State::Synced));
    // A namespace's labels are its pods'.
    let namespace = r#"{"metadata":{"name":"shop","resourceVersion":"VERSION","labels":{"team":"blue"},
        "annotations":{"observer/policy-mode":"enforce"}}}"#;
    bed.mock.put(NAMESPACES, "shop", &namespace.replace('\n', ""));
    let is_blue = || {
        let label = "k8s:io.cilium.k8s.namespace.labels.team=blue";
        bed.told().pods.values().all(|pod| pod.labels.iter().any(|own| own == label))
    };
    until("blue", is_blue).await;
    until("its mode", || bed.told().surroundings.policy_modes.len() == 1).await;
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_yet_is_found_when_it_comes() {
    let mock = shop();
    mock.set(Mode::Down);
    let begun = Instant::now();
    let bed = Bed::new(mock);
    sleep(600).await;
    assert!(!bed.told().complete);
    bed.asked_slowly(begun);
    assert!(bed.board.of(Resource::Pods).unwrap().error.unwrap().contains("connection refused"));
    bed.mock.set(Mode::Up);
    assert!(bed.synced().await <= BACK);
    assert_eq!(bed.names(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn names_stay_while_the_server_is_away_and_are_right_soon_after() {
    for (mode, forgets) in [
        (Mode::Down, false),
        (Mode::Down, true),
        (Mode::Code(429, Some(1)), false),
        (Mode::Code(429, Some(3600)), true),
        (Mode::Code(500, None), false),
        (Mode::Code(503, None), true),
        (Mode::Code(401, None), false),
    ] {
        let bed = Bed::new(shop());
        bed.synced().await;
        let away = Instant::now();
        bed.mock.set(mode);
        sleep(12).await;
        assert_eq!(bed.state(Resource::Pods), State::Failing, "{mode:?}");
        sleep(60).await;
        assert_eq!(bed.state(Resource::Pods), State::Stale, "{mode:?}");
        assert_eq!(bed.names(), ["one"], "{mode:?}");
        bed.asked_slowly(away);
        put(&bed.mock, "two", "10.0.0.2");
        bed.mock.delete(PODS, "one");
        if forgets {
            bed.mock.forget();
        }
        bed.mock.set(Mode::Up);
        let took = until("two", || bed.names() == ["two"]).await;
        assert!(took <= BACK, "{mode:?}: {took:?}");
        assert!(bed.synced().await <= BACK, "{mode:?}");
        let pods = bed.board.of(Resource::Pods).unwrap();
        assert_eq!(pods.lists, if forgets { 2 } else { 1 }, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_server_is_seen_as_such_and_asked_no_faster() {
    let bed = Bed::new(shop());
    bed.synced().await;
    bed.mock.set(Mode::Frozen);
    let took = until("stale", || bed.state(Resource::Pods) == State::Stale).await;
    assert!(took <= Duration::from_secs(61), "{took:?}");
    let since = Instant::now();
    sleep(240).await;
    bed.asked_slowly(since);
    assert!(bed.board.of(Resource::Pods).unwrap().failures > 0);
    put(&bed.mock, "two", "10.0.0.2");
    bed.mock.set(Mode::Up);
    let took = until("two", || bed.pod("two")).await;
    assert!(took <= BACK, "{took:?}");
    assert!(bed.synced().await <= BACK);
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_within_a_line_is_read_again() {
    let bed = Bed::new(shop());
    bed.synced().await;
    bed.mock.set(Mode::Half);
    put(&bed.mock, "two", "10.0.0.2");
    sleep(30).await;
    assert_eq!(bed.names(), ["one"]);
    bed.mock.set(Mode::Up);
    assert!(until("two", || bed.pod("two")).await <= BACK);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_forgotten_costs_a_list_and_no_time() {
    let bed = Bed::new(shop());
    bed.synced().await;
    sleep(20).await;
    bed.mock.forget();
    put(&bed.mock, "two", "10.0.0.2");
    let took = until("two", || bed.pod("two")).await;
    assert!(took <= Duration::from_millis(100), "{took:?}");
    let pods = bed.board.of(Resource::Pods).unwrap();
    assert_eq!((pods.lists, pods.failures), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn rights_that_are_taken_and_given_concern_only_what_they_are_for() {
    let mock = shop();
    mock.forbid(NAMESPACES, true);
    let begun = Instant::now();
    let bed = Bed::new(mock);
    // Pods have names without their namespaces' labels.
    until("one", || bed.pod("one")).await;
    assert!(begun.elapsed() <= BACK, "{:?}", begun.elapsed());
    assert!(bed.board.of(Resource::Namespaces).unwrap().error.unwrap().starts_with("403 Forbidden: "));
    bed.mock.forbid(NAMESPACES, false);
    let is_red = || bed.told().pods["u-one"].labels.iter().any(|label| label.ends_with("team=red"));
    assert!(until("red", is_red).await <= BACK);
    bed.mock.forbid(PODS, true);
    let forbidden = Instant::now();
    // An open watch goes on to its end.
    until("forbidden", || bed.state(Resource::Pods) == State::Failing).await;
    assert!(forbidden.elapsed() <= Duration::from_secs(50));
    let services = r#"{"metadata":{"name":"api","namespace":"shop","resourceVersion":"VERSION"},
        "spec":{"clusterIP":"10.96.0.7","ports":[{"port":80,"targetPort":"http","nodePort":30080}]}}"#;
    bed.mock.put("/api/v1/services", "shop/api", &services.replace('\n', ""));
    until("the service", || bed.told().surroundings.services.len() == 1).await;
    assert_eq!(bed.names(), ["one"]);
    bed.mock.forbid(PODS, false);
    assert!(bed.synced().await <= BACK);
}

#[tokio::test(start_paused = true)]
async fn the_api_servers_are_those_behind_its_service() {
    const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
    let put = |mock: &Mock, namespace: &str, ip: &str| {
        let slice = format!(
            r#"{{"metadata":{{"name":"kubernetes","namespace":"{namespace}","resourceVersion":"VERSION","labels":{{"kubernetes.io/service-name":"kubernetes"}}}},"endpoints":[{{"addresses":["{ip}"]}}]}}"#
        );
        mock.put(SLICES, namespace, &slice);
    };
    let mock = shop();
    put(&mock, "default", "192.168.0.9");
    put(&mock, "shop", "10.0.0.9");
    let bed = Bed::new(mock);
    let are = |ips: &[&str]| {
        let told = bed.told().surroundings.kube_apiservers.clone();
        told.iter().map(ToString::to_string).eq(ips.iter().map(ToString::to_string))
    };
    until("the first", || are(&["192.168.0.9"])).await;
    put(&bed.mock, "default", "192.168.0.8");
    until("another", || are(&["192.168.0.8"])).await;
    // What a new list says counts as well.
    bed.mock.set(Mode::Down);
    sleep(20).await;
    put(&bed.mock, "default", "192.168.0.7");
    bed.mock.forget();
    bed.mock.set(Mode::Up);
    until("listed anew", || are(&["192.168.0.7"])).await;
    bed.mock.delete(SLICES, "default");
    until("none", || are(&[])).await;
}

#[tokio::test(start_paused = true)]
async fn definitions_come_and_go() {
    let bed = Bed::new(shop());
    bed.synced().await;
    sleep(100).await;
    bed.mock.define(CIDR_GROUPS, true);
    let group = r#"{"metadata":{"name":"office","resourceVersion":"VERSION"},"spec":{"externalCIDRs":["10.1.2.3/16"]}}"#;
    bed.mock.put(CIDR_GROUPS, "office", group);
    let took = until("the group", || bed.told().surroundings.cidr_groups.len() == 1).await;
    assert!(took <= Duration::from_secs(35), "{took:?}");
    let groups = bed.board.of(Resource::CidrGroups).unwrap();
    assert_eq!((groups.state, groups.lists, groups.failures), (State::Synced, 1, 0));
    bed.mock.define(CIDR_GROUPS, false);
    until("no group", || bed.told().surroundings.cidr_groups.is_empty()).await;
    assert_eq!(bed.state(Resource::CidrGroups), State::Absent);
    assert_eq!(bed.state(Resource::Pods), State::Synced);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lists_in_pages_only_tells_the_same() {
    let mock = shop();
    mock.no_streams();
    put(&mock, "two", "10.0.0.2");
    let bed = Bed::new(mock);
    assert!(bed.synced().await <= BACK);
    assert_eq!(bed.names(), ["one", "two"]);
    bed.mock.delete(PODS, "one");
    put(&bed.mock, "three", "10.0.0.3");
    until("three", || bed.names() == ["three", "two"]).await;
    bed.mock.set(Mode::Down);
    sleep(20).await;
    bed.mock.delete(PODS, "two");
    bed.mock.forget();
    bed.mock.set(Mode::Up);
    assert!(until("listed again", || bed.names() == ["three"]).await <= BACK);
}

#[tokio::test(start_paused = true)]
async fn policies_count_when_all_are_told_and_a_wrong_one_is_named() {
    let policy = |name: &str, port: u32| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"VERSION"}},"spec":{{"podSelector":{{}},"ingress":[{{"ports":[{{"port":{port}}}]}}]}}}}"#
        )
    };
    let mock = shop();
    mock.put("/apis/networking.k8s.io/v1/networkpolicies", "web", &policy("web", 80));
    let bed = Bed::new(mock);
    until("complete", || bed.policies.are_complete()).await;
    assert_eq!(bed.policies.all().0.len(), 1);
    bed.mock.put("/apis/networking.k8s.io/v1/networkpolicies", "bad", &policy("bad", 0));
    until("the problem", || bed.policies.all().1.len() == 1).await;
    assert_eq!(bed.policies.all().0.len(), 1);
    bed.mock.delete("/apis/networking.k8s.io/v1/networkpolicies", "web");
    until("none", || bed.policies.all().0.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn who_enforces_waits_for_all_that_can_be_had_and_for_pods_and_policies_however_long() {
    const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
    let mock = shop();
    for path in [PODS, NAMESPACES, POLICIES] {
        mock.forbid(path, true);
    }
    let node = r#"{"metadata":{"name":"n1","resourceVersion":"VERSION"}}"#;
    mock.put("/api/v1/nodes", "n1", node);
    let bed = Bed::new(mock);
    for (path, resource) in [(PODS, Resource::Pods), (POLICIES, Resource::NetworkPolicies)] {
        sleep(600).await;
        let untold = bed.board.untold();
        assert_eq!(untold[0].0, resource, "{untold:?}");
        assert!(untold[0].1.as_ref().unwrap().starts_with("403 Forbidden"), "{untold:?}");
        assert!(!bed.board.is_all_told());
        bed.mock.forbid(path, false);
    }
    let freed = Instant::now();
    bed.board.all_told().await;
    assert!(freed.elapsed() <= BACK, "{:?}", freed.elapsed());
    assert_eq!(bed.names(), ["one"]);
    assert_eq!(bed.told().surroundings.nodes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn daemons_are_found_by_their_pods() {
    let daemon = |phase: &str| {
        format!(
            r#"{{"metadata":{{"name":"observer-x","namespace":"observer","uid":"d","resourceVersion":"VERSION","labels":{{"app":"observer"}}}},"spec":{{"nodeName":"n2","hostNetwork":true}},"status":{{"phase":"{phase}","podIPs":[{{"ip":"fd00::2"}},{{"ip":"192.168.0.2"}}]}}}}"#
        )
    };
    let mock = shop();
    let node = r#"{"metadata":{"name":"n2","resourceVersion":"VERSION"},"status":{"addresses":[{"type":"InternalIP","address":"192.168.0.2"},{"type":"Hostname","address":"n2"}]}}"#;
    mock.put("/api/v1/nodes", "n2", node);
    mock.put(PODS, "observer-x", &daemon("Running"));
    let bed = Bed::new(mock);
    let peer = || bed.told().surroundings.nodes.first().and_then(|node| node.peer.clone());
    until("the peer", || peer().is_some()).await;
    assert_eq!(peer().unwrap().address, "192.168.0.2:4244");
    bed.mock.put(PODS, "observer-x", &daemon("Failed"));
    until("no peer", || peer().is_none()).await;
}
