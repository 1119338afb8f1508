//! Programs that nobody here wrote, natively and under memcheck: what they print, how they end and which files
//! they leave must be the same, and nothing may be found.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::{exec, fixture, oracle, trial};

/// One program at work.
struct Workload {
    name: &'static str,
    /// A shell command that makes the input files, run natively beforehand; `$FIXTURES` is the folder of the
    /// fixtures.
    prepare: &'static str,
    /// The file that is standard input.
    stdin: &'static str,
    /// The program and its arguments.
    command: &'static [&'static str],
}

/// How memcheck is run.
struct Mode {
    name: &'static str,
    options: &'static [&'static str],
    /// Only the programs whose names it lists, or all.
    only: Option<&'static [&'static str]>,
}

const MODES: &[Mode] = &[
    Mode { name: "heap-alone", options: &["--access-checks=no"], only: None },
    Mode { name: "access-checks", options: &[], only: None },
    Mode { name: "eager", options: &["--translate=eager"], only: None },
    Mode { name: "stress", options: &["--stress=yes"], only: None },
];

/// Programs that lose blocks themselves, as Valgrind says too (docs/LEAKS.md): theirs are no errors here. Of bash it is
/// sort and tr that do, which its script runs.
const LEAKING: &[&str] = &[
    "bash", "busybox", "cc1", "cc1plus", "gcc", "gdb", "git", "grep", "objdump", "ocaml", "perl", "sed",
    "sort", "tclsh",
];

/// Those of them, and gawk by Valgrind's heuristics alone, that lose the same blocks in every run, in one process and in
/// few seconds under Valgrind. The content of what perl and tclsh lose depends on their environment and on addresses.
const COMPARED: &[&str] = &["cc1", "gawk", "gdb", "grep", "objdump", "sed", "sort"];

/// Those that Valgrind has.
const HEURISTICS: &str = "--leak-check-heuristics=stdstring,length64,newarray,multipleinheritance";

/// The tables of TLS blocks of running threads, which are glibc's own (docs/LEAKS.md).
const TLS_TABLES: &str = "{\n tls\n Memcheck:Leak\n fun:calloc\n ...\n fun:_dl_allocate_tls\n}\n";

/// A text of about 300 KB.
const TEXT: &str = "for i in 1 2 3; do cat $FIXTURES/*/*.c $FIXTURES/*/*.cc; done > text";
/// A larger C file, preprocessed.
const SOURCE: &str = "for h in stdio stdlib string math time locale signal pthread unistd sys/socket; do \
                      echo \"#include <$h.h>\"; done > source.c; cat $FIXTURES/programs/hash.c >> source.c; \
                      gcc -E source.c -o source.i";

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "gzip",
        prepare: TEXT,
        stdin: "",
        command: &["/usr/bin/gzip", "-9", "-k", "-n", "text"],
    },
    Workload {
        name: "gunzip",
        prepare: "for i in 1 2 3; do cat $FIXTURES/*/*.c; done | gzip -9n > text.gz",
        stdin: "",
        command: &["/usr/bin/gzip", "-dc", "text.gz"],
    },
    Workload { name: "xz", prepare: TEXT, stdin: "", command: &["/usr/bin/xz", "-3", "-k", "-T2", "text"] },
    Workload {
        name: "unxz",
        prepare: "cat $FIXTURES/*/*.c | xz > text.xz",
        stdin: "",
        command: &["/usr/bin/xz", "-dc", "text.xz"],
    },
    Workload { name: "bzip2", prepare: TEXT, stdin: "", command: &["/usr/bin/bzip2", "-k", "text"] },
    Workload {
        name: "zstd",
        prepare: TEXT,
        stdin: "",
        command: &["/usr/bin/zstd", "-q", "-k", "-T1", "text"],
    },
    Workload {
        name: "sqlite3",
        prepare: "cp $FIXTURES/programs/database.sql .",
        stdin: "database.sql",
        command: &["/usr/bin/sqlite3", "-batch", "data.db"],
    },
    Workload {
        name: "lua5.4",
        prepare: "cp $FIXTURES/programs/script.lua .",
        stdin: "",
        command: &["/usr/bin/lua5.4", "script.lua"],
    },
    Workload {
        name: "perl",
        prepare: "cp $FIXTURES/programs/script.pl .",
        stdin: "",
        command: &["/usr/bin/perl", "script.pl"],
    },
    Workload {
        name: "python3",
        prepare: "cp $FIXTURES/programs/script.py .",
        stdin: "",
        command: &["/usr/bin/python3", "-I", "-B", "script.py"],
    },
    Workload {
        name: "jq",
        prepare: "python3 -c 'import json; print(json.dumps([{\"k\": i, \"s\": \"x\" * (i % 50), \"l\": list(range(i % 9))} for i in range(2000)]))' > data.json",
        stdin: "data.json",
        command: &[
            "/usr/bin/jq",
            "-S",
            "map({k, n: (.s | length), t: (.l | add)}) | group_by(.n) | map(length, .[0])",
        ],
    },
    Workload {
        name: "git",
        prepare: "cp $FIXTURES/programs/repository.sh . && cp -r $FIXTURES/overflow files",
        stdin: "",
        command: &["/bin/sh", "repository.sh"],
    },
    Workload {
        name: "bash",
        prepare: "cp $FIXTURES/programs/script.bash .",
        stdin: "",
        command: &["/bin/bash", "script.bash"],
    },
    Workload {
        name: "gawk",
        prepare: TEXT,
        stdin: "text",
        command: &[
            "/usr/bin/gawk",
            "{ for (i = 1; i <= NF; i++) n[$i]++; gsub(/[aeiou]+/, \"_\"); len += length($0) } \
             END { asorti(n, s); for (i in s) t = t substr(s[i], 1, 1); print NR, len, length(n), length(t); \
             printf \"%.3f %s\\n\", sqrt(NR), strftime(\"%Y\", 0, 1) }",
        ],
    },
    Workload {
        name: "cc1",
        prepare: SOURCE,
        stdin: "",
        command: &["/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "-O2", "source.i", "-o", "source.s"],
    },
    Workload {
        name: "gcc",
        prepare: "cp $FIXTURES/programs/hash.c .",
        stdin: "",
        command: &["/usr/bin/gcc", "-O1", "hash.c", "-o", "hash"],
    },
    Workload {
        name: "tar",
        prepare: "cp -r $FIXTURES files",
        stdin: "",
        command: &[
            "/usr/bin/tar",
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "-czf",
            "files.tgz",
            "files",
        ],
    },
    Workload {
        name: "untar",
        prepare: "tar -C $FIXTURES -cf files.tar .",
        stdin: "",
        command: &["/usr/bin/tar", "-xf", "files.tar"],
    },
    Workload {
        name: "sort",
        prepare: TEXT,
        stdin: "",
        command: &["/usr/bin/sort", "-f", "-k2", "--parallel=2", "-S1M", "text"],
    },
    Workload {
        name: "grep",
        prepare: TEXT,
        stdin: "",
        command: &["/usr/bin/grep", "-nE", "(m|c)alloc\\(.*\\)|free", "text"],
    },
    Workload {
        name: "sed",
        prepare: TEXT,
        stdin: "",
        command: &["/usr/bin/sed", "-E", "s/([a-z]+)\\(([a-z]*)/\\2(\\1/g", "text"],
    },
    Workload {
        name: "diff",
        prepare: "cat $FIXTURES/*/*.c > a; sed 's/int/long/' a > b",
        stdin: "",
        command: &["/usr/bin/diff", "-u", "--label=a", "--label=b", "a", "b"],
    },
    Workload {
        name: "find",
        prepare: "cp -r $FIXTURES files",
        stdin: "",
        command: &["/usr/bin/find", "files", "-name", "*free*", "-size", "-9"],
    },
    Workload {
        name: "openssl-digest",
        prepare: TEXT,
        stdin: "",
        command: &[
            "/bin/sh",
            "-c",
            "for d in md5 sha1 sha256 sha512 sha3-256 blake2b512 ripemd160; do openssl dgst -$d text; done",
        ],
    },
    Workload {
        name: "openssl-aes",
        prepare: TEXT,
        stdin: "",
        command: &[
            "/usr/bin/openssl",
            "enc",
            "-aes-256-cbc",
            "-pbkdf2",
            "-S",
            "0011223344556677",
            "-k",
            "key",
            "-in",
            "text",
            "-out",
            "text.enc",
        ],
    },
    Workload {
        name: "openssl-rsa",
        prepare: "cp $FIXTURES/programs/keys.sh .; echo data > text; openssl genrsa -out key.pem 2048 2> log; rm log",
        stdin: "",
        command: &["/bin/sh", "keys.sh"],
    },
    Workload {
        name: "curl",
        prepare: TEXT,
        stdin: "",
        command: &["/usr/bin/curl", "-sS", "file:///etc/services", "-o", "copy"],
    },
    Workload {
        name: "gdb",
        prepare: "gcc -g -O0 $FIXTURES/programs/hash.c -o hash",
        stdin: "",
        command: &[
            "/usr/bin/gdb",
            "--batch",
            "-nx",
            "-ex",
            "info functions hash",
            "-ex",
            "disassemble main",
            "-ex",
            "ptype struct entry",
            "hash",
        ],
    },
    Workload {
        name: "objdump",
        prepare: "gcc -g -O2 $FIXTURES/programs/hash.c -o hash",
        stdin: "",
        command: &["/usr/bin/objdump", "-d", "-S", "hash"],
    },
    Workload {
        name: "vim",
        prepare: TEXT,
        stdin: "",
        command: &[
            "/usr/bin/vim",
            "-es",
            "-u",
            "NONE",
            "-i",
            "NONE",
            "-n",
            "-c",
            "%s/int/long/g",
            "-c",
            "g/free/normal A!",
            "-c",
            "sort u",
            "-c",
            "wq",
            "text",
        ],
    },
    Workload {
        name: "node",
        prepare: "cp $FIXTURES/programs/script.js .",
        stdin: "",
        command: &["/usr/bin/node", "script.js"],
    },
    Workload {
        name: "tclsh",
        prepare: "cp $FIXTURES/programs/script.tcl .",
        stdin: "",
        command: &["/usr/bin/tclsh", "script.tcl"],
    },
    Workload {
        name: "busybox",
        prepare: TEXT,
        stdin: "",
        command: &[
            "/usr/bin/busybox",
            "sh",
            "-c",
            "for t in gzip bzip2; do busybox $t -c text > text.$t; busybox ${t/zip2/unzip2} -dc text.$t | busybox md5sum; \
             done; busybox awk '{n[$1]++} END {for (w in n) s += n[w]; print s, NR}' text; busybox sort -u text | \
             busybox sed -n 's/int/long/gp' | busybox tail -n 3; busybox tar -cf text.tar text; busybox sha256sum text; \
             busybox grep -c free text; busybox cut -c1-9 text | busybox uniq -c | busybox wc; rm text.tar",
        ],
    },
    Workload { name: "psql", prepare: "", stdin: "", command: &["/usr/bin/psql", "--version"] },
    Workload {
        name: "ocaml",
        prepare: "cp $FIXTURES/programs/tables.ml . && ocamlopt tables.ml -o tables",
        stdin: "",
        command: &["/bin/sh", "-c", "./tables"],
    },
    Workload {
        name: "go",
        prepare: "cp $FIXTURES/programs/calls.go . && GOCACHE=$PWD/cache go build calls.go && rm -rf cache",
        stdin: "",
        command: &["/bin/sh", "-c", "./calls"],
    },
    Workload {
        name: "cc1plus",
        prepare: "g++ -E $FIXTURES/programs/templates.cc -o templates.ii",
        stdin: "",
        command: &[
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus",
            "-quiet",
            "-O1",
            "templates.ii",
            "-o",
            "templates.s",
        ],
    },
];

/// One trial for each program and mode.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for mode in MODES {
        for workload in WORKLOADS.iter().filter(|w| mode.only.is_none_or(|only| only.contains(&w.name))) {
            trials
                .push(trial(format!("program::{}::{}", workload.name, mode.name), || check(workload, mode)));
        }
    }
    trials
}

/// One trial for each program whose losses can be compared with Valgrind's. None without Valgrind.
pub fn leak_trials() -> Vec<Trial> {
    let compared = WORKLOADS.iter().filter(|w| oracle::is_installed() && COMPARED.contains(&w.name));
    compared.map(|w| trial(format!("program_leaks::{}", w.name), || check_leaks(w))).collect()
}

/// The program definitely, indirectly and, by the same heuristics, possibly loses as many blocks and bytes as Valgrind
/// says. The number of variables in its environment is the same: gawk's tables begin with them.
fn check_leaks(workload: &Workload) -> Result<(), String> {
    let scratch = exec::scratch()?;
    let folder = scratch.path().join("work");
    fs::create_dir(&folder).map_err(|e| format!("failed to create {}: {e}", folder.display()))?;
    prepare(workload, &folder)?;
    let (program, arguments) = (Path::new(workload.command[0]), &workload.command[1..]);
    let checker = |name: &str| {
        let command = if name == "valgrind" { Command::new(name) } else { exec::memcheck() };
        environment(command, workload, &folder)
    };
    let variables = |name: &str| -> Result<usize, String> {
        let outcome = exec::run(checker(name)?.args(["-q", "/usr/bin/env"]), scratch.path())?;
        Ok(outcome.stdout.split(|&byte| byte == b'\n').count())
    };
    let (ours, theirs) = (variables("memcheck")?, variables("valgrind")?);
    let filled = |from: usize, to: usize| (from..to).map(|number| (format!("VARIABLE_{number}"), ""));
    let mut memcheck = checker("memcheck")?;
    memcheck.envs(filled(ours, theirs));
    let report = exec::checked_in(memcheck, &[HEURISTICS], program, arguments, scratch.path())?.report;
    let first = report.processes.first().ok_or("no process in the report")?.pid;
    let sum = |kind: &str| {
        let records = report.leaks.iter().filter(|leak| leak.pid == first && leak.kind == kind);
        let (bytes, blocks) = records.fold((0, 0), |sum, leak| (sum.0 + leak.bytes, sum.1 + leak.blocks));
        format!("{bytes} bytes in {blocks} blocks")
    };
    let log = scratch.path().join("valgrind.log");
    let mut valgrind = checker("valgrind")?;
    valgrind.envs(filled(theirs, ours));
    valgrind.args(["--undef-value-errors=no", "--leak-check=full", "--num-callers=4"]);
    let suppressions = scratch.path().join("suppressions");
    fs::write(&suppressions, TLS_TABLES).map_err(|e| format!("failed to write suppressions: {e}"))?;
    valgrind.arg(format!("--suppressions={}", suppressions.display()));
    valgrind.arg(format!("--log-file={}", log.display())).args(workload.command);
    exec::run(&mut valgrind, scratch.path())?;
    let text = fs::read_to_string(&log).map_err(|e| format!("Valgrind said nothing: {e}"))?.replace(',', "");
    let said = |kind: &str| {
        let line = text.lines().rev().find_map(|line| line.split_once(&format!("{kind} lost: ")));
        line.map_or("0 bytes in 0 blocks", |(_, sum)| sum)
    };
    for (ours, theirs) in [("definite", "definitely"), ("indirect", "indirectly"), ("possible", "possibly")] {
        if sum(ours) != said(theirs) {
            return Err(format!("{theirs} lost: {}, Valgrind {}", sum(ours), said(theirs)));
        }
    }
    Ok(())
}

fn check(workload: &Workload, mode: &Mode) -> Result<(), String> {
    let program = workload.command[0];
    if !Path::new(program).exists() {
        return Err(format!("{program} is not installed: see .ci/run"));
    }
    // The folder has the same path in both runs, as programs print paths and shells sort by them.
    let parent = exec::scratch()?;
    let folder = parent.path().join("work");
    let template = parent.path().join("template");
    fs::create_dir(&template).map_err(|e| format!("failed to create {}: {e}", template.display()))?;
    prepare(workload, &template)?;
    let mut results = Vec::new();
    for checked in [false, true] {
        copy(&template, &folder)?;
        let outcome = if checked {
            let mut options = mode.options.to_vec();
            if LEAKING.contains(&workload.name) {
                options.push("--errors-for-leak-kinds=none");
            }
            let run = exec::checked_in(
                environment(exec::memcheck(), workload, &folder)?,
                &options,
                Path::new(program),
                &workload.command[1..],
                parent.path(),
            )?;
            run.report.must_be_clean()?;
            run.outcome
        } else {
            let mut command = environment(Command::new(program), workload, &folder)?;
            exec::run(command.args(&workload.command[1..]), parent.path())?
        };
        results.push((outcome, files(&folder)?));
        fs::remove_dir_all(&folder).map_err(|e| format!("failed to remove {}: {e}", folder.display()))?;
    }
    let ((outcome, left), (native, native_left)) = (results.remove(1), results.remove(0));
    if outcome != native {
        return Err(format!("native {native:?}\nunder memcheck {outcome:?}"));
    }
    let differing: Vec<_> = native_left
        .iter()
        .filter(|(path, content)| left.get(*path) != Some(content))
        .map(|(path, _)| path)
        .collect();
    if differing.is_empty() && left.len() == native_left.len() {
        Ok(())
    } else {
        Err(format!(
            "files differ: {differing:?}; {} files natively, {} under memcheck",
            native_left.len(),
            left.len()
        ))
    }
}

fn prepare(workload: &Workload, folder: &Path) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-ec", workload.prepare]).current_dir(folder).env("FIXTURES", fixture::folder());
    let done = shell.output().map_err(|e| format!("failed to run a shell: {e}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("preparation: {}", String::from_utf8_lossy(&done.stderr)))
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("failed to copy {}: {other:?}", from.display())),
    }
}

fn environment(mut command: Command, workload: &Workload, folder: &Path) -> Result<Command, String> {
    let stdin = match workload.stdin {
        "" => Stdio::null(),
        name => fs::File::open(folder.join(name)).map_err(|e| format!("{name}: {e}"))?.into(),
    };
    command
        .stdin(stdin)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder.parent().unwrap_or(folder))
        .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")])
        .envs([("PYTHONHASHSEED", "0"), ("TERM", "dumb"), ("DEBUGINFOD_URLS", ""), ("NO_COLOR", "1")])
        .envs(std::env::var_os("XDG_RUNTIME_DIR").map(|value| ("XDG_RUNTIME_DIR", value)));
    Ok(command)
}

/// Every file below a folder with what it holds.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        let entries = fs::read_dir(&at).map_err(|e| format!("failed to list {}: {e}", at.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let content =
                    fs::read(&path).map_err(|e| format!("failed to read {}: {e}", path.display()))?;
                found.insert(path, content);
            }
        }
    }
    Ok(found)
}
