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

/// What a leak search that the program asks for tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SearchScope {
    /// Every loss record, and the sums.
    All = 0,
    /// The sums.
    Sums = 1,
    /// Loss records that grew since the search before, and the sums.
    Increased = 2,
    /// Loss records that grew or shrank, and the sums.
    Changed = 3,
}

impl SearchScope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::All, Self::Sums, Self::Increased, Self::Changed];

    /// Whether the numbers are told beside those of the search before.
    #[must_use]
    pub const fn compares(self) -> bool {
        matches!(self, Self::Increased | Self::Changed)
    }
}
