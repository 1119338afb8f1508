//! docs/report-schema.json describes exactly what is written.

use memcheck_model::{
    Access, AccessKind, Addr, Block, BlockState, Detail, ErrorEvent, ErrorKind, Function, LeakKind, Pc,
    Place, Size, ThreadId,
};
use memcheck_report::{
    Coverage, Exit, Finding, Frame, HeapUse, LeakRecord, Losses, Process, Report, StaleRule, Traces, Trim,
};
use serde_json::{Value, json};

fn validator() -> jsonschema::Validator {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/report-schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn frame() -> Frame {
    Frame {
        pc: Addr(0x40_1136),
        module: Some("/tmp/a.out".into()),
        offset: Some(0x1136),
        function: Some("main".into()),
        file: Some("a.c".into()),
        line: Some(3),
        column: None,
        inlined: false,
    }
}

/// A report with a finding of every kind and a loss record of every kind.
fn report() -> Report {
    let block = Block {
        start: Addr(0x2000),
        size: Size(24),
        state: BlockState::Freed,
        allocated_by: Function::Malloc,
        freed_by: Some(Function::Free),
        alloc_tid: ThreadId(7),
        free_tid: ThreadId(8),
    };
    let places = [Place::None, Place::Block(block), Place::Unmapped, Place::Stack(ThreadId(7))];
    let mut report = Report::new(vec!["./a.out".into(), "-x".into()]);
    for (index, &kind) in ErrorKind::ALL.iter().enumerate() {
        let has_access = index % 2 == 0;
        let event = ErrorEvent {
            kind,
            tid: ThreadId(7),
            function: has_access.then_some(Function::Memcpy),
            access: has_access.then_some(Access {
                kind: AccessKind::Write,
                addr: Addr(0x2018),
                size: Size(4),
            }),
            address: Addr(0x2018),
            place: places[index % places.len()],
            detail: Detail::None,
            exact_top: true,
            stack: &[Pc(0x40_1136)],
            allocated: &[],
            freed: &[],
        };
        let traces = Traces { stack: vec![frame()], allocated: vec![Frame::default()], ..Traces::default() };
        report.errors.push(Finding::from_event(&event, 7, traces, Trim::default()));
    }
    for kind in LeakKind::ALL {
        let losses = Losses { blocks: 1, bytes: 24, indirect_blocks: 2, indirect_bytes: 48 };
        report.leaks.push(LeakRecord::new(kind, losses, 7, vec![frame()]));
    }
    for exit in [None, Some(Exit::Code(3)), Some(Exit::Signal(11))] {
        report.processes.push(Process {
            pid: 7,
            ppid: 1,
            command: vec!["./a.out".into()],
            exit,
            heap: HeapUse::default(),
            coverage: Coverage::default(),
            functions: [("malloc".to_owned(), frame())].into(),
        });
    }
    report.stale.push(StaleRule {
        name: "old".into(),
        file: "x.supp".into(),
        line: 3,
        why: "never needed".into(),
    });
    report.comment = Some("nightly".into());
    report.baseline = Some(report.as_baseline());
    report
}

#[test]
fn a_report_of_everything_is_valid() {
    let value = serde_json::to_value(report()).unwrap();
    let errors: Vec<_> = validator()
        .iter_errors(&value)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn a_report_reads_back_as_it_was() {
    let report = report();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn what_the_schema_does_not_know_is_invalid() {
    let validator = validator();
    let valid = serde_json::to_value(report()).unwrap();
    let changes: [(&str, Value); 5] = [
        ("/schema", json!("memcheck-report/2")),
        ("/errors/0/id", json!("no-such-finding")),
        ("/errors/0/stack/0/pc", json!(4198710)),
        ("/leaks/0/kind", json!("lost")),
        ("/processes/1/exit", json!({"status": 3})),
    ];
    for (at, value) in changes {
        let mut report = valid.clone();
        *report.pointer_mut(at).unwrap() = value;
        assert!(!validator.is_valid(&report), "{at}");
    }
    let mut report = valid;
    report["errors"][0]["surprise"] = json!(1);
    assert!(!validator.is_valid(&report));
}
