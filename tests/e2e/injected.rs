//! Bugs put into programs that nobody here wrote: one overflow, one underflow and one use after free each, in
//! programs built from Debian's sources with Debian's flags, found at their lines: with debugging information in
//! the program, stripped of it, and with it in a separate file.
//!
//! The sources are those that `apt-get source bzip2 lua5.4 tree lz4 figlet` leaves in the folder that
//! `MEMCHECK_SOURCES` names; without it there are no such trials.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::report::line_in;
use crate::{compile, exec, trial};

/// A program and where in it the bugs go.
struct Host {
    /// How the folder of its sources begins.
    folder: &'static str,
    /// The C files, by folder: all of them but those named.
    parts: &'static [(&'static str, &'static [&'static str])],
    /// Flags of its own makefile.
    flags: &'static [&'static str],
    /// The file with the bug, and the text whose next `{` the bug follows.
    place: (&'static str, &'static str),
    arguments: &'static [&'static str],
}

/// What `dpkg-buildflags` gives on Debian 12.
const DEBIAN_FLAGS: &[&str] =
    &["-g", "-O2", "-fstack-protector-strong", "-Wformat", "-D_FORTIFY_SOURCE=2", "-w", "-Wl,-z,relro"];

const HOSTS: &[Host] = &[
    Host {
        folder: "bzip2-",
        parts: &[("", &["bzip2recover.c", "dlltest.c", "mk251.c", "spewG.c", "unzcrash.c"])],
        flags: &["-D_FILE_OFFSET_BITS=64"],
        place: ("compress.c", "void BZ2_compressBlock ( EState* s, Bool is_last_block )"),
        arguments: &["-kc", "/etc/services"],
    },
    Host {
        folder: "lua5.4-",
        parts: &[("src", &["luac.c"])],
        flags: &["-DLUA_USE_POSIX", "-DDEB_HOST_MULTIARCH=\"x86_64-linux-gnu\"", "-lm"],
        place: ("src/lstrlib.c", "static int str_rep (lua_State *L)"),
        arguments: &["-e", "print(('ab'):rep(3))"],
    },
    Host {
        folder: "tree-",
        parts: &[("", &["strverscmp.c"])],
        flags: &["-std=gnu11", "-D_LARGEFILE64_SOURCE", "-D_FILE_OFFSET_BITS=64"],
        place: ("tree.c", "struct _info **read_dir(char *dir, int *n, int infotop)"),
        arguments: &["/etc/apt"],
    },
    Host {
        folder: "lz4-",
        parts: &[("programs", &[]), ("lib", &[])],
        flags: &["-Ilib", "-DXXH_NAMESPACE=LZ4_"],
        place: ("programs/lz4io.c", "int LZ4IO_compressFilename("),
        arguments: &["-f", "/etc/services", "out.lz4"],
    },
    Host {
        folder: "figlet-",
        parts: &[("", &["chkfont.c", "getopt.c"])],
        flags: &["-DTLF_FONTS", "-DDEFAULTFONTDIR=\"fonts\"", "-DDEFAULTFONTFILE=\"standard.flf\""],
        place: ("figlet.c", "void getparams()"),
        arguments: &["-v"],
    },
];

/// The bugs: name, code, finding, offset in a block of 24 bytes.
const BUGS: &[(&str, &str, &str, i64)] = &[
    ("overflow", "volatile char *p = malloc(24); p[24] = 1; free((void *)p);", "heap-buffer-overflow", 24),
    ("underflow", "volatile char *p = malloc(24); p[-1] = 1; free((void *)p);", "heap-buffer-overflow", -1),
    (
        "use_after_free",
        "volatile char *p = calloc(24, 1); free((void *)p); done += p[8];",
        "heap-use-after-free",
        8,
    ),
];

/// One trial for each program and bug.
pub fn trials() -> Vec<Trial> {
    let Some(sources) = std::env::var_os("MEMCHECK_SOURCES").map(PathBuf::from) else { return Vec::new() };
    let mut trials = Vec::new();
    for host in HOSTS {
        for bug in BUGS {
            let sources = sources.clone();
            let name = format!("injected::{}{}", host.folder, bug.0);
            trials.push(trial(name, move || check(&sources, host, bug)));
        }
    }
    trials
}

fn check(
    sources: &Path,
    host: &Host,
    (bug, code, id, offset): &(&str, &str, &str, i64),
) -> Result<(), String> {
    let (program, line) = build(sources, host, bug, code)?;
    let stripped = program.with_extension("stripped");
    let separate = program.with_extension("separate");
    let debug = program.with_extension("debug");
    let [program_path, stripped_path, separate_path, debug_path] =
        [&program, &stripped, &separate, &debug].map(|path| path.display().to_string());
    command(Command::new("strip").args([&program_path, "-o", &stripped_path]))?;
    command(Command::new("objcopy").args(["--only-keep-debug", &program_path, &debug_path]))?;
    let link = format!("--add-gnu-debuglink={debug_path}");
    command(Command::new("objcopy").args(["--strip-all", &link, &program_path, &separate_path]))?;
    for (path, has_lines) in [(&program, true), (&stripped, false), (&separate, true)] {
        let run = exec::checked(&["--leak-check=no"], path, host.arguments)?;
        let [error] = &run.report.errors[..] else {
            let all: Vec<_> = run.report.errors.iter().map(|error| error.describe()).collect();
            return Err(format!("{}: {} errors: {}", path.display(), all.len(), all.join("; ")));
        };
        let block = error.block.as_ref().map(|block| (block.offset, block.size));
        let seen = has_lines.then(|| line_in(&error.stack, host.place.0)).flatten();
        let wanted = has_lines.then_some(line);
        if error.id != *id || block != Some((*offset, 24)) || seen != wanted {
            return Err(format!(
                "{}: {}, block {block:?}, line {seen:?}, expected {id} at {offset}, line {line}",
                path.display(),
                error.describe()
            ));
        }
    }
    Ok(())
}

/// Builds the program with the bug; returns it and the bug's line.
fn build(sources: &Path, host: &Host, bug: &str, code: &str) -> Result<(PathBuf, u32), String> {
    let entries = fs::read_dir(sources).map_err(|e| format!("{}: {e}", sources.display()))?;
    let original = entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(host.folder) && entry.path().is_dir())
        .ok_or_else(|| format!("no sources {}* in {}", host.folder, sources.display()))?;
    let place = compile::folder().join("injected").join(format!("{}{bug}", host.folder));
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(&place).map_err(|e| format!("failed to create {}: {e}", place.display()))?;
    command(Command::new("cp").arg("-rT").arg(original.path()).arg(&place))?;
    let file = place.join(host.place.0);
    let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let anchor =
        text.find(host.place.1).ok_or_else(|| format!("{} has no {}", file.display(), host.place.1))?;
    let brace = anchor + text[anchor..].find('{').ok_or("the function has no body")? + 1;
    let line = text[..brace].lines().count() as u32 + 1;
    let injected =
        format!("{}\n{{ static int done; if (!done++) {{ {code} }} }}\n{}", &text[..brace], &text[brace..]);
    fs::write(&file, injected).map_err(|e| format!("{}: {e}", file.display()))?;
    if host.folder == "lua5.4-" {
        // Debian's rules make this header; the flags above say what it would.
        fs::write(place.join("src/lua5.4-deb-multiarch.h"), "").map_err(|e| format!("lua's header: {e}"))?;
    }
    let program = place.join("program");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(&place).args(DEBIAN_FLAGS).arg("-o").arg(&program);
    for (folder, without) in host.parts {
        let files = fs::read_dir(place.join(folder)).map_err(|e| format!("{folder}: {e}"))?.flatten();
        gcc.args(files.map(|file| file.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".c") && !without.contains(&name.as_str())
        }));
    }
    command(gcc.args(host.flags))?;
    Ok((program, line))
}

fn command(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("failed to run {command:?}: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr)))
    }
}
