//! The formats that a stored or finished report converts to.
//!
//! Invariant: every function here is pure over a [`Report`], text and HTML apart, which show lines of the source files
//! that exist where they run.

mod code_quality;
pub(crate) mod github;
mod html;
mod junit;
pub mod one_line;
mod sarif;
mod valgrind_xml;

use crate::frame::primary;
use crate::{Color, Finding, Frame, LeakRecord, Level, Report, SCHEMA, SourceRoot, Text};

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
    CodeQuality,
    /// GitHub's workflow commands, which annotate lines.
    Github,
    /// `file:line:col: error: text [id]`, for editors.
    OneLine,
    /// One page for a browser, which needs nothing else.
    Html,
    /// Valgrind's XML.
    ValgrindXml(Protocol),
}

/// A version of Valgrind's XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// What every reader knows.
    Four,
    /// With errors of file descriptors.
    Five,
    /// With summaries, and kinds for bad sizes and alignments.
    Six,
}

impl Protocol {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::Four, Self::Five, Self::Six];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Four => "4",
            Self::Five => "5",
            Self::Six => "6",
        }
    }
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
    pub const ALL: [Self; 11] = [
        Self::Text,
        Self::Json,
        Self::Sarif,
        Self::Junit,
        Self::CodeQuality,
        Self::Github,
        Self::OneLine,
        Self::Html,
        Self::ValgrindXml(Protocol::Four),
        Self::ValgrindXml(Protocol::Five),
        Self::ValgrindXml(Protocol::Six),
    ];

    /// The word for it on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Sarif => "sarif",
            Self::Junit => "junit",
            Self::CodeQuality => "codequality",
            Self::Github => "github",
            Self::OneLine => "oneline",
            Self::Html => "html",
            Self::ValgrindXml(Protocol::Four) => "xml",
            Self::ValgrindXml(Protocol::Five) => "xml-5",
            Self::ValgrindXml(Protocol::Six) => "xml-6",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The report in this format, with source paths relative to `root` where others resolve them.
    #[must_use]
    pub fn render(self, report: &Report, root: &SourceRoot) -> String {
        match self {
            Self::Text => text(report),
            Self::Json => pretty(report),
            Self::Sarif => sarif::log(report, root),
            Self::Junit => junit::document(report, root),
            Self::CodeQuality => pretty(&code_quality::issues(report, root)),
            Self::Github => github::commands(report, root),
            Self::OneLine => one_line::lines(report, root),
            Self::Html => html::page(report, root),
            Self::ValgrindXml(protocol) => valgrind_xml::document(report, protocol),
        }
    }
}

/// Reads a stored report.
///
/// # Errors
/// When it is no report, or one of another version.
pub fn read(json: &[u8]) -> Result<Report, ReadError> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema: String,
    }
    serde_json::from_slice::<Report>(json).map_err(ReadError::Shape).and_then(of_this_version).map_err(
        |error| {
            // A report of another version may have another shape: its version is the better reason.
            match serde_json::from_slice::<Version>(json) {
                Ok(Version { schema }) if schema != SCHEMA => ReadError::Schema(schema),
                _ => error,
            }
        },
    )
}

fn of_this_version(report: Report) -> Result<Report, ReadError> {
    if report.schema == SCHEMA { Ok(report) } else { Err(ReadError::Schema(report.schema)) }
}

fn pretty(value: &impl serde::Serialize) -> String {
    // Maps of strings and plain structs serialize without fail.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

fn text(report: &Report) -> String {
    let mut renderer = Text::new(Color::Plain);
    let started = report.processes.first().map(|process| process.pid);
    for process in report.processes.iter().filter(|process| Some(process.pid) != started) {
        renderer.name_process(process.pid, &process.command);
    }
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

    fn pid(self) -> u32 {
        match self {
            Self::Error(finding) => finding.pid,
            Self::Leak(leak) => leak.pid,
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

    /// The innermost module that is known.
    fn module(self) -> Option<&'a str> {
        self.stack().iter().find_map(|frame| frame.module.as_deref())
    }

    /// A file and a line in any case, for formats that must have one: without a source line, the program's first.
    fn place(self, report: &'a Report) -> (&'a str, u32) {
        match self.location() {
            Some((file, frame)) => (file, frame.line.unwrap_or(1)),
            None => (self.module().or(report.command.first().map(String::as_str)).unwrap_or("program"), 1),
        }
    }
}

/// `fill (list.c:7)` or `fill (in libx.so)`, for formats that hold text only.
fn frame_line(frame: &Frame, root: &SourceRoot) -> String {
    let function = frame.function.clone().unwrap_or_else(|| frame.pc.to_string());
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{function} ({}:{line})", root.relative(file)),
        (_, _, Some(module)) => format!("{function} (in {module})"),
        _ => function,
    }
}

/// The item and its stacks as plain lines.
fn plain(item: Item<'_>, root: &SourceRoot) -> String {
    let mut text = format!("{}\n", item.message());
    for (title, frames) in item.stacks() {
        text.push_str(&format!("{title}:\n"));
        for frame in frames {
            text.push_str(&format!("    {}\n", frame_line(frame, root)));
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
