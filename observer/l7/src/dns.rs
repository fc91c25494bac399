//! DNS messages (RFC 1035), read where they lie: nothing is copied, and no name can go on for ever.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const HEADER: usize = 12;
/// The longest name, with the length of each label.
const MOST_NAME: usize = 255;

/// Types of records that are told by content.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// Another name of the one that was asked for.
    pub const CNAME: u16 = 5;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// What changed of a zone: no record, but a question that many messages answer.
    pub const IXFR: u16 = 251;
    /// A zone, likewise.
    pub const AXFR: u16 = 252;
}

/// Why bytes are no DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A message whose header and questions were read.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    questions: u16,
    answers: u16,
    /// Where the answers begin.
    answers_at: usize,
}

impl<'a> Message<'a> {
    /// Reads the header, and looks whether the questions are whole.
    ///
    /// # Errors
    ///
    /// Where they aren't.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (questions, answers) = (word(bytes, 4)?, word(bytes, 6)?);
        if bytes.len() < HEADER {
            return Err(Malformed);
        }
        let mut message = Self { bytes, questions, answers, answers_at: HEADER };
        for question in message.questions() {
            message.answers_at = question?.end;
        }
        Ok(message)
    }

    /// What a response has from its query.
    pub fn id(&self) -> u16 {
        word(self.bytes, 0).unwrap_or(0)
    }

    /// Whether it answers.
    pub fn is_response(&self) -> bool {
        self.flags() & 0x8000 != 0
    }

    /// What kind of question it is; 0 is the usual one.
    pub fn opcode(&self) -> u8 {
        (self.flags() >> 11 & 15) as u8
    }

    /// How a response ended; 0 is well. Without the upper bits that EDNS adds.
    pub fn rcode(&self) -> u8 {
        (self.flags() & 15) as u8
    }

    /// Whether it was cut to the size of a datagram.
    pub fn is_truncated(&self) -> bool {
        self.flags() & 0x0200 != 0
    }

    fn flags(&self) -> u16 {
        word(self.bytes, 2).unwrap_or(0)
    }

    /// What was asked.
    pub fn questions(&self) -> impl Iterator<Item = Result<Question<'a>, Malformed>> + use<'a> {
        let (bytes, mut at, mut left) = (self.bytes, HEADER, self.questions);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let question = Question::read(bytes, at);
            match &question {
                Ok(question) => at = question.end,
                Err(Malformed) => left = 0,
            }
            Some(question)
        })
    }

    /// The answers. Behind one that can't be read there are no more.
    pub fn answers(&self) -> impl Iterator<Item = Result<Record<'a>, Malformed>> + use<'a> {
        let (bytes, mut at, mut left) = (self.bytes, self.answers_at, self.answers);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let record = Record::read(bytes, at);
            match &record {
                Ok(record) => at = record.end,
                Err(Malformed) => left = 0,
            }
            Some(record)
        })
    }
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name.
    pub name: Name<'a>,
    /// Of which type records are asked for.
    pub kind: u16,
    end: usize,
}

impl<'a> Question<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let (name, at) = Name::read(bytes, at)?;
        word(bytes, at + 2)?;
        Ok(Self { name, kind: word(bytes, at)?, end: at + 4 })
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Whose it is.
    pub name: Name<'a>,
    /// Its type.
    pub kind: u16,
    /// For how many seconds it holds.
    pub ttl: u32,
    /// What it says.
    pub data: Data<'a>,
    end: usize,
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// An address.
    Address(IpAddr),
    /// The name that stands for this one.
    Alias(Name<'a>),
    /// Anything else.
    Other(&'a [u8]),
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let (name, at) = Name::read(bytes, at)?;
        let (kind, length) = (word(bytes, at)?, usize::from(word(bytes, at + 8)?));
        let ttl = u32::from(word(bytes, at + 4)?) << 16 | u32::from(word(bytes, at + 6)?);
        let (start, end) = (at + 10, at + 10 + length);
        let content = bytes.get(start..end).ok_or(Malformed)?;
        let data = match kind {
            kind::A => {
                Data::Address(<[u8; 4]>::try_from(content).map(Ipv4Addr::from).map_err(|_| Malformed)?.into())
            }
            kind::AAAA => Data::Address(
                <[u8; 16]>::try_from(content).map(Ipv6Addr::from).map_err(|_| Malformed)?.into(),
            ),
            kind::CNAME => {
                let (alias, behind) = Name::read(bytes, start)?;
                if behind != end {
                    return Err(Malformed);
                }
                Data::Alias(alias)
            }
            _ => Data::Other(content),
        };
        // RFC 2181, 8: what has the upper bit is taken for 0.
        let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
        Ok(Self { name, kind, ttl, data, end })
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let word = bytes.get(at..at + 2).ok_or(Malformed)?;
    Ok(u16::from_be_bytes([word[0], word[1]]))
}

/// A name in a message, which was looked through once: it ends, and has no more than 255 bytes.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Name<'a> {
    /// The name that begins here, and where what is behind it begins.
    fn read(bytes: &'a [u8], at: usize) -> Result<(Self, usize), Malformed> {
        let (mut place, mut end, mut length) = (at, None, 1);
        // Pointers lead to the front only, so there is an end.
        let mut lowest = at;
        loop {
            match step(bytes, place)? {
                Step::End => return Ok((Self { bytes, at }, end.unwrap_or(place + 1))),
                Step::Label(label) => {
                    length += label.len() + 1;
                    if length > MOST_NAME {
                        return Err(Malformed);
                    }
                    place += label.len() + 1;
                }
                Step::Pointer(to) => {
                    end.get_or_insert(place + 2);
                    if to >= lowest {
                        return Err(Malformed);
                    }
                    (place, lowest) = (to, to);
                }
            }
        }
    }

    /// Its labels, as sent: any bytes.
    pub fn labels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (bytes, mut place) = (self.bytes, self.at);
        std::iter::from_fn(move || {
            loop {
                match step(bytes, place).ok()? {
                    Step::End => return None,
                    Step::Label(label) => {
                        place += label.len() + 1;
                        return Some(label);
                    }
                    Step::Pointer(to) => place = to,
                }
            }
        })
    }
}

enum Step<'a> {
    End,
    Label(&'a [u8]),
    Pointer(usize),
}

fn step(bytes: &[u8], at: usize) -> Result<Step<'_>, Malformed> {
    let length = *bytes.get(at).ok_or(Malformed)?;
    match length >> 6 {
        0 if length == 0 => Ok(Step::End),
        0 => bytes.get(at + 1..at + 1 + usize::from(length)).map(Step::Label).ok_or(Malformed),
        3 => Ok(Step::Pointer(usize::from(word(bytes, at)? & 0x3fff))),
        _ => Err(Malformed),
    }
}

/// In lower case, since names don't differ by it, with a dot at its end. Bytes that are no letters are written as RFC 4343 has it: `\.`, `\007`.
impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_root = true;
        for label in self.labels() {
            is_root = false;
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", *byte as char)?;
                    }
                    b'!'..=b'~' => fmt::Write::write_char(f, byte.to_ascii_lowercase() as char)?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        if is_root { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The name of a record's type; nothing for one that few know.
pub fn type_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        41 => "OPT",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(questions: u8, answers: u8, rest: &[u8]) -> Vec<u8> {
        [&[0, 7, 0x81, 0x83, 0, questions, 0, answers, 0, 0, 0, 0][..], rest].concat()
    }

    #[test]
    fn a_response_is_read_as_it_stands() {
        let rest = [
            b"\x03WWW\x07exam.le\x00\x00\x01\x00\x01".as_slice(),
            b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x06\x03cdn\xc0\x10",
            b"\xc0\x29\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\x0a\x00\x00\x01",
            b"\xc0\x29\x00\x1c\x00\x01\xff\x00\x00\x1e\x00\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
            b"\x00\x00\x10\x00\x01\x00\x00\x00\x01\x00\x02\x01x",
        ]
        .concat();
        let bytes = message(1, 4, &rest);
        let message = Message::read(&bytes).unwrap();
        assert_eq!((message.id(), message.is_response(), message.rcode(), message.opcode()), (7, true, 3, 0));
        assert!(!message.is_truncated());
        let question = message.questions().next().unwrap().unwrap();
        assert_eq!((question.name.to_string().as_str(), question.kind), ("www.exam\\.le.", 1));
        let answers: Vec<_> = message.answers().map(|answer| answer.unwrap()).collect();
        assert_eq!(answers.iter().map(|answer| answer.ttl).collect::<Vec<_>>(), [60, 30, 0, 1]);
        assert!(matches!(answers[0].data, Data::Alias(name) if name.to_string() == "cdn.exam\\.le."));
        assert!(matches!(answers[1].data, Data::Address(ip) if ip == IpAddr::from([10, 0, 0, 1])));
        assert!(matches!(answers[2].data, Data::Address(IpAddr::V6(_))));
        assert_eq!(answers[3].name.to_string(), ".");
        assert!(matches!(answers[3].data, Data::Other(b"\x01x")));
    }

    #[test]
    fn no_name_goes_on_for_ever() {
        let long = [&[63][..], &[b'a'; 63]].concat().repeat(4);
        for name in [
            &b"\xc0\x0c"[..],                   // to itself
            b"\xc0\x0e\xc0\x0c",                // to the next, and back
            b"\xc0\xff",                        // behind the end
            b"\x01a\xc0\x0c",                   // a label, and again
            b"\x40a\x00",                       // no length, no pointer
            b"\x05abc",                         // cut
            &[long.as_slice(), b"\0"].concat(), // 257 bytes
        ] {
            let bytes = message(1, 0, &[name, b"\0\x01\0\x01"].concat());
            assert_eq!(Message::read(&bytes).err(), Some(Malformed), "{name:?}");
        }
        let longest = [&long[..192], &[61][..], &[b'a'; 61], b"\0\0\x01\0\x01"].concat();
        assert!(Message::read(&message(1, 0, &longest)).is_ok());
    }

    #[test]
    fn behind_what_cannot_be_read_there_is_nothing() {
        let bytes =
            message(0, 9, b"\0\0\x01\0\x01\0\0\0\x01\0\x04\x0a\0\0\x01\0\0\x01\0\x01\0\0\0\x01\0\x03abc");
        let read: Vec<_> = Message::read(&bytes).unwrap().answers().map(|answer| answer.is_ok()).collect();
        assert_eq!(read, [true, false]);
        for end in 0..12 {
            assert!(Message::read(&bytes[..end]).is_err());
        }
    }
}
