//! Which findings the user does not want to hear of.
//!
//! In: rules, from files in Valgrind's syntax ([`Suppressions::read`]) or in our own, which adds a reason and an
//! expiry date; then findings, as a [`Subject`] and the names of its frames. Out: for each finding the [`Rule`]
//! that keeps it out, if one does; after the run the rules that were never needed; and for a finding that should
//! be kept out from now on, the text of a rule ([`generate`]).
//!
//! A rule is a kind of finding and a pattern over the innermost frames: the pattern must match from the first
//! frame on, and may end before the stack does. The first rule that matches counts.
//!
//! Pure: reads no file and no clock, knows neither reports nor processes.
#![forbid(unsafe_code)]

mod date;
mod generate;
mod own;
mod pattern;
mod rule;
mod set;
mod valgrind;

pub use date::Date;
pub use generate::generate;
pub use rule::{FrameNames, Origin, Rule, Subject};
pub use set::{Stale, Suppressions, SyntaxError, Usage};
