//! What the launcher tells every shim: the options that change what happens inside the target.

use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_model::{LeakKind, MAX_FRAMES};

/// How many words the block has; more than it needs, so that the layout stays when options are added.
pub const OPTION_WORDS: usize = 64;

/// What is done about leaks at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LeakCheck {
    /// Nothing.
    No = 0,
    /// Sums only.
    Summary = 1,
    /// Each loss record with its stack.
    Full = 2,
}

/// Which descriptors are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TrackFds {
    /// None.
    No = 0,
    /// All but the three standard ones.
    Yes = 1,
    /// All.
    All = 2,
}

/// How much of two allocation stacks must agree for their blocks to share a loss record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LeakResolution {
    /// The two innermost frames.
    Low = 0,
    /// The four innermost frames.
    Medium = 1,
    /// All frames.
    High = 2,
}

/// The options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether accesses are checked at the instruction.
    pub access_checks: bool,
    /// Whether functions are translated when their module is loaded rather than when they are first called.
    pub eager: bool,
    /// Whether dead registers and flags are filled with garbage at each check, to find defects of ours.
    pub stress: bool,
    /// Whether programs that the target starts are watched too.
    pub trace_children: bool,
    /// Whether the process ends at its first error.
    pub exit_on_first_error: bool,
    /// The status to end with then.
    pub error_exitcode: u8,
    /// How many frames a stack has, 1 to [`MAX_FRAMES`].
    pub num_callers: u8,
    /// What is done about leaks.
    pub leak_check: LeakCheck,
    /// What makes a loss record.
    pub leak_resolution: LeakResolution,
    /// The kinds of leaks to send, one bit for each `LeakKind as u8`.
    pub leak_kinds: u8,
    /// The leak heuristics in use, one bit each: stdstring, length64, newarray, multipleinheritance,
    /// pool.
    pub leak_heuristics: u8,
    /// How many low bits of a pointer are looked through.
    pub leak_tag_bits: u8,
    /// Bytes of freed memory that are kept from reuse, or `None` for what the heap thinks right.
    pub quarantine_bytes: Option<u64>,
    /// What fresh memory is filled with.
    pub malloc_fill: Option<u8>,
    /// What freed memory is filled with.
    pub free_fill: Option<u8>,
    /// Whether `realloc(p, 0)` frees `p`, as glibc does.
    pub realloc_zero_frees: bool,
    /// Every block's alignment is a multiple of `1 << align_shift`, up to [`MAX_ALIGN_SHIFT`].
    pub align_shift: u8,
    /// How many bytes that no block uses lie between two blocks at least, or 0 for what the heap thinks right.
    pub redzone_bytes: u16,
    /// What programs are told that ask whether they run on Valgrind.
    pub running_on_valgrind: bool,
    /// Which descriptors are told of.
    pub track_fds: TrackFds,
}

/// The largest alignment that can be asked for of every block: a page's.
pub const MAX_ALIGN_SHIFT: u8 = 12;

impl Default for Options {
    fn default() -> Self {
        Self {
            access_checks: true,
            eager: false,
            stress: false,
            trace_children: true,
            exit_on_first_error: false,
            error_exitcode: 99,
            num_callers: 30,
            leak_check: LeakCheck::Full,
            leak_resolution: LeakResolution::High,
            leak_kinds: (1 << LeakKind::Definite as u8) | (1 << LeakKind::Possible as u8),
            leak_heuristics: 0b1_1111,
            leak_tag_bits: 0,
            quarantine_bytes: None,
            malloc_fill: None,
            free_fill: None,
            realloc_zero_frees: true,
            align_shift: 0,
            redzone_bytes: 0,
            running_on_valgrind: false,
            track_fds: TrackFds::No,
        }
    }
}

/// An optional number as a word: zero is none.
fn pack_option(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value.saturating_add(1))
}

impl Options {
    fn to_words(self) -> [u64; 20] {
        [
            self.access_checks.into(),
            self.eager.into(),
            self.stress.into(),
            self.trace_children.into(),
            self.exit_on_first_error.into(),
            self.error_exitcode.into(),
            self.num_callers.into(),
            self.leak_check as u64,
            self.leak_resolution as u64,
            self.leak_kinds.into(),
            self.leak_heuristics.into(),
            self.leak_tag_bits.into(),
            pack_option(self.quarantine_bytes),
            pack_option(self.malloc_fill.map(u64::from)),
            pack_option(self.free_fill.map(u64::from)),
            self.realloc_zero_frees.into(),
            self.align_shift.into(),
            self.redzone_bytes.into(),
            self.running_on_valgrind.into(),
            self.track_fds as u64,
        ]
    }

    pub(crate) fn store_in(&self, words: &[AtomicU64; OPTION_WORDS]) {
        for (to, from) in words.iter().zip(self.to_words()) {
            to.store(from, Ordering::Relaxed);
        }
    }

    /// The options, or `None` when a word has a meaning that this version does not know.
    pub(crate) fn load(words: &[AtomicU64; OPTION_WORDS]) -> Option<Self> {
        let word = |index: usize| words[index].load(Ordering::Relaxed);
        let flag = |index| match word(index) {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        let byte = |index| u8::try_from(word(index)).ok();
        let fill = |index| match word(index).checked_sub(1) {
            None => Some(None),
            Some(value) => u8::try_from(value).ok().map(Some),
        };
        Some(Self {
            access_checks: flag(0)?,
            eager: flag(1)?,
            stress: flag(2)?,
            trace_children: flag(3)?,
            exit_on_first_error: flag(4)?,
            error_exitcode: byte(5)?,
            num_callers: byte(6).filter(|&frames| (1..=MAX_FRAMES).contains(&frames.into()))?,
            leak_check: match word(7) {
                0 => LeakCheck::No,
                1 => LeakCheck::Summary,
                2 => LeakCheck::Full,
                _ => return None,
            },
            leak_resolution: match word(8) {
                0 => LeakResolution::Low,
                1 => LeakResolution::Medium,
                2 => LeakResolution::High,
                _ => return None,
            },
            leak_kinds: byte(9)?,
            leak_heuristics: byte(10)?,
            leak_tag_bits: byte(11)?,
            quarantine_bytes: word(12).checked_sub(1),
            malloc_fill: fill(13)?,
            free_fill: fill(14)?,
            realloc_zero_frees: flag(15)?,
            align_shift: byte(16).filter(|&shift| shift <= MAX_ALIGN_SHIFT)?,
            redzone_bytes: u16::try_from(word(17)).ok()?,
            running_on_valgrind: flag(18)?,
            track_fds: match word(19) {
                0 => TrackFds::No,
                1 => TrackFds::Yes,
                2 => TrackFds::All,
                _ => return None,
            },
        })
    }

    /// Whether loss records of this kind are sent.
    #[must_use]
    pub const fn sends(&self, kind: LeakKind) -> bool {
        self.leak_kinds & (1 << kind as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> [AtomicU64; OPTION_WORDS] {
        core::array::from_fn(|_| AtomicU64::new(0))
    }

    #[test]
    fn options_survive_the_wire() {
        let options = Options {
            quarantine_bytes: Some(0),
            malloc_fill: Some(255),
            free_fill: Some(0),
            num_callers: 64,
            leak_check: LeakCheck::Summary,
            access_checks: false,
            align_shift: MAX_ALIGN_SHIFT,
            redzone_bytes: 4096,
            running_on_valgrind: true,
            track_fds: TrackFds::All,
            ..Options::default()
        };
        for options in [options, Options::default()] {
            let words = words();
            options.store_in(&words);
            assert_eq!(Options::load(&words), Some(options));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(values in proptest::collection::vec(0u64..300, 20)) {
            let words = words();
            for (to, from) in words.iter().zip(values) {
                to.store(from, Ordering::Relaxed);
            }
            let _ = Options::load(&words);
        }
    }
}
