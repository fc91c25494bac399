//! Where requests begin and end in what a client sends, read strictly.
//!
//! Everything that proxies and servers are known to understand differently is refused, also where RFC 9112 lets a
//! recipient be lenient: two lengths, other codings than `chunked`, lines that end without CR, white space around names,
//! folded lines, other than one `Host`.

use memchr::{memchr, memchr_iter, memmem};

/// The most bytes of a head.
pub(crate) const MOST_HEAD: usize = 64 << 10;
/// Headers of a request; hyper takes as many.
const MOST_HEADERS: usize = 100;
/// A line before a chunk: its size, and extensions that nobody uses.
const MOST_CHUNK_LINE: usize = 256;
/// What follows the last chunk.
const MOST_TRAILERS: usize = 8 << 10;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkLine,
    /// So much of a chunk, with the CRLF behind it.
    Chunk(u64),
    ChunkEnd,
    /// How many bytes of trailers there were.
    Trailers(usize),
    /// Another protocol, to which both sides went over.
    Raw,
    Broken,
}

/// Nobody is to read on: the client has broken the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// The place in a client's stream.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    requests: u32,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self { state: State::Head, requests: 0 }
    }

    /// Both sides speak another protocol from here on.
    pub(crate) fn switch(&mut self) {
        self.state = State::Raw;
    }

    /// How many heads were passed on, the lower half of the number.
    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// Whether it is between two requests.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Head
    }

    /// Whether what comes next is awaited whole, and not passed on as it comes.
    pub(crate) fn awaits_whole(&self) -> bool {
        matches!(self.state, State::Head | State::ChunkLine | State::ChunkEnd | State::Trailers(_))
    }

    /// How many of these bytes, which come next, may be passed on; 0 means that more of them are needed. They are not to be
    /// given again.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut passed = 0;
        while passed < bytes.len() {
            let step = self.step(&bytes[passed..]).inspect_err(|_| self.state = State::Broken);
            match step {
                Ok(0) => break,
                Ok(step) => passed += step,
                // What stands before it is in order.
                Err(Broken) if passed > 0 => break,
                Err(Broken) => return Err(Broken),
            }
        }
        Ok(passed)
    }

    /// As [`Framing::pass`], no further than the end of a head, a body or a line.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn pass_one(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        self.step(bytes)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        match self.state {
            State::Head => self.head(bytes),
            State::Body(left) | State::Chunk(left) => {
                let step = (bytes.len() as u64).min(left);
                let rest = left - step;
                self.state = match self.state {
                    State::Body(_) if rest == 0 => State::Head,
                    State::Body(_) => State::Body(rest),
                    _ if rest == 0 => State::ChunkEnd,
                    _ => State::Chunk(rest),
                };
                Ok(step as usize)
            }
            State::ChunkLine => {
                let Some(line) = line(bytes, MOST_CHUNK_LINE)? else { return Ok(0) };
                self.state = match chunk_size(line)? {
                    0 => State::Trailers(0),
                    size => State::Chunk(size),
                };
                Ok(line.len() + 2)
            }
            State::ChunkEnd => match bytes {
                [] | [b'\r'] => Ok(0),
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkLine;
                    Ok(2)
                }
                _ => Err(Broken),
            },
            State::Trailers(before) => {
                let Some(line) = line(bytes, MOST_TRAILERS - before)? else { return Ok(0) };
                if line.is_empty() {
                    self.state = State::Head;
                } else {
                    trailer(line)?;
                    self.state = State::Trailers(before + line.len() + 2);
                }
                Ok(line.len() + 2)
            }
            State::Raw => Ok(bytes.len()),
            State::Broken => Err(Broken),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        // RFC 9112, 2.2: an empty line before a request is no fault.
        if bytes.starts_with(b"\r\n") {
            return Ok(2);
        }
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            // An end without CR would be waited for in vain.
            return if has_lone_lf(bytes) || bytes.len() > MOST_HEAD { Err(Broken) } else { Ok(0) };
        };
        let head = &bytes[..end + 4];
        if head.len() > MOST_HEAD {
            return Err(Broken);
        }
        self.state = after(head)?;
        self.requests = self.requests.wrapping_add(1);
        Ok(head.len())
    }
}

/// A line without its end, if it is whole.
fn line(bytes: &[u8], most: usize) -> Result<Option<&[u8]>, Broken> {
    match memchr(b'\n', bytes) {
        Some(at) if at > 0 && at <= most && bytes[at - 1] == b'\r' => Ok(Some(&bytes[..at - 1])),
        None if bytes.len() <= most => Ok(None),
        _ => Err(Broken),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Broken> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    // Extensions have no meaning for anybody; hyper leaves them out.
    let plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    if !(extension.is_empty() || extension[0] == b';' && extension.iter().all(plain)) || digits > 15 {
        return Err(Broken);
    }
    let size = std::str::from_utf8(size).map_err(|_| Broken)?;
    u64::from_str_radix(size, 16).map_err(|_| Broken)
}

/// Trailers say nothing of how a message is read.
fn trailer(line: &[u8]) -> Result<(), Broken> {
    let mut text = line.to_vec();
    text.extend_from_slice(b"\r\n\r\n");
    let mut headers = [httparse::EMPTY_HEADER; 1];
    let Ok(httparse::Status::Complete((_, [header]))) = httparse::parse_headers(&text, &mut headers) else {
        return Err(Broken);
    };
    let forbidden = ["content-length", "transfer-encoding", "host", "trailer", "connection"];
    let is_forbidden = forbidden.iter().any(|name| header.name.eq_ignore_ascii_case(name));
    if is_forbidden { Err(Broken) } else { Ok(()) }
}

fn has_lone_lf(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

/// What follows a head, which is whole.
fn after(head: &[u8]) -> Result<State, Broken> {
    // httparse takes one for the end of a line.
    if has_lone_lf(head) {
        return Err(Broken);
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(length)) if length == head.len()) {
        return Err(Broken);
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Broken);
    };
    let (mut hosts, mut lengths, mut codings) = (One::None, One::None, One::None);
    for header in &*request.headers {
        match header.name.len() {
            4 if header.name.eq_ignore_ascii_case("host") => hosts.add(header.value)?,
            14 if header.name.eq_ignore_ascii_case("content-length") => lengths.add(header.value)?,
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => codings.add(header.value)?,
            _ => {}
        }
    }
    is_target(method, target, hosts.get())?;
    if version == 1 && hosts.get().is_none() {
        return Err(Broken);
    }
    match (lengths.get(), codings.get()) {
        (None, None) => Ok(State::Head),
        (Some(length), None) => {
            if length.is_empty() || length.len() > 18 || !length.iter().all(u8::is_ascii_digit) {
                return Err(Broken);
            }
            let length = length.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            Ok(if length == 0 { State::Head } else { State::Body(length) })
        }
        (None, Some(coding)) if version == 1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(State::ChunkLine)
        }
        _ => Err(Broken),
    }
}

/// A header that stands once or not at all.
enum One<'a> {
    None,
    Some(&'a [u8]),
}

impl<'a> One<'a> {
    fn add(&mut self, value: &'a [u8]) -> Result<(), Broken> {
        match self {
            Self::None => *self = Self::Some(value),
            Self::Some(_) => return Err(Broken),
        }
        Ok(())
    }

    fn get(&self) -> Option<&'a [u8]> {
        match self {
            Self::None => None,
            Self::Some(value) => Some(value),
        }
    }
}

/// A path; with the host before it, the host's own; or what `OPTIONS` asks of a whole server. Tunnels are not made.
fn is_target(method: &str, target: &str, host: Option<&[u8]>) -> Result<(), Broken> {
    if let Some(host) = host {
        // Not empty, and nothing that ends a host: those who join it to a path would have another path.
        let odd = |byte: &u8| !(byte.is_ascii_alphanumeric() || b".-_~:[]%!$&'()*+,;=".contains(byte));
        if host.iter().any(odd) {
            return Err(Broken);
        }
    }
    if method == "CONNECT" {
        return Err(Broken);
    }
    if target.starts_with('/') || target == "*" && method == "OPTIONS" {
        return Ok(());
    }
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).ok_or(Broken)?;
    let rest = &target[scheme.len()..];
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let plain = |host: &str| host.strip_suffix(":80").unwrap_or(host).to_ascii_lowercase();
    let host = host.map(String::from_utf8_lossy);
    match host {
        Some(host) if !authority.is_empty() && plain(&host) == plain(authority) => Ok(()),
        // HTTP/1.0 may do without; HTTP/1.1 is refused elsewhere.
        None if !authority.is_empty() && !authority.contains('@') => Ok(()),
        _ => Err(Broken),
    }
}

#[cfg(test)]
mod tests;
