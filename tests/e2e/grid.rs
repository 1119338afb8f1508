//! The fixtures under memcheck: every program at -O0 and -O2, with and without access checks, and its clean
//! twin, compared with what its comments say and with its golden report.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::expectation::{Bindings, Expectation, When};
use crate::fixture::{Expected, Fixture};
use crate::report::{Error, Frame, Leak, line_in};
use crate::{compile, exec, fixture, formats, golden, trial};

/// With which checks a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Every access is checked at its instruction.
    AccessChecks,
    /// Only the heap's own checks.
    HeapAlone,
}

/// The groups of fixtures whose findings are compared.
const GROUPS: &[&str] = &[
    "signal",
    "overflow",
    "use_after_free",
    "free",
    "realloc",
    "size",
    "mismatch",
    "string",
    "syscall",
    "cxx",
    "snippet",
    "leak",
    "requests",
];

/// With which checks they are run.
const TIERS: &[Tier] = &[Tier::AccessChecks, Tier::HeapAlone];

/// The compiler's levels that every fixture is built at.
pub const LEVELS: &[&str] = &["-O0", "-O2"];

impl Tier {
    /// The options that choose it.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::AccessChecks => &["--show-leak-kinds=all"],
            Self::HeapAlone => &["--access-checks=no", "--show-leak-kinds=all"],
        }
    }

    fn expects(self, when: When) -> bool {
        match when {
            When::Always => true,
            When::AccessChecks => self == Self::AccessChecks,
            When::HeapAlone => self == Self::HeapAlone,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AccessChecks => "access checks",
            Self::HeapAlone => "heap alone",
        }
    }
}

/// One trial for each variant of each fixture.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for fixture in fixture::all().into_iter().filter(|f| GROUPS.iter().any(|group| f.name.starts_with(group)))
    {
        for (index, bindings) in fixture.variants().into_iter().enumerate() {
            let fixture = fixture.clone();
            let name = format!("fixture::{}{}", fixture.name, suffix(&bindings));
            trials.push(trial(name, move || check(&fixture, &bindings, index == 0)));
        }
    }
    trials
}

/// `,SIZE=24` for the names of variants.
pub fn suffix(bindings: &Bindings) -> String {
    bindings.iter().map(|(name, value)| format!(",{name}={value}")).collect()
}

/// Compiles a fixture, or its clean twin, at one level.
pub fn build(fixture: &Fixture, bindings: &Bindings, level: &str, source: &Path) -> Result<PathBuf, String> {
    let libraries = compile::libraries()?.display().to_string();
    let headers = fixture::folder().join("lib").display().to_string();
    let mut flags: Vec<String> = vec![level.to_owned(), format!("-DLIBRARIES=\"{libraries}\"")];
    flags.extend(compile::FIXTURE_FLAGS.iter().map(|&flag| flag.to_owned()));
    flags.extend(bindings.iter().map(|(name, value)| format!("-D{name}={value}")));
    flags.extend([format!("-I{headers}"), format!("-L{libraries}"), format!("-Wl,-rpath,{libraries}")]);
    flags.extend(fixture.flags.iter().cloned());
    let twin = if source == fixture.path { "" } else { ".clean" };
    compile::program(source, &format!("{}{}{level}{twin}", fixture.name, suffix(bindings)), &flags)
}

fn check(fixture: &Fixture, bindings: &Bindings, first: bool) -> Result<(), String> {
    let expected = fixture.expected(bindings)?;
    let twin_name =
        fixture.path.file_name().and_then(|name| name.to_str()).ok_or("the fixture has no name")?;
    let twin = compile::source(&format!("{}.twin", fixture.name), twin_name, &fixture.clean_twin())?;
    let mut complaints = Vec::new();
    let mut reports = Vec::new();
    for level in LEVELS {
        let program = build(fixture, bindings, level, &fixture.path)?;
        let clean = build(fixture, bindings, level, &twin)?;
        for &tier in TIERS {
            let mut complain = |text: String| complaints.push(format!("{level}, {}: {text}", tier.name()));
            match exec::checked(tier.options(), &program, &[]) {
                Ok(run) => {
                    compare(fixture, &expected, tier, &run).into_iter().for_each(&mut complain);
                    if *level == LEVELS[0] {
                        formats::check_xml(&run.json).unwrap_or_else(&mut complain);
                    }
                    reports.push((
                        format!("{level}, {}", tier.name()),
                        golden::normalise(&run.text, &[twin_name, "victim.c"]),
                    ));
                }
                Err(e) => complain(e),
            }
            if let Err(e) = check_twin(&clean, tier) {
                complain(format!("clean twin: {e}"));
            }
        }
    }
    if first && !fixture.source.contains("\n// golden: none") {
        complaints.extend(golden::compare(&format!("{}.txt", fixture.name), &golden::join(reports)).err());
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

fn check_twin(clean: &Path, tier: Tier) -> Result<(), String> {
    let native = exec::native(clean, &[])?;
    let run = exec::checked(tier.options(), clean, &[])?;
    run.report.must_be_clean()?;
    if run.outcome == native {
        Ok(())
    } else {
        Err(format!("native {native:?}, under memcheck {:?}", run.outcome))
    }
}

fn compare(fixture: &Fixture, expected: &Expected, tier: Tier, run: &exec::Checked) -> Vec<String> {
    let mut complaints = Vec::new();
    let file = format!("{}.{}", fixture.name, if fixture.is_cxx() { "cc" } else { "c" });
    let mut unexpected: Vec<&Error> = run.report.errors.iter().collect();
    let wanted: Vec<_> = expected.errors.iter().filter(|e| tier.expects(e.when)).collect();
    for wanted in &wanted {
        match unexpected.iter().position(|error| differences(wanted, error, &file).is_empty()) {
            Some(index) => {
                let error = unexpected.remove(index);
                complaints.extend(wrong_block_stacks(expected, error, &file));
            }
            None => complaints.push(not_found(wanted, &unexpected, &file)),
        }
    }
    complaints.extend(unexpected.iter().map(|error| format!("not expected: {}", error.describe())));
    complaints.extend(wrong_leaks(expected, &run.report.leaks, &file));
    let findings = wanted.iter().any(|wanted| wanted.id != "realloc-zero")
        || expected.leaks.iter().any(|leak| matches!(&*leak.kind, "definite" | "possible"));
    let status = match &expected.signal {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit {}", if findings { 99 } else { 0 }),
    };
    if complaints.is_empty() && run.outcome.status != status {
        complaints.push(format!("ended with {}, expected {status}", run.outcome.status));
    }
    complaints
}

fn not_found(wanted: &Expectation, unexpected: &[&Error], file: &str) -> String {
    let near =
        unexpected.iter().find(|error| error.id == wanted.id).map(|error| differences(wanted, error, file));
    let why = near.map_or_else(String::new, |differences| format!(": {}", differences.join(", ")));
    format!("not found: {} at line {:?}{why}", wanted.id, wanted.line)
}

fn differences(wanted: &Expectation, error: &Error, file: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, wanted: String, seen: String| {
        if wanted != seen {
            found.push(format!("{what} {seen} instead of {wanted}"));
        }
    };
    differ("id", wanted.id.clone(), error.id.clone());
    if let Some(op) = &wanted.op {
        differ("op", op.clone(), error.access.as_ref().map_or_else(String::new, |access| access.op.clone()));
    }
    if let Some(width) = wanted.width {
        differ("size", width.to_string(), error.access.as_ref().map_or(0, |access| access.size).to_string());
    }
    if let Some((offset, size)) = wanted.block {
        let seen = error.block.as_ref().map(|block| format!("{:+} of {}", block.offset, block.size));
        differ("block", format!("{offset:+} of {size}"), seen.unwrap_or_default());
        let freed = matches!(&*wanted.id, "heap-use-after-free" | "double-free");
        if freed || wanted.id == "heap-buffer-overflow" {
            let seen = error.block.as_ref().map(|block| block.state.clone());
            differ("state", if freed { "freed" } else { "live" }.to_owned(), seen.unwrap_or_default());
        }
    }
    if let Some(line) = wanted.line {
        differ("line", line.to_string(), line_in(&error.stack, file).unwrap_or_default().to_string());
    }
    if let Some(word) = wanted.word.as_ref().filter(|word| !error.message.contains(&***word)) {
        differ("message", format!("one with `{word}`"), error.message.clone());
    }
    if !wanted.count.admits(error.count) {
        differ("count", format!("{:?}", wanted.count), error.count.to_string());
    }
    found
}

fn wrong_block_stacks(expected: &Expected, error: &Error, file: &str) -> Vec<String> {
    let Some(block) = &error.block else { return Vec::new() };
    let mut complaints = Vec::new();
    let mut must_be_at = |what: &str, lines: &[u32], stack: &[Frame]| {
        let line = line_in(stack, file);
        if !lines.is_empty() && !line.is_some_and(|line| lines.contains(&line)) {
            complaints.push(format!("{}: {what} at line {line:?}, expected {lines:?}", error.id));
        }
    };
    must_be_at("allocated", &expected.allocated, &error.allocated);
    if block.state == "freed" {
        must_be_at("freed", &expected.freed, &error.freed);
    }
    complaints
}

fn wrong_leaks(expected: &Expected, leaks: &[Leak], file: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut unexpected: Vec<&Leak> = leaks.iter().collect();
    for wanted in &expected.leaks {
        let same = |leak: &&Leak| {
            leak.kind == wanted.kind
                && (leak.bytes, leak.blocks) == (wanted.bytes, wanted.blocks)
                && line_in(&leak.stack, file) == Some(wanted.line)
        };
        match unexpected.iter().position(same) {
            Some(index) => drop(unexpected.remove(index)),
            None => complaints.push(format!("leak not found: {wanted:?}")),
        }
    }
    complaints.extend(unexpected.iter().map(|leak| format!("not expected: {}", leak.describe())));
    complaints
}
