//! What begins a connection of TLS (RFC 8446, RFC 6066): hellos, read where they lie, and an alert in the place of one.

use crate::MOST_HEAD;
use std::{borrow::Cow, fmt};

/// The longest name of a server, as DNS has it.
const MOST_NAME: usize = 255;
/// The longest record.
const MOST_RECORD: usize = 1 << 14;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const FATAL: u8 = 2;
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;
/// Bytes of the random number in each hello, and of what a server chose: cipher suite and compression.
const RANDOM: usize = 32;
const CHOSEN: usize = 3;

/// A version, of SSL 3.0 to TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8);

impl Version {
    fn new(number: u16) -> Option<Self> {
        let [major, minor] = number.to_be_bytes();
        (major == 3 && usize::from(minor) < VERSIONS.len()).then_some(Self(minor))
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let minor = VERSIONS.iter().position(|version| *version == name)?;
        u8::try_from(minor).ok().map(Self)
    }

    /// `TLS 1.3` and the like.
    pub fn name(self) -> &'static str {
        VERSIONS[usize::from(self.0)]
    }
}

const VERSIONS: [&str; 5] = ["SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"];

/// The name of a server, as its client sent it: any bytes, 255 at most.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServerName<'a>(&'a [u8]);

/// In lower case, since names don't differ by it; what is no visible character is written as in names of DNS: `\007`.
impl fmt::Display for ServerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b'!'..=b'~' => fmt::Write::write_char(f, byte.to_ascii_lowercase() as char)?,
                _ => write!(f, "\\{byte:03}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ServerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What a direction begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First<'a> {
    /// Of a client: whom it wants to speak to, and the highest version that it knows.
    Client {
        /// The name, where it says one.
        server_name: Option<ServerName<'a>>,
        /// The version.
        version: Version,
    },
    /// Of a server: the version that is spoken from here on.
    Server {
        /// The version.
        version: Version,
    },
    /// Of a server that doesn't go on: why, see [`alert_name`].
    Alert(u8),
}

/// Why there is nothing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHello {
    /// It goes on.
    Partial,
    /// It is none.
    Malformed,
    /// It is longer than is read.
    TooLong,
}

/// Reads what `stream` begins with, and hands it on.
///
/// # Errors
///
/// Why that can't be.
pub fn read<R>(stream: &[u8], understood: impl FnOnce(First<'_>) -> R) -> Result<R, NoHello> {
    if let [ALERT, rest @ ..] = stream {
        return match *rest {
            [3, _, 0, 2, FATAL, what, ..] => Ok(understood(First::Alert(what))),
            [_, _, _, _, _, _, ..] => Err(NoHello::Malformed),
            _ => Err(NoHello::Partial),
        };
    }
    let message = message(stream)?;
    match hello(&message) {
        Some(first) => Ok(understood(first)),
        None => Err(NoHello::Malformed),
    }
}

/// Whether what `bytes` begin with may be read.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [ALERT | HANDSHAKE, ..])
}

/// The first message, which may go on over several records.
fn message(stream: &[u8]) -> Result<Cow<'_, [u8]>, NoHello> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut rest = stream;
    loop {
        let Some((&[kind, major, _, high, low], behind)) = rest.split_first_chunk() else {
            let may_be = rest.iter().zip([HANDSHAKE, 3]).all(|(is, should)| *is == should);
            return Err(if may_be { NoHello::Partial } else { NoHello::Malformed });
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if (kind, major) != (HANDSHAKE, 3) || !(1..=MOST_RECORD).contains(&length) {
            return Err(NoHello::Malformed);
        }
        let part = &behind[..length.min(behind.len())];
        if message.is_empty() {
            message = part.into();
        } else {
            message.to_mut().extend_from_slice(part);
        }
        if let [kind, high, middle, low, ..] = *message {
            if !matches!(kind, CLIENT_HELLO | SERVER_HELLO) {
                return Err(NoHello::Malformed);
            }
            let whole = 4 + u32::from_be_bytes([0, high, middle, low]) as usize;
            if whole > MOST_HEAD {
                return Err(NoHello::TooLong);
            }
            if message.len() >= whole {
                return Ok(match message {
                    Cow::Borrowed(bytes) => bytes[..whole].into(),
                    Cow::Owned(mut bytes) => {
                        bytes.truncate(whole);
                        bytes.into()
                    }
                });
            }
        }
        rest = behind.get(length..).ok_or(NoHello::Partial)?;
    }
}

fn hello(message: &[u8]) -> Option<First<'_>> {
    let is_client = message[0] == CLIENT_HELLO;
    let mut body = Reader(&message[4..]);
    // TLS 1.3 says 1.2 here, and its own number in an extension.
    let mut version = body.word()?;
    body.take(RANDOM)?;
    body.short()?;
    if is_client {
        body.long()?;
        body.short()?;
    } else {
        body.take(CHOSEN)?;
    }
    // Before TLS 1.3 there may be none.
    let mut extensions = if body.0.is_empty() { Reader(&[]) } else { Reader(body.long()?) };
    let mut server_name = None;
    while !extensions.0.is_empty() {
        let (kind, mut content) = (extensions.word()?, Reader(extensions.long()?));
        match kind {
            SERVER_NAME if is_client => server_name = host(Reader(content.long()?)).ok()?,
            SUPPORTED_VERSIONS if is_client => {
                let mut list = Reader(content.short()?);
                // Numbers that nobody knows are there, so that servers learn to pass over them (RFC 8701).
                let known =
                    std::iter::from_fn(|| list.word()).filter(|number| Version::new(*number).is_some());
                version = known.max().unwrap_or(version);
            }
            SUPPORTED_VERSIONS => version = content.word()?,
            _ => {}
        }
    }
    let version = Version::new(version)?;
    Some(if is_client { First::Client { server_name, version } } else { First::Server { version } })
}

/// The first host of a list of names, if there is any.
fn host(mut names: Reader<'_>) -> Result<Option<ServerName<'_>>, NoHello> {
    const HOST: u8 = 0;
    while !names.0.is_empty() {
        let (Some([kind]), Some(name)) = (names.take(1), names.long()) else {
            return Err(NoHello::Malformed);
        };
        if *kind == HOST {
            let is_name = (1..=MOST_NAME).contains(&name.len());
            return is_name.then_some(Some(ServerName(name))).ok_or(NoHello::Malformed);
        }
    }
    Ok(None)
}

/// What is not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).map(|word| u16::from_be_bytes([word[0], word[1]]))
    }

    /// What has its length before it, in a byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// What has its length before it, in two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.word()?;
        self.take(length.into())
    }
}

/// The name of an alert (RFC 8446, 6); nothing for one that few know.
pub fn alert_name(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => return None,
    })
}
