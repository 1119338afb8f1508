//! Valgrind's XML output, protocol 4 (valgrind/docs/internals/xml-output-protocol4.txt), for the readers that exist.
//!
//! Invariant: only kinds that those readers know are written; what has no kind of its own there takes the nearest, its
//! `what` says what it is.

use memcheck_model::LeakKind;

use super::{Item, items};
use crate::xml::Xml;
use crate::{Finding, Frame, LeakRecord, Level, Operation, Report};

/// The document: one process's, the one that was started, with the findings of all.
pub(super) fn document(report: &Report) -> String {
    let mut xml = Xml::new();
    xml.element("valgrindoutput", &[], |xml| {
        xml.leaf("protocolversion", "4");
        xml.leaf("protocoltool", "memcheck");
        xml.element("preamble", &[], |xml| {
            xml.leaf(
                "line",
                &format!("{} {}, a memory error detector", report.tool.name, report.tool.version),
            );
        });
        let process = report.processes.first();
        xml.leaf("pid", &process.map_or(0, |process| process.pid).to_string());
        xml.leaf("ppid", &process.map_or(0, |process| process.ppid).to_string());
        xml.leaf("tool", "memcheck");
        xml.element("args", &[], |xml| {
            xml.element("vargv", &[], |xml| xml.leaf("exe", &report.tool.name));
            xml.element("argv", &[], |xml| {
                xml.leaf("exe", report.command.first().map_or("", String::as_str));
                for argument in report.command.iter().skip(1) {
                    xml.leaf("arg", argument);
                }
            });
        });
        xml.element("status", &[], |xml| {
            xml.leaf("state", "RUNNING");
            xml.leaf("time", "00:00:00:00.000 ");
        });
        for (index, item) in items(report).enumerate().filter(|(_, item)| matches!(item, Item::Error(_))) {
            error(xml, index, item);
        }
        xml.element("status", &[], |xml| {
            xml.leaf("state", "FINISHED");
            xml.leaf("time", "00:00:00:00.000 ");
        });
        for (index, item) in items(report).enumerate().filter(|(_, item)| matches!(item, Item::Leak(_))) {
            error(xml, index, item);
        }
        xml.element("errorcounts", &[], |xml| {
            for (index, finding) in report.errors.iter().enumerate().filter(|(_, finding)| is_error(finding))
            {
                xml.element("pair", &[], |xml| {
                    xml.leaf("count", &finding.count.to_string());
                    xml.leaf("unique", &format!("{index:#x}"));
                });
            }
        });
        xml.element("suppcounts", &[], |xml| {
            for used in &report.suppressed {
                xml.element("pair", &[], |xml| {
                    xml.leaf("count", &used.count.to_string());
                    xml.leaf("name", &used.name);
                });
            }
        });
    });
    xml.finish()
}

fn is_error(finding: &Finding) -> bool {
    finding.severity == Level::Error
}

fn error(xml: &mut Xml, index: usize, item: Item<'_>) {
    match item {
        Item::Error(finding) if is_error(finding) => xml.element("error", &[], |xml| {
            xml.leaf("unique", &format!("{index:#x}"));
            xml.leaf("tid", "1");
            xml.leaf("kind", kind(finding));
            xml.leaf("what", &finding.message);
            stack(xml, &finding.stack);
            for note in &finding.notes {
                xml.leaf("auxwhat", note);
            }
            for (title, frames) in [("was allocated", &finding.allocated), ("was freed", &finding.freed)] {
                if !frames.is_empty() {
                    xml.leaf("auxwhat", &format!("the block {title} here"));
                    stack(xml, frames);
                }
            }
        }),
        Item::Error(_) => {}
        Item::Leak(leak) => xml.element("error", &[], |xml| {
            xml.leaf("unique", &format!("{index:#x}"));
            xml.leaf("tid", "1");
            xml.leaf("kind", leak_kind(leak.kind));
            loss(xml, leak);
            stack(xml, &leak.stack);
        }),
    }
}

fn loss(xml: &mut Xml, leak: &LeakRecord) {
    xml.element("xwhat", &[], |xml| {
        xml.leaf("text", &leak.message);
        xml.leaf("leakedbytes", &(leak.bytes + leak.indirect_bytes).to_string());
        xml.leaf("leakedblocks", &(leak.blocks + leak.indirect_blocks).to_string());
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

fn kind(finding: &Finding) -> &'static str {
    match finding.id.as_str() {
        "double-free" | "bad-free" | "bad-realloc" => "InvalidFree",
        "alloc-dealloc-mismatch" => "MismatchedFree",
        "param-overlap" => "Overlap",
        "bad-size" | "bad-alignment" => "FishyValue",
        "syscall-param" => "SyscallParam",
        "use-of-uninitialised" => "UninitValue",
        _ => match finding.access.map(|access| access.op) {
            Some(Operation::Read) => "InvalidRead",
            // What is found late was a write.
            Some(Operation::Write) | None => "InvalidWrite",
        },
    }
}

fn stack(xml: &mut Xml, frames: &[Frame]) {
    xml.element("stack", &[], |xml| {
        for frame in frames {
            xml.element("frame", &[], |xml| {
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
                    xml.leaf("line", &line.to_string());
                }
            });
        }
    });
}
