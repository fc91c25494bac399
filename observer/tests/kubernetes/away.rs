//! What becomes of names while a real API server is killed or stands still, how often it is asked meanwhile, and how soon all
//! is right when it is back.

use crate::{
    names::{Bed, CILIUM, between, flow, resource, synced},
    support::{can_run, late},
};
use observer_inventory::Surroundings;
use observer_kubernetes::{Access, Batch, Config, Resource, Shown, Since, Sink, State, Timing};
use observer_lab::netns;
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// What is promised of the time after a server is back.
const BACK: Duration = Duration::from_secs(10);

/// How many connections by TCP the node itself has opened.
fn opened(bed: &Bed) -> u64 {
    let snmp = netns::inside(&bed.netns("", "n1"), || Ok(fs::read_to_string("/proc/thread-self/net/snmp")));
    let snmp = snmp.unwrap().unwrap();
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp: ")).map(|line| line.split(' '));
    let (mut names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names.position(|name| name == "ActiveOpens").unwrap();
    values.map(|value| value.parse().unwrap_or(0)).nth(at).unwrap()
}

/// That no more than one request a second was made, by connections: one that fails takes its connection with it.
fn asked_slowly(bed: &Bed, before: u64, since: Instant, pace: Duration) {
    let (asked, took) = (opened(bed) - before, since.elapsed());
    println!("{asked} connections in {took:?}");
    let most = took.as_secs_f64() / pace.as_secs_f64() + 1.0;
    assert!((1.0..=most).contains(&(asked as f64)), "{asked} in {took:?}");
}

/// Another pod takes the first one's place.
fn replace_pod(bed: &Bed) {
    let mut pod = bed.scenario().pods[0].clone();
    bed.cluster.kubectl(&["delete", "pod", &pod.name, "-n", "web", "--force", "--grace-period=0"]);
    "client-3".clone_into(&mut pod.name);
    bed.cluster.run_pod(&bed.scenario(), &pod);
}

#[test]
fn a_server_that_is_killed_is_asked_slowly_and_followed_at_once_when_it_is_back() {
    if !can_run("kubernetes: the API killed") {
        return;
    }
    let mut bed = Bed::new("k8skilled");
    let daemon = bed.daemon(&bed.cluster.kubeconfig_of("kube-system", "observer"));
    synced(&daemon, &CILIUM);
    bed.cluster.kill_server();
    let (killed, before) = (Instant::now(), opened(&bed));
    late::until("the watch is broken", || (resource(&daemon, "pods").state == "failing").then_some(()));
    let follower = daemon.follow(between("web/client-1", "shop/server-2"));
    bed.play("direct-1");
    follower.until("client-1 to server-2 without an API", flow);
    // As long as the server is to be away.
    std::thread::sleep(Duration::from_secs(12).saturating_sub(killed.elapsed()));
    asked_slowly(&bed, before, killed, Timing::default().pace);
    bed.cluster.start_server();
    let back = Instant::now();
    replace_pod(&bed);
    synced(&daemon, &CILIUM);
    let took = back.elapsed();
    println!("all is known again {took:?} after the server was ready");
    assert!(took <= BACK, "{took:?}");
    let follower = daemon.follow(between("web/client-3", "shop/server-2"));
    bed.play("direct-1");
    follower.until("client-3 to server-2", flow);
}

#[derive(Clone, Default)]
struct Pods(Arc<Mutex<BTreeMap<String, String>>>);

impl Pods {
    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().values().any(|known| known == name)
    }
}

impl Sink for Pods {
    fn pods(&mut self, batch: Batch, _: Since) {
        let mut pods = self.0.lock().unwrap();
        pods.retain(|uid, _| !batch.gone.contains(uid));
        pods.extend(batch.pods.into_iter().map(|pod| (pod.uid, pod.name.to_string())));
    }

    fn surroundings(&mut self, _: Surroundings) {}

    fn pods_are_complete(&mut self) {}

    fn confirm(&mut self) {}
}

#[test]
fn names_get_stale_by_a_server_that_stands_still_and_are_right_when_it_goes_on() {
    // All of it so many times as fast: the watches are the daemon's own, in this process.
    const TIMES: u32 = 5;
    if !can_run("kubernetes: the API frozen") {
        return;
    }
    let bed = Bed::new("k8sfrozen");
    let timing = Timing::default().faster(TIMES);
    let pods = Pods::default();
    let config = Config {
        access: Access::Kubeconfig(bed.cluster.kubeconfig_of("kube-system", "observer")),
        node: "n1".to_owned(),
        cluster: "default".to_owned(),
        peers: None,
        policies: None,
        timing: timing.clone(),
    };
    let shown = Shown::new(&config);
    let board = Arc::clone(&shown.board);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let watches = {
        let (node, shown, sink) = (bed.netns("", "n1"), shown, Box::new(pods.clone()));
        let follow = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    never = observer_kubernetes::run(config, shown, sink) => match never {},
                    _ = ended => {}
                }
            });
            Ok(())
        };
        std::thread::spawn(move || netns::inside(&node, follow).unwrap())
    };
    let are = |state: State| {
        board.status().iter().all(|one| one.state == state || one.resource == Resource::CidrGroups)
    };
    late::until("all are told", || are(State::Synced).then_some(()));
    assert!(pods.has("client-1"));

    bed.cluster.freeze();
    let frozen = Instant::now();
    late::until("all are stale", || are(State::Stale).then_some(()));
    println!("stale after {:?}, {TIMES} times as fast", frozen.elapsed());
    assert!(frozen.elapsed() + timing.watch.end >= timing.stale, "{:?}", frozen.elapsed());
    let (since, before) = (Instant::now(), opened(&bed));
    // Long enough for some that wait for an answer in vain.
    std::thread::sleep(timing.answer * 3);
    asked_slowly(&bed, before, since, timing.pace);
    assert!(are(State::Stale) && pods.has("client-1"));
    bed.cluster.thaw();
    let back = Instant::now();
    replace_pod(&bed);
    late::until("what changed", || (pods.has("client-3") && !pods.has("client-1")).then_some(()));
    late::until("all are told", || are(State::Synced).then_some(()));
    println!("all is known again {:?} after the server went on", back.elapsed());
    assert!(back.elapsed() <= BACK, "{:?}", back.elapsed());
    end.send(()).unwrap();
    watches.join().unwrap();
}
