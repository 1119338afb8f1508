//! Where reports go: file names with their patterns, files that appear whole or not at all.
//!
//! In: a pattern as typed. Out: a [`Destination`] that is known to be writable before the program starts, then
//! either a file to append to ([`Destination::open`]) or one whole content ([`Destination::write_whole`]).

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// Why nothing can be written there.
#[derive(Debug)]
pub enum DestinationError {
    /// The pattern has an unknown or unfinished `%`.
    Pattern(OsString),
    /// The pattern names a variable that is not set.
    Unset {
        /// The pattern.
        pattern: OsString,
        /// The variable.
        variable: OsString,
    },
    /// The kernel refused.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => {
                write!(f, "{}: expected %p, %n, %q{{VARIABLE}} or %% after each %", pattern.display())
            }
            Self::Unset { pattern, variable } => {
                write!(f, "{}: the variable {} is not set", pattern.display(), variable.display())
            }
            Self::Io { path, error } => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DestinationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A place for one report.
#[derive(Debug)]
pub struct Destination {
    pattern: OsString,
}

/// The file name that a pattern stands for: `%p` the program's process id, `%n` its number in the run (always 1:
/// a run is one report), `%q{VAR}` the variable's value, `%%` a per cent sign.
fn expand(
    pattern: &OsStr,
    pid: u32,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<PathBuf, DestinationError> {
    let bad = || DestinationError::Pattern(pattern.to_owned());
    let mut name = Vec::new();
    let mut rest = pattern.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let (&letter, after) = rest.split_first().ok_or_else(bad)?;
        rest = after;
        match letter {
            b'%' => name.push(b'%'),
            b'p' => name.extend_from_slice(pid.to_string().as_bytes()),
            b'n' => name.push(b'1'),
            b'q' => {
                let inner = rest.strip_prefix(b"{").ok_or_else(bad)?;
                let end = inner.iter().position(|&byte| byte == b'}').ok_or_else(bad)?;
                let wanted = OsStr::from_bytes(&inner[..end]);
                let value = variable(wanted).ok_or_else(|| DestinationError::Unset {
                    pattern: pattern.to_owned(),
                    variable: wanted.to_owned(),
                })?;
                name.extend_from_slice(value.as_bytes());
                rest = &inner[end + 1..];
            }
            _ => return Err(bad()),
        }
    }
    Ok(PathBuf::from(OsString::from_vec(name)))
}

impl Destination {
    /// The destination, after trying that a file can be written there. Leaves nothing behind.
    pub fn prepare(pattern: &OsStr) -> Result<Self, DestinationError> {
        let destination = Self { pattern: pattern.to_owned() };
        // The program's id is not known yet; any other number does to try.
        let path = destination.path(std::process::id())?;
        let failed = |error| DestinationError::Io { path: path.clone(), error };
        match fs::metadata(&path) {
            Ok(_) if is_open_already(&path) => return Ok(destination),
            Ok(metadata) if metadata.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            // A pipe or a device: opening it could wait for a reader or have effects.
            Ok(metadata) if !metadata.is_file() => return Ok(destination),
            Ok(_) => {
                OpenOptions::new().append(true).open(&path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let trial = beside(&path);
        OpenOptions::new().write(true).create_new(true).open(&trial).map_err(failed)?;
        let _ = fs::remove_file(&trial);
        Ok(destination)
    }

    fn path(&self, pid: u32) -> Result<PathBuf, DestinationError> {
        let path = expand(&self.pattern, pid, |name| std::env::var_os(name))?;
        if is_open_already(&path) {
            return Ok(path);
        }
        // Through symbolic links, so that not the link is replaced. The program may change the directory that a
        // relative path would start from; ours stays, but an absolute path also reads better in messages.
        Ok(fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).unwrap_or(path))
    }

    /// Whether each process has a file of its own.
    pub fn is_one_for_each_process(&self) -> bool {
        self.pattern.as_bytes().windows(2).any(|pair| pair == b"%p")
    }

    /// Opens the file, empty, for the run of the program with this id.
    pub fn open(&self, pid: u32) -> Result<File, DestinationError> {
        let path = self.path(pid)?;
        File::create(&path).map_err(|error| DestinationError::Io { path, error })
    }

    /// Writes the whole content: a reader finds the old file or the new one, never half of it.
    pub fn write_whole(&self, pid: u32, content: &[u8]) -> Result<(), DestinationError> {
        let path = self.path(pid)?;
        let failed = |error| DestinationError::Io { path: path.clone(), error };
        // Opened anew, a file would be written from its start, over what the streams wrote.
        match path.to_str() {
            Some("/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => {
                return io::stdout().write_all(content).map_err(failed);
            }
            Some("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => {
                return io::stderr().write_all(content).map_err(failed);
            }
            _ => {}
        }
        if is_open_already(&path) {
            let opened = OpenOptions::new().append(true).open(&path);
            return opened.and_then(|mut file| file.write_all(content)).map_err(failed);
        }
        if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return File::create(&path).and_then(|mut file| file.write_all(content)).map_err(failed);
        }
        let fresh = beside(&path);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&fresh)
            .and_then(|mut file| file.write_all(content))
            .and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|error| {
            let _ = fs::remove_file(&fresh);
            failed(error)
        })
    }
}

/// Whether the path leads to a descriptor of ours, such as /dev/stderr: what it holds already is kept.
fn is_open_already(path: &Path) -> bool {
    const DESCRIPTORS: [&str; 4] = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"];
    DESCRIPTORS.iter().any(|prefix| path.starts_with(prefix))
}

/// A hidden name in the same directory, so that a rename stays within the file system.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or(OsStr::new("memcheck")));
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(pattern: &str) -> Result<PathBuf, DestinationError> {
        expand(OsStr::new(pattern), 42, |name| (name == "JOB").then(|| "build 7".into()))
    }

    #[test]
    fn patterns_stand_for_process_variable_and_number() {
        assert_eq!(expanded("a.%p.log").unwrap(), Path::new("a.42.log"));
        assert_eq!(expanded("%q{JOB}-%n%%").unwrap(), Path::new("build 7-1%"));
        assert!(matches!(expanded("%q{NOPE}"), Err(DestinationError::Unset { .. })));
        for bad in ["%", "%x", "%q", "%qJOB", "%q{JOB"] {
            assert!(matches!(expanded(bad), Err(DestinationError::Pattern(_))), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).into_os_string();
        assert!(Destination::prepare(&at("missing/report")).is_err());
        assert!(Destination::prepare(directory.path().as_os_str()).is_err());
        assert!(Destination::prepare(&at("report")).is_ok());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_to_a_report_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("report"), "old").unwrap();
        std::os::unix::fs::symlink("report", at("link")).unwrap();
        Destination::prepare(at("link").as_os_str()).unwrap().write_whole(7, b"new").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read(at("report")).unwrap(), b"new");
    }

    #[test]
    fn a_whole_file_replaces_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report-%p");
        let destination = Destination::prepare(path.as_os_str()).unwrap();
        destination.write_whole(7, b"old").unwrap();
        destination.write_whole(7, b"new").unwrap();
        assert_eq!(fs::read(directory.path().join("report-7")).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
