//! The shape of the workspace: which crate may depend on which, where unsafe code may be, and what the shim
//! imports from the target's libraries.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What the shim may take from the target's libraries. libc's code may itself be diverted by the engine, and its
/// names may be the target's own.
const SHIM_IMPORTS: &[&str] =
    &["_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize", "__gmon_start__"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// For each package of the workspace, the packages of the workspace that it needs to run, and all its others.
fn dependencies() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let normal = |package: &Value| -> BTreeSet<String> {
        let dependencies = package["dependencies"].as_array().expect("a package lists its dependencies");
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect()
    };
    let split = |names: BTreeSet<String>| names.into_iter().partition(|name| name.starts_with("memcheck-"));
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    packages.iter().map(|package| (name(package), split(normal(package)))).collect()
}

#[test]
fn dependencies_run_one_way() {
    let allowed: &[(&str, &[&str])] = &[
        ("memcheck", &["cli"]),
        (
            "memcheck-preload",
            &["model", "wire", "shadow", "syscalls", "heap", "stack", "requests", "rewrite", "leak"],
        ),
        ("memcheck-cli", &["model", "wire", "symbolize", "report", "suppress"]),
        ("memcheck-symbolize", &["model"]),
        ("memcheck-report", &["model", "syscalls"]),
        ("memcheck-suppress", &["model"]),
        ("memcheck-wire", &["model"]),
        ("memcheck-shadow", &["model"]),
        ("memcheck-syscalls", &["model"]),
        ("memcheck-heap", &["model"]),
        ("memcheck-stack", &["model"]),
        ("memcheck-requests", &["model"]),
        ("memcheck-rewrite", &["model"]),
        ("memcheck-leak", &["model"]),
        ("memcheck-model", &[]),
        ("memcheck-bench", &[]),
    ];
    let allowed: BTreeMap<_, BTreeSet<String>> = allowed
        .iter()
        .map(|(package, needs)| (*package, needs.iter().map(|need| format!("memcheck-{need}")).collect()))
        .collect();
    for (package, (ours, _)) in dependencies() {
        let may = allowed.get(package.as_str()).unwrap_or_else(|| panic!("{package} is not in the table"));
        let wrong: Vec<_> = ours.difference(may).collect();
        assert!(wrong.is_empty(), "{package} must not depend on {wrong:?}");
    }
}

#[test]
fn what_runs_in_the_target_depends_on_little() {
    let allowed: &[(&str, &[&str])] = &[
        ("memcheck-stack", &["gimli"]),
        ("memcheck-rewrite", &["iced-x86"]),
        ("memcheck-preload", &["iced-x86"]),
    ];
    let in_target = ["model", "wire", "shadow", "syscalls", "heap", "stack", "rewrite", "leak", "preload"];
    let all = dependencies();
    for name in in_target.map(|name| format!("memcheck-{name}")) {
        let may = allowed.iter().find(|(package, _)| *package == name).map_or(&[][..], |(_, needs)| needs);
        for need in &all[&name].1 {
            assert!(may.contains(&need.as_str()), "{name} must not depend on {need}");
        }
    }
}

#[test]
fn unsafe_code_stays_where_the_map_allows_it() {
    for package in fs::read_dir(root().join("crates")).expect("crates/ is readable").flatten() {
        let name = package.file_name().to_string_lossy().into_owned();
        let main = ["src/lib.rs", "src/main.rs"].map(|file| package.path().join(file));
        let text = main.iter().find_map(|path| fs::read_to_string(path).ok()).expect("a crate has a root");
        if name == "cli" {
            assert!(text.contains("#![deny(unsafe_code)]"), "crates/cli must deny unsafe code outside os");
            let outside: Vec<PathBuf> = sources(&package.path().join("src"))
                .into_iter()
                .filter(|path| {
                    !path.components().any(|part| part.as_os_str() == "os" || part.as_os_str() == "os.rs")
                })
                .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("unsafe {")))
                .collect();
            assert!(outside.is_empty(), "unsafe code outside crates/cli/src/os: {outside:?}");
        } else {
            assert!(text.contains("#![forbid(unsafe_code)]"), "crates/{name} must forbid unsafe code");
        }
    }
}

#[test]
fn the_shim_imports_next_to_nothing() {
    let shim = concat!(env!("OUT_DIR"), "/shim.so");
    let output = Command::new("nm").args(["-D", "--undefined-only", shim]).output().expect("nm runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let imported: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(output.status.success(), "nm {shim}: {}", String::from_utf8_lossy(&output.stderr));
    let wrong: Vec<_> = imported.iter().filter(|name| !SHIM_IMPORTS.contains(name)).collect();
    assert!(wrong.is_empty(), "the shim must not import {wrong:?}");
}

#[test]
fn every_source_file_says_what_it_owns() {
    let folders = ["src", "crates", "preload", "tests"];
    for path in folders.iter().flat_map(|folder| sources(&root().join(folder))) {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        assert!(text.starts_with("//!"), "{} has no `//!` header", path.display());
    }
}

/// The Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
