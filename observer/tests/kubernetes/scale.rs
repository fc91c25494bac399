//! A cluster of many pods: how soon all of them are known, how soon a change is, and what memory their names take. 25,000
//! with `SOAK` set.

use crate::{
    names::{Bed, SOON, resource},
    support::{Daemon, PATIENCE, can_run, late, scaled},
    world::list,
};
use http::{Method, Request, header::CONTENT_TYPE};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use observer_lab::netns;
use observer_proto::{
    flow::agent_event::Notification,
    observer::{GetAgentEventsRequest, observer_client::ObserverClient},
};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const REPLICAS: u32 = 4;
const NAMESPACES: u32 = 50;
/// Requests at a time.
const AT_ONCE: u32 = 32;
const CHANGES: u32 = 300;

/// None of the lab's.
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a80_0000 + n)
}

fn path(n: u32) -> String {
    format!("/api/v1/namespaces/team-{}/pods/application-{}-{n}", n / REPLICAS % NAMESPACES, n / REPLICAS)
}

/// A pod of a workload, without its status.
fn pod(n: u32) -> Value {
    let app = n / REPLICAS;
    let labels = json!({
        "app": format!("application-{app}"),
        "app.kubernetes.io/instance": format!("application-{app}"),
        "app.kubernetes.io/part-of": "store",
        "pod-template-hash": format!("{app:08x}"),
        "tier": "backend",
    });
    let name = path(n).rsplit('/').next().unwrap().to_owned();
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("application-{app}-{app:08x}"), "uid": "x",
        "controller": true,
    });
    let ports = json!([{ "name": "http", "containerPort": 8080 }]);
    let container = json!({ "name": "main", "image": "registry/image:tag", "ports": ports });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels, "ownerReferences": [owner] },
        // Of nodes that nobody plays.
        "spec": { "nodeName": format!("far-{}", n % 500), "serviceAccountName": "default", "containers": [container] },
    })
}

/// That it runs, with this address.
fn status(ip: Ipv4Addr) -> Value {
    json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } })
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
    client.request_text(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap();
}

/// Says of a pod that is there what its address is.
async fn move_to(client: &Client, n: u32, ip: Ipv4Addr) {
    send(client, Method::PATCH, &format!("{}/status", path(n)), &status(ip)).await;
}

/// Runs a client of the API on the first node.
fn on_the_api<T: Send>(bed: &Bed, work: impl AsyncFnOnce(Client) -> T + Send) -> T {
    let node = bed.netns("", "n1");
    let kubeconfig = bed.cluster.admin();
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ok(runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
            let config =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            work(Client::try_from(config).unwrap()).await
        }))
    };
    netns::inside(&node, work).unwrap()
}

fn make_pods(bed: &Bed, count: u32) {
    let namespaces: Vec<Value> = (0..NAMESPACES)
        .map(|n| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": format!("team-{n}") } }))
        .collect();
    bed.cluster.apply(&list(&namespaces));
    on_the_api(bed, async |client| {
        let mut workers = JoinSet::new();
        for first in 0..AT_ONCE {
            let client = client.clone();
            workers.spawn(async move {
                for n in (first..count).step_by(AT_ONCE as usize) {
                    let path = path(n);
                    let (folder, _) = path.rsplit_once('/').unwrap();
                    send(&client, Method::POST, folder, &pod(n)).await;
                    move_to(&client, n, address(n)).await;
                }
            });
        }
        workers.join_all().await;
    });
}

/// Memory that is a process's own, KiB; where there are many pods, once the allocator has given back what is free, which
/// it does within five seconds and tells nobody.
fn own_memory(daemon: &Daemon) -> u64 {
    std::thread::sleep(scaled(Duration::ZERO, Duration::from_secs(12)));
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Moves pods to new addresses one after the other; how long each takes from the request to the name at the address.
fn changes(bed: &Bed, daemon: &Daemon, count: u32) -> Vec<Duration> {
    let (seen, is_seen) = mpsc::channel();
    let to = |n: u32| address(count + n);
    std::thread::scope(|scope| {
        let told = scope.spawn(move || {
            daemon.call(async |channel| {
                let request = GetAgentEventsRequest { follow: true, ..GetAgentEventsRequest::default() };
                let mut events =
                    ObserverClient::new(channel).get_agent_events(request).await.unwrap().into_inner();
                seen.send(Instant::now()).unwrap();
                for n in 0..CHANGES {
                    let wanted = format!("{}/32", to(n));
                    loop {
                        let next = tokio::time::timeout(PATIENCE, events.message()).await;
                        let event = next.unwrap_or_else(|_| panic!("nobody has {wanted}")).unwrap().unwrap();
                        let notification = event.agent_event.and_then(|event| event.notification);
                        if let Some(Notification::IpcacheUpdate(update)) = notification
                            && update.cidr == wanted
                        {
                            assert!(path(n).ends_with(&format!("/{}", update.pod_name)), "{update:?}");
                            break;
                        }
                    }
                    seen.send(Instant::now()).unwrap();
                }
            });
        });
        is_seen.recv().unwrap();
        let times = on_the_api(bed, async move |client| {
            let mut times = Vec::new();
            for n in 0..CHANGES {
                let begun = Instant::now();
                move_to(&client, n, to(n)).await;
                times.push(is_seen.recv().unwrap() - begun);
            }
            times
        });
        told.join().unwrap();
        times
    })
}

#[test]
fn many_pods_are_known_soon_and_so_are_their_changes() {
    if !can_run("kubernetes: many pods") {
        return;
    }
    let count = scaled(1000, 25_000);
    let bed = Bed::new("k8sscale");
    let kubeconfig = bed.cluster.kubeconfig_of("kube-system", "observer");
    let has_pods = |daemon: &Daemon, count: u32| {
        late::until("all pods", || {
            let pods = resource(daemon, "pods");
            (pods.state == "synced" && pods.objects == u64::from(count)).then_some(())
        });
    };
    let few = bed.lab.scenario().pods.len() as u32;
    let daemon = Daemon::spawn(bed.names_alone(&kubeconfig), tempfile::tempdir().unwrap());
    has_pods(&daemon, few);
    let without = own_memory(&daemon);
    drop(daemon);

    let begun = Instant::now();
    make_pods(&bed, count);
    println!("{count} pods made in {:?}", begun.elapsed());
    let begun = Instant::now();
    let daemon = Daemon::spawn(bed.names_alone(&kubeconfig), tempfile::tempdir().unwrap());
    has_pods(&daemon, few + count);
    let ready = begun.elapsed();
    let names = own_memory(&daemon).saturating_sub(without);
    println!("ready after {ready:?}; their names take {names} KiB beside {without} KiB");
    let mut times = changes(&bed, &daemon, count);
    times.sort_unstable();
    let (median, last) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("a change is seen after {median:?}, 99 of 100 within {last:?}");
    assert!(last < SOON || cfg!(debug_assertions), "{times:?}");
    assert!(names < 100 << 10, "{names} KiB");
}
