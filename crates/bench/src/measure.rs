//! Runs programs and takes their CPU time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::tool::Tool;
use crate::workload::Workload;

/// What every measurement needs.
#[derive(Debug)]
pub struct Bench {
    /// The memcheck to measure.
    pub memcheck: PathBuf,
    /// Where programs and inputs lie.
    pub place: PathBuf,
    /// How often everything runs.
    pub runs: usize,
}

/// User plus system time of every child that was waited for so far, with its own.
fn children_time() -> Result<Duration, String> {
    let usage =
        getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("failed to read the CPU time: {e}"))?;
    let [user, system] = [usage.user_time(), usage.system_time()].map(|time| {
        Duration::from_micros(time.tv_sec().cast_unsigned() * 1_000_000 + time.tv_usec().cast_unsigned())
    });
    Ok(user + system)
}

/// Runs a command to its end and returns its CPU time. A failure that `command` does not have natively counts.
pub fn cpu_time(command: &mut Command) -> Result<Duration, String> {
    let before = children_time()?;
    let status = command.status().map_err(|e| format!("failed to run {command:?}: {e}"))?;
    let time = children_time()? - before;
    if status.success() { Ok(time) } else { Err(format!("{command:?}: {status}")) }
}

/// The median.
pub fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

impl Bench {
    /// Compiles one of the workloads that lie beside this source.
    pub fn compile(&self, name: &str, flags: &[&str]) -> Result<PathBuf, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads").join(format!("{name}.c"));
        let program = self.place.join(format!("{name}{}", flags.concat()));
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-g", "-pthread"]).args(flags).arg(source).arg("-o").arg(&program);
        let status = gcc.status().map_err(|e| format!("failed to run gcc: {e}"))?;
        if status.success() { Ok(program) } else { Err(format!("{gcc:?}: {status}")) }
    }

    /// The median time of each tool; `None` where a tool cannot run the workload.
    pub fn medians(&self, tools: &[Tool], workload: &Workload) -> Result<Vec<Option<Duration>>, String> {
        let mut times: Vec<Option<Vec<Duration>>> = vec![Some(Vec::new()); tools.len()];
        for _ in 0..self.runs {
            for (&tool, times) in tools.iter().zip(&mut times) {
                // Valgrind is so slow that one run tells enough.
                let enough = times.as_ref().is_none_or(|times| tool == Tool::Valgrind && !times.is_empty());
                if enough {
                    continue;
                }
                match self.once(tool, workload) {
                    Ok(time) => times.get_or_insert_default().push(time),
                    Err(error) if tool == Tool::Native => return Err(error),
                    Err(error) => {
                        eprintln!("{} under {}: {error}", workload.name, tool.title());
                        *times = None;
                    }
                }
            }
        }
        Ok(times.into_iter().map(|times| times.and_then(median)).collect())
    }

    fn once(&self, tool: Tool, workload: &Workload) -> Result<Duration, String> {
        let program = match tool {
            Tool::Asan => workload.asan.as_deref().ok_or("there is no such build")?,
            _ => &workload.program,
        };
        let mut command = tool.command(&self.memcheck, program);
        command.args(&workload.arguments).envs(tool.environment().iter().copied());
        let input: Stdio = match &workload.input {
            Some(path) => File::open(path).map_err(|e| format!("{}: {e}", path.display()))?.into(),
            None => Stdio::null(),
        };
        cpu_time(command.current_dir(&self.place).stdin(input).stdout(Stdio::null()))
    }
}
