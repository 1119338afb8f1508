//! GitLab's Code Quality report (docs: "Code Quality", section "Code Quality report format").

use std::collections::HashMap;

use serde_json::{Value, json};

use super::items;
use crate::{Level, Report, SourceRoot};

/// The array of issues. Two findings of one fingerprint are one issue to GitLab: later ones bear a number.
pub(super) fn issues(report: &Report, root: &SourceRoot) -> Value {
    let mut seen = HashMap::<&str, u32>::new();
    items(report)
        .map(|item| {
            let times = seen.entry(item.fingerprint()).or_default();
            *times += 1;
            let fingerprint = match *times {
                1 => item.fingerprint().to_owned(),
                number => format!("{}-{number}", item.fingerprint()),
            };
            let (path, line) = item.place(report);
            json!({
                "description": format!("{} ({})", item.message(), item.help()),
                "check_name": item.id(),
                "fingerprint": fingerprint,
                "severity": if item.level() == Level::Error { "critical" } else { "info" },
                "location": { "path": root.relative(path), "lines": { "begin": line } },
            })
        })
        .collect()
}
