//! One error or note, complete: everything any format says about it.
//!
//! In: an [`ErrorEvent`] and its stacks with names ([`Traces`]). Out: a [`Finding`], plain data.

use memcheck_model::{AccessKind, Addr, BlockState, Detail, ErrorEvent, Place, Severity};
use serde::{Deserialize, Serialize};

use crate::fingerprint::fingerprint;
use crate::frame::{Frame, NamedAddress, Trim, primary};
use crate::{help, message, notes, serial};

/// One distinct error or note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The stable id of its kind, such as `double-free`.
    pub id: String,
    /// How bad it is.
    pub severity: Level,
    /// What happened, how large, where: one line.
    pub message: String,
    /// The process.
    pub pid: u32,
    /// The thread that erred.
    pub tid: u32,
    /// How often it was seen.
    pub count: u64,
    /// The function that the program called and that found the error, such as `free`; the stack begins at its caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The access to memory, when the error is one.
    pub access: Option<AccessRecord>,
    /// The block that it is about, when there is one.
    pub block: Option<BlockRecord>,
    /// Where it happened, innermost first.
    pub stack: Vec<Frame>,
    /// Where the block was allocated.
    pub allocated: Vec<Frame>,
    /// Where the block was freed.
    pub freed: Vec<Frame>,
    /// Names the defect across runs: see [`crate::Finding::from_event`].
    pub fingerprint: String,
    /// Further facts, a line each.
    pub notes: Vec<String>,
    /// The likely cause and what to try: one sentence.
    pub help: String,
    /// The rule that would keep it out, in Valgrind's syntax, where rules are generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppression: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The program is wrong.
    Error,
    /// Worth telling; does not change the verdict.
    Note,
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
}

/// An access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRecord {
    /// What it does.
    pub op: Operation,
    /// How many bytes it covers.
    pub size: u64,
    /// Its first byte.
    #[serde(with = "serial::addr")]
    pub address: Addr,
}

/// A block of the heap, and where the error lies in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Its first byte.
    #[serde(with = "serial::addr")]
    pub address: Addr,
    /// The size that was asked for.
    pub size: u64,
    /// Where the erroneous address lies, from the block's start; negative before it.
    pub offset: i64,
    /// Whether it may be used.
    pub state: BlockStatus,
    /// The function that allocated it.
    pub allocated_by: String,
    /// The thread that allocated it.
    pub allocated_tid: u32,
    /// The function that freed it.
    pub freed_by: Option<String>,
    /// The thread that freed it.
    pub freed_tid: Option<u32>,
}

/// Whether a block may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockStatus {
    /// Allocated and not freed.
    Live,
    /// Freed.
    Freed,
}

/// What the symbolizer made of an event's addresses.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// The event's `stack`.
    pub stack: Vec<Frame>,
    /// The event's `allocated`.
    pub allocated: Vec<Frame>,
    /// The event's `freed`.
    pub freed: Vec<Frame>,
    /// The variable or function that the event's `address` lies in, when its place is [`Place::Module`].
    pub named: Option<NamedAddress>,
}

impl Finding {
    /// The finding of one event in the process `pid`.
    ///
    /// The fingerprint covers the id and the functions and modules of the top frames as they are left by
    /// `trim`'s view of the shim, never addresses or lines, so that it outlives edits above the defect.
    #[must_use]
    pub fn from_event(event: &ErrorEvent<'_>, pid: u32, traces: Traces, trim: Trim) -> Self {
        let id = event.kind.id();
        let message = message::message(event, pid, traces.named.as_ref());
        let notes = notes::notes(event, pid, traces.named.as_ref());
        let stack = trim.apply(traces.stack);
        let block = match event.place {
            Place::Block(block) => Some(BlockRecord {
                address: block.start,
                size: block.size.0,
                offset: match event.detail {
                    Detail::Late(damage) => damage.first,
                    _ => event.address.offset_from(block.start),
                },
                state: match block.state {
                    BlockState::Live => BlockStatus::Live,
                    BlockState::Freed => BlockStatus::Freed,
                },
                allocated_by: block.allocated_by.name().to_owned(),
                allocated_tid: block.alloc_tid.0,
                freed_by: block.freed_by.map(|function| function.name().to_owned()),
                freed_tid: block.freed_by.map(|_| block.free_tid.0),
            }),
            _ => None,
        };
        Self {
            id: id.to_owned(),
            severity: match event.kind.severity() {
                Severity::Error => Level::Error,
                Severity::Note => Level::Note,
            },
            message,
            pid,
            tid: event.tid.0,
            count: 1,
            function: event.function.map(|function| function.name().to_owned()),
            access: event.access.filter(|access| access.size.0 > 0).map(|access| AccessRecord {
                op: match access.kind {
                    AccessKind::Read => Operation::Read,
                    AccessKind::Write => Operation::Write,
                },
                size: access.size.0,
                address: access.addr,
            }),
            block,
            fingerprint: fingerprint(id, &stack),
            stack,
            allocated: trim.apply(traces.allocated),
            freed: trim.apply(traces.freed),
            notes,
            help: help::help(event, traces.named.as_ref()),
            suppression: None,
        }
    }

    /// What happened at the stacks `allocated` and `freed`.
    #[must_use]
    pub fn origin_words(&self) -> (&'static str, &'static str) {
        if self.id.starts_with("fd-") { ("opened", "closed") } else { ("allocated", "freed") }
    }

    /// The frame to point an editor at: the innermost of the program's own code that has a source line.
    #[must_use]
    pub fn location(&self) -> Option<&Frame> {
        primary(&self.stack)
    }
}
