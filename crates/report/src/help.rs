//! The likely cause of a finding and what to try: a sentence each, with a semicolon between.

use memcheck_model::{
    AccessKind, Addr, Detail, ErrorEvent, ErrorKind, FREED_FILL, Function, Place, REDZONE_FILL,
};

use crate::frame::{NamedAddress, Symbol};
use crate::notes::is_overflow;
use crate::words::matching_release;

/// The help for one event.
#[must_use]
pub(crate) fn help(event: &ErrorEvent<'_>, named: Option<&NamedAddress>) -> String {
    match event.kind {
        ErrorKind::AllocDeallocMismatch => match event.place {
            Place::Block(block) => format!(
                "what {} allocates is not for this function to release; call {}",
                block.allocated_by.name(),
                matching_release(block.allocated_by)
            ),
            _ => "the block is another function's to release; call the one that belongs to its allocation"
                .to_owned(),
        },
        ErrorKind::BadFree | ErrorKind::BadRealloc | ErrorKind::WildAccess
            if is_made_of(FREED_FILL, event.address) =>
        {
            format!(
                "the pointer was read from memory that was freed, or that was allocated and never set: both are filled \
                 with {FREED_FILL:#x}; an error before this one may tell where"
            )
        }
        ErrorKind::BadFree | ErrorKind::BadRealloc | ErrorKind::WildAccess
            if is_made_of(REDZONE_FILL, event.address) =>
        {
            format!(
                "the pointer was read from beside a block, where bytes are {REDZONE_FILL:#x}; the error before this one \
                 may tell where"
            )
        }
        ErrorKind::BadFree | ErrorKind::BadRealloc => bad_pointer(event, named).to_owned(),
        kind => sentence(kind, event).to_owned(),
    }
}

/// Whether the address is what eight bytes of a fill make, give or take a member's offset or an index.
fn is_made_of(fill: u8, addr: Addr) -> bool {
    u64::from_le_bytes([fill; 8]).abs_diff(addr.0) < 1 << 20
}

fn bad_pointer(event: &ErrorEvent<'_>, named: Option<&NamedAddress>) -> &'static str {
    match event.place {
        Place::Block(block) if event.address == block.start => {
            "the block was given back before; set the pointer to NULL when it is freed"
        }
        Place::Block(_) => {
            "the pointer leads into the block, not to its start; keep the one that the allocator returned, and give \
             back that"
        }
        Place::Stack(_) => "local variables go away by themselves; free only what malloc returned",
        Place::Module if named.is_some_and(|named| named.symbol == Symbol::Function) => {
            "functions are not allocated; free only what malloc returned"
        }
        Place::Module => {
            "global variables and string constants are not allocated; free only what malloc returned"
        }
        _ => {
            "the pointer was never returned by an allocator function: perhaps it was not set, or was overwritten; \
             follow where its value comes from"
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
            "the pointer leads nowhere: perhaps it was not set, was overwritten, or was computed wrongly; follow where \
             its value comes from"
        }
        ErrorKind::NullDereference if event.access.is_none() => {
            "a function pointer is null; set it, or check it before the call"
        }
        ErrorKind::NullDereference => "the pointer is null; check what returned it, before it is used",
        ErrorKind::FatalSignal if is_overflow(event) => {
            "the stack is full; end the recursion earlier, move large arrays to the heap, or raise the limit with ulimit -s"
        }
        ErrorKind::FatalSignal => signal(event),
        ErrorKind::DoubleFree => {
            "two places free the same block; decide which part of the program owns it, and set the pointer to NULL \
             when it is freed"
        }
        ErrorKind::ParamOverlap => match event.function {
            Some(Function::Memcpy | Function::Mempcpy) => {
                "what is copied lies partly where it goes, and is overwritten while it is read; use memmove, which \
                 allows that"
            }
            _ => {
                "what is copied lies partly where it goes, and is overwritten while it is read; copy through another \
                 buffer, or use memmove with the length"
            }
        },
        ErrorKind::BadSize => {
            "the size is a negative value, or its computation overflowed; check the arithmetic that led to it"
        }
        ErrorKind::BadAlignment => {
            "no block can have this alignment; use a power of two, for posix_memalign at least a pointer's size"
        }
        ErrorKind::ReallocZero => {
            "what realloc to size 0 does differs between systems; call free to free a block"
        }
        ErrorKind::SyscallParam => {
            "the kernel was told to use memory outside the block; check pointer and length"
        }
        ErrorKind::UseOfUninitialised => "nothing has set the value; set it before it is used",
        ErrorKind::StackBufferOverflow | ErrorKind::GlobalBufferOverflow => {
            "the access lies outside the array; check the index and the length against its size"
        }
        ErrorKind::ForbiddenAccess => {
            "the program marked this memory as not to be touched; look at who still uses it, or at who marked it"
        }
        ErrorKind::ClientCheck => {
            "the program asked whether this memory may be touched, and it may not; look at who freed or marked it"
        }
        ErrorKind::BadMempool => {
            "there is no such pool now; create it before it is used, and do not use it after it was destroyed"
        }
        ErrorKind::FdLeak => {
            "nothing closes the descriptor; close it when it is needed no longer, on every path"
        }
        ErrorKind::FdInherited => {
            "who started the program left it open; open files with O_CLOEXEC there, or close them before exec"
        }
        ErrorKind::FdDoubleClose => {
            "the descriptor was closed before; close it once: another part of the program may own the number now"
        }
        ErrorKind::FdUseAfterClose => "the descriptor was closed before this; close it after its last use",
        ErrorKind::AllocDeallocMismatch | ErrorKind::BadFree | ErrorKind::BadRealloc => {
            "this is no block of that function; give back only what it returned"
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
        return "the access begins before the block; check for a negative index, or a pointer that was moved below the \
             start";
    }
    let is_write = event.access.is_some_and(|access| access.kind == AccessKind::Write);
    match event.function {
        Some(Function::Strcpy | Function::Strcat | Function::Stpcpy) if is_write => {
            "the string is longer than the block; allocate a byte more than strlen says, for its terminating zero"
        }
        Some(
            Function::Strcpy | Function::Strcat | Function::Stpcpy | Function::Strdup | Function::Strlen,
        ) => "the string has no terminating zero within its block; set one, and allocate a byte for it",
        _ => {
            "more bytes are used than were allocated; check the index and the length against the size, and count the \
             byte for a string's zero"
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
        (8, _) => "the divisor is zero, or the result does not fit; check both before the division",
        (4 | 5, _) => {
            "the program ran into a trap: an unreachable place, or a function without return; follow how it got there"
        }
        (7, _) => "the file that is mapped there may have become shorter; look at who cuts it",
        _ => {
            "the memory exists but does not permit this: a constant is written, or data are executed; work on a copy"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::{Addr, Pc, ThreadId};

    fn event(kind: ErrorKind, address: Addr) -> ErrorEvent<'static> {
        ErrorEvent {
            kind,
            tid: ThreadId(1),
            function: None,
            access: None,
            address,
            place: Place::None,
            detail: Detail::Signal { number: 11, code: 1 },
            exact_top: true,
            stack: &[Pc(1)],
            allocated: &[],
            freed: &[],
        }
    }

    #[test]
    fn every_kind_has_a_cause_and_an_advice() {
        for &kind in ErrorKind::ALL {
            let help = help(&event(kind, Addr(0x1000)), None);
            assert_eq!(help.matches("; ").count(), 1, "{}: {help}", kind.id());
        }
    }

    #[test]
    fn pointers_made_of_a_fill_are_known() {
        for (address, is_known) in [
            (0xd9d9_d9d9_d9d9_d9d9, true),
            (0xd9d9_d9d9_d9d9_da00, true),
            (0xb7b7_b7b7_b7b7_b7b7, true),
            (0xd9d9_d9d9, false),
        ] {
            let help = help(&event(ErrorKind::WildAccess, Addr(address)), None);
            assert_eq!(help.contains("filled with") || help.contains("bytes are"), is_known, "{address:#x}");
        }
    }
}
