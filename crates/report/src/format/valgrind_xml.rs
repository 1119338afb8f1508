//! Valgrind's XML output (valgrind/docs/internals/xml-output-protocol4.txt, 5 and 6), for the readers that exist.
//!
//! Invariant: only kinds that the protocol's readers know are written; what has no kind of its own there takes the
//! nearest, its `what` says what it is. Every `error` has a stack, and every stack a frame: readers insist on both.

use std::collections::HashMap;

use memcheck_model::LeakKind;

use super::{Item, Protocol, items};
use crate::xml::Xml;
use crate::{Exit, Finding, Frame, LeakRecord, Level, LossTotal, Operation, Process, Report, signal};

/// The document: one process's, the one that was started, with the findings of all.
pub(super) fn document(report: &Report, protocol: Protocol) -> String {
    let mut xml = Xml::new();
    let process = report.processes.first();
    xml.element("valgrindoutput", |xml| {
        head(xml, report, protocol);
        let threads = threads(report);
        for (index, finding) in errors(report) {
            error(xml, report, index, finding, threads[&(finding.pid, finding.tid)], protocol);
        }
        if let Some((process, signal)) = process.and_then(|process| Some((process, ended_by(process)?))) {
            fatal_signal(xml, report, process, signal);
        }
        status(xml, "FINISHED");
        if let (Protocol::Six, Some(process)) = (protocol, process) {
            heap_summary(xml, process);
        }
        for (index, item) in items(report).enumerate() {
            if let Item::Leak(leak) = item {
                loss(xml, report, index, leak);
            }
        }
        if protocol == Protocol::Six {
            summaries(xml, report);
        }
        xml.element("errorcounts", |xml| {
            for (index, finding) in errors(report) {
                xml.element("pair", |xml| {
                    xml.number("count", finding.count);
                    xml.leaf("unique", &format!("{index:#x}"));
                });
            }
        });
        xml.element("suppcounts", |xml| {
            for used in &report.suppressed {
                xml.element("pair", |xml| {
                    xml.number("count", used.count);
                    xml.leaf("name", &used.name);
                });
            }
        });
    });
    xml.finish()
}

fn head(xml: &mut Xml, report: &Report, protocol: Protocol) {
    xml.leaf("protocolversion", protocol.number());
    xml.leaf("protocoltool", "memcheck");
    xml.element("preamble", |xml| {
        xml.leaf("line", &format!("{} {}, a memory error detector", report.tool.name, report.tool.version));
    });
    let process = report.processes.first();
    xml.number("pid", process.map_or(0, |process| process.pid.into()));
    xml.number("ppid", process.map_or(0, |process| process.ppid.into()));
    xml.leaf("tool", "memcheck");
    if let Some(comment) = &report.comment {
        xml.leaf("usercomment", comment);
    }
    xml.element("args", |xml| {
        xml.element("vargv", |xml| xml.leaf("exe", &report.tool.name));
        xml.element("argv", |xml| {
            xml.leaf("exe", report.command.first().map_or("", String::as_str));
            for argument in report.command.iter().skip(1) {
                xml.leaf("arg", argument);
            }
        });
    });
    status(xml, "RUNNING");
}

fn status(xml: &mut Xml, state: &str) {
    xml.element("status", |xml| {
        xml.leaf("state", state);
        xml.leaf("time", "00:00:00:00.000 ");
    });
}

/// The errors with their numbers among all items.
fn errors(report: &Report) -> impl Iterator<Item = (usize, &Finding)> {
    report.errors.iter().enumerate().filter(|(_, finding)| finding.severity == Level::Error)
}

/// Valgrind numbers threads from 1, which is the main one.
fn threads(report: &Report) -> HashMap<(u32, u32), u64> {
    let mut numbers = HashMap::new();
    let mut last = HashMap::<u32, u64>::new();
    for finding in &report.errors {
        let last = last.entry(finding.pid).or_insert(1);
        numbers.entry((finding.pid, finding.tid)).or_insert_with(|| {
            if finding.tid == finding.pid {
                return 1;
            }
            *last += 1;
            *last
        });
    }
    numbers
}

/// The frame of the function that the process `pid` called.
fn function<'a>(report: &'a Report, pid: u32, name: Option<&String>) -> Option<&'a Frame> {
    report
        .processes
        .iter()
        .filter(|process| process.pid == pid)
        .find_map(|process| process.functions.get(name?))
}

fn error(xml: &mut Xml, report: &Report, index: usize, finding: &Finding, thread: u64, protocol: Protocol) {
    let function = |name| function(report, finding.pid, name);
    xml.element("error", |xml| {
        xml.leaf("unique", &format!("{index:#x}"));
        xml.number("tid", thread);
        xml.leaf("kind", kind(finding, protocol));
        xml.leaf("what", &finding.message);
        stack(xml, function(finding.function.as_ref()), &finding.stack);
        for note in &finding.notes {
            xml.leaf("auxwhat", note);
        }
        let block = finding.block.as_ref();
        let allocated_by = block.map(|block| &block.allocated_by);
        let freed_by = block.and_then(|block| block.freed_by.as_ref());
        for (title, called, frames) in
            [("was allocated", allocated_by, &finding.allocated), ("was freed", freed_by, &finding.freed)]
        {
            if !frames.is_empty() {
                xml.leaf("auxwhat", &format!("the block {title} here"));
                stack(xml, function(called), frames);
            }
        }
        suppression(xml, finding.suppression.as_deref());
    });
}

/// The rule that would keep an error out, taken apart and whole.
fn suppression(xml: &mut Xml, rule: Option<&str>) {
    let Some(rule) = rule else { return };
    let mut lines = rule.lines().map(str::trim).filter(|line| !matches!(*line, "{" | "}"));
    xml.element("suppression", |xml| {
        xml.leaf("sname", lines.next().unwrap_or_default().trim_matches(['<', '>']));
        xml.leaf("skind", lines.next().unwrap_or_default());
        for line in lines {
            match line.split_once(':') {
                Some((tag @ ("fun" | "obj"), name)) => xml.element("sframe", |xml| xml.leaf(tag, name)),
                _ if line == "..." => {}
                _ => xml.leaf("skaux", line),
            }
        }
        xml.leaf("rawtext", rule);
    });
}

fn loss(xml: &mut Xml, report: &Report, index: usize, leak: &LeakRecord) {
    xml.element("error", |xml| {
        xml.leaf("unique", &format!("{index:#x}"));
        xml.leaf("tid", "1");
        xml.leaf("kind", leak_kind(leak.kind));
        xml.element("xwhat", |xml| {
            xml.leaf("text", &leak.message);
            xml.number("leakedbytes", leak.all_bytes());
            xml.number("leakedblocks", leak.all_blocks());
        });
        stack(xml, function(report, leak.pid, leak.allocated_by.as_ref()), &leak.stack);
        suppression(xml, leak.suppression.as_deref());
    });
}

fn leak_kind(kind: LeakKind) -> &'static str {
    match kind {
        LeakKind::Definite => "Leak_DefinitelyLost",
        LeakKind::Indirect => "Leak_IndirectlyLost",
        LeakKind::Possible => "Leak_PossiblyLost",
        LeakKind::Reachable => "Leak_StillReachable",
    }
}

fn kind(finding: &Finding, protocol: Protocol) -> &'static str {
    match finding.id.as_str() {
        "double-free" | "bad-free" | "bad-realloc" => "InvalidFree",
        "alloc-dealloc-mismatch" => "MismatchedFree",
        "param-overlap" => "Overlap",
        "bad-size" if protocol == Protocol::Six => "InvalidSize",
        "bad-alignment" if protocol == Protocol::Six => "InvalidAlignment",
        "fd-leak" | "fd-inherited" if protocol > Protocol::Four => "FdNotClosed",
        "fd-double-close" if protocol > Protocol::Four => "FdBadClose",
        "fd-use-after-close" if protocol > Protocol::Four => "FdBadUse",
        // A call was given what it cannot use.
        "syscall-param" | "bad-size" | "bad-alignment" | "fd-leak" | "fd-inherited" | "fd-double-close"
        | "fd-use-after-close" => "SyscallParam",
        "client-check" => "ClientCheck",
        "bad-mempool" => "InvalidMemPool",
        "use-of-uninitialised" => "UninitValue",
        "null-dereference" | "wild-access" | "fatal-signal" if finding.access.is_none() => "InvalidJump",
        _ => match finding.access.map(|access| access.op) {
            Some(Operation::Read) => "InvalidRead",
            // What is found late was a write.
            Some(Operation::Write) | None => "InvalidWrite",
        },
    }
}

fn ended_by(process: &Process) -> Option<i32> {
    match process.exit {
        Some(Exit::Signal(signal)) => Some(signal),
        _ => None,
    }
}

/// The signal that ended the process, where its stack is known.
fn fatal_signal(xml: &mut Xml, report: &Report, process: &Process, number: i32) {
    let is_its = |finding: &&Finding| {
        finding.pid == process.pid
            && matches!(finding.id.as_str(), "fatal-signal" | "null-dereference" | "wild-access")
    };
    let Some(finding) = report.errors.iter().rev().find(is_its) else { return };
    xml.element("fatal_signal", |xml| {
        xml.leaf("tid", "1");
        xml.leaf("signo", &number.to_string());
        xml.leaf("signame", signal::name(number).unwrap_or("signal"));
        xml.leaf("sicode", "0");
        xml.leaf("event", &finding.message);
        stack(xml, None, &finding.stack);
    });
}

/// A stack, below the function that was called.
fn stack(xml: &mut Xml, function: Option<&Frame>, frames: &[Frame]) {
    let nowhere = [Frame::default()];
    let frames = if frames.is_empty() && function.is_none() { &nowhere } else { frames };
    xml.element("stack", |xml| {
        for frame in function.into_iter().chain(frames) {
            xml.element("frame", |xml| {
                xml.leaf("ip", &format!("0x{:X}", frame.pc.0));
                if let Some(module) = &frame.module {
                    xml.leaf("obj", module);
                }
                if let Some(function) = &frame.function {
                    xml.leaf("fn", function);
                }
                if let Some(file) = &frame.file {
                    if let Some((directory, _)) = file.rsplit_once('/') {
                        xml.leaf("dir", directory);
                    }
                    xml.leaf("file", frame.file_name().unwrap_or(file));
                }
                if let Some(line) = frame.line {
                    xml.number("line", line.into());
                }
            });
        }
    });
}

fn heap_summary(xml: &mut Xml, process: &Process) {
    let heap = &process.heap;
    xml.element("heap_summary", |xml| {
        xml.element("memory_in_use_at_exit", |xml| {
            xml.number("bytes", heap.in_use_bytes);
            xml.number("blocks", heap.in_use_blocks);
        });
        xml.element("total_heap_usage", |xml| {
            xml.number("allocs", heap.allocs);
            xml.number("frees", heap.frees);
            xml.number("bytes_allocated", heap.allocated_bytes);
        });
    });
    xml.leaf("all_heap_blocks_freed", if heap.in_use_blocks == 0 { "true" } else { "false" });
}

fn summaries(xml: &mut Xml, report: &Report) {
    let (summary, leaks) = (&report.summary, &report.summary.leaks);
    let kept_out = report.suppressed.iter().fold(LossTotal::default(), |total, used| LossTotal {
        blocks: total.blocks.saturating_add(used.blocks),
        bytes: total.bytes.saturating_add(used.bytes),
    });
    xml.element("leak_summary", |xml| {
        for (name, total) in [
            ("definitely_lost", leaks.definite),
            ("indirectly_lost", leaks.indirect),
            ("possibly_lost", leaks.possible),
            ("still_reachable", leaks.reachable),
            ("suppressed", kept_out),
        ] {
            xml.element(name, |xml| {
                xml.number("bytes", total.bytes);
                xml.number("in_blocks", total.blocks);
            });
        }
    });
    xml.element("error_summary", |xml| {
        xml.number("errors", summary.errors);
        xml.number("error_contexts", summary.contexts);
        xml.number("suppressed", summary.suppressed);
        xml.number("suppressed_contexts", report.suppressed.len() as u64);
    });
}
