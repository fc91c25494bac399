//! Which fields of a message are kept.

use super::{
    WriteError,
    schema::{Kind, Message, MessageType, SCHEMA},
    wire::{self, Value},
};

/// A choice of fields, for one type of message.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    kind: MessageType,
    /// By place in the table of the type.
    fields: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    Nothing,
    Whole,
    /// Of a message some fields.
    Part(Mask),
}

impl Mask {
    /// Keeps these fields, dotted where they are within messages; nothing if one of them does not exist.
    pub fn of_paths(kind: MessageType, paths: &[&str]) -> Option<Self> {
        let mut mask = Self::empty(kind);
        paths.iter().all(|path| mask.add(path).is_some()).then_some(mask)
    }

    fn empty(kind: MessageType) -> Self {
        Self { kind, fields: SCHEMA.messages[kind.0].fields.iter().map(|_| Wanted::Nothing).collect() }
    }

    fn add(&mut self, path: &str) -> Option<()> {
        let message: &'static Message = &SCHEMA.messages[self.kind.0];
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let (place, _) = message.place_by_name(name.as_bytes(), 0)?;
        let wanted = &mut self.fields[place];
        let Some(rest) = rest else {
            *wanted = Wanted::Whole;
            return Some(());
        };
        let Kind::Message(inner) = message.fields[place].kind else { return None };
        if matches!(wanted, Wanted::Nothing) {
            *wanted = Wanted::Part(Self::empty(MessageType(inner)));
        }
        match wanted {
            Wanted::Part(mask) => mask.add(rest),
            Wanted::Nothing | Wanted::Whole => Some(()),
        }
    }

    pub(super) fn of(&self, place: usize) -> &Wanted {
        &self.fields[place]
    }

    /// Appends what is kept of an encoded message.
    pub fn keep(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        let message = &SCHEMA.messages[self.kind.0];
        let mut reader = wire::Reader::new(bytes);
        loop {
            let start = reader.position();
            let Some((number, value)) = reader.field()? else { return Ok(()) };
            match (message.place_of(number).map(|place| &self.fields[place]), value) {
                (Some(Wanted::Whole), _) => out.extend_from_slice(&bytes[start..reader.position()]),
                (Some(Wanted::Part(mask)), Value::Bytes(inner)) => {
                    let start = wire::begin(number, out);
                    mask.keep(inner, out)?;
                    wire::end(start, out).ok_or(WriteError::TooLong)?;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        flow::Flow,
        json::{self, Mask, MessageType, Reader},
    };
    use prost::Message as _;

    #[test]
    fn a_mask_keeps_its_fields_from_both_encodings() {
        let kind = MessageType::named("flow.Flow").unwrap();
        let paths = ["verdict", "IP", "source.labels", "source.identity", "l4.TCP.flags.SYN"];
        let mask = Mask::of_paths(kind, &paths).unwrap();
        let json = r#"{"uuid":"u","verdict":"DROPPED","IP":{"source":"::1","ipVersion":"IPv6"},"l4":{"TCP":{"source_port":1,"flags":{"SYN":true,"ACK":true}}},"source":{"ID":1,"identity":2,"labels":["a","b"]},"destination":{"ID":3}}"#;
        let kept = r#"{"verdict":"DROPPED","IP":{"source":"::1","ipVersion":"IPv6"},"l4":{"TCP":{"flags":{"SYN":true}}},"source":{"identity":2,"labels":["a","b"]}}"#;
        let flow: Flow = json::read(json).unwrap();
        let (mut of_wire, mut of_json) = (Vec::new(), Vec::new());
        mask.keep(&flow.encode_to_vec(), &mut of_wire).unwrap();
        Reader::strict().keeping(mask).read(kind, json, &mut of_json).unwrap();
        for encoded in [of_wire, of_json] {
            assert_eq!(json::line(&Flow::decode(encoded.as_slice()).unwrap()).unwrap(), kept);
        }
        for wrong in ["nothing", "verdict.x", "source.nothing"] {
            assert!(Mask::of_paths(kind, &[wrong]).is_none(), "{wrong}");
        }
    }
}
