//! The access matrix: every block size from 1 to 64 × every access size × every offset from 16 bytes before the
//! block to 16 bytes after it × reads and writes × aligned and not. Every bad access is reported once, no good
//! one.
//!
//! A generated C program makes all of them. One run calls each access through a function that stands for the
//! block's size, another through one that stands for the offset, so that memcheck counts them apart: the number
//! of reports of each row and of each column must be the number of bad accesses in it.
//!
//! Functions are aligned, as they are at -O2: one shorter than the five bytes of a jump, with the next function right
//! behind it, has no room for the jump to its copy, and stays unchecked when it is called by pointer.

use std::collections::BTreeMap;
use std::fmt::Write;

use libtest_mimic::Trial;

use crate::{compile, exec, trial};

const SIZES: std::ops::RangeInclusive<i64> = 1..=64;
const MARGIN: i64 = 16;

/// How the program is built, and the widest access that it makes.
const BUILDS: &[(&str, i64)] = &[
    ("-O0", 16),
    ("-O1 -falign-functions=16", 16),
    ("-O2", 16),
    ("-O3", 16),
    ("-O0 -mavx2", 32),
    ("-O2 -mavx2", 32),
    ("-O2 -mavx512f", 64),
    ("-O3 -march=native", 16),
];

/// One trial for each build that this processor can run.
pub fn trials() -> Vec<Trial> {
    let widest = match () {
        () if std::is_x86_feature_detected!("avx512f") => 64,
        () if std::is_x86_feature_detected!("avx2") => 32,
        () => 16,
    };
    let runs = BUILDS.iter().filter(|build| build.1 <= widest);
    runs.map(|&(flags, width)| {
        let width = if flags.contains("native") { widest } else { width };
        trial(format!("matrix::{flags}"), move || check(flags, width))
    })
    .collect()
}

/// Which way the accesses are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Size,
    Offset,
}

fn check(flags: &str, widest: i64) -> Result<(), String> {
    let widths: Vec<i64> = [1, 2, 4, 8, 16, 32, 64].into_iter().filter(|&width| width <= widest).collect();
    let source = compile::source(&format!("matrix/{widest}"), "matrix.c", &program(&widths))?;
    let mut all: Vec<String> = ["-g", "-w"].map(str::to_owned).to_vec();
    all.extend(flags.split_whitespace().map(str::to_owned));
    let program = compile::program(&source, &format!("matrix/{}", flags.replace(' ', "")), &all)?;
    for (by, argument) in [(By::Size, "size"), (By::Offset, "offset")] {
        let run = exec::checked(&[], &program, &[argument])?;
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for error in &run.report.errors {
            let name =
                |at: usize| error.stack.get(at).and_then(|frame| frame.function.as_deref()).unwrap_or("?");
            *seen.entry(format!("{} {}", name(0), name(1))).or_default() += error.count;
        }
        let expected = expected(&widths, by);
        let wrong: Vec<String> = expected
            .iter()
            .filter(|(site, count)| seen.get(*site) != Some(count))
            .map(|(site, count)| format!("{site}: {} instead of {count}", seen.get(site).unwrap_or(&0)))
            .collect();
        let good: Vec<_> = seen.keys().filter(|site| !expected.contains_key(*site)).collect();
        if !wrong.is_empty() || !good.is_empty() {
            let first: Vec<_> = wrong.iter().take(8).collect();
            let good: Vec<_> = good.iter().take(8).collect();
            return Err(format!(
                "by {argument}: {} sites wrong, such as {first:?}; not expected {good:?}",
                wrong.len()
            ));
        }
    }
    Ok(())
}

/// How often each site must be reported.
fn expected(widths: &[i64], by: By) -> BTreeMap<String, u64> {
    let mut expected = BTreeMap::new();
    for (size, offset, width, op, aligned) in accesses(widths) {
        if offset < 0 || offset + width > size {
            let caller = match by {
                By::Size => format!("size_{size}"),
                By::Offset => format!("offset_{}", offset + MARGIN),
            };
            let aligned = if aligned { "_aligned" } else { "" };
            *expected.entry(format!("{op}_{width}{aligned} {caller}")).or_default() += 1;
        }
    }
    expected
}

fn accesses(widths: &[i64]) -> impl Iterator<Item = (i64, i64, i64, &'static str, bool)> + '_ {
    SIZES.flat_map(move |size| {
        (-MARGIN..=size + MARGIN).flat_map(move |offset| {
            widths.iter().flat_map(move |&width| {
                let aligned: &[bool] = if offset % width == 0 { &[false, true] } else { &[false] };
                aligned
                    .iter()
                    .flat_map(move |&aligned| ["read", "write"].map(|op| (size, offset, width, op, aligned)))
            })
        })
    })
}

fn program(widths: &[i64]) -> String {
    let mut text =
        String::from("#include <stdlib.h>\n#include <string.h>\n#define APART __attribute__((noipa))\n");
    for width in widths {
        let vector = if *width > 8 { format!(", vector_size({width})") } else { String::new() };
        let base = match width {
            1 => "char",
            2 => "short",
            4 => "int",
            _ => "long",
        };
        for (name, align) in [("", 1), ("_aligned", *width)] {
            let kind = format!("t_{width}{name}");
            let _ = writeln!(
                text,
                "typedef {base} {kind} __attribute__((may_alias{vector}, aligned({align})));\n\
                 APART void read_{width}{name}(char *p) {{ volatile {kind} seen = *(volatile {kind} *)p; }}\n\
                 APART void write_{width}{name}(char *p) {{ *(volatile {kind} *)p = ({kind}){{1}}; }}"
            );
        }
    }
    text.push_str("typedef void call(void (*access)(char *), char *p);\n");
    let callers: Vec<String> = SIZES
        .map(|size| format!("size_{size}"))
        .chain((0..=SIZES.end() + 2 * MARGIN).map(|offset| format!("offset_{offset}")))
        .collect();
    for caller in &callers {
        let _ = writeln!(
            text,
            "APART void {caller}(void (*f)(char *), char *p) {{ f(p); __asm__ volatile(\"\"); }}"
        );
    }
    let list = |word: &str| {
        callers.iter().filter(|name| name.starts_with(word)).cloned().collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "static call *sizes[] = {{ NULL, {} }};", list("size_"));
    let _ = writeln!(text, "static call *offsets[] = {{ {} }};", list("offset_"));
    let _ = writeln!(
        text,
        "int main(int argc, char **argv)\n{{\n    int by_size = strcmp(argv[1], \"size\") == 0;\n    \
         for (int size = {}; size <= {}; size++)\n        \
         for (int offset = -{MARGIN}; offset <= size + {MARGIN}; offset++) {{\n            \
         char *p = aligned_alloc(64, size);\n            call *c = by_size ? sizes[size] : offsets[offset + {MARGIN}];",
        SIZES.start(),
        SIZES.end()
    );
    for width in widths {
        let _ = writeln!(
            text,
            "            c(read_{width}, p + offset);\n            c(write_{width}, p + offset);\n            \
             if (offset % {width} == 0) {{\n                c(read_{width}_aligned, p + offset);\n                \
             c(write_{width}_aligned, p + offset);\n            }}"
        );
    }
    text.push_str("            free(p);\n        }\n    return 0;\n}\n");
    text
}
