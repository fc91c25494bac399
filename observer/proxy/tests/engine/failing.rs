//! Clients that break the rules, and sides that fail or take too long.

use std::time::Duration;

use observer_proxy::{End, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::bed::{Bed, OK, get, until};

fn is_refused(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 400 Bad Request\r\n")
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_400_behind_what_came_before() {
    for text in ["\0", "GET /b HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "\x16\x03\x01\x02\0\x01\0\n", "GET\n"]
    {
        let mut bed = Bed::new();
        bed.serve_each(OK);
        bed.send(&(get("/a") + text)).await;
        // A text without an end of line is refused when it does not go on.
        bed.client.shutdown().await.unwrap();
        let answers = bed.rest().await;
        let rest = answers.strip_prefix(OK).unwrap();
        assert!(is_refused(rest) || rest.is_empty() && !text.contains('\n'), "{text:?}: {rest}");
        assert_eq!(bed.told(), [("GET /a".to_owned(), 200)]);
        assert_eq!(bed.end.await.unwrap(), if text == "\0" { End::Closed } else { End::Refused });
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    let mut bed = Bed::new();
    bed.send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n").await;
    let mut server = bed.server().await;
    let mut seen = String::new();
    server.read_to_string(&mut seen).await.unwrap();
    assert!(seen.ends_with("3\r\nabc\r\n"), "{seen}");
    let answer = bed.rest().await;
    assert!(is_refused(&answer), "{answer}");
    assert_eq!(bed.end.await.unwrap(), End::Refused);
}

#[tokio::test]
async fn nothing_behind_a_denied_request_is_taken_for_part_of_it() {
    // What a server that trusts the length would take for the next request is the body here.
    let mut bed = Bed::new();
    bed.serve_each(OK);
    let hidden = get("/deny-hidden");
    let length = hidden.len();
    bed.send(&format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{hidden}")).await;
    bed.until("ok").await;
    assert_eq!(bed.told(), [("POST /a".to_owned(), 200)]);
}

#[tokio::test]
async fn servers_that_fail_are_answered_for() {
    let mut bed = Bed::with(Limits::default(), true);
    bed.send(&get("/a")).await;
    assert!(bed.until("Service Unavailable").await.starts_with("HTTP/1.1 503"));
    // It closes without a word.
    let mut bed = Bed::new();
    bed.send(&get("/a")).await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    drop(server);
    assert!(bed.until("\r\n\r\nBad Gateway").await.starts_with("HTTP/1.1 502"));
    // It says what is no answer.
    bed.send(&get("/b")).await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    server.write_all(b"SSH-2.0-x\r\n\r\n").await.unwrap();
    assert!(bed.until("\r\n\r\nBad Gateway").await.starts_with("HTTP/1.1 502"));
    assert_eq!(bed.told(), [("GET /a".to_owned(), 502), ("GET /b".to_owned(), 502)]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    for (head, body) in [("Content-Length: 100", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n")] {
        let mut bed = Bed::new();
        bed.send(&get("/a")).await;
        let mut server = bed.server().await;
        until(&mut server, "\r\n\r\n").await;
        server.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        bed.until(body).await;
        drop(server);
        assert_eq!(bed.rest().await, "");
    }
}

#[tokio::test]
async fn a_server_that_closed_an_idle_connection_is_called_again() {
    let mut bed = Bed::new();
    for _ in 0..3 {
        bed.send(&get("/a")).await;
        let mut server = bed.server().await;
        until(&mut server, "\r\n\r\n").await;
        server.write_all(OK.as_bytes()).await.unwrap();
        bed.until("ok").await;
        drop(server);
    }
    assert_eq!(bed.connects(), 3);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_longer_than_the_limits() {
    let limits = Limits::default();
    let took = async |mut bed: Bed, text: &str| {
        let start = Instant::now();
        bed.send(text).await;
        let answer = bed.rest().await;
        (bed.end.await.unwrap(), start.elapsed(), answer)
    };
    let near = |took: Duration, limit: Duration| took >= limit && took < limit + Duration::from_secs(5);
    // A beginning without an end; a client that gives a byte now and then gains nothing by it.
    for begun in
        ["GET /a HT", "PRI * HTTP", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3"]
    {
        let (end, time, _) = took(Bed::new(), begun).await;
        assert_eq!(end, End::Late, "{begun}");
        assert!(near(time, limits.head), "{begun}: {time:?}");
    }
    let mut bed = Bed::new();
    let start = Instant::now();
    while bed.client.write_all(b"A").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(near(start.elapsed(), limits.head), "{:?}", start.elapsed());
    // Nothing at all, and nothing more of a body.
    for text in ["", "POST /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"] {
        let (end, time, answer) = took(Bed::new(), text).await;
        // A denied body is not waited for so long.
        let limit = if text.is_empty() { limits.idle } else { Duration::from_secs(5) };
        assert!(near(time, limit), "{text}: {time:?}");
        assert_eq!(answer.is_empty(), text.is_empty());
        assert!(end == End::Late || !text.is_empty());
    }
    let (end, time, _) = took(Bed::new(), "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(end, End::Late);
    assert!(near(time, limits.idle), "{time:?}");
    // A server that does not take the connection.
    let mut bed = Bed::new();
    bed.no_server();
    let start = Instant::now();
    bed.send(&get("/a")).await;
    assert!(bed.until("Unavailable").await.starts_with("HTTP/1.1 503"));
    assert!(near(start.elapsed(), limits.connect), "{:?}", start.elapsed());
    // An answer may take as long as it takes.
    let mut bed = Bed::new();
    bed.send(&get("/a")).await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    tokio::time::sleep(limits.idle * 3).await;
    server.write_all(OK.as_bytes()).await.unwrap();
    assert_eq!(bed.until("ok").await, OK);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_not_waited_for_for_ever() {
    let mut bed = Bed::new();
    bed.send(&get("/a")).await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
    let part = vec![b'a'; 4096];
    while server.write_all(&part).await.is_ok() {}
    assert_eq!(bed.end.await.unwrap(), End::Late);
}

#[tokio::test(start_paused = true)]
async fn connections_that_come_and_go_leave_nothing() {
    let mut judges = Vec::new();
    for n in 0..500 {
        let mut bed = Bed::new();
        judges.push(std::sync::Arc::downgrade(&bed.judge));
        match n % 5 {
            0 => bed.send("GET /a HT").await,
            1 => bed.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na").await,
            2 => {
                bed.send(&get("/a")).await;
                let mut server = bed.server().await;
                until(&mut server, "\r\n\r\n").await;
                server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab").await.unwrap();
                bed.until("ab").await;
            }
            3 => bed.send(&get("/deny")).await,
            _ => {}
        }
        let end = bed.end;
        drop(bed.client);
        end.await.unwrap();
    }
    // Tasks of connections to servers end a little later.
    while judges.iter().any(|judge| judge.strong_count() > 0) {
        tokio::task::yield_now().await;
    }
}
