//! The command line: one definition of each option gives parsing, help and completions.
//!
//! Invariant: an option is one argument (`--name=value`), so that the first argument that is no option is the
//! program, and everything after it the program's own.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Parser, ValueEnum};
use memcheck_model::{ErrorKind, LeakKind, MAX_FRAMES};
use memcheck_wire::{LeakCheck, LeakResolution, Options, TrackFds};

use crate::{outputs::ReportFlags, rare_flags::RareFlags};

/// What the user asked for.
#[derive(Debug, Parser)]
#[command(
    name = "memcheck",
    version,
    about = "Runs a program and reports the memory errors it makes",
    override_usage = "memcheck [OPTIONS] [--] PROGRAM [ARGS]...",
    args_override_self = true,
    after_help = "Exit status: the program's own when nothing was found, 99 (or --error-exitcode) when something \
                  was, 125 when memcheck failed, 126 when the program cannot be run under it, 127 when it was \
                  not found. Other commands: memcheck config, doctor PROGRAM, convert, merge, diff, completions, \
                  man; a memcheck.toml gives options for a project. With --compat=valgrind, or started by a name that contains valgrind, it takes \
                  Valgrind's options and speaks as Valgrind does."
)]
pub struct Flags {
    /// Print less: no banner, no summary of a clean run
    #[arg(short, long)]
    pub quiet: bool,

    /// Print more about what is watched
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// List the suppressions that were used, and those that were not
    #[arg(short = 's', long)]
    pub show_suppressed: bool,

    /// What is done about leaks when a process ends
    #[arg(long, value_name = "WHAT", default_value = "full", require_equals = true, num_args = 0..=1,
        default_missing_value = "full")]
    pub leak_check: LeakCheckFlag,

    /// Which kinds of leaks are shown: definite, indirect, possible, reachable, all, none
    #[arg(long, value_name = "KINDS", default_value = "definite,possible", require_equals = true)]
    pub show_leak_kinds: Kinds,

    /// Which kinds of leaks count as errors
    #[arg(long, value_name = "KINDS", default_value = "definite,possible", require_equals = true)]
    pub errors_for_leak_kinds: Kinds,

    /// How much of two allocation stacks must agree for their blocks to be one loss record
    #[arg(long, value_name = "HOW", default_value = "high", require_equals = true)]
    pub leak_resolution: ResolutionFlag,

    /// Which interior pointers count as pointers to the start: stdstring, length64, newarray,
    /// multipleinheritance, pool, all, none
    #[arg(long, value_name = "SET", default_value = "all", require_equals = true)]
    pub leak_check_heuristics: Heuristics,

    /// How many frames a stack has
    #[arg(long, value_name = "N", default_value_t = 30, require_equals = true,
        value_parser = clap::value_parser!(u8).range(1..=MAX_FRAMES as i64))]
    pub num_callers: u8,

    /// Show frames below main
    #[arg(long, value_name = "YES|NO", default_value = "no", require_equals = true)]
    pub show_below_main: YesNo,

    /// Check accesses at the instruction
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub access_checks: YesNo,

    /// Watch the programs that the program starts
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub trace_children: YesNo,

    /// End a process at its first error
    #[arg(long, value_name = "YES|NO", default_value = "no", require_equals = true)]
    pub exit_on_first_error: YesNo,

    /// The exit status when something was found; 0 keeps the program's own
    #[arg(long, value_name = "STATUS", default_value_t = 99, require_equals = true)]
    pub error_exitcode: u8,

    /// Report frees by a function that does not belong to the one that allocated
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub show_mismatched_frees: YesNo,

    /// Report realloc to size zero
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub show_realloc_size_zero: YesNo,

    /// Whether realloc to size zero frees the block
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub realloc_zero_bytes_frees: YesNo,

    /// Watch descriptors: left open at exit, closed twice, used after close; with all also the standard three
    #[arg(long, value_name = "WHICH", default_value = "no", require_equals = true,
        num_args = 0..=1, default_missing_value = "yes")]
    pub track_fds: TrackFdsFlag,

    /// What a program is told that asks whether it runs on Valgrind
    #[arg(long, value_name = "YES|NO", default_value = "no", require_equals = true)]
    pub running_on_valgrind: YesNo,

    /// Fill fresh memory with this byte (hexadecimal)
    #[arg(long, value_name = "HEX", require_equals = true, value_parser = hex_byte)]
    pub malloc_fill: Option<u8>,

    /// Fill freed memory with this byte (hexadecimal)
    #[arg(long, value_name = "HEX", require_equals = true, value_parser = hex_byte)]
    pub free_fill: Option<u8>,

    /// How many bytes of freed memory are kept from reuse
    #[arg(long, value_name = "BYTES", require_equals = true)]
    pub freelist_vol: Option<u64>,

    /// Read suppressions from this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    pub suppressions: Vec<PathBuf>,

    /// Use the suppressions that memcheck brings along
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub default_suppressions: YesNo,

    /// What suppressions that were never needed or have expired are: no matter (no), listed (list), errors (error)
    #[arg(long, value_name = "WHAT", default_value = "no", require_equals = true)]
    pub stale_suppressions: StaleFlag,

    /// Let only findings count that are not in this earlier JSON report
    #[arg(long, value_name = "FILE", require_equals = true)]
    pub baseline: Option<PathBuf>,

    /// Print a suppression with each finding: all, no
    #[arg(long, value_name = "WHICH", default_value = "no", require_equals = true)]
    pub gen_suppressions: GenSuppressions,

    /// Write the text report to this file: %p is the process id, %q{VAR} an environment variable, %n a number
    #[arg(long, value_name = "FILE", require_equals = true)]
    pub log_file: Option<OsString>,

    /// How findings are told while the program runs: text, or oneline for editors
    #[arg(long, value_name = "STYLE", default_value = "text", require_equals = true)]
    pub format: LogFormat,

    #[command(flatten)]
    pub reports: ReportFlags,

    /// Take options from this file, not from the nearest memcheck.toml; no: from none
    #[arg(long, value_name = "FILE|no", require_equals = true)]
    pub config: Option<PathBuf>,

    /// Use colour: auto, always, never
    #[arg(long, value_name = "WHEN", default_value = "auto", require_equals = true)]
    pub color: ColorFlag,

    /// Print what the heap did and how much code was checked
    #[arg(long)]
    pub stats: bool,

    /// Explain a kind of finding, such as double-free, and exit
    #[arg(long, value_name = "ID", require_equals = true)]
    pub explain: Option<String>,

    /// Translate functions when they are first called, or whole modules at once
    #[arg(long, value_name = "WHEN", default_value = "lazy", require_equals = true, hide = true)]
    pub translate: TranslateFlag,

    /// Fill dead registers and flags with garbage at each check
    #[arg(long, value_name = "YES|NO", default_value = "no", require_equals = true, hide = true)]
    pub stress: YesNo,

    /// How many low bits of a pointer the leak search takes for tags (0 to 4)
    #[arg(long, value_name = "N", default_value_t = 0, require_equals = true,
        value_parser = clap::value_parser!(u8).range(0..=4))]
    pub leak_tag_bits: u8,

    #[command(flatten)]
    pub rare: RareFlags,
}

/// `--track-fds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrackFdsFlag {
    Yes,
    All,
    No,
}

/// yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    Yes,
    No,
}

/// `--leak-check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeakCheckFlag {
    No,
    Summary,
    #[value(alias = "yes")]
    Full,
}

/// `--leak-resolution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResolutionFlag {
    Low,
    #[value(alias = "med")]
    Medium,
    High,
}

/// `--gen-suppressions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GenSuppressions {
    No,
    #[value(alias = "yes")]
    All,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Oneline,
}

/// `--stale-suppressions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StaleFlag {
    No,
    List,
    Error,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorFlag {
    Auto,
    Always,
    Never,
}

/// `--translate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TranslateFlag {
    Lazy,
    Eager,
}

/// A set of kinds of leaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(pub Vec<LeakKind>);

impl std::str::FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self(LeakKind::ALL.to_vec())),
            "none" => return Ok(Self(Vec::new())),
            _ => {}
        }
        let kind = |word: &str| {
            LeakKind::ALL.into_iter().find(|kind| kind.id() == word).ok_or_else(|| {
                format!(
                    "no kind of leak is called {word:?}: definite, indirect, possible, reachable, all or none"
                )
            })
        };
        text.split(',').map(kind).collect::<Result<_, _>>().map(Self)
    }
}

/// A set of leak heuristics, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heuristics(pub u8);

impl std::str::FromStr for Heuristics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const NAMES: [&str; 5] = ["stdstring", "length64", "newarray", "multipleinheritance", "pool"];
        match text {
            "all" => return Ok(Self(0b1_1111)),
            "none" => return Ok(Self(0)),
            _ => {}
        }
        text.split(',').try_fold(Self(0), |set, word| {
            let bit = NAMES.iter().position(|&name| name == word);
            let bit = bit.ok_or_else(|| {
                format!("no heuristic is called {word:?}: {}, all or none", NAMES.join(", "))
            })?;
            Ok(Self(set.0 | 1 << bit))
        })
    }
}

fn hex_byte(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| "expected a byte such as ab or 0xab".to_owned())
}

/// The launcher's arguments, without its own name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    /// The launcher's own options.
    pub options: Vec<OsString>,
    /// The program, or a verb, with its arguments.
    pub command: Vec<OsString>,
    /// Whether `--` said that the command is a program.
    pub is_program: bool,
}

/// Splits the launcher's arguments at the first that is no option.
pub fn split(arguments: Vec<OsString>) -> Split {
    let mut options = arguments;
    let is_option = |argument: &OsString| {
        let bytes = argument.as_encoded_bytes();
        bytes.len() > 1 && bytes[0] == b'-' && bytes != b"--"
    };
    // The one option whose value may be a word of its own: it needs no program.
    if let [first, second] = &options[..]
        && first == "--explain"
    {
        let mut joined = OsString::from("--explain=");
        joined.push(second);
        return Split { options: vec![joined], command: Vec::new(), is_program: false };
    }
    let at = options.iter().position(|argument| !is_option(argument)).unwrap_or(options.len());
    let mut command = options.split_off(at);
    let is_program = command.first().is_some_and(|first| first == "--");
    if is_program {
        command.remove(0);
    }
    Split { options, command, is_program }
}

impl Flags {
    /// The kinds of errors that are not wanted at all.
    pub fn hidden_kinds(&self) -> Vec<ErrorKind> {
        [
            (ErrorKind::AllocDeallocMismatch, self.show_mismatched_frees),
            (ErrorKind::ReallocZero, self.show_realloc_size_zero),
        ]
        .into_iter()
        .filter_map(|(kind, shown)| (shown == YesNo::No).then_some(kind))
        .collect()
    }

    /// What the shims are told.
    pub fn wire_options(&self) -> Options {
        let set = |kinds: &Kinds| kinds.0.iter().fold(0, |set, &kind| set | 1 << kind as u8);
        Options {
            access_checks: self.access_checks == YesNo::Yes,
            eager: self.translate == TranslateFlag::Eager,
            stress: self.stress == YesNo::Yes,
            trace_children: self.trace_children == YesNo::Yes,
            exit_on_first_error: self.exit_on_first_error == YesNo::Yes,
            error_exitcode: self.error_exitcode,
            num_callers: self.num_callers,
            leak_check: match self.leak_check {
                LeakCheckFlag::No => LeakCheck::No,
                LeakCheckFlag::Summary => LeakCheck::Summary,
                LeakCheckFlag::Full => LeakCheck::Full,
            },
            leak_resolution: match self.leak_resolution {
                ResolutionFlag::Low => LeakResolution::Low,
                ResolutionFlag::Medium => LeakResolution::Medium,
                ResolutionFlag::High => LeakResolution::High,
            },
            leak_kinds: set(&self.show_leak_kinds) | set(&self.errors_for_leak_kinds),
            leak_heuristics: self.leak_check_heuristics.0,
            leak_tag_bits: self.leak_tag_bits,
            quarantine_bytes: self.freelist_vol,
            malloc_fill: self.malloc_fill,
            free_fill: self.free_fill,
            realloc_zero_frees: self.realloc_zero_bytes_frees == YesNo::Yes,
            align_shift: self.rare.alignment.0,
            redzone_bytes: self.rare.redzone_size,
            running_on_valgrind: self.running_on_valgrind == YesNo::Yes,
            track_fds: match self.track_fds {
                TrackFdsFlag::No => TrackFds::No,
                TrackFdsFlag::Yes => TrackFds::Yes,
                TrackFdsFlag::All => TrackFds::All,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn options_after_the_program_are_its_own() {
        let split = split(words(&["-q", "--json=x", "ls", "-q", "--", "a"]));
        let (options, command) = (words(&["-q", "--json=x"]), words(&["ls", "-q", "--", "a"]));
        assert_eq!(split, Split { options, command, is_program: false });
    }

    #[test]
    fn a_finding_is_explained_after_a_space_too() {
        let options = words(&["--explain=bad-free"]);
        let expected = Split { options, command: Vec::new(), is_program: false };
        assert_eq!(split(words(&["--explain", "bad-free"])), expected);
    }

    #[test]
    fn two_dashes_end_the_options() {
        let split = split(words(&["-q", "--", "--prog", "-v"]));
        assert_eq!(
            split,
            Split { options: words(&["-q"]), command: words(&["--prog", "-v"]), is_program: true }
        );
    }

    #[test]
    fn the_definitions_agree_with_each_other() {
        use clap::CommandFactory;
        Flags::command().debug_assert();
    }

    #[test]
    fn kinds_are_lists_or_all_or_none() {
        assert_eq!("all".parse(), Ok(Kinds(LeakKind::ALL.to_vec())));
        assert_eq!("none".parse(), Ok(Kinds(Vec::new())));
        assert_eq!("possible,definite".parse(), Ok(Kinds(vec![LeakKind::Possible, LeakKind::Definite])));
        assert!("lost".parse::<Kinds>().is_err());
    }

    #[test]
    fn options_reach_the_shim() {
        let flags = Flags::parse_from([
            "memcheck",
            "--leak-check=no",
            "--num-callers=5",
            "--malloc-fill=0xab",
            "--access-checks=no",
            "--leak-check-heuristics=newarray,stdstring",
        ]);
        let options = flags.wire_options();
        assert_eq!((options.leak_check, options.num_callers), (LeakCheck::No, 5));
        assert_eq!((options.malloc_fill, options.access_checks), (Some(0xab), false));
        assert_eq!(options.leak_heuristics, 0b101);
    }
}
