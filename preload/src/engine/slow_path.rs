//! What happens to an access that a check refused: it is described and reported, then done.
//!
//! Runs on the report gate's stack, under its lock, with signals blocked; see `gate`.

use memcheck_model::{
    Access, AccessKind, Addr, AddrRange, BlockState, Detail, ErrorEvent, ErrorKind, MAX_FRAMES, Pc, Place,
    Size, ThreadId,
};
use memcheck_rewrite::{RANGE_SLOT, REPORT_RESUME, describe_report};
use memcheck_stack::Registers;

use super::{gate::Frame, shadow_map};
use crate::{channel, heap, lifecycle::parts, stacks, sys::process, thread};

/// Reports the access of a check; `frame.first` is the return address in the copy, `frame.second` the address.
pub fn report(frame: &mut Frame) {
    let (at, addr) = (frame.first, Addr(frame.second));
    frame.second = at + REPORT_RESUME;
    // SAFETY: the rewriter put ten bytes of description after each call that leads here.
    let description = describe_report(unsafe { &*(at as *const [u8; 10]) });
    let size = description.size_bytes.unwrap_or_else(|| thread::current().spill[RANGE_SLOT].get());
    let Some(range) = AddrRange::new(addr, Size(size)) else { return };
    // The check may have met a state that another thread has changed since.
    let Some(bad) = shadow_map::find_bad(range) else { return };
    if description.kind == AccessKind::Write {
        heap::damage_is_known(bad, range.end());
    }
    // What touches many elements goes wrong at one of them.
    let at_fault = if description.repeats { bad } else { addr };
    let rsp = Addr(frame.rsp());
    let described = parts::describe(bad, rsp);
    let mut frames = [Pc(0); MAX_FRAMES];
    let registers = Registers { pc: at, sp: rsp.0, bp: frame.rbp };
    channel::report(&ErrorEvent {
        kind: kind_at(described.place, bad),
        tid: ThreadId(process::tid()),
        function: None,
        access: Some(Access { kind: description.kind, addr, size: Size(size) }),
        address: at_fault,
        place: described.place,
        detail: Detail::None,
        exact_top: true,
        stack: stacks::capture_interrupted_in(registers, &mut frames),
        allocated: described.allocated(),
        freed: described.freed(),
    });
}

/// What an access is whose first bad byte is here.
pub fn kind_at(place: Place, bad: Addr) -> ErrorKind {
    match place {
        Place::Block(block) if block.state == BlockState::Freed => ErrorKind::HeapUseAfterFree,
        // Nothing but the target's own word forbids bytes of a live block.
        Place::Block(block)
            if AddrRange::new(block.start, block.size).is_some_and(|own| own.contains(bad)) =>
        {
            ErrorKind::ForbiddenAccess
        }
        Place::Block(_) => ErrorKind::HeapBufferOverflow,
        _ if shadow_map::is_forbidden(bad) => ErrorKind::ForbiddenAccess,
        _ => ErrorKind::WildAccess,
    }
}
