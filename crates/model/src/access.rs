//! One access to memory, as an instruction or the kernel makes it.

use crate::{Addr, Size};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessKind {
    /// Bytes are read.
    Read = 1,
    /// Bytes are written, or read and written by one instruction.
    Write = 2,
}

impl AccessKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];
}

/// An access of `size` bytes from `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// Its first byte.
    pub addr: Addr,
    /// How many bytes it covers; never zero.
    pub size: Size,
}
