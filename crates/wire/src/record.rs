//! What the records say, to and from the words of a slot.
//!
//! A record is `kind, fields…`, each field one word unless `words` says otherwise. Encoding never fails for
//! lack of room: stacks are cut to `MAX_FRAMES`, texts to [`TEXT_MAX`], and what remains fits (asserted by
//! tests with the largest of each).

use core::sync::atomic::AtomicU64;
use memcheck_model::{
    Addr, ErrorEvent, Function, Holding, LeakKind, MAX_FRAMES, PATH_STEPS, Pc, Root, RootKind, SearchScope,
    Size, Step, ThreadId,
};

use crate::{
    event,
    words::{Malformed, Reader, Writer, cut},
};

/// The longest text in a record, in bytes.
pub const TEXT_MAX: usize = 3072;

/// How a process came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKind {
    /// By exec: its memory and modules are new.
    Exec,
    /// By fork from the process with this serial: it has that one's modules.
    Fork(u32),
}

/// A process, or a new program in an old one, begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStart<'a> {
    /// Its number in this run, unique unlike pids.
    pub serial: u32,
    /// Its parent's pid.
    pub ppid: u32,
    /// How it came to be.
    pub kind: StartKind,
    /// Its arguments, each ended by a zero byte; cut when they are long.
    pub arguments: &'a [u8],
}

/// A module is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Where its first byte is mapped.
    pub start: Addr,
    /// Where its last mapping ends.
    pub end: Addr,
    /// What is added to the addresses stated in its file.
    pub bias: u64,
    /// Its build-id, or nothing.
    pub build_id: &'a [u8],
    /// Its file.
    pub path: &'a [u8],
}

/// Blocks that were lost (or are still held) alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossRecord<'a> {
    /// Its number among all records of the search by bytes, from 1 for the smallest.
    pub number: u32,
    /// How many records the search made.
    pub of: u32,
    /// How they are held.
    pub kind: LeakKind,
    /// The function that allocated them.
    pub allocated_by: Function,
    /// How many they are.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: Size,
    /// How many blocks are lost with them.
    pub indirect_blocks: u64,
    /// The bytes of those.
    pub indirect_bytes: Size,
    /// The address of one of them.
    pub sample: Addr,
    /// Where they were allocated.
    pub stack: &'a [Pc],
    /// What holds the sample.
    pub held_by: Option<Holding<'a>>,
}

/// Something the user should know about how the process is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NoticeKind {
    /// The module named by the text defines its own allocator functions: its heap is not seen.
    OwnMalloc = 1,
    /// The shadow's addresses are taken: accesses are not checked. The text says by what.
    NoShadow = 2,
    /// The heap's addresses are taken: nothing is watched.
    NoHeap = 3,
    /// The leak search could not be made. The text says why.
    NoLeakSearch = 4,
    /// The process is about to become the program named by the text, which cannot be watched.
    ExecUnwatched = 5,
    /// Anything else, told by the text alone.
    Other = 6,
    /// A reason why functions stay native, as `count reason`: for statistics.
    Coverage = 7,
    /// The leak search begins: it may take a while.
    LeakSearch = 8,
    /// A system call that passed without a look at its arguments, as `count name`: for statistics.
    UnknownCall = 9,
}

impl NoticeKind {
    const ALL: [Self; 9] = [
        Self::OwnMalloc,
        Self::NoShadow,
        Self::NoHeap,
        Self::NoLeakSearch,
        Self::ExecUnwatched,
        Self::Other,
        Self::Coverage,
        Self::LeakSearch,
        Self::UnknownCall,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == code)
    }
}

/// A [`NoticeKind`] with its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    /// What it is about.
    pub kind: NoticeKind,
    /// What is particular to it, for people.
    pub text: &'a [u8],
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first record of each process image.
    Start(ProcessStart<'a>),
    /// A module is mapped.
    ModuleLoaded(Module<'a>),
    /// The module that started at this address is unmapped, and is now known by this number: see
    /// [`Pc::in_unloaded`].
    ModuleUnloaded(Addr, u16),
    /// An error whose context was not seen before, with the context's index in the stream's table.
    Error {
        /// Where its count is.
        context: u32,
        /// The error.
        event: ErrorEvent<'a>,
    },
    /// One loss record of the leak search.
    Loss(LossRecord<'a>),
    /// The sums of a leak search for one kind, whether or not its records are sent.
    LossSum {
        /// Of what.
        kind: LeakKind,
        /// How many blocks.
        blocks: u64,
        /// How many bytes.
        bytes: Size,
    },
    /// Something to tell the user.
    Notice(Notice<'a>),
    /// A leak search that was asked for begins: what follows, up to its end, is the answer.
    SearchBegins,
    /// It ends.
    SearchEnds(SearchScope),
    /// What the program itself wants to be told to the user.
    Message {
        /// Its text, cut when it is long.
        text: &'a [u8],
        /// Where it was said, the instruction itself first; or empty.
        stack: &'a [Pc],
    },
}

const START: u64 = 1;
const MODULE_LOADED: u64 = 2;
const MODULE_UNLOADED: u64 = 3;
const ERROR: u64 = 4;
const LOSS: u64 = 5;
const LOSS_SUM: u64 = 6;
const NOTICE: u64 = 7;
const SEARCH_BEGINS: u64 = 8;
const SEARCH_ENDS: u64 = 9;
const MESSAGE: u64 = 10;

/// The memory that a decoded record borrows from.
pub struct Scratch {
    stacks: [[Pc; MAX_FRAMES]; 3],
    steps: [Step; PATH_STEPS],
    text: [u8; TEXT_MAX],
    build_id: [u8; BUILD_ID_MAX],
}

/// The longest build-id that is carried: a SHA-256 and then some.
const BUILD_ID_MAX: usize = 64;

impl Scratch {
    /// Empty scratch memory.
    #[must_use]
    pub const fn new() -> Self {
        let steps = [Step { into: 0, at: 0 }; PATH_STEPS];
        Self { stacks: [[Pc(0); MAX_FRAMES]; 3], steps, text: [0; TEXT_MAX], build_id: [0; BUILD_ID_MAX] }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes `record` to a slot's words and returns how many it took.
pub fn encode(record: &Record<'_>, words: &[AtomicU64]) -> Option<usize> {
    let mut to = Writer::new(words);
    match record {
        Record::Start(start) => {
            to.word(START);
            to.word(start.serial);
            to.word(start.ppid);
            to.word(match start.kind {
                StartKind::Exec => 0,
                StartKind::Fork(parent) => u64::from(parent) + 1,
            });
            to.bytes(cut(start.arguments, TEXT_MAX));
        }
        Record::ModuleLoaded(module) => {
            to.word(MODULE_LOADED);
            to.word(module.start.0);
            to.word(module.end.0);
            to.word(module.bias);
            to.bytes(cut(module.build_id, BUILD_ID_MAX));
            to.bytes(cut(module.path, TEXT_MAX));
        }
        Record::ModuleUnloaded(start, number) => {
            to.word(MODULE_UNLOADED);
            to.word(start.0);
            to.word(u64::from(*number));
        }
        Record::Error { context, event } => {
            to.word(ERROR);
            to.word(*context);
            event::encode(&mut to, event);
        }
        Record::Loss(loss) => {
            to.word(LOSS);
            to.word(loss.number);
            to.word(loss.of);
            to.word(loss.kind as u64);
            to.word(loss.allocated_by as u64);
            to.word(loss.blocks);
            to.word(loss.bytes.0);
            to.word(loss.indirect_blocks);
            to.word(loss.indirect_bytes.0);
            to.word(loss.sample.0);
            to.stack(loss.stack, MAX_FRAMES);
            to.word(loss.held_by.is_some());
            if let Some(holding) = &loss.held_by {
                to.word(holding.root.kind as u64);
                to.word(holding.root.address.0);
                to.word(holding.root.tid.0);
                to.word(holding.left_out);
                let steps = &holding.steps[..holding.steps.len().min(PATH_STEPS)];
                to.word(steps.len() as u64);
                for step in steps {
                    to.word(step.into);
                    to.word(step.at);
                }
            }
        }
        Record::LossSum { kind, blocks, bytes } => {
            to.word(LOSS_SUM);
            to.word(*kind as u64);
            to.word(*blocks);
            to.word(bytes.0);
        }
        Record::Notice(notice) => {
            to.word(NOTICE);
            to.word(notice.kind as u64);
            to.bytes(cut(notice.text, TEXT_MAX));
        }
        Record::SearchBegins => to.word(SEARCH_BEGINS),
        Record::SearchEnds(scope) => {
            to.word(SEARCH_ENDS);
            to.word(*scope as u64);
        }
        Record::Message { text, stack } => {
            to.word(MESSAGE);
            to.bytes(cut(text, TEXT_MAX));
            to.stack(stack, MAX_FRAMES);
        }
    }
    to.finish()
}

/// Reads the record that `words` hold.
///
/// # Errors
/// When they hold none.
pub fn decode<'a>(words: &[u64], scratch: &'a mut Scratch) -> Result<Record<'a>, Malformed> {
    let mut from = Reader::new(words);
    match from.word()? {
        START => Ok(Record::Start(ProcessStart {
            serial: from.narrow("serial")?,
            ppid: from.narrow("ppid")?,
            kind: match from.word()?.checked_sub(1) {
                None => StartKind::Exec,
                Some(parent) => StartKind::Fork(
                    u32::try_from(parent).map_err(|_| Malformed::Field { name: "parent", value: parent })?,
                ),
            },
            arguments: from.bytes_in("arguments", &mut scratch.text)?,
        })),
        MODULE_LOADED => Ok(Record::ModuleLoaded(Module {
            start: Addr(from.word()?),
            end: Addr(from.word()?),
            bias: from.word()?,
            build_id: from.bytes_in("build-id", &mut scratch.build_id)?,
            path: from.bytes_in("module path", &mut scratch.text)?,
        })),
        MODULE_UNLOADED => Ok(Record::ModuleUnloaded(Addr(from.word()?), from.narrow("module number")?)),
        ERROR => Ok(Record::Error {
            context: from.narrow("context")?,
            event: event::decode(&mut from, &mut scratch.stacks)?,
        }),
        LOSS => {
            let [stack, ..] = &mut scratch.stacks;
            Ok(Record::Loss(LossRecord {
                number: from.narrow("number")?,
                of: from.narrow("number of records")?,
                kind: from.choice("leak kind", leak_kind)?,
                allocated_by: from.choice("function", Function::from_code)?,
                blocks: from.word()?,
                bytes: Size(from.word()?),
                indirect_blocks: from.word()?,
                indirect_bytes: Size(from.word()?),
                sample: Addr(from.word()?),
                stack: from.stack_in("stack", stack)?,
                held_by: decode_holding(&mut from, &mut scratch.steps)?,
            }))
        }
        LOSS_SUM => Ok(Record::LossSum {
            kind: from.choice("leak kind", leak_kind)?,
            blocks: from.word()?,
            bytes: Size(from.word()?),
        }),
        NOTICE => Ok(Record::Notice(Notice {
            kind: from.choice("notice", NoticeKind::from_code)?,
            text: from.bytes_in("notice text", &mut scratch.text)?,
        })),
        SEARCH_BEGINS => Ok(Record::SearchBegins),
        SEARCH_ENDS => Ok(Record::SearchEnds(from.choice("search scope", search_scope)?)),
        MESSAGE => Ok(Record::Message {
            text: from.bytes_in("message", &mut scratch.text)?,
            stack: from.stack_in("stack", &mut scratch.stacks[0])?,
        }),
        value => Err(Malformed::Field { name: "record kind", value }),
    }
}

fn decode_holding<'a>(
    from: &mut Reader<'_>,
    into: &'a mut [Step; PATH_STEPS],
) -> Result<Option<Holding<'a>>, Malformed> {
    if from.word()? == 0 {
        return Ok(None);
    }
    let root = Root {
        kind: from.choice("root", RootKind::from_code)?,
        address: Addr(from.word()?),
        tid: ThreadId(from.narrow("thread")?),
    };
    let left_out = from.word()?;
    let count: usize = from.narrow("steps")?;
    let steps = into.get_mut(..count).ok_or(Malformed::Field { name: "steps", value: count as u64 })?;
    for step in &mut *steps {
        *step = Step { into: from.word()?, at: from.word()? };
    }
    Ok(Some(Holding { root, steps, left_out }))
}

fn search_scope(code: u8) -> Option<SearchScope> {
    SearchScope::ALL.into_iter().find(|&scope| scope as u8 == code)
}

fn leak_kind(code: u8) -> Option<LeakKind> {
    LeakKind::ALL.into_iter().find(|&kind| kind as u8 == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SLOT_WORDS;
    use core::sync::atomic::Ordering;
    use memcheck_model::{
        Access, AccessKind, Block, BlockState, Damage, Detail, ErrorKind, FileName, ParameterName, Place,
    };
    use proptest::prelude::*;
    use std::vec::Vec;

    fn round_trip(record: &Record<'_>) {
        let words: Vec<AtomicU64> = (0..SLOT_WORDS).map(|_| AtomicU64::new(u64::MAX)).collect();
        let used = encode(record, &words).expect("it fits");
        let copy: Vec<u64> = words[..used].iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let mut scratch = Scratch::new();
        assert_eq!(decode(&copy, &mut scratch).as_ref(), Ok(record));
        for short in 0..used {
            let mut scratch = Scratch::new();
            assert!(decode(&copy[..short], &mut scratch).is_err(), "{short} of {used} words");
        }
    }

    fn block() -> Block {
        Block {
            start: Addr(u64::MAX),
            size: Size(u64::MAX),
            state: BlockState::Freed,
            allocated_by: Function::Malloc,
            freed_by: Some(Function::Free),
            alloc_tid: ThreadId(1),
            free_tid: ThreadId(u32::MAX),
        }
    }

    #[test]
    fn the_largest_error_fits_and_survives() {
        let stack: Vec<Pc> = (0..MAX_FRAMES as u64).map(Pc).collect();
        let places = [
            Place::None,
            Place::NullPage,
            Place::Block(block()),
            Place::HeapUnused,
            Place::Stack(ThreadId(7)),
            Place::Module,
            Place::Mapped,
            Place::Unmapped,
        ];
        let details = [
            Detail::None,
            Detail::Late(Damage {
                first: -1,
                last: i64::MAX,
                changed: Size(3),
                content: [9; 16],
                content_len: 16,
            }),
            Detail::Sizes([u64::MAX, 1]),
            Detail::Alignment(3),
            Detail::SizedDelete { size: 1, align: 2, block_align: 3 },
            Detail::Signal { number: 11, code: -6 },
            Detail::Overlap { destination: 1, source: 2, size: 3 },
            Detail::File(FileName::new(&[b'/'; FileName::MAX_BYTES])),
            Detail::Syscall {
                number: 1,
                parameter: ParameterName::new(format_args!("buf")),
                offset: u64::MAX,
            },
        ];
        for place in places {
            for detail in details {
                for &kind in ErrorKind::ALL {
                    let event = ErrorEvent {
                        kind,
                        tid: ThreadId(5),
                        function: Some(Function::Wcpncpy),
                        access: Some(Access { kind: AccessKind::Write, addr: Addr(1), size: Size(2) }),
                        address: Addr(3),
                        place,
                        detail,
                        exact_top: true,
                        stack: &stack,
                        allocated: &stack,
                        freed: &stack,
                    };
                    round_trip(&Record::Error { context: u32::MAX, event });
                }
            }
        }
    }

    #[test]
    fn every_other_record_survives_at_its_largest() {
        let stack: Vec<Pc> = (0..MAX_FRAMES as u64).map(Pc).collect();
        let text = [b'x'; TEXT_MAX];
        for kind in [StartKind::Exec, StartKind::Fork(0), StartKind::Fork(u32::MAX)] {
            round_trip(&Record::Start(ProcessStart { serial: 1, ppid: 2, kind, arguments: &text }));
        }
        round_trip(&Record::ModuleLoaded(Module {
            start: Addr(1),
            end: Addr(2),
            bias: u64::MAX,
            build_id: &[1; BUILD_ID_MAX],
            path: &text,
        }));
        round_trip(&Record::ModuleUnloaded(Addr(1), 2));
        round_trip(&Record::SearchBegins);
        for scope in SearchScope::ALL {
            round_trip(&Record::SearchEnds(scope));
        }
        for kind in LeakKind::ALL {
            round_trip(&Record::Loss(LossRecord {
                number: 6,
                of: 7,
                kind,
                allocated_by: Function::New,
                blocks: 1,
                bytes: Size(2),
                indirect_blocks: 3,
                indirect_bytes: Size(4),
                sample: Addr(5),
                stack: &stack,
                held_by: None,
            }));
            round_trip(&Record::LossSum { kind, blocks: 1, bytes: Size(u64::MAX) });
        }
        for kind in RootKind::ALL {
            let root = Root { kind, address: Addr(7), tid: ThreadId(8) };
            let steps = [Step { into: 1, at: u64::MAX }; PATH_STEPS];
            round_trip(&Record::Loss(LossRecord {
                number: 6,
                of: 7,
                kind: LeakKind::Reachable,
                allocated_by: Function::New,
                blocks: 1,
                bytes: Size(2),
                indirect_blocks: 3,
                indirect_bytes: Size(4),
                sample: Addr(5),
                stack: &stack,
                held_by: Some(Holding { root, steps: &steps, left_out: 9 }),
            }));
        }
        for kind in NoticeKind::ALL {
            round_trip(&Record::Notice(Notice { kind, text: &text[..5] }));
        }
        round_trip(&Record::Message { text: &text, stack: &stack });
    }

    #[test]
    fn long_texts_and_stacks_are_cut() {
        let words: Vec<AtomicU64> = (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
        let text = [b'x'; 2 * TEXT_MAX];
        assert!(encode(&Record::Notice(Notice { kind: NoticeKind::Other, text: &text }), &words).is_some());
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(
            kind in 0u64..12,
            small in proptest::collection::vec(0u64..200, 0..SLOT_WORDS),
            wild in proptest::collection::vec(any::<u64>(), 0..SLOT_WORDS),
        ) {
            for rest in [small, wild] {
                let words: Vec<u64> = core::iter::once(kind).chain(rest).collect();
                let _ = decode(&words, &mut Scratch::new());
            }
        }

        #[test]
        fn a_changed_word_never_panics(at in 0usize..60, value in any::<u64>()) {
            let words: Vec<AtomicU64> = (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
            let event = ErrorEvent {
                kind: ErrorKind::DoubleFree,
                tid: ThreadId(5),
                function: Some(Function::Free),
                access: None,
                address: Addr(3),
                place: Place::Block(block()),
                detail: Detail::None,
                exact_top: false,
                stack: &[Pc(1); 9],
                allocated: &[Pc(2); 9],
                freed: &[Pc(3); 9],
            };
            let used = encode(&Record::Error { context: 0, event }, &words).unwrap();
            let mut copy: Vec<u64> = words[..used].iter().map(|word| word.load(Ordering::Relaxed)).collect();
            let at = at % used;
            copy[at] = value;
            let _ = decode(&copy, &mut Scratch::new());
        }
    }
}
