//! What must hold for anything that comes from outside; called by the fuzzer and by a test with its corpora. Each
//! function panics where something does not hold.
#![expect(clippy::missing_panics_doc, reason = "they do nothing else")]

use crate::{
    Connection, Counters, DnsExchange, DnsTold, Handshake, Segment, TlsTold, Told,
    dns::{Data, Message},
    head::Head,
    tls::First,
};

#[derive(Default)]
struct Count {
    requests: u64,
    responses: u64,
}

impl Told for Count {
    type Asked = ();

    fn request(&mut self, head: &Head<'_>) {
        self.requests += 1;
        assert!(head.length > 0 && head.fields.len() <= crate::head::MOST_FIELDS);
    }

    fn response(&mut self, _: &Head<'_>, (): (), _: u64) {
        self.responses += 1;
    }
}

impl DnsTold for Count {
    fn message(&mut self, message: &Message<'_>, _: Option<u64>) {
        if message.is_response() {
            self.responses += 1;
        } else {
            self.requests += 1;
        }
        for question in message.questions() {
            let name = question.map(|question| question.name.to_string());
            // Each byte of a name becomes four at most.
            assert!(name.is_ok_and(|name| name.is_ascii() && name.ends_with('.') && name.len() <= 4 * 255));
        }
        for answer in message.answers().flatten() {
            if let Data::Alias(name) = answer.data {
                assert!(name.labels().map(|label| label.len() + 1).sum::<usize>() < 256);
            }
        }
    }
}

impl TlsTold for Count {
    type Asked = ();

    fn hello(&mut self, hello: First<'_>) {
        self.requests += 1;
        let First::Client { server_name, .. } = hello else { panic!("{hello:?}") };
        let name = server_name.map(|name| name.to_string()).unwrap_or_default();
        // Each byte of a name becomes four at most.
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()) && name.len() <= 4 * 255);
    }

    fn answer(&mut self, answer: First<'_>, _: Option<((), u64)>) {
        self.responses += 1;
        assert!(!matches!(answer, First::Client { .. }));
    }
}

/// Segments of a connection: of each its way and how it lies to the one before, how much is missing, its length; then its bytes.
fn segments(mut data: &[u8], mut each: impl FnMut(bool, &Segment<'_>)) {
    let mut next = [0_u32; 2];
    let mut time_ns = 0;
    while let [how, missing, length, rest @ ..] = data {
        let (bytes, behind) = rest.split_at(rest.len().min(usize::from(*length)));
        data = behind;
        let by_first = how & 1 == 0;
        let place = &mut next[usize::from(!by_first)];
        // -8 to 7 bytes beside where it should be; mostly there.
        let shift = if how & 2 == 0 { 0 } else { i32::from(how >> 4) - 8 };
        let sequence = place.wrapping_add_signed(shift);
        time_ns += u64::from(how >> 2 & 3) * 400_000_000;
        let length = bytes.len() as u32 + u32::from(*missing) * 16;
        each(by_first, &Segment { sequence, length, bytes, time_ns });
        *place = sequence.wrapping_add(length);
    }
}

/// A connection that may speak HTTP.
pub fn http(data: &[u8]) {
    let (mut connection, mut counters, mut count) =
        (Connection::default(), Counters::default(), Count::default());
    segments(data, |by_first, segment| {
        connection.take(by_first, segment, &mut counters, &mut count);
        assert!(connection.kept() < 128 << 10);
        assert_eq!((counters.requests, counters.responses), (count.requests, count.responses));
        let ended = counters.responses + counters.unanswered + connection.waiting() as u64;
        assert_eq!(counters.requests, ended, "{counters:?}");
    });
}

/// DNS over UDP and over TCP.
pub fn dns(data: &[u8]) {
    let (mut counters, mut count) = (Counters::default(), Count::default());
    let segment = Segment { sequence: 0, length: data.len() as u32, bytes: data, time_ns: 0 };
    DnsExchange::default().datagram(&segment, &mut counters, &mut count);
    let mut exchange = DnsExchange::default();
    segments(data, |by_first, segment| {
        exchange.segment(by_first, segment, &mut counters, &mut count);
        assert!(exchange.kept() < 64 << 10);
    });
    assert_eq!((counters.requests, counters.responses), (count.requests, count.responses));
}

/// A connection that may begin with TLS.
pub fn tls(data: &[u8]) {
    let (mut handshake, mut counters, mut count) =
        (Handshake::default(), Counters::default(), Count::default());
    segments(data, |by_first, segment| {
        handshake.take(by_first, segment, &mut counters, &mut count);
        assert!(handshake.kept() < 64 << 10);
        assert_eq!((counters.requests, counters.responses), (count.requests, count.responses));
        assert!(counters.requests <= 1 && counters.responses <= 1, "{counters:?}");
        let answered = counters.responses - counters.unasked;
        assert_eq!(counters.requests, answered + u64::from(handshake.is_waiting()), "{counters:?}");
    });
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpora_hold() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, check) in [("http", super::http as fn(&[u8])), ("dns", super::dns), ("tls", super::tls)] {
            let files: Vec<_> =
                fs::read_dir(corpora.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                check(&fs::read(file).unwrap());
            }
        }
    }
}
