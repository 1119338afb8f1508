//! The formats that a stored or finished report converts to.
//!
//! Invariant: every function here is pure over a [`Report`], the text format apart, which shows lines of the source
//! files that exist where it runs.

mod github;
mod gitlab;
mod junit;
mod lines;
mod sarif;
mod valgrind_xml;

use crate::frame::primary;
use crate::{Color, Finding, Frame, LeakRecord, Level, Report, SCHEMA, Text};

/// A way to write a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For people, as on the terminal.
    Text,
    /// The contract: docs/report-schema.json.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit's XML, for test reports.
    Junit,
    /// GitLab's Code Quality.
    Gitlab,
    /// GitHub's workflow commands, which annotate lines.
    Github,
    /// `file:line:col: error: text [id]`, for editors.
    Lines,
    /// Valgrind's XML, protocol 4.
    ValgrindXml,
}

/// A stored report that cannot be used.
#[derive(Debug)]
pub enum ReadError {
    /// No JSON, or not of a report's shape.
    Shape(serde_json::Error),
    /// A report of another version.
    Schema(String),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shape(error) => write!(f, "no memcheck report: {error}"),
            Self::Schema(schema) => write!(
                f,
                "report of schema {schema:?}, this version reads {SCHEMA:?}: convert it with the version that wrote it"
            ),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Shape(error) => Some(error),
            Self::Schema(_) => None,
        }
    }
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 8] = [
        Self::Text,
        Self::Json,
        Self::Sarif,
        Self::Junit,
        Self::Gitlab,
        Self::Github,
        Self::Lines,
        Self::ValgrindXml,
    ];

    /// The word for it on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Sarif => "sarif",
            Self::Junit => "junit",
            Self::Gitlab => "gitlab",
            Self::Github => "github",
            Self::Lines => "lines",
            Self::ValgrindXml => "xml",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The report in this format.
    #[must_use]
    pub fn render(self, report: &Report) -> String {
        match self {
            Self::Text => text(report),
            Self::Json => pretty(report),
            Self::Sarif => pretty(&sarif::log(report)),
            Self::Junit => junit::document(report),
            Self::Gitlab => pretty(&gitlab::issues(report)),
            Self::Github => github::commands(report),
            Self::Lines => lines::lines(report),
            Self::ValgrindXml => valgrind_xml::document(report),
        }
    }
}

/// Reads a stored report.
///
/// # Errors
/// When it is no report, or one of another version.
pub fn read(json: &[u8]) -> Result<Report, ReadError> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(ReadError::Shape)?;
    if let Some(schema) = value.get("schema").and_then(|schema| schema.as_str())
        && schema != SCHEMA
    {
        return Err(ReadError::Schema(schema.to_owned()));
    }
    serde_json::from_value(value).map_err(ReadError::Shape)
}

fn pretty(value: &impl serde::Serialize) -> String {
    // Maps of strings and plain structs serialize without fail.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

fn text(report: &Report) -> String {
    let mut renderer = Text::new(Color::Plain);
    let mut text = String::new();
    for item in items(report) {
        text.push_str(&match item {
            Item::Error(finding) => renderer.finding(finding),
            Item::Leak(leak) => renderer.leak(leak, item.level() == Level::Error),
        });
        text.push('\n');
    }
    text + &renderer.summary(report)
}

/// An error or a leak, for formats that treat them alike.
#[derive(Clone, Copy)]
enum Item<'a> {
    Error(&'a Finding),
    Leak(&'a LeakRecord),
}

fn items(report: &Report) -> impl Iterator<Item = Item<'_>> {
    report.errors.iter().map(Item::Error).chain(report.leaks.iter().map(Item::Leak))
}

impl<'a> Item<'a> {
    fn id(self) -> &'a str {
        match self {
            Self::Error(finding) => &finding.id,
            Self::Leak(leak) => leak.kind.id(),
        }
    }

    /// Leaks of the kinds that count as errors unless options say otherwise.
    fn level(self) -> Level {
        use memcheck_model::LeakKind;
        match self {
            Self::Error(finding) => finding.severity,
            Self::Leak(leak) if matches!(leak.kind, LeakKind::Definite | LeakKind::Possible) => Level::Error,
            Self::Leak(_) => Level::Note,
        }
    }

    fn message(self) -> &'a str {
        match self {
            Self::Error(finding) => &finding.message,
            Self::Leak(leak) => &leak.message,
        }
    }

    fn help(self) -> &'a str {
        match self {
            Self::Error(finding) => &finding.help,
            Self::Leak(leak) => &leak.help,
        }
    }

    fn fingerprint(self) -> &'a str {
        match self {
            Self::Error(finding) => &finding.fingerprint,
            Self::Leak(leak) => &leak.fingerprint,
        }
    }

    fn stack(self) -> &'a [Frame] {
        match self {
            Self::Error(finding) => &finding.stack,
            Self::Leak(leak) => &leak.stack,
        }
    }

    /// The stacks with their titles, the item's own first.
    fn stacks(self) -> Vec<(&'static str, &'a [Frame])> {
        match self {
            Self::Error(finding) => {
                let stacks =
                    [("stack", &finding.stack), ("allocated", &finding.allocated), ("freed", &finding.freed)];
                stacks
                    .into_iter()
                    .filter(|(_, frames)| !frames.is_empty())
                    .map(|(title, frames)| (title, frames.as_slice()))
                    .collect()
            }
            Self::Leak(leak) => vec![("allocated", &leak.stack)],
        }
    }

    fn location(self) -> Option<(&'a str, &'a Frame)> {
        let frame = primary(self.stack())?;
        Some((frame.file.as_deref()?, frame))
    }
}

/// `fill (list.c:7)` or `fill (in libx.so)`, for formats that hold text only.
fn frame_line(frame: &Frame) -> String {
    let function = frame.function.clone().unwrap_or_else(|| frame.pc.to_string());
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{function} ({file}:{line})"),
        (_, _, Some(module)) => format!("{function} (in {module})"),
        _ => function,
    }
}

/// The item and its stacks as plain lines.
fn plain(item: Item<'_>) -> String {
    let mut text = format!("{}\n", item.message());
    for (title, frames) in item.stacks() {
        text.push_str(&format!("{title}:\n"));
        for frame in frames {
            text.push_str(&format!("    {}\n", frame_line(frame)));
        }
    }
    if let Item::Error(finding) = item {
        for note in &finding.notes {
            text.push_str(&format!("note: {note}\n"));
        }
    }
    text.push_str(&format!("help: {}\n", item.help()));
    text
}

/// A path as it is in the repository: relative where it lies below the working directory's or is relative already.
fn relative(file: &str) -> &str {
    file.strip_prefix("./").unwrap_or(file)
}
