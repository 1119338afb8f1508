//! Any words as a record from the target, and what the launcher makes of it.
//!
//! Oracle: a record that is understood is written as it was read, in no more words, and read as the same; the finding or
//! loss record that is made of it shows in every format.

use std::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{
    Access, AccessKind, Addr, Block, BlockState, Damage, Detail, ErrorEvent, ErrorKind, Function, Holding,
    LeakKind, ParameterName, Pc, Place, Root, RootKind, SearchScope, Size, Step, ThreadId,
};
use memcheck_report::{Finding, HeldBy, LeakRecord, Losses, Report, Traces, Trim};
use memcheck_suppress::{Subject, generate};
use memcheck_wire::{
    LossRecord, Module, Notice, NoticeKind, ProcessStart, Record, SLOT_WORDS, Scratch, StartKind, decode,
    encode,
};

/// Eight bytes are a word.
pub fn run(data: &[u8]) {
    let words: Vec<u64> =
        data.as_chunks::<8>().0.iter().take(SLOT_WORDS).map(|word| u64::from_le_bytes(*word)).collect();
    let mut scratch = Scratch::new();
    let record = match decode(&words, &mut scratch) {
        Ok(record) => record,
        Err(malformed) => return assert!(!malformed.to_string().is_empty()),
    };
    let slot: Vec<AtomicU64> = (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
    let used = encode(&record, &slot).expect("what came in a slot fits one");
    assert!(used <= words.len(), "{record:?}");
    let written: Vec<u64> = slot[..used].iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let mut again = Scratch::new();
    assert_eq!(decode(&written, &mut again), Ok(record));
    show(&record);
}

/// What is shown of the record.
fn show(record: &Record<'_>) {
    let mut report = Report::new(vec!["a.out".to_owned()]);
    match record {
        Record::Error { event, .. } => {
            let finding = Finding::from_event(event, 7, Traces::default(), Trim::default());
            assert!(!finding.message.is_empty() && !finding.message.contains('\n'), "{:?}", finding.message);
            let parameter = memcheck_report::syscall_parameter(event);
            let subject = Subject::Error {
                kind: event.kind,
                access_bytes: event.access.map(|access| access.size.0),
                parameter: parameter.as_deref(),
            };
            assert!(generate(&subject, event.function, &[]).starts_with('{'));
            report.errors.push(finding);
        }
        Record::Loss(loss) => {
            let losses = Losses {
                blocks: loss.blocks,
                bytes: loss.bytes.0,
                indirect_blocks: loss.indirect_blocks,
                indirect_bytes: loss.indirect_bytes.0,
            };
            // Two of them: sums must not break either.
            for _ in 0..2 {
                let mut leak = LeakRecord::new(loss.kind, losses, 7, Vec::new());
                leak.held_by = loss.held_by.as_ref().map(|holding| HeldBy::new(holding, 7, None));
                report.leaks.push(leak);
            }
        }
        _ => return,
    }
    report.summarize(&LeakKind::ALL);
    crate::report::show(&report);
}

fn words(record: &Record<'_>) -> Vec<u8> {
    let slot: Vec<AtomicU64> = (0..SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
    let used = encode(record, &slot).expect("a small record fits a slot");
    slot[..used].iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect()
}

/// A record of each kind, and an error of each kind, place and detail.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let stack = [Pc(0x40_1136), Pc(0x40_1200)];
    let block = Block {
        start: Addr(0x2000_0000_0040),
        size: Size(40),
        state: BlockState::Freed,
        allocated_by: Function::Malloc,
        freed_by: Some(Function::Free),
        alloc_tid: ThreadId(7),
        free_tid: ThreadId(8),
    };
    let damage =
        Damage { first: 40, last: 43, changed: Size(4), content: *b"AAAA            ", content_len: 4 };
    let details = [
        Detail::None,
        Detail::Late(damage),
        Detail::Sizes([u64::MAX, 3]),
        Detail::Alignment(3),
        Detail::SizedDelete { size: 8, align: 16, block_align: 32 },
        Detail::Signal { number: 11, code: 1 },
        Detail::Overlap { destination: 0x1000, source: 0x1004, size: 8 },
        Detail::Syscall { number: 1, parameter: ParameterName::new(format_args!("buf")), offset: 8 },
    ];
    let places = [
        Place::None,
        Place::NullPage,
        Place::Block(block),
        Place::HeapUnused,
        Place::Stack(ThreadId(7)),
        Place::Module,
        Place::Mapped,
        Place::Unmapped,
    ];
    let event = |kind, place, detail| ErrorEvent {
        kind,
        tid: ThreadId(7),
        function: Some(Function::Memcpy),
        access: Some(Access { kind: AccessKind::Write, addr: Addr(0x2000_0000_0068), size: Size(4) }),
        address: Addr(0x2000_0000_0068),
        place,
        detail,
        exact_top: true,
        stack: &stack,
        allocated: &stack,
        freed: &stack[1..],
    };
    let error = |event| words(&Record::Error { context: 3, event });
    let mut seeds: Vec<Vec<u8>> =
        ErrorKind::ALL.iter().map(|&kind| error(event(kind, Place::Block(block), Detail::None))).collect();
    for place in places {
        seeds.extend(details.map(|detail| error(event(ErrorKind::HeapBufferOverflow, place, detail))));
    }
    seeds.extend(details.map(|detail| error(event(ErrorKind::FatalSignal, Place::Unmapped, detail))));
    let module = Module {
        start: Addr(0x40_0000),
        end: Addr(0x40_4000),
        bias: 0,
        build_id: b"id of module",
        path: b"/lib/x.so",
    };
    let root = Root { kind: RootKind::Variable, address: Addr(0x40_3000), tid: ThreadId(7) };
    let loss = LossRecord {
        number: 1,
        of: 2,
        kind: LeakKind::Definite,
        allocated_by: Function::Calloc,
        blocks: 2,
        bytes: Size(80),
        indirect_blocks: 1,
        indirect_bytes: Size(8),
        sample: Addr(0x2000_0000_0040),
        stack: &stack,
        held_by: Some(Holding { root, steps: &[Step { into: 8, at: 0x2000_0000_0100 }], left_out: 1 }),
    };
    let start = ProcessStart { serial: 2, ppid: 1, kind: StartKind::Fork(1), arguments: b"a.out\0-x\0" };
    let others = [
        Record::Start(start),
        Record::Start(ProcessStart { kind: StartKind::Exec, ..start }),
        Record::ModuleLoaded(module),
        Record::ModuleUnloaded(Addr(0x40_0000), 3),
        Record::Loss(loss),
        Record::Loss(LossRecord { blocks: u64::MAX, bytes: Size(u64::MAX), ..loss }),
        Record::LossSum { kind: LeakKind::Possible, blocks: 3, bytes: Size(9) },
        Record::Notice(Notice { kind: NoticeKind::Coverage, text: b"3 undecodable bytes" }),
        Record::SearchBegins,
        Record::SearchEnds(SearchScope::Changed),
    ];
    seeds.extend(others.iter().map(words));
    seeds
}
