//! Blocks that were still allocated at the end and share an allocation stack and a kind: one loss record.

use memcheck_model::LeakKind;
use serde::{Deserialize, Serialize};

use crate::fingerprint::fingerprint;
use crate::frame::Frame;
use crate::held_by::HeldBy;
use crate::report::LossTotal;
use crate::serial;
use crate::words::{blocks, bytes};

/// One loss record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakRecord {
    /// How the blocks were held.
    #[serde(with = "serial::leak_kind")]
    pub kind: LeakKind,
    /// How many blocks.
    pub blocks: u64,
    /// How many bytes they hold.
    pub bytes: u64,
    /// Blocks that are reachable from these only.
    pub indirect_blocks: u64,
    /// Bytes that those hold.
    pub indirect_bytes: u64,
    /// The function that allocated the blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_by: Option<String>,
    /// Where the blocks were allocated: the caller of that function first.
    pub stack: Vec<Frame>,
    /// What holds one of the blocks; none when nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// The process.
    pub pid: u32,
    /// Names the leak across runs.
    pub fingerprint: String,
    /// The first line of the text report, without the id.
    pub message: String,
    /// The cause in one sentence, and what to try in another.
    pub help: String,
    /// The rule that would keep it out, in Valgrind's syntax, where rules are generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppression: Option<String>,
}

/// The numbers of a loss record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// How many blocks.
    pub blocks: u64,
    /// How many bytes they hold.
    pub bytes: u64,
    /// Blocks that are reachable from these only.
    pub indirect_blocks: u64,
    /// Bytes that those hold.
    pub indirect_bytes: u64,
}

impl LeakRecord {
    /// The record of blocks allocated at `stack`, which is trimmed already.
    #[must_use]
    pub fn new(kind: LeakKind, losses: Losses, pid: u32, stack: Vec<Frame>) -> Self {
        let fingerprint = fingerprint(kind.id(), &stack);
        let mut record = Self {
            kind,
            blocks: losses.blocks,
            bytes: losses.bytes,
            indirect_blocks: losses.indirect_blocks,
            indirect_bytes: losses.indirect_bytes,
            allocated_by: None,
            stack,
            held_by: None,
            pid,
            fingerprint,
            message: String::new(),
            help: help(kind).to_owned(),
            suppression: None,
        };
        record.update_message();
        record
    }

    /// What holds the blocks, as a phrase.
    #[must_use]
    pub(crate) fn holding(&self) -> Option<String> {
        let held = self.held_by.as_ref()?;
        let whose = if self.blocks == 1 { "held by" } else { "one is held by" };
        Some(format!("{whose} {}", held.path))
    }

    /// Makes the message say how things stand while the process runs, and how they stood before.
    pub fn tell_running(&mut self, before: Option<LossTotal>) {
        self.update_message();
        if self.kind == LeakKind::Reachable {
            let them = if self.blocks == 1 { "it" } else { "them" };
            self.message = format!(
                "{} in {} in use: something points to {them}",
                bytes(self.bytes),
                blocks(self.blocks)
            );
        }
        if let Some(before) = before {
            self.message.push_str(&format!(
                "; last time {} in {}",
                bytes(before.bytes),
                blocks(before.blocks)
            ));
        }
    }

    /// The bytes that are lost with its blocks, their own among them.
    #[must_use]
    pub fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.indirect_bytes)
    }

    /// The blocks that are lost with its own, those among them.
    #[must_use]
    pub fn all_blocks(&self) -> u64 {
        self.blocks.saturating_add(self.indirect_blocks)
    }

    /// Makes the message say the record's numbers again, after records were added up.
    pub(crate) fn update_message(&mut self) {
        let what = match self.kind {
            LeakKind::Definite => "lost: nothing points to",
            LeakKind::Indirect => "lost: only other lost blocks point to",
            LeakKind::Possible => "possibly lost: only pointers into the middle lead to",
            LeakKind::Reachable => "never freed: at exit something still pointed to",
        };
        let them = if self.blocks == 1 { "it" } else { "them" };
        self.message = format!("{} in {} {what} {them}", bytes(self.bytes), blocks(self.blocks));
        if self.indirect_blocks > 0 {
            self.message.push_str(&format!(
                ", nor to the {} in {} reachable only from there",
                bytes(self.indirect_bytes),
                blocks(self.indirect_blocks)
            ));
        }
    }
}

fn help(kind: LeakKind) -> &'static str {
    match kind {
        LeakKind::Definite => {
            "the last pointer to the block was overwritten or went out of scope; free the block before that, on \
             every path, error paths too"
        }
        LeakKind::Indirect => {
            "the block hangs on a block that is lost itself; free the whole structure, its parts first"
        }
        LeakKind::Possible => {
            "the program keeps no pointer to the start of the block; keep one to free it, or ignore this if it \
             recomputes the start"
        }
        LeakKind::Reachable => {
            "the program could still have freed the block when it ended; harmless if it lives as long as the \
             program, a leak if there are more of them the longer it runs"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_counts_blocks_and_what_hangs_on_them() {
        let losses = Losses { blocks: 1, bytes: 16, indirect_blocks: 2, indirect_bytes: 32 };
        assert_eq!(
            LeakRecord::new(LeakKind::Definite, losses, 1, Vec::new()).message,
            "16 bytes in 1 block lost: nothing points to it, nor to the 32 bytes in 2 blocks reachable only from there"
        );
    }
}
