//! One process of the run: what it was, how it ended, what its heap and its checks amounted to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::Frame;

/// A process that memcheck watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub ppid: u32,
    /// Its arguments, the program first.
    pub command: Vec<String>,
    /// How it ended; none when it had not when the report was made.
    pub exit: Option<Exit>,
    /// What its heap did.
    pub heap: HeapUse,
    /// How much of its code was watched.
    pub coverage: Coverage,
    /// The functions that its findings name and no stack shows, such as `malloc`: where they lie in the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, Frame>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Counts of a process's heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapUse {
    /// Calls that allocated.
    pub allocs: u64,
    /// Calls that freed.
    pub frees: u64,
    /// Bytes that were asked for in all.
    pub allocated_bytes: u64,
    /// The most bytes that were in use at once.
    pub peak_bytes: u64,
    /// Blocks in use at the end.
    pub in_use_blocks: u64,
    /// Bytes in use at the end.
    pub in_use_bytes: u64,
    /// Blocks among those that the C and C++ runtime libraries keep for themselves; they are in no loss record.
    #[serde(default)]
    pub library_blocks: u64,
    /// The bytes in those.
    #[serde(default)]
    pub library_bytes: u64,
}

/// How much of a process's code was watched at the instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Whether accesses were checked at all.
    pub access_checks: bool,
    /// The program and its libraries, but for the loader.
    #[serde(default)]
    pub modules: u64,
    /// Functions that were found in them; most are never called.
    #[serde(default)]
    pub functions: u64,
    /// Functions that were called, and checked.
    pub functions_checked: u64,
    /// Functions that were called, and could not be checked.
    pub functions_native: u64,
    /// Functions too short to be led to their checked copy where a pointer leads to them.
    #[serde(default)]
    pub functions_short: u64,
    /// Bytes of code, with what is never called.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes of the checked functions.
    pub bytes_checked: u64,
    /// Bytes of the functions that could not be checked.
    pub bytes_native: u64,
    /// Why functions could not be checked, and how many for each reason.
    pub native_reasons: BTreeMap<String, u64>,
    /// Instructions' accesses that are checked.
    #[serde(default)]
    pub accesses_checked: u64,
    /// Those in checked functions that are not: what they touch cannot be told.
    #[serde(default)]
    pub accesses_unchecked: u64,
    /// System calls that were made without a look at the memory that they use, by name.
    #[serde(default)]
    pub syscalls_unchecked: BTreeMap<String, u64>,
}
