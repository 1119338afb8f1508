//! Making findings of events, keeping suppressed ones out, showing each at once, and keeping all for the reports.
//!
//! In: events of watched processes. Out: each finding to a [`Display`] as it comes, the whole [`Report`] in the
//! end.
//!
//! Invariant: a context is counted in one place, the finding it made or the rule that kept it out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use memcheck_model::{
    AddrRange, ErrorEvent, ErrorKind, Function, LeakKind, Pc, Place, RootKind, SearchScope,
};
use memcheck_report::{
    Baseline, Color, Coverage, Exit, Finding, Frame, HeapUse, HeldBy, LeakRecord, Level, LossTotal, Losses,
    NamedAddress, Process, Report, StaleRule, Suppressed, Traces, Trim, Verdict,
};
use memcheck_suppress::{FrameNames, Rule, Stale, Subject, Suppressions};
use memcheck_wire::{Contexts, Counter, LossRecord, NoticeKind, Stream};

use crate::{
    collect::Collector,
    demand::{Found, Loss, Searches, losses},
    names::{NamedFrame, Names, Top},
    own_operators,
    questions::Wanted,
    rare_flags::KeptStacks,
    tree::{End, LossSum, Watched},
};

/// Where findings are shown while the program runs.
pub trait Display {
    /// What comes next is about this process.
    fn about(&mut self, process: &Watched);
    /// A finding that was just made. The thread that erred waits.
    fn finding(&mut self, finding: &Finding, occurrence: &Occurrence<'_>);
    /// A loss record of blocks from this function, which counts as an error or not.
    fn leak(&mut self, loss: &Loss);
    /// A rule that would keep the last finding of the process out.
    fn rule(&mut self, pid: u32, rule: &str);
    /// Something to know about how the process is watched.
    fn remark(&mut self, process: &Watched, remark: &str);
    /// A leak search that the program itself asked for has ended.
    fn searched(&mut self, process: &Watched, scope: SearchScope, found: &Found);
    /// What the program itself wants to be told to the user, with the stack if it wants that.
    fn message(&mut self, process: &Watched, text: &str, stack: &[Frame]);
    /// The process has ended, and not by becoming another program.
    fn ended(&mut self, ended: &Ended<'_>);
}

/// What a finding was made of.
pub struct Occurrence<'a> {
    /// The event.
    pub event: &'a ErrorEvent<'a>,
    /// The variable or function that its address lies in.
    pub named: Option<&'a NamedAddress>,
    /// The frames of the functions that the event names.
    pub functions: &'a Functions,
    /// The finding's index in the report.
    pub index: usize,
}

/// Functions that findings name, by their names.
pub type Functions = BTreeMap<String, Frame>;

/// What a process that has ended amounts to.
pub struct Ended<'a> {
    /// The process.
    pub process: &'a Watched,
    /// How often each of its findings occurred, by their index in the report.
    pub counts: BTreeMap<usize, u64>,
    /// What became of its events.
    pub tally: Tally,
}

/// Sums over a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Occurrences of errors, with loss records that are errors.
    pub errors: u64,
    /// Distinct errors, with loss records that are errors.
    pub contexts: u64,
    /// Occurrences that rules kept out, with loss records.
    pub suppressed: u64,
    /// Distinct errors that rules kept out, with loss records.
    pub suppressed_contexts: u64,
    /// Calls of free and its like, those for pools apart, that freed nothing.
    pub bad_frees: u64,
    /// The blocks of loss records that rules kept out, in the order of `LeakKind::ALL`.
    pub suppressed_losses: [LossTotal; 4],
}

/// How findings are treated.
pub struct Treatment {
    /// Which frames are kept.
    pub trim: Trim,
    /// Whether loss records are wanted at all, or only their sums.
    pub lists_leaks: bool,
    /// Which kinds of loss records are shown.
    pub shown_leaks: Vec<LeakKind>,
    /// Which kinds of loss records are errors.
    pub error_leaks: Vec<LeakKind>,
    /// The rules that keep findings out.
    pub suppressions: Suppressions,
    /// The findings that are known already: kept in the report, but neither shown nor counted as errors.
    pub baseline: Option<Baseline>,
    /// Whether rules that should go count as errors.
    pub stale_is_error: bool,
    /// The kinds of errors that are neither shown nor kept.
    pub hidden: Vec<ErrorKind>,
    /// Which stacks of blocks are kept.
    pub kept_stacks: KeptStacks,
    /// Accesses to these addresses are no errors.
    pub ignored: Vec<AddrRange>,
    /// Whether forked processes are left out until they start a program.
    pub forks_are_silent: bool,
    /// Whether descriptors that are left open are errors; else notes.
    pub open_descriptors_are_errors: bool,
    /// Whether a rule is shown with each finding.
    pub generates_rules: bool,
}

/// What became of a context.
enum Kept {
    /// The finding with this index was made of it.
    Finding(usize),
    /// The suppression with this index in the report keeps it out.
    Suppressed(usize),
}

/// Collects the findings of a run.
pub struct Findings<'a> {
    treatment: Treatment,
    names: Names,
    display: &'a mut dyn Display,
    report: Report,
    /// By serial of the process and index of the context.
    contexts: HashMap<(u32, u32), Kept>,
    /// What the loss records of running processes amount to, by serial.
    tallies: HashMap<u32, Tally>,
    /// What findings of a process name, by serial.
    functions: HashMap<u32, Functions>,
    /// Searches on demand, by serial.
    searches: HashMap<u32, Searches>,
    /// The processes whose heap is not watched.
    unchecked: BTreeSet<u32>,
}

impl<'a> Findings<'a> {
    /// Nothing found yet in a run of `command`.
    pub fn new(
        command: Vec<String>,
        mut treatment: Treatment,
        names: Names,
        display: &'a mut dyn Display,
    ) -> Self {
        let mut report = Report::new(command);
        report.baseline = treatment.baseline.take();
        Self {
            treatment,
            names,
            display,
            report,
            contexts: HashMap::new(),
            tallies: HashMap::new(),
            functions: HashMap::new(),
            searches: HashMap::new(),
            unchecked: BTreeSet::new(),
        }
    }

    /// The report, when all processes have ended or are watched no longer.
    pub fn finish(mut self, processes: &[Watched]) -> Report {
        self.report.processes = processes.iter().map(process).collect();
        for (watched, process) in processes.iter().zip(&mut self.report.processes) {
            process.functions = self.functions.remove(&watched.serial).unwrap_or_default();
        }
        self.report.stale = self.treatment.suppressions.stale().map(stale).collect();
        self.report.summarize(&self.treatment.error_leaks);
        if self.treatment.stale_is_error && !self.report.stale.is_empty() {
            self.report.summary.verdict = Verdict::Findings;
        }
        let is_unchecked = processes.first().is_some_and(|main| self.unchecked.contains(&main.pid));
        if is_unchecked && self.report.summary.verdict == Verdict::Clean {
            self.report.summary.verdict = Verdict::Failed;
        }
        // The searches' own sums hold what was not listed too; those of suppressed records stay out.
        for kind in LeakKind::ALL {
            let sums = processes.iter().flat_map(|process| &process.loss_sums).filter(|sum| sum.kind == kind);
            let (blocks, bytes) = sum_up(sums);
            let is_listed =
                self.treatment.shown_leaks.contains(&kind) || self.treatment.error_leaks.contains(&kind);
            if !self.treatment.lists_leaks || !is_listed {
                let total = self.report.summary.leaks.of_mut(kind);
                (total.blocks, total.bytes) = (blocks, bytes);
            }
        }
        self.report
    }

    /// Notes where the functions that a finding of the process names lie.
    fn functions(&mut self, process: &Watched, named: impl IntoIterator<Item = Function>) -> &Functions {
        let known = self.functions.entry(process.serial).or_default();
        // A client request is compiled into its caller: it has no frame.
        for function in named.into_iter().filter(|function| !function.is_request()) {
            if !known.contains_key(function.name()) {
                known.insert(function.name().to_owned(), self.names.function(process, function));
            }
        }
        known
    }

    /// Whether what the process does is left out.
    fn is_silent(&self, process: &Watched) -> bool {
        self.treatment.forks_are_silent && process.is_forked
    }

    /// The index of the rule among those that were used.
    fn suppressed(&mut self, rule: &RuleName) -> usize {
        let known = self
            .report
            .suppressed
            .iter()
            .position(|used| used.name == rule.name && used.file == rule.file && used.line == rule.line);
        known.unwrap_or_else(|| {
            self.report.suppressed.push(Suppressed {
                name: rule.name.clone(),
                file: rule.file.clone(),
                line: rule.line,
                ..Suppressed::default()
            });
            self.report.suppressed.len() - 1
        })
    }

    /// The rule that keeps this out, or else shows the rule that would.
    fn find_rule(
        &mut self,
        subject: &Subject<'_>,
        function: Option<Function>,
        stack: &[NamedFrame],
    ) -> Option<RuleName> {
        let names: Vec<FrameNames<'_>> = stack.iter().map(NamedFrame::names).collect();
        self.treatment.suppressions.find(subject, function, &names).map(RuleName::of)
    }

    /// The record, and whether the baseline holds it.
    fn leak_record(
        &mut self,
        process: &Watched,
        loss: &LossRecord<'_>,
        stack: &[NamedFrame],
    ) -> (LeakRecord, bool) {
        let shown = if self.treatment.kept_stacks.shows_allocation(false) { stack } else { &[] };
        let shown = self.treatment.trim.apply(self.names.shown(shown));
        let mut record = LeakRecord::new(loss.kind, losses(loss), process.pid, shown);
        record.allocated_by = Some(loss.allocated_by.name().to_owned());
        record.held_by = loss.held_by.as_ref().map(|holding| {
            let named = match holding.root.kind {
                RootKind::Variable => self.names.named(process, holding.root.address),
                RootKind::ThreadLocal => self.names.thread_local(process, holding.root.address),
                _ => None,
            };
            HeldBy::new(holding, process.pid, named.as_ref())
        });
        let is_known = self.report.is_known(&record.fingerprint);
        (record, is_known)
    }

    /// What a process had in use when it became another program. Like blocks that are still reachable, which most of
    /// these are, it is shown on request. What a forked process had is mostly its parent's.
    fn describe_dropped(&self, process: &Watched) -> Option<String> {
        let (bytes, blocks) = (process.counter(Counter::InUseBytes), process.counter(Counter::InUseBlocks));
        let is_told = self.treatment.shown_leaks.contains(&LeakKind::Reachable);
        (is_told && blocks > 0 && !process.is_forked).then(|| {
            let blocks = if blocks == 1 { "1 block".to_owned() } else { format!("{blocks} blocks") };
            format!("it became another program with {bytes} bytes in {blocks} in use, not searched for leaks")
        })
    }

    /// The rule that would keep this out, shown, if rules are wanted.
    fn show_rule(
        &mut self,
        pid: u32,
        subject: &Subject<'_>,
        function: Option<Function>,
        stack: &[NamedFrame],
    ) -> Option<String> {
        if !self.treatment.generates_rules {
            return None;
        }
        // What is below main differs from one C library to the next.
        let shown = self.treatment.trim.apply(self.names.shown(stack)).len();
        let names: Vec<FrameNames<'_>> = stack.iter().take(shown).map(NamedFrame::names).collect();
        let rule = memcheck_suppress::generate(subject, function, &names);
        self.display.rule(pid, &rule);
        Some(rule)
    }
}

/// Adds up numbers that the target told, which may be any.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// The blocks and bytes of these sums together.
pub fn sum_up<'a>(sums: impl Iterator<Item = &'a LossSum>) -> (u64, u64) {
    sums.fold((0, 0), |(blocks, bytes), sum| {
        (u64::saturating_add(blocks, sum.blocks), u64::saturating_add(bytes, sum.bytes))
    })
}

/// What identifies a rule to people.
struct RuleName {
    name: String,
    file: Option<String>,
    line: Option<u32>,
}

impl RuleName {
    fn of(rule: &Rule) -> Self {
        let file = rule.origin.file.as_ref().map(|file| file.display().to_string());
        Self { name: rule.name.clone(), line: file.is_some().then_some(rule.origin.line), file }
    }
}

/// A rule that should go, as reports tell of it.
fn stale((rule, why): (&Rule, Stale)) -> StaleRule {
    let file = rule.origin.file.as_deref().unwrap_or(Path::new("")).display().to_string();
    StaleRule { name: rule.name.clone(), file, line: rule.origin.line, why: why.to_string() }
}

/// The process as reports tell of it.
fn process(watched: &Watched) -> Process {
    let count = |counter| watched.counter(counter);
    Process {
        pid: watched.pid,
        ppid: watched.ppid,
        command: watched.words(),
        exit: match watched.end {
            Some(End::Code(code)) => Some(Exit::Code(code)),
            Some(End::Signal(signal)) => Some(Exit::Signal(signal)),
            Some(End::Exec | End::Unknown) | None => None,
        },
        heap: HeapUse {
            allocs: count(Counter::Allocs),
            frees: count(Counter::Frees),
            allocated_bytes: count(Counter::AllocatedBytes),
            peak_bytes: count(Counter::PeakBytes),
            in_use_blocks: count(Counter::InUseBlocks),
            in_use_bytes: count(Counter::InUseBytes),
            library_blocks: count(Counter::LibraryBlocks),
            library_bytes: count(Counter::LibraryBytes),
        },
        coverage: Coverage {
            access_checks: count(Counter::AccessChecks) != 0,
            modules: count(Counter::Modules),
            functions: count(Counter::Functions),
            functions_checked: count(Counter::FunctionsTranslated),
            functions_native: count(Counter::FunctionsNative),
            functions_short: count(Counter::FunctionsShort),
            bytes: count(Counter::TextBytes),
            bytes_checked: count(Counter::TextBytesTranslated),
            bytes_native: count(Counter::TextBytesNative),
            native_reasons: watched.native_reasons.clone(),
            accesses_checked: count(Counter::CheckSites),
            accesses_unchecked: count(Counter::SitesUnchecked),
            syscalls_unchecked: watched.unknown_calls.clone(),
        },
        functions: Functions::new(),
    }
}

impl Collector for Findings<'_> {
    fn error(&mut self, process: &Watched, context: u32, event: &ErrorEvent<'_>) -> bool {
        let address = event.access.map_or(event.address, |access| access.addr);
        if self.treatment.hidden.contains(&event.kind)
            || self.is_silent(process)
            || self.treatment.ignored.iter().any(|range| range.contains(address))
        {
            return false;
        }
        if own_operators::explain(&mut self.names, process, event) {
            return false;
        }
        let top = if event.exact_top { Top::Exact } else { Top::Return };
        let stack = self.names.frames(process, event.stack, top);
        let parameter = memcheck_report::syscall_parameter(event);
        let subject = Subject::Error {
            kind: event.kind,
            access_bytes: event.access.map(|access| access.size.0).filter(|&bytes| bytes > 0),
            parameter: parameter.as_deref(),
        };
        if let Some(rule) = self.find_rule(&subject, event.function, &stack) {
            let index = self.suppressed(&rule);
            self.contexts.insert((process.serial, context), Kept::Suppressed(index));
            return false;
        }
        let kept = self.treatment.kept_stacks;
        let mut of_block = |stack: &[Pc], is_kept: bool| {
            let stack = if is_kept { stack } else { &[] };
            let stack = self.names.frames(process, stack, Top::Return);
            self.names.shown(&stack)
        };
        let allocated = of_block(event.allocated, kept.shows_allocation(!event.freed.is_empty()));
        let freed = of_block(event.freed, kept.shows_free());
        let traces = Traces {
            stack: self.names.shown(&stack),
            allocated,
            freed,
            named: match event.place {
                Place::Module => self.names.named(process, event.address),
                _ => None,
            },
        };
        let block = match event.place {
            Place::Block(block) => [Some(block.allocated_by), block.freed_by],
            _ => [None; 2],
        };
        self.functions(process, block.into_iter().chain([event.function]).flatten());
        let named = traces.named.clone();
        let mut finding = Finding::from_event(event, process.pid, traces, self.treatment.trim);
        if event.kind == ErrorKind::FdLeak && !self.treatment.open_descriptors_are_errors {
            finding.severity = Level::Note;
        }
        if !self.report.is_known(&finding.fingerprint) {
            let index = self.report.errors.len();
            let functions = &self.functions[&process.serial];
            let occurrence = Occurrence { event, named: named.as_ref(), functions, index };
            self.display.about(process);
            self.display.finding(&finding, &occurrence);
            finding.suppression = self.show_rule(process.pid, &subject, event.function, &stack);
        }
        self.contexts.insert((process.serial, context), Kept::Finding(self.report.errors.len()));
        let is_error = finding.severity == Level::Error;
        self.report.errors.push(finding);
        is_error
    }

    fn loss(&mut self, process: &Watched, loss: &LossRecord<'_>) {
        if self.is_silent(process) {
            return;
        }
        let stack = self.names.frames(process, loss.stack, Top::Return);
        let subject = Subject::Leak(loss.kind);
        if let Some(rule) = self.find_rule(&subject, Some(loss.allocated_by), &stack) {
            let index = self.suppressed(&rule);
            let used = &mut self.report.suppressed[index];
            used.count += 1;
            add(&mut used.blocks, loss.blocks);
            add(&mut used.bytes, loss.bytes.0);
            let tally = self.tallies.entry(process.serial).or_default();
            tally.suppressed += 1;
            tally.suppressed_contexts += 1;
            let kept_out = &mut tally.suppressed_losses[loss.kind as usize - 1];
            add(&mut kept_out.blocks, loss.blocks);
            add(&mut kept_out.bytes, loss.bytes.0);
            return;
        }
        let kinds = [&self.treatment.shown_leaks, &self.treatment.error_leaks];
        if !self.treatment.lists_leaks || !kinds.iter().any(|kinds| kinds.contains(&loss.kind)) {
            return;
        }
        let (mut record, is_known) = self.leak_record(process, loss, &stack);
        let functions = self.functions(process, [loss.allocated_by]);
        let function = functions.get(loss.allocated_by.name()).cloned();
        let is_error = self.treatment.error_leaks.contains(&loss.kind) && !is_known;
        let tally = self.tallies.entry(process.serial).or_default();
        tally.errors += u64::from(is_error);
        tally.contexts += u64::from(is_error);
        if self.treatment.shown_leaks.contains(&loss.kind) && !is_known {
            self.display.about(process);
            self.display.leak(&Loss {
                record: record.clone(),
                number: (loss.number, loss.of),
                is_error,
                before: Losses::default(),
                allocated_by: loss.allocated_by,
                function,
            });
            record.suppression = self.show_rule(process.pid, &subject, Some(loss.allocated_by), &stack);
        }
        self.report.leaks.push(record);
    }

    fn asked_loss(&mut self, process: &Watched, loss: &LossRecord<'_>) {
        let stack = self.names.frames(process, loss.stack, Top::Return);
        if self.find_rule(&Subject::Leak(loss.kind), Some(loss.allocated_by), &stack).is_some() {
            self.searches.entry(process.serial).or_default().add_suppressed(loss);
            return;
        }
        let (record, is_known) = self.leak_record(process, loss, &stack);
        let is_error = self.treatment.error_leaks.contains(&loss.kind) && !is_known;
        self.searches.entry(process.serial).or_default().add(loss, record, is_error);
    }

    fn asked_sum(&mut self, process: &Watched, sum: LossSum) {
        self.searches.entry(process.serial).or_default().add_sum(sum);
    }

    fn searched(&mut self, process: &Watched, scope: SearchScope, stream: &Stream) {
        let searches = self.searches.entry(process.serial).or_default();
        let mut found = searches.end(&self.treatment.shown_leaks, scope);
        found.store_in(stream, searches.errors());
        let functions = self.functions(process, found.losses.iter().map(|loss| loss.allocated_by));
        for loss in &mut found.losses {
            loss.function = functions.get(loss.allocated_by.name()).cloned();
        }
        self.display.searched(process, scope, &found);
    }

    fn answer(&mut self, process: &Watched, wanted: Wanted, color: Color) -> String {
        let scope = match wanted {
            Wanted::New => SearchScope::Increased,
            Wanted::All => SearchScope::All,
        };
        let searches = self.searches.entry(process.serial).or_default();
        searches.end(&self.treatment.shown_leaks, scope).tell(process, color)
    }

    fn notice(&mut self, process: &Watched, kind: NoticeKind, text: &str) {
        if self.is_silent(process) {
            return;
        }
        let remark = match kind {
            NoticeKind::OwnMalloc => {
                format!("{text} defines its own allocator: what it allocates is not seen")
            }
            NoticeKind::NoShadow => format!("accesses are not checked at the instruction: {text}"),
            NoticeKind::NoHeap => {
                self.unchecked.insert(process.pid);
                format!("the heap is not checked: {text}")
            }
            NoticeKind::NoLeakSearch => format!("leaks were not searched for: {text}"),
            NoticeKind::ExecUnwatched => format!("it executed {text}, which cannot be checked"),
            NoticeKind::Other | NoticeKind::Coverage | NoticeKind::UnknownCall | NoticeKind::LeakSearch => {
                text.to_owned()
            }
        };
        self.display.remark(process, &remark);
    }

    fn message(&mut self, process: &Watched, text: &str, stack: &[Pc]) {
        let stack = self.names.frames(process, stack, Top::Exact);
        let stack = self.names.shown(&stack);
        self.display.message(process, text, &stack);
    }

    fn counts(&mut self, process: &Watched, contexts: &Contexts) {
        let mut tally = self.tallies.remove(&process.serial).unwrap_or_default();
        let of_searches = self.searches.get(&process.serial).map_or(0, Searches::errors);
        tally.errors += of_searches;
        tally.contexts += of_searches;
        let mut counts = BTreeMap::new();
        for ((serial, context), kept) in &self.contexts {
            if *serial == process.serial {
                // A target that tramples its counts still had the error once.
                let count = contexts.count(*context).max(1);
                match kept {
                    Kept::Finding(index) => {
                        let finding = &mut self.report.errors[*index];
                        finding.count = count;
                        counts.insert(*index, count);
                        let is_of_pool = finding.function.as_deref() == Some(Function::MempoolFree.name());
                        let kinds = [ErrorKind::BadFree, ErrorKind::DoubleFree];
                        if !is_of_pool && kinds.iter().any(|kind| kind.id() == finding.id) {
                            add(&mut tally.bad_frees, count);
                        }
                        if finding.severity == Level::Error {
                            add(&mut tally.errors, count);
                            tally.contexts += 1;
                        }
                    }
                    Kept::Suppressed(index) => {
                        add(&mut self.report.suppressed[*index].count, count);
                        add(&mut tally.suppressed, count);
                        tally.suppressed_contexts += 1;
                    }
                }
            }
        }
        self.contexts.retain(|(serial, _), _| *serial != process.serial);
        let refused = process.counter(Counter::ContextsRefused);
        if refused > 0 {
            self.display.remark(process, &format!("{refused} further errors were not told apart any more"));
        }
        if self.is_silent(process) {
            return;
        }
        if process.end != Some(End::Exec) {
            self.display.ended(&Ended { process, counts, tally });
        } else if let Some(dropped) = self.describe_dropped(process) {
            self.display.remark(process, &dropped);
        }
    }
}
