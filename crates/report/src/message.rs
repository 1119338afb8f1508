//! The first line of a finding: what happened, how large, where.

use memcheck_model::{AccessKind, Block, BlockState, Detail, ErrorEvent, ErrorKind, Function, Place};

use crate::frame::NamedAddress;
use crate::signal;
use crate::system_call;
use crate::words::{Relation, block_phrase, bytes, named_phrase};

/// The message of one event in the process `pid`.
#[must_use]
pub(crate) fn message(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let function = event.function.map_or("free", Function::name);
    match event.kind {
        ErrorKind::HeapBufferOverflow | ErrorKind::HeapUseAfterFree => heap_access(event, pid, named),
        ErrorKind::WildAccess | ErrorKind::StackBufferOverflow | ErrorKind::GlobalBufferOverflow => {
            let (access, place) = (access(event), place(event, pid, named));
            match place.strip_prefix("at ").filter(|_| is_jump(event)) {
                Some(target) => format!("{access} to {target}"),
                None => format!("{access}, {place}"),
            }
        }
        ErrorKind::NullDereference => null_dereference(event),
        ErrorKind::FatalSignal => fatal_signal(event, pid, named),
        ErrorKind::DoubleFree => match event.place {
            Place::Block(block) => {
                format!("{function} called on a block of {} that was freed already", bytes(block.size.0))
            }
            _ => format!("{function} called on a block that was freed already"),
        },
        ErrorKind::BadFree | ErrorKind::BadRealloc => {
            format!("{function} called on {}", bad_pointer(event, pid, named))
        }
        ErrorKind::AllocDeallocMismatch => mismatch(event, function),
        ErrorKind::ParamOverlap => overlap(event, event.function.map_or("memcpy", Function::name)),
        ErrorKind::BadSize => bad_size(event),
        ErrorKind::BadAlignment => bad_alignment(event),
        ErrorKind::ReallocZero => match event.place {
            Place::Block(block) => format!("realloc to size 0 of {}", block_phrase(&block)),
            _ => "realloc to size 0".to_owned(),
        },
        ErrorKind::SyscallParam => syscall_param(event, pid, named),
        ErrorKind::UseOfUninitialised => match event.access {
            Some(_) => format!("{} whose value was never set", access(event)),
            None => "use of a value that was never set".to_owned(),
        },
        ErrorKind::ForbiddenAccess => {
            format!("{}, {}, which the program forbade itself", access(event), place(event, pid, named))
        }
        ErrorKind::ClientCheck => client_check(event, pid, named),
        ErrorKind::BadMempool => {
            format!("{function} for the pool {}, which does not exist", event.address)
        }
        ErrorKind::FdLeak => format!("{} is still open at exit", descriptor(event)),
        ErrorKind::FdInherited => {
            format!("{} is still open at exit, as the program was started with it", descriptor(event))
        }
        ErrorKind::FdDoubleClose => format!("descriptor {} is closed a second time", event.address.0),
        ErrorKind::FdUseAfterClose => format!("descriptor {} is used after it was closed", event.address.0),
    }
}

/// Whether the instruction itself could not be fetched.
fn is_jump(event: &ErrorEvent<'_>) -> bool {
    event.access.is_none() && event.stack.first().is_some_and(|pc| pc.0 == event.address.0)
}

/// `write of 4 bytes`, `read of 30 bytes by memcpy`, `jump`.
fn access(event: &ErrorEvent<'_>) -> String {
    let by = event.function.map(|function| format!(" by {}", function.name())).unwrap_or_default();
    match event.access {
        Some(access) if access.size.0 > 0 => {
            let operation = match access.kind {
                AccessKind::Read => "read",
                AccessKind::Write => "write",
            };
            format!("{operation} of {}{by}", bytes(access.size.0))
        }
        Some(access) => format!("{}{by}", if access.kind == AccessKind::Read { "read" } else { "write" }),
        None if is_jump(event) => "jump".to_owned(),
        None => format!("access{by}"),
    }
}

fn heap_access(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let Place::Block(block) = event.place else {
        return format!("{}, {}", access(event), place(event, pid, named));
    };
    let Detail::Late(damage) = event.detail else {
        return format!("{}, {}", access(event), relation(event, &block));
    };
    let start = memcheck_model::Addr(block.start.0.wrapping_add_signed(damage.first));
    let span = span_of(damage.first, damage.last);
    let found = match (event.kind, event.function) {
        (ErrorKind::HeapUseAfterFree, _) => "found when its memory was looked at again".to_owned(),
        (_, Some(function)) => format!("found by {}", function.name()),
        (_, None) => "found at exit".to_owned(),
    };
    let changed = if damage.changed.0 < span { "write of up to" } else { "earlier write of" };
    format!("{changed} {}, {} ({found})", bytes(span), Relation::of(start, span, &block).phrase(&block))
}

/// How many bytes lie from `first` to `last`, which the target may have chosen.
fn span_of(first: i64, last: i64) -> u64 {
    last.checked_sub(first).and_then(|gap| u64::try_from(gap).ok()).map_or(1, |gap| gap.saturating_add(1))
}

fn relation(event: &ErrorEvent<'_>, block: &Block) -> String {
    let (addr, size) = event.access.map_or((event.address, 0), |access| (access.addr, access.size.0));
    Relation::of(addr, size, block).phrase(block)
}

/// What the address of an access is.
fn place(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let address = event.address;
    match event.place {
        Place::None => format!("at {address}"),
        Place::NullPage if address.0 == 0 => "through a null pointer".to_owned(),
        Place::NullPage => format!("at {address}, close to a null pointer"),
        Place::Block(block) => relation(event, &block),
        Place::HeapUnused => format!("at {address}, which is in the heap but in no block"),
        Place::Stack(tid) => format!("at {address}, on {}", stack_of(tid.0, event.tid.0, pid)),
        Place::Module => match named {
            Some(named) => format!("at {address}, {}", named_phrase(named)),
            None => format!("at {address}, in the program's or a library's data"),
        },
        Place::Mapped => format!("at {address}, in mapped memory that is no part of the heap"),
        Place::Unmapped => format!("at {address}, where there is no memory"),
    }
}

fn stack_of(tid: u32, current: u32, pid: u32) -> String {
    if tid == current || tid == 0 {
        "the stack".to_owned()
    } else if tid == pid {
        "the main thread's stack".to_owned()
    } else {
        format!("the stack of thread {tid}")
    }
}

fn null_dereference(event: &ErrorEvent<'_>) -> String {
    if event.address.0 == 0 {
        return format!("{} through a null pointer", access(event));
    }
    let member = format!("member or element at offset {}", event.address.0);
    format!("{} through a null pointer ({member})", access(event))
}

fn fatal_signal(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let Detail::Signal { number, code } = event.detail else {
        return format!("a fatal signal, {}", place(event, pid, named));
    };
    let name = signal::name(number);
    let name = name.unwrap_or("a fatal signal");
    let reason = signal::reason(number, code);
    if signal::has_address(number, code) {
        // A non-canonical address faults without the kernel telling which it was.
        if code == signal::SI_KERNEL && event.address.0 == 0 {
            return format!("{name}: access to a non-canonical address, which no memory can have");
        }
        if crate::notes::is_overflow(event) {
            return format!(
                "{name}: stack overflow: {} at {}, below the stack",
                access(event),
                event.address
            );
        }
        return format!("{name}: {reason}: {}, {}", access(event), place(event, pid, named));
    }
    format!("{name}: {reason}")
}

/// What a pointer that must not be freed is.
fn bad_pointer(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let address = event.address;
    match event.place {
        Place::Block(block) => match Relation::of(address, 0, &block) {
            Relation::Into { offset: 0, .. } if block.state == BlockState::Freed => {
                format!("a block of {} that was freed already", bytes(block.size.0))
            }
            relation => format!("a pointer {}", relation.phrase(&block)),
        },
        Place::None => format!("{address}, which no allocator function returned"),
        Place::NullPage => format!("{address}, close to a null pointer"),
        Place::HeapUnused => format!("{address}, which is in the heap but in no block"),
        Place::Stack(tid) => format!("a pointer to {}", stack_of(tid.0, event.tid.0, pid)),
        Place::Module => match named {
            Some(named) if named.offset == 0 => named_phrase(named),
            Some(named) => format!("a pointer {}", named_phrase(named)),
            None => "a pointer to the program's or a library's own data".to_owned(),
        },
        Place::Mapped => format!("{address}, in mapped memory that is no part of the heap"),
        Place::Unmapped => format!("{address}, where there is no memory"),
    }
}

fn mismatch(event: &ErrorEvent<'_>, function: &str) -> String {
    let Place::Block(block) = event.place else {
        return format!("{function} called on a block that another family of functions allocated");
    };
    let allocated = format!("a block that {} allocated", block.allocated_by.name());
    match event.detail {
        Detail::SizedDelete { size, .. } if size != 0 && size != block.size.0 => {
            format!("{function} told {} for {}", bytes(size), block_phrase(&block))
        }
        Detail::SizedDelete { align, block_align, .. } if align != block_align => {
            let of = |align: u64| {
                if align == 0 { "default alignment".to_owned() } else { format!("alignment {align}") }
            };
            format!("{function} told {} for a block allocated with {}", of(align), of(block_align))
        }
        _ => format!("{function} called on {allocated}"),
    }
}

fn overlap(event: &ErrorEvent<'_>, function: &str) -> String {
    let Detail::Overlap { destination, source, size } = event.detail else {
        return format!("{function} called with overlapping source and destination");
    };
    let shared = size.saturating_sub(destination.abs_diff(source));
    format!(
        "{function} of {} called with source and destination that overlap by {}",
        bytes(size),
        bytes(shared)
    )
}

fn takes_count_and_size(function: Option<Function>) -> bool {
    matches!(function, Some(Function::Calloc | Function::Reallocarray))
}

fn bad_size(event: &ErrorEvent<'_>) -> String {
    let function = event.function.map_or("malloc", Function::name);
    let Detail::Sizes([first, second]) = event.detail else {
        return format!("{function} called with an impossible size");
    };
    if takes_count_and_size(event.function) {
        return match first.checked_mul(second) {
            None => format!(
                "{function} called with {} × {}: the product overflows",
                signed(first),
                signed(second)
            ),
            Some(_) => format!("{function} called with {} × {} bytes", signed(first), signed(second)),
        };
    }
    match first.cast_signed() {
        negative @ ..0 => format!("{function} called with size {negative} (that is {first} bytes)"),
        _ => format!("{function} called with size {first}, more than any program can have"),
    }
}

/// A number that is small and negative when read as signed is shown as that.
fn signed(value: u64) -> String {
    match value.cast_signed() {
        negative @ ..0 => negative.to_string(),
        _ => value.to_string(),
    }
}

fn bad_alignment(event: &ErrorEvent<'_>) -> String {
    let function = event.function.map_or("aligned_alloc", Function::name);
    let Detail::Alignment(align) = event.detail else {
        return format!("{function} called with an alignment that it does not allow");
    };
    let reason = if !align.is_power_of_two() {
        "which is not a power of two"
    } else if event.function == Some(Function::PosixMemalign) && align < 8 {
        "which is less than a pointer's size"
    } else {
        "which it does not allow"
    };
    format!("{function} called with alignment {}, {reason}", signed(align))
}

fn syscall_param(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let place = place(event, pid, named);
    let Some(parameter) = system_call::parameter(event) else {
        return format!("a system call was given bad memory, {place}");
    };
    let does = match event.access.map(|access| access.kind) {
        Some(AccessKind::Write) => "writes",
        _ => "reads",
    };
    let size = event.access.map(|access| format!("{}, ", bytes(access.size.0))).unwrap_or_default();
    format!("{parameter} {does} {size}{place}")
}

fn client_check(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> String {
    let function = event.function.map_or("a client request", Function::name);
    let size = event.access.map(|access| format!(" of {}", bytes(access.size.0))).unwrap_or_default();
    let first = match event.place {
        Place::Block(block) => Relation::of(event.address, 0, &block).phrase(&block),
        _ => place(event, pid, named),
    };
    format!("{function}{size}: the first byte that must not be touched is {first}")
}

/// `descriptor 3 (/etc/passwd)`.
fn descriptor(event: &ErrorEvent<'_>) -> String {
    let number = event.address.0;
    match event.detail {
        Detail::File(name) if !name.as_bytes().is_empty() => {
            // A name may hold what would move a terminal's cursor.
            let name = String::from_utf8_lossy(name.as_bytes()).replace(char::is_control, "?");
            format!("descriptor {number} ({name})")
        }
        _ => format!("descriptor {number}"),
    }
}
