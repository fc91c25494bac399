//! What a replay is told on the command line.

/// Options whose values come from a recording where one is played.
pub(super) const FROM_THE_RECORDING: [&str; 19] = [
    "node_name",
    "cluster",
    "inventory",
    "kubernetes",
    "kubeconfig",
    "kubernetes_policies",
    "kubernetes_peers",
    "kubernetes_events",
    "local_namespaces",
    "interfaces",
    "aggregation",
    "new_flow_cap",
    "l7",
    "l7_ports",
    "ignore_drop_reasons",
    "drops_host_wide",
    "cidrs",
    "flow_ring_kib",
    "priority_ring_kib",
];

/// How many times as fast as it was recorded; nothing: as fast as can be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Speed(pub(super) Option<f64>);

/// `max`, or a number.
pub(super) fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed(None));
    }
    match text.parse::<f64>() {
        Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed(Some(times))),
        _ => Err("a number above 0 is needed, such as 10 or 0.5, or `max`".to_owned()),
    }
}
