//! What changed between two reports.
//!
//! In: an older and a newer [`Report`]. Out: [`Comparison`], which findings are new, gone, or in both.
//!
//! Invariant: findings are the same when their fingerprints are, so edits that shift lines change nothing. Every
//! fingerprint is in exactly one of the three lists, once.

use std::collections::BTreeSet;
use std::fmt::Write;

use memcheck_model::LeakKind;

use crate::finding::Level;
use crate::frame::{Frame, primary};
use crate::report::Report;

/// One finding or loss record, as far as comparing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<'a> {
    fingerprint: &'a str,
    id: &'a str,
    message: &'a str,
    place: Option<&'a Frame>,
    is_error: bool,
}

/// The difference of two reports.
#[derive(Clone, Debug, Default)]
pub struct Comparison<'a> {
    new: Vec<Entry<'a>>,
    gone: Vec<Entry<'a>>,
    same: Vec<Entry<'a>>,
}

/// The entries of a report, the first of each fingerprint.
fn entries(report: &Report) -> Vec<Entry<'_>> {
    let errors = report.errors.iter().map(|finding| Entry {
        fingerprint: &finding.fingerprint,
        id: &finding.id,
        message: &finding.message,
        place: primary(&finding.stack),
        is_error: finding.severity == Level::Error,
    });
    let leaks = report.leaks.iter().map(|leak| Entry {
        fingerprint: &leak.fingerprint,
        id: leak.kind.id(),
        message: &leak.message,
        place: primary(&leak.stack),
        is_error: matches!(leak.kind, LeakKind::Definite | LeakKind::Possible),
    });
    let mut seen = BTreeSet::new();
    errors.chain(leaks).filter(|entry| seen.insert(entry.fingerprint)).collect()
}

impl<'a> Comparison<'a> {
    /// Compares an older report with a newer one.
    #[must_use]
    pub fn of(old: &'a Report, new: &'a Report) -> Self {
        let (old, new) = (entries(old), entries(new));
        let holds = |list: &[Entry<'_>], entry: &Entry<'_>| {
            list.iter().any(|other| other.fingerprint == entry.fingerprint)
        };
        let gone = old.iter().filter(|entry| !holds(&new, entry)).cloned().collect();
        let (same, new) = new.into_iter().partition(|entry| holds(&old, entry));
        Self { new, gone, same }
    }

    /// Whether an error, or a leak that counts as one unless options say otherwise, is new.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.new.iter().any(|entry| entry.is_error)
    }

    /// A line for each finding, and one that counts.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (word, entries) in [("new", &self.new), ("gone", &self.gone), ("same", &self.same)] {
            for entry in entries {
                let _ = write!(text, "{word:<5} {} [{}]", entry.message, entry.id);
                if let Some((file, line)) =
                    entry.place.and_then(|frame| Some((frame.file.as_ref()?, frame.line?)))
                {
                    let _ = write!(text, " at {file}:{line}");
                }
                text.push('\n');
            }
        }
        let _ = writeln!(text, "{} new, {} gone, {} same", self.new.len(), self.gone.len(), self.same.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LeakRecord, Losses};

    fn report(places: &[(&str, u32)]) -> Report {
        let mut report = Report::new(vec!["a.out".to_owned()]);
        for &(function, line) in places {
            let frame = Frame {
                function: Some(function.to_owned()),
                file: Some("a.c".to_owned()),
                line: Some(line),
                ..Frame::default()
            };
            let losses = Losses { blocks: 1, bytes: 8, indirect_blocks: 0, indirect_bytes: 0 };
            report.leaks.push(LeakRecord::new(LeakKind::Definite, losses, 1, vec![frame]));
        }
        report
    }

    #[test]
    fn shifted_lines_are_the_same_finding() {
        let (old, new) = (report(&[("f", 3), ("g", 5)]), report(&[("f", 30), ("h", 50)]));
        let comparison = Comparison::of(&old, &new);
        let message = "8 bytes in 1 block lost: nothing points to it [definite]";
        assert_eq!(
            comparison.text(),
            format!(
                "new   {message} at a.c:50\ngone  {message} at a.c:5\nsame  {message} at a.c:30\n1 new, 1 gone, 1 same\n"
            )
        );
        assert!(comparison.is_worse());
    }

    #[test]
    fn fewer_findings_are_no_worse() {
        let (old, new) = (report(&[("f", 3), ("f", 4), ("g", 5)]), report(&[("f", 3)]));
        let comparison = Comparison::of(&old, &new);
        assert!(!comparison.is_worse() && comparison.text().ends_with("0 new, 1 gone, 1 same\n"));
    }
}
