//! Which functions of libc are copied without checks: those before which a front checks, and those that read beyond
//! what they were given, on purpose: the string and memory functions written for vector registers, which load whole
//! aligned vectors.
//!
//! The latter are known by how they are chosen: each is what a resolver gave (STT_GNU_IFUNC and R_X86_64_IRELATIVE, "ELF
//! Handling of Indirect Functions"), or what such a one jumps to. libc has no other indirect functions but those that the
//! kernel's vdso serves.
//!
//! Runs before the module's entries are overwritten, under the engine's lock.

use alloc::vec::Vec;

use memcheck_model::Pc;
use memcheck_rewrite::{Module, jumps_out};

use super::{
    fronts::Fronted,
    image::{Image, Symbol, SymbolTable},
};

/// The functions of libc that have fronts or that resolvers chose, and the parts that belong to them: indices of
/// extents, sorted.
pub fn find_unchecked(image: &Image, module: &Module<'_>, fronted: &[Fronted]) -> Vec<usize> {
    let mut chosen = Vec::new();
    image.for_each_resolved(|target| chosen.push(target));
    let symbols = image.symbols();
    let symbols = symbols.iter().flat_map(SymbolTable::iter);
    chosen.extend(symbols.filter(|symbol| symbol.is_ifunc()).map(|symbol| resolve(image, symbol)));
    let mut functions: Vec<usize> = chosen.iter().filter_map(|&target| module.find_extent(target)).collect();
    functions.extend(fronted.iter().map(|fronted| fronted.function));
    functions.sort_unstable();
    functions.dedup();
    // Those that they leave the work to read ahead as well (`__strcspn_generic`, four bytes at a time).
    let mut next = 0;
    while let Some(&function) = functions.get(next) {
        next += 1;
        for target in jumps_out(module, module.extents[function]) {
            if let Some(other) = module.find_extent(target).filter(|other| !functions.contains(other)) {
                functions.push(other);
            }
        }
    }
    functions.sort_unstable();
    functions
}

/// What the resolver of an indirect function chooses.
pub fn resolve(image: &Image, symbol: &Symbol) -> Pc {
    // SAFETY: an indirect function's resolver: takes nothing on x86-64, gives an address, and was made to run as early as
    // during relocation.
    let resolver: extern "C" fn() -> u64 = unsafe { core::mem::transmute(image.actual(symbol).0) };
    Pc(resolver())
}
