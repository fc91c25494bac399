//! Looks into the kernel: how many there may be, and that none goes on for nobody.

use super::calls::{Capture, config, connect};
use crate::{
    serve::{Answer, Inspect, InspectError, ServeConfig, start},
    store::{Store, StoreConfig},
};
use observer_proto::control::{
    InspectRequest, InspectResponse, InspectedMap, control_client::ControlClient, inspect_request::What,
};
use std::sync::{Arc, Mutex, mpsc};
use tonic::Code;

/// Answers without end, and tells when nobody wants more.
#[derive(Debug)]
struct Endless(Mutex<mpsc::Sender<u32>>);

impl Inspect for Endless {
    fn inspect(&self, request: &InspectRequest, answer: &Answer) -> Result<(), InspectError> {
        if request.what() == What::Rings {
            return Err(InspectError::Kernel("no such thing".to_owned()));
        }
        let part =
            || InspectResponse { maps: vec![InspectedMap::default(); 100], ..InspectResponse::default() };
        while answer.give(part()) {}
        self.0.lock().unwrap().send(request.limit).unwrap();
        Ok(())
    }
}

fn asked(what: What) -> InspectRequest {
    InspectRequest { what: what as i32, ..InspectRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ends_with_its_client_and_there_are_not_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let (ended, ends) = mpsc::channel();
    let inspect: Arc<dyn Inspect> = Arc::new(Endless(Mutex::new(ended)));
    let config = ServeConfig { inspect: Some(inspect), ..config(directory.path()) };
    let socket = config.control_socket.clone();
    let server = start(config, store, Arc::new(Capture)).await.unwrap();
    let mut client = ControlClient::new(connect(&socket).await);

    let mut looks = Vec::new();
    for _ in 0..4 {
        let mut parts = client.inspect(asked(What::Maps)).await.unwrap().into_inner();
        let first = parts.message().await.unwrap().unwrap();
        assert!(first.node_name == "default/n1" && first.time.is_some(), "{first:?}");
        assert_eq!(parts.message().await.unwrap().unwrap().maps.len(), 100);
        looks.push(parts);
    }
    let refused = client.inspect(asked(What::Maps)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    looks.pop();
    let limit = tokio::task::spawn_blocking(move || (ends.recv().unwrap(), ends)).await.unwrap();
    assert_eq!(limit.0, 1_000, "where no number is asked for");
    // Its place is free soon after it has told of its end.
    let mut parts = loop {
        match client.inspect(asked(What::Rings)).await {
            Ok(parts) => break parts.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
    };
    parts.message().await.unwrap();
    let failed = parts.message().await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::Internal, "no such thing"));
    // Those that go on do not hold up the end.
    server.shutdown().await;
    drop(looks);
}

#[tokio::test]
async fn a_recording_has_nothing_in_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _writer) = Store::new(StoreConfig::default());
    let config = config(directory.path());
    let socket = config.control_socket.clone();
    let _server = start(config, store, Arc::new(Capture)).await.unwrap();
    let mut client = ControlClient::new(connect(&socket).await);
    let refused = client.inspect(asked(What::Maps)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("recording"), "{refused}");
}
