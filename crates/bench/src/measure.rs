//! Runs programs and takes their CPU time and memory.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::tool::Tool;
use crate::workload::Workload;

/// What a run used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User plus system time of all its processes.
    pub seconds: f64,
    /// The most that one of them had resident.
    pub peak_mebibytes: f64,
}

impl Usage {
    /// What [`run_and_report`] wrote.
    fn read(report: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(report).map_err(|e| format!("{}: {e}", report.display()))?;
        let numbers: Vec<f64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [seconds, peak_mebibytes] => Ok(Self { seconds, peak_mebibytes }),
            _ => Err(format!("{}: {text:?}", report.display())),
        }
    }
}

/// Runs a command, in a process that has no other children, and writes what it used to the file `report`.
pub fn run_and_report(report: &Path, program: &OsStr, arguments: &[OsString]) -> ExitCode {
    let run = || {
        let seconds = cpu_time(Command::new(program).args(arguments))?.as_secs_f64();
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| e.to_string())?;
        let text = format!("{seconds} {}", usage.max_rss() as f64 / 1024.0);
        fs::write(report, text).map_err(|e| e.to_string())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

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

    /// The median of what each tool used; `None` where a tool cannot run the workload.
    pub fn medians(&self, tools: &[Tool], workload: &Workload) -> Result<Vec<Option<Usage>>, String> {
        let mut usages: Vec<Option<Vec<Usage>>> = vec![Some(Vec::new()); tools.len()];
        for _ in 0..self.runs {
            for (&tool, usages) in tools.iter().zip(&mut usages) {
                // Valgrind is so slow that one run tells enough.
                let enough =
                    usages.as_ref().is_none_or(|usages| tool == Tool::Valgrind && !usages.is_empty());
                if enough {
                    continue;
                }
                match self.once(tool, workload) {
                    Ok(usage) => usages.get_or_insert_default().push(usage),
                    Err(error) if tool == Tool::Native => return Err(error),
                    Err(error) => {
                        eprintln!("{} under {}: {error}", workload.name, tool.title());
                        *usages = None;
                    }
                }
            }
        }
        let median_of =
            |usages: &[Usage], quantity: fn(&Usage) -> f64| median(usages.iter().map(quantity).collect());
        let middle = |usages: Vec<Usage>| {
            let seconds = median_of(&usages, |usage| usage.seconds)?;
            Some(Usage { seconds, peak_mebibytes: median_of(&usages, |usage| usage.peak_mebibytes)? })
        };
        Ok(usages.into_iter().map(|usages| usages.and_then(middle)).collect())
    }

    fn once(&self, tool: Tool, workload: &Workload) -> Result<Usage, String> {
        let program = match tool {
            Tool::Asan => workload.asan.as_deref().ok_or("there is no such build")?,
            _ => &workload.program,
        };
        let tool_command = tool.command(&self.memcheck, program);
        let own = std::env::current_exe().map_err(|e| format!("failed to find the bench: {e}"))?;
        let report = self.place.join("usage");
        let mut command = Command::new(own);
        command.arg("--usage").arg(&report).arg(tool_command.get_program()).args(tool_command.get_args());
        command.args(&workload.arguments).envs(tool.environment().iter().copied());
        let input: Stdio = match &workload.input {
            Some(path) => File::open(path).map_err(|e| format!("{}: {e}", path.display()))?.into(),
            None => Stdio::null(),
        };
        cpu_time(command.current_dir(&self.place).stdin(input).stdout(Stdio::null()))?;
        Usage::read(&report)
    }
}
