//! GitLab's Code Quality report (docs: "Code Quality", section "Code Quality report format").

use serde_json::{Value, json};

use super::{items, relative};
use crate::{Level, Report};

/// The array of issues. Two findings of one fingerprint are one issue to GitLab: later ones bear a number.
pub(super) fn issues(report: &Report) -> Value {
    let mut seen = std::collections::HashMap::<&str, u32>::new();
    items(report)
        .map(|item| {
            let times = seen.entry(item.fingerprint()).or_default();
            *times += 1;
            let fingerprint = match *times {
                1 => item.fingerprint().to_owned(),
                number => format!("{}-{number}", item.fingerprint()),
            };
            let (path, line) = match item.location() {
                Some((file, frame)) => (relative(file), frame.line.unwrap_or(1)),
                None => (report.command.first().map_or("program", String::as_str), 1),
            };
            json!({
                "description": format!("{} ({})", item.message(), item.help()),
                "check_name": item.id(),
                "fingerprint": fingerprint,
                "severity": if item.level() == Level::Error { "critical" } else { "info" },
                "location": { "path": path, "lines": { "begin": line } },
            })
        })
        .collect()
}
