//! One rule, and what it is held against.

use std::path::PathBuf;

use memcheck_model::{ErrorKind, Function, LeakKind};

use crate::date::Date;
use crate::pattern::{Location, Pattern, match_stack};

/// The names of one frame. What is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameNames<'a> {
    /// The function as people read it.
    pub function: Option<&'a str>,
    /// The function as the linker knows it, where that differs.
    pub linkage_name: Option<&'a str>,
    /// The path of the executable or library.
    pub object: Option<&'a str>,
    /// The source file.
    pub file: Option<&'a str>,
    /// The line in it.
    pub line: Option<u32>,
}

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A loss record.
    Leak(LeakKind),
    /// An error or a note.
    Error {
        /// Its kind.
        kind: ErrorKind,
        /// How many bytes the erroneous access has; `None` when it is none or was not seen.
        access_bytes: Option<u64>,
        /// For a system call's argument, its name: `write(buf)`.
        parameter: Option<&'a str>,
    },
}

/// The file that Valgrind's files name as the home of allocator functions and checked string functions.
const REPLACEMENTS: &str = "/usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so";

/// The frame of a function that memcheck itself implements. Our stacks begin at its caller; Valgrind's, and so
/// the rules written for Valgrind, begin with it.
pub(crate) fn replaced(function: Function) -> FrameNames<'static> {
    FrameNames {
        function: Some(function.name()),
        linkage_name: Some(function.linkage_name()),
        object: Some(REPLACEMENTS),
        ..FrameNames::default()
    }
}

/// Which findings a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Loss records of these kinds.
    Leaks(Vec<LeakKind>),
    /// Errors of these kinds.
    Errors(Vec<ErrorKind>),
    /// Loss records or errors, any of these.
    Either(Vec<LeakKind>, Vec<ErrorKind>),
    /// Bad accesses of this many bytes.
    Access(u64),
    /// A system call's argument, by its name.
    Parameter(Pattern),
}

/// The errors that Valgrind calls `AddrN`.
const ACCESS_ERRORS: [ErrorKind; 7] = [
    ErrorKind::ForbiddenAccess,
    ErrorKind::HeapBufferOverflow,
    ErrorKind::HeapUseAfterFree,
    ErrorKind::WildAccess,
    ErrorKind::NullDereference,
    ErrorKind::StackBufferOverflow,
    ErrorKind::GlobalBufferOverflow,
];

impl Scope {
    fn covers(&self, subject: &Subject<'_>) -> bool {
        match (self, subject) {
            (Self::Leaks(kinds) | Self::Either(kinds, _), Subject::Leak(kind)) => kinds.contains(kind),
            (Self::Errors(kinds) | Self::Either(_, kinds), Subject::Error { kind, .. }) => {
                kinds.contains(kind)
            }
            (Self::Access(bytes), Subject::Error { kind, access_bytes, .. }) => {
                // What is found late, by its traces, has no size: a rule of any size means it.
                ACCESS_ERRORS.contains(kind) && access_bytes.is_none_or(|access| access == *bytes)
            }
            (Self::Parameter(pattern), Subject::Error { kind: ErrorKind::SyscallParam, parameter, .. }) => {
                parameter.is_none_or(|name| pattern.matches(name))
            }
            _ => false,
        }
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, or `None` for a rule that memcheck brings along.
    pub file: Option<PathBuf>,
    /// The line that it begins at.
    pub line: u32,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Why it is there.
    pub reason: Option<String>,
    /// The last day on which it holds.
    pub expires: Option<Date>,
    /// Where it stands.
    pub origin: Origin,
    pub(crate) scope: Scope,
    pub(crate) locations: Vec<Location>,
}

impl Rule {
    /// Whether the rule's last day is past.
    #[must_use]
    pub fn has_expired(&self, today: Date) -> bool {
        self.expires.is_some_and(|last| last < today)
    }

    /// Whether the rule is about this finding.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>, stack: &[FrameNames<'_>]) -> bool {
        self.scope.covers(subject) && match_stack(&self.locations, stack)
    }
}
