//! Translates every function of the ELF files named, and says how fast, how well, and what was refused.
//!
//! `cargo run --release -p memcheck-rewrite --example survey -- [--write=FILE] /lib/x86_64-linux-gnu/libc.so.6`;
//! with `--write` the code goes to a file for a disassembler to look at.

use std::{collections::BTreeMap, time::Instant};

use gimli::UnwindSection;
use memcheck_model::{Addr, Pc};
use memcheck_rewrite::{
    CallTarget, Callees, Checks, Config, Extent, Module, Place, Processor, Resolver, Segment, Stats, Stress,
    Syscalls, Translation, discover, is_linkage_stub, translate,
};

struct AllOriginal;
impl Resolver for AllOriginal {
    fn call_target(&self, _: Pc) -> CallTarget {
        CallTarget::Original
    }
}

fn unwind_extents(elf: &goblin::elf::Elf<'_>, bytes: &[u8]) -> Vec<Extent> {
    let section = elf
        .section_headers
        .iter()
        .find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(".eh_frame"));
    let Some(range) = section.and_then(goblin::elf::SectionHeader::file_range) else { return Vec::new() };
    let frames = gimli::EhFrame::new(&bytes[range], gimli::LittleEndian);
    let bases = gimli::BaseAddresses::default().set_eh_frame(section.unwrap().sh_addr);
    let mut entries = frames.entries(&bases);
    let mut found = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        if let gimli::CieOrFde::Fde(partial) = entry {
            let Ok(fde) = partial.parse(|_, bases, offset| frames.cie_from_offset(bases, offset)) else {
                continue;
            };
            let start = fde.initial_address();
            found.push(Extent { start: Pc(start), end: Pc(start + fde.len()) });
        }
    }
    found
}

fn main() {
    let config = Config {
        shadow_base: 0x7fff_8000,
        spill_offset: -512,
        checks: Checks::On,
        stress: Stress::Off,
        syscalls: Syscalls::Native,
        processor: Processor::Bmi2,
    };
    let mut out = None;
    for path in std::env::args().skip(1) {
        if let Some(file) = path.strip_prefix("--write=") {
            out = Some(file.to_owned());
            continue;
        }
        let bytes = std::fs::read(&path).expect("the file is readable");
        let elf = goblin::elf::Elf::parse(&bytes).expect("the file is an ELF image");
        let segment = |header: &goblin::elf::ProgramHeader| Segment {
            start: Pc(header.p_vaddr),
            bytes: &bytes[header.file_range()],
        };
        let loads = || {
            elf.program_headers.iter().filter(|header| header.p_type == goblin::elf::program_header::PT_LOAD)
        };
        let text: Vec<Segment<'_>> = loads().filter(|header| header.is_executable()).map(segment).collect();
        let constants = loads().filter(|header| !header.is_executable()).map(segment).collect();
        let symbols: Vec<Extent> = elf
            .syms
            .iter()
            .chain(elf.dynsyms.iter())
            .filter(|symbol| symbol.is_function() && symbol.st_value != 0)
            .map(|symbol| Extent { start: Pc(symbol.st_value), end: Pc(symbol.st_value + symbol.st_size) })
            .collect();
        let extents = discover(&text, &unwind_extents(&elf, &bytes), &symbols).extents;
        let text_bytes: usize = text.iter().map(|segment| segment.bytes.len()).sum();
        let module = Module { text, constants, extents, callees: Callees::default() };
        let top = module.extents.last().map_or(0, |extent| extent.end.0) + 0x1000_0000;
        let place = |used: usize| Place { code: Addr(top + 4096 + used as u64), prelude: Addr(top) };
        let begun = Instant::now();
        let (mut copied, mut bytes_in, mut code) = (0, 0, Vec::new());
        let mut skips: BTreeMap<String, usize> = BTreeMap::new();
        let mut total = Stats::default();
        let mut done = vec![false; module.extents.len()];
        for entry in 0..module.extents.len() {
            if done[entry] || is_linkage_stub(&module, module.extents[entry].start) {
                continue;
            }
            let place = place(if out.is_some() { code.len() } else { 0 });
            let Translation { functions, copy } = translate(&config, &module, entry, &AllOriginal, place);
            for &part in &functions {
                done[part] = true;
            }
            match copy {
                Ok(blob) => {
                    copied += blob.bytes.len();
                    bytes_in += functions
                        .iter()
                        .map(|&part| (module.extents[part].end.0 - module.extents[part].start.0) as usize)
                        .sum::<usize>();
                    let stats = blob.stats;
                    total.instructions += stats.instructions;
                    total.operands += stats.operands;
                    total.exempt += stats.exempt;
                    total.unsupported += stats.unsupported;
                    total.checked += stats.checked;
                    total.checks += stats.checks;
                    total.flags_saved += stats.flags_saved;
                    total.spilled += stats.spilled;
                    total.indirect_jumps += stats.indirect_jumps;
                    if out.is_some() {
                        code.extend(blob.bytes);
                    }
                }
                Err(skip) => {
                    let name = format!("{}", skip.reason);
                    if !skips.contains_key(&name) || std::env::var_os("VERBOSE").is_some() {
                        println!(
                            "  first {name}: {} in the function at {}",
                            skip.pc, module.extents[entry].start
                        );
                    }
                    *skips.entry(name).or_default() += 1;
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{path}: {} functions, {:.1} % of text, {:.1} MB/s, {:.2}x size, skipped {skips:?}\n  {total:?}",
            module.extents.len(),
            100.0 * bytes_in as f64 / text_bytes as f64,
            bytes_in as f64 / 1e6 / seconds,
            copied as f64 / bytes_in as f64,
        );
        if let Some(file) = &out {
            std::fs::write(file, &code).expect("the output is writable");
            println!("  code for {:#x} in {file}", place(0).code.0);
        }
    }
}
