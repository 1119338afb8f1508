//! Identifiers that outlive what they name.

/// A call stack in the target's stack depot. Zero is "no stack was recorded".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StackId(pub u32);

impl StackId {
    /// No stack was recorded.
    pub const NONE: Self = Self(0);
}

/// A thread's identifier as `gettid(2)` gives it. Zero is "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ThreadId(pub u32);
