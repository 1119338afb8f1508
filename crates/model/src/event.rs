//! What the shim says of one error. The launcher turns it into a finding.
//!
//! Stacks hold *original* PCs, the innermost frame first. Every entry is a return address (look it up at
//! [`crate::Pc::call_site`]) except the first entry of `stack` when `exact_top` is set: that one is the
//! instruction that erred. Allocation and free stacks start at the caller of the allocator function.

use crate::{Access, ErrorKind, FileName, Function, ParameterName, Pc, Place, Size, ThreadId};

/// The most frames that any recorded stack holds.
pub const MAX_FRAMES: usize = 64;

/// What a late check (of a redzone's or a freed block's pattern) saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset of the first changed byte from the block's start, negative before it.
    pub first: i64,
    /// Offset of the last changed byte.
    pub last: i64,
    /// How many bytes changed between the two; zero when only that some did is known.
    pub changed: Size,
    /// What stands there now, from `first` on.
    pub content: [u8; 16],
    /// How many bytes of `content` count.
    pub content_len: u8,
}

/// What only some kinds of errors have to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing more.
    None,
    /// Found late, by its traces: written by code that was not watched.
    Late(Damage),
    /// Sizes that a function was called with: its one size, or count and size.
    Sizes([u64; 2]),
    /// The alignment asked for.
    Alignment(u64),
    /// A sized or aligned delete that disagrees with the block: what delete said.
    SizedDelete {
        /// The size that delete was given, or zero when it was given none.
        size: u64,
        /// The alignment that delete was given, or zero when it was given none.
        align: u64,
        /// The alignment that the block was allocated with.
        block_align: u64,
    },
    /// A fatal signal: `siginfo_t`'s si_signo and si_code.
    Signal {
        /// si_signo.
        number: i32,
        /// si_code.
        code: i32,
    },
    /// Overlapping arguments.
    Overlap {
        /// The destination argument.
        destination: u64,
        /// The source argument.
        source: u64,
        /// How many bytes are copied.
        size: u64,
    },
    /// What a descriptor leads to.
    File(FileName),
    /// A system call's argument.
    Syscall {
        /// The system call's number.
        number: u32,
        /// Which parameter, or what it leads to.
        parameter: ParameterName,
        /// Offset of the first bad byte in what the parameter points to.
        offset: u64,
    },
}

/// One error, as the thread that made it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorEvent<'a> {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The thread that erred.
    pub tid: ThreadId,
    /// The function the target called, where the error is in a call's arguments.
    pub function: Option<Function>,
    /// The access, or the address that was passed (then with size zero told by `function`).
    pub access: Option<Access>,
    /// The address the error is about: the access's, the freed pointer, the fault address.
    pub address: crate::Addr,
    /// What that address is.
    pub place: Place,
    /// What only this kind has to tell.
    pub detail: Detail,
    /// Whether `stack[0]` is the instruction itself and not a return address.
    pub exact_top: bool,
    /// Where the error happened.
    pub stack: &'a [Pc],
    /// Where the block was allocated; empty when there is no block.
    pub allocated: &'a [Pc],
    /// Where the block was freed; empty when it was not.
    pub freed: &'a [Pc],
}
