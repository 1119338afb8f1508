//! One HTML page that needs no network: the report as data, the lines of source around its frames, and a script that
//! shows them (`html/page.html`).
//!
//! Invariant: nothing of the report becomes markup: it is JSON in a data block, and the script writes it as text.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::items;
use crate::catalogue::CATALOGUE;
use crate::frame::primary;
use crate::{Report, SourceRoot, Sources};

const PAGE: &str = include_str!("html/page.html");

/// Lines of source shown before and after a frame's own.
const AROUND: u32 = 4;

/// What the script shows.
#[derive(Serialize)]
struct Data<'a> {
    report: &'a Report,
    sources: BTreeMap<&'a str, BTreeMap<u32, String>>,
    root: &'a str,
    kinds: BTreeMap<&'static str, Kind>,
}

/// What the catalogue says of a kind.
#[derive(Serialize)]
struct Kind {
    title: &'static str,
    cause: &'static str,
    remedy: &'static str,
}

/// The page.
pub(super) fn page(report: &Report, root: &SourceRoot) -> String {
    let kinds = CATALOGUE
        .iter()
        .map(|entry| (entry.id, Kind { title: entry.title, cause: entry.cause, remedy: entry.remedy }))
        .collect();
    let data = Data { report, sources: sources(report), root: root.path(), kinds };
    // Maps of strings and plain structs serialize without fail. The end of the data block cannot come early: no `<`
    // stands in it.
    let data = serde_json::to_string(&data).unwrap_or_default().replace('<', "\\u003c");
    let (head, tail) = PAGE.split_once("{{data}}").unwrap_or((PAGE, ""));
    format!("{head}{data}{tail}")
}

/// For each file, its lines near the places that findings point at, by number.
fn sources(report: &Report) -> BTreeMap<&str, BTreeMap<u32, String>> {
    let mut wanted = BTreeMap::<&str, BTreeSet<u32>>::new();
    for item in items(report) {
        for (_, frames) in item.stacks() {
            let Some(frame) = primary(frames) else { continue };
            if let (Some(file), Some(line)) = (&frame.file, frame.line) {
                let lines = line.saturating_sub(AROUND).max(1)..=line.saturating_add(AROUND);
                wanted.entry(file).or_default().extend(lines);
            }
        }
    }
    let mut files = Sources::default();
    let mut found = BTreeMap::new();
    for (file, numbers) in wanted {
        let lines: BTreeMap<u32, String> = numbers
            .into_iter()
            .filter_map(|number| files.line(file, number).map(|line| (number, line.to_owned())))
            .collect();
        if !lines.is_empty() {
            found.insert(file, lines);
        }
    }
    found
}
