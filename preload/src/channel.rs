//! This process' end of the channel: the mapping, its stream, and how records leave.
//!
//! In: records and error events by reference. Out: words in shared memory; `report` returns when the launcher
//! has dealt with the event.
//!
//! Invariants:
//! - The mapping, once made, is never unmapped; a stream, once claimed, is this process' until it ends.
//! - A process that was forked finds `GENERATION`'s page zeroed and claims a stream of its own before it sends
//!   anything; a child of vfork, which shares its parent's memory, sends through its parent's stream.
//! - Nobody waits longer than it takes to see that the launcher is dead: its robust futex says so at once.
//!
//! May run before init, in signal handlers, in any thread; takes no lock (the first connection is made by one
//! thread while others wait) and allocates nothing. Signals are blocked while a slot is being written, so that
//! a handler which leaves by `longjmp` cannot strand one.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering},
};

use memcheck_model::{Detail, ErrorEvent, ErrorKind};
use memcheck_wire::{
    CHANNEL_BYTES, CHANNEL_VARIABLE, Counter, Header, MAX_STREAMS, Notice, NoticeKind, Options, Owner,
    ProcessStart, Record, Requests, Sighting, Slot, SlotState, StartKind, Stream, TEXT_MAX,
};

use crate::{
    requests,
    sys::{
        file::{self, File},
        futex, process, signal,
    },
    thread,
};

/// How long a thread sleeps before it looks whether the launcher still lives. The kernel's note of its death
/// wakes nobody on these words, so this bounds how late a target notices.
const PATIENCE_MS: u64 = 50;

static HEADER: AtomicPtr<Header> = AtomicPtr::new(core::ptr::null_mut());
static STREAM: AtomicPtr<Stream> = AtomicPtr::new(core::ptr::null_mut());
/// The page that says whether this address space claimed `STREAM` itself.
static GENERATION: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());
/// This process image's number in the run.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// How far the first connection has come: `UNTRIED`, `BUSY`, `SETTLED`.
static CONNECTION: AtomicU32 = AtomicU32::new(UNTRIED);
const UNTRIED: u32 = 0;
const BUSY: u32 = 1;
const SETTLED: u32 = 2;

/// The options; written by the thread that connects, before `SETTLED`.
struct OptionCell(UnsafeCell<Option<Options>>);
// SAFETY: written once, before CONNECTION becomes SETTLED with Release; read only after an Acquire of that.
unsafe impl Sync for OptionCell {}
static OPTIONS: OptionCell = OptionCell(UnsafeCell::new(None));

/// Where the channel is found, and a zero byte; empty without a launcher.
struct PathCell(UnsafeCell<[u8; 64]>);
// SAFETY: as for `OptionCell`.
unsafe impl Sync for PathCell {}
static PATH: PathCell = PathCell(UnsafeCell::new([0; 64]));

/// The channel's device and inode; zero without a launcher.
static IDENTITY: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Where statistics go that no launcher reads.
static UNREAD_COUNTERS: [AtomicU64; Counter::ALL.len()] = [const { AtomicU64::new(0) }; Counter::ALL.len()];

/// Connects to the launcher, if there is one and it was not done before, and returns the options: the
/// launcher's, or the defaults.
pub fn connect() -> Options {
    match CONNECTION.compare_exchange(UNTRIED, BUSY, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let options = find_channel();
            // SAFETY: only the thread that moved CONNECTION to BUSY gets here, once.
            unsafe { *OPTIONS.0.get() = options };
            CONNECTION.store(SETTLED, Ordering::Release);
            if options.is_some() && process::is_emulated() {
                leave_to_emulator();
            } else if options.is_some() {
                begin_process(StartKind::Exec);
            }
        }
        Err(SETTLED) => {}
        Err(_) => {
            while CONNECTION.load(Ordering::Acquire) != SETTLED {
                core::hint::spin_loop();
            }
        }
    }
    // SAFETY: CONNECTION is SETTLED: nobody writes any more.
    unsafe { *OPTIONS.0.get() }.unwrap_or_default()
}

/// Whether a launcher watches this process.
pub fn is_watched() -> bool {
    own_stream().is_some()
}

/// Whether a program with this path and these arguments is not to be watched.
pub fn skips<'a>(path: &[u8], arguments: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
    header().is_some_and(|header| header.skips(path, arguments))
}

/// Whether the shim stands for the allocator of a module with this DT_SONAME.
pub fn takes_allocator(soname: Option<&[u8]>) -> bool {
    header().is_none_or(|header| header.takes_allocator(soname))
}

/// One of this process' statistics.
pub fn counter(counter: Counter) -> &'static AtomicU64 {
    own_stream().map_or(&UNREAD_COUNTERS[counter as usize], |stream| stream.counter(counter))
}

/// Sends a record; returns when it stands in shared memory.
pub fn send(record: &Record<'_>) {
    let (Some(header), Some(stream)) = (header(), own_stream()) else { return };
    with_signals_blocked(|| {
        put(header, stream, record, SlotState::Ready);
    });
}

/// Sends a record, and waits until the launcher has dealt with it.
pub fn send_and_wait(record: &Record<'_>) {
    let (Some(header), Some(stream)) = (header(), own_stream()) else { return };
    with_signals_blocked(|| {
        if let Some(slot) = put(header, stream, record, SlotState::ReadyWaited) {
            await_ack(header, slot);
        }
    });
}

/// How many errors this process had, with those of leak searches that it asked for.
pub fn error_count() -> u64 {
    let of_searches = counter(Counter::LossErrors).load(Ordering::Relaxed);
    own_stream().map_or(0, |stream| stream.contexts.total()) + of_searches
}

/// Reports one error: counts its context and, when that is new, sends it and waits until the launcher has dealt
/// with it. Ends the process when the user wants no second error.
pub fn report(event: &ErrorEvent<'_>) {
    let (Some(header), Some(stream)) = (header(), own_stream()) else { return };
    let is_told = thread::current().errors_disabled.get() == 0
        && event.access.is_none_or(|access| requests::is_told(access.addr));
    if !is_told && !is_fatal(event.kind) {
        return;
    }
    match stream.contexts.sight(context_hash(event)) {
        Sighting::Again => {}
        Sighting::Full => {
            stream.counter(Counter::ContextsRefused).fetch_add(1, Ordering::Relaxed);
        }
        Sighting::First(context) => {
            with_signals_blocked(|| {
                if let Some(slot) =
                    put(header, stream, &Record::Error { context, event: *event }, SlotState::ReadyWaited)
                {
                    await_ack(header, slot);
                }
            });
            let options = connect();
            let is_error = event.kind.severity() == memcheck_model::Severity::Error;
            if options.exit_on_first_error && is_error {
                stream.set_owner(Owner::Exiting(process::pid(), options.error_exitcode));
                process::exit_group(options.error_exitcode.into());
            }
        }
    }
}

/// Whether the program ends of it, which is told whatever the program wants.
fn is_fatal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::FatalSignal | ErrorKind::NullDereference)
}

/// The path at which the channel was opened.
pub fn path() -> &'static [u8] {
    connect_quietly();
    // SAFETY: `connect` has settled: nobody writes any more.
    let path = unsafe { &*PATH.0.get() };
    path.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Whether a program that this process executes will find the channel. Not where `/proc` is another or none, as below
/// another root or in another PID namespace; nor as another user than the launcher's, without the rights that such a
/// process may have until then (proc(5), `/proc/PID/fd`).
pub fn can_be_found() -> bool {
    connect_quietly();
    // SAFETY: as in `path`.
    let path = unsafe { &*PATH.0.get() };
    let Ok(file) = File::open(path, true) else { return false };
    let user = process::effective_user();
    file.identity() == Ok((IDENTITY[0].load(Ordering::Relaxed), IDENTITY[1].load(Ordering::Relaxed)))
        && (user == 0 || file.owner() == Ok(user))
}

/// Says how the process ends next. Every record was sent before.
pub fn announce_end(end: Owner) {
    if let (Some(stream), Some(header)) = (own_stream(), header()) {
        stream.set_owner(end);
        ring(header);
    }
}

/// Moves the word of requests on; false when it did not stand at `from`, or nobody watches.
pub fn move_requests(from: Requests, to: Requests) -> bool {
    own_stream().is_some_and(|stream| stream.move_requests(from, to))
}

/// Whether a leak search that was asked for is under way.
pub fn is_served() -> bool {
    move_requests(Requests::Served, Requests::Served)
}

/// Whether the memory is another process': that of the parent of a vfork.
pub fn is_vfork_child() -> bool {
    own_stream().and_then(|stream| stream.owner().pid()).is_some_and(|owner| owner != process::pid())
}

fn header() -> Option<&'static Header> {
    // SAFETY: null, or the start of the mapping that `find_channel` made and nothing unmaps.
    unsafe { HEADER.load(Ordering::Acquire).as_ref() }
}

/// The stream to use, after making sure that it is not a parent's.
fn own_stream() -> Option<&'static Stream> {
    connect_quietly();
    // SAFETY: null, or the page that `begin_process` mapped and nothing unmaps.
    let generation = unsafe { GENERATION.load(Ordering::Acquire).as_ref() }?;
    if generation.load(Ordering::Relaxed) == 0 {
        begin_process(StartKind::Fork(SERIAL.load(Ordering::Relaxed)));
    }
    // SAFETY: null, or one of the mapping's streams.
    unsafe { STREAM.load(Ordering::Acquire).as_ref() }
}

fn connect_quietly() {
    if CONNECTION.load(Ordering::Acquire) == UNTRIED {
        connect();
    }
}

/// Tells the launcher that there will be another process, so that it does not take a parent that ends at once
/// for the end of all.
pub fn before_fork() {
    if let Some(header) = header() {
        header.begin_fork();
    }
}

/// Claims a stream of its own for a child of fork. Called from the fork handler; `own_stream` does the same for
/// children of a raw `clone`.
pub fn after_fork_in_child() {
    let _ = own_stream();
    if let Some(header) = header() {
        header.end_fork();
    }
}

/// Maps the channel that the environment names.
fn find_channel() -> Option<Options> {
    // SAFETY: only the thread that moved CONNECTION to BUSY gets here, once.
    let path = unsafe { &mut *PATH.0.get() };
    let path = find_variable(CHANNEL_VARIABLE.as_bytes(), path)?;
    let file = File::open(path, true).ok()?;
    let (device, inode) = file.identity().ok()?;
    let base = file.map_shared(CHANNEL_BYTES).ok()?;
    // SAFETY: the mapping is page-aligned and at least a header long, and a header is atomics only.
    let header = unsafe { &*base.cast::<Header>() };
    let options = header.options()?;
    IDENTITY[0].store(device, Ordering::Relaxed);
    IDENTITY[1].store(inode, Ordering::Relaxed);
    HEADER.store(base.cast(), Ordering::Release);
    Some(options)
}

fn streams(header: &'static Header) -> &'static [Stream] {
    let first = core::ptr::from_ref(header).wrapping_add(1).cast::<Stream>();
    // SAFETY: CHANNEL_BYTES were mapped: a header and MAX_STREAMS streams of atomics, for ever.
    unsafe { core::slice::from_raw_parts(first, MAX_STREAMS) }
}

/// Disconnects from the launcher: the process is the emulator's, which is watched and has its stream. That is told to
/// the user.
fn leave_to_emulator() {
    let Some(header) = header() else { return };
    let own = Owner::Running(process::pid());
    if let Some(stream) = streams(header).iter().find(|stream| stream.owner() == own) {
        let notice = Notice { kind: NoticeKind::Other, text: b"the program that it emulates is not checked" };
        put(header, stream, &Record::Notice(notice), SlotState::Ready);
    }
    HEADER.store(core::ptr::null_mut(), Ordering::Release);
}

/// Claims a stream and says that this process begins.
fn begin_process(kind: StartKind) {
    let Some(header) = header() else { return };
    let mut generation = GENERATION.load(Ordering::Acquire);
    if generation.is_null() {
        let Some(page) = file::map_page_wiped_on_fork() else { return };
        generation = page.cast();
        GENERATION.store(generation, Ordering::Release);
    }
    // SAFETY: the page mapped above (in this process or its parent), zeroed or holding a 1.
    unsafe { &*generation }.store(1, Ordering::Relaxed);
    let stream = if header.launcher_died() { None } else { header.claim(streams(header), process::pid()) };
    STREAM.store(
        stream.map_or(core::ptr::null_mut(), |stream| core::ptr::from_ref(stream).cast_mut()),
        Ordering::Release,
    );
    let serial = header.next_serial();
    SERIAL.store(serial, Ordering::Relaxed);
    let mut arguments = [0; TEXT_MAX];
    let arguments = match File::open(b"/proc/self/cmdline\0", false) {
        Ok(file) => {
            let len = file.read(&mut arguments).unwrap_or(0);
            &arguments[..len]
        }
        Err(_) => &[],
    };
    if let Some(stream) = stream {
        if let StartKind::Fork(_) = kind {
            // The handler is the parent's.
            stream.move_requests(Requests::Closed, Requests::Open);
        }
        let start = ProcessStart { serial, ppid: process::parent_pid(), kind, arguments };
        with_signals_blocked(|| {
            put(header, stream, &Record::Start(start), SlotState::Ready);
        });
    }
}

/// Writes a record to a slot as soon as there is a free one. `None` when the launcher is dead.
fn put(
    header: &Header,
    stream: &'static Stream,
    record: &Record<'_>,
    state: SlotState,
) -> Option<&'static Slot> {
    loop {
        if header.launcher_died() {
            return None;
        }
        let freed = stream.freed.load(Ordering::Acquire);
        let Some(slot) = stream.try_begin() else {
            ring(header);
            futex::wait(&stream.freed, freed, PATIENCE_MS);
            continue;
        };
        let Some(used) = memcheck_wire::encode(record, slot.words()) else {
            stream.note_dropped();
            slot.finish(SlotState::Ready);
            return None;
        };
        stream.publish(slot, used, state);
        // Modules matter to the records that follow, and are looked at before those.
        if !matches!(record, Record::ModuleLoaded(_) | Record::ModuleUnloaded(..)) {
            ring(header);
        }
        return Some(slot);
    }
}

fn ring(header: &Header) {
    // Release pairs with the launcher's Acquire load before it sleeps on the word.
    header.doorbell.fetch_add(1, Ordering::Release);
    futex::wake_all(&header.doorbell);
}

fn await_ack(header: &Header, slot: &Slot) {
    while !slot.is_done() && !header.launcher_died() {
        futex::wait(&slot.state, SlotState::ReadyWaited as u32, PATIENCE_MS);
    }
    slot.finish(SlotState::Ready);
}

fn with_signals_blocked(action: impl FnOnce()) {
    let mask = signal::set_mask(u64::MAX);
    action();
    signal::set_mask(mask);
}

/// How many of the innermost frames tell one context from another. It is Valgrind's number: with more, one wrong
/// line below a recursion (a comparator of `qsort`, a parser) is told once for each depth.
const CONTEXT_FRAMES: usize = 4;

/// What makes two errors one context: kind, function and the innermost frames; for an error found late also the
/// block's origin, because the stack is only where it was noticed, and for one of a system call its parameter.
fn context_hash(event: &ErrorEvent<'_>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ event.kind as u64;
    let mut mix = |word: u64| {
        // A multiply and a fold of the halves: every bit of the word reaches every bit of the hash.
        let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
        hash = (product as u64) ^ ((product >> 64) as u64);
    };
    mix(event.function.map_or(0, |function| function as u64));
    event.stack.iter().take(CONTEXT_FRAMES).for_each(|pc| mix(pc.0));
    if let Detail::Syscall { parameter, .. } = event.detail {
        parameter.as_str().bytes().for_each(|byte| mix(byte.into()));
    }
    if matches!(event.kind, ErrorKind::FdLeak | ErrorKind::FdInherited) {
        mix(event.address.0);
    }
    if let Detail::Late(_) = event.detail {
        event.allocated.iter().for_each(|pc| mix(pc.0));
    }
    hash
}

/// Copies the value of an environment variable, as the process was started with, and a zero byte.
pub fn find_variable<'a>(name: &[u8], into: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = File::open(b"/proc/self/environ\0", false).ok()?;
    let mut buffer = [0u8; 4096];
    // Where in `NAME=` the current entry agrees so far; `None` when it does not.
    let mut agreed = Some(0);
    let mut value_len = None;
    loop {
        let read = file.read(&mut buffer).ok().filter(|&read| read > 0)?;
        for &byte in &buffer[..read] {
            if let Some(len) = value_len {
                *into.get_mut(len)? = byte;
                if byte == 0 {
                    return Some(&into[..=len]);
                }
                value_len = Some(len + 1);
            } else if byte == 0 {
                agreed = Some(0);
            } else if let Some(at) = agreed {
                match name.get(at) {
                    Some(&expected) if expected == byte => agreed = Some(at + 1),
                    None if byte == b'=' => value_len = Some(0),
                    _ => agreed = None,
                }
            }
        }
    }
}
