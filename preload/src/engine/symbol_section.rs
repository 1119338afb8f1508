//! The functions that a module's section of symbols (`.symtab`, gABI 4) names, for code that has next to no call frame
//! information: what only pointers lead to is found by nothing else there.
//!
//! In: the module's file, which nothing maps as a whole. Out: functions of known size. A stripped file, or one that
//! is another by now, has none. Runs under the engine's lock.

use alloc::vec::Vec;

use memcheck_model::Pc;
use memcheck_rewrite::Extent;

use super::{image::Image, pristine};
use crate::sys::file::File;

const HEADER_BYTES: usize = 64;
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SHT_SYMTAB: u32 = 2;
const STT_FUNC: u8 = 2;
/// That of programs of some hundred thousand functions.
const MOST_SYMBOL_BYTES: u64 = 16 << 20;

/// The module's functions.
pub fn functions(path: &[u8], image: &Image) -> Vec<Extent> {
    let range = image.text.first();
    let file = range.and_then(|&range| pristine::open(path, range).ok().flatten());
    file.and_then(|file| find(&file, image.bias)).unwrap_or_default()
}

fn find(file: &File, bias: u64) -> Option<Vec<Extent>> {
    let header = read(file, 0, HEADER_BYTES)?;
    let (at, count) = (u64_at(&header, 40)?, header.get(60..62)?);
    let count = u16::from_le_bytes(count.try_into().ok()?);
    let sections = read(file, at, usize::from(count) * SECTION_BYTES)?;
    let is_symtab = |section: &&[u8]| section.get(4..8) == Some(&SHT_SYMTAB.to_le_bytes());
    let section = sections.chunks_exact(SECTION_BYTES).find(is_symtab)?;
    let bytes = u64_at(section, 32).filter(|&bytes| bytes <= MOST_SYMBOL_BYTES)?;
    let symbols = read(file, u64_at(section, 24)?, bytes as usize)?;
    let function = |symbol: &[u8]| {
        let is_defined = symbol[6..8] != [0, 0];
        let (start, size) = (bias.wrapping_add(u64_at(symbol, 8)?), u64_at(symbol, 16)?);
        let end = start.checked_add(size)?;
        (symbol[4] & 15 == STT_FUNC && is_defined && size > 0)
            .then_some(Extent { start: Pc(start), end: Pc(end) })
    };
    Some(symbols.chunks_exact(SYMBOL_BYTES).filter_map(function).collect())
}

fn read(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = alloc::vec![0; len];
    let got = file.read_at(&mut bytes, offset).ok()?;
    (got == len).then_some(bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().map(u64::from_le_bytes).ok()
}
