//! The text report as it grows: on standard error, or in a log file.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
};

use memcheck_model::SearchScope;
use memcheck_report::{Color, Finding, Frame, Report, SourceRoot, Text, one_line};
use terminal_size::{Width, terminal_size_of};

use crate::{
    demand::{Found, Loss},
    findings::{Display, Ended, Occurrence},
    flags::{ColorFlag, LogFormat},
    tree::Watched,
};

/// Where text goes. What standard error does not take is dropped: there is nowhere else to say so.
pub struct TextLog {
    output: Output,
    /// Whether the log file did not take some of it.
    is_cut: bool,
    text: Text,
    manner: Manner,
    root: SourceRoot,
    /// The process that was started.
    main: u32,
}

/// How the text is.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub color: ColorFlag,
    pub format: LogFormat,
    /// Whether only findings are shown.
    pub is_quiet: bool,
}

/// The two kinds of places.
enum Output {
    Stderr,
    File(File),
}

impl TextLog {
    /// Standard error, or the log file.
    pub fn new(file: Option<File>, manner: Manner, root: SourceRoot, main: u32) -> Self {
        // https://no-color.org: set and not empty.
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_colored = match manner.color {
            ColorFlag::Always => true,
            ColorFlag::Never => false,
            ColorFlag::Auto => file.is_none() && io::stderr().is_terminal() && !is_unwanted,
        };
        let terminal = terminal_size_of(io::stderr()).filter(|_| file.is_none());
        let text = Text::new(if is_colored { Color::Ansi } else { Color::Plain })
            .with_width(terminal.map(|(Width(columns), _)| columns.into()));
        Self { output: file.map_or(Output::Stderr, Output::File), is_cut: false, text, manner, root, main }
    }

    /// Writes in one piece, so that lines of other processes do not come between.
    fn write(&mut self, text: &str) {
        let written = match &mut self.output {
            Output::Stderr => return drop(io::stderr().write_all(text.as_bytes())),
            Output::File(file) => file.write_all(text.as_bytes()),
        };
        if let (Err(error), false) = (written, self.is_cut) {
            self.is_cut = true;
            eprintln!("memcheck: cannot write the log file: {error}");
        }
    }
}

/// A text report that grows while the program runs, and then ends.
pub trait Log: Display {
    /// The end of the report.
    fn summary(&mut self, report: &Report);
    /// What the heap did and how much code was checked.
    fn statistics(&mut self, report: &Report);
    /// The suppressions that were used.
    fn suppressed(&mut self, report: &Report);
    /// The suppressions that should go.
    fn stale(&mut self, report: &Report);
    /// Something that goes wrong, also when findings alone are wanted.
    fn failure(&mut self, reason: &str);
    /// Something to know about the run.
    fn notice(&mut self, remark: &str);
    /// Whether the report has less than it should.
    fn is_cut(&self) -> bool {
        false
    }
}

impl Log for TextLog {
    fn summary(&mut self, report: &Report) {
        if !self.manner.is_quiet {
            let text = self.text.summary(report);
            self.write(&text);
        }
    }

    fn statistics(&mut self, report: &Report) {
        let text = self.text.statistics(report);
        self.write(&text);
    }

    fn suppressed(&mut self, report: &Report) {
        for used in &report.suppressed {
            let place = match (&used.file, used.line) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                _ => "built in".to_owned(),
            };
            let times = if used.count == 1 { "once".to_owned() } else { format!("{} times", used.count) };
            self.write(&format!("suppressed {times}: {} ({place})\n", used.name));
        }
    }

    fn stale(&mut self, report: &Report) {
        for rule in &report.stale {
            self.write(&format!(
                "stale suppression: {} ({}:{}): {}\n",
                rule.name, rule.file, rule.line, rule.why
            ));
        }
    }

    fn failure(&mut self, reason: &str) {
        self.write(&format!("memcheck: {reason}\n"));
    }

    fn notice(&mut self, remark: &str) {
        if !self.manner.is_quiet {
            self.write(&format!("memcheck: {remark}\n"));
        }
    }

    fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl Display for TextLog {
    fn about(&mut self, process: &Watched) {
        if process.pid != self.main {
            self.text.name_process(process.pid, &process.words());
        }
    }

    fn finding(&mut self, finding: &Finding, _occurrence: &Occurrence<'_>) {
        let text = match self.manner.format {
            LogFormat::Text => self.text.finding(finding),
            LogFormat::Oneline => one_line::finding(finding, &self.root),
        };
        self.write(&text);
    }

    fn leak(&mut self, loss: &Loss) {
        let text = match self.manner.format {
            LogFormat::Text => self.text.leak(&loss.record, loss.is_error),
            LogFormat::Oneline => one_line::leak(&loss.record, loss.is_error, &self.root),
        };
        self.write(&text);
    }

    fn rule(&mut self, _pid: u32, rule: &str) {
        self.write(rule);
    }

    fn remark(&mut self, process: &Watched, remark: &str) {
        self.notice(&format!("process {} ({}): {remark}", process.pid, process.name()));
    }

    fn searched(&mut self, process: &Watched, _scope: SearchScope, found: &Found) {
        self.write(&found.tell(process, Color::Plain));
    }

    fn message(&mut self, process: &Watched, text: &str, stack: &[Frame]) {
        let mut message = format!("program {}: {}\n", process.pid, text.trim_end_matches('\n'));
        message.push_str(&self.text.frames(stack));
        self.write(&message);
    }

    fn ended(&mut self, _ended: &Ended<'_>) {}
}
