//! Error events about the heap.
//!
//! May run wherever an allocator function may be called; waits for the launcher, so no lock is held here.

use memcheck_heap::{Chunk, Late};
use memcheck_model::{Addr, Detail, ErrorEvent, ErrorKind, Function, MAX_FRAMES, Pc, Place, StackId};

use super::operations::Call;
use crate::{channel, maps, stacks, thread};

/// What an address is, and the chunk if it is in one.
pub fn place_of(addr: Addr, call: &Call) -> (Place, Option<Chunk>) {
    match super::describe(addr) {
        Some(Some(chunk)) => (Place::Block(chunk.block()), Some(chunk)),
        Some(None) => (Place::HeapUnused, None),
        None => (maps::describe(addr, Addr(call.caller.entry_sp)), None),
    }
}

/// Reports an error that a call made.
#[cold]
pub fn report(kind: ErrorKind, call: &Call, addr: Addr, place: Place, chunk: Option<&Chunk>, detail: Detail) {
    let mut frames = [Pc(0); MAX_FRAMES];
    let stack = stacks::capture_in(call.caller, &mut frames);
    send(kind, Some(call.function), stack, addr, place, chunk, detail);
}

fn send(
    kind: ErrorKind,
    function: Option<Function>,
    stack: &[Pc],
    address: Addr,
    place: Place,
    chunk: Option<&Chunk>,
    detail: Detail,
) {
    let (mut allocated, mut freed) = ([Pc(0); MAX_FRAMES], [Pc(0); MAX_FRAMES]);
    let id_of = |stack: fn(&Chunk) -> StackId| chunk.map_or(StackId::NONE, stack);
    let event = ErrorEvent {
        kind,
        tid: thread::id(),
        function,
        access: None,
        address,
        place,
        detail,
        exact_top: false,
        stack,
        allocated: stacks::frames_in(id_of(|chunk| chunk.alloc_stack), &mut allocated),
        freed: stacks::frames_in(id_of(|chunk| chunk.free_stack), &mut freed),
    };
    channel::report(&event);
}

/// Reports damage that came to light during a call.
#[cold]
pub fn report_late(call: &Call, late: &Late) {
    let mut frames = [Pc(0); MAX_FRAMES];
    let stack = stacks::capture_in(call.caller, &mut frames);
    send_late(Some(call.function), stack, late);
}

/// Reports damage that came to light when the process ended.
#[cold]
pub fn report_late_at_end(late: &Late) {
    send_late(None, &[], late);
}

fn send_late(function: Option<Function>, stack: &[Pc], late: &Late) {
    let kind = if late.after_free { ErrorKind::HeapUseAfterFree } else { ErrorKind::HeapBufferOverflow };
    let address = Addr(late.chunk.start.0.wrapping_add_signed(late.damage.first));
    let place = Place::Block(late.chunk.block());
    send(kind, function, stack, address, place, Some(&late.chunk), Detail::Late(late.damage));
}
