//! What stands in files, and what becomes of flows where a file takes nothing.

use super::*;
use crate::{
    dynamic::Selection,
    export::config::Sum,
    serve::{encode::Encoder, mask::Mask},
};
use observer_proto::flow::Aggregate;

#[test]
fn a_line_is_the_response_that_the_server_would_give() {
    let mut bed = Bed::new(4096);
    let path = bed.path("events.log");
    let exports = bed.start_one(to(&path));
    bed.push(0..300);
    bed.end(exports);
    let mut encoder = Encoder::new(&node());
    let mut wanted = Vec::new();
    for number in 0..300 {
        encoder.json_line(&mut wanted, number, &numbered(number).flow());
        wanted.push(b'\n');
    }
    assert_eq!(text(&path), String::from_utf8(wanted).unwrap());
    assert_eq!(told(&text(&path)), ((0..300).collect(), 0));
    let counts = bed.counts("static");
    assert_eq!((counts.written, counts.waiting, counts.overwritten, counts.unwritten), (300, 0, 0, 0));
    assert_eq!(counts.bytes, fs::metadata(&path).unwrap().len());
    assert!(!counts.active && !counts.suspended);
}

#[test]
fn filters_a_mask_and_an_end_leave_out() {
    let mut bed = Bed::new(4096);
    let path = bed.path("events.log");
    let selection = Selection::of_flags(
        Some(r#"{"destination_port":["80"]}"#),
        Some(r#"{"traffic_direction":["EGRESS"]}"#),
    );
    let exporter = Exporter {
        selection: selection.unwrap(),
        mask: Mask::parse(&["time".to_owned(), "verdict".to_owned(), "source.pod_name".to_owned()]).unwrap(),
        // All flows are from 1970; it is over when it begins.
        end: Some(9),
        ..to(&path)
    };
    bed.push(0..20);
    let exports = bed.start_one(exporter);
    until("the end", || !bed.counts("static").active);
    bed.push(20..30);
    bed.end(exports);
    let lines: Vec<String> = (0..10)
        .step_by(2)
        .map(|number| {
            let nanos = if number == 0 { String::new() } else { format!(".00000000{number}") };
            let time = format!("1970-01-01T00:00:00{nanos}Z");
            format!(
                "{{\"flow\":{{\"time\":\"{time}\",\"verdict\":\"FORWARDED\",\"source\":{{}}}},\"time\":\"{time}\"}}\n"
            )
        })
        .collect();
    assert_eq!(text(&path), lines.concat());
    let counts = bed.counts("static");
    assert_eq!((counts.written, counts.filtered), (5, 15));
}

#[test]
fn equal_flows_are_one_line_with_their_counts() {
    let mut bed = Bed::new(4096);
    let path = bed.path("events.log");
    let fields = ["verdict", "l4.TCP.destination_port"].map(str::to_owned);
    let sum = Sum {
        fields: Mask::parse(&fields).unwrap().unwrap(),
        // It ends before.
        interval: Duration::from_hours(1),
    };
    bed.push(5..105);
    let exports = bed.start_one(Exporter { sum: Some(sum), ..to(&path) });
    bed.end(exports);
    let text = text(&path);
    let mut found: Vec<_> = text
        .lines()
        .map(|line| {
            let flow = flow(line);
            assert_eq!(event(line).time, flow.time);
            (number(&flow), flow.aggregate.unwrap(), line.contains("\"destination_port\":80"))
        })
        .collect();
    found.sort_by_key(|(number, ..)| *number);
    let count = |ingress_flow_count, egress_flow_count| Aggregate {
        ingress_flow_count,
        egress_flow_count,
        ..Aggregate::default()
    };
    assert_eq!(found, [(5, count(0, 50), false), (6, count(50, 0), true)]);
    let counts = bed.counts("static");
    assert_eq!((counts.aggregated, counts.sums, counts.written, counts.waiting), (100, 2, 0, 0));
}

/// `tail -F`, and the lines that it has printed.
struct Tail(std::process::Child, std::sync::mpsc::Receiver<String>);

impl Tail {
    fn of(path: &Path) -> Self {
        let mut tail = std::process::Command::new("tail");
        tail.args(["-n", "+1", "-F"]).arg(path).stderr(std::process::Stdio::null());
        let mut child = tail.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let lines = std::io::BufRead::lines(stdout).map_while(Result::ok);
            lines.map(|line| sender.send(line)).take_while(Result::is_ok).count()
        });
        Self(child, lines)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_follows_the_file_by_name_gets_each_line_through_rotations() {
    let mut bed = Bed::new(65_536);
    let path = bed.path("events.log");
    let file = LogFile { path: path.clone(), most_bytes: 20_000, backups: 100, compress: true };
    let exports = bed.start_one(Exporter { to: Target::File(file), ..to(&path) });
    let tail = Tail::of(&path);
    let mut next = 0;
    while bed.counts("static").rotations < 3 {
        // Less than a file, and the next when they have come: `tail` misses a file that is renamed before it is looked at.
        bed.push(next..next + 20);
        for number in next..next + 20 {
            let line = tail.1.recv_timeout(PATIENCE).unwrap();
            assert_eq!(super::number(&flow(&line)), number);
        }
        next += 20;
    }
    bed.end(exports);
    assert_eq!(bed.counts("static").written, next);
}

#[test]
fn a_full_file_is_renamed_and_each_line_is_in_one_file() {
    let mut bed = Bed::new(65_536);
    let path = bed.path("events.log");
    let most_bytes = 20_000;
    let file = LogFile { path: path.clone(), most_bytes, backups: 100, compress: true };
    let exports = bed.start_one(Exporter { to: Target::File(file), ..to(&path) });
    bed.push(0..2000);
    bed.end(exports);
    let rotations = bed.counts("static").rotations;
    assert!(rotations > 10, "{:?}", bed.counts("static"));
    let names = || -> Vec<PathBuf> {
        let entries = fs::read_dir(bed.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        // `-` of a backup's name is before the `.` of the file's own.
        names.sort();
        names
    };
    let is_packed = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    until("all are packed", || names().iter().filter(|path| is_packed(path)).count() as u64 == rotations);
    until("none is half packed", || names().len() as u64 == rotations + 1);
    let mut all = Vec::new();
    for path in names() {
        let text = text(&path);
        assert!(text.len() as u64 <= most_bytes, "{}: {}", path.display(), text.len());
        all.extend(told(&text).0);
    }
    assert_eq!(all, (0..2000).collect::<Vec<_>>());
}

#[test]
fn where_nothing_can_be_written_the_loss_is_exact_and_told() {
    let mut bed = Bed::new(256);
    let folder = bed.path("not yet a folder");
    fs::write(&folder, "in the way").unwrap();
    let path = folder.join("events.log");
    let exports = bed.start_one(to(&path));
    bed.push(0..10_000);
    until("the trouble", || bed.counts("static").suspended);
    bed.push(10_000..20_000);
    fs::remove_file(&folder).unwrap();
    until("it goes on", || !bed.counts("static").suspended);
    bed.push(20_000..20_010);
    bed.end(exports);
    let (numbers, lost) = told(&text(&path));
    let counts = bed.counts("static");
    assert!(counts.overwritten > 0 && counts.failures > 0, "{counts:?}");
    assert_eq!((numbers.len() as u64, lost), (counts.written, counts.overwritten));
    assert_eq!(numbers.len() as u64 + lost, 20_010);
    assert!(numbers.is_sorted() && numbers.ends_with(&(20_000..20_010).collect::<Vec<_>>()));
}

#[test]
fn what_could_not_be_written_at_the_end_is_counted() {
    // The kernel answers EIO to who writes to address 0, and takes nothing for the other.
    for path in ["/proc/self/mem", "/dev/full"] {
        let mut bed = Bed::new(1024);
        let exports = bed.start_one(to(Path::new(path)));
        bed.push(0..700);
        until("the trouble", || bed.counts("static").suspended);
        bed.push(700..900);
        bed.end(exports);
        let counts = bed.counts("static");
        assert_eq!(counts.written + counts.bytes, 0, "{path}: {counts:?}");
        assert_eq!(counts.unwritten + counts.overwritten, 900, "{path}: {counts:?}");
    }
}

#[test]
fn a_file_that_is_taken_away_is_made_anew_and_a_torn_line_stays_alone() {
    let mut bed = Bed::new(4096);
    let path = bed.path("logs/events.log");
    fs::create_dir(bed.path("logs")).unwrap();
    fs::write(&path, "{\"flow\":{\"ti").unwrap();
    let exports = bed.start_one(to(&path));
    bed.push(0..10);
    until("ten lines", || bed.counts("static").written == 10);
    let (torn, rest) = text(&path).split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!((torn.as_str(), told(&rest).0.len()), ("{\"flow\":{\"ti", 10));
    fs::remove_dir_all(bed.path("logs")).unwrap();
    // The look for it is one each 2 s, with what is written then.
    let mut next = 10;
    until("a new file", || {
        bed.writer.add(&numbered(next).flow());
        bed.writer.publish();
        next += 1;
        path.exists()
    });
    bed.end(exports);
    let (numbers, _) = told(&text(&path));
    assert!(!numbers.is_empty() && *numbers.last().unwrap() == next - 1, "{numbers:?}");
}
