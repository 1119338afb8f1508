//! `memcheck.toml`: the options of a project, so that every run in it is like every other.
//!
//! ```toml
//! leak-check = "full"                # options as on the command line, without their dashes
//! suppressions = ["ci/known.supp"]   # paths of what is read start from this file's folder
//! source-root = "."
//! stats = true
//! [path-map]                         # what debugging information calls a folder, and where it is
//! "/build/src" = "src"
//! ```
//!
//! In: the folder that memcheck is started in. Out: the [`Setting`]s of the nearest file above it, as words of a
//! command line that come before the user's own. Also `memcheck config`, which says what is in force and from where.
//!
//! Invariant: a file that somebody else can write is not read: it could name files to be overwritten.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, CommandFactory as _, parser::ValueSource};
use toml::de::{DeTable, DeValue};

use crate::flags::Flags;

/// The file's name.
const NAME: &str = "memcheck.toml";

/// Options whose value is a file or folder to be read.
const READ_PATHS: [&str; 3] = ["suppressions", "baseline", "source-root"];

/// The table of path maps, and the option for one of them.
const PATH_MAP: &str = "path-map";

/// One option that a file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's name, without dashes.
    name: String,
    /// As a word of the command line.
    word: OsString,
    /// Its line in the file.
    line: usize,
}

/// The settings of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where they stand; none when there is no file.
    file: Option<PathBuf>,
    settings: Vec<Setting>,
}

impl Config {
    /// The settings for a command line with these options: those of the file that `--config=` names, of none with
    /// `--config=no`, else of the nearest file above `folder`.
    pub fn find(options: &[OsString], folder: &Path) -> Result<Self, String> {
        let chosen = options.iter().rev().find_map(|option| {
            let bytes = option.as_encoded_bytes().strip_prefix(b"--config=")?;
            Some(PathBuf::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes)))
        });
        match chosen {
            Some(no) if no.as_os_str() == "no" => Ok(Self::default()),
            Some(file) => Self::read(&file),
            None => match folder.ancestors().map(|folder| folder.join(NAME)).find(|file| file.is_file()) {
                Some(file) if is_trusted(&file) => Self::read(&file),
                Some(file) => {
                    let file = file.display();
                    Err(format!(
                        "{file} can be changed by others: --config={file} reads it all the same, --config=no does without"
                    ))
                }
                None => Ok(Self::default()),
            },
        }
    }

    fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
        let settings = settings(&text, &folder_of(file))
            .and_then(|settings| check(&settings).map(|()| settings))
            .map_err(|(line, what)| format!("{shown}:{line}: {what}"))?;
        Ok(Self { file: Some(file.to_owned()), settings })
    }

    /// The settings as options, to stand before the user's.
    pub fn words(&self) -> impl Iterator<Item = OsString> + '_ {
        self.settings.iter().map(|setting| setting.word.clone())
    }

    /// Which options are in force, and who says so: a file of its own kind.
    pub fn describe(&self, options: &[OsString]) -> Result<String, clap::Error> {
        let words = std::iter::once(OsString::from("memcheck")).chain(self.words());
        let mut command = Flags::command();
        let matches = command.try_get_matches_from_mut(words.chain(options.iter().cloned()))?;
        let own = Flags::command().try_get_matches_from(
            std::iter::once(OsString::from("memcheck")).chain(options.iter().cloned()),
        )?;
        let mut text = match &self.file {
            Some(file) => format!("# {}\n", file.display()),
            None => format!("# no {NAME} here or above\n"),
        };
        let mut path_maps = String::new();
        let arguments: Vec<_> =
            command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect();
        for argument in arguments {
            let Some(name) = argument
                .get_long()
                .filter(|name| !matches!(*name, "help" | "version" | "explain" | "config"))
            else {
                continue;
            };
            let id = argument.get_id().as_str();
            let origin = self.origin(name, id, &own);
            let values = values(&matches, id);
            if name == PATH_MAP {
                for value in &values {
                    let (from, to) = value.split_once('=').unwrap_or((value, ""));
                    path_maps.push_str(&format!("{from:?} = {to:?}  # {origin}\n"));
                }
                continue;
            }
            let is_flag = !argument.get_action().takes_values();
            let is_list = matches!(argument.get_action(), clap::ArgAction::Append);
            text.push_str(&match &values[..] {
                [] => format!("# {name} is not set\n"),
                [_] if is_flag => format!(
                    "{name} = {}  # {origin}\n",
                    matches.get_raw(id).is_some() && values[0] != "false" && values[0] != "0"
                ),
                [value] if !is_list => format!("{name} = {value:?}  # {origin}\n"),
                values => format!("{name} = {values:?}  # {origin}\n"),
            });
        }
        if !path_maps.is_empty() {
            text.push_str(&format!("\n[{PATH_MAP}]\n{path_maps}"));
        }
        Ok(text)
    }

    /// Who sets the option.
    fn origin(&self, name: &str, id: &str, own: &ArgMatches) -> String {
        let settings = self.settings.iter().filter(|setting| setting.name == name);
        let lines: Vec<String> = settings.map(|setting| setting.line.to_string()).collect();
        let is_own = own.value_source(id) == Some(ValueSource::CommandLine);
        match (&lines[..], is_own) {
            ([], false) => "default".to_owned(),
            (_, true) if lines.is_empty() || !adds_up(name) => "command line".to_owned(),
            (_, true) => format!("line {}, command line", lines.join(", ")),
            (_, false) => format!("line {}", lines.join(", ")),
        }
    }
}

/// Whether the option may be given more than once.
fn adds_up(name: &str) -> bool {
    Flags::command().get_arguments().any(|argument| {
        argument.get_long() == Some(name) && matches!(argument.get_action(), clap::ArgAction::Append)
    })
}

fn values(matches: &ArgMatches, id: &str) -> Vec<String> {
    let raw = matches.get_raw(id).into_iter().flatten();
    raw.map(|value| value.to_string_lossy().into_owned()).collect()
}

fn folder_of(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Whether the file is the user's or root's, and nobody else may write to it.
fn is_trusted(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| {
        let owner = metadata.uid();
        (owner == 0 || owner == nix::unistd::geteuid().as_raw()) && metadata.mode() & 0o002 == 0
    })
}

/// A line and what is wrong there.
type Fault = (usize, String);

fn settings(text: &str, folder: &Path) -> Result<Vec<Setting>, Fault> {
    let line_at = |byte: usize| text.as_bytes().iter().take(byte).filter(|&&byte| byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        (line_at(error.span().map_or(0, |span| span.start)), error.message().replace('\n', ", "))
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let (name, line) = (key.get_ref().as_ref(), line_at(key.span().start));
        let fault = |what: &str| (line, format!("{name}: {what}"));
        if name == PATH_MAP {
            let DeValue::Table(maps) = value.get_ref() else {
                return Err(fault("expected a table of folders"));
            };
            for (from, to) in maps {
                let to = to.get_ref().as_str().ok_or_else(|| fault("expected a folder for each folder"))?;
                let mut word = OsString::from(format!("--{PATH_MAP}={}=", from.get_ref()));
                word.push(folder.join(to));
                let line = line_at(from.span().start);
                settings.push(Setting { name: PATH_MAP.to_owned(), word, line });
            }
            continue;
        }
        let mut values = Vec::new();
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items {
                    values.push(
                        scalar(item.get_ref())
                            .ok_or_else(|| fault("expected texts or numbers in the list"))?,
                    );
                }
                if !adds_up(name) {
                    values = vec![values.join(",")];
                }
            }
            value => values.push(
                scalar(value).ok_or_else(|| fault("expected a text, a number, true, false or a list"))?,
            ),
        }
        for value in values {
            if let Some(word) = word(name, &value, folder) {
                settings.push(Setting { name: name.to_owned(), word, line });
            }
        }
    }
    settings.sort_by_key(|setting| setting.line);
    Ok(settings)
}

/// A value as it stands on the command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(is_so) => Some(if *is_so { "yes" } else { "no" }.to_owned()),
        _ => None,
    }
}

/// The option; none for one that is switched off.
fn word(name: &str, value: &str, folder: &Path) -> Option<OsString> {
    let command: Command = Flags::command();
    let known = command.get_arguments().find(|argument| argument.get_long() == Some(name));
    if known.is_some_and(|argument| !argument.get_action().takes_values()) {
        return (value == "yes").then(|| format!("--{name}").into());
    }
    let mut word = OsString::from(format!("--{name}="));
    if READ_PATHS.contains(&name) {
        word.push(folder.join(value));
    } else {
        word.push(value);
    }
    Some(word)
}

/// Whether each setting is an option with a value that it takes.
fn check(settings: &[Setting]) -> Result<(), Fault> {
    for setting in settings {
        let words = [OsString::from("memcheck"), setting.word.clone()];
        if let Err(error) = Flags::command().try_get_matches_from(words) {
            let text = error.to_string();
            let what = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
            let what: Vec<&str> = what.filter(|line| !line.is_empty()).collect();
            return Err((setting.line, what.join("; ").trim_start_matches("error: ").to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, Fault> {
        let settings = settings(text, Path::new("/p"))?;
        check(&settings)?;
        Ok(settings.into_iter().map(|setting| setting.word.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn settings_become_options_in_their_order() {
        let text = "num-callers = 40\nstats = true\nquiet = false\naccess-checks = false\n\
            show-leak-kinds = [\"definite\", \"reachable\"]\nsuppressions = [\"a.supp\", \"/b.supp\"]\n\
            [path-map]\n\"/build\" = \"src\"\n";
        assert_eq!(
            words(text).unwrap(),
            [
                "--num-callers=40",
                "--stats",
                "--access-checks=no",
                "--show-leak-kinds=definite,reachable",
                "--suppressions=/p/a.supp",
                "--suppressions=/b.supp",
                "--path-map=/build=/p/src",
            ]
        );
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, line, what) in [
            ("\nleak-chek = \"full\"\n", 2, "--leak-check"),
            ("num-callers = 0\n", 1, "num-callers"),
            ("quiet = true\nnum-callers = {}\n", 2, "expected a text"),
            ("quiet = \n", 1, ""),
            ("path-map = 3\n", 1, "table"),
        ] {
            let (at, why) = words(text).unwrap_err();
            assert!(at == line && why.contains(what), "{text}: {at}: {why}");
        }
    }

    #[test]
    fn the_nearest_file_counts_and_says_where_an_option_comes_from() {
        let scratch = tempfile::tempdir().unwrap();
        let inner = scratch.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(
            scratch.path().join(NAME),
            "num-callers = 7\nsuppressions = \"x\"\n[path-map]\n\"/o\" = \"n\"\n",
        )
        .unwrap();
        let found = Config::find(&[], &inner).unwrap();
        let given = ["--num-callers=9".into(), "--suppressions=y".into(), "--stats".into()];
        let text = found.describe(&given).unwrap();
        for line in [
            "num-callers = \"9\"  # command line",
            "# line 2, command line",
            "stats = true  # command line",
            "quiet = false  # default",
            "access-checks = \"yes\"  # default",
            "# baseline is not set",
            "  # line 4",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(settings(&text, Path::new("/")).is_ok(), "{text}");
        assert_eq!(Config::find(&["--config=no".into()], &inner), Ok(Config::default()));
        fs::write(scratch.path().join("a").join(NAME), "").unwrap();
        assert_eq!(Config::find(&[], &inner).unwrap().words().count(), 0);
    }

    #[test]
    fn a_file_that_others_can_change_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join(NAME);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Config::find(&[], scratch.path()).unwrap_err().contains("--config="));
    }
}
