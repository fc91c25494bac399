//! Chunked bodies (RFC 9112, 7.1): passed over by their sizes, nothing of them is kept.

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In a size, of which so much is known.
    Size { size: u64, digits: u8 },
    /// Behind a size, before the end of its line.
    Extension { size: u64 },
    /// In a chunk, before so many bytes of it and its line end.
    Data { left: u64 },
    /// At the start of a line behind the last chunk.
    Trailer,
    /// In such a line.
    TrailerLine,
    /// In the last line end.
    LastLine,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The body ends behind so many of them.
    End(usize),
    /// All are of the body.
    All,
    /// These are no chunks.
    Malformed,
}

impl Chunks {
    pub(crate) const START: Self = Self::Size { size: 0, digits: 0 };

    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Passed {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            *self = match (*self, byte) {
                (Self::Data { left }, _) => {
                    // This byte and those behind it.
                    let passed = left.min((bytes.len() - at + 1) as u64);
                    at += passed as usize - 1;
                    if passed == left { Self::START } else { Self::Data { left: left - passed } }
                }
                // 15 digits are more than anybody sends, and 60 bits.
                (Self::Size { size, digits: digits @ 0..15 }, byte) if byte.is_ascii_hexdigit() => {
                    let digit = (*byte as char).to_digit(16).unwrap_or(0);
                    Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
                }
                (Self::Size { size, digits: 1.. } | Self::Extension { size }, b'\n') => {
                    if size == 0 {
                        Self::Trailer
                    } else {
                        Self::Data { left: size + 2 }
                    }
                }
                (Self::Size { size, digits: 1.. }, b'\r' | b';' | b' ' | b'\t')
                | (Self::Extension { size }, _) => Self::Extension { size },
                (Self::Trailer | Self::LastLine, b'\n') => return Passed::End(at),
                (Self::Trailer, b'\r') => Self::LastLine,
                (Self::Size { .. } | Self::LastLine, _) => return Passed::Malformed,
                (Self::TrailerLine, b'\n') => Self::Trailer,
                (Self::Trailer | Self::TrailerLine, _) => Self::TrailerLine,
            };
        }
        Passed::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_end_where_they_end_however_they_are_cut() {
        let body =
            b"4\r\nWiki\r\n6;x=\"y\"\r\npedia \r\nE \r\nin \r\n\r\nchunks.\r\n0\r\nExpires: now\r\n\r\nHTTP";
        let end = body.len() - 4;
        for cut in 0..=body.len() {
            let mut chunks = Chunks::START;
            let mut at = 0;
            let mut ended = None;
            for part in [&body[..cut], &body[cut..]] {
                match chunks.pass(part) {
                    Passed::End(behind) if ended.is_none() => ended = Some(at + behind),
                    Passed::End(_) | Passed::All => {}
                    Passed::Malformed => assert!(ended.is_some(), "cut at {cut}"),
                }
                at += part.len();
                if ended.is_some() {
                    break;
                }
            }
            assert_eq!(ended, Some(end), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_size_is_malformed() {
        for body in [&b"\r\n"[..], b"x\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"0\r\n\rx"] {
            assert_eq!(Chunks::START.clone().pass(body), Passed::Malformed, "{body:?}");
        }
    }
}
