//! Where the debug information of a module lies when it is not in the module itself.
//!
//! Sources: gdb manual, "Debugging Information in Separate Files" (build-id, `.gnu_debuglink`); dwz(1) for
//! `.gnu_debugaltlink`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use goblin::elf::{Elf, note::NT_GNU_BUILD_ID};

/// Where distributions put debug files.
const DEBUG_ROOT: &str = "/usr/lib/debug";

/// The content of the section with this name, uncompressed ones only.
fn section<'a>(elf: &Elf<'_>, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let header =
        elf.section_headers.iter().find(|header| elf.shdr_strtab.get_at(header.sh_name) == Some(name))?;
    bytes.get(header.file_range()?)
}

/// The file's build-id.
pub(crate) fn build_id<'a>(elf: &Elf<'a>, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let in_segments = elf.iter_note_headers(bytes);
    let mut notes =
        in_segments.into_iter().flatten().chain(elf.iter_note_sections(bytes, None).into_iter().flatten());
    notes.find_map(|note| {
        let note = note.ok()?;
        (note.n_type == NT_GNU_BUILD_ID && note.name == "GNU").then_some(note.desc)
    })
}

fn by_build_id(id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(PathBuf::from(format!("{DEBUG_ROOT}/.build-id/{first:02x}/{rest}.debug")))
}

/// The file with the debug information of the module at `path`, when that is another file.
pub(crate) fn find<'a>(path: &Path, elf: &Elf<'a>, bytes: &'a [u8]) -> Option<PathBuf> {
    let own_id = build_id(elf, bytes);
    let by_id = own_id.and_then(by_build_id).filter(|path| path.is_file());
    by_id.or_else(|| {
        // { name, zero byte, padding to 4, CRC32 }
        let link = section(elf, bytes, ".gnu_debuglink")?;
        let name = std::str::from_utf8(link.split(|&byte| byte == 0).next()?).ok()?;
        let checksum = u32::from_le_bytes(link.get(link.len().checked_sub(4)?..)?.try_into().ok()?);
        let path = fs::canonicalize(path).ok()?;
        let directory = path.parent()?;
        let beside_root = Path::new(DEBUG_ROOT).join(directory.strip_prefix("/").ok()?);
        [directory.join(name), directory.join(".debug").join(name), beside_root.join(name)]
            .into_iter()
            // The name is the file's own: it may lead to a device.
            .filter(|candidate| *candidate != path && candidate.is_file())
            .find(|candidate| fs::read(candidate).is_ok_and(|content| crc32(&content) == checksum))
    })
}

/// The supplementary file (dwz) that this debug file refers to.
pub(crate) fn find_supplement(path: &Path, elf: &Elf<'_>, bytes: &[u8]) -> Option<PathBuf> {
    // { name, zero byte, build-id }
    let link = section(elf, bytes, ".gnu_debugaltlink")?;
    let end = link.iter().position(|&byte| byte == 0)?;
    let name = Path::new(std::str::from_utf8(&link[..end]).ok()?);
    let stated = fs::canonicalize(path).ok()?.parent()?.join(name);
    [Some(stated), by_build_id(&link[end + 1..])].into_iter().flatten().find(|path| path.is_file())
}

/// The checksum of `.gnu_debuglink`: CRC-32 as in zlib (reflected, polynomial 0x04c11db7).
fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|index| {
            (0..8).fold(index, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
        .collect();
    !bytes.iter().fold(!0u32, |crc, &byte| crc >> 8 ^ table[((crc ^ u32::from(byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn build_ids_lead_to_the_distributions_place() {
        let path = by_build_id(&[0xab, 0x01, 0xff]).unwrap();
        assert_eq!(path, Path::new("/usr/lib/debug/.build-id/ab/01ff.debug"));
        assert_eq!(by_build_id(&[]), None);
    }
}
