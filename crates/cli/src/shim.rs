//! The shim as a file that the loader can preload: the launcher carries its bytes and unpacks them once for
//! each user and content.
//!
//! Invariants: the directory is the user's own and nobody else may write to it; the
//! file's content is compared on each start, so that a damaged one is replaced; a new file appears by rename.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, Read, Write},
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

/// The path of the shim with this content.
pub fn unpack(content: &[u8]) -> Result<PathBuf, NoPlace> {
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
        match unpack_to(&place, content) {
            Ok(path) => return Ok(path),
            Err(obstacle) => obstacles.push((place, obstacle)),
        }
    }
    Err(NoPlace(obstacles))
}

fn unpack_to(place: &Path, content: &[u8]) -> Result<PathBuf, Obstacle> {
    if place.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'\t' | b'\n' | b'$')) {
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
    let name = format!("libmemcheck_preload-{:016x}.so", digest(content));
    let path = place.join(&name);
    if holds(&path, content).unwrap_or(false) {
        return Ok(path);
    }
    let fresh = place.join(format!(".{name}.{}", std::process::id()));
    write_new(&fresh, content).and_then(|()| fs::rename(&fresh, &path)).map_err(|error| {
        let _ = fs::remove_file(&fresh);
        Obstacle::Io(error)
    })?;
    Ok(path)
}

/// Tells one content from another, at ten times the speed of the standard library's hasher: each start of memcheck asks.
/// Four sums, as each step waits for the multiplication of the one before.
fn digest(content: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| {
        let product = (sum ^ word).wrapping_mul(FACTOR);
        product ^ product >> 32
    };
    let (pieces, rest) = content.as_chunks::<32>();
    let mut sums = [1, 2, 3, 4];
    for piece in pieces {
        for (sum, word) in sums.iter_mut().zip(piece.as_chunks::<8>().0) {
            *sum = mix(*sum, u64::from_le_bytes(*word));
        }
    }
    let ends = rest.iter().map(|&byte| byte.into()).chain([content.len() as u64]);
    sums.into_iter().chain(ends).fold(0, mix)
}

/// Whether the file has just this content. Read in pieces: each start of memcheck does it.
fn holds(path: &Path, content: &[u8]) -> io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let mut piece = [0; 32 << 10];
    let mut rest = content;
    loop {
        let read = file.read(&mut piece)?;
        match rest.split_at_checked(read) {
            Some((_, [])) if read == 0 => return Ok(true),
            Some((expected, after)) if read != 0 && expected == &piece[..read] => rest = after,
            _ => return Ok(false),
        }
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

    #[test]
    fn a_damaged_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("memcheck");
        let path = unpack_to(&place, b"shim").unwrap();
        for damaged in [&b"junk"[..], b"shi", b"shimmer", b""] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(unpack_to(&place, b"shim").unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), b"shim");
        }
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    }

    #[test]
    fn contents_that_differ_in_a_bit_have_other_digests() {
        let content: Vec<u8> = (0..103u8).collect();
        let mut digests =
            vec![digest(&content), digest(&content[..102]), digest(&[&content[..], &[0]].concat())];
        for bit in 0..content.len() * 8 {
            let mut other = content.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            digests.push(digest(&other));
        }
        digests.sort_unstable();
        let count = digests.len();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn a_place_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("memcheck");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(unpack_to(&place, b"shim"), Err(Obstacle::Foreign)));
        let spaced = directory.path().join("a b");
        assert!(matches!(unpack_to(&spaced, b"shim"), Err(Obstacle::Separator)));
    }

    #[test]
    fn an_existing_preload_is_kept_after_ours() {
        let shim = Path::new("/a.so");
        assert_eq!(preload_value(shim, None), b"/a.so");
        assert_eq!(preload_value(shim, Some(OsStr::new(""))), b"/a.so");
        assert_eq!(preload_value(shim, Some(OsStr::new("/b.so /c.so"))), b"/a.so:/b.so /c.so");
    }
}
