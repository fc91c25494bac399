//! What many pods have in common, in memory once.

use hashbrown::HashSet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Borrow, fmt, hash::Hash, ops::Deref, sync::Arc};
use uuid::Uuid;

/// Text whose copies are the same memory.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        **self == **other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::from)
    }
}

/// Values that are there once, as long as anybody has them.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// So many of them are looked through for those that nobody has any more.
    most: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::default(), most: 64 }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The value as others have it, where any do.
    pub fn get(&mut self, value: impl Into<Arc<T>> + Borrow<T>) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.most {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.most = (self.values.len() * 2).max(64);
        }
        let value = value.into();
        self.values.insert(Arc::clone(&value));
        value
    }

    /// How many there are, those that nobody has any more among them.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// A pod's UID. Kubernetes makes them UUIDs, which are 16 bytes; other sources may write what they like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uid(Form);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Form {
    Uuid(Uuid),
    Other(Box<str>),
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        // A UUID may be written in several ways; these are different UIDs.
        let usual = |uuid: &Uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
        Self(Uuid::try_parse(text).ok().filter(usual).map_or_else(|| Form::Other(text.into()), Form::Uuid))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Uuid(uuid) => uuid.fmt(f),
            Form::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_the_text_that_it_was() {
        let all = [
            "0b6e1c8e-7c4b-4d7e-9d1f-2f6f0e3c5a11",
            "0B6E1C8E-7C4B-4D7E-9D1F-2F6F0E3C5A11",
            "0b6e1c8e7c4b4d7e9d1f2f6f0e3c5a11",
            "{0b6e1c8e-7c4b-4d7e-9d1f-2f6f0e3c5a11}",
            "urn:uuid:0b6e1c8e-7c4b-4d7e-9d1f-2f6f0e3c5a11",
            "shop/web",
            "",
        ];
        let uids: HashSet<Uid> = all.into_iter().map(Uid::from).collect();
        assert_eq!(uids.len(), all.len());
        let texts: HashSet<String> = uids.iter().map(Uid::to_string).collect();
        assert!(all.iter().all(|text| texts.contains(*text)), "{texts:?}");
        assert!(size_of::<Uid>() <= 24);
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let mut words: Interner<str> = Interner::default();
        let kept = words.get("kept");
        for n in 0..1000 {
            words.get(n.to_string());
        }
        assert!(words.len() <= 64, "{}", words.len());
        assert!(Arc::ptr_eq(&kept, &words.get("kept")));
    }
}
