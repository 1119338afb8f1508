//! Whether an ELF file is one that the shim can be loaded into.
//!
//! Reads the file header, the program headers, the interpreter's name, the dynamic section and the names of the
//! symbol table, not the whole file. Sources: System V ABI (gABI) chapters 4 and 5; x86-64 psABI 4.1.

use std::{fmt, fs::File, os::unix::fs::FileExt};

use goblin::{
    container::{Container, Ctx},
    elf::{
        Elf, ProgramHeader,
        dynamic::{DT_NEEDED, DT_STRSZ, DT_STRTAB, Dyn},
        header::{
            EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_DYN, ET_EXEC,
            machine_to_str,
        },
        program_header::{PT_DYNAMIC, PT_INTERP, PT_LOAD},
        section_header::SHT_SYMTAB,
    },
};

/// The most that is read of one table: more means a corrupt size.
const TABLE_MAX_BYTES: u64 = 256 << 20;

/// The most names of symbols that are read: reading more would be felt at every start.
const NAMES_MAX_BYTES: u64 = 64 << 20;

/// `sizeof(Elf64_Shdr)`: type at 4, offset at 24, size at 32, link at 40.
const SECTION_HEADER_BYTES: usize = 64;

/// Why an ELF file cannot be watched.
#[derive(Debug, PartialEq, Eq)]
pub enum ElfRefusal {
    /// Its class is 32 bit.
    Bits32,
    /// It is for another machine.
    Machine(String),
    /// It is an object file or a core.
    NotExecutable,
    /// The file ends before what its headers describe.
    Truncated {
        /// How long the file is.
        len: u64,
        /// How long it should be at least.
        expected: u64,
    },
    /// Its headers contradict themselves.
    Corrupt(&'static str),
    /// It has no interpreter.
    Static,
    /// Its interpreter is musl's.
    Musl,
    /// Its interpreter is not glibc's.
    Loader(String),
    /// Its interpreter does not exist.
    NoLoader(String),
    /// It contains a run-time checker already.
    Sanitized(String),
}

impl fmt::Display for ElfRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits32 => write!(f, "is a 32-bit program; only 64-bit x86 programs can be checked"),
            Self::Machine(machine) => {
                write!(f, "is built for {machine}; only x86-64 programs can be checked")
            }
            Self::NotExecutable => write!(f, "is an ELF file, but no executable"),
            Self::Truncated { len, expected } => {
                write!(f, "is truncated: it has {len} bytes, its headers describe {expected}")
            }
            Self::Corrupt(what) => write!(f, "is corrupt: {what}"),
            Self::Static => {
                write!(f, "is statically linked, so its allocator cannot be replaced; link it dynamically")
            }
            Self::Musl => {
                write!(f, "is linked against musl; only programs linked against glibc can be checked")
            }
            Self::Loader(loader) => write!(f, "is loaded by {loader}, which is not glibc's loader"),
            Self::NoLoader(loader) => write!(f, "is loaded by {loader}, which does not exist"),
            Self::Sanitized(what) => {
                write!(
                    f,
                    "is built with a sanitizer already ({what}); build it without -fsanitize to check it here"
                )
            }
        }
    }
}

/// Libraries that replace the allocator themselves.
const SANITIZER_LIBRARIES: [&str; 10] = [
    "libasan.so",
    "libtsan.so",
    "liblsan.so",
    "libhwasan.so",
    "libmsan.so",
    "libclang_rt.asan",
    "libclang_rt.tsan",
    "libclang_rt.hwasan",
    "libclang_rt.lsan",
    "libclang_rt.msan",
];

/// Symbols of the same linked into the program.
const SANITIZER_SYMBOLS: [&str; 4] = ["__asan_init", "__tsan_init", "__msan_init", "__hwasan_init"];

/// A piece of the file.
fn read(file: &File, offset: u64, len: u64, file_len: u64) -> Result<Vec<u8>, ElfRefusal> {
    let end = offset.checked_add(len).ok_or(ElfRefusal::Corrupt("an offset wraps around"))?;
    if end > file_len {
        return Err(ElfRefusal::Truncated { len: file_len, expected: end });
    }
    if len > TABLE_MAX_BYTES {
        return Err(ElfRefusal::Corrupt("a table has an absurd size"));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|_| ElfRefusal::Corrupt("it cannot be read to its end"))?;
    Ok(bytes)
}

/// Checks the file, which has `len` bytes.
pub fn check(file: &File, len: u64) -> Result<(), ElfRefusal> {
    let ident = read(file, 0, 20, len)?;
    if ident[EI_CLASS] == ELFCLASS32 {
        return Err(ElfRefusal::Bits32);
    }
    if ident[EI_CLASS] != ELFCLASS64 {
        return Err(ElfRefusal::Corrupt("its class is neither 32 nor 64 bit"));
    }
    if ident[EI_DATA] != ELFDATA2LSB {
        return Err(ElfRefusal::Machine("a big-endian machine".to_owned()));
    }
    let machine = u16::from_le_bytes([ident[18], ident[19]]);
    if machine != EM_X86_64 {
        let name = machine_to_str(machine);
        let name = if name.starts_with("UNK") { format!("machine {machine}") } else { name.to_owned() };
        return Err(ElfRefusal::Machine(name));
    }
    let bytes = read(file, 0, 64, len)?;
    let header =
        Elf::parse_header(&bytes).map_err(|_| ElfRefusal::Corrupt("its file header makes no sense"))?;
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(ElfRefusal::NotExecutable);
    }
    if header.e_phentsize != 56 || header.e_phnum == 0 {
        return Err(ElfRefusal::Corrupt("it has no program headers"));
    }
    let table = read(file, header.e_phoff, u64::from(header.e_phnum) * 56, len)?;
    let context = Ctx::new(Container::Big, goblin::container::Endian::Little);
    let segments = ProgramHeader::parse(&table, 0, header.e_phnum.into(), context)
        .map_err(|_| ElfRefusal::Corrupt("its program headers make no sense"))?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let end = segment.p_offset.checked_add(segment.p_filesz);
        let end = end.ok_or(ElfRefusal::Corrupt("a segment wraps around"))?;
        if end > len {
            return Err(ElfRefusal::Truncated { len, expected: end });
        }
        if segment.p_filesz > segment.p_memsz {
            return Err(ElfRefusal::Corrupt("a segment is larger in the file than in memory"));
        }
    }
    let Some(interpreter) = segments.iter().find(|segment| segment.p_type == PT_INTERP) else {
        return Err(ElfRefusal::Static);
    };
    check_loader(&read(file, interpreter.p_offset, interpreter.p_filesz, len)?)?;
    let Some(dynamic) = segments.iter().find(|segment| segment.p_type == PT_DYNAMIC) else {
        return Err(ElfRefusal::Static);
    };
    check_libraries(file, len, &segments, dynamic)?;
    let sections = (header.e_shoff, u64::from(header.e_shnum) * u64::from(header.e_shentsize));
    match find_sanitizer_symbol(file, len, sections) {
        Some(symbol) => Err(ElfRefusal::Sanitized(symbol.to_owned())),
        None => Ok(()),
    }
}

/// A sanitizer's entry among the names of the symbol table: one that was linked statically is not in the dynamic
/// table. `sections` is where the section headers lie and how long they are. What is broken here breaks nothing
/// for the loader, so it is no reason to refuse.
fn find_sanitizer_symbol(file: &File, len: u64, sections: (u64, u64)) -> Option<&'static str> {
    let table = read(file, sections.0, sections.1, len).ok()?;
    let word = |section: &[u8], at: usize| section.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let half = |section: &[u8], at: usize| section.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let mut headers = table.chunks_exact(SECTION_HEADER_BYTES);
    let symbols = headers.clone().find(|section| half(section, 4) == Some(SHT_SYMTAB))?;
    let names = headers.nth(half(symbols, 40)? as usize)?;
    let names_len = word(names, 32).filter(|&bytes| bytes <= NAMES_MAX_BYTES)?;
    let names = read(file, word(names, 24)?, names_len, len).ok()?;
    let mut names = names.split(|&byte| byte == 0);
    names.find_map(|name| SANITIZER_SYMBOLS.into_iter().find(|symbol| symbol.as_bytes() == name))
}

fn check_loader(name: &[u8]) -> Result<(), ElfRefusal> {
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let base = name.rsplit('/').next().unwrap_or_default();
    if base.starts_with("ld-musl") {
        return Err(ElfRefusal::Musl);
    }
    if !std::path::Path::new(&name).exists() {
        return Err(ElfRefusal::NoLoader(name));
    }
    let is_glibc = base.starts_with("ld-linux") || (base.starts_with("ld-2.") && base.ends_with(".so"));
    if !is_glibc {
        return Err(ElfRefusal::Loader(name));
    }
    Ok(())
}

fn check_libraries(
    file: &File,
    len: u64,
    segments: &[ProgramHeader],
    dynamic: &ProgramHeader,
) -> Result<(), ElfRefusal> {
    let table = read(file, dynamic.p_offset, dynamic.p_filesz, len)?;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let entries: Vec<Dyn> = table
        .chunks_exact(16)
        .map(|entry| Dyn { d_tag: word(&entry[..8]), d_val: word(&entry[8..]) })
        .take_while(|entry| entry.d_tag != 0)
        .collect();
    let find = |tag| entries.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
    let (Some(strings_at), Some(strings_len)) = (find(DT_STRTAB), find(DT_STRSZ)) else {
        return Err(ElfRefusal::Corrupt("its dynamic section has no string table"));
    };
    let offset = segments
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD)
        .find(|segment| strings_at.checked_sub(segment.p_vaddr).is_some_and(|from| from < segment.p_filesz))
        .map(|segment| strings_at - segment.p_vaddr + segment.p_offset)
        .ok_or(ElfRefusal::Corrupt("its string table is not in the file"))?;
    let strings = read(file, offset, strings_len, len)?;
    for entry in entries.iter().filter(|entry| entry.d_tag == DT_NEEDED) {
        let name = strings.get(entry.d_val as usize..).and_then(|rest| rest.split(|&byte| byte == 0).next());
        let name = name.ok_or(ElfRefusal::Corrupt("a needed library has no name"))?;
        let name = String::from_utf8_lossy(name);
        if SANITIZER_LIBRARIES.iter().any(|library| name.starts_with(library)) {
            return Err(ElfRefusal::Sanitized(name.into_owned()));
        }
    }
    for name in strings.split(|&byte| byte == 0) {
        if let Some(symbol) = SANITIZER_SYMBOLS.iter().find(|symbol| symbol.as_bytes() == name) {
            return Err(ElfRefusal::Sanitized((*symbol).to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn verdict(bytes: &[u8]) -> Result<(), ElfRefusal> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check(&file, bytes.len() as u64)
    }

    fn shell() -> Vec<u8> {
        std::fs::read("/bin/sh").unwrap()
    }

    #[test]
    fn a_dynamic_program_passes() {
        assert_eq!(verdict(&shell()), Ok(()));
    }

    #[test]
    fn every_truncation_is_refused_and_none_panics() {
        let bytes = shell();
        for len in (0..2000).chain((2000..bytes.len()).step_by(997)) {
            let refused = verdict(&bytes[..len]);
            assert!(len > bytes.len() * 9 / 10 || refused.is_err(), "{len} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn changed_headers_never_panic() {
        let bytes = shell();
        for at in 0..1024 {
            for value in [0, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = verdict(&changed[..]);
            }
        }
    }

    #[test]
    fn foreign_files_are_named() {
        let mut arm = shell();
        arm[18..20].copy_from_slice(&183u16.to_le_bytes());
        assert_eq!(verdict(&arm), Err(ElfRefusal::Machine("AARCH64".to_owned())));
        let mut narrow = shell();
        narrow[4] = 1;
        assert_eq!(verdict(&narrow), Err(ElfRefusal::Bits32));
        let mut object = shell();
        object[16] = 1;
        assert_eq!(verdict(&object), Err(ElfRefusal::NotExecutable));
    }

    #[test]
    fn loaders_are_told_apart() {
        assert_eq!(check_loader(b"/lib64/ld-linux-x86-64.so.2\0"), Ok(()));
        assert_eq!(check_loader(b"/lib/ld-musl-x86_64.so.1\0"), Err(ElfRefusal::Musl));
        assert!(matches!(check_loader(b"/no/ld-linux-x86-64.so.2\0"), Err(ElfRefusal::NoLoader(_))));
    }
}
