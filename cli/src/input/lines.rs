//! The lines of a file, plain or compressed by gzip, of standard input, or of anything else that can be read.

use flate2::read::MultiGzDecoder;
use memchr::memchr;
use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
};

/// What is read at once.
const BUFFER: usize = 128 * 1024;
/// A longer line is no flow: it is passed over without being kept. Hubble's own limit is 64 KiB.
const LONGEST: usize = 8 * 1024 * 1024;
/// With what gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// One line, or that there was one which is too long to be kept.
pub(super) enum Line<'a> {
    Text(&'a [u8]),
    TooLong,
}

/// Reads line by line.
pub(super) struct Lines {
    name: String,
    /// Its size, for a regular file; of others nobody knows how much is to come.
    pub(super) size: Option<u64>,
    /// Of the file as it lies on the disk.
    pub(super) read: Rc<Cell<u64>>,
    source: Source,
    number: u64,
    /// The last line, with its end, is so many of the next bytes of what was read; or it is in `line`.
    in_place: usize,
    line: Vec<u8>,
}

enum Source {
    /// What it holds is looked at when it is its turn: standard input may be a terminal or an idle pipe.
    Unopened(Counted),
    Open(BufReader<Box<dyn Read>>),
    Ended,
}

/// Counts what is taken of a file.
struct Counted {
    file: Box<dyn Read>,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.file.read(buffer)?;
        self.read.set(self.read.get() + taken as u64);
        Ok(taken)
    }
}

impl Lines {
    /// A file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::new("standard input".to_owned(), Box::new(io::stdin().lock()), None));
        }
        let file = File::open(path)?;
        let about = file.metadata()?;
        let size = about.is_file().then_some(about.len());
        Ok(Self::new(path.display().to_string(), Box::new(file), size))
    }

    fn new(name: String, file: Box<dyn Read>, size: Option<u64>) -> Self {
        let read = Rc::default();
        let source = Source::Unopened(Counted { file, read: Rc::clone(&read) });
        Self { name, size, read, source, number: 0, in_place: 0, line: Vec::new() }
    }

    /// The next line without its end; nothing after the last.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let Some(reader) = self.source.reader()? else { return Ok(None) };
        reader.consume(std::mem::take(&mut self.in_place));
        self.line.clear();
        // Nearly all lines, of which no copy is made.
        if let Some(end) = memchr(b'\n', reader.fill_buf()?) {
            (self.in_place, self.number) = (end + 1, self.number + 1);
            return Ok(Some(Line::Text(self.line())));
        }
        reader.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            self.source = Source::Ended;
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') && self.line.len() > LONGEST {
            // The rest of it is not kept.
            reader.skip_until(b'\n')?;
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(Line::Text(without_end(&self.line))))
    }

    /// The line that was read last, without its end.
    pub(super) fn line(&self) -> &[u8] {
        without_end(match &self.source {
            Source::Open(reader) if self.in_place > 0 => &reader.buffer()[..self.in_place],
            _ => &self.line,
        })
    }

    /// Whether the next line is in memory already, at least its beginning.
    pub(super) fn is_ready(&self) -> bool {
        matches!(&self.source, Source::Open(reader) if reader.buffer().len() > self.in_place)
    }

    /// The file and the line that was read last, for messages.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.name, self.number)
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Source {
    fn reader(&mut self) -> io::Result<Option<&mut BufReader<Box<dyn Read>>>> {
        if matches!(self, Self::Unopened(_))
            && let Self::Unopened(mut file) = std::mem::replace(self, Self::Ended)
        {
            let mut head = Vec::new();
            file.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
            let packed = head == GZIP;
            let whole = io::Cursor::new(head).chain(file);
            let text: Box<dyn Read> =
                if packed { Box::new(MultiGzDecoder::new(BufReader::new(whole))) } else { Box::new(whole) };
            *self = Self::Open(BufReader::with_capacity(BUFFER, text));
        }
        Ok(match self {
            Self::Open(reader) => Some(reader),
            Self::Unopened(_) | Self::Ended => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn of(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new("x".to_owned(), Box::new(io::Cursor::new(bytes.to_vec())), None);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(match line {
                Line::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                Line::TooLong => "too long".to_owned(),
            });
        }
        assert_eq!(lines.number, found.len() as u64);
        found
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn ends_of_lines() {
        assert_eq!(of(b""), [""; 0]);
        assert_eq!(of(b"\n"), [""]);
        assert_eq!(of(b"a\r\nb\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(of(b"\x1f"), ["\x1f"]);
    }

    #[test]
    fn gzip_is_told_by_its_head_and_may_have_parts() {
        assert_eq!(of(&packed(b"a\nb")), ["a", "b"]);
        assert_eq!(of(&[packed(b"a\n"), packed(b"b\n")].concat()), ["a", "b"]);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(of(&[&long[..], b"y\nz\n"].concat()), ["too long", "z"]);
        assert_eq!(of(&long), ["too long"]);
        let longest = vec![b'x'; LONGEST];
        assert_eq!(of(&[&longest[..], b"\nz\n"].concat())[1], "z");
    }
}
