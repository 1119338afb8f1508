//! How a program is run: natively or under one of the tools.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

/// A way to run a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// As it is.
    Native,
    /// Built with AddressSanitizer, or, where no build is to be had, with its library preloaded.
    Asan,
    /// Valgrind's memcheck.
    Valgrind,
    /// memcheck without access checks.
    Heap,
    /// memcheck.
    Full,
}

impl Tool {
    /// The column's title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Asan => "ASan",
            Self::Valgrind => "Valgrind",
            Self::Heap => "memcheck, heap alone",
            Self::Full => "memcheck",
        }
    }

    /// The command that runs `program` under this tool. Leaks are not searched for, by any of them.
    pub fn command(self, memcheck: &Path, program: &Path) -> Command {
        let mut command = match self {
            Self::Native | Self::Asan => return Command::new(program),
            Self::Valgrind => {
                let mut valgrind = Command::new("valgrind");
                valgrind.args(["-q", "--leak-check=no"]);
                valgrind
            }
            Self::Heap | Self::Full => {
                let mut command = Command::new(memcheck);
                command.args(["-q", "--leak-check=no"]);
                if self == Self::Heap {
                    command.arg("--access-checks=no");
                }
                command
            }
        };
        command.arg(program);
        command
    }

    /// The environment that the tool needs.
    pub fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Asan => &[("ASAN_OPTIONS", "detect_leaks=0")],
            _ => &[],
        }
    }
}
