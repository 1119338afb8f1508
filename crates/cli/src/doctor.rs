//! `memcheck doctor [PROGRAM]`: why a program, or any, cannot be checked well here, and what to do about it.
//!
//! In: a command, and this machine. Out: one line for each thing looked at, with advice where something is in the way.
//! Runs /bin/true under memcheck, but never the program.

use std::{ffi::OsString, fmt::Write as _, fs, io::Write as _, path::Path, process::ExitCode};

use goblin::elf::Elf;
use memcheck_report::Report;
use memcheck_symbolize::Symbolizer;
use memcheck_wire::CHANNEL_BYTES;
use nix::{
    libc::RLIM_INFINITY,
    sys::resource::{Resource, getrlimit},
};

use crate::{CANNOT_EXECUTE, FAILED, fail, program, shim::Shim, stored};

/// What one look at the program or the machine found.
enum Sight {
    /// As it should be.
    Good(String),
    /// In the way of a full check: what, and what to do.
    Limit(String, String),
    /// In the way of any check.
    Refusal(String, String),
}

/// Looks, and tells.
pub fn run(command: &[OsString], shim: Shim) -> ExitCode {
    let mut sights = if command.is_empty() { Vec::new() } else { of_program(command) };
    sights.extend(of_machine(shim));
    let mut text = String::new();
    for sight in &sights {
        let (word, what, advice) = match sight {
            Sight::Good(what) => ("good", what, ""),
            Sight::Limit(what, advice) => ("limited", what, advice.as_str()),
            Sight::Refusal(what, advice) => ("refused", what, advice.as_str()),
        };
        let _ = writeln!(text, "{word:<8} {what}");
        if !advice.is_empty() {
            let _ = writeln!(text, "{:8} do: {advice}", "");
        }
    }
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        return fail(FAILED, &format_args!("cannot write to standard output: {error}"));
    }
    if sights.iter().any(|sight| matches!(sight, Sight::Refusal(..))) {
        ExitCode::from(CANNOT_EXECUTE)
    } else {
        ExitCode::from(u8::from(sights.iter().any(|sight| matches!(sight, Sight::Limit(..)))))
    }
}

fn of_program(command: &[OsString]) -> Vec<Sight> {
    let found = match program::find(command, std::env::var_os("PATH").as_deref()) {
        Ok(found) => found,
        Err(refusal) => return vec![Sight::Refusal(refusal.to_string(), refusal.advice().to_owned())],
    };
    let path = found.path;
    let shown = path.display();
    let mut sights = vec![Sight::Good(format!("{shown} can be watched"))];
    let Ok(bytes) = fs::read(&path) else { return sights };
    if bytes.starts_with(b"#!") {
        sights.push(Sight::Good(
            "it is a script: what is checked is its interpreter, and what it starts".to_owned(),
        ));
        return sights;
    }
    let Ok(elf) = Elf::parse(&bytes) else { return sights };
    sights.push(names(&path, &elf));
    sights.extend(allocator(&elf));
    sights
}

/// What findings can say of places in the program.
fn names(path: &Path, elf: &Elf<'_>) -> Sight {
    if Symbolizer::has_lines(path) {
        return Sight::Good("it has debugging information: findings show source lines".to_owned());
    }
    let advice = "build it with -g, or install its package of debugging symbols (NAME-dbgsym, NAME-dbg)";
    let has_names = elf.syms.iter().any(|symbol| symbol.is_function() && symbol.st_shndx != 0);
    let what = if has_names {
        "it has no debugging information: findings show functions, but no source lines"
    } else {
        "it is stripped: findings show addresses for its own functions"
    };
    Sight::Limit(what.to_owned(), advice.to_owned())
}

/// An allocator that the program brings along.
fn allocator(elf: &Elf<'_>) -> Option<Sight> {
    // The plain names are led to ours.
    const CALLS: [&str; 4] = ["je_malloc", "tc_malloc", "mi_malloc", "rpmalloc"];
    let own = |name: &str| {
        let defines = |symbol: goblin::elf::Sym, strings: &goblin::strtab::Strtab<'_>| {
            symbol.is_function() && symbol.st_shndx != 0 && strings.get_at(symbol.st_name) == Some(name)
        };
        elf.syms.iter().any(|symbol| defines(symbol, &elf.strtab))
            || elf.dynsyms.iter().any(|symbol| defines(symbol, &elf.dynstrtab))
    };
    if own("malloc") {
        return Some(Sight::Good("it brings an allocator of its own: memcheck's stands for it".to_owned()));
    }
    CALLS.iter().find(|name| own(name)).map(|name| {
        Sight::Limit(
            format!("it defines {name} itself: what that allocates may not be seen as blocks"),
            "build it with the C library's allocator for the check".to_owned(),
        )
    })
}

fn of_machine(shim: Shim) -> Vec<Sight> {
    let mut sights = vec![match shim.unpack() {
        Ok(path) => Sight::Good(format!("the checker is unpacked at {}", path.display())),
        Err(reason) => Sight::Refusal(reason.to_string(), "make one of these folders usable".to_owned()),
    }];
    sights.extend(limits());
    sights.extend(kernel());
    sights.push(trial());
    sights
}

/// Limits of the shell (`ulimit`) that a checked program outgrows.
fn limits() -> Vec<Sight> {
    let limit = |resource| getrlimit(resource).map_or(RLIM_INFINITY, |(soft, _)| soft);
    let mut sights = Vec::new();
    for (resource, letter, what, least) in [
        (
            Resource::RLIMIT_AS,
            'v',
            "address space: accesses cannot be checked at the instruction",
            RLIM_INFINITY,
        ),
        (Resource::RLIMIT_DATA, 'd', "data: the checker's memory counts too", 4 << 30),
        (
            Resource::RLIMIT_FSIZE,
            'f',
            "file sizes: there is no room for the channel to the program",
            CHANNEL_BYTES as u64,
        ),
        (Resource::RLIMIT_NOFILE, 'n', "open files: the checker needs a few", 16),
    ] {
        let bytes = limit(resource);
        if bytes < least {
            sights.push(Sight::Limit(
                format!("ulimit -{letter} limits {what} ({bytes})"),
                format!("ulimit -{letter} unlimited, where the hard limit allows it"),
            ));
        }
    }
    if sights.is_empty() {
        sights.push(Sight::Good("no limit of the shell is in the way".to_owned()));
    }
    sights
}

/// What the kernel and a sandbox forbid.
fn kernel() -> Vec<Sight> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut sights = Vec::new();
    if read("/proc/self/stat").is_empty() {
        sights.push(Sight::Refusal(
            "/proc is not mounted: programs cannot find the channel to the launcher".to_owned(),
            "mount -t proc proc /proc".to_owned(),
        ));
    }
    if read("/proc/sys/vm/overcommit_memory").trim() == "2" {
        sights.push(Sight::Limit(
            "vm.overcommit_memory is 2: the address space for the checks may be refused".to_owned(),
            "sysctl vm.overcommit_memory=0".to_owned(),
        ));
    }
    let status = read("/proc/self/status");
    let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    if field("Seccomp:").as_deref() == Some("2") {
        sights.push(Sight::Good(
            "a sandbox filters system calls (seccomp), as containers have it; the trial below shows whether that matters".to_owned(),
        ));
    }
    let is_root = nix::unistd::geteuid().is_root();
    if field("NoNewPrivs:").as_deref() == Some("1") && !is_root {
        sights.push(Sight::Good(
            "no new privileges are given here: set-id programs run without theirs".to_owned(),
        ));
    }
    sights
}

/// A program that is everywhere, run under memcheck as it is here.
fn trial() -> Sight {
    let advice = "memcheck /bin/true says more".to_owned();
    match try_trial() {
        Ok(report) if report.processes.iter().any(|process| process.coverage.access_checks) => {
            Sight::Good("a trial with /bin/true checked its accesses at the instruction".to_owned())
        }
        Ok(report) if report.processes.is_empty() => {
            Sight::Refusal("the checker was not loaded into /bin/true".to_owned(), advice)
        }
        Ok(_) => Sight::Limit(
            "a trial with /bin/true: the heap is checked, accesses at the instruction are not".to_owned(),
            advice,
        ),
        Err(reason) => Sight::Refusal(format!("a trial with /bin/true failed: {reason}"), advice),
    }
}

fn try_trial() -> Result<Report, String> {
    let file = std::env::temp_dir().join(format!("memcheck-trial-{}.json", std::process::id()));
    let own = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut option = OsString::from("--json=");
    option.push(&file);
    let output = std::process::Command::new(own)
        .args([OsString::from("--config=no"), OsString::from("-q"), option, OsString::from("/bin/true")])
        .output()
        .map_err(|error| error.to_string())?;
    let report = stored::read(&file);
    let _ = fs::remove_file(&file);
    report.map_err(|reason| {
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines().next().map_or(reason, str::to_owned)
    })
}
