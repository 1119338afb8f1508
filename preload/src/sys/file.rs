//! Reading small files and mapping a shared one, without leaving a descriptor open.

use memcheck_model::Addr;

use super::{Errno, syscall};

const SYS_READ: i64 = 0;
const SYS_WRITE: i64 = 1;
const SYS_CLOSE: i64 = 3;
const SYS_MMAP: i64 = 9;
const SYS_MUNMAP: i64 = 11;
const SYS_PREAD64: i64 = 17;
const SYS_FCNTL: i64 = 72;
const F_DUPFD_CLOEXEC: u64 = 1030;
const O_NONBLOCK: u64 = 0o4000;
const SYS_MADVISE: i64 = 28;
const SYS_OPENAT: i64 = 257;
const AT_FDCWD: u64 = -100i64 as u64;
const O_RDWR: u64 = 2;
const O_CLOEXEC: u64 = 0o2_000_000;
const PROT_READ_WRITE: u64 = 3;
const MAP_SHARED: u64 = 1;
const MADV_WIPEONFORK: u64 = 18;
const MADV_DONTDUMP: u64 = 16;

/// An open file; closed when dropped.
pub struct File(u64);

impl File {
    /// Opens the file at `path`, which ends in a zero byte.
    pub fn open(path: &[u8], writable: bool) -> Result<Self, Errno> {
        if path.last() != Some(&0) {
            return Err(Errno(22));
        }
        let flags = O_CLOEXEC | if writable { O_RDWR } else { 0 };
        // SAFETY: the path is a zero-terminated string that the caller keeps alive.
        unsafe { syscall(SYS_OPENAT, [AT_FDCWD, path.as_ptr() as u64, flags, 0, 0, 0]) }.map(Self)
    }

    /// Opens the file at a path of the target's, relative to a directory of the target's, for reading.
    ///
    /// # Safety
    /// `path` is what open(2) takes.
    pub unsafe fn open_at(directory: i32, path: u64) -> Result<Self, Errno> {
        // SAFETY: the kernel checks the pointer; the caller answers for the string.
        unsafe { syscall(SYS_OPENAT, [directory as u64, path, O_CLOEXEC | O_NONBLOCK, 0, 0, 0]) }.map(Self)
    }

    /// Another descriptor of a file that the target has open.
    pub fn duplicate(descriptor: i32) -> Result<Self, Errno> {
        // SAFETY: F_DUPFD_CLOEXEC makes a descriptor of our own.
        unsafe { syscall(SYS_FCNTL, [descriptor as u64, F_DUPFD_CLOEXEC, 0, 0, 0, 0]) }.map(Self)
    }

    /// Reads up to `into.len()` bytes from `offset` on.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let args = [self.0, into.as_mut_ptr() as u64, into.len() as u64, offset, 0, 0];
        // SAFETY: the kernel writes to `into` only.
        unsafe { syscall(SYS_PREAD64, args) }.map(|bytes| bytes as usize)
    }

    /// Reads up to `into.len()` bytes.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the kernel writes to `into` only.
        let read =
            unsafe { syscall(SYS_READ, [self.0, into.as_mut_ptr() as u64, into.len() as u64, 0, 0, 0]) };
        read.map(|bytes| bytes as usize)
    }

    /// Its descriptor.
    pub fn number(&self) -> i32 {
        self.0 as i32
    }

    /// Shows the name of every entry of a directory; false when it cannot be read.
    pub fn for_each_entry(&self, mut visit: impl FnMut(&[u8])) -> bool {
        let mut buffer = [0u8; 4096];
        loop {
            let len = match self.read_directory(&mut buffer) {
                Ok(0) => return true,
                Ok(len) => len,
                Err(_) => return false,
            };
            // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name.
            let mut entries = &buffer[..len];
            while let Some(&[low, high]) = entries.get(16..18) {
                let entry_len = usize::from(u16::from_le_bytes([low, high])).max(19);
                let (entry, rest) = entries.split_at(entry_len.min(entries.len()));
                visit(entry[19..].split(|&byte| byte == 0).next().unwrap_or_default());
                entries = rest;
            }
        }
    }

    /// Reads entries of a directory as getdents64(2) gives them; none at the end.
    fn read_directory(&self, into: &mut [u8]) -> Result<usize, Errno> {
        const SYS_GETDENTS64: i64 = 217;
        let args = [self.0, into.as_mut_ptr() as u64, into.len() as u64, 0, 0, 0];
        // SAFETY: the kernel writes to `into` only.
        unsafe { syscall(SYS_GETDENTS64, args) }.map(|bytes| bytes as usize)
    }

    /// Maps the file's first `len` bytes, shared and writable, where the kernel likes.
    pub fn map_shared(&self, len: usize) -> Result<*mut u8, Errno> {
        let args = [super::far_place(len as u64), len as u64, PROT_READ_WRITE, MAP_SHARED, self.0, 0];
        // SAFETY: a new mapping where nothing is touches no existing memory.
        let addr = unsafe { syscall(SYS_MMAP, args) }?;
        super::owned::note(addr, len as u64);
        // SAFETY: advice on the mapping just made: no core dump holds it.
        let _ = unsafe { syscall(SYS_MADVISE, [addr, len as u64, MADV_DONTDUMP, 0, 0, 0]) };
        Ok(addr as *mut u8)
    }

    /// Its device and inode.
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        self.status().map(|stat| (stat[0], stat[1]))
    }

    /// The user whose it is.
    pub fn owner(&self) -> Result<u32, Errno> {
        self.status().map(|stat| (stat[3] >> 32) as u32)
    }

    /// `struct stat`: 144 bytes, which begin with st_dev, st_ino, st_nlink, st_mode and st_uid (stat(2), x86-64).
    fn status(&self) -> Result<[u64; 18], Errno> {
        const SYS_FSTAT: i64 = 5;
        let mut stat = [0u64; 18];
        // SAFETY: the kernel writes to `stat` only.
        unsafe { syscall(SYS_FSTAT, [self.0, stat.as_mut_ptr() as u64, 0, 0, 0, 0]) }?;
        Ok(stat)
    }

    /// Maps `len` bytes from `offset`, a multiple of the page size, for reading, where the kernel likes.
    pub fn map_readable(&self, offset: u64, len: u64) -> Result<Addr, Errno> {
        const PROT_READ: u64 = 1;
        const MAP_PRIVATE: u64 = 2;
        const MAP_POPULATE: u64 = 0x8000;
        let args = [super::far_place(len), len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, self.0, offset];
        // SAFETY: a new mapping where nothing is touches no existing memory.
        let at = unsafe { syscall(SYS_MMAP, args) }?;
        super::owned::note(at, len);
        Ok(Addr(at))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours and is not used again.
        let _ = unsafe { syscall(SYS_CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// Writes what the link at `path`, which ends in a zero byte, leads to, and returns how long that is; zero when it
/// cannot be had.
pub fn read_link(path: &[u8], into: &mut [u8]) -> usize {
    const SYS_READLINK: i64 = 89;
    if path.last() != Some(&0) {
        return 0;
    }
    let args = [path.as_ptr() as u64, into.as_mut_ptr() as u64, into.len() as u64, 0, 0, 0];
    // SAFETY: the path is a zero-terminated string; the kernel writes to `into` only.
    unsafe { syscall(SYS_READLINK, args) }.unwrap_or(0) as usize
}

/// A fresh page that a forked child finds zeroed, or `None` before Linux 4.14.
pub fn map_page_wiped_on_fork() -> Option<*mut u8> {
    let page = super::map_anonymous(4096)?;
    // SAFETY: advice on the page just mapped.
    unsafe { syscall(SYS_MADVISE, [page as u64, 4096, MADV_WIPEONFORK, 0, 0, 0]) }.ok()?;
    Some(page)
}

/// Gives back a mapping of the shim's own, or nothing when `len` is zero.
pub fn unmap(addr: u64, len: usize) {
    if len > 0 {
        super::owned::forget(addr);
        // SAFETY: the caller made the mapping and uses it no longer.
        let _ = unsafe { syscall(SYS_MUNMAP, [addr, len as u64, 0, 0, 0, 0]) };
    }
}

/// Writes to standard error; an error there is nobody's to be told of.
pub fn write_to_standard_error(text: &[u8]) {
    // SAFETY: the kernel reads `text`.
    let _ = unsafe { syscall(SYS_WRITE, [2, text.as_ptr() as u64, text.len() as u64, 0, 0, 0]) };
}

/// Writes to memory of this process that it may not write, by way of the kernel (proc(5), `/proc/pid/mem`).
pub fn write_own_memory(addr: u64, bytes: &[u8]) -> Result<(), Errno> {
    const SYS_PWRITE64: i64 = 18;
    let file = File::open(b"/proc/self/mem\0", true)?;
    let args = [file.0, bytes.as_ptr() as u64, bytes.len() as u64, addr, 0, 0];
    // SAFETY: the kernel reads `bytes`; what is overwritten is up to the caller.
    let written = unsafe { syscall(SYS_PWRITE64, args) }?;
    if written == bytes.len() as u64 { Ok(()) } else { Err(Errno(5)) }
}
