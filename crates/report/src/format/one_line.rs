//! One line a finding, as compilers print them: every editor and CI system reads that.

use super::{Item, items};
use crate::{Finding, LeakRecord, Level, Report, SourceRoot};

/// `file:line:col: error: text [id]` for every finding; without a source line, the module stands first.
pub(super) fn lines(report: &Report, root: &SourceRoot) -> String {
    items(report).map(|item| line(item, item.level(), root)).collect()
}

/// The line of one error or note.
#[must_use]
pub fn finding(finding: &Finding, root: &SourceRoot) -> String {
    line(Item::Error(finding), finding.severity, root)
}

/// The line of one loss record.
#[must_use]
pub fn leak(leak: &LeakRecord, is_error: bool, root: &SourceRoot) -> String {
    line(Item::Leak(leak), if is_error { Level::Error } else { Level::Note }, root)
}

fn line(item: Item<'_>, level: Level, root: &SourceRoot) -> String {
    let place = match item.location() {
        Some((file, frame)) => {
            let column = frame.column.map(|column| format!(":{column}")).unwrap_or_default();
            format!("{}:{}{column}", root.relative(file), frame.line.unwrap_or(1))
        }
        None => item.module().unwrap_or("memcheck").to_owned(),
    };
    let level = if level == Level::Error { "error" } else { "note" };
    // A path may hold a line's end too.
    format!("{place}: {level}: {} [{}]", item.message(), item.id()).replace(['\n', '\r'], " ") + "\n"
}
