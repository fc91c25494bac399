//! What is written is read again, and nothing else ever is.

use super::*;
use crate::{
    capture::{Link, LinkKind},
    decode::{End, Tuple},
    enrich::source::{Pod, Rank, Snapshot, Surroundings, Window},
    track::Entry,
};
use proptest::{collection::vec, prelude::*};
use std::net::IpAddr;

/// Inputs that own what they hold.
#[derive(Clone, Debug, PartialEq)]
struct Owned(Input<'static>);

fn record(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into())
}

fn head() -> Head {
    Head {
        node: "n1".into(),
        offset_ns: -5,
        drop_reasons: vec![(2, "NOT_SPECIFIED".into())],
        no_conntrack: Some("events are off".into()),
        ..Head::default()
    }
}

/// A file of these inputs.
fn file(inputs: &[Input<'_>]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let recorder = Recorder::create(&path).unwrap();
    recorder.begin(&head());
    for (number, input) in inputs.iter().enumerate() {
        recorder.keep(input);
        // Several frames, of several inputs.
        if number % 3 == 2 {
            recorder.flush();
        }
    }
    let written = recorder.finish().unwrap().bytes;
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

/// All inputs up to the end or the cut.
fn read(bytes: &[u8]) -> Result<(Vec<Owned>, Option<Cut>), RecordingError> {
    let mut reader = Reader::open(bytes)?;
    assert_eq!(*reader.head(), head());
    let mut inputs = Vec::new();
    let cut = loop {
        match reader.next() {
            Ok(Some(input)) => inputs.push(own(input)),
            Ok(None) => break None,
            Err(cut) => break Some(cut),
        }
    };
    assert_eq!(reader.next().err(), cut, "nothing comes after the end or a cut");
    Ok((inputs, cut))
}

fn own(input: Input<'_>) -> Owned {
    Owned(match input {
        Input::Record(bytes) => Input::Record(record(bytes.to_vec())),
        Input::Swept(bytes) => Input::Swept(record(bytes.to_vec())),
        Input::Conntrack(update) => Input::Conntrack(update),
        Input::Batch(now) => Input::Batch(now),
        Input::Lost(count, since, now) => Input::Lost(count, since, now),
        Input::Clock(now, offset) => Input::Clock(now, offset),
        Input::Links(links) => Input::Links(Cow::Owned(links.into_owned())),
        Input::Names(change) => Input::Names(Cow::Owned(change.into_owned())),
        Input::Symbol(address, name) => Input::Symbol(
            address,
            name.map(|name| Cow::Owned(name.into_owned())).map_err(|why| Cow::Owned(why.into_owned())),
        ),
        Input::End => Input::End,
    })
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let end = || (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| End::new(ip, port));
    (end(), end(), any::<u8>()).prop_map(|(source, destination, protocol)| Tuple {
        source,
        destination,
        protocol,
    })
}

fn update() -> impl Strategy<Value = Update> {
    prop_oneof![
        (any::<u32>(), tuple(), tuple()).prop_map(|(id, original, reply)| Update::New(Entry {
            id,
            original,
            reply
        })),
        (any::<u32>(), tuple(), any::<u64>()).prop_map(|(id, original, now)| Update::End(id, original, now)),
        Just(Update::DumpBegins),
        any::<u64>().prop_map(Update::DumpEnds),
        Just(Update::Overrun),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let rank = prop_oneof![Just(Rank::Local), Just(Rank::Inventory), Just(Rank::Kubernetes)];
    let window = (any::<u64>(), any::<u64>()).prop_map(|(since, at)| Window { since, at });
    let pod =
        (any::<String>(), any::<String>(), vec(any::<IpAddr>(), 0..3), vec(".{0,20}", 0..4), any::<bool>())
            .prop_map(|(uid, name, ips, labels, local)| Pod {
                uid,
                name: name.into(),
                ips,
                local,
                labels,
                ..Pod::default()
            });
    (rank, window, vec(pod, 1..4), 0..4).prop_map(|(rank, window, mut pods, kind)| match kind {
        0 => Change::All(rank, Snapshot { pods, surroundings: Surroundings::default() }, window),
        1 => Change::Pod(rank, pods.remove(0), window),
        2 => Change::Gone(rank, pods.remove(0).uid, window),
        _ => Change::Surroundings(
            rank,
            Surroundings { kube_apiservers: pods.remove(0).ips, ..Surroundings::default() },
        ),
    })
}

fn links() -> impl Strategy<Value = LinkTable> {
    let kind = prop_oneof![Just(LinkKind::Pod), Just(LinkKind::Uplink), Just(LinkKind::Tunnel)];
    let link = (any::<u32>(), any::<String>(), kind, any::<Option<u32>>()).prop_map(
        |(ifindex, name, kind, peer_netns)| Link {
            ifindex,
            name,
            kind,
            ethernet: true,
            peer_nsid: None,
            peer_netns,
            way: observer_ebpf::proxy::LinkWay::default(),
            attached_by: "",
            chained: [0; 2],
            repairs: 0,
            error: None,
        },
    );
    (vec(link, 0..4), vec(any::<IpAddr>(), 0..3), any::<u32>()).prop_map(|(links, node_addresses, netns)| {
        LinkTable { links, others: Vec::new(), node_addresses, netns }
    })
}

fn input() -> impl Strategy<Value = Input<'static>> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(|bytes| Input::Record(record(bytes))),
        vec(any::<u8>(), 0..200).prop_map(|bytes| Input::Swept(record(bytes))),
        update().prop_map(Input::Conntrack),
        any::<u64>().prop_map(Input::Batch),
        any::<(u32, u64, u64)>().prop_map(|(count, since, now)| Input::Lost(count, since, now)),
        any::<(u64, i64)>().prop_map(|(now, offset)| Input::Clock(now, offset)),
        links().prop_map(|links| Input::Links(Cow::Owned(links))),
        change().prop_map(|change| Input::Names(Cow::Owned(change))),
        (any::<u64>(), any::<String>(), any::<bool>()).prop_map(|(address, text, known)| {
            let text = Cow::Owned(text);
            Input::Symbol(address, if known { Ok(text) } else { Err(text) })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_and_bytes_of_chance_are_not(
        mut inputs in vec(input(), 0..30),
        noise in vec(any::<u8>(), 0..300),
    ) {
        inputs.push(Input::End);
        let bytes = file(&inputs);
        let (read_back, cut) = read(&bytes).unwrap();
        prop_assert_eq!(cut, None);
        prop_assert_eq!(read_back, inputs.into_iter().map(Owned).collect::<Vec<_>>());
        prop_assert!(read_all(&noise).is_err());
        // Behind whole frames too.
        let followed: Vec<u8> = bytes.iter().chain(&noise).copied().collect();
        prop_assert_eq!(read(&followed).unwrap().1.is_some(), !noise.is_empty());
    }

    /// A frame whose checksum is right may still hold anything.
    #[test]
    fn content_of_chance_does_no_harm(noise in vec(any::<u8>(), 0..300)) {
        let mut bytes = file(&[]);
        bytes.extend(frame::pack(&noise).unwrap());
        prop_assert!(read_all(&bytes).is_ok());
    }
}

fn sample() -> (Vec<Owned>, Vec<u8>) {
    let inputs = [
        Input::Batch(1),
        Input::Record(b"a record"),
        Input::Symbol(7, Ok("ip_forward+0x1".into())),
        Input::Lost(3, 1, 2),
        Input::Swept(b"another"),
        Input::Record(b"one more"),
        Input::Batch(3),
        Input::End,
    ];
    let bytes = file(&inputs);
    (inputs.into_iter().map(own).collect(), bytes)
}

#[test]
fn a_torn_file_is_played_as_far_as_it_is_whole() {
    let (inputs, bytes) = sample();
    let mut lengths = Vec::new();
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Ok((read, cut)) => {
                let cut = cut.expect("a torn file is said to be one");
                assert!(cut.at <= length as u64 && inputs.starts_with(&read), "{length}: {read:?}");
                let whole = cut.at == length as u64;
                assert_eq!(cut.reason == CutReason::NoEnd, whole, "{length}: {cut}");
                lengths.push(read.len());
            }
            Err(error) => assert!(
                matches!(error, RecordingError::Foreign | RecordingError::Empty(CutReason::Torn)),
                "{length}: {error}"
            ),
        }
    }
    assert!(lengths.is_sorted());
    assert_eq!((lengths.first(), lengths.last()), (Some(&3), Some(&6)), "frames of three inputs");
}

#[test]
fn no_changed_byte_passes() {
    let (inputs, bytes) = sample();
    for place in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[place] ^= change;
            if let Ok((read, cut)) = read(&changed) {
                assert!(cut.is_some() && read.len() < inputs.len(), "byte {place}");
                assert!(inputs.starts_with(&read), "byte {place}: {read:?}");
            }
        }
    }
}

#[test]
fn what_is_no_recording_is_told_in_a_line_that_says_what_to_do() {
    let (_, bytes) = sample();
    let error = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        read_all(&bytes).unwrap_err().to_string()
    };
    assert!(
        error(|bytes| bytes[8] = 9).starts_with("is a recording of format 9, this observer plays format 2:")
    );
    assert!(error(|bytes| bytes[10] = 77).starts_with("holds kernel records of version 77"));
    assert!(error(|bytes| bytes.insert(0, b'#')).starts_with("is no recording"));
    assert!(error(|bytes| bytes.truncate(13)).starts_with("holds nothing that can be played"));
    assert!(error(Vec::clear).starts_with("is no recording"));
}

/// A length that is a lie costs no memory: this would be an allocation of 256 MiB for each of many.
#[test]
fn a_length_is_not_believed() {
    let mut bytes = file(&[]);
    let header = [(256_u32 << 20).to_le_bytes(), (256_u32 << 20).to_le_bytes(), [0; 4]].concat();
    bytes.extend(&header);
    for _ in 0..10_000 {
        assert_eq!(read_all(&bytes).unwrap().cut.unwrap().reason, CutReason::Torn);
    }
    let behind = bytes.len() - 12;
    bytes[behind + 3] = 0xff;
    assert_eq!(read_all(&bytes).unwrap().cut.unwrap().reason, CutReason::Damaged);
}

#[test]
fn names_that_came_before_the_head_stand_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let recorder = Recorder::create(&path).unwrap();
    let change = Change::Gone(Rank::Local, "uid".into(), Window::exact(1));
    // The same trait method that the cache calls.
    recorder_keeps(&recorder, &change, true);
    recorder_keeps(&recorder, &change, false);
    recorder.begin(&head());
    recorder.keep(&Input::End);
    recorder.keep(&Input::Batch(1));
    assert_eq!(recorder.finish().unwrap().totals.inputs, 2);
    let (inputs, cut) = read(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(inputs, [Owned(Input::Names(Cow::Owned(change))), Owned(Input::End)]);
    assert_eq!(cut, None);
}

fn recorder_keeps(recorder: &Recorder, change: &Change, changed: bool) {
    let journal: &dyn crate::enrich::source::Journal = recorder;
    journal.keep(change, &mut || changed);
}
