//! SARIF 2.1.0 (OASIS standard, `sarif-schema-2.1.0.json`), within the limits that GitHub's code scanning sets.
//!
//! Rules come from the catalogue, with help and CWE tags; allocation and free are related locations; every stack is a
//! stack of the result, the innermost path also a code flow from `main` to the defect.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Item, frame_line, items};
use crate::catalogue::CATALOGUE;
use crate::{Frame, Level, Report, SourceRoot, Verdict};

/// What GitHub takes of one run.
const MOST_RESULTS: usize = 25_000;

/// The log as compact JSON. Its results are made one after the other, as they are written: all at once they take many
/// times the memory of the report.
pub(super) fn log(report: &Report, root: &SourceRoot) -> String {
    let run = Run { head: head(report, root), results: Results { report, root } };
    let log = Log { schema: "https://json.schemastore.org/sarif-2.1.0.json", version: "2.1.0", runs: [run] };
    // Maps of strings and plain structs serialize without fail.
    serde_json::to_string(&log).map(|text| text + "\n").unwrap_or_default()
}

#[derive(Serialize)]
struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'a>; 1],
}

#[derive(Serialize)]
struct Run<'a> {
    #[serde(flatten)]
    head: Value,
    results: Results<'a>,
}

struct Results<'a> {
    report: &'a Report,
    root: &'a SourceRoot,
}

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let items = items(self.report).take(MOST_RESULTS);
        to.collect_seq(items.map(|item| result(item, self.report, self.root)))
    }
}

/// Everything of a run but its results.
fn head(report: &Report, root: &SourceRoot) -> Value {
    let rules: Vec<Value> = CATALOGUE
        .iter()
        .map(|entry| {
            let mut tags = vec![json!("memory-safety")];
            tags.extend(entry.cwe.iter().map(|number| json!(format!("external/cwe/cwe-{number:03}"))));
            json!({
                "id": entry.id,
                "name": entry.id,
                "shortDescription": { "text": entry.title },
                "fullDescription": { "text": entry.cause },
                "help": {
                    "text": format!("{}\n\nWhat to try: {}\n\nExample:\n\n{}", entry.cause, entry.remedy, entry.example),
                    "markdown": format!(
                        "{}\n\n**What to try:** {}\n\n```c\n{}```\n", entry.cause, entry.remedy, entry.example
                    ),
                },
                "properties": { "tags": tags, "precision": "very-high", "security-severity": severity(entry.id) },
            })
        })
        .collect();
    let total = items(report).count();
    let notifications: Vec<Value> = (total > MOST_RESULTS)
        .then(|| {
            json!({
                "level": "warning",
                "message": { "text": format!(
                    "{} of {total} findings are left out: a run holds {MOST_RESULTS} results",
                    total - MOST_RESULTS
                ) },
            })
        })
        .into_iter()
        .collect();
    let mut base = json!({ "description": { "text": "the root of the source tree" } });
    if !root.path().is_empty() {
        base["uri"] = json!(format!("file://{}/", encode(root.path())));
    }
    json!({
        "tool": { "driver": {
            "name": report.tool.name,
            "semanticVersion": report.tool.version,
            "rules": rules,
        }},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": { "SRCROOT": base },
        "invocations": [{
            "executionSuccessful": report.summary.verdict != Verdict::Failed,
            "commandLine": report.command.join(" "),
            "arguments": report.command.iter().skip(1).collect::<Vec<_>>(),
            "toolExecutionNotifications": notifications,
        }],
    })
}

/// GitHub's scale: 9 to 10 critical, 7 high, 4 medium, below low.
fn severity(id: &str) -> &'static str {
    match id {
        "heap-buffer-overflow"
        | "heap-use-after-free"
        | "double-free"
        | "stack-buffer-overflow"
        | "global-buffer-overflow"
        | "wild-access" => "9.0",
        "bad-free"
        | "bad-realloc"
        | "syscall-param"
        | "use-of-uninitialised"
        | "alloc-dealloc-mismatch"
        | "forbidden-access" => "7.5",
        "reachable" | "realloc-zero" | "fd-inherited" => "1.0",
        _ => "5.0",
    }
}

fn result(item: Item<'_>, report: &Report, root: &SourceRoot) -> Value {
    let index = CATALOGUE.iter().position(|entry| entry.id == item.id());
    let mut result = json!({
        "ruleId": item.id(),
        "level": if item.level() == Level::Error { "error" } else { "note" },
        "message": { "text": format!("{}. {}", item.message(), item.help()) },
        "partialFingerprints": { "memcheck/v1": item.fingerprint() },
        "stacks": item.stacks().into_iter().map(|(title, frames)| json!({
            "message": { "text": title },
            "frames": frames.iter().map(|frame| stack_frame(frame, root)).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    if let Some(index) = index {
        result["ruleIndex"] = json!(index);
    }
    if let Item::Error(finding) = item {
        result["occurrenceCount"] = json!(finding.count);
    }
    // A result without a place is refused by GitHub: the module stands for what has no source line.
    result["locations"] = json!([match item.location() {
        Some((_, frame)) => location(frame, item.message(), root),
        None => json!({
            "message": { "text": item.message() },
            "physicalLocation": {
                "artifactLocation": artifact(item.place(report).0, root),
                "region": { "startLine": 1 },
            },
        }),
    }]);
    let related =
        item.stacks().into_iter().filter(|(title, _)| *title != "stack").filter_map(|(title, frames)| {
            let frame = crate::frame::primary(frames)?;
            Some(location(frame, &format!("the block was {title} here"), root))
        });
    result["relatedLocations"] = related.collect();
    let steps: Vec<Value> = item
        .stack()
        .iter()
        .rev()
        .filter(|frame| frame.file.is_some() && frame.line.is_some())
        .map(|frame| json!({ "location": location(frame, &frame_line(frame, root), root) }))
        .collect();
    if !steps.is_empty() {
        result["codeFlows"] = json!([{ "threadFlows": [{ "locations": steps }] }]);
    }
    result
}

fn stack_frame(frame: &Frame, root: &SourceRoot) -> Value {
    let mut value = json!({ "location": location(frame, &frame_line(frame, root), root) });
    if let Some(module) = frame.module_name() {
        value["module"] = json!(module);
    }
    value
}

fn location(frame: &Frame, message: &str, root: &SourceRoot) -> Value {
    let mut location = json!({ "message": { "text": message } });
    if let Some(file) = &frame.file {
        let mut physical = json!({ "artifactLocation": artifact(file, root) });
        if let Some(line) = frame.line {
            physical["region"] = json!({ "startLine": line });
            if let Some(column) = frame.column {
                physical["region"]["startColumn"] = json!(column);
            }
        }
        location["physicalLocation"] = physical;
    }
    if let Some(function) = &frame.function {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": function, "kind": "function" }]);
    }
    location
}

fn artifact(file: &str, root: &SourceRoot) -> Value {
    let file = root.relative(file);
    if file.starts_with('/') {
        return json!({ "uri": format!("file://{}", encode(&file)) });
    }
    json!({ "uri": encode(&file), "uriBaseId": "SRCROOT" })
}

/// Percent-encodes what a URI's path must not hold (RFC 3986, section 3.3).
fn encode(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'+' | b'@' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
