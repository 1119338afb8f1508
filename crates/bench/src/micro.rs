//! Costs that hide in a ratio: one malloc and free, a start, and what a second thread gains.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::measure::{Bench, cpu_time, median};
use crate::tool::Tool;

/// AddressSanitizer's allocator without a rebuild.
const ASAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libasan.so.8";

/// Nanoseconds of one malloc and free of 64 bytes, by the depth of the call stack.
pub fn print_malloc(bench: &Bench, tools: &[Tool]) -> Result<(), String> {
    let program = bench.compile("malloc_pairs", &[])?;
    println!("\n| malloc + free of 64 bytes, ns at depth | 2 | 10 | 30 |\n|---|---:|---:|---:|");
    for &tool in tools {
        let count = if tool == Tool::Valgrind { "200000" } else { "2000000" };
        let cells: Result<Vec<String>, String> =
            ["2", "10", "30"].iter().map(|depth| number(bench, tool, &program, &[depth, count])).collect();
        println!("| {} | {} |", tool.title(), cells?.join(" | "));
    }
    Ok(())
}

/// Milliseconds of CPU time for a program that prints one line.
pub fn print_start(bench: &Bench, tools: &[Tool]) -> Result<(), String> {
    let program = bench.compile("hello", &[])?;
    println!("\n| hello | ms of CPU |\n|---|---:|");
    for &tool in tools {
        let runs =
            (0..bench.runs.max(11)).map(|_| cpu_time(command(bench, tool, &program).stdout(Stdio::null())));
        let times = runs.collect::<Result<Vec<Duration>, String>>()?;
        println!("| {} | {:.1} |", tool.title(), median(times).unwrap_or_default().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// How many times faster two threads do what one does.
pub fn print_threads(bench: &Bench, tools: &[Tool]) -> Result<(), String> {
    let program = bench.compile("malloc_threads", &[])?;
    println!("\n| the same work in two threads | times as fast |\n|---|---:|");
    for &tool in tools {
        let count = if tool == Tool::Valgrind { "400000" } else { "8000000" };
        let seconds: Vec<f64> = ["1", "2"]
            .iter()
            .map(|threads| {
                number(bench, tool, &program, &[threads, count]).map(|text| text.parse().unwrap_or(f64::NAN))
            })
            .collect::<Result<_, _>>()?;
        println!("| {} | {:.2} |", tool.title(), seconds[0] / seconds[1]);
    }
    Ok(())
}

fn command(bench: &Bench, tool: Tool, program: &Path) -> Command {
    let mut command = tool.command(&bench.memcheck, program);
    if tool == Tool::Asan {
        command.env("LD_PRELOAD", ASAN_LIBRARY);
    }
    command.envs(tool.environment().iter().copied());
    command
}

/// The median of the number that a program prints.
fn number(bench: &Bench, tool: Tool, program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut seen = Vec::new();
    for _ in 0..bench.runs {
        let mut command = command(bench, tool, program);
        let output =
            command.args(arguments).output().map_err(|e| format!("failed to run {command:?}: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        seen.push(text.trim().parse::<f64>().map_err(|_| format!("{command:?} printed {text:?}"))?);
    }
    Ok(format!("{:.3}", median(seen).unwrap_or_default()))
}
