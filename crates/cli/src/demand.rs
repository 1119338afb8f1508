//! Leak searches on demand: what one found, and what is new since the one before.

use std::collections::HashMap;

use memcheck_model::{Function, LeakKind, Pc};
use memcheck_report::{Color, LeakRecord, LossTotal, Losses, Text};
use memcheck_wire::LossRecord;

use crate::{
    questions::Wanted,
    tree::{LossSum, Watched},
};

/// What makes loss records of two searches of a process the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: LeakKind,
    allocated_by: Function,
    stack: Vec<Pc>,
}

/// A loss record of the search that is under way.
struct Found {
    key: Key,
    record: LeakRecord,
    is_error: bool,
}

/// The searches of one process.
#[derive(Default)]
pub struct Searches {
    found: Vec<Found>,
    sums: Vec<LossSum>,
    before: HashMap<Key, (u64, u64)>,
    sums_before: Vec<LossSum>,
}

impl Searches {
    /// Adds what the search that is under way found.
    pub fn add(&mut self, loss: &LossRecord<'_>, record: LeakRecord, is_error: bool) {
        let key = Key { kind: loss.kind, allocated_by: loss.allocated_by, stack: loss.stack.to_vec() };
        self.found.push(Found { key, record, is_error });
    }

    /// Adds the sums of one kind.
    pub fn add_sum(&mut self, sum: LossSum) {
        self.sums.push(sum);
    }

    /// What the search that has ended found: records of these kinds, and the sums.
    pub fn found(&self, shown: &[LeakKind]) -> (Vec<(LeakRecord, Function)>, Vec<LossSum>) {
        let found = self.found.iter().filter(|found| shown.contains(&found.key.kind));
        (found.map(|found| (found.record.clone(), found.key.allocated_by)).collect(), self.sums.clone())
    }

    /// The search has ended: its text. Shown are records of these kinds.
    pub fn tell(&mut self, process: &Watched, shown: &[LeakKind], wanted: Wanted, color: Color) -> String {
        let mut text = Text::new(color);
        let mut output = String::new();
        let found = std::mem::take(&mut self.found);
        let before = std::mem::take(&mut self.before);
        let (mut all, mut fresh) = (0, 0);
        for Found { key, mut record, is_error } in found {
            let (blocks, bytes) = before.get(&key).copied().unwrap_or_default();
            let has_grown = record.blocks > blocks || record.bytes > bytes;
            if shown.contains(&key.kind) {
                all += 1;
                fresh += u64::from(has_grown);
                if has_grown || wanted == Wanted::All {
                    let before = (blocks > 0).then_some(LossTotal { blocks, bytes });
                    record.tell_running(before);
                    output += &text.leak(&record, is_error);
                }
            }
            self.before.insert(key, (record.blocks, record.bytes));
        }
        let records = if all == 1 { "loss record" } else { "loss records" };
        let lines = [format!(
            "process {} ({}): {all} {records}, {fresh} of them new or grown since the last call",
            process.pid,
            process.name()
        )];
        let sums = std::mem::take(&mut self.sums);
        let sums_before = std::mem::replace(&mut self.sums_before, sums.clone());
        let totals = sums.iter().filter(|sum| sum.blocks > 0).map(|sum| {
            let before = sums_before.iter().find(|before| before.kind == sum.kind);
            let before = before.map(|before| LossTotal { blocks: before.blocks, bytes: before.bytes });
            memcheck_report::total_line(sum.kind, LossTotal { blocks: sum.blocks, bytes: sum.bytes }, before)
        });
        for line in lines.into_iter().chain(totals) {
            output += &text.remark_line(&line);
        }
        output
    }
}

/// The numbers of a loss record.
pub fn losses(loss: &LossRecord<'_>) -> Losses {
    Losses {
        blocks: loss.blocks,
        bytes: loss.bytes.0,
        indirect_blocks: loss.indirect_blocks,
        indirect_bytes: loss.indirect_bytes.0,
    }
}
