//! Flows of a server, over as many connections as it takes.

use super::Reader;
use crate::{
    connect::Connection,
    resume::{Backoff, Resume, Turn},
    rpc,
    session::may_pass,
    stream,
};
use observe_tui::link::Message;
use observer_proto::{encoded::Outline, filter::FilterLists, observer::GetFlowsRequest};
use std::sync::Arc;
use tokio::{sync::watch, time::sleep};
use tonic::Status;

/// Reads until nobody listens, or the server refuses.
pub(super) async fn read(
    reader: Reader,
    made: Arc<watch::Sender<Option<Connection>>>,
    run: u64,
    filters: FilterLists,
    last: u64,
) {
    let request = GetFlowsRequest {
        follow: true,
        number: last,
        whitelist: filters.whitelist,
        blacklist: filters.blacklist,
        ..GetFlowsRequest::default()
    };
    let mut flows = Flows {
        reader,
        made,
        run,
        request,
        resume: Resume::default(),
        backoff: Backoff::default(),
        tries: 0,
    };
    // That nobody listens is its end, and needs no word.
    let _ = flows.read().await;
}

struct Flows {
    reader: Reader,
    made: Arc<watch::Sender<Option<Connection>>>,
    run: u64,
    request: GetFlowsRequest,
    resume: Resume,
    backoff: Backoff,
    tries: u32,
}

/// Nobody listens any more.
struct Over;

impl Flows {
    async fn read(&mut self) -> Result<(), Over> {
        loop {
            let present = self.made.borrow().clone();
            let connection = match present {
                Some(connection) => Ok(connection),
                None => self.reader.target.connect().await,
            };
            let why = match connection {
                Ok(connection) => {
                    self.made.send_replace(Some(connection.clone()));
                    match self.stream(connection).await? {
                        Some(why) => why,
                        None => return Ok(()),
                    }
                }
                Err(why) => why,
            };
            self.made.send_replace(None);
            self.tries += 1;
            let wait = self.backoff.next();
            self.tell(Message::Waiting { tries: self.tries, wait, why }).await?;
            sleep(wait).await;
        }
    }

    async fn tell(&self, message: Message) -> Result<(), Over> {
        self.reader.to.send(message).await.map_err(|_| Over)
    }

    /// Reads one stream; why it broke, or nothing where another try is no use.
    async fn stream(&mut self, connection: Connection) -> Result<Option<String>, Over> {
        let mut stream = match stream::flows(connection, self.request.clone()).await {
            Ok(flows) => flows.stream,
            Err(status) => return self.broken(&status).await,
        };
        self.tell(Message::Began { run: self.run }).await?;
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    self.backoff.reset();
                    self.tries = 0;
                    if let Ok(outline) = Outline::of(&response) {
                        match self.resume.turn(&outline) {
                            Turn::Known => continue,
                            Turn::Gap(from, until) => self.tell(Message::Gap { from, until }).await?,
                            Turn::Show => {}
                        }
                    }
                    self.tell(Message::Response(response)).await?;
                }
                Ok(None) => return Ok(Some(self.again("the server ended the stream".to_owned()))),
                Err(status) => return self.broken(&status).await,
            }
        }
    }

    async fn broken(&mut self, status: &Status) -> Result<Option<String>, Over> {
        if may_pass(status) {
            return Ok(Some(self.again(rpc::text(status))));
        }
        let why = self.reader.target.failed(status).await;
        self.tell(Message::Refused(why)).await?;
        Ok(None)
    }

    /// The next question begins where this one ended.
    fn again(&mut self, why: String) -> String {
        if let Some(since) = self.resume.again() {
            self.request.since = Some(since);
            self.request.number = 0;
        }
        why
    }
}
