//! The text that people read: each finding as it comes, and one summary.
//!
//! ```text
//! error: write of 4 bytes, 0 bytes past the end of a 40-byte block [heap-buffer-overflow]
//!   --> list.c:7:10
//!    |
//!  7 |     p[10] = 1;
//!    |          ^
//!    = in fill (list.c:7:10)
//!      by main (list.c:12:3)
//!    = allocated by malloc
//!      in main (list.c:11:14)
//!    = note: …
//!    = help: …
//! ```

use std::{collections::BTreeMap, fmt::Write};

use memcheck_model::LeakKind;

use crate::finding::{Finding, Level};
use crate::frame::{Frame, primary};
use crate::leak_record::LeakRecord;
use crate::report::{LossTotal, Report, Verdict};
use crate::source::Sources;
use crate::words::{blocks, bytes, plural, wrap};

/// Whether text has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// For a terminal.
    Ansi,
    /// For files and pipes.
    Plain,
}

#[derive(Clone, Copy)]
enum Style {
    Error,
    Note,
    Frame,
    Bold,
}

/// Frames in a row that may be equal before they are told once.
const MOST_EQUAL: usize = 3;

/// How much of a process's command is shown: compilers and browsers have very long ones.
const MOST_OF_COMMAND: usize = 100;

/// Lays findings out as text.
#[derive(Debug)]
pub struct Text {
    color: Color,
    /// How wide the terminal is, if there is one.
    width: Option<usize>,
    sources: Sources,
    /// Processes that their findings name.
    processes: BTreeMap<u32, String>,
}

impl Text {
    /// Text with or without colours.
    #[must_use]
    pub fn new(color: Color) -> Self {
        Self { color, width: None, sources: Sources::default(), processes: BTreeMap::new() }
    }

    /// Text for a terminal of so many columns: sentences are broken between words.
    #[must_use]
    pub fn with_width(mut self, columns: Option<usize>) -> Self {
        self.width = columns;
        self
    }

    /// From now on the findings of this process say that they are its: it is not the one that was started.
    pub fn name_process(&mut self, pid: u32, command: &[String]) {
        // Scripts are given as arguments: their lines become one.
        let words = command.iter().flat_map(|word| word.split(|c: char| c.is_whitespace() || c.is_control()));
        let mut command = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = command.char_indices().nth(MOST_OF_COMMAND) {
            command.truncate(end);
            command.push('…');
        }
        self.processes.insert(pid, command);
    }

    fn process(&self, text: &mut String, pid: u32) {
        if let Some(command) = self.processes.get(&pid) {
            self.remark(text, "note", &format!("in process {pid} ({command})"));
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Error => "1;31",
            Style::Note => "1;36",
            Style::Frame => "1;34",
            Style::Bold => "1",
        };
        match self.color {
            Color::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
            Color::Plain => text.to_owned(),
        }
    }

    /// One finding.
    pub fn finding(&mut self, finding: &Finding) -> String {
        let level = match finding.severity {
            Level::Error => self.paint(Style::Error, "error"),
            Level::Note => self.paint(Style::Note, "note"),
        };
        let mut text = self.headline(&level, &finding.message, &finding.id);
        self.excerpt(&mut text, &finding.stack);
        self.stack(&mut text, None, &finding.stack);
        let by = |function: Option<&str>| function.map(|name| format!(" by {name}")).unwrap_or_default();
        let block = finding.block.as_ref();
        let (given, taken) = finding.origin_words();
        let allocated = format!("{given}{}", by(block.map(|block| block.allocated_by.as_str())));
        self.stack(&mut text, Some(&allocated), &finding.allocated);
        let freed = format!("{taken}{}", by(block.and_then(|block| block.freed_by.as_deref())));
        self.stack(&mut text, Some(&freed), &finding.freed);
        for note in &finding.notes {
            self.remark(&mut text, "note", note);
        }
        self.process(&mut text, finding.pid);
        self.remark(&mut text, "help", &finding.help);
        text.push('\n');
        text
    }

    /// One loss record.
    pub fn leak(&mut self, leak: &LeakRecord, is_error: bool) -> String {
        let level = if is_error { self.paint(Style::Error, "leak") } else { self.paint(Style::Note, "note") };
        let mut text = self.headline(&level, &leak.message, leak.kind.id());
        self.excerpt(&mut text, &leak.stack);
        self.stack(&mut text, Some("allocated"), &leak.stack);
        if let Some(holding) = leak.holding() {
            let _ = writeln!(text, "   {} {holding}", self.paint(Style::Frame, "="));
        }
        self.process(&mut text, leak.pid);
        self.remark(&mut text, "help", &leak.help);
        text.push('\n');
        text
    }

    /// The end of the report.
    pub fn summary(&mut self, report: &Report) -> String {
        let summary = &report.summary;
        let mut text = String::new();
        let errors = match (summary.errors, summary.contexts) {
            (0, _) => "no errors".to_owned(),
            (1, _) => "1 error".to_owned(),
            (errors, 1) => format!("1 error, seen {errors} times"),
            (errors, contexts) if errors == contexts => plural(errors, "error"),
            (errors, contexts) => format!("{}, seen {errors} times", plural(contexts, "error")),
        };
        let mut line = match (summary.errors, summary.failing_leaks) {
            (_, 0) => errors,
            (0, 1) => "1 leak is an error".to_owned(),
            (0, leaks) => format!("{leaks} leaks are errors"),
            (_, leaks) => format!("{errors}, and {}", plural(leaks, "leak")),
        };
        for kind in LeakKind::ALL {
            let total = summary.leaks.of(kind);
            if total.blocks > 0 {
                let _ =
                    write!(line, "; {} in {} {}", bytes(total.bytes), blocks(total.blocks), leak_state(kind));
            }
        }
        if summary.suppressed > 0 {
            let _ = write!(line, "; {} suppressed", summary.suppressed);
        }
        match report.known() {
            0 => {}
            known => {
                let _ = write!(line, "; {known} known from the baseline");
            }
        }
        let has_failed = summary.verdict == Verdict::Failed;
        // That there are no errors would say the contrary.
        if !has_failed || summary.errors > 0 || summary.failing_leaks > 0 {
            text.push_str(&self.remark_line(&line));
        }
        if has_failed {
            text.push_str(&self.remark_line("the program was not checked"));
        }
        text
    }

    /// A line that is no finding.
    #[must_use]
    pub fn remark_line(&self, line: &str) -> String {
        format!("{} {line}\n", self.paint(Style::Bold, "memcheck:"))
    }

    /// A stack alone.
    pub fn frames(&self, stack: &[Frame]) -> String {
        let mut text = String::new();
        self.stack(&mut text, None, stack);
        text
    }

    /// What the heap did and how much code was checked, for each process.
    pub fn statistics(&mut self, report: &Report) -> String {
        let mut text = String::new();
        for process in &report.processes {
            let (heap, coverage) = (&process.heap, &process.coverage);
            let _ = writeln!(
                text,
                "process {} ({}): {} and {}, {} in all, {} at most at once; in use at the end: {} in {}",
                process.pid,
                process.command.first().map_or("?", String::as_str),
                plural(heap.allocs, "allocation"),
                plural(heap.frees, "free"),
                bytes(heap.allocated_bytes),
                bytes(heap.peak_bytes),
                bytes(heap.in_use_bytes),
                blocks(heap.in_use_blocks),
            );
            if heap.library_blocks > 0 {
                let _ = writeln!(
                    text,
                    "  kept by the C and C++ runtime libraries for themselves: {} in {}",
                    bytes(heap.library_bytes),
                    blocks(heap.library_blocks),
                );
            }
            if !coverage.access_checks {
                let _ = writeln!(text, "  accesses were not checked at the instruction");
                continue;
            }
            let _ = writeln!(
                text,
                "  checked: {} ({}) of {} in {} ({}); the others were not called",
                plural(coverage.functions_checked, "function"),
                bytes(coverage.bytes_checked),
                coverage.functions,
                plural(coverage.modules, "module"),
                bytes(coverage.bytes),
            );
            if coverage.functions_native > 0 {
                let _ = writeln!(
                    text,
                    "  not checked: {} ({})",
                    plural(coverage.functions_native, "function"),
                    bytes(coverage.bytes_native),
                );
            }
            for (reason, count) in &coverage.native_reasons {
                let _ = writeln!(text, "    {count} {reason}");
            }
            if coverage.functions_short > 0 {
                let _ = writeln!(
                    text,
                    "  checked only when called directly: {}, too short for a jump",
                    plural(coverage.functions_short, "function"),
                );
            }
            let _ = writeln!(
                text,
                "  memory operands: {} checked, {} not",
                coverage.accesses_checked, coverage.accesses_unchecked,
            );
            for (name, count) in &coverage.syscalls_unchecked {
                let _ = writeln!(text, "  system call not checked: {name}, {}", plural(*count, "time"));
            }
        }
        text
    }

    fn headline(&self, level: &str, message: &str, id: &str) -> String {
        format!("{level}{} [{id}]\n", self.paint(Style::Bold, &format!(": {message}")))
    }

    /// The source line of the frame that a reader wants to see first.
    fn excerpt(&mut self, text: &mut String, stack: &[Frame]) {
        let Some(frame) = primary(stack) else { return };
        let (Some(file), Some(number)) = (&frame.file, frame.line) else { return };
        let at =
            format!("{file}:{number}{}", frame.column.map(|column| format!(":{column}")).unwrap_or_default());
        let width = number.to_string().len().max(2);
        let _ = writeln!(text, "{:width$}{} {at}", "", self.paint(Style::Frame, "-->"));
        let Some(line) = self.sources.line(file, number).map(str::to_owned) else { return };
        let bar = self.paint(Style::Frame, "|");
        let shown = line.trim_end();
        let _ = writeln!(text, "{:width$} {bar}", "");
        let _ = writeln!(text, "{} {bar} {shown}", self.paint(Style::Frame, &format!("{number:>width$}")));
        // Tabs are kept in the caret's line, so that it stands below its character at any tab width.
        let column =
            frame.column.map_or_else(|| shown.len() - shown.trim_start().len(), |column| column as usize - 1);
        let lead: String = shown.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let _ = writeln!(text, "{:width$} {bar} {lead}{}", "", self.paint(Style::Error, "^"));
    }

    fn stack(&self, text: &mut String, title: Option<&str>, stack: &[Frame]) {
        if stack.is_empty() {
            return;
        }
        let equals = self.paint(Style::Frame, "=");
        if let Some(title) = title {
            let _ = writeln!(text, "   {equals} {title}");
        }
        let lines: Vec<String> = stack.iter().map(describe).collect();
        let mut index = 0;
        for run in lines.chunk_by(|one, next| one == next) {
            // A recursion's many equal frames say it once.
            let shown = if run.len() > MOST_EQUAL { 1 } else { run.len() };
            for line in &run[..shown] {
                let mark = if index == 0 && title.is_none() { equals.as_str() } else { " " };
                let word = if index == 0 { "in" } else { "by" };
                let _ = writeln!(text, "   {mark} {word} {line}");
                index += 1;
            }
            if shown < run.len() {
                let _ = writeln!(text, "     … {} more like it", run.len() - shown);
            }
        }
    }

    fn remark(&self, text: &mut String, word: &str, remark: &str) {
        if !remark.is_empty() {
            let equals = self.paint(Style::Frame, "=");
            let indent = "   = ".len() + word.len() + ": ".len();
            let remark = self.wrap(remark, indent);
            let _ = writeln!(text, "   {equals} {}: {remark}", self.paint(Style::Bold, word));
        }
    }

    /// Breaks a sentence that begins in column `indent` so that each line fits, if its words allow.
    fn wrap(&self, sentence: &str, indent: usize) -> String {
        let most = self.width.and_then(|width| width.checked_sub(indent));
        most.map_or_else(|| sentence.to_owned(), |most| wrap(sentence, most, indent))
    }
}

/// What blocks of this kind are.
fn leak_state(kind: LeakKind) -> &'static str {
    match kind {
        LeakKind::Definite => "definitely lost",
        LeakKind::Indirect => "indirectly lost",
        LeakKind::Possible => "possibly lost",
        LeakKind::Reachable => "still reachable",
    }
}

/// `24 bytes in 1 block definitely lost, last time 16 bytes in 1 block`.
#[must_use]
pub fn total_line(kind: LeakKind, total: LossTotal, before: Option<LossTotal>) -> String {
    let mut line = format!("{} in {} {}", bytes(total.bytes), blocks(total.blocks), leak_state(kind));
    if let Some(before) = before.filter(|&before| before != total) {
        let _ = write!(line, "; last time {} in {}", bytes(before.bytes), blocks(before.blocks));
    }
    line
}

/// `fill (list.c:7:10)`, `free_list (in /lib/libx.so+0x1234)`.
fn describe(frame: &Frame) -> String {
    let function = frame.function.clone().unwrap_or_else(|| frame.pc.to_string());
    match (&frame.file, &frame.module) {
        (Some(file), _) => {
            let mut place = file.rsplit('/').next().unwrap_or(file).to_owned();
            if let Some(line) = frame.line {
                let _ = write!(place, ":{line}");
                if let Some(column) = frame.column {
                    let _ = write!(place, ":{column}");
                }
            }
            format!("{function} ({place})")
        }
        (None, Some(module)) => {
            let offset = frame.offset.map(|offset| format!("+{offset:#x}")).unwrap_or_default();
            format!("{function} (in {module}{offset})")
        }
        (None, None) => function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak_record::Losses;

    fn frame(file: &str, line: u32, column: Option<u32>) -> Frame {
        Frame {
            function: Some("fill".to_owned()),
            file: Some(file.to_owned()),
            line: Some(line),
            column,
            module: Some("/tmp/a.out".to_owned()),
            ..Frame::default()
        }
    }

    #[test]
    fn sentences_are_broken_between_words_on_a_narrow_terminal() {
        let mut text = String::new();
        Text::new(Color::Plain).with_width(Some(30)).remark(
            &mut text,
            "help",
            "free it after its last use, see",
        );
        assert_eq!(text, "   = help: free it after its\n           last use, see\n");
        text.clear();
        Text::new(Color::Plain).with_width(Some(4)).remark(&mut text, "help", "free it");
        assert_eq!(text, "   = help: free it\n");
    }

    #[test]
    fn a_leak_shows_its_line_with_a_caret_and_its_stack() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list.c");
        std::fs::write(&file, "int main(void) {\n\tchar *p = malloc(10);\n}\n").unwrap();
        let file = file.to_str().unwrap();
        let losses = Losses { blocks: 1, bytes: 10, indirect_blocks: 0, indirect_bytes: 0 };
        let record = LeakRecord::new(LeakKind::Definite, losses, 1, vec![frame(file, 2, Some(12))]);
        let text = Text::new(Color::Plain).leak(&record, true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "leak: 10 bytes in 1 block lost: nothing points to it [definite]");
        assert_eq!(lines[1], format!("  --> {file}:2:12"));
        assert_eq!(lines[2..5], ["   |", " 2 | \tchar *p = malloc(10);", "   | \t          ^"]);
        assert_eq!(lines[5..7], ["   = allocated", "     in fill (list.c:2:12)"]);
    }

    #[test]
    fn findings_of_other_processes_say_whose_they_are() {
        let losses = Losses { blocks: 1, bytes: 10, indirect_blocks: 0, indirect_bytes: 0 };
        let record =
            |pid| LeakRecord::new(LeakKind::Definite, losses, pid, vec![frame("/no/such.c", 3, None)]);
        let mut text = Text::new(Color::Plain);
        text.name_process(8, &["./b".to_owned(), "-x\n  1".to_owned()]);
        assert!(text.leak(&record(8), true).contains("   = note: in process 8 (./b -x 1)\n"));
        assert!(!text.leak(&record(7), true).contains("process"));
    }

    #[test]
    fn equal_frames_of_a_recursion_are_told_once() {
        let losses = Losses { blocks: 1, bytes: 10, indirect_blocks: 0, indirect_bytes: 0 };
        let mut stack = vec![frame("/no/such.c", 3, None)];
        stack.extend(vec![frame("/no/such.c", 9, None); 5]);
        stack.extend(vec![frame("/no/such.c", 20, None); 2]);
        let record = LeakRecord::new(LeakKind::Definite, losses, 1, stack);
        let text = Text::new(Color::Plain).leak(&record, true);
        let lines: Vec<&str> = text.lines().skip(3).take(5).collect();
        assert_eq!(
            lines,
            [
                "     in fill (such.c:3)",
                "     by fill (such.c:9)",
                "     … 4 more like it",
                "     by fill (such.c:20)",
                "     by fill (such.c:20)",
            ]
        );
    }

    #[test]
    fn a_missing_source_file_costs_only_its_line() {
        let losses = Losses { blocks: 2, bytes: 10, indirect_blocks: 0, indirect_bytes: 0 };
        let record = LeakRecord::new(LeakKind::Possible, losses, 1, vec![frame("/no/such.c", 3, None)]);
        let text = Text::new(Color::Ansi).leak(&record, false);
        assert!(text.contains("/no/such.c:3") && text.contains("\x1b[1;36mnote"));
    }

    #[test]
    fn the_summary_is_one_line() {
        let mut report = Report::new(vec!["a.out".to_owned()]);
        report.summarize(&[]);
        assert_eq!(Text::new(Color::Plain).summary(&report), "memcheck: no errors\n");
        report.summary.failing_leaks = 1;
        report.summary.leaks.reachable = LossTotal { blocks: 2, bytes: 20 };
        assert_eq!(
            Text::new(Color::Plain).summary(&report),
            "memcheck: 1 leak is an error; 20 bytes in 2 blocks still reachable\n"
        );
        report.summary.leaks.reachable = LossTotal::default();
        report.summary.errors = 5;
        report.summary.contexts = 2;
        report.summary.leaks.definite.blocks = 1;
        report.summary.leaks.definite.bytes = 10;
        assert_eq!(
            Text::new(Color::Plain).summary(&report),
            "memcheck: 2 errors, seen 5 times, and 1 leak; 10 bytes in 1 block definitely lost\n"
        );
    }
}
