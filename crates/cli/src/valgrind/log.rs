//! The text report in Valgrind's shape: each line with the process that it is about, a summary for each process.
//!
//! Invariant: the lines of one error are written in one piece.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::{self, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    time::Instant,
};

use memcheck_model::{ErrorKind, LeakKind, SearchScope};
use memcheck_report::{Finding, Frame, Level, Report};
use memcheck_wire::Counter;

use super::{
    Manner, Sink, VERSION,
    wording::{Frames, change, number},
};
use crate::{
    demand::{Found, Loss, Sum, add},
    destination::Destination,
    findings::{Display, Ended, Occurrence, Tally, sum_up},
    flags::{Flags, LeakCheckFlag, YesNo},
    text_log::Log,
    tree::{End, Watched},
};

/// Said instead of sums when no block is in use.
const NOTHING_IN_USE: &str = "All heap blocks were freed -- no leaks are possible";

/// The text as it grows.
pub struct ValgrindLog {
    /// Where a pattern with `%p` leads for each process.
    pattern: Option<Destination>,
    outputs: HashMap<u32, File>,
    /// Where everything goes when no pattern tells processes apart; none: standard error.
    output: Option<File>,
    manner: Manner,
    frames: Frames,
    start: Instant,
    shown: Shown,
    /// Loss records to be shown when their process has ended.
    losses: BTreeMap<u32, Vec<Waiting>>,
    /// Whether what was told last is a loss record.
    last_is_loss: bool,
    /// Descriptors left open, to be shown when their process has ended.
    descriptors: BTreeMap<u32, Vec<OpenDescriptor>>,
    /// For `-s`: the errors of each process, by their index in the report.
    errors: BTreeMap<u32, Vec<(usize, Vec<String>)>>,
    main: u32,
}

/// A descriptor left open, in Valgrind's order: those that were inherited last, the newest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct OpenDescriptor {
    is_inherited: bool,
    number: Reverse<u64>,
    lines: Vec<String>,
}

/// A loss record that waits for the end of its process.
struct Waiting {
    loss: Loss,
    /// The rule that would keep it out, when that is wanted.
    rule: String,
}

/// What is shown beside the errors.
#[derive(Clone, Copy, Debug)]
struct Shown {
    is_quiet: bool,
    error_list: bool,
    leak_check: LeakCheckFlag,
    exits_on_first_error: bool,
    reachable: bool,
}

/// Opens what the options name beside `--log-file`.
pub fn open_sink(sink: &Sink) -> Result<Option<File>, String> {
    match sink {
        Sink::Default | Sink::Descriptor(2) => Ok(None),
        Sink::Descriptor(number) => OpenOptions::new()
            .append(true)
            .open(format!("/proc/self/fd/{number}"))
            .map(Some)
            .map_err(|error| format!("--log-fd={number}: {error}")),
        Sink::Socket(address) => connect(address).map(Some),
    }
}

/// A connection to who listens at this address.
pub fn connect(address: &str) -> Result<File, String> {
    // Valgrind's own port is 1500.
    let full = if address.contains(':') { address.to_owned() } else { format!("{address}:1500") };
    let stream = TcpStream::connect(&full).map_err(|error| format!("cannot connect to {full}: {error}"))?;
    Ok(File::from(OwnedFd::from(stream)))
}

impl ValgrindLog {
    /// The log of a run whose first process is `main`. `file` is the log file for it, `pattern` where it comes from
    /// when every process has its own.
    pub fn new(
        manner: Manner,
        flags: &Flags,
        main: u32,
        file: Option<File>,
        pattern: Option<Destination>,
    ) -> Self {
        let mut outputs = HashMap::new();
        let mut output = None;
        match file {
            Some(file) if pattern.is_some() => drop(outputs.insert(main, file)),
            file => output = file,
        }
        let frames =
            Frames { full_paths: manner.full_paths.clone(), most: usize::from(flags.num_callers).max(1) };
        let shown = Shown {
            is_quiet: flags.quiet,
            error_list: flags.show_suppressed,
            leak_check: flags.leak_check,
            exits_on_first_error: flags.exit_on_first_error == YesNo::Yes,
            reachable: flags.show_leak_kinds.0.contains(&LeakKind::Reachable),
        };
        Self {
            pattern,
            outputs,
            output,
            manner,
            frames,
            start: Instant::now(),
            shown,
            losses: BTreeMap::new(),
            last_is_loss: false,
            descriptors: BTreeMap::new(),
            errors: BTreeMap::new(),
            main,
        }
    }

    /// What Valgrind says first.
    pub fn banner(&mut self, command: &[String]) {
        let mut lines = Vec::new();
        if !self.shown.is_quiet {
            lines.extend([
                "Memcheck, a memory error detector".to_owned(),
                format!(
                    "Using Valgrind-{VERSION} options and text in memcheck-{}; rerun with -h for its options",
                    env!("CARGO_PKG_VERSION")
                ),
                format!("Command: {}", command.join(" ")),
                String::new(),
            ]);
        }
        let without_effect = std::mem::take(&mut self.manner.without_effect);
        if !without_effect.is_empty() {
            lines.push(format!("Warning: without effect here: {}", without_effect.join(" ")));
        }
        self.say(self.main, &lines);
    }

    fn say(&mut self, pid: u32, lines: &[String]) {
        let stamp = if self.manner.time_stamp {
            let elapsed = self.start.elapsed();
            let seconds = elapsed.as_secs();
            let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
            let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
            format!("{days:02}:{hours:02}:{minutes:02}:{rest:02}.{:03} ", elapsed.subsec_millis())
        } else {
            String::new()
        };
        let text: String = lines.iter().map(|line| format!("=={stamp}{pid}== {line}\n")).collect();
        self.write(pid, &text);
    }

    fn write(&mut self, pid: u32, text: &str) {
        if self.manner.is_xml {
            return;
        }
        if let Some(pattern) = &self.pattern
            && !self.outputs.contains_key(&pid)
            && let Ok(file) = pattern.open(pid)
        {
            self.outputs.insert(pid, file);
        }
        // What cannot be written is dropped: there is nowhere else to say so.
        let _ = match self.outputs.get_mut(&pid).or(self.output.as_mut()) {
            Some(file) => file.write_all(text.as_bytes()),
            None => io::stderr().write_all(text.as_bytes()),
        };
    }

    /// An error's lines, with its markers and the empty line behind.
    fn framed(&self, lines: Vec<String>) -> Vec<String> {
        let (begin, end) = self.manner.markers.clone().unwrap_or_default();
        let marker = |marker: String| (!marker.is_empty()).then_some(marker);
        marker(begin).into_iter().chain(lines).chain([String::new()]).chain(marker(end)).collect()
    }

    /// The sums of the kinds and of what is suppressed.
    fn leak_summary(&self, sums: &[Sum; 4], suppressed: Sum, scope: SearchScope) -> Vec<String> {
        let line = |what: &str, sum: Sum| {
            let before = scope.compares().then_some(sum.before);
            let [bytes, blocks] = [
                (sum.now.bytes, before.map(|before| before.bytes)),
                (sum.now.blocks, before.map(|before| before.blocks)),
            ]
            .map(|(now, before)| format!("{}{}", number(now), change(now, before)));
            format!("{what:>18}: {bytes} bytes in {blocks} blocks")
        };
        let [definite, indirect, possible, reachable] = *sums;
        let mut lines = vec![
            "LEAK SUMMARY:".to_owned(),
            line("definitely lost", definite),
            line("indirectly lost", indirect),
            line("possibly lost", possible),
            line("still reachable", reachable),
            line("suppressed", suppressed),
        ];
        if scope == SearchScope::Sums {
            lines.push("Rerun with --leak-check=full to see details of leaked memory".to_owned());
        } else if reachable.now.blocks > 0 && !self.shown.reachable {
            lines.push("Reachable blocks (those to which a pointer was found) are not shown.".to_owned());
            lines.push("To see them, rerun with: --leak-check=full --show-leak-kinds=all".to_owned());
        }
        lines.push(String::new());
        lines
    }

    /// The sums at the end of a process, without what rules kept out.
    fn sums_at_end(ended: &Ended<'_>) -> ([Sum; 4], Sum) {
        let mut sums = [Sum::default(); 4];
        let mut suppressed = Sum::default();
        let kept_out = ended.tally.suppressed_losses;
        for ((sum, kind), kept_out) in sums.iter_mut().zip(LeakKind::ALL).zip(kept_out) {
            let (blocks, bytes) = sum_up(ended.process.loss_sums.iter().filter(|sum| sum.kind == kind));
            sum.now.blocks = blocks.saturating_sub(kept_out.blocks);
            sum.now.bytes = bytes.saturating_sub(kept_out.bytes);
            add(&mut suppressed.now, kept_out.blocks, kept_out.bytes);
        }
        (sums, suppressed)
    }
}

impl Display for ValgrindLog {
    fn about(&mut self, _process: &Watched) {}

    fn finding(&mut self, finding: &Finding, occurrence: &Occurrence<'_>) {
        self.last_is_loss = false;
        let event = occurrence.event;
        if matches!(event.kind, ErrorKind::FdLeak | ErrorKind::FdInherited) {
            self.descriptors.entry(finding.pid).or_default().push(OpenDescriptor {
                is_inherited: event.kind == ErrorKind::FdInherited,
                number: Reverse(event.address.0),
                lines: self.frames.descriptor(event, finding),
            });
            return;
        }
        let lines = self.frames.error(finding, occurrence);
        if self.shown.error_list {
            self.errors.entry(finding.pid).or_default().push((occurrence.index, lines.clone()));
        }
        let mut lines = self.framed(lines);
        if self.shown.exits_on_first_error && finding.severity == Level::Error {
            lines.push(String::new());
            lines.push("Exit program on first error (--exit-on-first-error=yes)".to_owned());
        }
        self.say(finding.pid, &lines);
    }

    fn leak(&mut self, loss: &Loss) {
        let waiting = Waiting { loss: loss.clone(), rule: String::new() };
        self.losses.entry(loss.record.pid).or_default().push(waiting);
        self.last_is_loss = true;
    }

    fn rule(&mut self, pid: u32, rule: &str) {
        let loss = self.losses.get_mut(&pid).and_then(|losses| losses.last_mut());
        match loss.filter(|_| self.last_is_loss) {
            Some(loss) => loss.rule.push_str(rule),
            None => self.write(pid, rule),
        }
    }

    fn searched(&mut self, process: &Watched, scope: SearchScope, found: &Found) {
        let mut losses: Vec<_> = found.losses.iter().collect();
        // What is gone comes first: its number is from the search before.
        losses.sort_by_key(|loss| (loss.record.blocks > 0, loss.number));
        let record = |loss: &Loss| self.framed(self.frames.leak(loss, scope.compares()));
        let mut lines: Vec<String> = losses.into_iter().flat_map(record).collect();
        if found.sums.iter().chain([&found.suppressed]).all(|sum| sum.now.blocks == 0) {
            lines.extend([NOTHING_IN_USE.to_owned(), String::new()]);
        } else {
            lines.extend(self.leak_summary(&found.sums, found.suppressed, scope));
        }
        self.say(process.pid, &lines);
    }

    fn message(&mut self, process: &Watched, text: &str, stack: &[Frame]) {
        let said = text.trim_end_matches('\n').split('\n');
        let mut lines: Vec<String> = said.map(|line| format!("**{}** {line}\n", process.pid)).collect();
        lines.extend(
            self.frames.stack(None, stack).iter().map(|frame| format!("=={}== {frame}\n", process.pid)),
        );
        self.write(process.pid, &lines.concat());
    }

    fn remark(&mut self, process: &Watched, remark: &str) {
        if !self.shown.is_quiet {
            self.say(process.pid, &[format!("Warning: {remark}")]);
        }
    }

    fn ended(&mut self, ended: &Ended<'_>) {
        let process = ended.process;
        let pid = process.pid;
        // Nobody saw it end: it became a program that is not watched, or was killed.
        if process.end == Some(End::Unknown) && ended.tally.errors == 0 {
            return;
        }
        let mut lines = Vec::new();
        let count = |counter| process.counter(counter);
        if count(Counter::DescriptorsTracked) != 0 {
            let (open, standard) = (count(Counter::OpenDescriptors), count(Counter::StandardDescriptors));
            if !self.shown.is_quiet {
                lines.push(String::new());
            }
            lines.push(format!("FILE DESCRIPTORS: {open} open ({standard} std) at exit."));
            let mut descriptors = self.descriptors.remove(&pid).unwrap_or_default();
            descriptors.sort();
            lines.extend(descriptors.into_iter().flat_map(|open| open.lines));
            lines.push(String::new());
        }
        // Valgrind counts calls that free nothing, and makes the runtime libraries free what they keep for themselves before it looks.
        let library = (count(Counter::LibraryBytes), count(Counter::LibraryBlocks));
        let in_use = (
            count(Counter::InUseBytes).saturating_sub(library.0),
            count(Counter::InUseBlocks).saturating_sub(library.1),
        );
        if !self.shown.is_quiet {
            lines.extend([
                String::new(),
                "HEAP SUMMARY:".to_owned(),
                format!("    in use at exit: {} bytes in {} blocks", number(in_use.0), number(in_use.1)),
                format!(
                    "  total heap usage: {} allocs, {} frees, {} bytes allocated",
                    number(count(Counter::Allocs)),
                    number(count(Counter::Frees) + library.1 + ended.tally.bad_frees),
                    number(count(Counter::AllocatedBytes))
                ),
                String::new(),
            ]);
        }
        let mut losses = self.losses.remove(&pid).unwrap_or_default();
        losses.sort_by_key(|waiting| waiting.loss.number);
        for Waiting { loss, rule } in &losses {
            lines.extend(self.framed(self.frames.leak(loss, false)));
            if !rule.is_empty() {
                self.say(pid, &std::mem::take(&mut lines));
                self.write(pid, rule);
            }
        }
        if !self.shown.is_quiet {
            let is_wanted = self.shown.leak_check != LeakCheckFlag::No;
            if is_wanted && process.loss_sums.is_empty() {
                // No zeros where nobody counted.
                lines.push("Warning: leaks were not searched for".to_owned());
                lines.push(String::new());
            } else if in_use.1 == 0 {
                lines.push(NOTHING_IN_USE.to_owned());
                lines.push(String::new());
            } else if !is_wanted {
                lines.push("For a detailed leak analysis, rerun with: --leak-check=full".to_owned());
                lines.push(String::new());
            } else {
                let is_full = self.shown.leak_check == LeakCheckFlag::Full;
                let scope = if is_full { SearchScope::All } else { SearchScope::Sums };
                let (sums, suppressed) = Self::sums_at_end(ended);
                lines.extend(self.leak_summary(&sums, suppressed, scope));
            }
            if !self.shown.error_list {
                lines.push("For lists of detected and suppressed errors, rerun with: -s".to_owned());
            }
        }
        if !self.shown.is_quiet || self.shown.error_list {
            lines.push(error_summary(&ended.tally));
        }
        if self.shown.error_list {
            let errors = self.errors.remove(&pid).unwrap_or_default();
            let times = |index| ended.counts.get(index).copied().unwrap_or(1);
            let mut errors: Vec<_> =
                errors.iter().map(|(index, error)| (times(index), index, error)).collect();
            // The rarest first, and of these the newest.
            errors.sort_by_key(|&(times, index, _)| (times, Reverse(index)));
            for (place, &(times, _, error)) in (1..).zip(&errors) {
                lines.push(String::new());
                lines.push(format!("{} errors in context {place} of {}:", number(times), errors.len()));
                lines.extend(error.iter().cloned());
                lines.push(String::new());
            }
            if !errors.is_empty() {
                lines.push(error_summary(&ended.tally));
            }
        }
        self.say(pid, &lines);
    }
}

fn error_summary(tally: &Tally) -> String {
    format!(
        "ERROR SUMMARY: {} errors from {} contexts (suppressed: {} from {})",
        number(tally.errors),
        number(tally.contexts),
        number(tally.suppressed),
        number(tally.suppressed_contexts)
    )
}

impl Log for ValgrindLog {
    fn summary(&mut self, _report: &Report) {}

    fn statistics(&mut self, report: &Report) {
        let text = memcheck_report::Text::new(memcheck_report::Color::Plain).statistics(report);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        self.say(self.main, &lines);
    }

    fn suppressed(&mut self, report: &Report) {
        for used in &report.suppressed {
            let place = match (&used.file, used.line) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                _ => "default.supp".to_owned(),
            };
            let pid = self.main;
            self.write(
                pid,
                &format!("--{pid}-- used_suppression: {:>6} {} {place}\n", used.count, used.name),
            );
        }
    }

    fn stale(&mut self, report: &Report) {
        for rule in &report.stale {
            let line =
                format!("stale suppression: {} ({}:{}): {}", rule.name, rule.file, rule.line, rule.why);
            self.say(self.main, &[line]);
        }
    }

    fn failure(&mut self, reason: &str) {
        if self.manner.is_xml {
            eprintln!("memcheck: {reason}");
        }
        self.say(self.main, &[format!("memcheck: {reason}")]);
    }

    fn notice(&mut self, remark: &str) {
        if !self.shown.is_quiet {
            self.say(self.main, &[format!("Warning: {remark}")]);
        }
    }
}
