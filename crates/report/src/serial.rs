//! How the vocabulary of `memcheck-model` is written in JSON: addresses as hexadecimal strings (a JSON number
//! holds only 53 bits exactly), identifiers as their stable words.

use std::fmt;

use memcheck_model::{Addr, LeakKind};
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

struct HexVisitor;

impl Visitor<'_> for HexVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hexadecimal number as a string, such as \"0x401136\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// An [`Addr`] as `"0x…"`.
pub(crate) mod addr {
    use super::{Addr, Deserializer, HexVisitor, Serializer};

    pub fn serialize<S: Serializer>(addr: &Addr, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(addr)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Addr, D::Error> {
        from.deserialize_str(HexVisitor).map(Addr)
    }
}

/// An address or none, as `"0x…"` or `null`.
pub(crate) mod optional_hex {
    use super::{Deserializer, HexVisitor, Serializer, de};
    use serde::Deserialize as _;

    pub fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(&format_args!("{value:#x}")),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| de::Visitor::visit_str(HexVisitor, &text)).transpose()
    }
}

/// A [`LeakKind`] as its word.
pub(crate) mod leak_kind {
    use super::{Deserializer, LeakKind, Serializer, de};
    use serde::Deserialize as _;

    pub fn serialize<S: Serializer>(kind: &LeakKind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(kind.id())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LeakKind, D::Error> {
        let word = String::deserialize(from)?;
        LeakKind::ALL.into_iter().find(|kind| kind.id() == word).ok_or_else(|| {
            de::Error::unknown_variant(&word, &["definite", "indirect", "possible", "reachable"])
        })
    }
}
