//! Programs that memcheck does not run, and programs that there are not: a reason and a status, and nothing of
//! the program happens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use libtest_mimic::Trial;

use crate::{compile, exec, trial};

/// What memcheck must do with a file: its name, the exit status, a word of the reason, how it is made.
type Refusal = (&'static str, u8, &'static str, fn(&Path) -> Result<PathBuf, String>);

const REFUSALS: &[Refusal] = &[
    ("missing_file", 127, "not found", |at| Ok(at.join("missing"))),
    ("name_not_in_path", 127, "not found", |_| Ok("no-such-program".into())),
    ("directory", 126, "directory", |at| Ok(at.to_owned())),
    ("no_execute_permission", 126, "permission", |at| changed(at, 0o644, |_| ())),
    ("empty_file", 126, "empty", |at| changed(at, 0o755, Vec::clear)),
    ("setuid", 126, "setuid", |at| changed(at, 0o4755, |_| ())),
    ("setgid", 126, "setgid", |at| changed(at, 0o2755, |_| ())),
    ("class_of_32_bits", 126, "32-bit", |at| changed(at, 0o755, |elf| elf[4] = 1)),
    ("foreign_machine", 126, "x86-64", |at| changed(at, 0o755, |elf| elf[18] = 183)),
    ("big_endian", 126, "big-endian", |at| changed(at, 0o755, |elf| elf[5] = 2)),
    ("object_file", 126, "executable", |at| changed(at, 0o755, |elf| elf[16] = 1)),
    ("truncated_headers", 126, "truncated", |at| changed(at, 0o755, |elf| elf.truncate(80))),
    ("truncated_segments", 126, "truncated", |at| changed(at, 0o755, |elf| elf.truncate(4096))),
    ("corrupt_header", 126, "corrupt", |at| changed(at, 0o755, |elf| elf[54..58].fill(0))),
    ("musl", 126, "musl", |at| changed(at, 0o755, |elf| use_musl(elf))),
    ("static", 126, "static", |_| program("static", &["-static"])),
    ("static_pie", 126, "static", |_| program("static-pie", &["-static-pie"])),
    ("address_sanitizer", 126, "sanitizer", |_| program("asan", &["-fsanitize=address"])),
    ("address_sanitizer_linked_statically", 126, "sanitizer", |_| {
        program("static-asan", &["-fsanitize=address", "-static-libasan"])
    }),
    ("thread_sanitizer", 126, "sanitizer", |_| program("tsan", &["-fsanitize=thread"])),
];

/// One trial for each refusal.
pub fn trials() -> Vec<Trial> {
    REFUSALS.iter().map(|refusal| trial(format!("refusal::{}", refusal.0), || check(refusal))).collect()
}

fn check((_, status, reason, make): &Refusal) -> Result<(), String> {
    let scratch = exec::scratch()?;
    let path = make(scratch.path())?;
    let mut command = exec::memcheck();
    command.arg("--").arg(&path).stdin(Stdio::null());
    let outcome = exec::run(&mut command, scratch.path())?;
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    if outcome.status != format!("exit {status}") {
        return Err(format!("{}: {said}", outcome.status));
    }
    if !outcome.stdout.is_empty() {
        return Err("the program ran".to_owned());
    }
    if said.lines().count() == 1 && said.starts_with("memcheck: ") && said.contains(reason) {
        return Ok(());
    }
    Err(format!("expected one line with `{reason}`: {said}"))
}

fn program(place: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let text = "#include <stdio.h>\nint main(void) { return puts(\"ran\") < 0; }\n";
    let source = compile::source("refusal", "speak.c", text)?;
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    compile::program(&source, &format!("refusal/{place}"), &flags)
}

/// A copy of a sound program with its bytes changed.
fn changed(at: &Path, mode: u32, change: fn(&mut Vec<u8>)) -> Result<PathBuf, String> {
    let path = at.join("speak");
    let mut bytes =
        fs::read(program("plain", &[])?).map_err(|e| format!("failed to read the program: {e}"))?;
    change(&mut bytes);
    fs::write(&path, bytes).map_err(|e| format!("failed to write {}: {e}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .map_err(|e| format!("failed to set the mode: {e}"))?;
    Ok(path)
}

fn use_musl(elf: &mut [u8]) {
    let glibc = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = elf.windows(glibc.len()).position(|window| window == glibc).unwrap_or_default();
    elf[at..at + glibc.len()].copy_from_slice(b"/lib/ld-musl-x86_64.so.1\0\0\0\0");
}
