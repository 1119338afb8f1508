//! The Valgrind personality: Valgrind's options, its configuration and its text, for those who switch by one word.
//!
//! In force when memcheck is started by a name that contains `valgrind`, or with `--compat=valgrind`. In: Valgrind's
//! options. Out: [`Flags`], which do the work, and [`Manner`], how the text looks ([`ValgrindLog`]).
//!
//! Invariant: `VALGRIND_OPTS` and `.valgrindrc` are read here and nowhere else.

mod log;
mod options;
mod wording;

pub use log::{ValgrindLog, connect, open_sink};
pub use options::{Parsed, parse};

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::flags::Flags;

/// The version that the options and the text are those of. Programs that start Valgrind look for it.
const VERSION: &str = "3.19.0";

/// Where the text goes when it is not standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard error, or the log file.
    Default,
    /// An open descriptor.
    Descriptor(i32),
    /// Somebody who listens at this address.
    Socket(String),
}

/// How Valgrind's text is to look.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Where it goes.
    pub sink: Sink,
    /// Lines before and after each error.
    pub markers: Option<(String, String)>,
    /// Whether lines begin with the time since the start.
    pub time_stamp: bool,
    /// What is cut from the front of full paths; no prefix at all: base names only.
    pub full_paths: Vec<String>,
    /// Whether XML takes the place of the text.
    pub is_xml: bool,
    /// Who listens for the XML, if somebody does.
    pub xml_socket: Option<String>,
    /// Options that were given and do nothing here.
    pub without_effect: Vec<String>,
}

/// A command line in Valgrind's manner.
pub struct Request {
    /// What is done.
    pub flags: Flags,
    /// How it is told.
    pub manner: Manner,
}

/// Whether this name means Valgrind.
pub fn is_name(name: &OsStr) -> bool {
    let base = Path::new(name).file_name().unwrap_or_default();
    base.as_bytes().windows(8).any(|window| window == b"valgrind")
}

/// The options that files and the environment give: those of `~/.valgrindrc`, then `VALGRIND_OPTS`, then
/// `./.valgrindrc`; later ones win.
pub fn configured() -> Vec<OsString> {
    let mut words = Vec::new();
    if let Some(home) = std::env::var_os("HOME") {
        words.extend(words_of_file(&PathBuf::from(home).join(".valgrindrc")));
    }
    if let Some(variable) = std::env::var_os("VALGRIND_OPTS") {
        words.extend(words_of(&variable.to_string_lossy()));
    }
    if !is_in_home() {
        words.extend(words_of_file(Path::new(".valgrindrc")));
    }
    words
}

/// Whether the working directory is the home directory, whose file was read already.
fn is_in_home() -> bool {
    let home = std::env::var_os("HOME").and_then(|home| std::fs::canonicalize(home).ok());
    home.is_some() && home == std::env::current_dir().ok()
}

/// The words of a file that is ours alone: what others can write would be run with our rights.
fn words_of_file(path: &Path) -> Vec<OsString> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return Vec::new() };
    let is_ours = metadata.is_file()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o002 == 0;
    if !is_ours {
        return Vec::new();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(words_of).collect()
}

/// The options in a text: words, those for another tool (`--massif:…`) left out.
fn words_of(text: &str) -> Vec<OsString> {
    let word = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        match name.trim_start_matches('-').split_once(':') {
            Some(("memcheck", _)) => Some(format!("--{}", &word[word.find(':')? + 1..])),
            Some(_) => None,
            None => Some(word.to_owned()),
        }
    };
    text.split_whitespace().filter_map(word).map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_contains_valgrind_means_it() {
        for name in ["valgrind", "/opt/bin/my-valgrind.sh", "valgrind-memcheck"] {
            assert!(is_name(OsStr::new(name)), "{name}");
        }
        for name in ["memcheck", "/opt/valgrind/memcheck", ""] {
            assert!(!is_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn options_for_other_tools_are_left_out() {
        let words = words_of(" --memcheck:leak-check=full --massif:depth=3\n-q --log-socket=127.0.0.1:1500 ");
        assert_eq!(words, ["--leak-check=full", "-q", "--log-socket=127.0.0.1:1500"]);
    }
}
