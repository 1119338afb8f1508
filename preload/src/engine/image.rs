//! One ELF image as it lies in memory: its segments, and where its functions are.
//!
//! In: addresses of program headers that the loader mapped. Out: ranges. Everything read here was mapped by the
//! loader and is checked against the image's own segments; what does not fit ends the reading.
//!
//! Source: ELF gABI (program headers, dynamic section); LSB 5.0 10.6 (`.eh_frame`, `.eh_frame_hdr`).
//!
//! Runs under the engine's lock: allocates.

use alloc::vec::Vec;

use memcheck_model::{Addr, AddrRange, Pc, Size};
use memcheck_rewrite::Extent;
use memcheck_stack::{UnwindInfo, find_frames};

use crate::sys::memory;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_JMPREL: u64 = 23;
const DT_PLTRELSZ: u64 = 2;
const R_X86_64_GLOB_DAT: u64 = 6;
const R_X86_64_JUMP_SLOT: u64 = 7;
const R_X86_64_IRELATIVE: u64 = 37;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;

/// One program header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    _physical: u64,
    file_size: u64,
    memory_size: u64,
    _align: u64,
}

/// A symbol of the dynamic symbol table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    name: u32,
    info: u8,
    _other: u8,
    section: u16,
    /// Its stated address.
    pub value: u64,
    /// Its size.
    pub size: u64,
}

impl Symbol {
    /// Whether it is a function that is resolved by calling it (STT_GNU_IFUNC).
    pub fn is_ifunc(&self) -> bool {
        self.info & 15 == 10 && self.section != 0
    }

    /// Whether it is a function (STT_FUNC).
    pub fn is_function(&self) -> bool {
        self.info & 15 == 2 && self.section != 0
    }
}

/// An image in memory.
#[derive(Clone, Debug)]
pub struct Image {
    /// What the loader added to stated addresses.
    pub bias: u64,
    /// From the first to the last mapped byte.
    pub range: AddrRange,
    /// The executable segments.
    pub text: Vec<AddrRange>,
    /// Where each of them lies in the file, if that has all of it.
    pub text_offsets: Vec<Option<u64>>,
    loads: Vec<AddrRange>,
    constants: Vec<AddrRange>,
    eh_frame_header: Option<Addr>,
    dynamic: Option<Addr>,
    /// Where the kernel or the loader begins to run it; of a library, usually nowhere.
    pub entry: Option<Pc>,
}

impl Image {
    /// The image whose program headers lie at `headers`.
    pub fn new(bias: u64, headers: &[ProgramHeader]) -> Option<Self> {
        let actual = |header: &ProgramHeader| {
            AddrRange::new(Addr(bias.wrapping_add(header.address)), Size(header.memory_size))
        };
        let loads: Vec<_> =
            headers.iter().filter(|header| header.kind == PT_LOAD).filter_map(actual).collect();
        let range = AddrRange::between(
            loads.iter().map(|range| range.start()).min()?,
            loads.iter().map(|range| range.end()).max()?,
        )?;
        let is_text = |h: &&ProgramHeader| h.kind == PT_LOAD && h.flags & PF_X != 0 && actual(h).is_some();
        let text = headers.iter().filter(is_text);
        let text_offsets = text.clone().map(|h| (h.file_size == h.memory_size).then_some(h.offset)).collect();
        let start_of = |kind| headers.iter().find(|h| h.kind == kind).and_then(actual).map(|r| r.start());
        // SAFETY: the first page of the first segment, which is mapped readable.
        let header = unsafe { core::slice::from_raw_parts(range.start().0 as *const u8, 64) };
        let entry = u64::from_le_bytes(header[24..32].try_into().ok()?);
        Some(Self {
            bias,
            range,
            entry: (header[..4] == *b"\x7fELF" && entry != 0).then(|| Pc(bias.wrapping_add(entry))),
            text: text.filter_map(actual).collect(),
            text_offsets,
            constants: headers
                .iter()
                .filter(|h| h.kind == PT_LOAD && h.flags & (PF_W | PF_X) == 0 || h.kind == PT_GNU_RELRO)
                .filter_map(actual)
                .collect(),
            loads,
            eh_frame_header: start_of(PT_GNU_EH_FRAME),
            dynamic: start_of(PT_DYNAMIC),
        })
    }

    /// What is left of the last page of text, if no other segment lies in that.
    pub fn rest_of_text(&self) -> Option<AddrRange> {
        let end = self.text.last()?.end();
        let rest = AddrRange::between(end, Addr(end.0.next_multiple_of(4096)))?;
        self.loads.iter().all(|load| !rest.contains(load.start())).then_some(rest)
    }

    /// The program headers of the image whose ELF header lies at `base`.
    pub fn headers_at(base: Addr) -> Option<&'static [ProgramHeader]> {
        // SAFETY: the caller found `base` in the loader's list: an ELF header is mapped there.
        let header = unsafe { core::slice::from_raw_parts(base.0 as *const u8, 64) };
        if header[..4] != *b"\x7fELF" {
            return None;
        }
        let offset = u64::from_le_bytes(header[32..40].try_into().ok()?);
        let count = u16::from_le_bytes(header[56..58].try_into().ok()?);
        let first = (base.0 + offset) as *const ProgramHeader;
        // SAFETY: the loader maps the headers with the first segment (the gABI asks it of no one, but every
        // linker does it, and the loader itself relies on PT_PHDR being mapped).
        Some(unsafe { core::slice::from_raw_parts(first, count.into()) })
    }

    /// The bytes from `at` to the end of the segment that holds it.
    pub fn bytes_from(&self, at: Addr) -> Option<&'static [u8]> {
        let load = self.loads.iter().find(|load| load.contains(at))?;
        let len = load.end().0 - at.0;
        // SAFETY: the segment is mapped readable as long as the module is loaded.
        Some(unsafe { core::slice::from_raw_parts(at.0 as *const u8, len as usize) })
    }

    /// The word at `at`, a multiple of eight, as it is now, if that lies in the module and can be read.
    pub fn variable(&self, at: Addr) -> Option<u64> {
        let word = AddrRange::new(at, Size(8))?;
        if !at.is_aligned(8) || !self.loads.iter().any(|load| load.contains(at) && word.end() <= load.end()) {
            return None;
        }
        // SAFETY: the kernel could read the word just now; volatile, as the program may change it meanwhile.
        memory::is_readable(at).then(|| unsafe { (at.0 as *const u64).read_volatile() })
    }

    /// The bytes of a range within one segment.
    pub fn bytes(&self, range: AddrRange) -> Option<&'static [u8]> {
        self.bytes_from(range.start())?.get(..range.size().0 as usize)
    }

    /// Its call frame information, if it has any.
    pub fn unwind_info(&self) -> Option<UnwindInfo<'static>> {
        let header_addr = self.eh_frame_header?;
        let header = self.bytes_from(header_addr)?;
        let frames_addr = find_frames(header, header_addr.0)?;
        let frames = self.bytes_from(Addr(frames_addr))?;
        Some(UnwindInfo { header, header_addr: header_addr.0, frames, frames_addr })
    }

    /// The functions that call frame information describes, in order, without overlaps or empty ones.
    pub fn functions(&self) -> Vec<Extent> {
        let mut found = self.find_fde_extents().unwrap_or_default();
        found.retain(|function| {
            let is_in =
                |text: &AddrRange| text.start().0 <= function.start.0 && function.end.0 <= text.end().0;
            function.start < function.end && self.text.iter().any(is_in)
        });
        found.sort_unstable();
        let mut end = Pc(0);
        found.retain(|function| {
            let is_apart = end <= function.start;
            if is_apart {
                end = function.end;
            }
            is_apart
        });
        found
    }

    fn find_fde_extents(&self) -> Option<Vec<Extent>> {
        let header_at = self.eh_frame_header?;
        let header = self.bytes_from(header_at)?;
        // version 1, eh_frame pointer pcrel sdata4, count udata4, table datarel sdata4: what every linker writes.
        if header.get(..4)? != [1, 0x1b, 3, 0x3b] {
            return None;
        }
        let count = u32_at(header, 8)?;
        let table = header.get(12..)?.chunks_exact(8).take(count as usize);
        let mut extents = Vec::with_capacity(table.len());
        // Thousands of FDEs share a CIE or two.
        let mut last_cie = (Addr(0), None);
        for entry in table {
            let from_header = |at: usize| {
                let distance = u32_at(entry, at).unwrap_or_default().cast_signed();
                header_at.0.wrapping_add_signed(distance.into())
            };
            let start = Pc(from_header(0));
            if let Some(size) = self.find_fde_size(Addr(from_header(4)), &mut last_cie) {
                extents.push(Extent { start, end: Pc(start.0.wrapping_add(size)) });
            }
        }
        Some(extents)
    }

    /// How many bytes of code the FDE at `at` covers. `last_cie` is a CIE and how its FDEs encode that.
    fn find_fde_size(&self, at: Addr, last_cie: &mut (Addr, Option<SizeIn>)) -> Option<u64> {
        let fde = self.bytes_from(at)?;
        let cie = Addr(at.0 + 4 - u64::from(u32_at(fde, 4)?));
        if last_cie.0 != cie {
            *last_cie = (cie, SizeIn::find(self.bytes_from(cie)?));
        }
        match last_cie.1? {
            SizeIn::Word => Some(u64::from_le_bytes(fde.get(16..24)?.try_into().ok()?)),
            SizeIn::HalfWord => u32_at(fde, 12).map(u64::from),
        }
    }

    fn dynamic_value(&self, tag: u64) -> Option<u64> {
        let table = self.bytes_from(self.dynamic?)?;
        let word = |entry: &[u8], at: usize| entry[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        table
            .chunks_exact(16)
            .take_while(|entry| word(entry, 0) != 0)
            .find(|entry| word(entry, 0) == tag)
            .map(|entry| word(entry, 8))
    }

    /// The dynamic symbols that the GNU hash table knows.
    pub fn symbols(&self) -> Option<SymbolTable> {
        let hash = self.bytes_from(Addr(self.dynamic_value(DT_GNU_HASH)?))?;
        let symbols = Addr(self.dynamic_value(DT_SYMTAB)?);
        let names = self.bytes_from(Addr(self.dynamic_value(DT_STRTAB)?))?;
        let [buckets, first, bloom] = [0, 4, 8].map(|at| u32_at(hash, at));
        let (buckets, first) = (buckets? as usize, first? as usize);
        let (buckets, chains) = hash.get(16 + bloom? as usize * 8..)?.split_at_checked(buckets * 4)?;
        let mut end = buckets.chunks_exact(4).filter_map(|bucket| u32_at(bucket, 0)).max()? as usize;
        if end < first {
            return None;
        }
        while u32_at(chains, (end - first) * 4)? & 1 == 0 {
            end += 1;
        }
        end += 1;
        if self.bytes_from(symbols)?.len() < end * size_of::<Symbol>() {
            return None;
        }
        // SAFETY: as many bytes are mapped there as long as the module is loaded, and the table is aligned (gABI).
        let symbols = unsafe { core::slice::from_raw_parts(symbols.0 as *const Symbol, end) };
        Some(SymbolTable { buckets, chains, first, symbols, names })
    }

    /// Read-only segments without code, and what becomes read-only once it is relocated.
    pub fn constants(&self) -> impl Iterator<Item = &AddrRange> {
        self.constants.iter()
    }

    /// What the loader's calls of the module's own resolvers gave (psABI, R_X86_64_IRELATIVE).
    pub fn for_each_resolved(&self, mut each: impl FnMut(Pc)) {
        for (table, size) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let (Some(table), Some(size)) = (self.dynamic_value(table), self.dynamic_value(size)) else {
                continue;
            };
            let Some(bytes) = self.bytes_from(Addr(table)).and_then(|bytes| bytes.get(..size as usize))
            else {
                continue;
            };
            for entry in bytes.chunks_exact(24) {
                let word = |at: usize| entry[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
                let place = Addr(self.bias.wrapping_add(word(0)));
                if word(8) & u64::from(u32::MAX) == R_X86_64_IRELATIVE
                    && let Some(cell) = self.bytes_from(place).and_then(|bytes| bytes.get(..8))
                {
                    each(Pc(cell.try_into().map_or(0, u64::from_le_bytes)));
                }
            }
        }
    }

    /// The relocations of the GOT and the data: tables of entries of three words (gABI, `Elf64_Rela`).
    fn relocations(&self) -> impl Iterator<Item = [u64; 3]> {
        let tables = [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)];
        let entries = tables.into_iter().filter_map(|(table, size)| {
            let bytes = self.bytes_from(Addr(self.dynamic_value(table)?))?;
            bytes.get(..self.dynamic_value(size)? as usize)
        });
        entries
            .flat_map(|bytes| bytes.chunks_exact(24))
            .map(|entry| [0, 8, 16].map(|at| entry[at..at + 8].try_into().map_or(0, u64::from_le_bytes)))
    }

    /// The name of the symbol that a relocation refers to.
    fn name_of(&self, [_, info, addend]: [u64; 3]) -> Option<&'static [u8]> {
        if info & u64::from(u32::MAX) == R_X86_64_IRELATIVE {
            return self.find_name_of_resolver(Pc(self.bias.wrapping_add(addend)));
        }
        let at = Addr(self.dynamic_value(DT_SYMTAB)? + (info >> 32) * size_of::<Symbol>() as u64);
        let name = self.bytes_from(at)?.get(..4)?.try_into().map(u32::from_le_bytes).ok()?;
        let name = self.bytes_from(Addr(self.dynamic_value(DT_STRTAB)? + u64::from(name)))?;
        Some(&name[..name.iter().position(|&byte| byte == 0)?])
    }

    /// The name of the symbol whose address the loader puts into the cell at `cell`.
    pub fn find_name_in_cell(&self, cell: Addr) -> Option<&'static [u8]> {
        let stated = cell.0.wrapping_sub(self.bias);
        self.relocations().find(|[place, ..]| *place == stated).and_then(|entry| self.name_of(entry))
    }

    /// The cell that holds the address of another module's symbol of this name, for calls.
    pub fn find_cell_with_name(&self, name: &[u8]) -> Option<Addr> {
        let is_call = |[_, info, _]: &[u64; 3]| {
            info >> 32 != 0 && [R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT].contains(&(info & u64::from(u32::MAX)))
        };
        let found = self.relocations().filter(is_call).find(|&entry| self.name_of(entry) == Some(name));
        found.map(|[place, ..]| Addr(self.bias.wrapping_add(place)))
    }

    /// A name under which others know an indirect function of the module.
    fn find_name_of_resolver(&self, resolver: Pc) -> Option<&'static [u8]> {
        let table = self.symbols()?;
        let is_it = |symbol: &&Symbol| symbol.is_ifunc() && self.actual(symbol) == resolver;
        table.iter().rfind(is_it).and_then(|symbol| table.name(symbol))
    }

    /// The actual address of a symbol's value.
    pub fn actual(&self, symbol: &Symbol) -> Pc {
        Pc(self.bias.wrapping_add(symbol.value))
    }
}

/// A module's dynamic symbol table, with the hash table that names are found by (`elf/dl-lookup.c` of glibc).
pub struct SymbolTable {
    buckets: &'static [u8],
    /// For each symbol from `first` on the hash of its name, but for the lowest bit, which ends a bucket's chain.
    chains: &'static [u8],
    first: usize,
    symbols: &'static [Symbol],
    names: &'static [u8],
}

impl SymbolTable {
    /// The symbols.
    pub fn iter(&self) -> core::slice::Iter<'static, Symbol> {
        self.symbols.get(self.first..).unwrap_or_default().iter()
    }

    /// A symbol's name.
    pub fn name(&self, symbol: &Symbol) -> Option<&'static [u8]> {
        let name = self.names.get(symbol.name as usize..)?;
        Some(&name[..name.iter().position(|&byte| byte == 0)?])
    }

    /// Its name, if it begins so.
    pub fn name_after(&self, symbol: &Symbol, prefix: &[u8]) -> Option<&'static [u8]> {
        self.names.get(symbol.name as usize..)?.starts_with(prefix).then(|| self.name(symbol))?
    }

    /// The symbols of this name: one for each version.
    pub fn find<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'static Symbol> + 'a {
        let hash = name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        let bucket = (hash as usize).checked_rem(self.buckets.len() / 4);
        let start = bucket.and_then(|bucket| u32_at(self.buckets, bucket * 4)).unwrap_or_default() as usize;
        let mut next = start.checked_sub(self.first);
        core::iter::from_fn(move || {
            while let Some(index) = next {
                let link = u32_at(self.chains, index * 4)?;
                next = (link & 1 == 0).then_some(index + 1);
                let symbol = self.symbols.get(self.first + index)?;
                if (link ^ hash) >> 1 == 0 && self.name(symbol) == Some(name) {
                    return Some(symbol);
                }
            }
            None
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok()
}

/// In how many bytes the FDEs of a CIE say how long their code is.
#[derive(Clone, Copy)]
enum SizeIn {
    Word,
    HalfWord,
}

impl SizeIn {
    /// `None` where it is not known, and for what is no function.
    fn find(cie: &[u8]) -> Option<Self> {
        if is_signal_frame(cie) {
            return None;
        }
        match pointer_encoding(cie)? & 0x0f {
            0x00 | 0x04 | 0x0c => Some(Self::Word),
            0x03 | 0x0b => Some(Self::HalfWord),
            _ => None,
        }
    }
}

/// Whether the code is what handlers of signals return to: debuggers know it by its bytes, and its FDE begins before
/// its entry.
fn is_signal_frame(cie: &[u8]) -> bool {
    let augmentation = cie.get(9..).unwrap_or_default();
    augmentation.iter().take_while(|&&byte| byte != 0).any(|&byte| byte == b'S')
}

/// How the FDEs of a CIE encode addresses: the 'R' of its augmentation.
fn pointer_encoding(cie: &[u8]) -> Option<u8> {
    let augmentation = cie.get(9..)?;
    let len = augmentation.iter().position(|&byte| byte == 0)?;
    let letters = &augmentation[..len];
    if letters.first() != Some(&b'z') {
        return Some(0);
    }
    let mut at = 9 + len + 1;
    let skip_leb = |at: &mut usize| {
        while cie.get(*at)? & 0x80 != 0 {
            *at += 1;
        }
        *at += 1;
        Some(())
    };
    skip_leb(&mut at)?; // code alignment
    skip_leb(&mut at)?; // data alignment
    skip_leb(&mut at)?; // return address register
    skip_leb(&mut at)?; // length of what follows
    for &letter in &letters[1..] {
        match letter {
            b'R' => return cie.get(at).copied(),
            b'P' => {
                at += match cie.get(at)? & 0x0f {
                    0x00 | 0x04 | 0x0c => 9,
                    0x03 | 0x0b => 5,
                    _ => return None,
                };
            }
            b'L' => at += 1,
            b'S' | b'B' => {}
            _ => return None,
        }
    }
    Some(0)
}
