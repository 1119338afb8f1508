//! How a block that is live at a leak search is held.

/// Valgrind's four kinds (Valgrind manual, "Memory leak detection").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LeakKind {
    /// No pointer to the block was found.
    Definite = 1,
    /// Held only by blocks that are themselves lost.
    Indirect = 2,
    /// Held only through an interior pointer.
    Possible = 3,
    /// Held by the root set through start pointers.
    Reachable = 4,
}

impl LeakKind {
    /// Every kind, the worst first.
    pub const ALL: [Self; 4] = [Self::Definite, Self::Indirect, Self::Possible, Self::Reachable];

    /// The word that options, reports and suppressions use.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Definite => "definite",
            Self::Indirect => "indirect",
            Self::Possible => "possible",
            Self::Reachable => "reachable",
        }
    }
}
