//! The likely cause of a finding and what to try: one sentence.

use memcheck_model::{Detail, ErrorEvent, ErrorKind, Function, Place};

use crate::frame::{NamedAddress, Symbol};
use crate::notes::is_overflow;
use crate::words::matching_release;

/// The help for one event.
#[must_use]
pub(crate) fn help(event: &ErrorEvent<'_>, named: Option<&NamedAddress>) -> String {
    match event.kind {
        ErrorKind::AllocDeallocMismatch => match event.place {
            Place::Block(block) => format!(
                "release with {} what {} allocated",
                matching_release(block.allocated_by),
                block.allocated_by.name()
            ),
            _ => "release a block with the function that belongs to the one that allocated it".to_owned(),
        },
        ErrorKind::BadFree | ErrorKind::BadRealloc => bad_pointer(event, named).to_owned(),
        kind => sentence(kind, event).to_owned(),
    }
}

fn bad_pointer(event: &ErrorEvent<'_>, named: Option<&NamedAddress>) -> &'static str {
    match event.place {
        Place::Block(block) if event.address == block.start => {
            "the block was given back before; set the pointer to NULL when it is freed"
        }
        Place::Block(_) => "keep the pointer that the allocator returned and give back that one",
        Place::Stack(_) => "local variables go away by themselves; only what malloc returned is freed",
        Place::Module if named.is_some_and(|named| named.symbol == Symbol::Function) => {
            "functions are not allocated; only what malloc returned is freed"
        }
        Place::Module => "global variables and string constants are not freed; only what malloc returned is",
        _ => {
            "the pointer was never returned by an allocator function: perhaps it was not set, or was overwritten"
        }
    }
}

fn sentence(kind: ErrorKind, event: &ErrorEvent<'_>) -> &'static str {
    match kind {
        ErrorKind::HeapBufferOverflow => overflow(event),
        ErrorKind::HeapUseAfterFree => {
            "the block was freed before this; free it after its last use, and set other pointers to it to NULL"
        }
        ErrorKind::WildAccess => {
            "the pointer leads nowhere: perhaps it was not set, was overwritten, or was computed wrongly"
        }
        ErrorKind::NullDereference if event.access.is_none() => {
            "a function pointer is null; set it, or check it before the call"
        }
        ErrorKind::NullDereference => "the pointer is null; check what returned it, before it is used",
        ErrorKind::FatalSignal if is_overflow(event) => {
            "end the recursion earlier, move large arrays to the heap, or raise the limit with ulimit -s"
        }
        ErrorKind::FatalSignal => signal(event),
        ErrorKind::DoubleFree => {
            "free each block once: decide which part of the program owns it, and set the pointer to NULL when it is \
             freed"
        }
        ErrorKind::ParamOverlap => match event.function {
            Some(Function::Memcpy | Function::Mempcpy) => "use memmove, which allows overlap",
            _ => "copy through another buffer, or use memmove with the length",
        },
        ErrorKind::BadSize => "check the arithmetic that led to this size: a negative value, or an overflow",
        ErrorKind::BadAlignment => {
            "use a power of two; for aligned_alloc also a multiple of the pointer's size"
        }
        ErrorKind::ReallocZero => {
            "call free to free a block; what realloc to size 0 does differs between systems"
        }
        ErrorKind::SyscallParam => {
            "the kernel was told to use memory outside the block; check pointer and length"
        }
        ErrorKind::UseOfUninitialised => "set the value before it is used",
        ErrorKind::StackBufferOverflow | ErrorKind::GlobalBufferOverflow => {
            "check the index and the length against the size of the array"
        }
        ErrorKind::ForbiddenAccess => {
            "the program marked this memory as not to be touched; look at who still uses it, or at who marked it"
        }
        ErrorKind::ClientCheck => "the program asked whether this memory may be touched, and it may not",
        ErrorKind::BadMempool => {
            "create the pool before it is used, and do not use it after it was destroyed"
        }
        ErrorKind::FdLeak => "close the descriptor when it is needed no longer",
        ErrorKind::FdInherited => {
            "who started the program left it open: open files with O_CLOEXEC, or close them before exec"
        }
        ErrorKind::FdDoubleClose => {
            "close each descriptor once; another part of the program may own the number now"
        }
        ErrorKind::FdUseAfterClose => "close the descriptor after its last use",
        ErrorKind::AllocDeallocMismatch | ErrorKind::BadFree | ErrorKind::BadRealloc => {
            "give back only what an allocator function returned, with the function that belongs to it"
        }
    }
}

fn overflow(event: &ErrorEvent<'_>) -> &'static str {
    let is_before = match (event.detail, event.place) {
        (Detail::Late(damage), _) => damage.first < 0,
        (_, Place::Block(block)) => event.address < block.start,
        _ => false,
    };
    if is_before {
        return "check for a negative index, or a pointer that was moved below the start of its block";
    }
    match event.function {
        Some(
            Function::Strcpy | Function::Strcat | Function::Stpcpy | Function::Strdup | Function::Strlen,
        ) => "a string needs a byte more than strlen says, for its terminating zero",
        _ => {
            "check the index and the length against the size that was allocated; a string needs a byte for its zero"
        }
    }
}

fn signal(event: &ErrorEvent<'_>) -> &'static str {
    let Detail::Signal { number, code } = event.detail else { return "the program was ended" };
    match (number, code) {
        (6, _) => {
            "the program, or a library on its behalf, saw a state that must not be; look at what it printed"
        }
        (_, ..=0) => "the signal was sent on purpose; look at who sends it",
        (8, _) => "check the divisor before the division",
        (4 | 5, _) => "the program ran into a trap: an unreachable place, or a function without return",
        (7, _) => "the file that is mapped there may have become shorter",
        _ => "the memory exists but does not permit this: a constant is written, or data are executed",
    }
}
