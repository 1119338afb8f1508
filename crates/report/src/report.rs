//! Everything that one run, or several merged ones, found: the contract of the JSON format.
//!
//! Invariant: `summary` follows from the rest by [`Report::summarize`].

use std::collections::BTreeSet;

use memcheck_model::LeakKind;
use serde::{Deserialize, Serialize};

use crate::{Finding, LeakRecord, Level, PathMap, Process};

/// The version of the JSON format. It changes whenever a reader of the old one would misread the new one.
pub const SCHEMA: &str = "memcheck-report/1";

/// A run's findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// What made the report.
    pub tool: Tool,
    /// The command that was run, the program first.
    pub command: Vec<String>,
    /// What the user said about the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The processes, in the order in which they were seen.
    pub processes: Vec<Process>,
    /// The errors and notes, in the order in which they were seen.
    pub errors: Vec<Finding>,
    /// The loss records.
    pub leaks: Vec<LeakRecord>,
    /// What suppressions kept out of the lists above.
    pub suppressed: Vec<Suppressed>,
    /// The user's suppressions that should go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<StaleRule>,
    /// What an older report knew already, when one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// The totals.
    pub summary: Summary,
}

/// The tool that made a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A suppression that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// The suppression's name.
    pub name: String,
    /// The file that holds it; none when it is built in.
    pub file: Option<String>,
    /// Its line there.
    pub line: Option<u32>,
    /// How many occurrences of errors, or how many loss records, it kept out.
    pub count: u64,
    /// Blocks of the loss records it kept out.
    pub blocks: u64,
    /// Bytes of the loss records it kept out.
    pub bytes: u64,
}

/// A suppression that kept nothing out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleRule {
    /// The suppression's name.
    pub name: String,
    /// The file that holds it.
    pub file: String,
    /// Its line there.
    pub line: u32,
    /// Why it should go.
    pub why: String,
}

/// The findings that an older report holds too; they change the verdict no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The fingerprints of the older report.
    pub known: BTreeSet<String>,
}

/// The totals of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Occurrences of errors; notes and leaks do not count.
    pub errors: u64,
    /// Distinct errors.
    pub contexts: u64,
    /// Occurrences that suppressions kept out.
    pub suppressed: u64,
    /// Loss records that count as errors.
    #[serde(default)]
    pub failing_leaks: u64,
    /// What was leaked.
    pub leaks: LeakTotals,
    /// What it amounts to.
    pub verdict: Verdict,
}

/// Losses by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakTotals {
    /// Nothing points to them.
    pub definite: LossTotal,
    /// Only lost blocks point to them.
    pub indirect: LossTotal,
    /// Only interior pointers lead to them.
    pub possible: LossTotal,
    /// Still held at the end.
    pub reachable: LossTotal,
}

/// A number of blocks and the bytes they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossTotal {
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a run amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was found that counts as an error.
    #[default]
    Clean,
    /// Something was.
    Findings,
    /// memcheck could not do its work.
    Failed,
}

impl LeakTotals {
    /// The total of one kind.
    #[must_use]
    pub fn of(&self, kind: LeakKind) -> LossTotal {
        match kind {
            LeakKind::Definite => self.definite,
            LeakKind::Indirect => self.indirect,
            LeakKind::Possible => self.possible,
            LeakKind::Reachable => self.reachable,
        }
    }

    /// The total of one kind, to be set.
    pub fn of_mut(&mut self, kind: LeakKind) -> &mut LossTotal {
        match kind {
            LeakKind::Definite => &mut self.definite,
            LeakKind::Indirect => &mut self.indirect,
            LeakKind::Possible => &mut self.possible,
            LeakKind::Reachable => &mut self.reachable,
        }
    }
}

impl Report {
    /// A report without findings for a run of `command`.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            tool: Tool { name: "memcheck".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            command,
            comment: None,
            processes: Vec::new(),
            errors: Vec::new(),
            leaks: Vec::new(),
            suppressed: Vec::new(),
            stale: Vec::new(),
            baseline: None,
            summary: Summary::default(),
        }
    }

    /// Puts the source files where they are here.
    pub fn map_paths(&mut self, maps: &[PathMap]) {
        let stacks = self
            .errors
            .iter_mut()
            .flat_map(|finding| [&mut finding.stack, &mut finding.allocated, &mut finding.freed])
            .chain(self.leaks.iter_mut().map(|leak| &mut leak.stack));
        for file in stacks.flatten().filter_map(|frame| frame.file.as_mut()) {
            PathMap::apply(maps, file);
        }
    }

    /// The report on one process alone, if there is such a process.
    #[must_use]
    pub fn of_process(&self, pid: u32) -> Option<Self> {
        let mut report = Self {
            command: self.find_process(pid)?.command.clone(),
            processes: self.processes.iter().filter(|process| process.pid == pid).cloned().collect(),
            errors: self.errors.iter().filter(|finding| finding.pid == pid).cloned().collect(),
            leaks: self.leaks.iter().filter(|leak| leak.pid == pid).cloned().collect(),
            ..self.clone()
        };
        report.summarize(&[LeakKind::Definite, LeakKind::Possible]);
        Some(report)
    }

    /// Whether the baseline holds a finding of this fingerprint.
    #[must_use]
    pub fn is_known(&self, fingerprint: &str) -> bool {
        self.baseline.as_ref().is_some_and(|baseline| baseline.known.contains(fingerprint))
    }

    /// How many distinct errors and loss records the baseline holds too.
    #[must_use]
    pub fn known(&self) -> usize {
        let errors = self.errors.iter().map(|finding| &finding.fingerprint);
        let leaks = self.leaks.iter().map(|leak| &leak.fingerprint);
        errors.chain(leaks).filter(|fingerprint| self.is_known(fingerprint)).count()
    }

    /// The baseline that this report is for later runs.
    #[must_use]
    pub fn as_baseline(&self) -> Baseline {
        let errors = self.errors.iter().map(|finding| finding.fingerprint.clone());
        let leaks = self.leaks.iter().map(|leak| leak.fingerprint.clone());
        Baseline { known: errors.chain(leaks).collect() }
    }

    /// Makes `summary` from the lists. Loss records of the kinds in `error_kinds` make the verdict
    /// `findings`, as any error does, unless the baseline holds them too. Leak totals are those of the listed
    /// records, unless the caller sets them from a search that lists only some.
    pub fn summarize(&mut self, error_kinds: &[LeakKind]) {
        let counted = || self.errors.iter().filter(|finding| finding.severity == Level::Error);
        let mut leaks = LeakTotals::default();
        for record in &self.leaks {
            let total = leaks.of_mut(record.kind);
            total.blocks = total.blocks.saturating_add(record.blocks);
            total.bytes = total.bytes.saturating_add(record.bytes);
        }
        let fails =
            |leak: &&LeakRecord| error_kinds.contains(&leak.kind) && !self.is_known(&leak.fingerprint);
        let failing_leaks = self.leaks.iter().filter(fails).count() as u64;
        let bad = failing_leaks > 0 || counted().any(|finding| !self.is_known(&finding.fingerprint));
        self.summary = Summary {
            errors: counted().map(|finding| finding.count).fold(0, u64::saturating_add),
            contexts: counted().count() as u64,
            suppressed: self.suppressed.iter().map(|used| used.count).fold(0, u64::saturating_add),
            failing_leaks,
            leaks,
            verdict: match self.summary.verdict {
                Verdict::Failed => Verdict::Failed,
                _ if bad => Verdict::Findings,
                _ => Verdict::Clean,
            },
        };
    }

    /// The process with this id, the one seen last if the id was used again.
    #[must_use]
    pub fn find_process(&self, pid: u32) -> Option<&Process> {
        self.processes.iter().rev().find(|process| process.pid == pid)
    }
}
