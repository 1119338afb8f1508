//! The fixtures under Valgrind: an independent witness that each program has the bug that its comments claim,
//! at the line they claim, and that its clean twin has none. Run by `MEMCHECK_ORACLE=valgrind`; only what it says of
//! leaks is part of the normal tests, as Valgrind differs from memcheck in known ways
//! (docs/valgrind-differences.md, docs/LEAKS.md).

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

/// What Valgrind says of leaks otherwise, and docs/LEAKS.md explains: a forked child tells of its parent's blocks,
/// the environment is freed before the search, but for what the program put into it, and a pool is possibly lost.
const OTHERWISE: &[&str] = &["leak/in_forked_child", "leak/in_environment", "leak/pool", "leak/empty_array"];

/// One trial for each fixture of leaks: Valgrind finds the same blocks and bytes of each kind. None without Valgrind.
pub fn leak_trials() -> Vec<Trial> {
    if !is_installed() {
        return Vec::new();
    }
    let leaks = fixture::all().into_iter().filter(|fixture| fixture.name.starts_with("leak/"));
    leaks
        .filter(|fixture| !OTHERWISE.contains(&fixture.name.as_str()))
        .map(|fixture| trial(format!("valgrind_agrees::{}", fixture.name), move || check_leaks(&fixture)))
        .collect()
}

/// Whether there is a Valgrind.
pub fn is_installed() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
}

fn check_leaks(fixture: &Fixture) -> Result<(), String> {
    let bindings = Bindings::new();
    let file = fixture.path.file_name().and_then(|name| name.to_str()).ok_or("the fixture has no name")?;
    let expected = fixture.expected(&bindings)?;
    let mut wanted: Vec<String> = expected
        .leaks
        .iter()
        .map(|leak| format!("{} {} in {} {}", leak.kind, leak.bytes, leak.blocks, leak.line))
        .collect();
    wanted.sort();
    let mut seen = findings(&grid::build(fixture, &bindings, "-O0", &fixture.path)?, file)?;
    seen.retain(|finding| finding.contains(" in "));
    seen.sort();
    if wanted == seen { Ok(()) } else { Err(format!("expected {wanted:?}, Valgrind found {seen:?}")) }
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
        wanted.extend(
            expected
                .leaks
                .iter()
                .map(|leak| format!("{} {} in {} {}", leak.kind, leak.bytes, leak.blocks, leak.line)),
        );
        let seen =
            BTreeSet::from_iter(findings(&grid::build(fixture, bindings, level, &fixture.path)?, file)?);
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

/// Valgrind's findings as `KIND LINE` or `KIND BYTES in BLOCKS LINE`, with the line of the innermost frame in `file`.
fn findings(program: &std::path::Path, file: &str) -> Result<Vec<String>, String> {
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
    // The table of a running thread's TLS blocks is glibc's own (docs/LEAKS.md).
    let errors = text.split("<error>").skip(1).filter(|error| !error.contains("<fn>_dl_allocate_tls</fn>"));
    let errors = errors.map(|error| {
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
        let blocks = between(what, " bytes in ", " blocks").replace(',', "");
        let bytes = bytes.replace(',', "");
        if bytes.is_empty() { format!("{kind} {line}") } else { format!("{kind} {bytes} in {blocks} {line}") }
    });
    let mut found: Vec<String> = errors.collect();
    if let Some(fatal) = text.split("<fatal_signal>").nth(1) {
        let frame = fatal.split("<frame>").find(|frame| between(frame, "<file>", "</file>") == file);
        let line = frame.map_or("0", |frame| between(frame, "<line>", "</line>"));
        found.retain(|finding| {
            *finding != format!("InvalidAccess {line}") && *finding != format!("InvalidJump {line}")
        });
        found.push(format!("Fatal {line}"));
    }
    Ok(found)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
}
