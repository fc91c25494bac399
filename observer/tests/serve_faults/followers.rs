//! Those who read slowly, not at all, or in a crowd.

use crate::{
    bed::{Bed, Got, follow, resident_bytes, until},
    raw::{self, END_HEADERS, END_STREAM},
    support::{Daemon, scaled},
};
use observer::serve::{Limits, Refusal};
use observer_proto::observer::{GetFlowsRequest, observer_client::ObserverClient};
use std::{
    io::Write as _,
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::{Code, transport::Endpoint};

/// One reads a message for each five thousand flows, as if it read 10 of 50,000 a second (for a minute, in `make soak`), the
/// others all of them at once; nobody but the slow one loses, and it is told how many.
#[test]
fn a_slow_follower_loses_by_count_and_nobody_else_does() {
    const BATCH: u64 = 1000;
    let batches = scaled(50, 3000);
    let bed = Bed::start(|_| {});
    bed.leaves_nothing(16 << 20, || {
        bed.runtime.block_on(async {
            let mut fast = Vec::new();
            for _ in 0..3 {
                let stream = bed.client().await.get_flows(follow()).await.unwrap().into_inner();
                fast.push((stream, Got::default()));
            }
            let mut slow = bed.client().await.get_flows(follow()).await.unwrap().into_inner();
            let (mut got, started) = (Got::default(), Instant::now());
            for batch in 1..=batches {
                bed.push(BATCH as usize);
                for (stream, got) in &mut fast {
                    got.until(stream, batch * BATCH).await;
                }
                if batch % 5 == 0 {
                    got.next(&mut slow).await.unwrap();
                }
            }
            assert!(fast.iter().all(|(_, got)| got.lost == 0), "{fast:?}");
            got.until(&mut slow, batches * BATCH).await;
            assert!(got.lost > 0, "it was not slow enough: {got:?}");
            // One a second, and one at once.
            assert!(got.told <= started.elapsed().as_secs() + 1, "{got:?} in {:?}", started.elapsed());
        });
    });
    assert!(bed.store.seen() >= 2 * batches * BATCH);
}

/// A client whose program reads nothing, though its HTTP/2 lives, keeps what fits its window and no more.
#[test]
fn a_stream_that_nobody_reads_is_held_at_a_bounded_cost() {
    const FLOWS: usize = 40_000;
    const UNREAD: usize = 20;
    let bed = Bed::start(|_| {});
    let mut is_first = true;
    bed.leaves_nothing(16 << 20, || {
        bed.runtime.block_on(async {
            let before = resident_bytes();
            let mut unread = Vec::new();
            for _ in 0..UNREAD {
                unread.push(bed.client().await.get_flows(follow()).await.unwrap().into_inner());
            }
            for _ in 0..FLOWS / 1000 {
                bed.push(1000);
                tokio::task::yield_now().await;
            }
            assert_eq!(bed.counters().streams(), UNREAD as u64);
            // A mebibyte each, at both ends together, and what they do not read is some twenty times that. The first time
            // the store fills as well.
            let grown = resident_bytes().saturating_sub(before);
            assert!(std::mem::take(&mut is_first) || grown <= (UNREAD as u64) << 20, "{grown} bytes");
            // What comes, once it reads, is right to the unit.
            Got::default().until(&mut unread[0], FLOWS as u64).await;
        });
    });
}

/// A client that reads nothing of its socket gives no sign of life either.
#[test]
fn a_connection_that_nobody_reads_is_closed() {
    // What users are promised, by the time until a ping and that for its answer.
    assert!(2 * Limits::default().keepalive <= Duration::from_secs(30));
    let bed = Bed::start(|config| config.limits.keepalive = Duration::from_secs(1));
    let mut round = 0;
    bed.leaves_nothing(8 << 20, || {
        round += 1;
        let mut stream = raw::connect(bed.tcp());
        let mut request = raw::frame(raw::HEADERS, END_HEADERS, 1, &raw::call());
        // follow: true
        request.extend(raw::frame(raw::DATA, END_STREAM, 1, &raw::message(&[0x18, 1])));
        stream.write_all(&request).unwrap();
        until("it follows", || bed.counters().streams() == 1);
        bed.push(10_000);
        bed.refused(Refusal::Keepalive, round);
        drop(stream);
    });
    bed.serves();
}

/// A thousand follow, each over a connection of its own; one more is told no, while all of them get everything.
#[test]
fn a_thousand_followers_and_not_one_more() {
    const FOLLOWERS: u64 = 1000;
    const FLOWS: u64 = 50;
    const ASKED: u64 = 10;
    let bed = Bed::start(|_| {});
    let mut round = 0;
    // A connection takes 50 KB at both ends together.
    bed.leaves_nothing(24 << 20, || {
        round += 1;
        bed.runtime.block_on(async {
            let mut streams = Vec::new();
            for _ in 0..FOLLOWERS {
                streams.push(bed.client().await.get_flows(follow()).await.unwrap().into_inner());
            }
            let mut client = bed.client().await;
            let mut fastest = Duration::MAX;
            for _ in 0..ASKED {
                let asked = Instant::now();
                let refused = client.get_flows(follow()).await.unwrap_err();
                fastest = fastest.min(asked.elapsed());
                assert_eq!(
                    (refused.code(), refused.message()),
                    (Code::ResourceExhausted, "too many streams: at most 1000")
                );
            }
            drop(client);
            // Some 1 ms; the others may wait for a machine that does much else.
            assert!(fastest < Duration::from_millis(100), "{fastest:?}");
            assert_eq!(bed.counters().answered(Code::ResourceExhausted), round * ASKED);

            // All the places for connections, and many more: what finds none is closed at once.
            until("the refused one is gone", || bed.counters().connections() == FOLLOWERS);
            let before = bed.counters().refused(Refusal::Connections);
            let idle: Vec<UnixStream> =
                (0..200).map(|_| UnixStream::connect(bed.socket()).unwrap()).collect();
            until("the last is refused", || {
                bed.counters().refused(Refusal::Connections) + bed.counters().connections()
                    == before + FOLLOWERS + idle.len() as u64
            });
            assert_eq!(bed.counters().connections(), 1024);
            drop(idle);

            bed.push(FLOWS as usize);
            let mut reading = JoinSet::new();
            for mut stream in streams {
                reading.spawn(async move {
                    let mut got = Got::default();
                    got.until(&mut stream, FLOWS).await;
                    got.lost
                });
            }
            assert_eq!(reading.join_all().await.into_iter().sum::<u64>(), 0, "nobody lost any");
        });
    });
}

#[test]
fn sigterm_ends_a_hundred_followers_and_the_daemon() {
    let mut command = Command::new(crate::support::OBSERVER);
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/events/demo.rec");
    command.args(["--replay", recording, "--speed", "max"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    daemon.log_line("replayed");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let socket = daemon.dir.path().join("hubble.sock");
    let streams = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..100 {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
            let mut client = ObserverClient::new(endpoint.connect().await.unwrap());
            let request = GetFlowsRequest { number: 1, ..follow() };
            let mut stream = client.get_flows(request).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            streams.push(stream);
        }
        streams
    });
    let ends = runtime.spawn(async move {
        let mut codes = Vec::new();
        for mut stream in streams {
            codes.push(stream.message().await.unwrap_err().code());
        }
        codes
    });
    let (status, took) = daemon.stop();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(runtime.block_on(ends).unwrap(), [Code::Unavailable; 100]);
}

/// Connections that say nothing are closed in time, and while there are too many of them, others are served.
#[test]
fn silent_connections_keep_nobody_out() {
    let bed = Bed::start(|config| {
        config.limits.handshakes = 8;
        config.limits.handshake_time = Duration::from_millis(500);
    });
    let mut round = 0;
    bed.leaves_nothing(8 << 20, || {
        round += 1;
        let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(bed.tcp()).unwrap()).collect();
        bed.runtime.block_on(async {
            let address = format!("http://{}", bed.tcp());
            let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            ObserverClient::new(channel)
                .server_status(observer_proto::observer::ServerStatusRequest {})
                .await
                .unwrap();
        });
        silent.into_iter().for_each(raw::closed);
        until("all are counted", || {
            [Refusal::Handshakes, Refusal::HandshakeTime]
                .map(|reason| bed.counters().refused(reason))
                .iter()
                .sum::<u64>()
                == 300 * round
        });
        assert!(
            bed.counters().refused(Refusal::Handshakes) > 0
                && bed.counters().refused(Refusal::HandshakeTime) > 0
        );
    });
}
