//! The ratio table: how much longer programs run under memcheck than natively, beside Valgrind and
//! AddressSanitizer.
//!
//! User plus system CPU time of a program and all its descendants, and the most memory that one of them had resident,
//! the medians of several runs; the tools take turns so that a change of the machine's speed hits all of them.
//! Output is Markdown.
//!
//! `cargo run --release -p memcheck-bench -- --memcheck=target/release/memcheck`
#![forbid(unsafe_code)]

mod leaks;
mod measure;
mod micro;
mod table;
mod tool;
mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::tool::Tool;

/// What is measured.
#[derive(Debug, Parser)]
#[command(about = "Measures memcheck against native runs, Valgrind and AddressSanitizer")]
struct Flags {
    /// The memcheck to measure
    #[arg(long, default_value = "target/release/memcheck")]
    memcheck: PathBuf,
    /// How often each tool runs each program
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The tools, by comma: native, asan, valgrind, heap, full
    #[arg(long, value_delimiter = ',', default_value = "native,asan,valgrind,heap,full")]
    tools: Vec<Tool>,
    /// Only workloads whose name holds this word
    #[arg(long, default_value = "")]
    only: String,
    /// The folder that `crates/bench/build-programs` filled; without it Debian's programs are measured
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Measure leak searches alone, beside LeakSanitizer
    #[arg(long)]
    leaks: bool,
    /// Leave out the cost of one malloc and free, start-up and threads
    #[arg(long)]
    no_micro: bool,
    /// Run a command and write what it used to a file: how the bench runs every program
    #[arg(long, hide = true, num_args = 2.., allow_hyphen_values = true)]
    usage: Vec<OsString>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let [report, program, arguments @ ..] = &flags.usage[..] {
        return measure::run_and_report(report.as_ref(), program, arguments);
    }
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memcheck-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), String> {
    let memcheck = flags.memcheck.canonicalize().map_err(|e| format!("{}: {e}", flags.memcheck.display()))?;
    let place = tempfile::tempdir().map_err(|e| format!("failed to create a folder: {e}"))?;
    let bench = measure::Bench { memcheck, place: place.path().to_owned(), runs: flags.runs };
    if flags.leaks {
        return leaks::print(&bench);
    }
    if !flags.no_micro {
        micro::print_malloc(&bench, &flags.tools)?;
        micro::print_start(&bench, &flags.tools)?;
        micro::print_threads(&bench, &flags.tools)?;
    }
    let mut times = table::Table::new("CPU time", "s", &flags.tools);
    let mut peaks = table::Table::new("most memory", "MiB", &flags.tools);
    for workload in workload::all(&bench, flags.programs.as_deref())? {
        if workload.name.contains(&flags.only) {
            let usages = bench.medians(&flags.tools, &workload)?;
            times.add(&workload.name, &usages, |usage| usage.seconds);
            peaks.add(&workload.name, &usages, |usage| usage.peak_mebibytes);
        }
    }
    print!("{times}{peaks}");
    Ok(())
}
