//! The inventory file.

use crate::enrich::{
    ipcache::IpCache,
    source::{Pod, Rank, Snapshot, Window},
};
use observer_inventory::{InventoryError, parse};
use std::path::Path;

/// The most characters of an error: path and problem are cut at 1,000 each.
const LONGEST_ERROR: usize = 2_100;

/// The text of an inventory file.
pub fn inventory(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let snapshot = match parse(Path::new("inventory.yaml"), text, "n1") {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains(char::is_control) && line.chars().count() <= LONGEST_ERROR, "{line:?}");
            let InventoryError::Content { line: at, path, .. } = error else { panic!("{line}") };
            assert!(at as usize <= text.split(['\n', '\r']).count() && !path.is_empty(), "{line}");
            return;
        }
    };
    assert_eq!(parse(Path::new("inventory.yaml"), text, "n1").ok().as_ref(), Some(&snapshot));
    names_are_found(&snapshot);
}

/// Who is in the file is found by its address from then on, and no longer once it is gone.
fn names_are_found(snapshot: &Snapshot) {
    let cache = IpCache::new("n1");
    cache.replace(Rank::Inventory, snapshot.clone(), Window::exact(1_000));
    let owned = |pod: &&Pod| !pod.finished && !pod.host_network;
    let addresses = || {
        let pods = snapshot.pods.iter().filter(owned);
        pods.flat_map(|pod| pod.ips.iter().map(move |ip| (pod, *ip)))
    };
    for (pod, ip) in addresses() {
        let found = cache.lookup(ip, 2_000);
        assert_eq!((&*found.namespace, &found.pod_name), (&*pod.namespace, &pod.name), "{ip}");
        assert!(cache.lookup(ip, 500).pod_name.is_empty(), "{ip} before it was there");
    }
    for service in &snapshot.surroundings.services {
        for (ip, port) in
            service.addresses.iter().flat_map(|ip| service.ports.iter().map(move |port| (*ip, port)))
        {
            let found = cache.service(ip, port.port, port.protocol).unwrap();
            assert_eq!((&found.namespace, &found.name), (&service.namespace, &service.name), "{ip}");
        }
    }
    cache.replace(Rank::Inventory, Snapshot::default(), Window::exact(3_000));
    for (_, ip) in addresses() {
        assert!(cache.lookup(ip, 4_000).pod_name.is_empty(), "{ip} after it was gone");
    }
}
