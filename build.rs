//! Builds the shim, so that the launcher carries it: a nested cargo with a target directory of its own.

use std::{
    env, fs,
    hash::{DefaultHasher, Hasher},
    path::PathBuf,
    process::Command,
};

/// What the shim is made of. A change in any of these builds it anew.
const SOURCES: [&str; 11] = [
    "preload",
    "crates/model",
    "crates/wire",
    "crates/shadow",
    "crates/heap",
    "crates/stack",
    "crates/rewrite",
    "crates/leak",
    "crates/syscalls",
    "crates/requests",
    "Cargo.toml",
];

fn main() {
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET").into_string().expect("a target triple is ASCII");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let directory = out.join("shim");
    let mut build = Command::new(variable("CARGO"));
    build.current_dir(&root).args(["build", "--package", "memcheck-preload", "--profile", "shim"]);
    build.args(["--target", &target, "--target-dir"]).arg(&directory);
    // Cargo's word to build scripts and clippy's or the user's flags are about the launcher, not the shim. What
    // says where crates come from (CARGO_HOME, CARGO_NET_…, CARGO_REGISTRIES_…, …) holds for both.
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_HTTP_",
        "CARGO_SOURCE_",
        "CARGO_MAKEFLAGS",
        "CARGO_INCREMENTAL",
    ];
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let is_cargos = name == "CARGO" || name.starts_with("CARGO_");
        let is_flags =
            matches!(name, "RUSTFLAGS" | "RUSTC_WORKSPACE_WRAPPER" | "RUSTDOCFLAGS" | "CLIPPY_ARGS");
        let is_scripts = matches!(name, "TARGET" | "HOST" | "OUT_DIR" | "OPT_LEVEL" | "DEBUG" | "PROFILE");
        if is_flags || is_scripts || (is_cargos && !KEPT.iter().any(|kept| name.starts_with(kept))) {
            build.env_remove(name);
        }
    }
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "the shim does not build: {status}");
    let built = directory.join(&target).join("shim/libmemcheck_preload.so");
    let content = fs::read(&built).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    fs::write(out.join("shim.so"), &content).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
    let mut digest = DefaultHasher::new();
    digest.write(&content);
    println!("cargo::rustc-env=SHIM_DIGEST={:016x}", digest.finish());
}
