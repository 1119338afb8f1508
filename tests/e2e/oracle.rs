//! The fixtures under Valgrind: an independent witness that each program has the bug that its comments claim,
//! at the line they claim, and that its clean twin has none. Run by `MEMCHECK_ORACLE=valgrind`; it is no part of
//! the normal tests, as Valgrind differs from memcheck in known ways (docs/valgrind-differences.md).

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use libtest_mimic::Trial;

use crate::expectation::{Bindings, When};
use crate::fixture::Fixture;
use crate::{compile, exec, fixture, grid, trial};

/// One trial for each variant of each fixture.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for fixture in fixture::all() {
        for bindings in fixture.variants() {
            let fixture = fixture.clone();
            let name = format!("valgrind::{}{}", fixture.name, grid::suffix(&bindings));
            trials.push(trial(name, move || check(&fixture, &bindings)));
        }
    }
    trials
}

fn check(fixture: &Fixture, bindings: &Bindings) -> Result<(), String> {
    let expected = fixture.expected(bindings)?;
    let file = fixture.path.file_name().and_then(|name| name.to_str()).ok_or("the fixture has no name")?;
    let twin = compile::source(&format!("{}.twin", fixture.name), file, &fixture.clean_twin())?;
    let mut complaints = Vec::new();
    for level in grid::LEVELS {
        let mut wanted: BTreeSet<String> = expected
            .errors
            .iter()
            .filter(|e| e.when != When::HeapAlone)
            .map(|e| format!("{} {}", valgrind_kind(&e.id), e.line.unwrap_or_default()))
            .collect();
        wanted
            .extend(expected.leaks.iter().map(|leak| format!("{} {} {}", leak.kind, leak.bytes, leak.line)));
        let seen = findings(&grid::build(fixture, bindings, level, &fixture.path)?, file)?;
        if wanted != seen {
            complaints.push(format!("{level}: expected {wanted:?}, Valgrind found {seen:?}"));
        }
        let mut seen = findings(&grid::build(fixture, bindings, level, &twin)?, file)?;
        seen.retain(|finding| !finding.starts_with("reachable"));
        if !seen.is_empty() {
            complaints.push(format!("{level}: clean twin: Valgrind found {seen:?}"));
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

/// What Valgrind calls a finding.
fn valgrind_kind(id: &str) -> &str {
    match id {
        "heap-buffer-overflow" | "heap-use-after-free" => "InvalidAccess",
        "double-free" | "bad-free" | "bad-realloc" => "InvalidFree",
        "alloc-dealloc-mismatch" => "MismatchedFree",
        "param-overlap" => "Overlap",
        "bad-size" => "FishyValue",
        "realloc-zero" => "ReallocSizeZero",
        "syscall-param" => "SyscallParam",
        "null-dereference" | "fatal-signal" | "wild-access" => "Fatal",
        other => other,
    }
}

/// Valgrind's findings as `KIND LINE`, with the line of the innermost frame in `file`.
fn findings(program: &std::path::Path, file: &str) -> Result<BTreeSet<String>, String> {
    let scratch = exec::scratch()?;
    let xml = scratch.path().join("xml");
    let mut command = Command::new("valgrind");
    command
        .args(["-q", "--leak-check=full", "--show-leak-kinds=all", "--undef-value-errors=no", "--xml=yes"])
        .arg(format!("--xml-file={}", xml.display()))
        .arg(program)
        .current_dir(&scratch);
    exec::run(&mut command, scratch.path())?;
    let text = fs::read_to_string(&xml).map_err(|e| format!("no XML: {e}"))?;
    let errors = text.split("<error>").skip(1).map(|error| {
        let error = error.split("</error>").next().unwrap_or_default();
        let kind = between(error, "<kind>", "</kind>");
        let frames =
            error.split("<stack>").nth(1).unwrap_or_default().split("</stack>").next().unwrap_or_default();
        let frame = frames.split("<frame>").find(|frame| between(frame, "<file>", "</file>") == file);
        let line = frame.map_or("0", |frame| between(frame, "<line>", "</line>"));
        let kind = match kind {
            "InvalidRead" | "InvalidWrite" => "InvalidAccess",
            "Leak_DefinitelyLost" => "definite",
            "Leak_IndirectlyLost" => "indirect",
            "Leak_PossiblyLost" => "possible",
            "Leak_StillReachable" => "reachable",
            other => other,
        };
        let what = between(error, "<text>", "</text>");
        let leaked = between(error, "<leakedbytes>", "</leakedbytes>");
        let direct = between(what, "(", " direct");
        let bytes = if direct.is_empty() { leaked } else { direct };
        if bytes.is_empty() { format!("{kind} {line}") } else { format!("{kind} {bytes} {line}") }
    });
    let mut found: BTreeSet<String> = errors.collect();
    if let Some(fatal) = text.split("<fatal_signal>").nth(1) {
        let frame = fatal.split("<frame>").find(|frame| between(frame, "<file>", "</file>") == file);
        let line = frame.map_or("0", |frame| between(frame, "<line>", "</line>"));
        found.retain(|finding| {
            *finding != format!("InvalidAccess {line}") && *finding != format!("InvalidJump {line}")
        });
        found.insert(format!("Fatal {line}"));
    }
    Ok(found)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
}
