//! Golden text reports: `fixtures/golden/GROUP/NAME.txt`, equal but for addresses, pids and the paths of this
//! work tree and of the build folder. Frames in libraries stand as one line, as they differ with the version of
//! the library, its debugging information and the processor. `MEMCHECK_BLESS=1` writes the files.

use std::fs;
use std::path::Path;

use crate::{compile, fixture};

/// The report without what differs from run to run: addresses, process ids, paths. Frames of the program are those
/// in one of the files `own`.
pub fn normalise(text: &str, own: &[&str]) -> String {
    let tree = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    let built = format!("{}/", compile::folder().display());
    let text = text.replace(&built, "BUILD/").replace(&tree, "");
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = normalise_frame(&normalise_line(line), own);
        let is_library = line.ends_with(LIBRARY);
        if !(is_library && lines.last().is_some_and(|last| last.ends_with(LIBRARY))) {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// What stands for frames of libraries.
const LIBRARY: &str = "in libraries";

fn normalise_frame(line: &str, own: &[&str]) -> String {
    let word = ["   = in ", "     by "].into_iter().find(|word| line.starts_with(word));
    match word {
        Some(word) if !own.iter().any(|file| line.contains(file)) => format!("{}{LIBRARY}", &word[..5]),
        _ => line.to_owned(),
    }
}

fn normalise_line(line: &str) -> String {
    // The program's path differs with the level it is compiled at.
    if line.starts_with("   = note: in process ") {
        return "   = note: in process N".to_owned();
    }
    let mut result = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("0x") {
        let digits = rest[at + 2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        result.push_str(&rest[..at]);
        result.push_str(if digits >= 5 { "0xADDR" } else { &rest[at..at + 2 + digits] });
        rest = &rest[at + 2 + digits..];
    }
    result.push_str(rest);
    replace_number_after(&replace_number_after(&result, "pid "), "thread ")
}

fn replace_number_after(line: &str, word: &str) -> String {
    let Some((before, after)) = line.split_once(word) else { return line.to_owned() };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let number = if digits == 0 { "" } else { "N" };
    format!("{before}{word}{number}{}", &after[digits..])
}

/// The reports of one program as one text; equal ones stand once, below all their headings.
pub fn join(reports: Vec<(String, String)>) -> String {
    let mut sections: Vec<(Vec<String>, String)> = Vec::new();
    for (heading, text) in reports {
        match sections.iter_mut().find(|(_, known)| *known == text) {
            Some((headings, _)) => headings.push(heading),
            None => sections.push((vec![heading], text)),
        }
    }
    let section = |(headings, text): (Vec<String>, String)| {
        headings.iter().map(|heading| format!("=== {heading}\n")).collect::<String>() + &text
    };
    sections.into_iter().map(section).collect()
}

/// Compares with the golden file `name`, or writes it when that is asked for.
pub fn compare(name: &str, text: &str) -> Result<(), String> {
    let path = fixture::folder().join("golden").join(name);
    if std::env::var_os("MEMCHECK_BLESS").is_some() {
        return write(&path, text).map_err(|e| format!("failed to write {}: {e}", path.display()));
    }
    match fs::read_to_string(&path) {
        Ok(golden) if golden == text => Ok(()),
        Ok(golden) => Err(format!(
            "the report differs from {name} (MEMCHECK_BLESS=1 accepts it):\n{}",
            difference(&golden, text)
        )),
        Err(e) => Err(format!("no golden report {name} ({e}); MEMCHECK_BLESS=1 writes it:\n{text}")),
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}

/// The lines that only one of the two has.
fn difference(golden: &str, text: &str) -> String {
    let missing =
        golden.lines().filter(|line| !text.lines().any(|l| l == *line)).map(|line| format!("- {line}\n"));
    let added =
        text.lines().filter(|line| !golden.lines().any(|l| l == *line)).map(|line| format!("+ {line}\n"));
    missing.chain(added).collect()
}
