//! Files that end, or are damaged, at any byte of what was written last.

use super::{
    super::{frame::FileHead, segment::UNSEALED},
    *,
};

/// A copy of a folder, with this file's content changed.
fn changed(folder: &Path, file: &Path, change: impl Fn(&mut Vec<u8>)) -> TempDir {
    let copy = TempDir::new().unwrap();
    for path in files(folder) {
        let mut bytes = fs::read(&path).unwrap();
        if path == file {
            change(&mut bytes);
        }
        fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    copy
}

/// Opens it, adds flows, and opens it again: what must be there is, once, and the rest of what was torn is cut off.
fn goes_on(folder: &Path, wanted: u64, is_torn: bool, what: &str) {
    let mut life = Life::begin(&config(folder), 1024);
    assert_eq!(packets(&life.history), (0..wanted).collect::<Vec<_>>(), "{what}");
    let counts = life.history.counts();
    assert_eq!(counts.torn > 0, is_torn, "{what}: {counts:?}");
    life.push(wanted..wanted + 3);
    life.end();
    let (history, _keeper) = History::open(&config(folder)).unwrap();
    assert_eq!(packets(&history), (0..wanted + 3).collect::<Vec<_>>(), "{what}, afterwards");
    assert_eq!((history.counts().torn, kept(&history).1), (0, 0), "{what}, afterwards");
}

/// Three pieces of seven flows in a file, and where each begins.
fn pieces(folder: &Path) -> (PathBuf, Vec<u64>) {
    let mut life = Life::begin(&config(folder), 1024);
    let mut begins = Vec::new();
    for round in 0..3 {
        life.push(round * 7..round * 7 + 7);
        life.runtime.block_on(life.history.seal(round * 7 + 7));
        let segments = life.history.index.read();
        begins.push(segments[0].pieces.iter().map(|place| place.at).max().unwrap());
    }
    life.end();
    let file = files(folder).into_iter().find(|file| !file.ends_with(UNSEALED)).unwrap();
    let head = super::super::frame::PieceHead::LEN as u64;
    (file, begins.into_iter().map(|at| at - head).collect())
}

#[test]
fn a_file_may_end_anywhere_in_its_last_piece() {
    let folder = TempDir::new().unwrap();
    let (file, begins) = pieces(folder.path());
    let length = fs::metadata(&file).unwrap().len();
    for end in begins[2]..=length {
        let copy = changed(folder.path(), &file, |bytes| bytes.truncate(end as usize));
        let wanted = if end == length { 21 } else { 14 };
        goes_on(copy.path(), wanted, end != begins[2] && end != length, &format!("cut at {end} of {length}"));
    }
}

#[test]
fn any_byte_of_the_last_piece_may_be_wrong() {
    let folder = TempDir::new().unwrap();
    let (file, begins) = pieces(folder.path());
    let length = fs::metadata(&file).unwrap().len();
    for at in begins[2]..length {
        let copy = changed(folder.path(), &file, |bytes| bytes[at as usize] ^= 0x40);
        goes_on(copy.path(), 14, true, &format!("byte {at} of {length}"));
    }
}

#[test]
fn a_file_may_end_anywhere_in_its_beginning() {
    let folder = TempDir::new().unwrap();
    let (file, begins) = pieces(folder.path());
    assert_eq!(begins[0], FileHead::LEN);
    for end in 0..FileHead::LEN {
        let copy = changed(folder.path(), &file, |bytes| bytes.truncate(end as usize));
        goes_on(copy.path(), 0, false, &format!("cut at {end}"));
    }
}

#[test]
fn flows_without_a_piece_may_end_anywhere() {
    let folder = TempDir::new().unwrap();
    let mut life = Life::begin(&config(folder.path()), 1024);
    let mut ends = vec![FileHead::LEN];
    let file = folder.path().join(UNSEALED);
    for round in 0..3 {
        life.push(round * 5..round * 5 + 5);
        life.until("the disk", |counts| counts.flushed == round * 5 + 5);
        ends.push(fs::metadata(&file).unwrap().len());
    }
    // The folder as it is, without an end in order.
    for end in ends[2]..=ends[3] {
        let copy = changed(folder.path(), &file, |bytes| bytes.truncate(end as usize));
        let wanted = if end == ends[3] { 15 } else { 10 };
        goes_on(copy.path(), wanted, !ends.contains(&end), &format!("cut at {end} of {ends:?}"));
    }
    life.end();
}
