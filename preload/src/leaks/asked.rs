//! A leak search on demand, while the program runs: the launcher marks the stream and sends the signal, and
//! whichever thread takes it searches and goes on.
//!
//! ```text
//!  launcher                        any thread                          the others
//!  OPEN → ASKED; kill(STOP) ─────▶ ASKED → SERVED
//!                                  SEARCHER = its id
//!                                  stop::stop ───────────────────────▶ stand still
//!  SearchBegins … ◀─────────────── search, on a stack of its own
//!                                  let go ───────────────────────────▶ go on
//!                                  SERVED → OPEN
//!  SearchEnds ◀───────────────────
//! ```
//!
//! Invariants: one search at a time, that at the end of the process included (`SEARCHER`); a search that waits for
//! its turn can be stopped. Who was answered can ask again at once: requests are open when the answer is complete. A
//! process that is about to become another program takes no request any more, because the signal would be the new
//! program's end, and ends the answer it is giving.

use core::sync::atomic::{AtomicU32, Ordering};

use memcheck_model::SearchScope;
use memcheck_wire::{Record, Requests, STOP_SIGNAL};

use super::{restart::restart, stop};
use crate::{
    channel,
    lifecycle::{end::Departure, fatal::Context, work_stack},
    sys::{futex, process, signal},
};

/// The thread that searches, or zero.
static SEARCHER: AtomicU32 = AtomicU32::new(0);

/// How long the signal that was announced may be on its way.
const ON_ITS_WAY_MS: u64 = 2000;

/// Requests may come from now on: the handler is there.
pub fn begin() {
    channel::move_requests(Requests::Closed, Requests::Open);
}

/// The turn to search.
pub struct Turn(());

impl Turn {
    /// Waits for it; `None` when this very thread has it, so that a fault in a search ends all.
    pub fn take() -> Option<Self> {
        let tid = process::tid();
        loop {
            // Acquire pairs with the Release in `drop`: the searches are a sequence.
            match SEARCHER.compare_exchange(0, tid, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Self(())),
                Err(searcher) if searcher == tid => return None,
                Err(searcher) => {
                    let mask = signal::unblock(stop::STOP_MASK);
                    futex::wait(&SEARCHER, searcher, 1000);
                    signal::set_mask(mask);
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        SEARCHER.store(0, Ordering::Release);
        futex::wake_all(&SEARCHER);
    }
}

/// A forked child has no search under way.
pub fn after_fork_in_child() {
    SEARCHER.store(0, Ordering::Relaxed);
}

/// Answers a request if there is one; called in the signal's handler.
pub fn serve(context: u64) -> bool {
    if !channel::move_requests(Requests::Asked, Requests::Served) {
        return false;
    }
    let context = Context::new(context);
    work_stack::run(answer, &context.departure());
    restart(context);
    true
}

extern "C" fn answer(departure: &Departure) {
    let turn = Turn::take();
    if turn.is_some() {
        channel::send(&Record::SearchBegins);
        super::search_now(departure, &super::on_demand(&channel::connect()));
    }
    channel::move_requests(Requests::Served, Requests::Open);
    if turn.is_some() {
        channel::send(&Record::SearchEnds(SearchScope::All));
    }
}

/// The process is about to become another program.
pub fn before_exec() {
    while !channel::move_requests(Requests::Open, Requests::Closed) {
        if channel::move_requests(Requests::Asked, Requests::Closed) {
            // The signal comes for certain, and must not find the new program.
            signal::await_one(STOP_SIGNAL, ON_ITS_WAY_MS);
            return;
        }
        if !channel::is_served() {
            break;
        }
        process::yield_now();
    }
    drop(Turn::take());
}

/// It did not become one.
pub fn after_failed_exec() {
    begin();
}
