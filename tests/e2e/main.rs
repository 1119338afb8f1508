//! End-to-end tests: real programs under the built `memcheck`, one trial for each program.
//!
//! `cargo test --test e2e` runs all of them over the machine's cores; `-- overflow/` only those whose name holds
//! that word; `MEMCHECK_BLESS=1` writes the golden reports anew; `MEMCHECK_ORACLE=valgrind` compares the
//! fixtures with what Valgrind says instead.
#![forbid(unsafe_code)]

mod compile;
mod control;
mod descriptors;
mod exec;
mod expectation;
mod fixture;
mod formats;
mod golden;
mod grid;
mod injected;
mod leaks;
mod matrix;
mod options;
mod oracle;
mod personality;
mod programs;
mod project;
mod refusals;
mod report;
mod requests;
mod robustness;
mod traps;

use libtest_mimic::{Arguments, Failed, Trial};

/// A named test.
fn trial(name: impl Into<String>, run: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    match std::env::var("MEMCHECK_ORACLE").as_deref() {
        Ok("valgrind") => trials.extend(oracle::trials()),
        Ok(other) => {
            eprintln!("MEMCHECK_ORACLE={other}: expected valgrind");
            std::process::exit(2);
        }
        Err(_) => {
            trials.extend(control::trials());
            trials.extend(grid::trials());
            trials.extend(oracle::leak_trials());
            trials.extend(leaks::trials());
            trials.extend(injected::trials());
            trials.extend(matrix::trials());
            trials.extend(programs::trials());
            trials.extend(programs::leak_trials());
            trials.extend(robustness::trials());
            trials.extend(traps::trials());
            trials.extend(refusals::trials());
            trials.extend(options::trials());
            trials.extend(descriptors::trials());
            trials.extend(requests::trials());
            trials.extend(personality::trials());
            trials.extend(project::trials());
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
