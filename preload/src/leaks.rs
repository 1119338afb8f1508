//! The leak search of the running target: stops its threads, gathers the root set, searches, sends the records.
//!
//! Invariants: runs in one thread at a time, with all signals blocked; takes no lock that a stopped thread may
//! hold (who holds the tool heap's, a heap's or the channel's has signals blocked, so it is not stopped there).

mod asked;
mod clients;
mod glibc;
mod registers;
mod restart;
mod roots;
mod runtime_library;
mod stop;
mod task;
mod view;

use core::sync::atomic::Ordering;

use memcheck_leak::{Heuristics, MemoryView, OutOfMemory, Outcome, Resolution, SearchOptions, search};
use memcheck_model::{Holding, LeakKind, MAX_FRAMES, Pc, SearchScope, Size};
use memcheck_wire::{Counter, LeakCheck, LeakResolution, LossRecord, Notice, NoticeKind, Options, Record};

pub use asked::{after_failed_exec, before_exec, begin};
use clients::ClientView;
use roots::Roots;
use stop::Trouble;
pub use stop::{STOP_MASK, action as stop_action};
use view::HeapView;

use crate::{
    channel, heap,
    lifecycle::{end::Departure, work_stack},
    own_allocators, stacks,
    sys::signal,
};

/// This process was forked.
pub fn after_fork_in_child() {
    view::inherit();
    asked::after_fork_in_child();
}

/// Searches when the process ends, if that is asked for.
pub fn search_at_end(departure: &Departure) {
    let options = channel::connect();
    if options.leak_check == LeakCheck::No || !channel::is_watched() {
        return;
    }
    let Some(turn) = asked::Turn::take() else { return };
    // The process ends: what stands still may stand until then, and change nothing any more.
    core::mem::forget((turn, search_now(departure, &options)));
}

/// A search on the target's own request, whose arguments are handed to it.
struct Requested<'a> {
    departure: &'a Departure,
    scope: SearchScope,
}

/// Searches because the target asks for it, and goes on.
pub fn search_on_request(departure: &Departure, scope: SearchScope) {
    let mask = signal::set_mask(!STOP_MASK);
    work_stack::run(search_requested, &Requested { departure, scope });
    signal::set_mask(mask);
}

extern "C" fn search_requested(requested: &Requested<'_>) {
    if !channel::is_watched() {
        return;
    }
    let Some(_turn) = asked::Turn::take() else { return };
    let mask = signal::set_mask(u64::MAX);
    channel::send(&Record::SearchBegins);
    search_now(requested.departure, &on_demand(&channel::connect()));
    // So that its text stands before what the target says next.
    channel::send_and_wait(&Record::SearchEnds(requested.scope));
    signal::set_mask(mask);
}

/// The options for a search on demand, which is asked for whatever is done at the end.
fn on_demand(options: &Options) -> Options {
    Options { leak_check: LeakCheck::Full, ..*options }
}

/// Searches and sends what it finds. The other threads stand still until the result is dropped.
fn search_now(departure: &Departure, options: &Options) -> Option<stop::Stopped> {
    let heap = heap::find()?;
    if own_allocators::is_heap_passed() {
        refuse("the program's allocator is not seen");
        return None;
    }
    let stopped = match stop::stop() {
        Ok(stopped) => stopped,
        Err(trouble) => {
            refuse(match trouble {
                Trouble::NoTaskList => {
                    "/proc cannot be read or no descriptor is left, so the threads are not known"
                }
                Trouble::NoMemory => "there is no memory for a list of the threads",
                Trouble::OutOfReach(_) => "a thread cannot be sent a signal",
                Trouble::Deaf(_) => "a thread did not stop within 20 seconds",
            });
            return None;
        }
    };
    channel::send(&Record::Notice(Notice { kind: NoticeKind::LeakSearch, text: b"" }));
    let roots = roots::gather(departure, &stopped.stands);
    let outcome = HeapView::new(heap, &roots.libraries).ok_or(OutOfMemory).and_then(|view| {
        match ClientView::find(&view) {
            Some(view) => search_and_send(&view, &roots, options),
            None => search_and_send(&view, &roots, options),
        }
    });
    if outcome.is_err() {
        refuse("there is no memory for it");
    }
    Some(stopped)
}

fn search_and_send(view: &impl MemoryView, roots: &Roots, options: &Options) -> Result<(), OutOfMemory> {
    let outcome = search_with_paths(view, roots, options)?;
    send(view, roots, &outcome, options);
    Ok(())
}

fn refuse(why: &str) {
    channel::send(&Record::Notice(Notice { kind: NoticeKind::NoLeakSearch, text: why.as_bytes() }));
}

/// Searches, and once more for the paths if something is held whose holder is wanted.
fn search_with_paths(
    view: &impl MemoryView,
    roots: &Roots,
    options: &Options,
) -> Result<Outcome, OutOfMemory> {
    let wanted = |kind| options.leak_check == LeakCheck::Full && options.sends(kind);
    let mut how = SearchOptions {
        heuristics: Heuristics::from_bits(options.leak_heuristics),
        tag_bits: options.leak_tag_bits.min(12),
        resolution: match options.leak_resolution {
            LeakResolution::Low => Resolution::Low,
            LeakResolution::Medium => Resolution::Medium,
            LeakResolution::High => Resolution::High,
        },
        holders: wanted(LeakKind::Reachable),
    };
    let roots = memcheck_leak::Roots { program: &roots.program, library: &roots.library };
    let outcome = search(view, roots, how)?;
    if how.holders || !wanted(LeakKind::Possible) || outcome.total(LeakKind::Possible).blocks == 0 {
        return Ok(outcome);
    }
    how.holders = true;
    search(view, roots, how)
}

fn send(view: &impl MemoryView, roots: &Roots, outcome: &Outcome, options: &Options) {
    for kind in LeakKind::ALL {
        let total = outcome.total(kind);
        channel::send(&Record::LossSum { kind, blocks: total.blocks, bytes: Size(total.bytes) });
    }
    channel::counter(Counter::LibraryBlocks).store(outcome.library.blocks, Ordering::Relaxed);
    channel::counter(Counter::LibraryBytes).store(outcome.library.bytes, Ordering::Relaxed);
    if options.leak_check != LeakCheck::Full {
        return;
    }
    for record in outcome.records.iter().filter(|record| options.sends(record.kind)) {
        let mut frames = [Pc(0); MAX_FRAMES];
        let path = outcome.path(view, record.sample);
        channel::send(&Record::Loss(LossRecord {
            number: record.number,
            of: outcome.records.len() as u32,
            kind: record.kind,
            allocated_by: record.allocated_by,
            blocks: record.direct.blocks,
            bytes: Size(record.direct.bytes),
            indirect_blocks: record.indirect.blocks,
            indirect_bytes: Size(record.indirect.bytes),
            sample: record.sample_start,
            stack: stacks::frames_in(record.stack, &mut frames),
            held_by: path.as_ref().map(|path| {
                let (root, steps) = roots.describe_path(path);
                Holding { root, steps, left_out: path.left_out }
            }),
        }));
    }
}
