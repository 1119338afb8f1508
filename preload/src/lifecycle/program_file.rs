//! Whether the shim fits into a program that is about to be executed: the launcher's checks on its own program,
//! in the little that they need here.
//!
//! Reads the file through a small buffer on the stack; allocates nothing. Whatever is not understood fits: the
//! kernel and the loader judge then.

use crate::sys::file::File;

/// How deep scripts may nest (the kernel's limit).
const MAX_SCRIPTS: usize = 5;
const CHUNK: usize = 1024;
/// How much of a string table is searched for a sanitizer's symbol.
const STRINGS_MAX: u64 = 1 << 20;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;

const SANITIZER_LIBRARIES: [&[u8]; 6] =
    [b"libasan.so", b"libtsan.so", b"liblsan.so", b"libhwasan.so", b"libmsan.so", b"libclang_rt."];
const SANITIZER_SYMBOLS: [&[u8]; 4] =
    [b"\0__asan_init\0", b"\0__tsan_init\0", b"\0__msan_init\0", b"\0__hwasan_init\0"];

/// Says why the shim does not fit, if it does not.
pub fn fits(file: &File) -> Result<(), &'static str> {
    fits_nested(file, MAX_SCRIPTS)
}

fn fits_nested(file: &File, scripts_left: usize) -> Result<(), &'static str> {
    let mut head = [0u8; 256];
    let Ok(len) = file.read_at(&mut head, 0) else { return Ok(()) };
    if let Some(line) = head[..len].strip_prefix(b"#!") {
        return fits_interpreter(line, scripts_left);
    }
    if len < 64 || !head.starts_with(b"\x7fELF") {
        return Ok(());
    }
    if head[4] != 2 {
        return Err("a 32-bit program");
    }
    if head[5] != 1 || u16_at(&head, 18) != 62 {
        return Err("a program for another machine");
    }
    let (table, count) = (u64_at(&head, 32), u64::from(u16_at(&head, 56)));
    let segments = Segments { file, table, count };
    let Some((offset, size)) = segments.find(PT_INTERP) else { return Err("a statically linked program") };
    let mut name = [0u8; 256];
    let room = name.len().min(size as usize);
    let len = file.read_at(&mut name[..room], offset).unwrap_or(0);
    let name = name[..len].split(|&byte| byte == 0).next().unwrap_or_default();
    let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if !base.starts_with(b"ld-linux") && !base.starts_with(b"ld-2.") {
        return Err("a program with another loader than glibc's");
    }
    match segments.find(PT_DYNAMIC) {
        Some(dynamic) if is_sanitized(&segments, dynamic) => Err("a program built with a sanitizer"),
        _ => Ok(()),
    }
}

fn fits_interpreter(line: &[u8], scripts_left: usize) -> Result<(), &'static str> {
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let name = line.split(|&byte| byte == b' ' || byte == b'\t').find(|word| !word.is_empty());
    let (Some(name), true) = (name, scripts_left > 0) else { return Ok(()) };
    let mut path = [0u8; 256];
    if name.len() >= path.len() {
        return Ok(());
    }
    path[..name.len()].copy_from_slice(name);
    match File::open(&path[..=name.len()], false) {
        Ok(file) => fits_nested(&file, scripts_left - 1),
        Err(_) => Ok(()),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The program headers, read one by one.
struct Segments<'a> {
    file: &'a File,
    table: u64,
    count: u64,
}

impl Segments<'_> {
    fn get(&self, index: u64) -> Option<[u8; 56]> {
        let mut header = [0u8; 56];
        let at = self.table.checked_add(index * 56)?;
        (self.file.read_at(&mut header, at) == Ok(56)).then_some(header)
    }

    /// Offset and size in the file of the first segment of this type.
    fn find(&self, kind: u32) -> Option<(u64, u64)> {
        (0..self.count)
            .map_while(|index| self.get(index))
            .find(|header| u32_at(header, 0) == kind)
            .map(|header| (u64_at(&header, 8), u64_at(&header, 32)))
    }

    /// The offset in the file of a stated address.
    fn offset_of(&self, address: u64) -> Option<u64> {
        (0..self.count).map_while(|index| self.get(index)).find_map(|header| {
            let from = address.checked_sub(u64_at(&header, 16))?;
            (u32_at(&header, 0) == PT_LOAD && from < u64_at(&header, 32)).then(|| u64_at(&header, 8) + from)
        })
    }
}

fn is_sanitized(segments: &Segments<'_>, (offset, size): (u64, u64)) -> bool {
    let entries = |action: &mut dyn FnMut(u64, u64)| {
        let mut chunk = [0u8; CHUNK];
        let mut done = 0;
        while done < size {
            let want = CHUNK.min((size - done) as usize);
            let Ok(len) = segments.file.read_at(&mut chunk[..want], offset + done) else { return };
            if len < 16 {
                return;
            }
            for entry in chunk[..len].chunks_exact(16) {
                action(u64_at(entry, 0), u64_at(entry, 8));
            }
            done += len as u64;
        }
    };
    let (mut strings, mut strings_len) = (None, 0);
    entries(&mut |tag, value| match tag {
        DT_STRTAB => strings = segments.offset_of(value),
        DT_STRSZ => strings_len = value,
        _ => {}
    });
    let Some(strings) = strings else { return false };
    let mut found = false;
    entries(&mut |tag, value| {
        let mut name = [0u8; 16];
        if tag == DT_NEEDED && segments.file.read_at(&mut name, strings.saturating_add(value)).is_ok() {
            found |= SANITIZER_LIBRARIES.iter().any(|library| name.starts_with(library));
        }
    });
    found || has_sanitizer_symbol(segments.file, strings, strings_len.min(STRINGS_MAX))
}

fn has_sanitizer_symbol(file: &File, start: u64, len: u64) -> bool {
    const OVERLAP: usize = 16; // longer than the longest symbol
    let mut chunk = [0u8; CHUNK];
    let mut at = 0;
    while at < len {
        let want = CHUNK.min((len - at) as usize);
        let Ok(read) = file.read_at(&mut chunk[..want], start + at) else { return false };
        let here = &chunk[..read];
        let starts = here.windows(3).enumerate().filter(|(_, window)| *window == b"\0__");
        for (from, _) in starts {
            if SANITIZER_SYMBOLS.iter().any(|symbol| here[from..].starts_with(symbol)) {
                return true;
            }
        }
        if read < CHUNK {
            return false;
        }
        at += (CHUNK - OVERLAP) as u64;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_fits_and_a_script_for_it_too() {
        assert_eq!(fits(&File::open(b"/bin/sh\0", false).unwrap()), Ok(()));
        let script = std::env::temp_dir().join(format!("memcheck-script-{}", std::process::id()));
        std::fs::write(&script, "#! /bin/sh -e\n").unwrap();
        let mut path = script.clone().into_os_string().into_encoded_bytes();
        path.push(0);
        assert_eq!(fits(&File::open(&path, false).unwrap()), Ok(()));
        std::fs::remove_file(script).unwrap();
    }

    #[test]
    fn a_shared_library_without_a_loader_counts_as_static() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps.split_whitespace().find(|word| word.contains("/libgcc_s.so")).unwrap();
        let path = [library.as_bytes(), b"\0"].concat();
        assert_eq!(fits(&File::open(&path, false).unwrap()), Err("a statically linked program"));
    }
}
