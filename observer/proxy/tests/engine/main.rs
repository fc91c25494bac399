//! The proxy between a client and a server that the tests play themselves, in memory: what each of them is sent, and when.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

mod bed;
mod failing;
mod http2;

use bed::{Bed, DENIED, OK, get, until};
use observer_proxy::{End, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn the_allowed_pass_and_the_denied_are_answered_on_one_connection() {
    let mut bed = Bed::new();
    bed.serve_each(OK);
    for (path, answer) in [("/a", OK), ("/deny", DENIED), ("/b?x=%20", OK), ("/deny?y", DENIED), ("/a", OK)] {
        bed.send(&get(path)).await;
        assert_eq!(bed.until(&answer[answer.len() - 4..]).await, answer, "{path}");
    }
    let told = ["/a", "/deny", "/b?x=%20", "/deny?y", "/a"].map(|path| format!("GET {path}"));
    assert_eq!(bed.told(), told.into_iter().zip([200, 403, 200, 403, 200]).collect::<Vec<_>>());
    assert_eq!(bed.connects(), 1);
    drop(bed.client);
    assert_eq!(bed.end.await.unwrap(), End::Closed);
}

#[tokio::test]
async fn who_is_denied_everything_is_never_seen_by_the_server() {
    let mut bed = Bed::new();
    for _ in 0..3 {
        bed.send("POST /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody").await;
        assert_eq!(bed.until("denied\r\n").await, DENIED);
    }
    bed.send("POST /deny HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        .await;
    assert_eq!(bed.until("denied\r\n").await, DENIED);
    assert_eq!(bed.connects(), 0);
}

#[tokio::test]
async fn a_denied_body_that_is_long_or_not_yet_sent_ends_the_connection() {
    let mut bed = Bed::new();
    bed.send("POST /deny HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let answer = bed.rest().await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
    let mut bed = Bed::new();
    bed.send("POST /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await;
    let (mut read, mut write) = tokio::io::split(bed.client);
    let sent = tokio::spawn(async move { write.write_all(&vec![b'a'; 1_000_000]).await });
    let mut answer = String::new();
    read.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("Access denied\r\n"), "{answer}");
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn both_sides_are_sent_what_the_other_wrote() {
    let mut bed = Bed::new();
    let request = "PATCH /a/../b;c?d=e&f=%2F HTTP/1.1\r\nHost: Some.Host:8080\r\nX-One: 1\r\nx-two: a, b\r\n\
                   X-One: 2\r\nCookie: c=d\r\nUser-Agent: \r\nX-Utf: \u{e4}\r\nContent-Length: 3\r\n\r\nabc";
    bed.send(request).await;
    let mut server = bed.server().await;
    // hyper keeps lines of one name together, as RFC 9110, 5.3 lets it.
    let expected = request.replace("X-One: 2\r\n", "").replace("X-One: 1\r\n", "X-One: 1\r\nX-One: 2\r\n");
    let expected = expected.replace("User-Agent: ", "User-Agent:");
    assert_eq!(until(&mut server, "abc").await, expected);
    let response = "HTTP/1.1 207 Some Reason\r\nServer: s\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nETag: \"x\"\r\n\
                    Date: now\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\ndef";
    server.write_all(response.as_bytes()).await.unwrap();
    assert_eq!(bed.until("def").await, response);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let mut bed = Bed::new();
    bed.send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut server = bed.server().await;
    // Before the request has ended, the server has its beginning, and the client that of the answer.
    until(&mut server, "3\r\nabc\r\n").await;
    server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n").await.unwrap();
    bed.until("3\r\ndef\r\n").await;
    bed.send("3\r\nghi\r\n0\r\n\r\n").await;
    assert_eq!(until(&mut server, "0\r\n\r\n").await, "3\r\nghi\r\n0\r\n\r\n");
    server.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(bed.until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_side_that_does_not_read_holds_up_the_other() {
    let mut bed = Bed::new();
    bed.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n").await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    let part = vec![b'a'; 4096];
    let mut sent = 0;
    // Nothing else is going on, so what does not go now never will.
    while tokio::time::timeout(std::time::Duration::from_millis(300), bed.client.write_all(&part))
        .await
        .is_ok()
    {
        sent += part.len();
        assert!(sent < 4 << 20, "{sent} bytes were taken of the client and not by the server");
    }
    // As the server reads, it goes on.
    let mut taken = vec![0; sent];
    server.read_exact(&mut taken).await.unwrap();
    bed.client.write_all(&part).await.unwrap();
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let mut bed = Bed::new();
    bed.serve_each(OK);
    bed.send(&[get("/a"), get("/deny"), get("/b"), get("/deny")].concat()).await;
    bed.client.shutdown().await.unwrap();
    assert_eq!(bed.rest().await, [OK, DENIED, OK, DENIED].concat());
    assert_eq!(bed.end.await.unwrap(), End::Closed);
}

#[tokio::test]
async fn a_client_that_says_no_more_is_still_answered() {
    let mut bed = Bed::new();
    bed.send(&get("/a")).await;
    bed.client.shutdown().await.unwrap();
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    tokio::task::yield_now().await;
    server.write_all(OK.as_bytes()).await.unwrap();
    assert_eq!(bed.rest().await, OK);
}

#[tokio::test]
async fn answers_without_bodies_have_none() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        ("POST", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut bed = Bed::new();
        bed.serve_each(answer);
        for _ in 0..2 {
            bed.send(&format!("{method} /a HTTP/1.1\r\nHost: h\r\n\r\n")).await;
            assert_eq!(bed.until("\r\n\r\n").await, answer, "{method}");
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_is_closed_for_the_client() {
    let mut bed = Bed::new();
    bed.send(&get("/a")).await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it").await.unwrap();
    drop(server);
    let answer = bed.rest().await;
    assert!(answer.contains("Connection: close") && answer.contains("all of it"), "{answer}");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_answered_and_left() {
    let mut bed = Bed::new();
    bed.serve_each(OK);
    bed.send("GET /a HTTP/1.0\r\n\r\n").await;
    let answer = bed.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_is_closed_for_the_server() {
    // With TCP it might still listen, so it is given its time.
    let mut bed = Bed::new();
    bed.send(&get("/a")).await;
    let mut server = bed.server().await;
    until(&mut server, "\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab").await.unwrap();
    bed.until("ab").await;
    drop(bed.client);
    let start = tokio::time::Instant::now();
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(bed.end.await.unwrap(), End::Late);
    let longest = Limits::default().ended + std::time::Duration::from_secs(1);
    assert!(start.elapsed() <= longest, "{:?}", start.elapsed());
}

#[tokio::test]
async fn another_protocol_passes_both_ways_once_the_server_agrees() {
    let mut bed = Bed::new();
    bed.send("GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let mut server = bed.server().await;
    assert!(until(&mut server, "\r\n\r\n").await.contains("Upgrade: websocket"));
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    server.write_all(agreed.as_bytes()).await.unwrap();
    assert_eq!(bed.until("\r\n\r\n").await, agreed);
    bed.send("\0\n\r\0 GET").await;
    assert_eq!(until(&mut server, "GET").await, "\0\n\r\0 GET");
    server.write_all(b"\x81\x05hello").await.unwrap_or(());
    let mut said = [0; 7];
    bed.client.read_exact(&mut said).await.unwrap();
    drop(server);
    assert_eq!(bed.rest().await, "");
    assert_eq!(bed.told(), [("GET /chat".to_owned(), 101)]);
}

#[tokio::test]
async fn nobody_changes_to_http2_within_a_connection() {
    let mut bed = Bed::new();
    bed.send(
        "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
    )
    .await;
    let mut server = bed.server().await;
    assert_eq!(until(&mut server, "\r\n\r\n").await, get("/a"));
}
