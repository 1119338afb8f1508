//! What the options of the leak search change, and that it and the last look at the heap work whoever runs them and
//! whatever other threads do.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::{compile, exec, fixture, trial};

/// How often a program of a hundred threads is run.
const RUNS: usize = 5;

/// A user who is nobody, on every Linux.
const NOBODY: &str = "65534";

/// A fixture, options, and the loss records as `KIND BYTES in BLOCKS`, in order.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    ("tagged_pointer.c", &[], &["definite 72 in 1", "possible 71 in 1"]),
    ("tagged_pointer.c", &["--leak-tag-bits=2"], &["definite 72 in 1", "reachable 71 in 1"]),
    (
        "heuristics.cc",
        &[],
        &["reachable 108 in 1", "reachable 40 in 1", "reachable 45 in 1", "reachable 48 in 1"],
    ),
    (
        "heuristics.cc",
        &["--leak-check-heuristics=none"],
        &["possible 108 in 1", "possible 40 in 1", "possible 45 in 1", "possible 48 in 1"],
    ),
    (
        "heuristics.cc",
        &["--leak-check-heuristics=stdstring"],
        &["possible 108 in 1", "possible 40 in 1", "possible 48 in 1", "reachable 45 in 1"],
    ),
    // What is behind a 64-bit length is also behind a count that divides the rest.
    (
        "heuristics.cc",
        &["--leak-check-heuristics=newarray"],
        &["possible 40 in 1", "possible 45 in 1", "reachable 108 in 1", "reachable 48 in 1"],
    ),
    (
        "heuristics.cc",
        &["--leak-check-heuristics=length64"],
        &["possible 40 in 1", "possible 45 in 1", "possible 48 in 1", "reachable 108 in 1"],
    ),
    (
        "heuristics.cc",
        &["--leak-check-heuristics=multipleinheritance"],
        &["possible 108 in 1", "possible 45 in 1", "possible 48 in 1", "reachable 40 in 1"],
    ),
    ("pool.c", &[], &["reachable 24 in 1", "reachable 512 in 1"]),
    ("pool.c", &["--leak-check-heuristics=length64"], &["possible 512 in 1", "reachable 24 in 1"]),
    ("resolution.c", &["--leak-resolution=low"], &["definite 30 in 3"]),
    ("resolution.c", &["--leak-resolution=med"], &["definite 10 in 1", "definite 20 in 2"]),
    (
        "resolution.c",
        &["--leak-resolution=high"],
        &["definite 10 in 1", "definite 10 in 1", "definite 10 in 1"],
    ),
];

/// All of them.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = CASES
        .iter()
        .map(|case| trial(format!("leaks::{}{}", case.0, case.1.join("")), move || options(case)))
        .collect();
    trials.push(trial("leaks::hundred_threads_stop_at_the_end", crowd));
    trials.push(trial("leaks::threads_give_large_blocks_back_at_the_end", large_blocks));
    trials.push(trial("leaks::objects_of_glib_are_in_use", glib));
    trials.push(trial("leaks::variables_of_threads_in_late_libraries_are_named", late_storage));
    trials.push(trial("leaks::exec_tells_what_it_drops_on_request", replaced));
    trials.push(trial("leaks::unprivileged_user_without_ptrace_is_told", unprivileged));
    trials
}

fn program(group: &str, name: &str) -> Result<PathBuf, String> {
    let source = fixture::folder().join(group).join(name);
    compile::program(&source, "leaks", &["-g", "-O0", "-w", "-pthread", "-fno-builtin"].map(str::to_owned))
}

fn options((name, options, wanted): &Case) -> Result<(), String> {
    let options = [&["--show-leak-kinds=all"], *options].concat();
    let run = exec::checked(&options, &program("leak", name)?, &[])?;
    let mut seen: Vec<String> = run
        .report
        .leaks
        .iter()
        .map(|leak| format!("{} {} in {}", leak.kind, leak.bytes, leak.blocks))
        .collect();
    seen.sort();
    if seen == *wanted { Ok(()) } else { Err(format!("{options:?}: {seen:?}, expected {wanted:?}")) }
}

/// A hundred threads that compute, allocate, sleep, take signals, come and go, when main returns.
fn crowd() -> Result<(), String> {
    let program = program("programs", "crowd.c")?;
    for _ in 0..RUNS {
        let run = exec::checked(&[], &program, &["return"])?;
        if run.outcome.status != "exit 0" || run.text.contains("not searched") {
            return Err(format!("{}: {}", run.outcome.status, run.text));
        }
    }
    Ok(())
}

/// Blocks that are looked at when the process ends, and that other threads give back meanwhile.
fn large_blocks() -> Result<(), String> {
    let program = program("programs", "large_blocks.c")?;
    for option in ["--leak-check=no", "--access-checks=no"] {
        for _ in 0..RUNS {
            let run = exec::checked(&[option], &program, &[])?;
            if run.outcome.status != "exit 0" {
                return Err(format!("{option}: {}: {}", run.outcome.status, run.text));
            }
        }
    }
    Ok(())
}

/// GLib keeps pointers into the middle of its blocks, unless it is told that it is watched.
fn glib() -> Result<(), String> {
    let program = program("programs", "gobject.c")?;
    for options in [&[][..], &["--access-checks=no"]] {
        let run = exec::checked(options, &program, &[])?;
        match run.outcome.status.as_str() {
            "exit 0" => {}
            "exit 77" => return Err("there is no GLib: see .ci/run".to_owned()),
            status => return Err(format!("{options:?}: {status}: {}", run.text)),
        }
    }
    Ok(())
}

/// The storage of a library that was loaded late is a block, and the variables in it have their names all the same.
fn late_storage() -> Result<(), String> {
    let library = compile::libraries()?.join("liblate.so").display().to_string();
    let run =
        exec::checked(&["--show-leak-kinds=all"], &program("programs", "late_storage.c")?, &[&library])?;
    let held: Vec<&str> =
        run.text.lines().filter(|line| line.contains("held by thread-local held_late of ")).collect();
    match &held[..] {
        [a, b] if a.contains("of thread ") != b.contains("of thread ") => Ok(()),
        _ => Err(format!("{held:?}: {}", run.text)),
    }
}

/// What a program had when it became another one is a line where reachable blocks are shown, and in the JSON report.
fn replaced() -> Result<(), String> {
    let program = program("programs", "replaced.c")?;
    let told = "it became another program with 150 bytes in 2 blocks in use, not searched for leaks";
    for (options, is_told) in [(&[][..], false), (&["--show-leak-kinds=all"], true)] {
        let run = exec::checked(options, &program, &[])?;
        if run.outcome.status != "exit 0" || run.text.contains(told) != is_told {
            return Err(format!("{options:?}: {}: {}", run.outcome.status, run.text));
        }
        let in_use = run.report.processes.iter().map(|process| process.heap.in_use_bytes).collect::<Vec<_>>();
        if in_use != [150, 0] {
            return Err(format!("{in_use:?} bytes in use"));
        }
    }
    Ok(())
}

fn unprivileged() -> Result<(), String> {
    let program = program("leak", "without_ptrace.c")?;
    let mut command = match nix::unistd::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"]);
            command.arg(env!("CARGO_BIN_EXE_memcheck"));
            command
        }
        false => exec::memcheck(),
    };
    let scratch = exec::scratch()?;
    // What this user must reach lies below folders that may be root's alone.
    let place = std::env::temp_dir().join(format!("memcheck-leaks-{}", std::process::id()));
    std::fs::create_dir_all(&place).map_err(|e| e.to_string())?;
    let copy = |from: &std::path::Path, name: &str| {
        let to = place.join(name);
        exec::copy_program(from, &to).map(|()| to)
    };
    let copied = copy(&program, "program").and_then(|program| {
        let memcheck = copy(std::path::Path::new(env!("CARGO_BIN_EXE_memcheck")), "memcheck")?;
        Ok((program, memcheck))
    });
    let outcome = copied.and_then(|(program, memcheck)| {
        let mut words = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(ToOwned::to_owned));
        if let Some(last) = words.last_mut() {
            *last = memcheck.into_os_string();
        }
        command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program).current_dir(&place).stdin(Stdio::null()).env("HOME", &place);
        exec::run(&mut command, scratch.path())
    });
    drop(std::fs::remove_dir_all(&place));
    let outcome = outcome?;
    let text = String::from_utf8_lossy(&outcome.stderr);
    let is_told =
        text.contains("24 bytes in 1 block definitely lost") && text.contains("66 bytes in 1 block still");
    if outcome.status == "exit 99" && is_told { Ok(()) } else { Err(format!("{}:\n{text}", outcome.status)) }
}
