//! The file that says what to export, and its changes.

use super::*;
use crate::{
    dynamic,
    export::{Operation, config::File, otlp::OtlpTarget},
};
use std::fmt::Write as _;

fn read(text: &str) -> Result<Vec<Exporter>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let fixed = to(Path::new("/l/static.log"));
    let read = dynamic::read(file.path(), |file: File| file.check(std::slice::from_ref(&fixed)));
    read.map_err(|error| error.strip_prefix(&format!("{}:", file.path().display())).unwrap().to_owned())
}

#[test]
fn ciliums_form_is_read() {
    let exporters = read(
        "flowLogs:\n\
         - name: one\n  filePath: /l/one.log\n  fieldMask: []\n  fieldAggregate: []\n  aggregationInterval: 0s\n  \
         includeFilters: []\n  excludeFilters: []\n  fileMaxSizeMb: 0\n  fileMaxBackups: 0\n  fileCompress: false\n  \
         end: \"2023-10-09T23:59:59-07:00\"\n\
         - name: two\n  filePath: stdout\n  fieldMask: [source.namespace, verdict]\n  \
         includeFilters:\n  - source_pod: [default/]\n    source_label: [\"a.b/c=enabled\"]\n    event_type:\n    - type: 1\n  \
         - destination_port: [\"80\"]\n  fileMaxSizeMb: 3\n  fileMaxBackups: 2\n  fileCompress: true\n\
         - name: three\n  filePath: /l/three.log\n  fieldAggregate: [source, verdict]\n  aggregationInterval: 30s\n\
         - name: four\n  otlp:\n    endpoint: https://collector:4317\n    headers: {authorization: Bearer x}\n    \
         resourceAttributes: {a.b: c}\n",
    )
    .unwrap();
    let [one, two, three, four] = &exporters[..] else { panic!("{exporters:?}") };
    let file = LogFile { path: "/l/one.log".into(), most_bytes: 10 << 20, backups: 5, compress: false };
    assert_eq!((&one.to, &one.mask, &one.sum), (&Target::File(file), &None, &None));
    assert_eq!(one.end, Some(1_696_921_199_000_000_000));
    assert!(two.to == Target::Stdout && two.mask.is_some());
    assert_eq!(three.sum.as_ref().unwrap().interval, Duration::from_secs(30));
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let (headers, attributes) = (pair("authorization", "Bearer x"), pair("a.b", "c"));
    let collector = OtlpTarget::new("https://collector:4317", headers, None, attributes).unwrap();
    assert_eq!(four.to, Target::Otlp(collector));
    assert_eq!(read("").unwrap(), []);
    assert_eq!(read("flowLogs: []").unwrap(), []);
}

#[test]
fn what_is_wrong_is_told_with_line_and_field() {
    let entry = |more: &str| format!("flowLogs:\n- name: one\n  filePath: /l/one\n  {more}\n");
    let mut wrong = String::new();
    for (text, wanted) in [
        ("flowLogs: 3".to_owned(), "1:11: flowLogs: "),
        ("flowLog: []".to_owned(), "1:1: flowLog: unknown field `flowLog`"),
        ("flowLogs:\n- filePath: /l/a\n".to_owned(), "flowLogs[0]: missing field `name`"),
        (
            entry("fieldMask: [verdict, bogus]"),
            "4:24: flowLogs[0].fieldMask[1]: invalid fieldmask: \"bogus\"",
        ),
        (entry("fieldMask: [verdict, true]"), "4:24: flowLogs[0].fieldMask[1]: "),
        (entry("aggregationInterval: 10"), "4:24: flowLogs[0].aggregationInterval: `10` is no duration"),
        (entry("end: tomorrow"), "4:8: flowLogs[0].end: "),
        (entry("fileMaxSizeMb: -1"), "4:18: flowLogs[0].fileMaxSizeMb: "),
        (
            entry("fileMaxBackups: 1000000"),
            "4:19: flowLogs[0].fileMaxBackups: 1000000 is out of range: 0 to 10000",
        ),
        (entry("fileCompress: maybe"), "4:17: flowLogs[0].fileCompress: write true or false"),
        (
            entry("includeFilters:\n  - source_pod: [x]\n  - source_pods: [x]"),
            "6:5: flowLogs[0].includeFilters[1]: unknown field \"source_pods\"",
        ),
        (
            entry("excludeFilters:\n  - source_ip: [bogus]"),
            "5:5: flowLogs[0].excludeFilters[0]: invalid IP address \"bogus\"",
        ),
        (
            entry("") + "- name: one\n  filePath: /l/two\n",
            "5:9: flowLogs[1].name: names tell exporters apart",
        ),
        (
            entry("") + "- name: two\n  filePath: /l/one\n",
            "6:13: flowLogs[1].filePath: another exporter writes there",
        ),
        (
            "flowLogs:\n- name: a\n  filePath: /l/static.log\n".to_owned(),
            "3:13: flowLogs[0].filePath: another exporter writes there",
        ),
        (
            "flowLogs:\n- name: a\n  filePath: events.log\n".to_owned(),
            "3:13: flowLogs[0].filePath: events.log: write `stdout`, or a file's path from / on",
        ),
        (
            "flowLogs:\n- name: a\n".to_owned(),
            "2:9: flowLogs[0].filePath: it goes nowhere: write filePath or otlp",
        ),
        (
            entry("otlp: {endpoint: http://c}"),
            "4:9: flowLogs[0].otlp: there is filePath, too: leave out the one or the other",
        ),
        (
            "flowLogs:\n- name: a\n  otlp:\n    endpoint: c:4317\n".to_owned(),
            "4:15: flowLogs[0].otlp.endpoint: `c:4317` is no address of a Collector",
        ),
    ] {
        match read(&text) {
            Err(error) if error.contains(wanted) && error.lines().count() == 1 => {}
            other => _ = writeln!(wrong, "{text}wanted {wanted}\nfound  {other:?}\n"),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_change_of_the_file_is_followed_without_a_loss() {
    let mut bed = Bed::new(65_536);
    let config = bed.path("flowlogs.yaml");
    let entry = |name: &str, more: &str| {
        format!("- name: {name}\n  filePath: {}\n{more}", bed.folder.path().join(name).display())
    };
    let write = |entries: &[String]| fs::write(&config, format!("flowLogs:\n{}", entries.concat())).unwrap();
    write(&[entry("stays", ""), entry("changes", ""), entry("goes", "")]);
    let exports = bed.start(ExportConfig { fixed: Vec::new(), file: Some(config.clone()) });
    let operations = || Operation::ALL.map(|operation| bed.board.operations(operation));
    assert_eq!(operations(), [3, 0, 0, 0]);
    let first = bed.board.applied().unwrap();

    for number in 0..100 {
        bed.writer.add(&numbered(number).flow());
    }
    fs::write(&config, "flowLogs:\n- name: broken\n").unwrap();
    until("the refusal", || operations() == [3, 0, 0, 1]);
    assert_eq!(bed.board.applied(), Some(first));
    assert_eq!(bed.board.exporters().len(), 3);

    write(&[entry("stays", ""), entry("changes", "  fileCompress: true\n"), entry("comes", "")]);
    // While flows come.
    let mut next = 100;
    until("the change", || {
        bed.writer.add(&numbered(next).flow());
        bed.writer.publish();
        next += 1;
        operations() == [4, 1, 1, 1]
    });
    assert_ne!(bed.board.applied().unwrap().0, first.0);
    for _ in 0..10 {
        bed.writer.add(&numbered(next).flow());
        bed.writer.publish();
        next += 1;
    }
    bed.end(exports);
    let numbers = |name: &str| told(&text(&bed.folder.path().join(name))).0;
    let all: Vec<u64> = (0..next).collect();
    assert_eq!(numbers("stays"), all);
    assert_eq!(numbers("changes"), all);
    let (gone, came) = (numbers("goes"), numbers("comes"));
    assert!(gone.len() >= 100 && all.starts_with(&gone), "{gone:?}");
    assert!(came.len() >= 10 && all.ends_with(&came), "{came:?}");
    let names: Vec<String> = bed.board.exporters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["changes", "comes", "stays"]);
}
