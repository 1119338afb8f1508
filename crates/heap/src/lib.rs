//! The target's heap: who owns which bytes, since when and until when.
//!
//! You supply memory through a [`Backend`], zeroed [`Tables`] and one [`ThreadCache`] a thread; you get chunks,
//! a quarantine, and for any address the chunk it belongs to, in O(1). It is quick because a thread works on
//! lists of its own, because an address leads to its metadata by one multiplication, and because metadata is out
//! of band: user memory is touched for patterns only, and not by this crate.
//!
//! ```text
//!  size ─▶ Class ─▶ slot from cache / centre / frontier ─▶ redzones, shadow, metadata ─▶ address
//!  address ─▶ slot ─▶ metadata: Live → Quarantined ─▶ pending ─▶ quarantine … ─▶ Recycled ─▶ cache / centre
//! ```
//!
//! It is not for finding errors by itself: it says what is wrong as data, and others report.
#![no_std]
#![forbid(unsafe_code)]

mod backend;
mod cache;
mod central;
mod chunk;
mod describe;
mod group;
mod heap;
mod known;
mod large;
mod layout;
mod lock;
mod quarantine;
mod redzone;
mod reuse;
mod size_class;
mod swept;

pub use backend::{Backend, Change, Pattern, Reason};
pub use cache::{CacheStatistics, ThreadCache};
pub use chunk::{Chunk, ChunkMeta, ChunkState, FreedMeta};
pub use describe::LiveSlot;
pub use group::GroupWords;
pub use heap::{
    Allocated, FreeError, Freed, Freeing, Heap, Late, Request, Sought, Statistics, Tables, Wishes,
};
pub use layout::{ChunkId, Layout};
pub use quarantine::Batch;
pub use redzone::{FREED_HEAD_BYTES, FREED_TAIL_BYTES, ZONE_BYTES};
pub use size_class::{CLASSES, Class, ClassShape, GUARD_BYTES, LARGE_CLASSES, LARGE_REDZONE, SMALL_CLASSES};
