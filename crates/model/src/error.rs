//! The kinds of findings: their stable identifiers, shared by text, JSON, suppressions and tests.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The program is wrong; the verdict is "findings".
    Error,
    /// Worth telling, but no defect by itself; does not change the verdict.
    Note,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal $id:literal $severity:ident,)*) => {
        /// What is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ErrorKind {
            $($(#[$doc])* $name = $code,)*
        }

        impl ErrorKind {
            /// Every kind, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable kebab-case identifier.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// The kind with this code on the wire, if there is one.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The kind with this identifier, if there is one.
            #[must_use]
            pub fn from_id(id: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.id() == id)
            }
        }
    };
}

kinds! {
    /// An access past either end of a live block.
    HeapBufferOverflow = 1 "heap-buffer-overflow" Error,
    /// An access to a block after it was freed.
    HeapUseAfterFree = 2 "heap-use-after-free" Error,
    /// An access to an address that belongs to nothing.
    WildAccess = 3 "wild-access" Error,
    /// A fatal access through a null pointer.
    NullDereference = 4 "null-dereference" Error,
    /// A signal that ended the program.
    FatalSignal = 5 "fatal-signal" Error,
    /// A block freed a second time.
    DoubleFree = 6 "double-free" Error,
    /// An address freed that no allocator function returned.
    BadFree = 7 "bad-free" Error,
    /// `realloc` of an address that is no live block.
    BadRealloc = 8 "bad-realloc" Error,
    /// A block given back through the wrong function, size or alignment.
    AllocDeallocMismatch = 9 "alloc-dealloc-mismatch" Error,
    /// Overlapping source and destination where the function forbids it.
    ParamOverlap = 10 "param-overlap" Error,
    /// A size that is negative when read as signed, or overflows.
    BadSize = 11 "bad-size" Error,
    /// An alignment that the function does not allow.
    BadAlignment = 12 "bad-alignment" Error,
    /// `realloc` to size zero, whose meaning the C standard leaves open.
    ReallocZero = 13 "realloc-zero" Note,
    /// A system call told to read or write memory that it must not.
    SyscallParam = 14 "syscall-param" Error,
    /// A value used that was never written.
    UseOfUninitialised = 15 "use-of-uninitialised" Error,
    /// An access past the end of a variable on the stack.
    StackBufferOverflow = 16 "stack-buffer-overflow" Error,
    /// An access past the end of a global variable.
    GlobalBufferOverflow = 17 "global-buffer-overflow" Error,
    /// A descriptor left open at exit.
    FdLeak = 18 "fd-leak" Error,
    /// A descriptor closed twice.
    FdDoubleClose = 19 "fd-double-close" Error,
    /// A descriptor used after it was closed.
    FdUseAfterClose = 20 "fd-use-after-close" Error,
    /// An access to memory that the program itself forbade, by a client request.
    ForbiddenAccess = 21 "forbidden-access" Error,
    /// A client request to check memory that must not be touched.
    ClientCheck = 22 "client-check" Error,
    /// A client request about a pool that there is none of.
    BadMempool = 23 "bad-mempool" Error,
    /// A descriptor that the program was started with, open at its exit.
    FdInherited = 24 "fd-inherited" Note,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_ids_lead_back_to_their_kind() {
        for &kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind as u8), Some(kind));
            assert_eq!(ErrorKind::from_id(kind.id()), Some(kind));
        }
        assert_eq!(ErrorKind::from_code(0), None);
    }
}
