//! Frames that nobody should send: each is counted exactly once, as a record, as no IP or as malformed, and left as it is.

use observer_ebpf::{LinkTraffic, aggregation};

use crate::frames::{PORTS, Programs, ethernet, frames, ipv4, ipv6, tcp_syn, tunneled, udp};
use crate::support::skip;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// By protocol, source and destination port.
    Told(u8, u16, u16),
    NotIp,
    Malformed,
}
use Counted::{Malformed, NotIp, Told};

/// Runs a frame and sees where it was counted; `None` where the kernel refuses it before the program.
fn count(programs: &mut Programs, before: &mut LinkTraffic, frame: &[u8]) -> Option<Counted> {
    programs.try_run(frame, 1)?;
    let after = programs.traffic();
    let (not_ip, malformed) = (after.not_ip - before.not_ip, after.malformed - before.malformed);
    assert_eq!(after.packets - before.packets, 1, "{frame:02x?}");
    let record = programs.record();
    assert_eq!(u64::from(record.is_some()) + not_ip + malformed, 1, "counted once: {frame:02x?}");
    assert!(programs.record().is_none(), "told twice: {frame:02x?}");
    *before = after;
    Some(match record {
        Some(record) => Told(record.tuple.protocol, record.tuple.source_port, record.tuple.destination_port),
        None if not_ip == 1 => NotIp,
        None => Malformed,
    })
}

/// IPv6 extension headers of 8 bytes, one after another: each names the next.
fn chain(headers: &[u8], last: u8) -> Vec<u8> {
    let nexts = headers.iter().skip(1).copied().chain([last]);
    nexts.flat_map(|next| [next, 0, 0, 0, 0, 0, 0, 0]).collect()
}

fn chained(headers: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut behind = chain(headers, 17);
    behind.extend(rest);
    let mut packet = ipv6(headers[0], &behind);
    packet[4..6].copy_from_slice(&(behind.len() as u16).to_be_bytes());
    ethernet(0x86dd, &packet)
}

/// IPv4 with this header length, in words, and as many bytes behind the first 20 as are given.
fn header_length(words: u8, behind: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(6, &[], 0, behind);
    packet[0] = 0x40 | words;
    ethernet(0x0800, &packet)
}

fn table() -> Vec<(String, Counted, Vec<u8>)> {
    let v4 = |protocol, rest: &[u8]| ethernet(0x0800, &ipv4(protocol, &[], 0, rest));
    let tags = |count: usize| {
        [[0, 7, 0x81, 0].repeat(count - 1), vec![0, 7, 8, 0], ipv4(17, &[], 0, &udp())].concat()
    };
    let mut rows: Vec<(String, Counted, Vec<u8>)> = [
        ("ARP", NotIp, ethernet(0x0806, &[0; 28])),
        ("LLDP", NotIp, ethernet(0x88cc, &[0; 40])),
        ("a length instead of a type", NotIp, ethernet(0x0040, &[0; 64])),
        ("UDP without payload", Told(17, 40_000, 80), v4(17, &udp())),
        ("UDP of length 0", Told(17, 40_000, 80), v4(17, &[&PORTS[..], &[0; 4]].concat())),
        ("UDP that claims more", Told(17, 40_000, 80), v4(17, &[&PORTS[..], &[0xff, 0xff, 0, 0]].concat())),
        ("UDP cut in its ports", Malformed, v4(17, &PORTS[..3])),
        ("TCP cut in its flags", Malformed, v4(6, &tcp_syn()[..13])),
        (
            "TCP with a header of no length",
            Told(6, 40_000, 80),
            v4(6, &[&tcp_syn()[..12], &[0, 2, 0, 0, 0, 0, 0, 0]].concat()),
        ),
        ("ICMP cut", Malformed, v4(1, &[8, 0, 0])),
        ("a protocol of no number", Told(255, 0, 0), v4(255, &[1, 2, 3])),
        ("nothing behind the header", Told(255, 0, 0), v4(255, &[])),
        ("IPv6 where IPv4 is announced", Malformed, ethernet(0x0800, &ipv6(17, &udp()))),
        (
            "IPv4 where IPv6 is announced",
            Malformed,
            ethernet(0x86dd, &[ipv4(17, &[], 0, &udp()), vec![0; 40]].concat()),
        ),
        (
            "a first fragment too small for TCP's flags",
            Told(6, 40_000, 80),
            ethernet(0x0800, &ipv4(6, &[], 0x2000, &tcp_syn()[..8])),
        ),
        (
            "a fragment at the highest offset",
            Told(17, 0, 0),
            ethernet(0x0800, &ipv4(17, &[], 0x1fff, &[0; 8])),
        ),
        ("one VLAN tag", Told(17, 40_000, 80), ethernet(0x8100, &tags(1))),
        ("two VLAN tags", Told(17, 40_000, 80), ethernet(0x8100, &tags(2))),
        ("three VLAN tags", NotIp, ethernet(0x8100, &tags(3))),
        ("a VLAN tag and nothing", Malformed, ethernet(0x8100, &[0, 7])),
        ("six extension headers", Told(17, 40_000, 80), chained(&[0, 60, 43, 60, 135, 139], &udp())),
        ("seven extension headers", Told(60, 0, 0), chained(&[0, 60, 43, 60, 135, 139, 60], &udp())),
        ("a hundred extension headers", Told(60, 0, 0), chained(&[60; 100], &udp())),
        ("an extension header longer than the packet", Malformed, {
            let mut frame = chained(&[0], &udp());
            frame[14 + 40 + 1] = 255;
            frame
        }),
        ("no next header", Told(59, 0, 0), ethernet(0x86dd, &ipv6(59, &[]))),
        ("an atomic fragment", Told(17, 40_000, 80), chained(&[44], &udp())),
        ("a jumbogram's option", Told(17, 40_000, 80), {
            let mut frame = chained(&[0], &udp());
            frame[14 + 4..14 + 6].fill(0);
            frame[14 + 40 + 2..14 + 40 + 8].copy_from_slice(&[0xc2, 4, 0, 1, 0, 0]);
            frame
        }),
        (
            "the largest frame a test run takes",
            Told(17, 40_000, 80),
            v4(17, &[udp(), vec![0; 3_000]].concat()),
        ),
    ]
    .map(|(name, counted, frame)| (name.to_owned(), counted, frame))
    .into();
    // The words behind the first five are options; the ports stand behind them.
    for words in 0..16_u8 {
        let options = usize::from(words.saturating_sub(5)) * 4;
        let whole = header_length(words, &[vec![1; options], tcp_syn()].concat());
        let right = if words < 5 { Malformed } else { Told(6, 40_000, 80) };
        rows.push((format!("a header of {words} words"), right, whole));
        if words > 5 {
            let cut = header_length(words, &vec![1; options - 1]);
            rows.push((format!("a header of {words} words, cut in its options"), Malformed, cut));
        }
    }
    rows
}

#[test]
fn odd_frames_are_counted_as_what_they_are() {
    if skip() {
        return;
    }
    let mut programs = Programs::load(aggregation::NONE);
    let mut before = programs.traffic();
    for (name, right, frame) in table() {
        let counted = count(&mut programs, &mut before, &frame);
        assert_eq!(counted, Some(right), "{name}");
    }
}

/// The bits of a xorshift generator: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// A good or odd frame with some bytes wrong, cut or with something behind it; or noise behind a type that is looked
    /// into.
    fn frame(&mut self, known: &[Vec<u8>]) -> Vec<u8> {
        if self.below(4) == 0 {
            let ether_type = [0x0800, 0x86dd, 0x8100, 0x88a8][self.below(4)];
            let count = self.below(200);
            let mut noise = self.bytes(count);
            if let Some(first) = noise.first_mut().filter(|_| ether_type < 0x8100) {
                // A version and length that get further.
                *first = 0x40 | *first & 15;
            } else if let Some(first) = noise.first_mut().filter(|_| ether_type == 0x86dd) {
                *first = 0x60;
            }
            return ethernet(ether_type, &noise);
        }
        let mut frame = known[self.below(known.len())].clone();
        for _ in 0..self.below(4) {
            let at = 12 + self.below(frame.len() - 12);
            frame[at] = self.next() as u8;
        }
        match self.below(3) {
            0 => frame.truncate(14 + self.below(frame.len() - 14)),
            1 => {
                let count = self.below(64);
                frame.extend(self.bytes(count));
            }
            _ => {}
        }
        frame
    }
}

#[test]
fn any_frame_is_counted_once() {
    if skip() {
        return;
    }
    let odd = table().into_iter().map(|(.., frame)| frame);
    let good =
        frames().into_iter().map(|(.., frame)| frame).chain(tunneled().into_iter().map(|(.., frame)| frame));
    let known: Vec<Vec<u8>> = good.chain(odd).collect();
    let mut programs = Programs::load(aggregation::NONE);
    let mut before = programs.traffic();
    let mut counts = [0_u64; 4];
    let mut run = |frame: &[u8]| {
        counts[match count(&mut programs, &mut before, frame) {
            Some(Told(..)) => 0,
            Some(NotIp) => 1,
            Some(Malformed) => 2,
            None => 3,
        }] += 1;
    };
    // A test run takes no frame shorter than its Ethernet header.
    for frame in &known {
        (14..frame.len().min(200)).for_each(|end| run(&frame[..end]));
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let generated = if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 20_000 };
    for _ in 0..generated {
        run(&random.frame(&known));
    }
    let [told, not_ip, malformed, refused] = counts;
    eprintln!("{told} told, {not_ip} no IP, {malformed} malformed; {refused} the kernel took not");
    assert!([told, not_ip, malformed].iter().all(|count| *count > generated / 50), "{counts:?}");
}
