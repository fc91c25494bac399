//! DNS over TCP: one query after the other, each message behind its length (RFC 1035, 4.2.2).

use std::io;
use std::time::Duration;

use observer_proxy::End;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Dialogue, SERVER, answers, failed, refused};

/// For the next query, and for each part of one: RFC 7766 has clients come back after less.
const IDLE: Duration = Duration::from_secs(30);
/// The longest query; even with all options that there are it is shorter.
const MOST_QUERY: u16 = 4096;

/// Serves a client until either side ends the connection.
pub(in crate::proxy) async fn serve(mut client: TcpStream, dialogue: Dialogue) -> End {
    let mut server = None;
    loop {
        let query = match timeout(IDLE, read(&mut client, MOST_QUERY)).await {
            Ok(Ok(Some(query))) => query,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return End::Refused,
            Ok(_) => return End::Closed,
            Err(_) => return End::Late,
        };
        let asked = dialogue.ask(&query);
        let answer = if !asked.passes {
            refused(&query)
        } else if let Some(answer) = exchange(&dialogue, &mut server, &query).await {
            dialogue.answered(&asked, &answer).await;
            Some(answer)
        } else {
            failed(&query)
        };
        let Some(answer) = answer else { return End::Refused };
        match timeout(IDLE, write(&mut client, &answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Closed,
            Err(_) => return End::Late,
        }
    }
}

/// Has the server answer, by the connection that there is, or by a new one.
async fn exchange(dialogue: &Dialogue, server: &mut Option<TcpStream>, query: &[u8]) -> Option<Vec<u8>> {
    // A server may have closed what idled.
    if let Some(mut stream) = server.take()
        && let Ok(Ok(answer)) = timeout(SERVER, ask(&mut stream, query)).await
    {
        *server = Some(stream);
        return Some(answer);
    }
    let connected = timeout(SERVER, dialogue.common.connect(dialogue.client, dialogue.server)).await;
    let mut stream = connected.ok()?.ok()?;
    let answer = timeout(SERVER, ask(&mut stream, query)).await.ok()?.ok()?;
    *server = Some(stream);
    Some(answer)
}

async fn ask(server: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    write(server, query).await?;
    loop {
        let answer = read(server, u16::MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answers(&answer, query) {
            return Ok(answer);
        }
    }
}

/// The next message, nothing at the end. Its memory grows with what comes, whatever length it says.
async fn read(stream: &mut TcpStream, most: u16) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) if length > most => return Err(io::ErrorKind::InvalidData.into()),
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = Vec::new();
    let read = stream.take(length.into()).read_to_end(&mut message).await?;
    if read == usize::from(length) { Ok(Some(message)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// In one write, so that it is one segment.
async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
