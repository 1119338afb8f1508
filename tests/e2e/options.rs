//! What the options of the launcher do, each as a user meets it: its text, its files, its status.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::report::Report;
use crate::{compile, exec, trial};

/// A test of its own.
type Check = fn() -> Result<(), String>;

/// All of them.
pub fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 19] = [
        ("generated_suppression_keeps_its_findings_out", generated_suppression),
        ("malformed_suppressions_are_one_error_with_their_line", malformed_suppressions),
        ("stale_suppressions_are_listed_and_can_be_errors", stale_suppressions),
        ("default_suppressions_can_be_left_out", default_suppressions),
        ("baseline_lets_known_findings_pass_after_lines_moved", baseline),
        ("diff_names_new_gone_and_same_findings", diff),
        ("merge_adds_up_what_shards_found", merge),
        ("last_of_repeated_options_wins", repeated),
        ("valgrinds_name_gives_its_text_and_status", valgrind),
        ("valgrinds_configuration_is_read_in_its_personality_only", valgrind_configuration),
        ("valgrinds_other_tools_are_refused", valgrind_refusals),
        ("stripped_program_has_no_place_below_main", stripped),
        ("explain_takes_its_finding_after_a_space", explain),
        ("freed_memory_keeps_what_it_held_or_is_filled_as_asked", fills),
        ("limit_on_file_sizes_is_one_error", file_size_limit),
        ("few_descriptors_do_not_hang_the_program", few_descriptors),
        ("heap_that_is_not_watched_fails", heap_unwatched),
        ("log_on_a_full_disk_is_one_error", log_on_full_disk),
        ("coverage_counts_each_function_once", coverage),
    ];
    checks.into_iter().map(|(name, check)| trial(format!("options::{name}"), check)).collect()
}

/// What a command said and how it ended.
struct Said {
    status: String,
    stdout: String,
    stderr: String,
}

fn say(command: &mut Command, folder: &Path) -> Result<Said, String> {
    let output = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("failed to start {command:?}: {e}"))?;
    Ok(Said {
        status: exec::describe(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Said {
    /// Fails unless it ended so and said each of these words.
    fn must(&self, status: &str, words: &[&str]) -> Result<(), String> {
        let both = format!("{}{}", self.stdout, self.stderr);
        match words.iter().find(|word| !both.contains(**word)) {
            _ if self.status != status => Err(format!("{}, expected {status}: {both}", self.status)),
            Some(word) => Err(format!("no {word:?} in: {both}")),
            None => Ok(()),
        }
    }
}

fn clean() -> Result<PathBuf, String> {
    let source = compile::source("options", "clean.c", "int main(void) { return 0; }\n")?;
    compile::program(&source, "options", &["-g".to_owned()])
}

/// A program with one double free and one overrun, below this many comment lines.
fn buggy(lines: usize) -> Result<PathBuf, String> {
    let text = format!(
        "{}#include <stdlib.h>\nstatic void twice(char *p) {{ free(p); free(p); }}\n\
         static void over(volatile char *p) {{ p[8] = 1; free((void *)p); }}\n\
         int main(int argc, char **argv) {{\n  if (argc < 2 || argv[1][0] == 't') twice(malloc(9));\n  \
         if (argc < 2 || argv[1][0] == 'o') over(malloc(8));\n  return 0;\n}}\n",
        "// moves the code down\n".repeat(lines)
    );
    // The program keeps its name: it is in the fingerprints.
    let place = format!("options/{lines}");
    let source = compile::source(&place, "buggy.c", &text)?;
    compile::program(&source, &place, &["-g", "-w", "-fno-builtin"].map(str::to_owned))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|e| format!("failed to write {}: {e}", path.display()))?;
    Ok(path)
}

/// A run of the buggy program, with its options before it.
fn run(folder: &Path, options: &[&str], program: &Path, arguments: &[&str]) -> Result<Said, String> {
    say(exec::memcheck().args(options).arg(program).args(arguments), folder)
}

fn generated_suppression() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, buggy(0)?);
    let first = run(scratch.path(), &["--gen-suppressions=all"], &program, &[])?;
    first.must("exit 99", &["insert_a_suppression_name_here", "fun:twice", "fun:over"])?;
    if first.stderr.contains("libc_start") {
        return Err(format!("a rule names what is below main: {}", first.stderr));
    }
    let mut rules = String::new();
    let mut is_inside = false;
    for line in first.stderr.lines() {
        is_inside |= line == "{";
        if is_inside {
            rules.push_str(&line.replace("<insert_a_suppression_name_here>", "generated"));
            rules.push('\n');
        }
        is_inside &= line != "}";
    }
    write(scratch.path(), "all.supp", &rules)?;
    let second = run(scratch.path(), &["--suppressions=all.supp", "-s"], &program, &[])?;
    second.must("exit 0", &["suppressed once: generated (all.supp:1)", "no errors; 2 suppressed"])
}

fn malformed_suppressions() -> Result<(), String> {
    let scratch = exec::scratch()?;
    for (name, text, word) in [
        ("x.supp", "{\n  name\n  Memcheck:Nonsense\n  fun:f\n}\n", "x.supp:3: unknown kind"),
        ("x.toml", "[[suppress]]\nname = \"n\"\n", "x.toml:1: missing field"),
    ] {
        write(scratch.path(), name, text)?;
        let said = run(scratch.path(), &[&format!("--suppressions={name}")], &buggy(0)?, &[])?;
        said.must("exit 125", &[word])?;
        if said.stderr.lines().count() != 1 {
            return Err(format!("more than one line: {}", said.stderr));
        }
    }
    Ok(())
}

const RULES: &str = "[[suppress]]\nname = \"twice\"\nreason = \"r\"\nkinds = [\"double-free\"]\nstack = [\"fun:twice\"]\n\
    [[suppress]]\nname = \"old\"\nreason = \"r\"\nexpires = 2020-01-31\nkinds = [\"heap-buffer-overflow\"]\n\
    stack = [\"fun:over\"]\n[[suppress]]\nname = \"never\"\nreason = \"r\"\nkinds = [\"leak\"]\nstack = [\"fun:f\"]\n";

fn stale_suppressions() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, buggy(0)?);
    write(scratch.path(), "r.toml", RULES)?;
    let rules = "--suppressions=r.toml";
    let lists =
        ["stale suppression: old (r.toml:6): expired", "stale suppression: never (r.toml:12): never needed"];
    // The expired rule does not keep its finding out.
    run(scratch.path(), &[rules], &program, &["o"])?.must("exit 99", &["heap-buffer-overflow"])?;
    run(scratch.path(), &[rules, "-s"], &program, &["t"])?.must("exit 0", &lists)?;
    run(scratch.path(), &[rules, "--stale-suppressions=error"], &program, &["t"])?.must("exit 99", &lists)?;
    let quiet = run(scratch.path(), &[rules, "-q"], &program, &["t"])?;
    quiet.must("exit 0", &[])?;
    if quiet.stderr.is_empty() { Ok(()) } else { Err(format!("it said: {}", quiet.stderr)) }
}

fn default_suppressions() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, clean()?);
    for choice in ["yes", "no"] {
        let option = format!("--default-suppressions={choice}");
        run(scratch.path(), &[&option], &program, &[])?.must("exit 0", &["no errors"])?;
    }
    Ok(())
}

fn baseline() -> Result<(), String> {
    let scratch = exec::scratch()?;
    run(scratch.path(), &["--json=old.json"], &buggy(0)?, &["t"])?.must("exit 99", &[])?;
    let known = run(scratch.path(), &["--baseline=old.json"], &buggy(30)?, &["t"])?;
    known.must("exit 0", &["1 error; 1 known from the baseline"])?;
    if known.stderr.contains("[double-free]") {
        return Err(format!("it shows what is known: {}", known.stderr));
    }
    let both = run(scratch.path(), &["--baseline=old.json"], &buggy(30)?, &[])?;
    both.must("exit 99", &["[heap-buffer-overflow]", "1 known from the baseline"])?;
    run(scratch.path(), &["--baseline=no.json"], &clean()?, &[])?.must("exit 125", &["cannot read no.json"])
}

fn diff() -> Result<(), String> {
    let scratch = exec::scratch()?;
    run(scratch.path(), &["--json=t.json"], &buggy(0)?, &["t"])?.must("exit 99", &[])?;
    run(scratch.path(), &["--json=both.json"], &buggy(30)?, &[])?.must("exit 99", &[])?;
    let diff = |old, new| say(exec::memcheck().args(["diff", old, new]), scratch.path());
    diff("t.json", "both.json")?.must("exit 1", &["new   ", "same  ", "1 new, 0 gone, 1 same\n"])?;
    diff("both.json", "t.json")?.must("exit 0", &["gone  ", "0 new, 1 gone, 1 same\n"])?;
    diff("t.json", "missing.json")?.must("exit 125", &["cannot read missing.json"])
}

fn merge() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, buggy(0)?);
    for (file, argument) in [("a", "t"), ("b", "t"), ("c", "o")] {
        run(scratch.path(), &[&format!("--json={file}.json")], &program, &[argument])?
            .must("exit 99", &[])?;
    }
    let said = say(
        exec::memcheck().args(["merge", "a.json", "b.json", "c.json", "--json=all.json"]),
        scratch.path(),
    )?;
    said.must("exit 0", &[])?;
    let text = fs::read_to_string(scratch.path().join("all.json")).map_err(|e| e.to_string())?;
    let merged = Report::parse(&text)?;
    let counts: Vec<_> = merged.errors.iter().map(|error| (error.id.as_str(), error.count)).collect();
    if counts != [("double-free", 2), ("heap-buffer-overflow", 1)] || merged.processes.len() != 3 {
        return Err(format!("{counts:?} in {} processes", merged.processes.len()));
    }
    Ok(())
}

fn repeated() -> Result<(), String> {
    let scratch = exec::scratch()?;
    run(scratch.path(), &["--error-exitcode=7", "--error-exitcode=8"], &buggy(0)?, &[])?.must("exit 8", &[])
}

fn fills() -> Result<(), String> {
    let text = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint main(void)\n{\n\
                unsigned char *p = malloc(3000);\n\
                printf(\"fresh %x \", p[2999]);\n\
                memset(p, 7, 3000);\n\
                free(p);\n\
                printf(\"freed %x %x\\n\", p[0], p[2999]);\n}\n";
    let source = compile::source("options/fills", "fills.c", text)?;
    let program = compile::program(&source, "options/fills", &["-g", "-w"].map(str::to_owned))?;
    let scratch = exec::scratch()?;
    for (options, words) in [
        (&[][..], "freed 7 7"),
        (&["--free-fill=cd"], "freed cd cd"),
        (&["--malloc-fill=ab", "--free-fill=0xcd", "--access-checks=no"], "fresh ab freed cd cd"),
    ] {
        let said = run(scratch.path(), options, &program, &[])?;
        let status = if options.len() == 3 { "exit 0" } else { "exit 99" };
        said.must(status, &[words])?;
    }
    Ok(())
}

/// `memcheck` by a name of Valgrind's.
fn as_valgrind(folder: &Path) -> Result<Command, String> {
    let link = folder.join("valgrind");
    symlink(exec::memcheck().get_program(), &link).map_err(|e| format!("failed to link: {e}"))?;
    let mut command = Command::new(link);
    command.env("HOME", folder).env_remove("VALGRIND_OPTS");
    Ok(command)
}

fn valgrind() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, buggy(0)?);
    let words = [
        "Memcheck, a memory error detector",
        "Invalid free() / delete / delete[] / realloc()",
        " is 0 bytes inside a block of size 9 free'd",
        " Block was alloc'd at",
        ": free (in ",
        ": malloc (in ",
        "Invalid write of size 1",
        " is 0 bytes after a block of size 8 alloc'd",
        ": over (buggy.c:3)",
        "HEAP SUMMARY:",
        "  total heap usage: 2 allocs, 3 frees, 17 bytes allocated",
        "All heap blocks were freed -- no leaks are possible",
        "ERROR SUMMARY: 2 errors from 2 contexts (suppressed: 0 from 0)",
    ];
    let said = say(as_valgrind(scratch.path())?.arg("--vgdb=no").arg(&program), scratch.path())?;
    said.must("exit 0", &words)?;
    if said.stderr.contains(" 0x0: ") {
        return Err(format!("functions without a place: {}", said.stderr));
    }
    let prefix = said.stderr.split(' ').next().unwrap_or_default();
    if !prefix.starts_with("==") || !said.stderr.lines().all(|line| line.starts_with(prefix)) {
        return Err(format!("not every line begins with {prefix}: {}", said.stderr));
    }
    let options = ["--compat=valgrind", "-q", "--error-exitcode=5", "--log-file=log.%p"];
    run(scratch.path(), &options, &program, &[])?.must("exit 5", &[])?;
    run(scratch.path(), &["--compat=valgrind", "-q"], &clean()?, &[])?.must("exit 0", &[])
}

fn valgrind_configuration() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, buggy(0)?);
    let home = scratch.path();
    write(home, ".valgrindrc", "# mine\n--memcheck:error-exitcode=41 --massif:depth=3\n")?;
    say(as_valgrind(home)?.arg(&program), home)?.must("exit 41", &[])?;
    let mut command = exec::memcheck();
    command.env("HOME", home).env("VALGRIND_OPTS", "--error-exitcode=42").arg(&program);
    say(&mut command, home)?.must("exit 99", &[])?;
    let mut command = exec::memcheck();
    command.env("HOME", home).env("VALGRIND_OPTS", "--error-exitcode=42").arg("--compat=valgrind");
    say(command.arg(&program), home)?.must("exit 42", &["ERROR SUMMARY"])
}

fn valgrind_refusals() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let compat = "--compat=valgrind";
    let program = clean()?;
    run(scratch.path(), &[compat, "--tool=massif"], &program, &[])?
        .must("exit 1", &["only memcheck is here"])?;
    run(scratch.path(), &[compat, "--leek-check=no"], &program, &[])?.must("exit 1", &["--leak-check"])?;
    run(scratch.path(), &[compat, "--smc-check=all"], &program, &[])?
        .must("exit 0", &["Warning: without effect here: --smc-check"])?;
    say(exec::memcheck().args([compat, "--version"]), scratch.path())?.must("exit 0", &["valgrind-3."])
}

/// Without symbols `main` has no name; what the C library does before it is no place for a finding.
fn stripped() -> Result<(), String> {
    let (scratch, program) = (exec::scratch()?, buggy(0)?);
    let bare = scratch.path().join("bare");
    let strip = Command::new("strip").arg("-o").arg(&bare).arg(&program).status();
    if !strip.is_ok_and(|status| status.success()) {
        return Err("failed to strip".to_owned());
    }
    for options in [&["--json=r.json"][..], &["--show-below-main=yes"], &["--compat=valgrind"]] {
        let said = run(scratch.path(), options, &bare, &["t"])?;
        let status = if options == ["--compat=valgrind"] { "exit 0" } else { "exit 99" };
        said.must(status, &["bare"])?;
        let is_shown = said.stderr.contains("libc_start") || said.stderr.contains("libc-start");
        if said.stderr.contains("-->") || (is_shown != (options == ["--show-below-main=yes"])) {
            return Err(format!("{options:?}: {}", said.stderr));
        }
    }
    Ok(())
}

fn explain() -> Result<(), String> {
    let scratch = exec::scratch()?;
    for words in [&["--explain", "double-free"][..], &["--explain=double-free"]] {
        say(exec::memcheck().args(words), scratch.path())?.must("exit 0", &["double-free: "])?;
    }
    say(exec::memcheck().args(["--explain", "double-fee"]), scratch.path())?
        .must("exit 125", &["double-fee", "did you mean double-free?"])
}

fn file_size_limit() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 0; exec \"$@\"", "sh"]).arg(exec::memcheck().get_program()).arg(clean()?);
    say(&mut shell, scratch.path())?.must("exit 125", &["memcheck: cannot size the channel", "ulimit -f"])
}

fn few_descriptors() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 8; exec \"$@\"", "sh"]).arg(exec::memcheck().get_program()).arg(buggy(0)?);
    say(&mut shell, scratch.path())?.must("exit 99", &["memcheck: 2 errors"])
}

fn heap_unwatched() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -v 4000000; exec \"$@\"", "sh"])
        .arg(exec::memcheck().get_program())
        .arg(clean()?);
    let words = ["the heap is not checked", "memcheck: the program was not checked"];
    say(&mut shell, scratch.path())?.must("exit 125", &words)
}

fn log_on_full_disk() -> Result<(), String> {
    let scratch = exec::scratch()?;
    say(exec::memcheck().arg("--log-file=/dev/full").arg(clean()?), scratch.path())?
        .must("exit 125", &["memcheck: cannot write the log file: No space left on device"])
}

fn coverage() -> Result<(), String> {
    let scratch = exec::scratch()?;
    run(scratch.path(), &["--translate=eager", "--json=all.json"], &clean()?, &[])?.must("exit 0", &[])?;
    let text = fs::read_to_string(scratch.path().join("all.json")).map_err(|e| e.to_string())?;
    let report: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let coverage = &report["processes"][0]["coverage"];
    let count = |name: &str| coverage[name].as_u64().ok_or(format!("no {name} in {coverage}"));
    let done = count("functions_checked")? + count("functions_native")?;
    if done <= count("functions")? { Ok(()) } else { Err(format!("more than there are: {coverage}")) }
}
