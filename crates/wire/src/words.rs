//! Values to and from words: a writer into a slot, a reader of a copy of one.
//!
//! Strings are `length, bytes packed eight to a word, little-endian`; stacks are `length, PCs`; an optional
//! value is a flag word and the value. The reader checks every length before it uses it.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};
use memcheck_model::Pc;

/// Why words are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The record ends before its last field.
    Short,
    /// A field's word has no meaning.
    Field {
        /// Which field.
        name: &'static str,
        /// Its word.
        value: u64,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "record ends before its last field"),
            Self::Field { name, value } => write!(f, "{name} has no value {value:#x}"),
        }
    }
}

impl core::error::Error for Malformed {}

/// The first `most` bytes.
pub fn cut(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

/// Writes words one after the other; what does not fit is noted and dropped.
pub struct Writer<'a> {
    words: &'a [AtomicU64],
    used: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self { words, used: 0, overflowed: false }
    }

    /// How many words were written, or `None` when they did not fit.
    pub fn finish(self) -> Option<usize> {
        if self.overflowed { None } else { Some(self.used) }
    }

    pub fn word(&mut self, value: impl Into<u64>) {
        match self.words.get(self.used) {
            Some(word) => {
                word.store(value.into(), Ordering::Relaxed);
                self.used += 1;
            }
            None => self.overflowed = true,
        }
    }

    pub fn signed(&mut self, value: i64) {
        self.word(value.cast_unsigned());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    pub fn stack(&mut self, stack: &[Pc], most: usize) {
        let stack = &stack[..stack.len().min(most)];
        self.word(stack.len() as u64);
        for pc in stack {
            self.word(pc.0);
        }
    }
}

/// Reads words one after the other.
pub struct Reader<'a> {
    words: &'a [u64],
}

impl<'a> Reader<'a> {
    pub const fn new(words: &'a [u64]) -> Self {
        Self { words }
    }

    pub fn word(&mut self) -> Result<u64, Malformed> {
        let (&word, rest) = self.words.split_first().ok_or(Malformed::Short)?;
        self.words = rest;
        Ok(word)
    }

    pub fn signed(&mut self) -> Result<i64, Malformed> {
        self.word().map(u64::cast_signed)
    }

    /// A word that must fit the smaller type.
    pub fn narrow<T: TryFrom<u64>>(&mut self, name: &'static str) -> Result<T, Malformed> {
        let value = self.word()?;
        T::try_from(value).map_err(|_| Malformed::Field { name, value })
    }

    pub fn flag(&mut self, name: &'static str) -> Result<bool, Malformed> {
        match self.word()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Malformed::Field { name, value }),
        }
    }

    /// A word that stands for one of a closed set of values.
    pub fn choice<T>(&mut self, name: &'static str, find: impl Fn(u8) -> Option<T>) -> Result<T, Malformed> {
        let value = self.word()?;
        u8::try_from(value).ok().and_then(find).ok_or(Malformed::Field { name, value })
    }

    pub fn bytes_in<'b>(&mut self, name: &'static str, into: &'b mut [u8]) -> Result<&'b [u8], Malformed> {
        let len = self.word()?;
        let bytes = usize::try_from(len).ok().filter(|&len| len <= into.len());
        let bytes = bytes.ok_or(Malformed::Field { name, value: len })?;
        for chunk in into[..bytes].chunks_mut(8) {
            chunk.copy_from_slice(&self.word()?.to_le_bytes()[..chunk.len()]);
        }
        Ok(&into[..bytes])
    }

    pub fn stack_in<'b>(&mut self, name: &'static str, into: &'b mut [Pc]) -> Result<&'b [Pc], Malformed> {
        let len = self.word()?;
        let frames = usize::try_from(len).ok().filter(|&len| len <= into.len());
        let frames = frames.ok_or(Malformed::Field { name, value: len })?;
        for pc in &mut into[..frames] {
            *pc = Pc(self.word()?);
        }
        Ok(&into[..frames])
    }
}
