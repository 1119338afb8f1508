//! Which large chunk the last look at the heap is at: its pages are not given back meanwhile.
//!
//! ```text
//!  who looks                         who gives pages back
//!  chunk = id                        state or size of the chunk = without them
//!  ─── SeqCst ───                    ─── SeqCst ───
//!  state and size → what to read     chunk == id: waits
//!  reads; chunk = none               gives them back
//! ```
//! Of the two loads at least one sees the other side's store, so nobody reads what is gone. Only large chunks give
//! pages back.
//!
//! Takes no lock: a forked child, in which nobody looks, forgets the chunk.

use core::sync::atomic::{AtomicU32, Ordering, fence};

use crate::{Backend, ChunkId};

#[derive(Debug)]
pub(crate) struct Swept(AtomicU32);

impl Swept {
    pub const fn new() -> Self {
        Self(AtomicU32::new(ChunkId::NONE.0))
    }

    /// Has a chunk keep its pages while it is looked at.
    pub fn keep(&self, id: ChunkId, look: impl FnOnce()) {
        self.0.store(id.0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        look();
        self.forget();
    }

    /// Nobody looks at a chunk.
    pub fn forget(&self) {
        // Release pairs with the Acquire in `wait`: what was read was read before.
        self.0.store(ChunkId::NONE.0, Ordering::Release);
    }

    /// Passes the time while this chunk is looked at. Its metadata say already that it is without the pages.
    pub fn wait(&self, backend: &impl Backend, id: ChunkId) {
        fence(Ordering::SeqCst);
        while self.0.load(Ordering::Acquire) == id.0 {
            backend.relax();
        }
    }
}
