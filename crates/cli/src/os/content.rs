//! What is in a file, without reading it into memory of our own.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

/// Whether the file has just this content. It must not be made shorter meanwhile.
pub fn holds(path: &Path, content: &[u8]) -> io::Result<bool> {
    let file = File::open(path)?;
    if file.metadata()?.len() != content.len() as u64 {
        return Ok(false);
    }
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            content.len(),
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_POPULATE,
            file.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is as long as the content.
    let is_same = unsafe { std::slice::from_raw_parts(base.cast::<u8>(), content.len()) } == content;
    // SAFETY: the mapping was made here, and nothing refers to it any more.
    unsafe { libc::munmap(base, content.len()) };
    Ok(is_same)
}
