//! What reads flows and counts for the dashboard, which itself knows nothing of connections.

mod counts;
mod file;
mod flows;

use crate::{connect::Connection, connect::Target, rpc, settings::Settings};
use observe_tui::link::{Ask, Message};
use observer_proto::observer::{GetNamespacesRequest, ServerStatusRequest, observer_client::ObserverClient};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

/// What the dashboard has not taken yet; more waits at the server, which says what it lost.
const QUEUE: usize = 4096;
/// Questions follow keys.
const ASKS: usize = 16;
/// How often the server is asked how it is.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// How often, counted in those, it is asked for its namespaces.
const NAMESPACES_EVERY: u32 = 30;

/// The dashboard's end.
pub(crate) struct Ends {
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) asks: mpsc::Sender<Ask>,
}

/// A task that ends with whoever holds it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(tokio::spawn(future))
}

/// What the readers share.
#[derive(Clone)]
struct Reader {
    target: Arc<Target>,
    settings: Arc<Settings>,
    /// The present connection, which the flows' reader makes.
    connection: watch::Receiver<Option<Connection>>,
    to: mpsc::Sender<Message>,
}

impl Reader {
    /// The next connection that there is.
    async fn connected(&mut self) -> Connection {
        loop {
            let connection = self.connection.borrow_and_update().clone();
            if let Some(connection) = connection {
                return connection;
            }
            if self.connection.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Reads from a server.
pub(crate) fn from_server(target: Target, settings: Settings) -> Ends {
    let (to, messages) = mpsc::channel(QUEUE);
    let (asks, mut asked) = mpsc::channel(ASKS);
    tokio::spawn(async move {
        let (made, connection) = watch::channel(None);
        let reader = Reader { target: Arc::new(target), settings: Arc::new(settings), connection, to };
        let made = Arc::new(made);
        let _status = start(status(reader.clone()));
        // What reads now; it ends with what takes its place.
        let mut reading: [Option<Task>; 3] = [None, None, None];
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Flows { run, filters, last } => {
                    // The old one first: of two, the first would go on telling.
                    reading[0] = None;
                    reading[0] = Some(start(flows::read(reader.clone(), made.clone(), run, filters, last)));
                }
                Ask::Counts { topic, window } => {
                    reading[1] = None;
                    reading[1] = Some(start(counts::read(reader.clone(), topic, window)));
                }
                Ask::Explain { uuid, request } => {
                    reading[2] = Some(start(counts::explain(reader.clone(), uuid, *request)));
                }
            }
        }
    });
    Ends { messages, asks }
}

/// Reads from files.
pub(crate) fn from_files(files: Vec<PathBuf>) -> Ends {
    let (to, messages) = mpsc::channel(QUEUE);
    let (asks, asked) = mpsc::channel(ASKS);
    tokio::spawn(file::read(files, asked, to));
    Ends { messages, asks }
}

/// Asks the server how it is, as long as there is one.
async fn status(mut reader: Reader) {
    for round in 0_u32.. {
        let mut client = ObserverClient::new(reader.connected().await);
        let settings = &reader.settings;
        if let Ok(answer) = client.server_status(rpc::request(settings, ServerStatusRequest {})).await {
            let told = Message::Status(Box::new(answer.into_inner()));
            if reader.to.send(told).await.is_err() {
                return;
            }
        }
        if round.is_multiple_of(NAMESPACES_EVERY)
            && let Ok(answer) = client.get_namespaces(rpc::request(settings, GetNamespacesRequest {})).await
        {
            let names = answer.into_inner().namespaces.into_iter().map(|own| own.namespace).collect();
            if reader.to.send(Message::Namespaces(names)).await.is_err() {
                return;
            }
        }
        sleep(STATUS_EVERY).await;
    }
}
