//! GitHub's workflow commands (docs: "Workflow commands for GitHub Actions"): one annotation a finding.
//!
//! GitHub shows ten errors a step; the line after them says where the others are.

use super::{Item, items, plain, relative};
use crate::{Level, Report};

const SHOWN: usize = 10;

/// `::error file=…,line=…,col=…,title=…::text`, the text with its stacks.
pub(super) fn commands(report: &Report) -> String {
    let mut text: String = items(report).take(SHOWN).map(command).collect();
    let more = items(report).count().saturating_sub(SHOWN);
    if more > 0 {
        text.push_str(&format!("::notice::{more} further findings are in the report only\n"));
    }
    text
}

fn command(item: Item<'_>) -> String {
    let level = if item.level() == Level::Error { "error" } else { "notice" };
    let place = item.location().map_or_else(String::new, |(file, frame)| {
        let column = frame.column.map(|column| format!(",col={column}")).unwrap_or_default();
        format!("file={},line={}{column},", property(relative(file)), frame.line.unwrap_or(1))
    });
    format!("::{level} {place}title={}::{}\n", property(item.id()), data(plain(item).trim_end()))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
