//! The channel's memory: a memfd, mapped for as long as the launcher lives.

use std::{fmt, os::fd::AsRawFd, os::fd::OwnedFd};

use memcheck_wire::{CHANNEL_BYTES, Header, MAX_STREAMS, Options, STREAM_BYTES, Stream};
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};

/// Why there is no channel.
#[derive(Debug)]
pub struct ChannelError(&'static str, Errno);

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} the channel to the program: {}", self.0, self.1.desc())?;
        if self.1 == Errno::EFBIG {
            write!(f, "; raise the limit on file sizes (ulimit -f)")?;
        }
        Ok(())
    }
}

impl std::error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

/// The channel. Every word of it may be changed by the targets at any time.
pub struct Channel {
    file: OwnedFd,
    header: &'static Header,
    streams: &'static [Stream],
}

impl Channel {
    /// Makes an empty channel with these options.
    pub fn create(options: &Options) -> Result<Self, ChannelError> {
        let file = memfd_create(c"memcheck-channel", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| ChannelError("make", errno))?;
        ftruncate(&file, CHANNEL_BYTES as i64).map_err(|errno| ChannelError("size", errno))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CHANNEL_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(ChannelError("map", Errno::last()));
        }
        // SAFETY: the mapping is page-aligned, longer than a header, never unmapped, and a header is atomics.
        let header = unsafe { &*base.cast::<Header>() };
        let first = base.cast::<Header>().wrapping_add(1).cast::<Stream>();
        // SAFETY: CHANNEL_BYTES hold a header and MAX_STREAMS streams, which are atomics too.
        let streams = unsafe { std::slice::from_raw_parts(first, MAX_STREAMS) };
        header.initialise(options);
        Ok(Self { file, header, streams })
    }

    /// The path at which a shim opens the channel: it outlives exec and closed descriptors of the target.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The header.
    pub fn header(&self) -> &'static Header {
        self.header
    }

    /// The streams that may be in use.
    pub fn streams(&self) -> &'static [Stream] {
        &self.streams[..self.header.streams_used()]
    }

    /// Gives a stream up for reuse: zeroes it and frees its memory.
    pub fn release(&self, index: usize) {
        let bulk = Stream::bulk_bytes();
        let start = size_of::<Header>() + index * STREAM_BYTES + bulk.start;
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // A stream that cannot be zeroed is not given out again.
        if fallocate(&self.file, punch, start as i64, bulk.len() as i64).is_ok() {
            self.streams[index].release();
        }
    }

    /// Sleeps until the doorbell is no longer `seen`, or a while.
    pub fn wait_for_doorbell(&self, seen: u32, most: std::time::Duration) {
        let timeout =
            libc::timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: most.subsec_nanos().into() };
        // SAFETY: the kernel reads the word and the timeout.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.header.doorbell.as_ptr(),
                libc::FUTEX_WAIT,
                seen,
                &raw const timeout,
            )
        };
    }

    /// Wakes everyone who sleeps on a word of the channel.
    pub fn wake(word: &std::sync::atomic::AtomicU32) {
        // SAFETY: waking touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }
}
