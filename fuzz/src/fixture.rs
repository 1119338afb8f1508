//! Real files for seeds: what gcc makes of a small library.

use std::{fs, process::Command};

const SOURCE: &str = "
struct list { struct list *next; int value; };
int table[16] = {1};
static inline __attribute__((always_inline)) int inner(struct list *at) { return table[at->value & 15]; }
__attribute__((noinline)) int outer(struct list *at)
{
    int sum = 0;
    for (; at; at = at->next)
        sum += inner(at);
    return sum;
}
int choose(int which, char *text, long size)
{
    char copy[size];
    for (long at = 0; at < size; at++)
        copy[at] = text[at];
    switch (which) {
    case 0: return copy[1];
    case 1: return table[copy[2] & 7];
    case 2: return outer((struct list *)text);
    case 3: return copy[0] / copy[3];
    case 4: text[0] = 1; return 4;
    case 5: return text[5] + 5;
    default: return -1;
    }
}
";

/// The file with one more section.
///
/// # Panics
/// When objcopy fails.
pub fn with_section(file: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let (whole, section) = (directory.path().join("whole"), directory.path().join("section"));
    fs::write(&whole, file).and_then(|()| fs::write(&section, content)).expect("the directory takes files");
    let option = format!("--add-section={name}={}", section.display());
    let status = Command::new("objcopy").arg(option).arg(&whole).status().expect("objcopy runs");
    assert!(status.success(), "objcopy {name}");
    fs::read(&whole).expect("objcopy has written its output")
}

/// The library, compiled with these options.
///
/// # Panics
/// When gcc fails.
pub fn library(options: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let (source, built) = (directory.path().join("fixture.c"), directory.path().join("fixture.so"));
    // A local name with more underscores than anybody counts.
    let long = format!("__attribute__((used)) static int {}x(void) {{ return 1; }}\n", "_".repeat(300));
    fs::write(&source, SOURCE.to_owned() + &long).expect("the directory takes a file");
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-nostdlib", "-Wl,-z,noseparate-code"]).args(options);
    let status = gcc.arg(&source).arg("-o").arg(&built).status().expect("gcc runs");
    assert!(status.success(), "gcc {options:?}");
    fs::read(&built).expect("gcc has written its output")
}
