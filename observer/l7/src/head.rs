//! Heads of HTTP/1 messages, by httparse: what hyper reads them with, fast, without allocation, and held against servers for
//! years. What a head says of the body behind it is decided here, as RFC 9112 has it.

use httparse::Header;

/// The most header fields of a head.
pub const MOST_FIELDS: usize = 128;

/// Memory for the fields of a head.
pub type Fields<'a> = [Header<'a>; MOST_FIELDS];

/// How long the body behind a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// As its chunks say.
    Chunked,
    /// Of a response: until the connection ends.
    UntilClose,
}

/// A message's head. Texts are as they were sent, and may be any bytes but line ends.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// What kind it is.
    pub start: Start<'a>,
    /// The minor version of HTTP/1: 0 or 1.
    pub minor: u8,
    /// The fields in their order.
    pub fields: &'a [Header<'a>],
    /// What the fields say of the body; a response may have none all the same.
    pub body: Body,
    /// Its length, bytes.
    pub length: usize,
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// Of a request.
    Request {
        /// The method.
        method: &'a str,
        /// What is asked for, as sent.
        target: &'a str,
    },
    /// Of a response.
    Response {
        /// The status code.
        code: u16,
    },
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHead {
    /// It goes on.
    Partial,
    /// It is none, or contradicts itself.
    Malformed,
    /// It begins HTTP/2.
    Http2,
}

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a response begins with.
const VERSION: &[u8] = b"HTTP/";

/// Reads the head that `bytes` begin with.
///
/// # Errors
///
/// Why there is none.
pub fn read<'a>(bytes: &'a [u8], fields: &'a mut Fields<'a>) -> Result<Head<'a>, NoHead> {
    if !bytes.is_empty() && (PREFACE.starts_with(bytes) || bytes.starts_with(PREFACE)) {
        return Err(if bytes.len() < PREFACE.len() { NoHead::Partial } else { NoHead::Http2 });
    }
    // Line ends may stand before a request; behind them is what it is.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let begin = &bytes[start..];
    if begin.len() < VERSION.len() && VERSION.starts_with(begin) {
        return Err(NoHead::Partial);
    }
    if begin.starts_with(VERSION) { response(bytes, fields) } else { request(bytes, fields) }
}

fn request<'a>(bytes: &'a [u8], fields: &'a mut Fields<'a>) -> Result<Head<'a>, NoHead> {
    let mut head = httparse::Request::new(fields);
    let length = length(head.parse(bytes))?;
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(NoHead::Malformed);
    };
    let fields: &'a [Header<'a>] = head.headers;
    let body = match framing(fields)? {
        Framing { chunked: true, .. } => Body::Chunked,
        Framing { transfer: true, .. } => return Err(NoHead::Malformed),
        Framing { length, .. } => Body::Length(length.unwrap_or(0)),
    };
    Ok(Head { start: Start::Request { method, target }, minor, fields, body, length })
}

fn response<'a>(bytes: &'a [u8], fields: &'a mut Fields<'a>) -> Result<Head<'a>, NoHead> {
    let mut head = httparse::Response::new(fields);
    let length = length(head.parse(bytes))?;
    let (Some(code), Some(minor)) = (head.code, head.version) else { return Err(NoHead::Malformed) };
    let fields: &'a [Header<'a>] = head.headers;
    let body = match framing(fields)? {
        Framing { chunked: true, .. } => Body::Chunked,
        Framing { transfer: false, length: Some(length), .. } => Body::Length(length),
        Framing { .. } => Body::UntilClose,
    };
    Ok(Head { start: Start::Response { code }, minor, fields, body, length })
}

fn length(parsed: httparse::Result<usize>) -> Result<usize, NoHead> {
    match parsed {
        Ok(httparse::Status::Complete(length)) => Ok(length),
        Ok(httparse::Status::Partial) => Err(NoHead::Partial),
        Err(_) => Err(NoHead::Malformed),
    }
}

struct Framing {
    length: Option<u64>,
    transfer: bool,
    chunked: bool,
}

/// What the fields say. Two lengths that differ are nothing that can be believed (RFC 9112, 6.3).
fn framing(fields: &[Header<'_>]) -> Result<Framing, NoHead> {
    let mut framing = Framing { length: None, transfer: false, chunked: false };
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            framing.transfer = true;
            let last = field.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            framing.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if field.name.eq_ignore_ascii_case("content-length") {
            for value in field.value.split(|byte| *byte == b',') {
                let value = number(value.trim_ascii()).ok_or(NoHead::Malformed)?;
                if framing.length.replace(value).is_some_and(|other| other != value) {
                    return Err(NoHead::Malformed);
                }
            }
        }
    }
    Ok(framing)
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The value of the first field of this name.
pub fn field<'a>(fields: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}
