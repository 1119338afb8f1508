//! The JSON report, as a reader that knows only its documented shape sees it.

use serde::Deserialize;

/// A whole report.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub schema: String,
    pub processes: Vec<Process>,
    pub errors: Vec<Error>,
    pub leaks: Vec<Leak>,
    pub summary: Summary,
}

/// One process of the tree.
#[derive(Debug, Deserialize)]
pub struct Process {
    pub pid: i64,
    pub heap: HeapUse,
    pub exit: Option<serde_json::Value>,
}

/// What its heap did.
#[derive(Debug, Deserialize)]
pub struct HeapUse {
    pub in_use_bytes: u64,
}

/// One finding that is no leak.
#[derive(Debug, Deserialize)]
pub struct Error {
    pub id: String,
    pub message: String,
    pub count: u64,
    pub access: Option<Access>,
    pub block: Option<Block>,
    pub stack: Vec<Frame>,
    #[serde(default)]
    pub allocated: Vec<Frame>,
    #[serde(default)]
    pub freed: Vec<Frame>,
}

/// What the program did.
#[derive(Debug, Deserialize)]
pub struct Access {
    pub op: String,
    pub size: i64,
}

/// The block of the heap that a finding is about.
#[derive(Debug, Deserialize)]
pub struct Block {
    pub size: i64,
    pub offset: i64,
    pub state: String,
}

/// One frame of a stack.
#[derive(Debug, Deserialize)]
pub struct Frame {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// One loss record.
#[derive(Debug, Deserialize)]
pub struct Leak {
    pub pid: i64,
    pub kind: String,
    pub blocks: i64,
    pub bytes: i64,
    pub stack: Vec<Frame>,
}

/// The summary.
#[derive(Debug, Deserialize)]
pub struct Summary {
    pub verdict: String,
}

impl Report {
    /// Reads a report that must be complete.
    pub fn parse(text: &str) -> Result<Self, String> {
        let report: Self =
            serde_json::from_str(text).map_err(|e| format!("the JSON report is not valid: {e}"))?;
        if report.schema == "memcheck-report/1" {
            Ok(report)
        } else {
            Err(format!("the JSON report has schema {}", report.schema))
        }
    }

    /// Fails unless nothing was found that counts as an error.
    pub fn must_be_clean(&self) -> Result<(), String> {
        if self.errors.is_empty() && self.summary.verdict == "clean" {
            return Ok(());
        }
        let leaks: Vec<_> =
            self.leaks.iter().filter(|leak| matches!(&*leak.kind, "definite" | "possible")).collect();
        let errors: Vec<_> = self.errors.iter().map(Error::describe).collect();
        let leaks: Vec<_> = leaks.iter().map(|leak| leak.describe()).collect();
        Err(format!("verdict {}: {} {}", self.summary.verdict, errors.join("; "), leaks.join("; ")))
    }
}

impl Error {
    /// One line for a failed test.
    pub fn describe(&self) -> String {
        format!("{} x{} ({}) at {}", self.id, self.count, self.message, describe(&self.stack))
    }
}

impl Leak {
    /// One line for a failed test.
    pub fn describe(&self) -> String {
        format!("{} leak of {} in {} at {}", self.kind, self.bytes, self.blocks, describe(&self.stack))
    }
}

/// The line of the innermost frame in `file`.
pub fn line_in(stack: &[Frame], file: &str) -> Option<u32> {
    stack.iter().find(|frame| frame.file.as_deref().is_some_and(|path| path.ends_with(file)))?.line
}

fn describe(stack: &[Frame]) -> String {
    let frame = |frame: &Frame| {
        let function = frame.function.as_deref().unwrap_or("?");
        let file = frame.file.as_deref().unwrap_or("?").rsplit('/').next().unwrap_or_default();
        format!("{function}({file}:{})", frame.line.unwrap_or_default())
    };
    stack.iter().take(6).map(frame).collect::<Vec<_>>().join(" < ")
}
