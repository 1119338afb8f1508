//! What a leak search at exit costs, beside LeakSanitizer: CPU time with the search less CPU time without.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::measure::{Bench, cpu_time, median};

/// Debian's LeakSanitizer of GCC 12.
const LSAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/liblsan.so.0";

/// The programs that are searched.
const PROGRAMS: [(&str, &str); 2] = [("live_blocks", "hash table, random order"), ("live_list", "list")];

/// Seconds for three million live blocks.
pub fn print(bench: &Bench) -> Result<(), String> {
    println!(
        "\n| leak search, 3,000,000 live blocks | LeakSanitizer | memcheck | times as fast |\n|---|---:|---:|---:|"
    );
    for (name, title) in PROGRAMS {
        let program = bench.compile(name, &[])?;
        let runs = [
            lsan(&program, "0"),
            lsan(&program, "1"),
            ours(bench, &program, "no"),
            ours(bench, &program, "full"),
        ];
        let mut times = runs.map(|command| (command, Vec::new()));
        // The runs take turns.
        for _ in 0..bench.runs {
            for (command, times) in &mut times {
                times.push(cpu_time(command)?.as_secs_f64());
            }
        }
        let [lsan_without, lsan_with, without, with] =
            times.map(|(_, times)| median(times).unwrap_or(f64::NAN));
        let (theirs, ours) = (lsan_with - lsan_without, with - without);
        println!("| {title} | {theirs:.2} s | {ours:.2} s | {:.1} |", theirs / ours);
    }
    Ok(())
}

fn lsan(program: &Path, searches: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", LSAN_LIBRARY).env("LSAN_OPTIONS", format!("detect_leaks={searches}"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn ours(bench: &Bench, program: &Path, searches: &str) -> Command {
    let mut command = Command::new(&bench.memcheck);
    command.args(["-q", "--access-checks=no", &format!("--leak-check={searches}")]).arg(program);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
