//! Kubernetes Events, the one thing that is written: a pod's owner reads there what became of its packets.

use crate::{Access, Timing, api::Api};
use http::{Request, header};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::json;

/// Writes Events about pods.
pub struct EventPoster {
    api: Api,
    node: String,
}

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Why, in a word such as `PacketDrop`.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

impl EventPoster {
    /// For the daemon of this node.
    pub fn new(access: Access, node: String) -> Self {
        Self { api: Api::new(access, Timing::default()), node }
    }

    /// Writes one; tried once.
    pub async fn post(&self, event: &Event) -> Result<(), String> {
        let now = Timestamp::now();
        let time = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        let Event { namespace, pod, uid, reason, message } = event;
        let body = json!({
            "apiVersion": "v1",
            "kind": "Event",
            // As others name theirs: an Event can't be told from the next one by less.
            "metadata": { "namespace": namespace, "name": format!("{pod}.{:x}", now.as_nanosecond()) },
            "involvedObject": { "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid },
            "reason": reason,
            "message": message,
            "type": "Warning",
            "source": { "component": "observer", "host": self.node },
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        });
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request =
            request.body(Body::from(body.to_string().into_bytes())).map_err(|error| error.to_string())?;
        self.api.send(request).await.map(drop).map_err(|trouble| {
            self.api.forget();
            trouble.to_string()
        })
    }
}
