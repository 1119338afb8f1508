//! Findings, and every way to show them.
//!
//! Owns: the types that a report is made of ([`Report`], [`Finding`], [`LeakRecord`], [`Process`], [`Frame`]),
//! the words of each finding, the fingerprints, and the formats. In: the shim's error events with their stacks
//! symbolized ([`Traces`]). Out: bytes of a format.
//!
//! Invariant: a format only lays out what a [`Report`] holds. All words, numbers and hashes are made when the
//! finding is ([`Finding::from_event`]), so that a stored report converts to any format without the program.
//!
//! Runs in the launcher only; knows no process, no channel and no ELF file. The one thing it reads is source
//! files ([`Sources`]), to show lines of them.
#![forbid(unsafe_code)]

mod catalogue;
mod compare;
mod finding;
mod fingerprint;
mod format;
mod frame;
mod held_by;
mod help;
mod leak_record;
mod merge;
mod message;
mod notes;
mod path_map;
mod process;
mod report;
mod serial;
mod signal;
mod source;
mod source_root;
mod system_call;
mod text;
mod words;
mod xml;

pub use catalogue::{CATALOGUE, Entry, explain, find_entry, page};
pub use compare::Comparison;
pub use finding::{AccessRecord, BlockRecord, BlockStatus, Finding, Level, Operation, Traces};
pub use format::github::step_summary;
pub use format::{Format, Protocol, ReadError, one_line, read};
pub use frame::{Frame, NamedAddress, Symbol, Trim};
pub use held_by::{HeldBy, RootPlace};
pub use leak_record::{LeakRecord, Losses};
pub use merge::merge;
pub use path_map::PathMap;
pub use process::{Coverage, Exit, HeapUse, Process};
pub use report::{
    Baseline, LeakTotals, LossTotal, Report, SCHEMA, StaleRule, Summary, Suppressed, Tool, Verdict,
};
pub use source::Sources;
pub use source_root::SourceRoot;
pub use system_call::parameter as syscall_parameter;
pub use text::{Color, Text, total_line};
