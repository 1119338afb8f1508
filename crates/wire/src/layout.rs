//! The shared memory itself: header, streams, slots, and who may change which word.
//!
//! A slot's life, with who makes each step:
//! ```text
//!  FREE ──shim──▶ WRITING ──shim──▶ READY ──────────launcher──▶ FREE
//!                          └─shim──▶ READY_WAITED ──launcher──▶ DONE ──shim──▶ FREE
//! ```
//! A request for a leak search:
//! ```text
//!  CLOSED ──shim──▶ OPEN ──launcher──▶ ASKED ──shim──▶ SERVED ──shim──▶ OPEN
//!                                        └────shim, before it becomes another program──▶ CLOSED
//! ```
//! A stream's: `owner` is zero, then the pid of the process that claimed it; the launcher zeroes it again when
//! that process is gone and its slots are read.
//!
//! Orderings: the Release store of READY pairs with the Acquire load in `ready_words`; the launcher's Release
//! of FREE pairs with the Acquire of the next `try_begin`. Words between are Relaxed.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{Contexts, Counter, Options, Subject, options::OPTION_WORDS, patterns, patterns::PATTERN_BYTES};

/// Changes with every change of the layout or of a record.
pub const VERSION: u64 = 3;

/// The signal that brings a request, and stops threads: 33, which libc keeps for setuid and its kin, so that a
/// program cannot block it or take it through libc.
pub const STOP_SIGNAL: i32 = 33;

/// `"MEMCHECK"` as a little-endian word.
const MAGIC: u64 = u64::from_le_bytes(*b"MEMCHECK");

/// The environment variable that leads a shim to the channel.
pub const CHANNEL_VARIABLE: &str = "MEMCHECK_CHANNEL";

/// How many processes can be watched at once. A stream that is not used costs address space only.
pub const MAX_STREAMS: usize = 1024;

/// How many records of one process can wait. Enough for each thread of an ordinary program to err at once;
/// more wait for a free slot.
pub const SLOTS: usize = 32;

/// How many words a record can have: a slot is one page.
pub const SLOT_WORDS: usize = 510;

/// The bit that the kernel sets in [`Header::launcher`] when the launcher's main thread dies, by whatever cause
/// (`FUTEX_OWNER_DIED`, set_robust_list(2)).
pub const LAUNCHER_DIED: u32 = 0x4000_0000;

/// The first page: what all processes share.
#[repr(C, align(4096))]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    options: [AtomicU64; OPTION_WORDS],
    /// Counts records; the launcher sleeps on it.
    pub doorbell: AtomicU32,
    /// The launcher's main thread, as a robust futex that it holds for life.
    pub launcher: AtomicU32,
    /// One past the highest stream that was ever claimed.
    streams_used: AtomicU32,
    /// Serial numbers given out to processes.
    serials: AtomicU32,
    /// How many processes found no stream.
    unwatched: AtomicU32,
    /// How many forks have begun whose child has no stream yet; a fork that failed stays counted.
    forking: AtomicU32,
    /// See [`patterns`].
    patterns: [AtomicU64; PATTERN_BYTES / 8],
}

/// What one process owns.
#[repr(C, align(4096))]
pub struct Stream {
    /// `state << 32 | pid`, or zero.
    owner: AtomicU64,
    /// The number of the next record.
    sequence: AtomicU64,
    /// Counts freed slots; a shim that found none sleeps on it.
    pub freed: AtomicU32,
    /// How many records were dropped because the launcher was dead or the record malformed.
    dropped: AtomicU32,
    /// A [`Requests`].
    requests: AtomicU32,
    counters: [AtomicU64; Counter::ALL.len()],
    /// Which error contexts this process had, and how often.
    pub contexts: Contexts,
    slots: [Slot; SLOTS],
}

/// One record on its way.
#[repr(C, align(4096))]
pub struct Slot {
    /// A [`SlotState`]; a shim that waits for the launcher sleeps on it.
    pub state: AtomicU32,
    used_words: AtomicU32,
    sequence: AtomicU64,
    words: [AtomicU64; SLOT_WORDS],
}

/// How many bytes one stream takes.
pub const STREAM_BYTES: usize = size_of::<Stream>();
/// How many bytes the whole channel takes (a sparse file: most of it is never touched).
pub const CHANNEL_BYTES: usize = size_of::<Header>() + MAX_STREAMS * STREAM_BYTES;

const _: () = assert!(size_of::<Header>() == 4096);
const _: () = assert!(size_of::<Slot>() == 4096);
const _: () = assert!(STREAM_BYTES == 4096 + Contexts::BYTES + SLOTS * 4096);

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SlotState {
    /// Nothing.
    Free = 0,
    /// A record that is being written.
    Writing = 1,
    /// A record that nobody waits for.
    Ready = 2,
    /// A record whose thread waits until the launcher has dealt with it.
    ReadyWaited = 3,
    /// A record that was dealt with, and whose thread has not noticed yet.
    Done = 4,
}

/// How it stands with requests for a leak search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Requests {
    /// The process cannot take one.
    Closed = 0,
    /// It can: it has a handler for the signal that brings it.
    Open = 1,
    /// The launcher asked, and sends the signal.
    Asked = 2,
    /// A thread searches.
    Served = 3,
}

/// Who has a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    None,
    /// This process runs.
    Running(u32),
    /// This process did its last work and will end with this status next.
    Exiting(u32, u8),
    /// This process did its last work and will die by this signal next.
    Dying(u32, u8),
}

const RUNNING: u64 = 1;
const EXITING: u64 = 2;
const DYING: u64 = 3;

impl Owner {
    fn pack(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Running(pid) => RUNNING << 32 | u64::from(pid),
            Self::Exiting(pid, code) => EXITING << 32 | u64::from(code) << 40 | u64::from(pid),
            Self::Dying(pid, signal) => DYING << 32 | u64::from(signal) << 40 | u64::from(pid),
        }
    }

    fn unpack(word: u64) -> Self {
        let (pid, value) = (word as u32, (word >> 40) as u8);
        match (word >> 32) & 0xff {
            RUNNING => Self::Running(pid),
            EXITING => Self::Exiting(pid, value),
            DYING => Self::Dying(pid, value),
            _ => Self::None,
        }
    }

    /// The process, if there is one.
    #[must_use]
    pub const fn pid(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Running(pid) | Self::Exiting(pid, _) | Self::Dying(pid, _) => Some(pid),
        }
    }
}

impl Header {
    /// Makes a fresh, zeroed header valid. The launcher calls this before any shim sees it.
    pub fn initialise(&self, options: &Options) {
        options.store_in(&self.options);
        self.version.store(VERSION, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release);
    }

    /// The options, or `None` when the launcher is of another version.
    #[must_use]
    pub fn options(&self) -> Option<Options> {
        let valid =
            self.magic.load(Ordering::Acquire) == MAGIC && self.version.load(Ordering::Relaxed) == VERSION;
        if valid { Options::load(&self.options) } else { None }
    }

    /// Sets the patterns that shims go by. Whether there was room; call it before any shim looks.
    pub fn set_patterns<'a>(&self, patterns: impl IntoIterator<Item = (Subject, &'a [u8])>) -> bool {
        let mut list = [0; PATTERN_BYTES];
        let fits = patterns::write_in(&mut list, patterns).is_some();
        if fits {
            for (word, bytes) in self.patterns.iter().zip(list.as_chunks::<8>().0) {
                word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
            }
        }
        fits
    }

    /// The patterns, or `None` when there are none.
    fn pattern_list(&self) -> Option<[u8; PATTERN_BYTES]> {
        if self.patterns[0].load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut list = [0; PATTERN_BYTES];
        for (bytes, word) in list.as_chunks_mut::<8>().0.iter_mut().zip(&self.patterns) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        Some(list)
    }

    /// Whether a program with this path and these arguments is not to be watched.
    #[must_use]
    pub fn skips<'a>(&self, path: &[u8], arguments: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        self.pattern_list().is_some_and(|list| patterns::skips(&list, path, arguments))
    }

    /// Whether the shim stands for the allocator of a module with this DT_SONAME.
    #[must_use]
    pub fn takes_allocator(&self, soname: Option<&[u8]>) -> bool {
        self.pattern_list().is_none_or(|list| patterns::takes_allocator(&list, soname))
    }

    /// Whether the launcher is gone.
    #[must_use]
    pub fn launcher_died(&self) -> bool {
        self.launcher.load(Ordering::Relaxed) & LAUNCHER_DIED != 0
    }

    /// A number that no other process image of this run has.
    pub fn next_serial(&self) -> u32 {
        self.serials.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// How many of the streams, from the first on, may be in use.
    #[must_use]
    pub fn streams_used(&self) -> usize {
        (self.streams_used.load(Ordering::Acquire) as usize).min(MAX_STREAMS)
    }

    /// How many processes found no stream.
    #[must_use]
    pub fn unwatched(&self) -> u32 {
        self.unwatched.load(Ordering::Relaxed)
    }

    /// Says that a process forks.
    pub fn begin_fork(&self) {
        self.forking.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that a forked child has its stream. The launcher, which reads a zero here, also sees the stream.
    pub fn end_fork(&self) {
        self.forking.fetch_sub(1, Ordering::Release);
    }

    /// How many forked children may be about to take a stream.
    pub fn forking(&self) -> u32 {
        self.forking.load(Ordering::Acquire)
    }

    /// Takes a stream for the process `pid`.
    pub fn claim<'a>(&self, streams: &'a [Stream], pid: u32) -> Option<&'a Stream> {
        for (index, stream) in streams.iter().enumerate() {
            let owner = Owner::Running(pid).pack();
            // Acquire pairs with the launcher's Release in `Stream::release`.
            if stream.owner.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.streams_used.fetch_max(index as u32 + 1, Ordering::AcqRel);
                return Some(stream);
            }
        }
        self.unwatched.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Stream {
    /// Who has the stream.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::unpack(self.owner.load(Ordering::Acquire))
    }

    /// Says how its process goes on. Only for the process that has it.
    pub fn set_owner(&self, owner: Owner) {
        self.owner.store(owner.pack(), Ordering::Release);
    }

    /// One of the stream's statistics.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> &AtomicU64 {
        &self.counters[counter as usize]
    }

    /// The slots that were ever used: the first ones, as `try_begin` takes the first that is free. The others are memory
    /// that nobody has touched yet.
    pub fn used_slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().take_while(|slot| slot.is_used())
    }

    /// A free slot, now `Writing` and the caller's.
    #[must_use]
    pub fn try_begin(&self) -> Option<&Slot> {
        self.slots.iter().find(|slot| {
            let (from, to) = (SlotState::Free as u32, SlotState::Writing as u32);
            slot.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })
    }

    /// Hands the slot to the launcher, `waited` or not. The caller rings the doorbell then.
    pub fn publish(&self, slot: &Slot, used_words: usize, state: SlotState) {
        slot.used_words.store(used_words as u32, Ordering::Relaxed);
        slot.sequence.store(self.sequence.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        slot.state.store(state as u32, Ordering::Release);
    }

    /// Moves the word of requests on; false when it did not stand at `from`.
    pub fn move_requests(&self, from: Requests, to: Requests) -> bool {
        self.requests.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Notes a record that could not be sent.
    pub fn note_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many records could not be sent.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Zeroes the stream's first page and gives the stream up. The launcher calls this after it zeroed
    /// [`Stream::bulk_bytes`] of the file.
    pub fn release(&self) {
        self.sequence.store(0, Ordering::Relaxed);
        self.freed.store(0, Ordering::Relaxed);
        self.dropped.store(0, Ordering::Relaxed);
        self.requests.store(0, Ordering::Relaxed);
        for counter in &self.counters {
            counter.store(0, Ordering::Relaxed);
        }
        self.owner.store(0, Ordering::Release);
    }

    /// Which bytes of a stream, counted from its start, hold contexts and slots.
    #[must_use]
    pub const fn bulk_bytes() -> core::ops::Range<usize> {
        4096..STREAM_BYTES
    }
}

impl Slot {
    /// The words to write a record to.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// The record's number in its stream and whether a thread waits, when there is a record.
    #[must_use]
    pub fn ready(&self) -> Option<(u64, SlotState)> {
        let state = match self.state.load(Ordering::Acquire) {
            state if state == SlotState::Ready as u32 => SlotState::Ready,
            state if state == SlotState::ReadyWaited as u32 => SlotState::ReadyWaited,
            _ => return None,
        };
        Some((self.sequence.load(Ordering::Relaxed), state))
    }

    fn is_used(&self) -> bool {
        self.state.load(Ordering::Acquire) != SlotState::Free as u32
            || self.used_words.load(Ordering::Relaxed) != 0
    }

    /// Copies the record's words, and returns those that are used. Nothing that the target writes later
    /// changes what is looked at.
    pub fn copy_in<'a>(&self, copy: &'a mut [u64; SLOT_WORDS]) -> &'a [u64] {
        let used = (self.used_words.load(Ordering::Relaxed) as usize).min(SLOT_WORDS);
        for (to, from) in copy.iter_mut().zip(&self.words[..used]) {
            *to = from.load(Ordering::Relaxed);
        }
        &copy[..used]
    }

    /// Gives the slot back: to the thread that waits, or to all.
    pub fn finish(&self, state: SlotState) {
        let next = if state == SlotState::ReadyWaited { SlotState::Done } else { SlotState::Free };
        self.state.store(next as u32, Ordering::Release);
    }

    /// Whether the launcher has dealt with the record.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == SlotState::Done as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[expect(clippy::declare_interior_mutable_const, reason = "it initialises statics")]
    const ZERO: AtomicU64 = AtomicU64::new(0);

    #[expect(clippy::declare_interior_mutable_const, reason = "it initialises statics")]
    const STREAM: Stream = Stream {
        owner: ZERO,
        sequence: ZERO,
        freed: AtomicU32::new(0),
        dropped: AtomicU32::new(0),
        requests: AtomicU32::new(0),
        counters: [const { ZERO }; Counter::ALL.len()],
        contexts: Contexts::NEW,
        slots: [const {
            Slot {
                state: AtomicU32::new(0),
                used_words: AtomicU32::new(0),
                sequence: ZERO,
                words: [const { ZERO }; SLOT_WORDS],
            }
        }; SLOTS],
    };

    #[expect(clippy::declare_interior_mutable_const, reason = "it initialises statics")]
    const HEADER: Header = Header {
        magic: ZERO,
        version: ZERO,
        options: [const { ZERO }; OPTION_WORDS],
        doorbell: AtomicU32::new(0),
        launcher: AtomicU32::new(0),
        streams_used: AtomicU32::new(0),
        serials: AtomicU32::new(0),
        unwatched: AtomicU32::new(0),
        forking: AtomicU32::new(0),
        patterns: [const { AtomicU64::new(0) }; PATTERN_BYTES / 8],
    };

    #[test]
    fn a_header_of_another_version_gives_no_options() {
        static HEADER_PAGE: Header = HEADER;
        let header = &HEADER_PAGE;
        assert_eq!(header.options(), None);
        header.initialise(&Options::default());
        assert_eq!(header.options(), Some(Options::default()));
        header.version.store(VERSION + 1, Ordering::Relaxed);
        assert_eq!(header.options(), None);
    }

    #[test]
    fn each_process_claims_a_stream_of_its_own() {
        static HEADER_PAGE: Header = HEADER;
        static STREAMS: [Stream; 2] = [const { STREAM }; 2];
        let (header, streams) = (&HEADER_PAGE, &STREAMS);
        let first = header.claim(streams, 7).unwrap();
        let second = header.claim(streams, 8).unwrap();
        assert_eq!((first.owner(), second.owner()), (Owner::Running(7), Owner::Running(8)));
        assert!(header.claim(streams, 9).is_none());
        assert_eq!((header.unwatched(), header.streams_used()), (1, 2));
        first.release();
        assert!(core::ptr::eq(header.claim(streams, 9).unwrap(), first));
    }

    #[test]
    fn a_waited_record_stays_its_threads_until_done() {
        static ONE: Stream = STREAM;
        let stream = &ONE;
        let slot = stream.try_begin().unwrap();
        assert_eq!(slot.ready(), None);
        slot.words()[0].store(42, Ordering::Relaxed);
        stream.publish(slot, 1, SlotState::ReadyWaited);
        assert_eq!(slot.ready(), Some((0, SlotState::ReadyWaited)));
        assert_eq!(slot.copy_in(&mut [0; SLOT_WORDS]), [42]);
        slot.finish(SlotState::ReadyWaited);
        assert!(slot.is_done());
    }

    #[test]
    fn slots_that_were_used_are_the_first_whether_they_are_free_again_or_not() {
        static STREAM_HERE: Stream = STREAM;
        let stream = &STREAM_HERE;
        assert_eq!(stream.used_slots().count(), 0);
        let [first, second] = [(); 2].map(|()| stream.try_begin().unwrap());
        assert_eq!(stream.used_slots().count(), 2, "one that is being written is used");
        stream.publish(second, 1, SlotState::Ready);
        stream.publish(first, 1, SlotState::Ready);
        assert_eq!(stream.used_slots().filter_map(Slot::ready).count(), 2);
        first.finish(SlotState::Ready);
        assert_eq!(stream.used_slots().filter_map(Slot::ready).count(), 1);
    }

    #[test]
    fn a_full_stream_has_no_slot_to_give() {
        static ONE: Stream = STREAM;
        let stream = &ONE;
        let taken: Vec<_> = (0..SLOTS).map(|_| stream.try_begin().unwrap()).collect();
        assert!(stream.try_begin().is_none());
        stream.publish(taken[3], 0, SlotState::Ready);
        taken[3].finish(SlotState::Ready);
        assert!(core::ptr::eq(stream.try_begin().unwrap(), taken[3]));
    }

    #[test]
    fn owners_survive_packing() {
        for owner in [Owner::None, Owner::Running(u32::MAX), Owner::Exiting(1, 255), Owner::Dying(2, 11)] {
            assert_eq!(Owner::unpack(owner.pack()), owner);
        }
    }
}
