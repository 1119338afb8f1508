//! Every fuzz target over its seeds and over changed ones, the same in each run, so that targets neither rot nor pass
//! whatever comes. `MEMCHECK_FUZZ_INPUTS` gives another number of inputs for each.

use std::{fs, panic, path::Path};

use memcheck_fuzz::{Mutations, TARGETS};
use nix::sys::resource::{Resource, setrlimit};

/// No input is worth more memory, though all targets have inputs at once.
const MOST_BYTES: u64 = 8 << 30;

/// Runs the target over so many changed seeds; the input that it fails for is left in a file.
fn fuzz(name: &str, inputs: usize) {
    setrlimit(Resource::RLIMIT_AS, MOST_BYTES, MOST_BYTES).expect("less memory can be asked for");
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    let inputs = match std::env::var("MEMCHECK_FUZZ_INPUTS") {
        Ok(number) => number.parse().expect("MEMCHECK_FUZZ_INPUTS is a number"),
        Err(_) => inputs,
    };
    let seeds = (target.seeds)();
    for input in seeds.iter().cloned().chain(Mutations::new(&seeds, 1).take(inputs)) {
        if let Err(reason) = panic::catch_unwind(|| (target.run)(&input)) {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
            fs::write(&file, &input).expect("the directory for tests takes a file");
            eprintln!("the input is in {}", file.display());
            panic::resume_unwind(reason);
        }
    }
}

macro_rules! targets {
    ($($name:ident: $inputs:expr,)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name), $inputs);
        })*

        #[test]
        fn every_target_is_tested() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

// As many as take half a second or so each.
targets! {
    elf: 1000,
    heap: 20,
    report: 150,
    rewrite: 1000,
    suppressions: 3000,
    symbolize: 100,
    syscalls: 5000,
    unwind: 300,
    wire: 500,
}
