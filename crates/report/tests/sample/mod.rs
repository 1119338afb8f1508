//! A report with something of everything, for tests of the formats and as a seed for fuzzing.

use memcheck_model::{Addr, ErrorKind, LeakKind};
use memcheck_report::{
    AccessRecord, BlockRecord, BlockStatus, Coverage, Exit, Finding, Frame, HeapUse, LeakRecord, Level,
    Losses, Operation, Process, Report, StaleRule, Suppressed,
};

/// A report with a finding and a loss record of every kind, names that are no names, and places that are unknown.
#[must_use]
pub fn report() -> Report {
    let frame = |function: &str, file: Option<&str>| Frame {
        pc: Addr(0x40_1136),
        module: Some("/home/u/a.out".into()),
        offset: Some(0x1136),
        function: Some(function.into()),
        file: file.map(str::to_owned),
        line: file.map(|_| 7),
        column: file.map(|_| 3),
        inlined: false,
    };
    let stacks = [
        vec![frame("fill", Some("src/a b.c")), frame("main", Some("/home/u/m.c"))],
        vec![frame("operator<<<int> \u{1}\u{fffd}\"&", None)],
        Vec::new(),
        vec![Frame::default()],
    ];
    let mut report = Report::new(vec!["./a.out".into(), "]]> <x>".into(), "\u{7}".into()]);
    for (index, kind) in ErrorKind::ALL.iter().enumerate() {
        report.errors.push(Finding {
            id: kind.id().into(),
            severity: if index % 7 == 6 { Level::Note } else { Level::Error },
            message: format!("finding {index} <of> \"{}\" \u{b} & \u{1f980}", kind.id()),
            pid: 12,
            tid: 12 + (index as u32 % 3),
            count: index as u64 + 1,
            function: (index == 3).then(|| "free".into()),
            access: (index % 2 == 0).then_some(AccessRecord {
                op: if index % 4 == 0 { Operation::Write } else { Operation::Read },
                size: 4,
                address: Addr(0x2000),
            }),
            block: (index == 1).then(|| BlockRecord {
                address: Addr(0x2000),
                size: 40,
                offset: -1,
                state: BlockStatus::Freed,
                allocated_by: "malloc".into(),
                allocated_tid: 12,
                freed_by: Some("free".into()),
                freed_tid: Some(13),
            }),
            stack: stacks[index % stacks.len()].clone(),
            allocated: stacks[(index + 1) % stacks.len()].clone(),
            freed: stacks[(index + 2) % stacks.len()].clone(),
            fingerprint: format!("{index:016x}"),
            notes: vec!["a note".into()],
            help: "try this".into(),
            suppression: Some(
                "{\n   <a rule>\n   Memcheck:Free\n   fun:free\n   obj:*/lib.so\n   ...\n}\n".into(),
            ),
        });
    }
    for (index, kind) in LeakKind::ALL.into_iter().enumerate() {
        let losses = Losses { blocks: 2, bytes: 10, indirect_blocks: 1, indirect_bytes: 5 };
        report.leaks.push(LeakRecord::new(kind, losses, 12, stacks[index % stacks.len()].clone()));
    }
    report.suppressed.push(Suppressed { name: "known".into(), count: 2, ..Suppressed::default() });
    report.stale.push(StaleRule {
        name: "old".into(),
        file: "x.supp".into(),
        line: 3,
        why: "never needed".into(),
    });
    for (pid, exit) in [(12, Some(Exit::Signal(6))), (13, Some(Exit::Code(0)))] {
        report.processes.push(Process {
            pid,
            ppid: 1,
            command: report.command.clone(),
            exit,
            heap: HeapUse::default(),
            coverage: Coverage::default(),
            functions: Default::default(),
        });
    }
    report.comment = Some("build <7>".into());
    report.summarize(&[LeakKind::Definite]);
    report
}
