//! DNS over UDP: each query is a task, with a socket of its own to the server.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use observer_policy::model::UDP;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Dialogue, SERVER, answers, failed, refused};
use crate::proxy::datagrams::{self, Received};
use crate::proxy::session::Common;
use crate::proxy::sockets;

/// Queries at once, each with a socket; more are dropped, and asked again.
const MOST_QUERIES: usize = 4096;
/// Likewise of one client.
const MOST_OF_ONE: usize = 512;
/// The longest datagram.
const MOST_BYTES: usize = 1 << 16;

/// How many queries each client has that are not answered.
#[derive(Debug, Default)]
struct Open(Mutex<(usize, HashMap<IpAddr, usize>)>);

/// A place among them.
#[derive(Debug)]
struct Place {
    open: Arc<Open>,
    client: IpAddr,
}

impl Open {
    fn take(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_client) = &mut *open;
        let own = by_client.get(&client).copied().unwrap_or(0);
        if *all >= MOST_QUERIES || own >= MOST_OF_ONE {
            return None;
        }
        *all += 1;
        by_client.insert(client, own + 1);
        Some(Place { open: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_client) = &mut *open;
        *all -= 1;
        if let Some(own) = by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

/// Serves what is handed over, until the runtime ends.
pub(in crate::proxy) async fn serve(listener: UdpSocket, own: SocketAddr, common: Arc<Common>) {
    let (open, keys) = (Arc::<Open>::default(), RandomState::new());
    let mut buffer = vec![0; MOST_BYTES];
    let mut count = 0_u64;
    loop {
        let read = listener.async_io(Interest::READABLE, || datagrams::receive(&listener, &mut buffer)).await;
        let Received { length, from: client, to: server } = match read {
            Ok(received) => received,
            Err(error) => {
                // For want of memory: some may be free soon.
                tracing::debug!(%error, "a query to the proxy was not read");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Nobody handed it over.
        let Some(query) = buffer.get(..length).filter(|_| server != own) else { continue };
        let Some(place) = open.take(client.ip()) else {
            common.policies.counters.queries_turned_away.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        count += 1;
        // Nobody shall know where the answer is awaited.
        let port = keys.hash_one(count) as u16;
        let (query, common) = (query.to_vec(), Arc::clone(&common));
        let dialogue = Dialogue { common, client, server, protocol: UDP };
        tokio::spawn(async move {
            if let Err(error) = serve_one(&dialogue, &query, port).await {
                not_answered(&error, dialogue.client);
            }
            drop(place);
        });
    }
}

/// Who lacks a right lacks it for every answer: that is said aloud, once.
fn not_answered(error: &io::Error, client: SocketAddr) {
    static TOLD: Once = Once::new();
    tracing::debug!(%error, %client, "a query was not answered");
    if error.kind() == io::ErrorKind::PermissionDenied {
        TOLD.call_once(|| {
            tracing::warn!(
                %error,
                "a query that policies judge got no answer: CAP_NET_BIND_SERVICE is missing, or CAP_NET_RAW where this node \
                 has the server's port itself, or a firewall forbids it"
            );
        });
    }
}

async fn serve_one(dialogue: &Dialogue, query: &[u8], port: u16) -> io::Result<()> {
    let asked = dialogue.ask(query);
    let answer = if asked.passes {
        match timeout(SERVER, exchange(dialogue, query, port)).await {
            Ok(Ok(answer)) => {
                dialogue.answered(&asked, &answer).await;
                Some(answer)
            }
            // The way there is closed, which the client would have been told.
            Ok(Err(_)) => failed(query),
            // It would have heard nothing either.
            Err(_) => None,
        }
    } else {
        refused(query)
    };
    match answer {
        Some(answer) => sockets::answer(dialogue.server, dialogue.client, &answer),
        None => Ok(()),
    }
}

/// Has the server answer.
async fn exchange(dialogue: &Dialogue, query: &[u8], port: u16) -> io::Result<Vec<u8>> {
    let socket = sockets::connect_udp(
        dialogue.common.caller(dialogue.client, dialogue.server),
        dialogue.server,
        port,
    )?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(query).await?;
    loop {
        // There is no buffer for what may never come.
        socket.readable().await?;
        let mut buffer = vec![0; MOST_BYTES];
        match socket.try_recv(&mut buffer) {
            Ok(length) if answers(&buffer[..length], query) => {
                buffer.truncate(length);
                buffer.shrink_to_fit();
                return Ok(buffer);
            }
            // Of somebody who guesses.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_takes_no_more_than_its_part() {
        let open = Arc::<Open>::default();
        let ip = |number: u8| IpAddr::from([10, 0, 0, number]);
        let places: Vec<_> = (0..MOST_OF_ONE).map(|_| open.take(ip(1)).unwrap()).collect();
        assert!(open.take(ip(1)).is_none());
        assert!(open.take(ip(2)).is_some());
        drop(places);
        assert!(open.take(ip(1)).is_some());
        assert_eq!(*open.0.lock().unwrap(), (0, HashMap::new()));
        let mut places = Vec::new();
        for number in 0..=(MOST_QUERIES / MOST_OF_ONE) as u8 {
            places.extend((0..MOST_OF_ONE).filter_map(|_| open.take(ip(number))));
        }
        assert_eq!(places.len(), MOST_QUERIES);
    }
}
