//! Which blocks of the target are lost, and what still holds the others.
//!
//! # Theory
//! The memory at one moment is a graph. Its nodes are the live chunks; an edge leads from a word of memory to
//! the chunk that the word points into. A word is eight bytes at a multiple of eight: a pointer stored
//! elsewhere is not seen. The *root set* is what the program reaches without a chunk: registers, stacks,
//! thread-local and global variables, mappings of its own.
//!
//! A pointer to the first byte of a chunk is a *start pointer*, any other into it an *interior pointer*; a
//! heuristic ([`Heuristics`]) may turn an interior pointer into one that counts as a start pointer. A chunk of
//! size zero is pointed to by its address. From this follow the kinds (Valgrind manual 4.2.10, whose rules
//! these are), written as in its table, `R` the root set, `→` a start and `⇢` an interior pointer:
//!
//! ```text
//!  1  R → B              B reachable
//!  2  R → A → B          A reachable    B reachable
//!  3  R     B            B definite
//!  4  R     A → B        A definite     B indirect
//!  5  R ⇢ B              B possible
//!  6  R → A ⇢ B          A reachable    B possible
//!  7  R ⇢ A → B          A possible     B possible
//!  8  R ⇢ A ⇢ B          A possible     B possible
//!  9  R     A ⇢ B        A definite     B indirect
//! ```
//!
//! A chunk that is held in several ways takes the best of them: reachable, then possible, then indirect.
//!
//! **reachable** = the closure of `R` over start pointers. **possible** = the closure over all pointers of what
//! interior pointers lead to from `R` and from the reachable, less the reachable. The rest is lost, and split
//! into *cliques*: one chunk of each clique, its leader, is definitely lost, and all that is reached from the
//! leader is indirectly lost. Leaders are tried in an order (see `cliques`). A later one takes over an earlier
//! one that it reaches, but not by way of chunks that are another's already, as with Valgrind: in the graph of
//! the lost chunks each strongly connected component that no other one points into has exactly one leader, and
//! a ring that a later leader points into may keep its own. A chunk that several cliques reach belongs to the
//! first of them, so that indirect sums add up to the total.
//!
//! # What you supply
//! A [`MemoryView`]: where chunks are, and the words of a range. It stands for memory that nobody changes
//! meanwhile; a word that changes all the same is read as one or the other value.
//!
//! # What you get
//! [`search`] gives an [`Outcome`]: loss records by allocation stack, totals by kind, and on request for any
//! chunk the words that hold it.
//!
//! # Cost
//! Each chunk is scanned once, breadth first. Memory: a byte a slot, four bytes a live chunk, and four more a
//! slot when something is lost. Nothing else is allocated but the records.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cliques;
#[cfg(test)]
mod fake;
mod heuristics;
mod marks;
mod outcome;
mod pools;
mod records;
mod search;
#[cfg(test)]
mod table_tests;
mod view;

pub use heuristics::Heuristics;
pub use outcome::{LossRecord, Outcome, Path, Sum};
pub use records::Resolution;
pub use search::{OutOfMemory, Roots, SearchOptions, search};
pub use view::{Chunk, ChunkIndex, LiveChunk, MemoryView};
