//! Several reports as one: those of a test run that was cut into shards.
//!
//! Invariants: a finding is the same in two reports when its fingerprint and the line that it is shown at are; its
//! counts, blocks and bytes are added up. The totals and the verdict are those of all reports together, also of what
//! no report lists.

use std::collections::HashMap;

use memcheck_model::LeakKind;

use crate::frame::{Frame, primary};
use crate::report::{Report, Verdict};

/// What tells findings apart: the fingerprint, and file, line and column.
type Key = (String, Option<(String, Option<u32>, Option<u32>)>);

fn key(fingerprint: &str, stack: &[Frame]) -> Key {
    let place = primary(stack).and_then(|frame| Some((frame.file.clone()?, frame.line, frame.column)));
    (fingerprint.to_owned(), place)
}

/// Adds up what reports say, which need not be true.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// One report of all of them, for the command that made it.
#[must_use]
pub fn merge(command: Vec<String>, reports: Vec<Report>) -> Report {
    let mut merged = Report::new(command);
    let (mut errors, mut leaks) = (HashMap::new(), HashMap::new());
    let mut totals = merged.summary.leaks;
    let mut verdict = Verdict::Clean;
    let mut failing_leaks = 0;
    let count = reports.len();
    let mut stale = Vec::new();
    for report in reports {
        merged.processes.extend(report.processes);
        for finding in report.errors {
            let index =
                *errors.entry(key(&finding.fingerprint, &finding.stack)).or_insert(merged.errors.len());
            match merged.errors.get_mut(index) {
                Some(known) => add(&mut known.count, finding.count),
                None => merged.errors.push(finding),
            }
        }
        for leak in report.leaks {
            let index = *leaks.entry(key(&leak.fingerprint, &leak.stack)).or_insert(merged.leaks.len());
            match merged.leaks.get_mut(index) {
                Some(known) => {
                    add(&mut known.blocks, leak.blocks);
                    add(&mut known.bytes, leak.bytes);
                    add(&mut known.indirect_blocks, leak.indirect_blocks);
                    add(&mut known.indirect_bytes, leak.indirect_bytes);
                    known.update_message();
                }
                None => merged.leaks.push(leak),
            }
        }
        for used in report.suppressed {
            let is_same = |known: &&mut crate::Suppressed| {
                (&known.name, &known.file, known.line) == (&used.name, &used.file, used.line)
            };
            match merged.suppressed.iter_mut().find(is_same) {
                Some(known) => {
                    add(&mut known.count, used.count);
                    add(&mut known.blocks, used.blocks);
                    add(&mut known.bytes, used.bytes);
                }
                None => merged.suppressed.push(used),
            }
        }
        for kind in LeakKind::ALL {
            let (total, more) = (totals.of_mut(kind), report.summary.leaks.of(kind));
            add(&mut total.blocks, more.blocks);
            add(&mut total.bytes, more.bytes);
        }
        verdict = verdict.max(report.summary.verdict);
        add(&mut failing_leaks, report.summary.failing_leaks);
        stale.extend(report.stale);
        if let Some(baseline) = report.baseline {
            merged.baseline.get_or_insert_default().known.extend(baseline.known);
        }
    }
    // A rule that one of the runs needed is not stale, nor is one that has not expired everywhere.
    while let Some(rule) = stale.pop() {
        let before = stale.len();
        stale.retain(|other| *other != rule);
        if before - stale.len() + 1 == count {
            merged.stale.insert(0, rule);
        }
    }
    merged.summarize(&[]);
    merged.summary.leaks = totals;
    // Equal records of several reports are one now.
    merged.summary.failing_leaks = failing_leaks.min(merged.leaks.len() as u64);
    merged.summary.verdict = verdict;
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LeakRecord, Losses, StaleRule};

    fn leak(function: &str, bytes: u64) -> LeakRecord {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: Some("a.c".to_owned()),
            line: Some(1),
            ..Frame::default()
        };
        let losses = Losses { blocks: 1, bytes, indirect_blocks: 0, indirect_bytes: 0 };
        LeakRecord::new(LeakKind::Definite, losses, 1, vec![frame])
    }

    fn report(leaks: Vec<LeakRecord>, stale: &[&str]) -> Report {
        let mut report = Report::new(vec!["t".to_owned()]);
        report.leaks = leaks;
        report.stale = stale
            .iter()
            .map(|&name| StaleRule {
                name: name.to_owned(),
                file: "x".to_owned(),
                line: 1,
                why: "never needed".to_owned(),
            })
            .collect();
        report.summarize(&[LeakKind::Definite]);
        report
    }

    #[test]
    fn findings_of_one_place_are_added_up_and_totals_keep() {
        let merged = merge(
            Vec::new(),
            vec![
                report(vec![leak("f", 8)], &[]),
                report(vec![leak("f", 16), leak("g", 1)], &[]),
                report(vec![], &[]),
            ],
        );
        let sums: Vec<_> = merged.leaks.iter().map(|leak| (leak.blocks, leak.bytes)).collect();
        assert_eq!(sums, [(2, 24), (1, 1)]);
        assert_eq!(merged.leaks[0].message, "24 bytes in 2 blocks lost: nothing points to them");
        assert_eq!(merged.summary.leaks.definite.bytes, 25);
        assert_eq!(merged.summary.verdict, Verdict::Findings);
    }

    #[test]
    fn numbers_that_no_program_has_stay_large() {
        let huge = || report(vec![leak("f", u64::MAX)], &[]);
        let merged = merge(Vec::new(), vec![huge(), huge()]);
        assert_eq!((merged.leaks[0].bytes, merged.summary.leaks.definite.bytes), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_rule_is_stale_when_no_run_needed_it() {
        let merged = merge(Vec::new(), vec![report(vec![], &["a", "b"]), report(vec![], &["b", "c"])]);
        assert_eq!(merged.stale.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
