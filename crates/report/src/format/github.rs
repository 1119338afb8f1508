//! GitHub's workflow commands (docs: "Workflow commands for GitHub Actions"): one annotation a finding.
//!
//! GitHub shows ten errors a step; the others are for the summary of the step, whose text may have 1 MiB.

use std::fmt::Write as _;

use super::{Item, items, plain};
use crate::{Level, Report, SourceRoot};

const SHOWN: usize = 10;

/// Below GitHub's limit, because other tools write to the same page.
const SUMMARY_BYTES: usize = 512 << 10;

/// Errors first, so that notes take no place from them.
fn ranked(report: &Report) -> Vec<Item<'_>> {
    let mut ranked: Vec<_> = items(report).collect();
    ranked.sort_by_key(|item| item.level() == Level::Note);
    ranked
}

/// `::error file=…,line=…,col=…,title=…::text`, the text with its stacks.
pub(super) fn commands(report: &Report, root: &SourceRoot) -> String {
    let ranked = ranked(report);
    let mut text: String = ranked.iter().take(SHOWN).map(|&item| command(item, root)).collect();
    let more = ranked.len().saturating_sub(SHOWN);
    if more > 0 {
        let _ =
            writeln!(text, "::notice title=memcheck::{more} further findings are in the summary of the step");
    }
    text
}

fn command(item: Item<'_>, root: &SourceRoot) -> String {
    let level = if item.level() == Level::Error { "error" } else { "notice" };
    let place = item.location().map_or_else(String::new, |(file, frame)| {
        let column = frame.column.map(|column| format!(",col={column}")).unwrap_or_default();
        format!("file={},line={}{column},", property(&root.relative(file)), frame.line.unwrap_or(1))
    });
    format!("::{level} {place}title={}::{}\n", property(item.id()), data(plain(item, root).trim_end()))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The findings that GitHub does not show as annotations, as Markdown for the summary of the step.
#[must_use]
pub fn step_summary(report: &Report, root: &SourceRoot) -> Option<String> {
    let ranked = ranked(report);
    let hidden = ranked.get(SHOWN..).filter(|hidden| !hidden.is_empty())?;
    let mut text = format!(
        "### memcheck: {} findings, {} of them not annotated\n\n| finding | what | where |\n|---|---|---|\n",
        ranked.len(),
        hidden.len()
    );
    for (index, item) in hidden.iter().enumerate() {
        if text.len() > SUMMARY_BYTES {
            let _ = writeln!(text, "\nand {} more, in the report only", hidden.len() - index);
            break;
        }
        let (path, line) = item.place(report);
        let place = cell(&format!("{}:{line}", root.relative(path)));
        let _ = writeln!(text, "| {} | {} | {place} |", cell(item.id()), cell(item.message()));
    }
    Some(text + "\n")
}

/// Text that neither ends the cell of a table nor is markup.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' => cell.push(' '),
            '<' => cell.push_str("&lt;"),
            '&' => cell.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' => cell.extend(['\\', c]),
            c => cell.push(c),
        }
    }
    cell
}
