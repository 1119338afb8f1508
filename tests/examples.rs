//! docs/examples, each as its reader would use it: with the tool it is for, and `memcheck` on the path.
#![forbid(unsafe_code)]

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A copy of an example's folder to work in.
struct Example {
    scratch: TempDir,
}

/// What a command printed, on both streams, and its status.
struct Ran {
    text: String,
    status: Option<i32>,
}

impl Example {
    fn of(folder: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_memcheck"), scratch.path().join("memcheck")).unwrap();
        let example = Self { scratch };
        copy(&examples().join(folder), &example.folder());
        example
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("example")
    }

    /// Runs a line of shell in the example's folder.
    fn run(&self, line: &str) -> Ran {
        let mut path = OsString::from(self.scratch.path());
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let output = Command::new("timeout")
            .args(["-k", "5", "300", "sh", "-c", &format!("exec 2>&1; {line}")])
            .current_dir(self.folder())
            .env("PATH", path)
            .env_remove("GITHUB_STEP_SUMMARY")
            .env_remove("MAKEFLAGS")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran { text: String::from_utf8_lossy(&output.stdout).into_owned(), status: output.status.code() }
    }

    /// The same for a line that must succeed.
    fn must(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.status, Some(0), "{line}:\n{}", ran.text);
        ran.text
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.read(file)).unwrap()
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The tests of the project and whether they pass under memcheck.
const TESTS: [(&str, bool); 7] = [
    ("good", true),
    ("overflow", false),
    ("leak", false),
    ("failing", false),
    ("frees", false),
    ("write", false),
    ("held", false),
];

#[test]
fn ctest_fails_the_tests_with_findings() {
    let example = Example::of("project");
    example.must("cmake -B build && cmake --build build");
    let ran = example.run("ctest --test-dir build");
    for (name, passes) in TESTS {
        let line = ran.text.lines().find(|line| line.contains(&format!(": {name} .")));
        let line = line.unwrap_or_else(|| panic!("no line of {name}: {}", ran.text));
        assert_eq!(line.contains("Passed"), passes, "{line}\n{}", ran.text);
    }
    let reports: Vec<_> = fs::read_dir(example.folder().join("build"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("memcheck-"))
        .collect();
    assert_eq!(reports.len(), TESTS.len(), "a report for each test");
}

#[test]
fn meson_fails_the_tests_with_findings() {
    let example = Example::of("project");
    example.must("meson setup build");
    let ran = example.run("meson test -C build --wrapper 'memcheck --error-exitcode=1'");
    for (name, passes) in TESTS {
        let line = ran.text.lines().find(|line| line.contains(&format!(" {name} ")));
        let line = line.unwrap_or_else(|| panic!("no line of {name}: {}", ran.text));
        assert_eq!(line.contains("OK"), passes, "{line}\n{}", ran.text);
    }
}

#[test]
fn automake_fails_the_tests_with_findings() {
    let example = Example::of("project");
    example.must("autoreconf -i && ./configure");
    let ran = example.run("make check LOG_COMPILER=memcheck AM_LOG_FLAGS=--error-exitcode=1");
    for (name, passes) in TESTS {
        let result = if passes { "PASS" } else { "FAIL" };
        assert!(ran.text.lines().any(|line| line == format!("{result}: {name}")), "{name}: {}", ran.text);
    }
    assert!(example.read("overflow.log").contains("[heap-buffer-overflow]"));
}

/// The place of a checker called `valgrind`: Valgrind itself, and memcheck by a link of that name.
fn valgrinds(example: &Example) -> [PathBuf; 2] {
    let path = env::var_os("PATH").unwrap_or_default();
    let real = env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|file| file.exists());
    let ours = example.scratch.path().join("ours/valgrind");
    fs::create_dir_all(ours.parent().unwrap()).unwrap();
    symlink(env!("CARGO_BIN_EXE_memcheck"), &ours).unwrap();
    [real.expect("valgrind is installed: see .ci/run"), ours]
}

/// The lines that say how much was found, without the process.
fn counts(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let said = line.strip_prefix("==")?.split_once("== ")?.1;
        (said.starts_with("ERROR SUMMARY") || said.contains(" lost: ") || said.contains("still reachable: "))
            .then(|| said.trim().to_owned())
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn ctest_counts_the_same_defects_with_valgrind_and_with_the_link() {
    let example = Example::of("project");
    let defects = valgrinds(&example).map(|valgrind| {
        example.must(&format!(
            "rm -rf build && cmake -B build -DMEMCHECK=OFF -DMEMORYCHECK_COMMAND={} && cmake --build build",
            valgrind.display()
        ));
        let ran = example.run("ctest --test-dir build -T memcheck");
        assert_ne!(ran.status, Some(0), "the failing test fails: {}", ran.text);
        let report = example.must("cat build/Testing/*/DynamicAnalysis.xml");
        let mut lines = Vec::new();
        for part in report.split("<Test Status=").skip(1) {
            let name = part.split("<Name>").nth(1).and_then(|rest| rest.split("</Name>").next()).unwrap();
            let kinds = part.split("<Defect type=\"").skip(1);
            let kinds = kinds.map(|rest| rest.split("</Defect>").next().unwrap().replace("\">", ": "));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            lines.push(format!("{name} {}; {kinds}", part.split('"').nth(1).unwrap()));
        }
        lines.sort();
        lines
    });
    assert_eq!(defects[0], defects[1]);
    assert_eq!(
        defects[1],
        [
            "failing failed; ",
            "frees passed; FIM: 1, Uninitialized Memory Read: 1",
            "held passed; Memory Leak: 1, Potential Memory Leak: 2",
            "leak passed; Memory Leak: 1",
            "overflow passed; IPW: 1",
            "write passed; Invalid syscall param: 1",
        ]
    );
}

#[test]
fn meson_and_automake_count_the_same_with_valgrind_and_with_the_link() {
    let example = Example::of("project");
    example.must("meson setup build && autoreconf -i && ./configure");
    let [theirs, ours] = valgrinds(&example).map(|valgrind| {
        let options = format!("{} --leak-check=full --error-exitcode=1", valgrind.display());
        let meson = example.run(&format!("meson test -C build --wrapper '{options}'"));
        let passed: Vec<bool> = TESTS
            .iter()
            .map(|(name, _)| {
                let line = meson.text.lines().find(|line| line.contains(&format!(" {name} ")));
                line.unwrap_or_else(|| panic!("no line of {name}: {}", meson.text)).contains(" OK ")
            })
            .collect();
        // Meson writes the tests in the order in which they end.
        let mut found = counts(&example.read("build/meson-logs/testlog-valgrind.txt"));
        found.sort();
        let options = format!(
            "LOG_COMPILER={} AM_LOG_FLAGS='--leak-check=full --error-exitcode=1'",
            valgrind.display()
        );
        let automake = example.run(&format!("make check {options}"));
        let logs: Vec<Vec<String>> =
            TESTS.iter().map(|(name, _)| counts(&example.read(&format!("{name}.log")))).collect();
        let results: Vec<String> = automake
            .text
            .lines()
            .filter(|line| line.starts_with("PASS: ") || line.starts_with("FAIL: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(results.len(), TESTS.len(), "{}", automake.text);
        (passed, found, logs, results)
    });
    assert_eq!(theirs, ours);
    assert!(ours.1.len() >= TESTS.len(), "{:?}", ours.1);
}

#[test]
fn googletest_programs_are_checked_as_they_are() {
    let example = Example::of("googletest");
    example.must("c++ -g numbers_test.cc -lgtest -lgtest_main -o numbers_test");
    let ran = example.run("memcheck --junit=memcheck.xml ./numbers_test");
    assert_eq!(ran.status, Some(99), "{}", ran.text);
    assert!(ran.text.contains("[  PASSED  ] 2 tests."), "{}", ran.text);
    let report = example.read("memcheck.xml");
    assert!(report.contains("alloc-dealloc-mismatch at numbers_test.cc:14"), "{report}");
}

#[test]
fn the_processes_of_check_are_followed() {
    let example = Example::of("check");
    example.must("cc -g numbers_check.c $(pkg-config --cflags --libs check) -o numbers_check");
    let ran = example.run("memcheck --json=memcheck.json ./numbers_check");
    assert_eq!(ran.status, Some(99), "{}", ran.text);
    assert!(ran.text.contains("[heap-use-after-free]"), "{}", ran.text);
    let report = example.json("memcheck.json");
    let erring = &report["errors"][0]["pid"];
    assert_ne!(*erring, report["processes"][0]["pid"], "a child of the runner erred");
}

#[test]
fn an_extension_of_python_is_checked_under_pytest() {
    let example = Example::of("pytest");
    let python = "/usr/bin/python3";
    example.must(
        "cc -g -shared -fPIC $(/usr/bin/python3-config --includes) numbers_c.c \
         -o numbers_c$(/usr/bin/python3-config --extension-suffix)",
    );
    let ran = example.run(&format!(
        "PYTHONMALLOC=malloc memcheck --leak-check=no --json=memcheck.json {python} -m pytest -p no:cacheprovider"
    ));
    assert!(ran.text.contains("1 passed"), "{}", ran.text);
    assert_eq!(ran.status, Some(99), "{}", ran.text);
    let report = example.json("memcheck.json");
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{}", ran.text);
    assert_eq!(errors[0]["stack"][0]["function"], "last");
}

/// The lines of a job that run memcheck.
fn commands(job: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = line.trim().trim_start_matches("- ").trim_start_matches("run: ");
        line.trim_start_matches("entry: ").strip_prefix("memcheck ").map(|rest| format!("memcheck {rest}"))
    };
    job.lines().filter_map(line).collect()
}

#[test]
fn ci_steps_fail_on_a_leak_and_pass_without_one() {
    let steps = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/LEAKS.md")).unwrap();
    let step = commands(&steps).into_iter().find(|step| step.contains("./tests")).unwrap();
    let step = step.split('#').next().unwrap().replace("./tests", "./overflow");
    let jobs =
        ["github.yml", "gitlab.yml"].map(|job| fs::read_to_string(examples().join("ci").join(job)).unwrap());
    let all: Vec<String> = jobs.iter().flat_map(|job| commands(job)).chain([step]).collect();
    assert_eq!(all.iter().filter(|command| command.contains("./overflow")).count(), 3, "{all:?}");
    for (source, status) in [("leak.c", 99), ("good.c", 0)] {
        let example = Example::of("ci");
        fs::copy(examples().join("project").join(source), example.folder().join(source)).unwrap();
        example.must(&format!("cc -g -O1 {source} -o overflow"));
        for command in all.iter().filter(|command| command.contains("./overflow")) {
            let ran = example.run(command);
            assert_eq!(ran.status, Some(status), "{command}:\n{}", ran.text);
            let why = if status == 0 { "memcheck: no errors" } else { "memcheck: 1 leak is an error; " };
            assert!(ran.text.lines().any(|line| line.starts_with(why)), "{command}:\n{}", ran.text);
        }
    }
}

#[test]
fn the_commands_of_the_ci_jobs_work_as_they_stand() {
    for file in ["github.yml", "gitlab.yml", "pre-commit.yaml"] {
        let example = Example::of("ci");
        fs::copy(examples().join("project/overflow.c"), example.folder().join("overflow.c")).unwrap();
        example.must("cc -g -O1 overflow.c -o overflow");
        let text = example.read(file);
        let commands = commands(&text);
        assert!(!commands.is_empty(), "{file}");
        for command in commands {
            let expected = if command.starts_with("memcheck convert") { 0 } else { 99 };
            let ran = example.run(&command);
            assert_eq!(ran.status, Some(expected), "{command}:\n{}", ran.text);
            if command.contains("--github") {
                assert!(ran.text.contains("::error file=overflow.c,line=9,"), "{}", ran.text);
            }
        }
        for word in text.split_whitespace().map(|word| word.trim_matches(['[', ']', ','])) {
            let is_report = word.starts_with("memcheck") && word.contains('.') && !word.contains('*');
            assert!(!is_report || example.folder().join(word).exists(), "{file} names {word}");
        }
    }
}

/// The lines that `memcheck --format=oneline` prints for the project's overflow.
fn lines(example: &Example) -> String {
    example.must("cc -g overflow.c -o overflow");
    let ran = example.run("memcheck -q --format=oneline --json=memcheck.json ./overflow >/dev/null");
    assert_eq!(ran.status, Some(99), "{}", ran.text);
    assert!(ran.text.starts_with("overflow.c:9:"), "{}", ran.text);
    ran.text
}

#[test]
fn the_task_of_vs_code_matches_every_line() {
    let example = Example::of("project");
    fs::write(example.folder().join("lines"), lines(&example)).unwrap();
    let tasks = examples().join("vscode/.vscode/tasks.json");
    let script = format!(
        "const task = JSON.parse(require('fs').readFileSync('{}')).tasks[0];
         const pattern = new RegExp(task.problemMatcher.pattern.regexp);
         for (const line of require('fs').readFileSync('lines', 'utf8').trim().split('\\n')) {{
           const match = pattern.exec(line);
           console.log([1, 2, 4, 6].map((group) => match[group]).join(' '));
         }}",
        tasks.display()
    );
    fs::write(example.folder().join("match.js"), script).unwrap();
    let matched = example.must("node match.js");
    assert!(matched.contains("overflow.c 9 error heap-buffer-overflow\n"), "{matched}");
}

#[test]
fn the_extension_of_vs_code_makes_diagnostics_of_a_report() {
    let example = Example::of("project");
    lines(&example);
    let extension = examples().join("vscode/extension");
    // A stand-in for the editor: as much of its interface as the extension uses.
    let script = format!(
        r#"
const fs = require("fs"), path = require("path"), Module = require("module");
const shown = [];
const vscode = {{
  languages: {{ createDiagnosticCollection: () => ({{ clear() {{ shown.length = 0; }}, set(uri, list) {{ shown.push([uri, list]); }} }}) }},
  workspace: {{
    fs: {{ readFile: (uri) => fs.promises.readFile(uri.fsPath) }},
    findFiles: async () => [vscode.Uri.file(path.resolve("memcheck.json"))],
    createFileSystemWatcher: () => ({{ onDidCreate() {{}}, onDidChange() {{}}, onDidDelete() {{}} }}),
  }},
  commands: {{ registerCommand() {{}} }},
  Uri: {{ file: (fsPath) => ({{ fsPath }}) }},
  Range: class {{ constructor(line, column) {{ Object.assign(this, {{ line, column }}); }} }},
  Location: class {{ constructor(uri, range) {{ Object.assign(this, {{ uri, range }}); }} }},
  Diagnostic: class {{ constructor(range, message, severity) {{ Object.assign(this, {{ range, message, severity }}); }} }},
  DiagnosticRelatedInformation: class {{ constructor(location, message) {{ Object.assign(this, {{ location, message }}); }} }},
  DiagnosticSeverity: {{ Error: 0, Information: 2 }},
}};
const load = Module._load;
Module._load = (name, ...rest) => name === "vscode" ? vscode : load(name, ...rest);
require("{}/extension.js").activate({{ subscriptions: [] }}).then(() => {{
  for (const [uri, list] of shown) for (const diagnostic of list) {{
    console.log(path.basename(uri.fsPath), diagnostic.range.line + 1, diagnostic.code, diagnostic.severity,
      diagnostic.relatedInformation.map((step) => `${{step.message}}:${{step.location.range.line + 1}}`).join(","));
  }}
}});
"#,
        extension.display()
    );
    fs::write(example.folder().join("editor.js"), script).unwrap();
    let shown = example.must("node editor.js");
    assert!(shown.contains("overflow.c 9 heap-buffer-overflow 0 the block was allocated here:7"), "{shown}");
}

#[test]
fn vim_reads_every_line_into_the_quickfix_list() {
    let example = Example::of("project");
    fs::write(example.folder().join("lines"), lines(&example)).unwrap();
    let compiler = examples().join("vim/compiler/memcheck.vim");
    example.run(&format!(
        "vim -Nu NONE -es -c 'source {}' -c 'cgetfile lines' \
         -c 'call writefile(map(getqflist(), {{_, item -> bufname(item.bufnr) . \" \" . item.lnum . \" \" . item.type . \" \" . item.valid}}), \"out\")' \
         -c 'qa!'",
        compiler.display()
    ));
    let list = example.read("out");
    assert!(list.contains("overflow.c 9 e 1\n"), "{list}");
}

#[test]
fn emacs_finds_every_line_in_the_compilation_buffer() {
    let example = Example::of("project");
    fs::write(example.folder().join("lines"), lines(&example)).unwrap();
    let library = examples().join("emacs/memcheck.el");
    let script = format!(
        r#"(load "{}")
(with-temp-buffer
  (insert-file-contents "lines")
  (compilation-mode)
  (compilation--ensure-parse (point-max))
  (goto-char (point-min))
  (while (not (eobp))
    (let* ((message (get-text-property (point) 'compilation-message))
           (place (and message (compilation--message->loc message))))
      (when place
        (princ (format "%s %s %s\n" (caar (compilation--loc->file-struct place))
                       (compilation--loc->line place) (compilation--message->type message)))))
    (forward-line)))"#,
        library.display()
    );
    fs::write(example.folder().join("look.el"), script).unwrap();
    let found = example.must("emacs --batch -Q -l look.el");
    assert!(found.contains("overflow.c 9 2\n"), "{found}");
}

#[test]
fn bash_completes_options_and_the_manual_page_is_one() {
    let example = Example::of("project");
    let completed = example.must(
        "memcheck completions bash >complete.bash && bash -c '. ./complete.bash; COMP_WORDS=(memcheck --leak-); \
         COMP_CWORD=1; _memcheck memcheck --leak- memcheck; echo ${COMPREPLY[@]}'",
    );
    assert!(completed.contains("--leak-check") && completed.contains("--leak-resolution"), "{completed}");
    let page = example.must("memcheck man");
    assert!(page.contains(".TH memcheck 1") && page.contains(".SH OPTIONS"), "{page}");
}

#[test]
fn settings_of_a_project_are_in_force() {
    let example = Example::of("project");
    fs::copy(examples().join("memcheck.toml"), example.folder().join("memcheck.toml")).unwrap();
    let shown = example.must("memcheck config --num-callers=20");
    assert!(shown.contains("errors-for-leak-kinds = \"definite\"  # line 3"), "{shown}");
    assert!(shown.contains("num-callers = \"20\"  # command line"), "{shown}");
    assert!(shown.contains("\"/build/project\" = "), "{shown}");
}

#[test]
fn every_example_is_named_in_the_list_of_them() {
    let list = fs::read_to_string(examples().join("README.md")).unwrap();
    for entry in fs::read_dir(examples()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name == "README.md" || list.contains(&format!("`{name}`")), "{name}");
    }
}
