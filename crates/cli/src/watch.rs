//! Watching the running tree: one thread sleeps on signals, on ends of processes and on the doorbell of the
//! channel, and deals with whatever came.
//!
//! In: the channel and the main child. Out: events to a [`Collector`], and the [`Tree`] in the end.
//!
//! Invariants:
//! - Every record that stood in a stream when its process ended is read before the stream is given up.
//! - A record that a thread waits for is dealt with (shown) before that thread goes on.
//! - A signal that somebody sent to the launcher goes to the program; one that the terminal sent to both does not
//!   go twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use memcheck_wire::{NoticeKind, Owner, Record, Requests, SLOT_WORDS, STOP_SIGNAL, Scratch, Slot, decode};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        signal::{SigSet, Signal, raise},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    collect::Collector,
    os::{Channel, PidWatch, forward, session_of, time_in_queue},
    progress::Spinner,
    questions::{self, Question},
    tree::{End, LossSum, Tree, Watched},
};

/// How long processes that outlive the main one are waited for. Long enough for a pipeline's last stage, short
/// enough that a forgotten background job does not look like a hang.
const GRACE: Duration = Duration::from_secs(2);

/// The same for processes that left the session: daemons stay, but what they did while they started is told.
const DAEMON_GRACE: Duration = Duration::from_millis(500);

/// How long a forked child may take to claim its stream when everybody else has ended.
const BIRTH: Duration = Duration::from_secs(1);

/// What a busy machine may make of these: time that a process waits for a processor does not count.
const MOST_GRACE: Duration = Duration::from_secs(10);

/// The sleep of a thread on the doorbell, which only bounds how late a lost wake-up is noticed; and how often a process
/// that no descriptor watches is asked for.
const NAP: Duration = Duration::from_secs(1);

/// The signals that are passed on. Not those that a fault of the launcher itself raises, nor those of the
/// terminal's job control, which `follow_stop` answers.
pub fn watched_signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTERM,
        Signal::SIGCHLD,
        Signal::SIGTSTP,
        Signal::SIGURG,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGWINCH,
        Signal::SIGIO,
        Signal::SIGPWR,
    ] {
        set.add(signal);
    }
    set
}

/// A stream in use.
#[derive(Debug)]
struct Held {
    pid: u32,
    watch: Option<PidWatch>,
    /// Index in the tree, once its first record came.
    process: Option<usize>,
    /// Records that made no sense.
    malformed: u64,
    /// Who waits for a leak search.
    question: Option<Question>,
    /// The answer to it is being sent; an error says why there is none.
    answering: Option<Result<(), String>>,
}

/// The watch over one run.
pub struct Watch {
    channel: Arc<Channel>,
    child: Pid,
    child_end: Option<End>,
    signals: SignalFd,
    bell: Arc<EventFd>,
    questions: mpsc::Receiver<Question>,
    held: BTreeMap<usize, Held>,
    tree: Tree,
    /// Streams whose records are being dealt with: a record of one may lead to another, never back.
    reading: BTreeSet<usize>,
    /// Shown while a process searches for leaks.
    search: Option<Spinner>,
    malformed: u64,
}

/// What is known when nothing runs any more.
pub struct Outcome {
    /// The processes.
    pub processes: Vec<Watched>,
    /// How the main process ended.
    pub end: End,
    /// What the user should know.
    pub remarks: Vec<String>,
}

impl Watch {
    /// A watch over `child`; `signals` are blocked already.
    pub fn new(channel: Channel, child: Pid, signals: &SigSet) -> nix::Result<Self> {
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let bell =
            Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let channel = Arc::new(channel);
        let (ringer, doorbell) = (Arc::clone(&bell), Arc::clone(&channel));
        std::thread::spawn(move || {
            let mut seen = 0;
            loop {
                doorbell.wait_for_doorbell(seen, NAP);
                // Acquire pairs with the shim's Release when it rings after publishing.
                let now = doorbell.header().doorbell.load(Ordering::Acquire);
                if now != seen {
                    seen = now;
                    let _ = ringer.write(1);
                }
            }
        });
        Ok(Self {
            channel,
            child,
            child_end: None,
            signals,
            questions: questions::listen(&bell),
            bell,
            held: BTreeMap::new(),
            tree: Tree::default(),
            reading: BTreeSet::new(),
            search: None,
            malformed: 0,
        })
    }

    /// Watches until the main process has ended, and those it left behind, for a while.
    pub fn run(mut self, collector: &mut dyn Collector) -> Outcome {
        while self.child_end.is_none() {
            self.sleep(None);
            self.follow_child();
            self.pass(collector);
        }
        let mut remarks = self.linger(collector);
        self.pass(collector);
        let left: Vec<usize> = self.held.keys().copied().collect();
        for index in left {
            self.let_end(index, collector);
        }
        if self.malformed > 0 {
            remarks
                .push(format!("{} records from the program made no sense and were dropped", self.malformed));
        }
        let unwatched = self.channel.header().unwatched();
        if unwatched > 0 {
            remarks.push(format!("{unwatched} processes were not watched: too many ran at once"));
        }
        let end = self.child_end.unwrap_or(End::Unknown);
        Outcome { processes: self.tree.into_order(), end, remarks }
    }

    /// Waits for the processes that remain.
    fn linger(&mut self, collector: &mut dyn Collector) -> Vec<String> {
        let start = Instant::now();
        let session = session_of(0);
        let mut given = Duration::ZERO;
        loop {
            // Read before the streams are: who is not counted any more has one.
            let is_being_born = self.channel.header().forking() > 0;
            self.pass(collector);
            let grace = |held: &Held| if session_of(held.pid) == session { GRACE } else { DAEMON_GRACE };
            let grace = self.held.values().map(grace).max().unwrap_or_default();
            let birth = if is_being_born { BIRTH } else { Duration::ZERO };
            let left = grace.max(birth).saturating_sub(given);
            if left.is_zero() || start.elapsed() > MOST_GRACE {
                break;
            }
            let (before, asleep) = (self.queued(), Instant::now());
            if self.sleep(Some(left)) {
                break;
            }
            let now = self.queued();
            let waited = now.iter().filter_map(|(pid, now)| now.checked_sub(*before.get(pid)?)).max();
            given += asleep.elapsed().saturating_sub(waited.unwrap_or_default());
        }
        let mut remarks = Vec::new();
        for held in self.held.values() {
            if held.watch.as_ref().is_some_and(|watch| !watch.has_ended()) {
                let name =
                    held.process.map_or_else(|| "?".to_owned(), |process| self.tree.get(process).name());
                remarks.push(format!("process {} ({name}) runs on; it is watched no longer", held.pid));
            }
        }
        remarks
    }

    /// How long this thread, as number zero, and the processes have waited for a processor so far.
    fn queued(&self) -> BTreeMap<u32, Duration> {
        let pids = self.held.values().map(|held| held.pid).chain([0]);
        pids.map(|pid| (pid, time_in_queue(pid))).collect()
    }

    /// Sleeps until something happened, and deals with signals. Says whether one wants the watch to end.
    fn sleep(&mut self, most: Option<Duration>) -> bool {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        let watches = || self.held.values().filter_map(|held| held.watch.as_ref());
        fds.extend(watches().filter_map(PidWatch::fd).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let must_ask = watches().any(|watch| watch.fd().is_none());
        let most = if must_ask { Some(most.map_or(NAP, |most| most.min(NAP))) } else { most };
        let timeout = most.map_or(PollTimeout::NONE, |most| {
            PollTimeout::try_from(most + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
        let _ = self.bell.read();
        let mut wants_end = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = info.ssi_signo.cast_signed();
            let is_sent = info.ssi_code <= 0;
            let by_tree = self.held.values().any(|held| held.pid == info.ssi_pid);
            if signal == Signal::SIGCHLD as i32 && !is_sent {
                continue;
            }
            if self.child_end.is_none() {
                if is_sent && !by_tree {
                    forward(self.child.as_raw(), signal);
                }
            } else if [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]
                .iter()
                .any(|&ending| ending as i32 == signal)
            {
                wants_end = true;
            }
        }
        wants_end
    }

    /// Asks how the main process does, and stops when it stopped.
    fn follow_child(&mut self) {
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            match waitpid(self.child, Some(flags)) {
                Ok(WaitStatus::Exited(_, status)) => self.child_end = Some(End::Code(status)),
                Ok(WaitStatus::Signaled(_, signal, _)) => self.child_end = Some(End::Signal(signal as i32)),
                Ok(WaitStatus::Stopped(..)) => {
                    self.follow_stop();
                    continue;
                }
                Err(Errno::EINVAL) => {
                    // nix has no names for real-time signals; the process is reaped all the same.
                    self.child_end = Some(End::Unknown);
                }
                Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(_) => self.child_end = Some(End::Unknown),
            }
            return;
        }
    }

    /// The program was stopped: stop as well, so that the shell sees it, and take it along when continued. Without a
    /// terminal no shell waits for that, and who stopped the program alone may continue it alone.
    fn follow_stop(&self) {
        if std::fs::File::open("/dev/tty").is_err() {
            return;
        }
        let _ = raise(Signal::SIGSTOP);
        // A shell continues the whole group; somebody who knows only the launcher continues it alone.
        std::thread::sleep(Duration::from_millis(5));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child)).unwrap_or_default();
        let is_stopped = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        if is_stopped {
            forward(self.child.as_raw(), Signal::SIGCONT as i32);
        }
    }

    /// Reads all streams and lets processes end that did.
    fn pass(&mut self, collector: &mut dyn Collector) {
        let streams = self.channel.streams();
        for (index, stream) in streams.iter().enumerate() {
            if let (Some(pid), false) = (stream.owner().pid(), self.held.contains_key(&index)) {
                let held = Held {
                    pid,
                    watch: PidWatch::open(pid),
                    process: None,
                    malformed: 0,
                    question: None,
                    answering: None,
                };
                self.held.insert(index, held);
            }
        }
        let all: Vec<usize> = self.held.keys().copied().collect();
        let mut ended = Vec::new();
        for index in all {
            let has_ended = match self.held.get(&index) {
                // Asked before reading: what is read afterwards is all there will be.
                Some(held) => held.watch.as_ref().is_none_or(PidWatch::has_ended),
                None => continue,
            };
            self.read_stream(index, collector);
            if has_ended {
                ended.push(index);
            }
        }
        // Children before their parents, as most end.
        for index in ended.into_iter().rev() {
            self.let_end(index, collector);
        }
        while let Ok(question) = self.questions.try_recv() {
            self.ask(question);
        }
    }

    /// Asks a process for a leak search.
    fn ask(&mut self, question: Question) {
        let own = std::process::id();
        let pid = if question.pid == own { self.child.as_raw().cast_unsigned() } else { question.pid };
        // Of a process that became another program the stream of the new one.
        let found =
            self.held.iter_mut().filter(|(_, held)| held.pid == pid).max_by_key(|(_, held)| held.process);
        let Some((&index, held)) = found else {
            return question.answer(Err(format!("process {pid} is not watched")));
        };
        if held.question.is_some() {
            return question.answer(Err(format!("process {pid} has not answered an earlier call yet")));
        }
        let stream = &self.channel.streams()[index];
        if !catches(pid, STOP_SIGNAL) || !stream.move_requests(Requests::Open, Requests::Asked) {
            return question.answer(Err(format!("process {pid} cannot be asked: it just begins, or ends")));
        }
        held.question = Some(question);
        forward(pid.cast_signed(), STOP_SIGNAL);
    }

    /// Deals with the records that stand in a stream, in their order.
    fn read_stream(&mut self, index: usize, collector: &mut dyn Collector) {
        if self.reading.insert(index) {
            self.read_ready(index, collector);
            self.reading.remove(&index);
        }
    }

    fn read_ready(&mut self, index: usize, collector: &mut dyn Collector) {
        let stream = &self.channel.streams()[index];
        loop {
            // A thread may fill slots behind the one that was just looked at and then one that comes next. What
            // it sent before the last record seen is there when the slots are looked at again.
            let Some(last) = stream.used_slots().filter_map(Slot::ready).map(|(sequence, _)| sequence).max()
            else {
                return;
            };
            let mut ready: Vec<_> = stream
                .used_slots()
                .filter_map(|slot| slot.ready().map(|(sequence, state)| (sequence, state, slot)))
                .filter(|&(sequence, ..)| sequence <= last)
                .collect();
            ready.sort_by_key(|&(sequence, ..)| sequence);
            for (_, state, slot) in ready {
                let mut copy = [0; SLOT_WORDS];
                let mut scratch = Scratch::new();
                match decode(slot.copy_in(&mut copy), &mut scratch) {
                    Ok(record) => self.take(index, &record, collector),
                    Err(_) => self.malformed += 1,
                }
                slot.finish(state);
                stream.freed.fetch_add(1, Ordering::Release);
                Channel::wake(&slot.state);
                Channel::wake(&stream.freed);
            }
        }
    }

    /// Deals with one record of the stream.
    fn take(&mut self, index: usize, record: &Record<'_>, collector: &mut dyn Collector) {
        let Some(held) = self.held.get(&index) else { return };
        if let Record::Start(start) = record {
            let (pid, is_begun) = (held.pid, held.process.is_some());
            if is_begun {
                self.malformed += 1;
                return;
            }
            self.begin(index, pid, start, collector);
            return;
        }
        let Some(process) = held.process else {
            self.malformed += 1;
            return;
        };
        // Whatever comes after the beginning of a search is what it found.
        self.search = None;
        if matches!(record, Record::Notice(notice) if notice.kind == NoticeKind::LeakSearch) {
            self.search = Some(Spinner::start("searching for leaks"));
            return;
        }
        let watched = self.tree.get_mut(process);
        let Some(held) = self.held.get_mut(&index) else { return };
        match (record, &mut held.answering) {
            (Record::Loss(loss), Some(_)) => return collector.asked_loss(watched, loss),
            (&Record::LossSum { kind, blocks, bytes }, Some(_)) => {
                return collector.asked_sum(watched, LossSum { kind, blocks, bytes: bytes.0 });
            }
            (Record::Notice(notice), Some(answer)) => {
                *answer = Err(String::from_utf8_lossy(notice.text).into_owned());
                return;
            }
            _ => {}
        }
        match record {
            Record::Start(_) => {}
            Record::SearchBegins => held.answering = Some(Ok(())),
            Record::SearchEnds(scope) => {
                let answer = held.answering.take().unwrap_or(Ok(()));
                if let Some(question) = held.question.take() {
                    let text = collector.answer(watched, question.wanted, question.color);
                    question.answer(answer.map(|()| text));
                } else {
                    collector.searched(watched, *scope, &self.channel.streams()[index]);
                }
            }
            Record::ModuleLoaded(module) => watched.add_module(module),
            Record::ModuleUnloaded(start, number) => watched.remove_module(*start, *number),
            Record::LossSum { kind, blocks, bytes } => {
                watched.loss_sums.push(LossSum { kind: *kind, blocks: *blocks, bytes: bytes.0 });
            }
            Record::Notice(notice)
                if matches!(notice.kind, NoticeKind::Coverage | NoticeKind::UnknownCall) =>
            {
                let text = String::from_utf8_lossy(notice.text);
                let counts = match notice.kind {
                    NoticeKind::Coverage => &mut watched.native_reasons,
                    _ => &mut watched.unknown_calls,
                };
                if let Some((count, what)) = text.split_once(' ')
                    && let Ok(count) = count.parse::<u64>()
                {
                    let sum = counts.entry(what.to_owned()).or_default();
                    *sum = sum.saturating_add(count);
                }
            }
            Record::Error { context, event } => {
                if !collector.error(watched, *context, event) {
                    self.channel.streams()[index].contexts.leave_out(*context);
                }
            }
            Record::Loss(loss) => collector.loss(watched, loss),
            Record::Message { text, stack } => {
                collector.message(watched, &String::from_utf8_lossy(text), stack);
            }
            Record::Notice(notice) => {
                collector.notice(watched, notice.kind, &String::from_utf8_lossy(notice.text))
            }
        }
    }

    fn begin(
        &mut self,
        index: usize,
        pid: u32,
        start: &memcheck_wire::ProcessStart<'_>,
        collector: &mut dyn Collector,
    ) {
        // What a parent said before it forked counts for the child.
        if let memcheck_wire::StartKind::Fork(parent) = start.kind {
            let parent = self.held.iter().find(|(_, held)| {
                held.process.is_some_and(|process| self.tree.get(process).serial == parent)
            });
            if let Some(parent) = parent.map(|(&parent, _)| parent).filter(|&parent| parent != index) {
                self.read_stream(parent, collector);
            }
        }
        // A process that begins anew has ended what it was. Both streams may be unread yet, in either order.
        let other = self.held.iter().find(|(other, held)| held.pid == pid && !self.reading.contains(other));
        let other = other.map(|(&other, _)| other);
        if let Some(other) = other {
            self.read_stream(other, collector);
        }
        let process = self.tree.begin(pid, start);
        if let Some(held) = self.held.get_mut(&index) {
            held.process = Some(process);
        }
        let Some(other) = other else { return };
        match self.held.get(&other).and_then(|held| held.process) {
            Some(later) if self.tree.get(later).serial > start.serial => {
                self.tree.get_mut(process).end = Some(End::Exec);
            }
            former => {
                if let Some(former) = former {
                    self.tree.get_mut(former).end = Some(End::Exec);
                }
                self.let_end(other, collector);
            }
        }
    }

    /// The stream's process has ended: takes what remains and gives the stream up.
    fn let_end(&mut self, index: usize, collector: &mut dyn Collector) {
        self.read_stream(index, collector);
        self.search = None;
        let Some(held) = self.held.remove(&index) else { return };
        if let Some(question) = held.question {
            question.answer(Err(format!("process {} has ended, or became another program", held.pid)));
        }
        let stream = &self.channel.streams()[index];
        self.malformed += held.malformed + u64::from(stream.dropped());
        if let Some(process) = held.process {
            let watched = self.tree.get_mut(process);
            watched.take_counters(stream);
            if watched.end.is_none() {
                watched.end = if held.pid == self.child.as_raw().cast_unsigned() {
                    self.child_end
                } else {
                    match stream.owner() {
                        Owner::Exiting(_, status) => Some(End::Code(status.into())),
                        Owner::Dying(_, signal) => Some(End::Signal(signal.into())),
                        Owner::Running(_) | Owner::None
                            if held.watch.as_ref().is_some_and(|watch| !watch.has_ended()) =>
                        {
                            None
                        }
                        Owner::Running(_) | Owner::None => Some(End::Unknown),
                    }
                };
            }
            collector.counts(watched, &stream.contexts);
        }
        self.channel.release(index);
    }
}

/// Whether the process has a handler for the signal (proc(5), SigCgt): without, it would be its end.
fn catches(pid: u32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
