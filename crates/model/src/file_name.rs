//! What an open descriptor leads to, as the kernel names it.

use core::fmt;

/// A path or another name, such as `socket:[7]`. The front of a long one is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileName {
    bytes: [u8; Self::MAX_BYTES],
    len: u8,
}

impl FileName {
    /// As many bytes as are kept.
    pub const MAX_BYTES: usize = 160;

    /// The name with these bytes, as far as they fit.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let kept = &name[name.len().saturating_sub(Self::MAX_BYTES)..];
        let mut bytes = [0; Self::MAX_BYTES];
        bytes[..kept.len()].copy_from_slice(kept);
        Self { bytes, len: kept.len() as u8 }
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}
