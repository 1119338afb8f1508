//! The text report as it grows: standard error, or a log file.

use std::{
    fs::File,
    io::{self, Write},
};

use memcheck_report::{Finding, Frame, LeakRecord, Report};

use crate::findings::Display;

/// Where text goes. What cannot be written is dropped: there is nowhere else to say so.
pub struct TextLog {
    output: Output,
}

/// The two kinds of places.
enum Output {
    Stderr,
    File(File),
}

impl TextLog {
    /// Standard error, or the log file.
    pub fn new(file: Option<File>) -> Self {
        Self { output: file.map_or(Output::Stderr, Output::File) }
    }

    /// Writes in one piece, so that lines of other processes do not come between.
    fn write(&mut self, text: &str) {
        let _ = match &mut self.output {
            Output::Stderr => io::stderr().write_all(text.as_bytes()),
            Output::File(file) => file.write_all(text.as_bytes()),
        };
    }

    /// The end of the report.
    pub fn summary(&mut self, report: &Report) {
        let summary = &report.summary;
        self.write(&format!("memcheck: {} errors from {} contexts\n", summary.errors, summary.contexts));
    }
}

fn stack(title: &str, frames: &[Frame]) -> String {
    let mut text = String::new();
    if !frames.is_empty() {
        text.push_str(&format!("  {title}:\n"));
    }
    for frame in frames {
        text.push_str(&format!("    {} {:?} {:?}\n", frame.pc, frame.module, frame.function));
    }
    text
}

impl Display for TextLog {
    fn finding(&mut self, finding: &Finding) {
        let mut text = format!("{}: {}\n", finding.id, finding.message);
        text.push_str(&stack("at", &finding.stack));
        text.push_str(&stack("allocated", &finding.allocated));
        text.push_str(&stack("freed", &finding.freed));
        self.write(&text);
    }

    fn leak(&mut self, leak: &LeakRecord) {
        self.write(&format!("{}: {}\n{}", leak.kind.id(), leak.message, stack("allocated", &leak.stack)));
    }

    fn rule(&mut self, rule: &str) {
        self.write(rule);
    }

    fn remark(&mut self, remark: &str) {
        self.write(&format!("memcheck: {remark}\n"));
    }
}
