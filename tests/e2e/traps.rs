//! Correct programs that a tool which rewrites code is likely to break: each is built in the ways that its first
//! lines name, and must behave as it does natively, lazily and eagerly translated and in stress mode, with no
//! finding.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::{compile, exec, fixture, trial};

/// How memcheck is run.
const MODES: &[(&str, &[&str])] = &[
    ("heap alone", &["--access-checks=no"]),
    ("access checks", &[]),
    ("eager", &["--translate=eager"]),
    ("stress", &["--stress=yes"]),
];

/// One trial for each program and each way to build it.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let files = fs::read_dir(fixture::folder().join("traps")).expect("fixtures/traps is readable");
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a trap is readable text");
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        for flags in text.lines().filter_map(|line| line.strip_prefix("// build: ")).map(str::to_owned) {
            let path = path.clone();
            trials.push(trial(format!("trap::{name} {flags}"), move || check(&path, &flags)));
        }
    }
    trials
}

fn check(path: &Path, flags: &str) -> Result<(), String> {
    let libraries = compile::libraries()?.display().to_string();
    let mut all = vec!["-g".to_owned(), "-w".to_owned(), format!("-DLIBRARIES=\"{libraries}\"")];
    all.extend(flags.split_whitespace().map(str::to_owned));
    let place: String = flags.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let program = compile::program(path, &format!("traps/{place}"), &all)?;
    let native = exec::native(&program, &[])?;
    let mut complaints = Vec::new();
    for (name, options) in MODES {
        match exec::checked(options, &program, &[]) {
            Ok(run) if run.outcome != native => {
                complaints.push(format!("{name}: native {native:?}, under memcheck {:?}", run.outcome));
            }
            Ok(run) => complaints.extend(run.report.must_be_clean().err().map(|e| format!("{name}: {e}"))),
            Err(e) => complaints.push(format!("{name}: {e}")),
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}
