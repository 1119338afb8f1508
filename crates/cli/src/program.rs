//! Which program is to be run: found as a shell would find it, and looked at before it runs, so that what
//! cannot be watched is refused with a reason.
//!
//! In: the command as typed. Out: [`Program`] with what to execute, or [`Refusal`] with the exit status. Reads
//! files; starts nothing.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use crate::elf::{self, ElfRefusal};

/// How deep scripts may nest: the kernel's limit (`fs/exec.c`).
const MAX_SCRIPTS: usize = 5;
/// How much of a script's first line the kernel reads (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE_BYTES: usize = 256;

/// What is to be executed.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The file for execve.
    pub path: PathBuf,
    /// Its arguments, the name first.
    pub arguments: Vec<OsString>,
}

/// Why the program is not run.
#[derive(Debug)]
pub enum Refusal {
    /// There is no such program.
    NotFound(OsString),
    /// There is, but it cannot be run or not be watched.
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
}

/// Why a file cannot be run under the tool.
#[derive(Debug)]
pub enum Reason {
    /// It is a directory.
    Directory,
    /// It is neither file nor directory.
    Special,
    /// It may not be executed.
    NotExecutable,
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// The kernel would give it other rights than ours.
    SetId(&'static str),
    /// The interpreter that its first line names does not exist.
    NoInterpreter(PathBuf),
    /// Its interpreter cannot be run.
    BadInterpreter(Box<Refusal>),
    /// Scripts that interpret each other.
    TooManyScripts,
    /// It is neither ELF nor script.
    Unknown,
    /// It has no byte.
    Empty,
    /// It is an ELF file that cannot be watched.
    Elf(ElfRefusal),
}

impl Refusal {
    /// The launcher's exit status for it, as shells use them.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::Unfit { .. } => 126,
        }
    }

    /// What to do about it, where the reason does not say.
    pub fn advice(&self) -> &'static str {
        let Self::Unfit { reason, .. } = self else { return "check the name, and PATH" };
        match reason {
            Reason::NotExecutable => "chmod +x",
            Reason::Unreadable(_) => "make the file readable for you",
            Reason::SetId(_) => "cp the program elsewhere and check the copy",
            Reason::NoInterpreter(_) => "install the interpreter, or name another in the first line",
            Reason::Elf(ElfRefusal::Static) => {
                "link it without -static; Valgrind itself can look at it as it is"
            }
            Reason::Elf(ElfRefusal::Bits32) => "build it for x86-64, without -m32",
            Reason::Elf(ElfRefusal::Musl) => "build it against glibc for the check",
            Reason::Elf(ElfRefusal::Sanitized(_)) => "build it without -fsanitize=",
            Reason::Elf(ElfRefusal::NoLoader(_)) => "install the C library that it was built for",
            _ => "",
        }
    }

    fn unfit(path: &Path, reason: Reason) -> Self {
        Self::Unfit { path: path.to_owned(), reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(name) => write!(f, "{}: not found", name.display()),
            Self::Unfit { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => write!(f, "is a directory"),
            Self::Special => write!(f, "is not a regular file"),
            Self::NotExecutable => write!(f, "permission to execute it is missing"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::SetId(what) => write!(
                f,
                "has {what}: the loader ignores the checker in such programs; check a copy without it"
            ),
            Self::NoInterpreter(path) => write!(f, "its interpreter {} does not exist", path.display()),
            Self::BadInterpreter(refusal) => write!(f, "its interpreter cannot be checked: {refusal}"),
            Self::TooManyScripts => write!(f, "scripts interpret scripts more than {MAX_SCRIPTS} deep"),
            Self::Unknown => write!(f, "is neither an ELF executable nor a script"),
            Self::Empty => write!(f, "is empty"),
            Self::Elf(refusal) => write!(f, "{refusal}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Finds and checks the program of a command. `search` is the value of PATH.
pub fn find(command: &[OsString], search: Option<&OsStr>) -> Result<Program, Refusal> {
    let Some(name) = command.first() else { return Err(Refusal::NotFound(OsString::new())) };
    let path = locate(name, search)?;
    let is_plain_text = check(&path, MAX_SCRIPTS)?;
    if is_plain_text {
        // What the kernel does not know, a shell runs itself (POSIX, "Command Search and Execution", 1.e.i.b).
        let shell = PathBuf::from("/bin/sh");
        check(&shell, 1)?;
        let mut arguments = vec![shell.clone().into_os_string(), path.into_os_string()];
        arguments.extend_from_slice(&command[1..]);
        return Ok(Program { path: shell, arguments });
    }
    Ok(Program { path, arguments: command.to_vec() })
}

/// The file that a shell would execute for `name`.
pub fn locate(name: &OsStr, search: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    let not_found = || Refusal::NotFound(name.to_owned());
    if name.is_empty() {
        return Err(not_found());
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_found()),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Err(not_found()),
            Err(error) => Err(Refusal::unfit(&path, Reason::Unreadable(error))),
        };
    }
    let search = search.unwrap_or(OsStr::new("/bin:/usr/bin"));
    let mut unfit = None;
    for directory in search.as_bytes().split(|&byte| byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let path = Path::new(OsStr::from_bytes(directory)).join(name);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_file() && access(&path, AccessFlags::X_OK).is_ok() {
            return Ok(path);
        }
        let reason = if metadata.is_dir() { Reason::Directory } else { Reason::NotExecutable };
        unfit.get_or_insert(Refusal::unfit(&path, reason));
    }
    Err(unfit.unwrap_or_else(not_found))
}

/// Checks that the file can be run and watched; says whether it is text that names no interpreter.
fn check(path: &Path, scripts_left: usize) -> Result<bool, Refusal> {
    let refuse = |reason| Err(Refusal::unfit(path, reason));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return refuse(Reason::Unreadable(error)),
    };
    if metadata.is_dir() {
        return refuse(Reason::Directory);
    }
    if !metadata.is_file() {
        return refuse(Reason::Special);
    }
    if access(path, AccessFlags::X_OK).is_err() {
        return refuse(Reason::NotExecutable);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return refuse(Reason::Unreadable(error)),
    };
    let mut line = Vec::new();
    if let Err(error) = (&file).take(SCRIPT_LINE_BYTES as u64).read_to_end(&mut line) {
        return refuse(Reason::Unreadable(error));
    }
    if line.is_empty() {
        return refuse(Reason::Empty);
    }
    if line.starts_with(b"#!") {
        let Some(interpreter) = interpreter_of(&line) else { return refuse(Reason::Unknown) };
        if scripts_left == 0 {
            return refuse(Reason::TooManyScripts);
        }
        if fs::metadata(&interpreter).is_err() {
            return refuse(Reason::NoInterpreter(interpreter));
        }
        return match check(&interpreter, scripts_left - 1) {
            Ok(_) => Ok(false),
            Err(refusal) => refuse(Reason::BadInterpreter(Box::new(refusal))),
        };
    }
    if !line.starts_with(b"\x7fELF") {
        return if line.contains(&0) { refuse(Reason::Unknown) } else { Ok(true) };
    }
    if metadata.mode() & 0o4000 != 0 {
        return refuse(Reason::SetId("the setuid bit"));
    }
    // Without the group's execute bit, setgid once meant mandatory locking and changes no rights.
    if metadata.mode() & 0o2010 == 0o2010 {
        return refuse(Reason::SetId("the setgid bit"));
    }
    if crate::os::capabilities_of(path) {
        return refuse(Reason::SetId("file capabilities"));
    }
    elf::check(&file, metadata.len()).map_err(|refusal| Refusal::unfit(path, Reason::Elf(refusal)))?;
    Ok(false)
}

/// The interpreter that a script's first line names.
fn interpreter_of(line: &[u8]) -> Option<PathBuf> {
    let line = line.strip_prefix(b"#!")?;
    let line = line.split(|&byte| byte == b'\n').next()?;
    let name = line.split(|&byte| byte == b' ' || byte == b'\t').find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(directory: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn refusal(path: &Path) -> Refusal {
        find(&[path.as_os_str().to_owned()], None).unwrap_err()
    }

    #[test]
    fn interpreters_are_read_as_the_kernel_reads_them() {
        assert_eq!(interpreter_of(b"#!/bin/sh\n"), Some("/bin/sh".into()));
        assert_eq!(interpreter_of(b"#! \t/usr/bin/env -S x\nrest"), Some("/usr/bin/env".into()));
        assert_eq!(interpreter_of(b"#! \n/bin/sh"), None);
    }

    #[test]
    fn the_search_path_is_walked_as_a_shell_walks_it() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1"), directory.path().join("2"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        file(&first, "tool", b"#!/bin/sh\n", 0o644);
        let good = file(&second, "tool", b"#!/bin/sh\n", 0o755);
        let search = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(find(&["tool".into()], Some(&search)).unwrap().path, good);
        assert_eq!(find(&["tool".into()], Some(first.as_os_str())).unwrap_err().status(), 126);
        assert_eq!(find(&["no-such-tool".into()], Some(&search)).unwrap_err().status(), 127);
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert!(matches!(refusal(&at.join("missing")), Refusal::NotFound(_)));
        assert!(matches!(refusal(at), Refusal::Unfit { reason: Reason::Directory, .. }));
        let plain = file(at, "plain", b"x", 0o644);
        assert!(matches!(refusal(&plain), Refusal::Unfit { reason: Reason::NotExecutable, .. }));
        let empty = file(at, "empty", b"", 0o755);
        assert!(matches!(refusal(&empty), Refusal::Unfit { reason: Reason::Empty, .. }));
        let lost = file(at, "lost", b"#!/no/such/shell\n", 0o755);
        assert!(matches!(refusal(&lost), Refusal::Unfit { reason: Reason::NoInterpreter(_), .. }));
        let data = file(at, "data", b"\x01\x00\x02", 0o755);
        assert!(matches!(refusal(&data), Refusal::Unfit { reason: Reason::Unknown, .. }));
        let itself = at.join("itself");
        let itself = file(at, "itself", format!("#!{}\n", itself.display()).as_bytes(), 0o755);
        assert!(refusal(&itself).to_string().contains("scripts interpret scripts"));
    }

    #[test]
    fn text_without_an_interpreter_is_run_by_the_shell() {
        let directory = tempfile::tempdir().unwrap();
        let script = file(directory.path(), "script", b"echo hello\n", 0o755);
        let program = find(&[script.clone().into(), "x".into()], None).unwrap();
        assert_eq!(program.path, Path::new("/bin/sh"));
        assert_eq!(program.arguments, ["/bin/sh".into(), script.into_os_string(), "x".into()]);
    }
}
