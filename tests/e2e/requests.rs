//! Client requests: the whole report of programs that make them, ours and in Valgrind's manner, and what they are
//! told in return.

use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::{compile, exec, fixture, golden, trial};

/// The programs.
const PROGRAMS: [&str; 2] = ["all_requests", "leak_requests"];

/// One trial for each program.
pub fn trials() -> Vec<Trial> {
    PROGRAMS.iter().map(|name| trial(format!("requests_whole::{name}"), || compare(name))).collect()
}

fn program(name: &str) -> Result<PathBuf, String> {
    let source = fixture::folder().join("whole").join(format!("{name}.c"));
    let flags = compile::FIXTURE_FLAGS.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>();
    compile::program(&source, "whole", &flags)
}

fn compare(name: &str) -> Result<(), String> {
    let (program, file) = (program(name)?, format!("{name}.c"));
    let options = ["--show-leak-kinds=all"];
    let ours = exec::checked(&options, &program, &[])?;
    let scratch = exec::scratch()?;
    let mut command = exec::memcheck();
    command.args(["--compat=valgrind", "--leak-check=full", "--show-leak-kinds=all"]).arg(&program);
    let valgrinds = exec::run(&mut command, scratch.path())?;
    let said = |stdout: &[u8]| String::from_utf8_lossy(stdout).into_owned();
    let text = [
        ("=== told\n", said(&ours.outcome.stdout)),
        ("=== told in Valgrind's manner\n", said(&valgrinds.stdout)),
        ("=== report\n", golden::normalise(&without_pids(&ours.text), &[&file])),
        ("=== report in Valgrind's manner\n", in_valgrinds_manner(&said(&valgrinds.stderr), &file)),
    ];
    let text: String = text.into_iter().flat_map(|(heading, text)| [heading.to_owned(), text]).collect();
    golden::compare(&format!("whole/{name}.txt"), &text)
}

/// `process 17 (` and `program 17:` without the number and the program's path.
fn without_pids(text: &str) -> String {
    let line = |line: &str| {
        let rest = |word: &str| {
            let (before, after) = line.split_once(word)?;
            Some(format!("{before}{word}N{}", &after[after.find(':')?..]))
        };
        rest("process ").or_else(|| rest("program ")).unwrap_or_else(|| line.to_owned()) + "\n"
    };
    text.lines().map(line).collect()
}

/// Without process ids, addresses, what names this build, and frames outside the file.
fn in_valgrinds_manner(text: &str, file: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = match (line.split_once("== "), line.split_once("** ")) {
            (Some((_, rest)), _) => rest.to_owned(),
            (None, Some((_, rest))) => format!("** {rest}"),
            (None, None) => String::new(),
        };
        let frame = line.trim_start();
        let is_frame = frame.starts_with("at 0x") || frame.starts_with("by 0x");
        let is_of_build = line.starts_with("Using Valgrind") || line.starts_with("Command:");
        match frame.split_once(": ") {
            Some((_, place)) if is_frame && place.contains(file) => lines.push(format!("   in {place}")),
            _ if is_frame || is_of_build => {}
            _ => lines.push(golden::normalise(&line, &[]).trim_end().to_owned()),
        }
    }
    lines.join("\n") + "\n"
}
