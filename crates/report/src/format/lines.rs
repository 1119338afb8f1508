//! One line a finding, as compilers print them: every editor and CI system reads that.

use super::{Item, items, relative};
use crate::{Level, Report};

/// `file:line:col: error: text [id]` for every finding; without a source line, the module or the program stands first.
pub(super) fn lines(report: &Report) -> String {
    items(report).map(|item| line(item, report)).collect()
}

fn line(item: Item<'_>, report: &Report) -> String {
    let place = match item.location() {
        Some((file, frame)) => {
            let column = frame.column.map(|column| format!(":{column}")).unwrap_or_default();
            format!("{}:{}{column}", relative(file), frame.line.unwrap_or(1))
        }
        None => item
            .stack()
            .iter()
            .find_map(|frame| frame.module.clone())
            .or_else(|| report.command.first().cloned())
            .unwrap_or_else(|| "program".to_owned()),
    };
    let level = if item.level() == Level::Error { "error" } else { "note" };
    format!("{place}: {level}: {} [{}]\n", item.message().replace(['\n', '\r'], " "), item.id())
}
