//! What an address outside the heap belongs to, as the kernel lists the process' mappings (proc(5),
//! `/proc/self/maps`).
//!
//! Reads the list through a small buffer; allocates nothing; may run in a signal handler. What it says may be
//! out of date when another thread maps or unmaps meanwhile. Slow (the list is read anew each time): for errors.

use memcheck_model::{Addr, AddrRange, Place, Size, ThreadId};

use crate::{
    modules,
    sys::{file::File, process},
    thread,
};

/// What a mapping is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File,
    /// A device, whose memory may act when it is read.
    Device,
    /// Shared memory that no file lies behind.
    Shared,
    /// The stack that the kernel made for the main thread.
    MainStack,
    /// Nothing, or something of the kernel's.
    Other,
}

/// Which accesses to a mapping are allowed, as the letters of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions([u8; 3]);

impl Permissions {
    /// Whether any access is allowed: guard pages are not.
    pub fn any(self) -> bool {
        self.0 != *b"---"
    }

    /// Whether it may be read.
    pub fn read(self) -> bool {
        self.0[0] == b'r'
    }

    /// Whether it may be written.
    pub fn write(self) -> bool {
        self.0[1] == b'w'
    }

    /// Whether it may be executed.
    pub fn execute(self) -> bool {
        self.0[2] == b'x'
    }
}

/// One line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: AddrRange,
    /// What accesses are allowed.
    pub permissions: Permissions,
    /// What it is of.
    pub source: Source,
}

/// Calls `visit` with each mapping, by ascending addresses, until it returns false.
pub fn for_each(mut visit: impl FnMut(&Mapping) -> bool) {
    for_each_line(|line| parse(line).is_none_or(|mapping| visit(&mapping)));
}

/// The same with the lines' first 128 bytes.
fn for_each_line(mut visit: impl FnMut(&[u8]) -> bool) {
    let Ok(file) = File::open(b"/proc/self/maps\0", false) else { return };
    let mut chunk = [0u8; 2048];
    // The start of the current line; the rest of a long line tells nothing more.
    let mut line = [0u8; 128];
    let mut line_len = 0;
    while let Ok(len @ 1..) = file.read(&mut chunk) {
        for &byte in &chunk[..len] {
            if byte != b'\n' {
                if let Some(to) = line.get_mut(line_len) {
                    *to = byte;
                    line_len += 1;
                }
                continue;
            }
            let goes_on = visit(&line[..line_len]);
            line_len = 0;
            if !goes_on {
                return;
            }
        }
    }
}

/// Which file the mapping at `addr` is of, as its device and inode, as stat(2) gives them.
pub fn find_file(addr: Addr) -> Option<(u64, u64)> {
    let mut found = None;
    for_each_line(|line| {
        let mapping = parse(line);
        let is_it = mapping.is_some_and(|mapping| mapping.range.contains(addr));
        if is_it {
            found = parse_file(line);
        }
        !is_it && mapping.is_none_or(|mapping| mapping.range.end() <= addr)
    });
    found
}

/// The device, `major:minor`, and inode of a line. The number of a device is put together as in makedev(3).
fn parse_file(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).skip(3);
    let (device, inode) = (words.next()?, words.next()?);
    let colon = device.iter().position(|&byte| byte == b':')?;
    let (major, minor) = (hex(&device[..colon])?, hex(&device[colon + 1..])?);
    let inode = core::str::from_utf8(inode).ok()?.parse().ok()?;
    Some(((major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12, inode))
}

/// `start-end perms offset device inode   path`.
fn parse(line: &[u8]) -> Option<Mapping> {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let (range, permissions) = (words.next()?, words.next()?);
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let (start, end) = (hex(&range[..dash])?, hex(&range[dash + 1..])?);
    let name = words.nth(3).unwrap_or_default();
    Some(Mapping {
        range: AddrRange::between(Addr(start), Addr(end))?,
        permissions: Permissions(permissions.get(..3)?.try_into().ok()?),
        source: match name {
            b"[stack]" => Source::MainStack,
            name if is_device(name) => Source::Device,
            name if is_memory(name) => Source::Shared,
            [b'/', ..] => Source::File,
            _ => Source::Other,
        },
    })
}

/// Whether what is listed with a path is memory that no file lies behind, as shared mappings are.
fn is_memory(path: &[u8]) -> bool {
    path == b"/dev/zero" || path.starts_with(b"/memfd:") || path.starts_with(b"/SYSV")
}

/// Whether a mapping of this name is a device's or a kernel facility's.
fn is_device(name: &[u8]) -> bool {
    let of_the_kernel: [&[u8]; 3] = [b"[vvar", b"[vdso]", b"[vsyscall]"];
    of_the_kernel.iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with(b"anon_inode:")
        || name.starts_with(b"socket:")
        || (name.starts_with(b"/dev/") && !name.starts_with(b"/dev/shm/") && !is_memory(name))
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &digit| {
        Some(value.checked_mul(16)? | u64::from((digit as char).to_digit(16)?))
    })
}

/// What `addr` belongs to, given the stack pointer of the thread that asks.
pub fn describe(addr: Addr, rsp: Addr) -> Place {
    /// Static thread-local variables lie below the thread pointer (psABI, variant II), within this much mostly.
    const STATIC_TLS: u64 = 64 << 10;
    let mut found = None;
    for_each(|mapping| {
        if mapping.range.contains(addr) {
            found = Some(*mapping);
        }
        mapping.range.end() <= addr
    });
    let thread = Addr(thread::pointer());
    let Some(mapping) = found else { return Place::Unmapped };
    let is_variable = mapping.source == Source::File
        || modules::find(addr.0).is_some()
        || mapping.range.contains(thread)
            && (thread.0.saturating_sub(STATIC_TLS)..thread.0).contains(&addr.0);
    match mapping {
        _ if mapping.source == Source::MainStack => Place::Stack(ThreadId(process::pid())),
        _ if mapping.range.contains(rsp) => Place::Stack(ThreadId(process::tid())),
        _ if is_variable => Place::Module,
        _ if !mapping.permissions.any() => Place::Unmapped,
        _ => Place::Mapped,
    }
}

/// Whether a fault at `addr` with this stack pointer is a stack that grew into its guard or its limit: the
/// address lies in no usable memory, and shortly above it is the mapping that the stack pointer lies in or has
/// just left.
pub fn is_stack_overflow(addr: Addr, rsp: Addr) -> bool {
    /// The largest step that a function makes below its stack, and a guard of the usual size.
    const REACH: Size = Size(1 << 20);
    let mut is_overflow = false;
    for_each(|mapping| {
        if mapping.range.contains(addr) && mapping.permissions.any() {
            return false;
        }
        if mapping.range.start() <= addr || !mapping.permissions.any() {
            return true;
        }
        // The first usable mapping above the fault.
        let near = |low: Addr, high: Addr| low.checked_add(REACH).is_some_and(|reach| high <= reach);
        let is_stacks =
            mapping.range.contains(rsp) || rsp < mapping.range.start() && near(rsp, mapping.range.start());
        is_overflow = is_stacks && near(addr, mapping.range.start());
        false
    });
    is_overflow
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn lines_of_the_list_are_understood() {
        let line = b"7ffd1a2b3000-7ffd1a2d4000 rw-p 00000000 00:00 0                          [stack]";
        let mapping = parse(line).unwrap();
        assert_eq!(
            mapping.range,
            AddrRange::between(Addr(0x7ffd_1a2b_3000), Addr(0x7ffd_1a2d_4000)).unwrap()
        );
        assert_eq!((mapping.source, mapping.permissions.any()), (Source::MainStack, true));
        let guard = parse(b"1000-2000 ---p 00000000 00:00 0 ").unwrap();
        assert_eq!((guard.source, guard.permissions.any()), (Source::Other, false));
        assert_eq!(parse(b"1000-2000 r-xp 00000000 08:01 77 /bin/a b").unwrap().source, Source::File);
        for path in ["/dev/zero (deleted)", "/memfd:memcheck-channel (deleted)", "/SYSV00000000 (deleted)"] {
            let line = std::format!("1000-2000 rw-s 00000000 00:01 53389 {path}");
            assert_eq!(parse(line.as_bytes()).unwrap().source, Source::Shared, "{path}");
        }
        assert_eq!(parse(b"1000-2000 rw-s 00000000 08:01 77 /dev/dri/card0").unwrap().source, Source::Device);
        assert_eq!(parse(b"nonsense"), None);
        let line = b"7f0000000000-7f0000001000 r-xp 00026000 103:01 1835 /usr/lib/libc.so.6";
        assert_eq!(parse_file(line), Some((0x1_0301, 1835)));
    }

    #[test]
    fn the_file_of_a_mapping_is_the_one_that_stat_knows() {
        use std::os::unix::fs::MetadataExt;
        let program = std::fs::metadata("/proc/self/exe").unwrap();
        let code = Addr(find_file as *const () as u64);
        assert_eq!(find_file(code), Some((program.dev(), program.ino())));
        let local = 0u8;
        assert_eq!(find_file(Addr(core::ptr::from_ref(&local) as u64)), Some((0, 0)));
    }

    #[test]
    fn this_threads_variables_are_on_its_stack_and_statics_in_a_module() {
        static STATIC: u8 = 7;
        let local = 0u8;
        let rsp = Addr(core::ptr::from_ref(&local) as u64);
        assert_eq!(describe(rsp, rsp), Place::Stack(ThreadId(process::tid())));
        assert_eq!(describe(Addr(core::ptr::from_ref(&STATIC) as u64), rsp), Place::Module);
        assert_eq!(describe(Addr(8), rsp), Place::Unmapped);
        assert!(!is_stack_overflow(rsp, rsp));
        assert!(!is_stack_overflow(Addr(8), rsp));
    }
}
