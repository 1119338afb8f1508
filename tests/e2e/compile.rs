//! Compiles C and C++ for the tests, once for each source and command.

use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::fixture;

/// Where everything that the tests build lies.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e")
}

/// The programs are compiled as a user compiles them, but for the compiler's knowledge of library functions: it
/// would remove erroneous calls and accesses before the program is ever run.
pub const FIXTURE_FLAGS: &[&str] =
    &["-g", "-w", "-fno-builtin", concat!("-I", env!("CARGO_MANIFEST_DIR"), "/fixtures/include")];

/// The header of the fixtures.
const HEADER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/include/client_requests.h"));

/// Compiles `source` to a program in the folder `place`; nothing is done when it is there already.
pub fn program(source: &Path, place: &str, flags: &[String]) -> Result<PathBuf, String> {
    let cxx = source.extension().is_some_and(|extension| extension == "cc");
    let name = source.file_stem().and_then(|stem| stem.to_str()).ok_or("the source has no name")?;
    let output = folder().join(place).join(name);
    build(if cxx { "g++" } else { "gcc" }, source, &output, flags)?;
    Ok(output)
}

/// Writes `text` as a source file, unless it stands there already.
pub fn source(place: &str, file: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder().join(place).join(file);
    let place = own_place(&path);
    let _own = place.lock().unwrap_or_else(PoisonError::into_inner);
    if fs::read_to_string(&path).ok().as_deref() != Some(text) {
        create_parent(&path)?;
        fs::write(&path, text).map_err(|e| format!("failed to write {}: {e}", path.display()))?;
    }
    Ok(path)
}

/// The folder with the shared libraries of `fixtures/lib`.
pub fn libraries() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build_libraries).clone()
}

fn build_libraries() -> Result<PathBuf, String> {
    let place = folder().join("lib");
    let sources = fs::read_dir(fixture::folder().join("lib")).map_err(|e| format!("fixtures/lib: {e}"))?;
    for source in sources.flatten().map(|file| file.path()) {
        if source.extension().is_some_and(|extension| extension == "c") {
            let name = source.file_stem().and_then(|stem| stem.to_str()).ok_or("the source has no name")?;
            let flags = ["-g", "-O1", "-fPIC", "-shared"].map(str::to_owned);
            build("gcc", &source, &place.join(format!("lib{name}.so")), &flags)?;
        }
    }
    Ok(place)
}

fn build(compiler: &str, source: &Path, output: &Path, flags: &[String]) -> Result<(), String> {
    let text = fs::read_to_string(source).map_err(|e| format!("failed to read {}: {e}", source.display()))?;
    let mut hasher = DefaultHasher::new();
    (compiler, source, &text, flags, HEADER).hash(&mut hasher);
    let place = own_place(output);
    let _own = place.lock().unwrap_or_else(PoisonError::into_inner);
    let stamp = format!("{:016x}", hasher.finish());
    let stamp_path = output.with_extension("stamp");
    if output.exists() && fs::read_to_string(&stamp_path).ok().as_deref() == Some(&stamp) {
        return Ok(());
    }
    create_parent(output)?;
    let done = Command::new(compiler)
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(flags)
        .output()
        .map_err(|e| format!("failed to run {compiler}: {e}"))?;
    if !done.status.success() {
        return Err(format!("{compiler} {}: {}", source.display(), String::from_utf8_lossy(&done.stderr)));
    }
    fs::write(&stamp_path, stamp).map_err(|e| format!("failed to write {}: {e}", stamp_path.display()))
}

/// What a test holds while it makes this file: several tests may want the same one.
fn own_place(path: &Path) -> Arc<Mutex<()>> {
    static PLACES: Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
    PLACES.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default().clone()
}

fn create_parent(path: &Path) -> Result<(), String> {
    let parent = path.parent().ok_or("a path without folder")?;
    fs::create_dir_all(parent).map_err(|e| format!("failed to create {}: {e}", parent.display()))
}
