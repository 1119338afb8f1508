//! Leak searches on demand, for `memcheck leaks` and for programs that ask for one: what a search found, beside what
//! the one before found.

use std::{collections::HashMap, sync::atomic::Ordering};

use memcheck_model::{Function, LeakKind, Pc, SearchScope};
use memcheck_report::{Color, Frame, LeakRecord, LossTotal, Losses, Text};
use memcheck_wire::{Counter, LossRecord, Stream};

use crate::tree::{LossSum, Watched};

/// What makes loss records of two searches of a process the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: LeakKind,
    allocated_by: Function,
    stack: Vec<Pc>,
}

/// A loss record of a search, beside what the search before found of it.
#[derive(Clone)]
pub struct Loss {
    /// The record.
    pub record: LeakRecord,
    /// Its number by bytes, and of how many.
    pub number: (u32, u32),
    /// Whether it is an error.
    pub is_error: bool,
    /// What the search before found.
    pub before: Losses,
    /// The function that allocated the blocks.
    pub allocated_by: Function,
    /// Its frame.
    pub function: Option<Frame>,
}

impl Loss {
    fn has_grown(&self) -> bool {
        self.record.blocks > self.before.blocks || self.record.bytes > self.before.bytes
    }

    fn has_changed(&self) -> bool {
        (self.record.blocks, self.record.bytes) != (self.before.blocks, self.before.bytes)
    }
}

/// The sum of one kind, beside that of the search before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Now.
    pub now: LossTotal,
    /// At the search before, if there was one.
    pub before: LossTotal,
}

/// What a search found.
#[derive(Clone, Default)]
pub struct Found {
    /// The loss records to be told.
    pub losses: Vec<Loss>,
    /// The sums without what is suppressed, in the order of `LeakKind::ALL`, and of what is.
    pub sums: [Sum; 4],
    /// See `sums`.
    pub suppressed: Sum,
    /// How many records of the kinds that are shown there are, and how many of them are new or have grown.
    shown: (u64, u64),
    is_first: bool,
}

/// The searches of one process.
#[derive(Default)]
pub struct Searches {
    found: Vec<(Key, Loss)>,
    sums: [LossTotal; 4],
    suppressed: LossTotal,
    before: HashMap<Key, Loss>,
    /// The sums of the search before, and what was suppressed.
    last: Option<([LossTotal; 4], LossTotal)>,
    /// How many of the records told so far are errors.
    errors: u64,
}

/// Adds blocks and bytes, which the target told and may be any.
pub fn add(total: &mut LossTotal, blocks: u64, bytes: u64) {
    total.blocks = total.blocks.saturating_add(blocks);
    total.bytes = total.bytes.saturating_add(bytes);
}

impl Searches {
    /// Adds what the search that is under way found.
    pub fn add(&mut self, loss: &LossRecord<'_>, record: LeakRecord, is_error: bool) {
        let key = Key { kind: loss.kind, allocated_by: loss.allocated_by, stack: loss.stack.to_vec() };
        let loss = Loss {
            record,
            number: (loss.number, loss.of),
            is_error,
            before: Losses::default(),
            allocated_by: loss.allocated_by,
            function: None,
        };
        self.found.push((key, loss));
    }

    /// Adds a record that a rule keeps out. Its kind's sum came before it.
    pub fn add_suppressed(&mut self, loss: &LossRecord<'_>) {
        add(&mut self.suppressed, loss.blocks, loss.bytes.0);
        let sum = &mut self.sums[loss.kind as usize - 1];
        sum.blocks = sum.blocks.saturating_sub(loss.blocks);
        sum.bytes = sum.bytes.saturating_sub(loss.bytes.0);
    }

    /// Adds the sums of one kind.
    pub fn add_sum(&mut self, sum: LossSum) {
        add(&mut self.sums[sum.kind as usize - 1], sum.blocks, sum.bytes);
    }

    /// The search has ended: what is to be told of it. Shown are records of these kinds.
    pub fn end(&mut self, shown: &[LeakKind], scope: SearchScope) -> Found {
        let now = (std::mem::take(&mut self.sums), std::mem::take(&mut self.suppressed));
        let last = self.last.replace(now);
        let before = last.unwrap_or_default();
        let mut found = Found {
            sums: std::array::from_fn(|kind| Sum { now: now.0[kind], before: before.0[kind] }),
            suppressed: Sum { now: now.1, before: before.1 },
            is_first: last.is_none(),
            ..Found::default()
        };
        let mut before = std::mem::take(&mut self.before);
        for (key, mut loss) in std::mem::take(&mut self.found) {
            if let Some(before) = before.remove(&key) {
                loss.before = numbers(&before.record);
            }
            if shown.contains(&key.kind) {
                found.shown.0 += 1;
                found.shown.1 += u64::from(loss.has_grown());
                let is_told = match scope {
                    SearchScope::All => true,
                    SearchScope::Sums => false,
                    SearchScope::Increased => loss.has_grown(),
                    SearchScope::Changed => loss.has_changed(),
                };
                if is_told {
                    self.errors += u64::from(loss.is_error);
                    found.losses.push(loss.clone());
                }
            }
            self.before.insert(key, loss);
        }
        // What is left was there before and is no more.
        if scope == SearchScope::Changed {
            found.losses.extend(before.into_iter().filter(|(key, _)| shown.contains(&key.kind)).map(
                |(_, mut loss)| {
                    loss.before = numbers(&loss.record);
                    (loss.record.blocks, loss.record.bytes) = (0, 0);
                    (loss.record.indirect_blocks, loss.record.indirect_bytes) = (0, 0);
                    loss.record.held_by = None;
                    loss.is_error = false;
                    loss
                },
            ));
        }
        found
    }

    /// How many of the records that were told so far are errors.
    pub fn errors(&self) -> u64 {
        self.errors
    }
}

impl Found {
    /// All of it as text of ours.
    pub fn tell(&self, process: &Watched, color: Color) -> String {
        let mut text = Text::new(color);
        let mut output = String::new();
        for loss in &self.losses {
            let mut record = loss.record.clone();
            let Losses { blocks, bytes, .. } = loss.before;
            record.tell_running((blocks > 0).then_some(LossTotal { blocks, bytes }));
            output += &text.leak(&record, loss.is_error);
        }
        let (all, fresh) = self.shown;
        let records = if all == 1 { "loss record" } else { "loss records" };
        let line = format!(
            "process {} ({}): {all} {records}, {fresh} of them new or grown since the last call",
            process.pid,
            process.name()
        );
        let sums = LeakKind::ALL.into_iter().zip(&self.sums).filter(|(_, sum)| sum.now.blocks > 0);
        let totals = sums.map(|(kind, sum)| {
            memcheck_report::total_line(kind, sum.now, (!self.is_first).then_some(sum.before))
        });
        for line in std::iter::once(line).chain(totals) {
            output += &text.remark_line(&line);
        }
        output
    }

    /// Stores the sums where the process looks for them, with the number of errors of its searches.
    pub fn store_in(&self, stream: &Stream, errors: u64) {
        use Counter as C;
        let [definite, indirect, possible, reachable] = self.sums.map(|sum| sum.now);
        let mut lost = definite;
        add(&mut lost, indirect.blocks, indirect.bytes);
        for (sum, blocks, bytes) in [
            (lost, C::LostBlocks, C::LostBytes),
            (possible, C::PossibleBlocks, C::PossibleBytes),
            (reachable, C::ReachableBlocks, C::ReachableBytes),
            (self.suppressed.now, C::SuppressedBlocks, C::SuppressedBytes),
        ] {
            stream.counter(blocks).store(sum.blocks, Ordering::Relaxed);
            stream.counter(bytes).store(sum.bytes, Ordering::Relaxed);
        }
        stream.counter(C::LossErrors).store(errors, Ordering::Relaxed);
    }
}

fn numbers(record: &LeakRecord) -> Losses {
    Losses {
        blocks: record.blocks,
        bytes: record.bytes,
        indirect_blocks: record.indirect_blocks,
        indirect_bytes: record.indirect_bytes,
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
