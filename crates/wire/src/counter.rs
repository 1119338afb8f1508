//! The statistics of a process: words in its stream, so that they outlive a target that is killed.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One statistic. Its place on the wire is its order here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// Every counter, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that reports use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counters! {
    /// Blocks allocated.
    Allocs = "allocs",
    /// Blocks freed.
    Frees = "frees",
    /// Bytes asked for, in all.
    AllocatedBytes = "allocated_bytes",
    /// The most bytes in use at once.
    PeakBytes = "peak_bytes",
    /// Blocks in use at the end.
    InUseBlocks = "in_use_blocks",
    /// Bytes in use at the end.
    InUseBytes = "in_use_bytes",
    /// What the last search that the program asked for found lost, also indirectly; the launcher writes it, as the
    /// seven that follow.
    LostBlocks = "lost_blocks",
    /// Their bytes.
    LostBytes = "lost_bytes",
    /// Possibly lost blocks.
    PossibleBlocks = "possible_blocks",
    /// Their bytes.
    PossibleBytes = "possible_bytes",
    /// Reachable blocks.
    ReachableBlocks = "reachable_blocks",
    /// Their bytes.
    ReachableBytes = "reachable_bytes",
    /// Blocks of suppressed loss records.
    SuppressedBlocks = "suppressed_blocks",
    /// Their bytes.
    SuppressedBytes = "suppressed_bytes",
    /// Loss records of such searches that count as errors; the launcher writes it.
    LossErrors = "loss_errors",
    /// Whether accesses are checked (0 or 1).
    AccessChecks = "access_checks",
    /// Modules that were looked at.
    Modules = "modules",
    /// Functions found in them.
    Functions = "functions",
    /// Functions that run checked.
    FunctionsTranslated = "functions_translated",
    /// Functions that were refused.
    FunctionsNative = "functions_native",
    /// Functions too short for the jump to their copy: unchecked where they are called by pointer.
    FunctionsShort = "functions_short",
    /// Bytes of executable text.
    TextBytes = "text_bytes",
    /// Bytes of text that run checked.
    TextBytesTranslated = "text_bytes_translated",
    /// Bytes of text of refused functions.
    TextBytesNative = "text_bytes_native",
    /// Bytes of code written in their place.
    CodeBytes = "code_bytes",
    /// Check sites emitted.
    CheckSites = "check_sites",
    /// Accesses of translated code that are not checked.
    SitesUnchecked = "sites_unchecked",
    /// Accesses that a plan found to need no check of their own.
    ChecksSaved = "checks_saved",
    /// System calls that passed without a look at their arguments.
    SyscallsUnknown = "syscalls_unknown",
    /// Error contexts beyond what the table of contexts holds.
    ContextsRefused = "contexts_refused",
    /// How long the leak search took, in microseconds of wall time.
    LeakSearchMicros = "leak_search_micros",
    /// Blocks at the end that the C and C++ runtime libraries keep for themselves.
    LibraryBlocks = "library_blocks",
    /// The bytes in those.
    LibraryBytes = "library_bytes",
    /// Whether descriptors were looked at (0 or 1).
    DescriptorsTracked = "descriptors_tracked",
    /// Descriptors open at the end.
    OpenDescriptors = "open_descriptors",
    /// The three standard ones of those.
    StandardDescriptors = "standard_descriptors",
}
