//! The symbolizer on what gcc and objcopy make: each way debug information can be kept, and broken files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use memcheck_symbolize::{Location, ModuleFile, SymbolKind, Symbolizer};
use proptest::prelude::*;
use tempfile::TempDir;

const SOURCE: &str = r"
int table[16] = {1};
static inline __attribute__((always_inline)) int inner(int x) { return table[x & 15] / x; }
__attribute__((noinline)) int outer(int x)
{
    return inner(x) + 1;
}
int main(int argc, char **argv) { (void)argv; return outer(argc); }
";

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).current_dir(directory).status().expect(program);
    assert!(status.success(), "{program} {arguments:?}");
}

/// Compiles the source with these flags; the path of the program.
fn compile(directory: &Path, flags: &[&str]) -> PathBuf {
    fs::write(directory.join("prog.c"), SOURCE).unwrap();
    let mut arguments = vec!["-O1", "-o", "prog", "prog.c"];
    arguments.extend_from_slice(flags);
    run(directory, "gcc", &arguments);
    directory.join("prog")
}

/// Where nm says that the symbol begins.
fn address_of(program: &Path, symbol: &str) -> u64 {
    let output = Command::new("nm").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(&format!(" {symbol}"))).unwrap();
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}

fn locations(program: &Path, address: u64) -> Vec<Location> {
    let file = ModuleFile { path: program.as_os_str(), build_id: &[] };
    Symbolizer::default().locations(file, address)
}

/// Every instruction of `outer` leads to it, and some to the call that was inlined there.
fn assert_names_inlined_call(program: &Path, outer: u64) {
    let all: Vec<_> = (outer..outer + 12).map(|address| locations(program, address)).collect();
    for stack in &all {
        let last = stack.last().expect("a location");
        assert_eq!(last.function.as_deref(), Some("outer"));
        assert!(last.file.as_deref().is_some_and(|file| file.ends_with("prog.c")), "{last:?}");
        assert!(!last.inlined);
    }
    let inlined = all.iter().find(|stack| stack.len() == 2).expect("an inlined call");
    assert_eq!(inlined[0].function.as_deref(), Some("inner"));
    assert_eq!((inlined[0].line, inlined[1].line), (Some(3), Some(6)));
    assert!(inlined[0].inlined && inlined[0].column.is_some());
}

#[test]
fn debug_information_is_found_wherever_it_is_kept() {
    let kinds: [(&str, &[&str]); 6] = [
        ("in the file", &["-g"]),
        ("position dependent", &["-g", "-no-pie", "-fno-pie"]),
        ("compressed", &["-g", "-gz"]),
        ("version 4", &["-gdwarf-4"]),
        ("split", &["-g", "-gsplit-dwarf"]),
        ("split, version 4", &["-gdwarf-4", "-gsplit-dwarf"]),
    ];
    for (kind, flags) in kinds {
        println!("{kind}");
        let directory = TempDir::new().unwrap();
        // Split DWARF is looked for where the compiler left it.
        let program = compile(directory.path(), flags);
        assert_names_inlined_call(&program, address_of(&program, "outer"));
    }
}

#[test]
fn what_dwz_moved_to_a_supplementary_file_is_found_there() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let program = compile(at, &["-g"]);
    fs::copy(&program, at.join("other")).unwrap();
    run(at, "dwz", &["-m", "common.debug", "prog", "other"]);
    assert!(at.join("common.debug").exists(), "dwz found nothing to share");
    assert_names_inlined_call(&program, address_of(&program, "outer"));
    // Without that file there are fewer names, and no harm.
    fs::remove_file(at.join("common.debug")).unwrap();
    let stack = locations(&program, address_of(&program, "outer"));
    assert_eq!(stack.last().and_then(|last| last.function.as_deref()), Some("outer"));
}

#[test]
fn a_debuglink_leads_to_a_separate_file_of_the_same_content_only() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let program = compile(at, &["-g", "-Wl,--build-id=none"]);
    let outer = address_of(&program, "outer");
    run(at, "objcopy", &["--only-keep-debug", "prog", "prog.debug"]);
    run(at, "strip", &["prog"]);
    run(at, "objcopy", &["--add-gnu-debuglink=prog.debug", "prog"]);
    assert_names_inlined_call(&program, outer);
    fs::create_dir(at.join(".debug")).unwrap();
    fs::rename(at.join("prog.debug"), at.join(".debug/prog.debug")).unwrap();
    assert_names_inlined_call(&program, outer);
    let mut content = fs::read(at.join(".debug/prog.debug")).unwrap();
    content.push(0);
    fs::write(at.join(".debug/prog.debug"), content).unwrap();
    assert_eq!(locations(&program, outer), []);
}

#[test]
fn without_debug_information_the_symbol_table_names_functions_and_variables() {
    let directory = TempDir::new().unwrap();
    let program = compile(directory.path(), &[]);
    let outer = address_of(&program, "outer");
    let stack = locations(&program, outer + 3);
    assert_eq!(
        stack,
        [Location {
            function: Some("outer".into()),
            linkage_name: Some("outer".into()),
            ..Location::default()
        }]
    );
    let file = ModuleFile { path: program.as_os_str(), build_id: &[] };
    let table = address_of(&program, "table");
    let named = Symbolizer::default().named(file, table + 8).unwrap();
    assert_eq!((named.kind, named.name.as_str()), (SymbolKind::Variable, "table"));
    assert_eq!((named.offset, named.size), (8, 64));
}

#[test]
fn another_file_at_the_modules_path_names_nothing() {
    let directory = TempDir::new().unwrap();
    let program = compile(directory.path(), &["-g", "-Wl,--build-id=0x0102"]);
    let outer = address_of(&program, "outer");
    let named = |build_id: &[u8]| {
        let file = ModuleFile { path: program.as_os_str(), build_id };
        !Symbolizer::default().locations(file, outer).is_empty()
    };
    assert!(named(&[1, 2]));
    assert!(!named(&[1, 3]));
    assert_eq!(locations(Path::new("linux-vdso.so.1"), 4), []);
    assert_eq!(locations(directory.path(), 4), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn broken_files_cost_names_only(seed in any::<u64>(), cut in 0usize..20000, changes in 1usize..200) {
        let directory = TempDir::new().unwrap();
        let program = compile(directory.path(), &["-g"]);
        let outer = address_of(&program, "outer");
        let mut bytes = fs::read(&program).unwrap();
        let mut state = seed | 1;
        for _ in 0..changes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 24) as usize % bytes.len();
            bytes[at] = (state >> 16) as u8;
        }
        if seed % 3 == 0 {
            bytes.truncate(cut);
        }
        fs::write(&program, bytes).unwrap();
        for address in outer..outer + 8 {
            locations(&program, address);
        }
    }
}
