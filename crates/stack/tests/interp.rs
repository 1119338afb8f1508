//! Rules against binutils' reading of the same unwind information, row by row, in real binaries.

use std::{collections::HashMap, path::Path, process::Command};

use memcheck_stack::{CfaBase, Rule, UnwindInfo, find_frames};

struct Section {
    addr: u64,
    bytes: Vec<u8>,
}

fn readelf(arguments: &[&str], path: &str) -> String {
    let output = Command::new("readelf").args(arguments).arg(path).output().expect("binutils is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn section(path: &str, file: &[u8], wanted: &str) -> Option<Section> {
    let listing = readelf(&["-SW"], path);
    let line = listing.lines().find(|line| line.contains(&format!("] {wanted} ")))?;
    let words: Vec<_> = line.split(']').nth(1)?.split_whitespace().collect();
    let number = |index: usize| u64::from_str_radix(words[index], 16).ok();
    let (addr, offset, len) = (number(2)?, number(3)? as usize, number(4)? as usize);
    Some(Section { addr, bytes: file[offset..offset + len].to_vec() })
}

/// What binutils' row says, when a rule can say it; `None` where binutils cannot show it either (expressions).
fn expected(columns: &HashMap<&str, &str>) -> Option<Rule> {
    let cfa = columns["CFA"];
    let rbp = columns.get("rbp").copied().unwrap_or("u");
    if columns["ra"] == "u" {
        return Some(Rule::Outermost);
    }
    if columns["ra"] == "exp" || cfa.contains("exp") || rbp.contains("exp") {
        return None;
    }
    let rbp = match rbp {
        "u" | "s" => None,
        saved => match saved.strip_prefix('c').and_then(|offset| offset.parse::<i64>().ok()) {
            Some(offset) => Some(offset),
            None => return Some(Rule::Refused),
        },
    };
    let (register, offset) = cfa.split_at(3);
    let Ok(offset) = offset.parse::<i64>() else { return Some(Rule::Refused) };
    Some(match (register, columns["ra"]) {
        ("rsp", "c-8") => Rule::frame(CfaBase::Rsp, offset, rbp),
        ("rbp", "c-8") => Rule::frame(CfaBase::Rbp, offset, rbp),
        _ => Rule::Refused,
    })
}

/// A file's unwind information, as it would be mapped.
struct Unwind {
    header: Section,
    frames: Section,
}

impl Unwind {
    fn read(path: &str, file: &[u8]) -> Self {
        let header = section(path, file, ".eh_frame_hdr").expect("a header");
        let frames = section(path, file, ".eh_frame").expect("frames");
        assert_eq!(find_frames(&header.bytes, header.addr), Some(frames.addr), "{path}");
        Self { header, frames }
    }

    fn info(&self) -> UnwindInfo<'_> {
        UnwindInfo {
            header: &self.header.bytes,
            header_addr: self.header.addr,
            frames: &self.frames.bytes,
            frames_addr: self.frames.addr,
        }
    }
}

/// Compares every row; gives how many there were, and how many of them no rule can say.
fn compare(path: &str) -> (usize, usize) {
    let file = std::fs::read(path).unwrap();
    let unwind = Unwind::read(path, &file);
    let info = unwind.info();
    let listing = readelf(&["--debug-dump=frames-interp"], path);
    let (mut names, mut extent, mut rows, mut refused) = (Vec::new(), None, 0, 0);
    let mut lines = listing.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(range) = line.split(" pc=").nth(1) {
            let (start, end) = range.trim().split_once("..").unwrap();
            extent = Some((hex(start), hex(end)));
        } else if line.contains(" CIE ") {
            extent = None;
        } else if line.trim_start().starts_with("LOC") {
            names = line.split_whitespace().collect();
        } else if let (Some((_, end)), 16.., Some(&first)) = (extent, line.len(), line.as_bytes().first()) {
            if !first.is_ascii_hexdigit() {
                continue;
            }
            let values: Vec<_> = line.split_whitespace().filter(|word| !word.starts_with('(')).collect();
            if values[0].len() != 16 {
                continue;
            }
            let columns: HashMap<_, _> = names.iter().copied().zip(values.iter().copied()).collect();
            let at = hex(values[0]);
            let next = lines
                .peek()
                .and_then(|line| line.split_whitespace().next())
                .filter(|word| word.len() == 16)
                .map_or(end, hex);
            for pc in [at, next.saturating_sub(1)].into_iter().filter(|pc| (at..next).contains(pc)) {
                let found = info.rule_at(pc);
                rows += 1;
                refused += usize::from(found == Rule::Refused);
                match expected(&columns) {
                    Some(rule) => assert_eq!(found, rule, "{path} at {pc:#x}: {line}"),
                    None => assert_ne!(found, Rule::Unknown, "{path} at {pc:#x}: {line}"),
                }
            }
        }
    }
    (rows, refused)
}

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn rules_agree_with_binutils_in_real_binaries() {
    let libraries = "/lib/x86_64-linux-gnu";
    let mut compared = 0;
    for name in ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libcrypto.so.3", "libpython3.11.so.1.0"] {
        let path = format!("{libraries}/{name}");
        if !Path::new(&path).exists() {
            continue;
        }
        let (rows, refused) = compare(&path);
        assert!(rows > 10_000 / 4, "{path}: {rows} rows");
        assert!(refused * 20 < rows, "{path}: {refused} of {rows} rows refused");
        eprintln!("{path}: {rows} rows, {refused} refused");
        compared += 1;
    }
    assert!(compared > 0);
}

#[test]
fn frames_that_realign_the_stack_have_rules() {
    let directory = std::env::temp_dir().join(format!("memcheck-realigned-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (source, object) = (directory.join("a.c"), directory.join("a.so"));
    let code = "void g(void *, int); void f(int n) { char v[64] __attribute__((aligned(64))); g(v, n);
                g(__builtin_alloca(n), n); } void main_like(int n, ...) { f(n); }";
    std::fs::write(&source, code).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.args(["-O2", "-mavx2", "-mstackrealign", "-shared", "-fPIC", "-o"]).arg(&object).arg(&source);
    assert!(compiler.status().unwrap().success());
    let path = object.to_str().unwrap();
    let (rows, refused) = compare(path);
    // Only the few instructions that address the caller's frame through r10 are refused.
    assert!(rows > 10 && refused * 2 < rows, "{refused} of {rows} rows refused");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn landing_pads_are_what_the_assembler_was_told() {
    let directory = std::env::temp_dir().join(format!("memcheck-landing-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (source, object) = (directory.join("a.cc"), directory.join("a.so"));
    // What follows a call of what does not return is the landing pad, or jumps to the cold part of the function.
    let code = "extern \"C\" { void g(int); void none(int n) { g(n); g(n + 1); }
                int one(int n) { try { g(n); } catch (int thrown) { return thrown; } return 0; } }";
    std::fs::write(&source, code).unwrap();
    let mut compiler = Command::new("g++");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&object).arg(&source);
    assert!(compiler.status().unwrap().success());
    let path = object.to_str().unwrap();
    let file = std::fs::read(path).unwrap();
    let (unwind, table) =
        (Unwind::read(path, &file), section(path, &file, ".gcc_except_table").expect("exceptions"));
    let bytes_from = |at: u64| table.bytes.get(at.checked_sub(table.addr)? as usize..);
    let symbols = readelf(&["-sW"], path);
    let find = |name: &str| {
        let line = symbols.lines().find(|line| line.split_whitespace().last() == Some(name)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let start = hex(words[1]);
        let mut pads = Vec::new();
        let is_known = unwind.info().for_each_landing_pad(start, bytes_from, |pad| pads.push(pad - start));
        (is_known, pads, words[2].parse::<u64>().unwrap())
    };
    assert_eq!((find("none").0, find("none").1), (Some(()), Vec::new()));
    let (is_known, pads, size) = find("one");
    assert!(is_known.is_some() && pads.len() == 1 && (1..size).contains(&pads[0]), "{pads:x?} of {size}");
    let broken = |at: u64| bytes_from(at).map(|bytes| &bytes[..4]);
    let start =
        hex(symbols.lines().find(|line| line.ends_with(" one")).unwrap().split_whitespace().nth(1).unwrap());
    assert_eq!(unwind.info().for_each_landing_pad(start, broken, |_| ()), None);
    assert_eq!(unwind.info().for_each_landing_pad(start, |_| None, |_| ()), None);
    assert_eq!(unwind.info().for_each_landing_pad(0, bytes_from, |_| ()), Some(()));
    std::fs::remove_dir_all(&directory).unwrap();
}
