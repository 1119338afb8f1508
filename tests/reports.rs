//! Reports as files: every format of one run, conversions, and places that cannot be written.
#![forbid(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

const FORMATS: [&str; 8] = ["json", "sarif", "junit", "codequality", "github", "html", "xml-file", "oneline"];

/// A folder with the program `overflow`.
fn overflow_in(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/project/overflow.c");
    fs::copy(source, folder.join("overflow.c")).unwrap();
    let program = folder.join("overflow");
    let compiled =
        Command::new("cc").args(["-g", "overflow.c", "-o", "overflow"]).current_dir(folder).status();
    assert!(compiled.unwrap().success());
    program
}

fn memcheck<I: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = I>) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "300", env!("CARGO_BIN_EXE_memcheck")]).args(arguments).current_dir(folder);
    command.env_remove("GITHUB_STEP_SUMMARY").output().unwrap()
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn one_run_writes_every_format_and_conversions_write_the_same() {
    let scratch = scratch();
    let folder = scratch.path();
    overflow_in(folder);
    let mut arguments: Vec<String> =
        FORMATS.iter().map(|format| format!("--{format}=live.{format}")).collect();
    arguments.push("./overflow".to_owned());
    let live = memcheck(folder, &arguments);
    assert_eq!(live.status.code(), Some(99), "{}", String::from_utf8_lossy(&live.stderr));
    for format in FORMATS {
        let written = fs::read_to_string(folder.join(format!("live.{format}"))).unwrap();
        assert!(written.contains("write of 4 bytes"), "{format}");
        let name = if format == "xml-file" { "xml" } else { format };
        let converted = memcheck(folder, ["convert", "live.json", &format!("--to={name}")]);
        assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
        assert!(String::from_utf8_lossy(&converted.stdout) == written, "{format} converts to something else");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_program_starts() {
    let scratch = scratch();
    let folder = scratch.path();
    for format in FORMATS.iter().chain(&["log-file"]) {
        let refused = memcheck(folder, [&format!("--{format}=missing/file"), "touch", "ran"]);
        assert_eq!(refused.status.code(), Some(125), "{format}");
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("cannot write") && text.contains("missing/file"), "{text}");
        assert!(!folder.join("ran").exists(), "{format}: the program ran");
    }
}

#[test]
fn words_that_are_nearly_right_get_a_suggestion() {
    let scratch = scratch();
    fs::write(scratch.path().join("r.json"), "{}").unwrap();
    for (words, suggestion) in [
        (&["--leek-check=full", "true"][..], "--leak-check"),
        (&["--leak-check=ful", "true"], "full"),
        (&["--compat=valgrind", "--track-fd=yes", "true"], "--track-fds"),
        (&["convert", "r.json", "--to=sariff"], "sarif"),
        (&["convert", "r.json", "--sarrif=x"], "--sarif"),
        (&["merge", "r.json", "--htm=x"], "--html"),
        (&["--explain=heap-bufer-overflow"], "heap-buffer-overflow"),
        (&["config", "--num-caller=3"], "--num-callers"),
    ] {
        let refused = memcheck(scratch.path(), words);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(matches!(refused.status.code(), Some(1 | 125)), "{words:?}");
        assert!(text.contains(suggestion), "{words:?}: {text}");
    }
}

#[test]
fn a_report_of_another_version_is_refused_with_a_reason() {
    let scratch = scratch();
    fs::write(scratch.path().join("r.json"), r#"{"schema": "memcheck-report/2", "findings": []}"#).unwrap();
    let refused = memcheck(scratch.path(), ["convert", "r.json", "--to=text"]);
    assert_eq!(refused.status.code(), Some(125));
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("memcheck-report/2") && text.contains("memcheck-report/1"), "{text}");
}

#[test]
fn names_that_are_no_text_leave_every_report_well_formed() {
    let scratch = scratch();
    let folder = scratch.path().join(OsString::from_vec(b"no\xfftext".to_vec()));
    fs::create_dir(&folder).unwrap();
    overflow_in(&folder);
    let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    fs::rename(folder.join("overflow"), folder.join(name(b"over\xfeflow"))).unwrap();
    let mut arguments: Vec<OsString> =
        FORMATS.iter().map(|format| format!("--{format}=r.{format}").into()).collect();
    arguments.extend([name(b"./over\xfeflow"), name(b"argument\xff")]);
    let run = memcheck(&folder, arguments);
    assert_eq!(run.status.code(), Some(99), "{}", String::from_utf8_lossy(&run.stderr));
    for format in ["json", "sarif", "codequality"] {
        let content = fs::read(folder.join(format!("r.{format}"))).unwrap();
        assert!(serde_json::from_slice::<Value>(&content).is_ok(), "{format}");
    }
    let lint =
        Command::new("xmllint").args(["--noout", "r.junit", "r.xml-file"]).current_dir(&folder).output();
    let lint = lint.expect("xmllint is installed: see .ci/run");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stderr));
}

/// Findings of every kind that Valgrind has a word for, in the examples.
const FAULTY: [&str; 5] = ["overflow", "leak", "frees", "write", "held"];

/// `MEMCHECK_READERS` names a folder of Python packages: ValgrindCI and valparse. `.ci/run` makes it.
#[test]
fn readers_of_valgrinds_xml_find_in_ours_what_they_find_in_valgrinds() {
    let Some(readers) = std::env::var_os("MEMCHECK_READERS") else {
        eprintln!("MEMCHECK_READERS is not set: no other reader of Valgrind's XML");
        return;
    };
    let scratch = scratch();
    let folder = scratch.path();
    let run = |program: &OsStr, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env("PYTHONPATH", &readers)
            .env("HOME", folder)
            .output();
        let output = output.unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let python = OsStr::new("/usr/bin/python3");
    for name in FAULTY {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/examples/project/{name}.c"));
        fs::copy(source, folder.join(format!("{name}.c"))).unwrap();
        run(OsStr::new("cc"), &["-g", "-w", &format!("{name}.c"), "-o", name]);
        let link = folder.join("valgrind-of-ours");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_memcheck"), &link).unwrap();
        }
        let summaries = [link.as_os_str(), OsStr::new("valgrind")].map(|checker| {
            let program = format!("./{name}");
            let options =
                ["-q", "--leak-check=full", "--show-leak-kinds=all", "--xml=yes", "--xml-file=x.xml"];
            run(checker, &[&options[..], &[program.as_str()]].concat());
            run(python, &["-m", "ValgrindCI", "--source-dir", ".", "x.xml", "--summary"])
        });
        assert_eq!(summaries[0], summaries[1], "{name}");
        assert!(summaries[0].contains("errors"), "{}", summaries[0]);
    }
    run(
        &folder.join("valgrind-of-ours").into_os_string(),
        &["-q", "--xml=yes", "--xml-file=x.xml", "./frees"],
    );
    let script =
        "import valparse\nreport = valparse.Parser('x.xml')\nprint([e.kind.value for e in report.errs])";
    assert_eq!(run(python, &["-c", script]), "['InvalidRead', 'InvalidFree']\n");
}

/// As many findings as make a report of 100 MB.
const LARGE_BYTES: usize = 100_000_000;

#[test]
fn a_hundred_megabytes_of_findings_lose_nothing_and_show_progress_on_a_terminal_only() {
    let scratch = scratch();
    let folder = scratch.path();
    overflow_in(folder);
    memcheck(folder, ["-q", "--json=one.json", "./overflow"]);
    let mut report: Value = serde_json::from_slice(&fs::read(folder.join("one.json")).unwrap()).unwrap();
    let first = report["errors"][0].clone();
    let count = LARGE_BYTES / serde_json::to_vec(&first).unwrap().len();
    let errors = (0..count).map(|number| {
        let mut error = first.clone();
        error["message"] = format!("finding number {number}").into();
        error
    });
    report["errors"] = errors.collect();
    fs::write(folder.join("large.json"), serde_json::to_vec(&report).unwrap()).unwrap();
    let command = format!("{} convert large.json --oneline=lines", env!("CARGO_BIN_EXE_memcheck"));
    let terminal = on_terminal(folder, &command, 200);
    let text = String::from_utf8_lossy(&terminal.stdout);
    assert!(terminal.status.success() && text.contains("reading the report"), "{text}");
    let lines = fs::read_to_string(folder.join("lines")).unwrap();
    assert_eq!(lines.lines().count(), count);
    assert!(lines.lines().last().unwrap().contains(&format!("finding number {} ", count - 1)));
    let piped = memcheck(folder, ["convert", "large.json", "--json=again.json"]);
    assert!(piped.status.success() && piped.stderr.is_empty(), "{}", String::from_utf8_lossy(&piped.stderr));
    let again = fs::read_to_string(folder.join("again.json")).unwrap();
    assert_eq!(again.matches("\"finding number ").count(), count);
    let cut = fs::read(folder.join("large.json")).unwrap();
    fs::write(folder.join("cut.json"), &cut[..cut.len() / 2]).unwrap();
    let refused = memcheck(folder, ["convert", "cut.json", "--to=text"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(125) && text.lines().count() == 1, "{text}");
}

/// Runs a command with a terminal on all three streams; what takes longer than `patience` milliseconds shows progress.
fn on_terminal(folder: &Path, command: &str, patience: u32) -> Output {
    Command::new("timeout")
        .args(["-k", "5", "300", "script", "-qec", command, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .env("MEMCHECK_PATIENCE", patience.to_string())
        .output()
        .unwrap()
}

#[test]
fn a_long_search_for_names_shows_progress_on_a_terminal_and_nothing_in_a_log() {
    let scratch = scratch();
    let folder = scratch.path();
    // So many functions that their debugging information takes a while to read.
    let functions =
        (0..5000).map(|number| format!("int f{number}(int a) {{ int b = a + {number}; return b; }}\n"));
    let main = "int main(void) { volatile char *p = malloc(8); p[8] = 1; }\n";
    let source = format!("#include <stdlib.h>\n{}{main}", functions.collect::<String>());
    fs::write(folder.join("many.c"), source).unwrap();
    let compiled = Command::new("cc").args(["-g", "many.c", "-o", "many"]).current_dir(folder).status();
    assert!(compiled.unwrap().success());
    let command = format!("{} --log-file=log ./many", env!("CARGO_BIN_EXE_memcheck"));
    let terminal = on_terminal(folder, &command, 0);
    let (text, log) =
        (String::from_utf8_lossy(&terminal.stdout), fs::read_to_string(folder.join("log")).unwrap());
    assert!(text.contains("looking up names"), "{text}");
    assert!(log.contains("heap-buffer-overflow") && !log.contains("looking up"), "{log}");
    let piped = memcheck(folder, ["./many"]);
    assert!(!String::from_utf8_lossy(&piped.stderr).contains("looking up"));
}

#[test]
fn a_long_leak_search_shows_progress_on_a_terminal_and_nothing_in_a_log() {
    let scratch = scratch();
    let folder = scratch.path();
    let source = "#include <stdlib.h>\nstruct node { struct node *next; char pad[24]; };\n\
        struct node *volatile list;\nint main(void) {\n  for (long i = 0; i < 1000000; i++) {\n    \
        struct node *node = malloc(sizeof *node);\n    node->next = list;\n    list = node;\n  }\n}\n";
    fs::write(folder.join("list.c"), source).unwrap();
    let compiled = Command::new("cc").args(["-O1", "list.c", "-o", "list"]).current_dir(folder).status();
    assert!(compiled.unwrap().success());
    let command = format!("{} --log-file=log ./list", env!("CARGO_BIN_EXE_memcheck"));
    let terminal = on_terminal(folder, &command, 0);
    let (text, log) =
        (String::from_utf8_lossy(&terminal.stdout), fs::read_to_string(folder.join("log")).unwrap());
    assert!(text.contains("searching for leaks"), "{text}");
    assert!(log.contains("still reachable") && !log.contains("searching"), "{log}");
    let piped = memcheck(folder, ["./list"]);
    assert!(!String::from_utf8_lossy(&piped.stderr).contains("searching"));
}
