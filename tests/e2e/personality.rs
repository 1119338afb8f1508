//! Valgrind's options one by one, each on a program that shows what it does.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use libtest_mimic::Trial;

use crate::{compile, exec, fixture, trial};

/// A test of its own.
type Check = fn() -> Result<(), String>;

/// All of them.
pub fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 12] = [
        ("children_are_skipped_by_path_and_argument", skipped_children),
        ("programs_that_are_not_watched_have_no_summary", unseen_ends),
        ("forked_children_can_be_silent", silent_forks),
        ("every_process_has_its_own_file", own_files),
        ("xml_takes_the_place_of_text", xml),
        ("text_and_xml_go_to_sockets", sockets),
        ("names_are_shown_as_asked", names),
        ("stacks_are_kept_as_asked", stacks),
        ("ranges_are_ignored", ranges),
        ("own_allocators_are_replaced_as_asked", own_allocators),
        ("rules_follow_the_loss_records_they_are_for", rules),
        ("blocks_lie_as_far_apart_as_asked", placement),
    ];
    checks.into_iter().map(|(name, check)| trial(format!("personality::{name}"), check)).collect()
}

/// A parent with an erring forked child, then a child that executes the program again and errs.
const TREE: &str = r#"#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void over(volatile char *p) { p[8] = 1; }
int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "leaf")) { over(malloc(8)); return 0; }
  if (fork() == 0) { over(malloc(8)); _exit(0); }
  wait(NULL);
  if (fork() == 0) { execl(argv[0], argv[0], "leaf", (char *)0); _exit(9); }
  wait(NULL);
  return 0;
}
"#;

/// A read of a freed block, in an inlined method; then the distance and the place of two blocks.
const BLOCKS: &str = r#"#include <cstdio>
#include <cstdlib>
struct Shape {
  volatile char *at;
  [[gnu::always_inline]] int look(int index) { return at[index]; }
  [[gnu::noinline]] int touch(int index) { return look(index); }
};
int main() {
  char *p = (char *)malloc(24), *q = (char *)malloc(24);
  long apart = p < q ? q - p : p - q;
  printf("%ld %lu\n", apart - 24, (unsigned long)p % 1024);
  free(q);
  Shape shape = {p};
  free(p);
  return shape.touch(3) & 0;
}
"#;

fn built(name: &str, text: &str) -> Result<PathBuf, String> {
    let source = compile::source("personality", name, text)?;
    compile::program(&source, "personality", &["-g", "-w", "-fno-builtin"].map(str::to_owned))
}

/// What a run in Valgrind's manner printed.
struct Said {
    stdout: String,
    stderr: String,
}

fn run(folder: &Path, options: &[&str], program: &Path) -> Result<Said, String> {
    let mut command = exec::memcheck();
    command.args(["--compat=valgrind", "-q"]).args(options).arg(program).current_dir(folder);
    command.env("HOME", folder).env("VARIABLE", "x").env_remove("VALGRIND_OPTS").stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("failed to start {command:?}: {e}"))?;
    let said = Said {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    if output.status.success() { Ok(said) } else { Err(format!("{}: {}", output.status, said.stderr)) }
}

fn expect(what: &str, found: impl std::fmt::Debug, expected: impl Fn() -> bool) -> Result<(), String> {
    if expected() { Ok(()) } else { Err(format!("{what}: {found:?}")) }
}

/// How many bad accesses the text of a run tells of.
fn errors(options: &[&str]) -> Result<usize, String> {
    let scratch = exec::scratch()?;
    let said = run(scratch.path(), options, &built("tree.c", TREE)?)?;
    Ok(said.stderr.matches("Invalid write of size 1").count())
}

fn must_find(cases: &[(&[&str], usize)]) -> Result<(), String> {
    for (options, expected) in cases {
        let found = errors(options)?;
        expect(&options.join(" "), found, || found == *expected)?;
    }
    Ok(())
}

fn skipped_children() -> Result<(), String> {
    let traces = "--trace-children=yes";
    must_find(&[
        (&[], 1),
        (&[traces], 2),
        (&[traces, "--trace-children-skip=/no/such,*/tr?e"], 1),
        (&[traces, "--trace-children-skip-by-arg=l*f"], 1),
        (&[traces, "--trace-children-skip=*/leaf", "--trace-children-skip-by-arg=*tree?"], 2),
    ])
}

fn unseen_ends() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let text = "#include <sys/wait.h>\n#include <unistd.h>\nint main(void) {\n  if (fork() == 0)\n    \
        execl(\"/bin/true\", \"true\", (char *)0);\n  return wait(NULL) < 0;\n}\n";
    let program = built("starts_true.c", text)?;
    let mut command = exec::memcheck();
    command.arg("--compat=valgrind").arg(program).current_dir(&scratch).env("HOME", scratch.path());
    let output = command.env_remove("VALGRIND_OPTS").output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    expect("summaries", &text, || text.matches("HEAP SUMMARY").count() == 1)
}

fn silent_forks() -> Result<(), String> {
    let silent = "--child-silent-after-fork=yes";
    must_find(&[(&[silent], 0), (&["--trace-children=yes", silent], 1)])
}

fn own_files() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let options = ["--trace-children=yes", "--log-file=text.%n.%q{VARIABLE}.%p", "--json=r.%p.json"];
    run(scratch.path(), &options, &built("tree.c", TREE)?)?;
    let xml = ["--trace-children=yes", "--xml=yes", "--xml-file=x.%p", "--xml-user-comment=night <7>"];
    run(scratch.path(), &xml, &built("tree.c", TREE)?)?;
    let mut counts = Vec::new();
    for (prefix, word) in
        [("text.1.x.", "Invalid write"), ("r.", "\"heap-buffer-overflow\""), ("x.", "<error>")]
    {
        let mut files = Vec::new();
        for entry in fs::read_dir(scratch.path()).map_err(|e| e.to_string())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let text = fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
                if prefix == "x." && !text.contains("<usercomment>night &lt;7&gt;</usercomment>") {
                    return Err(format!("no comment: {text}"));
                }
                files.push(text.matches(word).count());
            }
        }
        files.sort_unstable();
        counts.push(files);
    }
    expect("errors in files", &counts, || counts == [[0, 1, 1]; 3])
}

fn xml() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let program = built("tree.c", TREE)?;
    let said = run(scratch.path(), &["--xml=yes", "--xml-file=x.xml"], &program)?;
    expect("text beside XML", &said.stderr, || said.stderr.is_empty())?;
    let said = run(scratch.path(), &["--xml=no", "--xml-file=y.xml"], &program)?;
    expect("text", &said.stderr, || said.stderr.contains("Invalid write"))?;
    expect("an unwanted file", (), || !scratch.path().join("y.xml").exists())?;
    let said = run(scratch.path(), &["--xml=yes", "--xml-fd=1"], &program)?;
    expect("XML on a descriptor", &said.stdout, || said.stdout.contains("<kind>InvalidWrite</kind>"))?;
    let refused = run(scratch.path(), &["--xml=yes"], &program).err().unwrap_or_default();
    expect("XML to nowhere", &refused, || refused.contains("--xml-socket="))
}

fn sockets() -> Result<(), String> {
    for (option, word) in [("--log-socket", "Invalid write"), ("--xml-socket", "<kind>InvalidWrite</kind>")] {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let listening = std::thread::spawn(move || {
            let mut text = String::new();
            listener.accept().and_then(|(mut stream, _)| stream.read_to_string(&mut text)).map(|_| text)
        });
        let scratch = exec::scratch()?;
        let is_xml = if option == "--xml-socket" { "--xml=yes" } else { "--xml=no" };
        let option = format!("{option}={address}");
        let said = run(scratch.path(), &[is_xml, &option], &built("tree.c", TREE)?)?;
        expect("text beside the socket", &said.stderr, || said.stderr.is_empty())?;
        let text = listening.join().map_err(|_| "the listener failed")?.map_err(|e| e.to_string())?;
        expect(&option, &text, || text.contains(word))?;
    }
    Ok(())
}

fn names() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let program = built("blocks.cc", BLOCKS)?;
    let shown = |options: &[&str]| -> Result<Vec<String>, String> {
        let said = run(scratch.path(), options, &program)?;
        let lines = said.stderr.lines().skip_while(|line| !line.contains("Invalid read")).skip(1);
        let frames = lines.take_while(|line| !line.contains("Address"));
        Ok(frames.filter_map(|line| Some(line.split_once(": ")?.1.to_owned())).collect())
    };
    let (look, touch, main) = ("Shape::look(int)", "Shape::touch(int)", "main (blocks.cc:15)");
    let [look, touch] = [(look, 5), (touch, 6)].map(|(name, line)| format!("{name} (blocks.cc:{line})"));
    let full = shown(&[])?;
    expect("all names", &full, || full == [&look[..], &touch, main])?;
    let merged = shown(&["--read-inline-info=no"])?;
    expect("without inlined calls", &merged, || merged == ["Shape::touch(int) (blocks.cc:5)", main])?;
    let mangled = shown(&["--demangle=no"])?;
    expect("mangled names", &mangled, || mangled[0].starts_with("_ZN5Shape4lookEi ("))
}

fn stacks() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let program = built("blocks.cc", BLOCKS)?;
    for (which, allocation, release) in [
        ("alloc", true, false),
        ("free", false, true),
        ("alloc-and-free", true, true),
        ("alloc-then-free", false, true),
        ("none", false, false),
    ] {
        let said = run(scratch.path(), &[&format!("--keep-stacktraces={which}")], &program)?;
        let has = |line: u32| said.stderr.contains(&format!("main (blocks.cc:{line})"));
        expect(which, &said.stderr, || (has(9), has(14)) == (allocation, release) && has(15))?;
    }
    Ok(())
}

fn ranges() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let program = built("blocks.cc", BLOCKS)?;
    for (range, is_told) in [("0x1000-0x1fff", true), ("0x10-0x20,0x100000000000-0x7fffffffffff", false)] {
        let said = run(scratch.path(), &[&format!("--ignore-ranges={range}")], &program)?;
        expect(range, &said.stderr, || said.stderr.contains("Invalid read") == is_told)?;
    }
    Ok(())
}

fn own_allocators() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let source = fixture::folder().join("overflow/own_allocator.c");
    let program = compile::program(&source, "personality", &["-g".to_owned()])?;
    for (pattern, is_seen) in [("*", false), ("NONE", true), ("libx,somalloc=NONE", true), ("none", false)] {
        let said = run(scratch.path(), &[&format!("--soname-synonyms=somalloc={pattern}")], &program)?;
        expect(pattern, &said.stderr, || said.stderr.contains("Invalid write of size 1") == is_seen)?;
    }
    let unseen = exec::checked(&["--soname-synonyms=somalloc=none"], &program, &[])?.text;
    expect("what is not seen is said", &unseen, || {
        unseen.contains("the program defines its own allocator")
            && unseen.contains("leaks were not searched for")
    })
}

fn rules() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let text = "#include <stdlib.h>\nchar *volatile p;\nint main(void) {\n  p = malloc(40);\n  p = malloc(30);\n  \
        p = NULL;\n}\n";
    let said =
        run(scratch.path(), &["--leak-check=full", "--gen-suppressions=all"], &built("lost.c", text)?)?;
    let places: Vec<_> =
        ["30 bytes in", "fun:malloc", "40 bytes in"].map(|word| said.stderr.find(word)).into();
    expect("a rule after its record", &said.stderr, || {
        places.iter().all(Option::is_some) && places.is_sorted()
    })?;
    expect("two rules", &said.stderr, || said.stderr.matches("   fun:malloc\n   fun:main\n}\n").count() == 2)
}

fn placement() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let program = built("blocks.cc", BLOCKS)?;
    for (option, gap, alignment) in [
        ("--redzone-size=16", 16, 16),
        ("--redzone-size=300", 300, 16),
        ("--redzone-size=4096", 4096, 16),
        ("--alignment=1024", 16, 1024),
    ] {
        let said = run(scratch.path(), &[option], &program)?;
        let numbers: Vec<u64> = said.stdout.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [apart, rest] = numbers[..] else { return Err(format!("{option}: {}", said.stdout)) };
        expect(option, &numbers, || apart >= gap && rest % alignment == 0)?;
        expect(option, &said.stderr, || said.stderr.contains("3 bytes inside a block of size 24 free'd"))?;
    }
    Ok(())
}
