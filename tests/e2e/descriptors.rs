//! `--track-fds`: what is left open, closed twice or used after it was closed, told once each and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::report::{Error, line_in};
use crate::{compile, exec, fixture, trial};

/// A test of its own.
type Check = fn() -> Result<(), String>;

/// All of them.
pub fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 6] = [
        ("every_kind_left_open_is_told_with_where_it_was_opened", left_open),
        ("second_close_and_later_use_have_three_stacks", closed),
        ("what_is_closed_in_the_end_is_no_finding", all_closed),
        ("inherited_ones_are_notes", inherited),
        ("text_in_valgrinds_manner_lists_what_is_open", valgrind_text),
        ("without_access_checks_only_open_ones_are_told", without_checks),
    ];
    checks.into_iter().map(|(name, check)| trial(format!("descriptors::{name}"), check)).collect()
}

fn source(name: &str) -> PathBuf {
    fixture::folder().join("descriptors").join(name)
}

fn program(name: &str) -> Result<PathBuf, String> {
    compile::program(&source(name), "descriptors", &["-g", "-w", "-pthread"].map(str::to_owned))
}

/// Findings of this kind.
fn of_kind<'a>(errors: &'a [Error], id: &str) -> Vec<&'a Error> {
    errors.iter().filter(|error| error.id == id).collect()
}

fn must<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn left_open() -> Result<(), String> {
    let file = source("left_open.c");
    let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let expected: BTreeMap<u32, usize> = text
        .lines()
        .zip(1..)
        .filter_map(|(line, number)| Some((number, line.split_once("// left: ")?.1.parse().ok()?)))
        .collect();
    let path = file.display().to_string();
    let checked = exec::checked(&["--track-fds=yes", "--leak-check=no"], &program("left_open.c")?, &[&path])?;
    let mut found = BTreeMap::new();
    for error in of_kind(&checked.report.errors, "fd-leak") {
        *found.entry(line_in(&error.stack, "left_open.c").unwrap_or(0)).or_insert(0) += 1;
    }
    must("descriptors by line", found, expected)?;
    must("others", checked.report.errors.iter().filter(|error| error.id != "fd-leak").count(), 0)?;
    must("status", &*checked.outcome.status, "exit 99")
}

fn closed() -> Result<(), String> {
    let checked = exec::checked(&["--track-fds=yes"], &program("closed.c")?, &[])?;
    let told: Vec<_> = checked
        .report
        .errors
        .iter()
        .map(|error| {
            let line = |stack| line_in(stack, "closed.c");
            let lines = [&error.stack, &error.allocated, &error.freed].map(|stack| line(stack).unwrap_or(0));
            (error.id.as_str(), error.message.as_str(), lines)
        })
        .collect();
    let expected = vec![
        ("fd-double-close", "descriptor 3 is closed a second time", [16, 14, 8]),
        ("fd-use-after-close", "descriptor 3 is used after it was closed", [18, 14, 8]),
        ("fd-leak", "descriptor 3 (/dev/null) is still open at exit", [23, 0, 0]),
    ];
    must("findings", told, expected)
}

fn all_closed() -> Result<(), String> {
    let checked = exec::checked(&["--track-fds=yes"], &program("all_closed.c")?, &[])?;
    // Children of other programs hold what they inherit.
    let errors = checked.report.errors.iter().filter(|error| error.id != "fd-inherited");
    must("findings", errors.map(Error::describe).collect::<Vec<_>>(), Vec::new())?;
    must("status", &*checked.outcome.status, "exit 0")
}

fn inherited() -> Result<(), String> {
    let script = ["-c", "exec 7</dev/null; exec true"];
    for (option, standard) in [("--track-fds=yes", 0), ("--track-fds=all", 3)] {
        let checked = exec::checked(&[option], &PathBuf::from("/bin/sh"), &script)?;
        let errors = &checked.report.errors;
        let told = |number: &str| {
            let start = format!("descriptor {number} ");
            errors.iter().any(|e| e.id == "fd-inherited" && e.message.starts_with(&start))
        };
        let standard_told = ["0", "1", "2"].into_iter().filter(|number| told(number)).count();
        must(
            option,
            (told("7"), standard_told, checked.outcome.status),
            (true, standard, "exit 0".to_owned()),
        )?;
    }
    Ok(())
}

fn valgrind_text() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut command = exec::memcheck();
    command.args(["--compat=valgrind", "-q", "--track-fds=yes"]).arg(program("closed.c")?);
    let outcome = exec::run(&mut command, scratch.path())?;
    let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
    // Frames of the C library differ with its version.
    let line = |line: &str| {
        let line = line.split_once("== ").map_or(line, |(_, rest)| rest);
        let frame = line.split_once("0x").and_then(|(_, rest)| rest.split_once(": "));
        match frame {
            Some((_, frame)) => frame.ends_with(')').then(|| format!("by {frame}")),
            None => Some(line.to_owned()),
        }
    };
    let own = |line: &String| !line.starts_with("by ") || line.contains("(closed.c:");
    let lines: Vec<String> = text.lines().filter_map(line).filter(own).collect();
    let expected = [
        "File descriptor 3: is already closed",
        "by main (closed.c:16)",
        " Previously closed",
        "by close_it (closed.c:8)",
        "by main (closed.c:15)",
        " Originally opened",
        "by main (closed.c:14)",
        "",
        "File descriptor 3: was closed already",
        "by main (closed.c:18)",
        " Previously closed",
        "by close_it (closed.c:8)",
        "by main (closed.c:15)",
        " Originally opened",
        "by main (closed.c:14)",
        "",
        "FILE DESCRIPTORS: 4 open (3 std) at exit.",
        "Open file descriptor 3: /dev/null",
        "by main (closed.c:23)",
        "",
        "",
    ];
    must("text", lines.join("\n"), expected.join("\n"))?;
    must("status", &*outcome.status, "exit 0")
}

fn without_checks() -> Result<(), String> {
    let checked = exec::checked(&["--track-fds=yes", "--access-checks=no"], &program("closed.c")?, &[])?;
    // What the tests themselves were started with may have the number.
    let told: Vec<&str> = checked.report.errors.iter().map(|error| error.message.as_str()).collect();
    let open = ["descriptor 3 (/dev/null) is still open at exit"];
    let is_told = told.len() == 1 && told[0].starts_with(open[0]);
    must("findings", (is_told, told.len()), (true, 1))?;
    must("notice", checked.text.contains("--track-fds without access checks"), true)
}
