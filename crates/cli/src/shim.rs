//! The shim as a file that the loader can preload: the launcher carries its bytes and unpacks them once for
//! each user and content.
//!
//! Invariants: the directory is the user's own and nobody else may write to it; the
//! file's content is compared on each start, so that a damaged one is replaced; a new file appears by rename.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::geteuid,
};

use crate::os;

/// Names a shim to use instead of the embedded one; for the project's own tests.
const OVERRIDE_VARIABLE: &str = "MEMCHECK_SHIM";

/// Others may read and execute, not write: a file that only its owner may change.
const PLACE_MODE: u32 = 0o755;

/// Why there is no place for the shim.
#[derive(Debug)]
pub struct NoPlace(Vec<(PathBuf, Obstacle)>);

/// What is wrong with one place.
#[derive(Debug)]
enum Obstacle {
    /// It cannot be made or written.
    Io(io::Error),
    /// It belongs to another user, or others may write to it.
    Foreign,
    /// Nothing there may be executed.
    NoExec,
    /// The loader would take its name for two.
    Separator,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found no directory to unpack the checker to")?;
        for (path, obstacle) in &self.0 {
            write!(f, "; {}: ", path.display())?;
            match obstacle {
                Obstacle::Io(error) => write!(f, "{error}")?,
                Obstacle::Foreign => write!(f, "belongs to somebody else or is open to others")?,
                Obstacle::NoExec => write!(f, "is mounted noexec")?,
                Obstacle::Separator => write!(f, "has a space or a colon in its name")?,
            }
        }
        write!(f, "; set XDG_CACHE_HOME to a directory of yours")
    }
}

impl std::error::Error for NoPlace {}

/// The shim.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shim {
    /// The shared object's bytes.
    pub content: &'static [u8],
    /// Tells it from others, in letters that a file name may have.
    pub digest: &'static str,
}

impl Shim {
    /// The path of a file with this content.
    pub(crate) fn unpack(self) -> Result<PathBuf, NoPlace> {
        if let Some(path) = std::env::var_os(OVERRIDE_VARIABLE) {
            return Ok(path.into());
        }
        let variable = |name| std::env::var_os(name).filter(|value| Path::new(value).is_absolute());
        // A program that root starts may give up its rights and execute others: they must still find the shim.
        let system = geteuid().is_root().then(|| PathBuf::from("/var/cache/memcheck"));
        let places = [
            system,
            variable("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("memcheck")),
            variable("HOME").map(|home| Path::new(&home).join(".cache/memcheck")),
            Some(std::env::temp_dir().join(format!("memcheck-{}", geteuid()))),
        ];
        let mut obstacles = Vec::new();
        for place in places.into_iter().flatten() {
            match self.unpack_to(&place) {
                Ok(path) => return Ok(path),
                Err(obstacle) => obstacles.push((place, obstacle)),
            }
        }
        Err(NoPlace(obstacles))
    }

    fn unpack_to(self, place: &Path) -> Result<PathBuf, Obstacle> {
        if place.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'\t' | b'\n' | b'$'))
        {
            return Err(Obstacle::Separator);
        }
        fs::DirBuilder::new().recursive(true).mode(PLACE_MODE).create(place).map_err(Obstacle::Io)?;
        let metadata = fs::symlink_metadata(place).map_err(Obstacle::Io)?;
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(Obstacle::Foreign);
        }
        if statvfs(place).is_ok_and(|info| info.flags().contains(FsFlags::ST_NOEXEC)) {
            return Err(Obstacle::NoExec);
        }
        let name = format!("libmemcheck_preload-{}.so", self.digest);
        let path = place.join(&name);
        if os::holds(&path, self.content).unwrap_or(false) {
            return Ok(path);
        }
        let fresh = place.join(format!(".{name}.{}", std::process::id()));
        write_new(&fresh, self.content).and_then(|()| fs::rename(&fresh, &path)).map_err(|error| {
            let _ = fs::remove_file(&fresh);
            Obstacle::Io(error)
        })?;
        Ok(path)
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(PLACE_MODE).open(path)?;
    file.write_all(content)
}

/// `LD_PRELOAD`'s value: the shim first, then what was there.
pub fn preload_value(shim: &Path, existing: Option<&OsStr>) -> Vec<u8> {
    let mut value = shim.as_os_str().as_bytes().to_vec();
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        value.push(b':');
        value.extend_from_slice(existing.as_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SHIM: Shim = Shim { content: b"shim", digest: "0123" };

    #[test]
    fn a_damaged_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("memcheck");
        let path = SHIM.unpack_to(&place).unwrap();
        for damaged in [&b"junk"[..], b"shi", b"shimmer", b""] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(SHIM.unpack_to(&place).unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), b"shim");
        }
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("memcheck");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(SHIM.unpack_to(&place), Err(Obstacle::Foreign)));
        let spaced = directory.path().join("a b");
        assert!(matches!(SHIM.unpack_to(&spaced), Err(Obstacle::Separator)));
    }

    #[test]
    fn an_existing_preload_is_kept_after_ours() {
        let shim = Path::new("/a.so");
        assert_eq!(preload_value(shim, None), b"/a.so");
        assert_eq!(preload_value(shim, Some(OsStr::new(""))), b"/a.so");
        assert_eq!(preload_value(shim, Some(OsStr::new("/b.so /c.so"))), b"/a.so:/b.so /c.so");
    }
}
