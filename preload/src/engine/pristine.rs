//! The text of a module as the linker left it, for translating: what lies in memory gets patched.
//!
//! Mapped from the file where that is certainly the one that the module was loaded from; else copied.
//!
//! Runs under the engine's lock, before the module's entries are overwritten.

use alloc::vec::Vec;

use memcheck_model::{Addr, AddrRange, Pc, Size};
use memcheck_rewrite::Segment;

use super::image::Image;
use crate::{
    maps,
    sys::{self, Errno, file::File, memory},
};

const PAGE: u64 = 4096;
/// Less is copied sooner than its file is found.
const LEAST_MAPPED_BYTES: u64 = 128 << 10;

/// A mapping that holds a segment.
pub struct Held {
    /// Its pages.
    pub range: AddrRange,
    is_file: bool,
}

impl Held {
    /// All of the segment was looked at, and only some of it will be again: pages of the file come back when they are.
    pub fn let_rest(&self) {
        if self.is_file {
            memory::give_back(self.range.start(), self.range.size().0);
        }
    }
}

/// The module's executable segments, which stay as they are now, and the mappings that hold them.
pub fn keep(path: &[u8], image: &Image) -> Option<(Vec<Segment<'static>>, Vec<Held>)> {
    let mut text = Vec::new();
    let mut held = Vec::new();
    for (range, offset) in image.text.iter().zip(&image.text_offsets) {
        let from_file = offset
            .filter(|_| range.size().0 >= LEAST_MAPPED_BYTES)
            .and_then(|offset| map(path, *range, offset).ok().flatten());
        let mapping = match from_file {
            Some(range) => Held { range, is_file: true },
            None => Held { range: copy(image, *range)?, is_file: false },
        };
        let first = mapping.range.start().0 + range.start().0 % PAGE;
        // SAFETY: the mapping holds the pages of the segment, and stays until the module is unloaded.
        let bytes = unsafe { core::slice::from_raw_parts(first as *const u8, range.size().0 as usize) };
        text.push(Segment { start: Pc(range.start().0), bytes });
        held.push(mapping);
    }
    Some((text, held))
}

/// Whether a debugger has set breakpoints in the module's code. It puts the bytes back that it found, sooner or later.
pub fn has_breakpoints(path: &[u8], image: &Image) -> bool {
    const BREAKPOINT: u8 = 0xcc; // int3
    image.text.iter().zip(&image.text_offsets).any(|(&range, offset)| {
        let (Some(offset), Some(now)) = (*offset, image.bytes(range)) else { return false };
        let Ok(Some(file)) = map(path, range, offset) else { return false };
        let first = file.start().0 + range.start().0 % PAGE;
        // SAFETY: the mapping just made holds the pages of the segment.
        let original = unsafe { core::slice::from_raw_parts(first as *const u8, now.len()) };
        let is_set = now.iter().zip(original).any(|(&now, &original)| now == BREAKPOINT && now != original);
        memory::unmap(file.start(), file.size().0);
        is_set
    })
}

/// The pages of the segment at `range`.
fn pages(range: AddrRange) -> (u64, u64) {
    let first = range.start().0 & !(PAGE - 1);
    (first, range.end().0.next_multiple_of(PAGE) - first)
}

/// Opens the file of the module that `range` belongs to; `None` when the file at its path is another by now.
pub fn open(path: &[u8], range: AddrRange) -> Result<Option<File>, Errno> {
    let mut name = [0; 4096];
    let path = if path.is_empty() { b"/proc/self/exe" } else { path };
    let Some(to) = name.get_mut(..path.len()).filter(|_| path.len() + 1 < PAGE as usize) else {
        return Ok(None);
    };
    to.copy_from_slice(path);
    let file = File::open(&name[..path.len() + 1], false)?;
    Ok((maps::find_file(range.start()) == Some(file.identity()?)).then_some(file))
}

/// Maps the segment from the module's file, if that is still the same.
fn map(path: &[u8], range: AddrRange, offset: u64) -> Result<Option<AddrRange>, Errno> {
    let Some(file) = open(path, range)? else { return Ok(None) };
    let (_, len) = pages(range);
    let at = file.map_readable(offset & !(PAGE - 1), len)?;
    Ok(AddrRange::new(at, Size(len)))
}

fn copy(image: &Image, range: AddrRange) -> Option<AddrRange> {
    let bytes = image.bytes(range)?;
    let (_, len) = pages(range);
    let copy = sys::map_anonymous(len as usize)?;
    let into = range.start().0 % PAGE;
    // SAFETY: the fresh mapping has room for the pages of the segment.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.add(into as usize), bytes.len()) };
    AddrRange::new(Addr(copy as u64), Size(len))
}
