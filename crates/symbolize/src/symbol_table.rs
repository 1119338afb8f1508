//! Which function or variable covers an address, by the symbol tables.
//!
//! Invariant: a symbol is given only for addresses inside it: its size, or for a function without one (hand-written
//! assembly) what lies before the next symbol of its section.

use goblin::elf::{Elf, sym};

/// More underscores at a name's start make it no worse.
const MOST_UNDERSCORES: usize = 16;
/// A local name is worse than a public one by so many underscores.
const LOCAL_RANK: u8 = 8;

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data.
    Variable,
}

/// A symbol, and where in it an address lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSymbol {
    /// What it names.
    pub kind: SymbolKind,
    /// Its name, demangled.
    pub name: String,
    /// Its name as the linker knows it.
    pub linkage_name: String,
    /// How many bytes from its start the address lies.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    start: u64,
    end: u64,
    kind: SymbolKind,
    name: String,
    /// The smaller the better, of several names for one place.
    rank: u8,
}

/// The symbols of one module.
#[derive(Clone, Debug, Default)]
pub(crate) struct SymbolTable {
    /// Sorted by start.
    entries: Vec<Entry>,
    /// The largest size, which bounds how far back a symbol that covers an address can start.
    longest: u64,
}

impl SymbolTable {
    /// Adds the functions and variables of `elf`.
    pub(crate) fn add(&mut self, elf: &Elf<'_>) {
        self.add_kinds(elf, |kind| match kind {
            sym::STT_FUNC | sym::STT_GNU_IFUNC => Some(SymbolKind::Function),
            sym::STT_OBJECT => Some(SymbolKind::Variable),
            _ => None,
        });
    }

    /// Adds the thread-local variables of `elf`, whose addresses are from the start of its thread-local storage.
    pub(crate) fn add_thread_locals(&mut self, elf: &Elf<'_>) {
        self.add_kinds(elf, |kind| (kind == sym::STT_TLS).then_some(SymbolKind::Variable));
    }

    fn add_kinds(&mut self, elf: &Elf<'_>, kind: impl Fn(u8) -> Option<SymbolKind>) {
        let tables = [(&elf.syms, &elf.strtab), (&elf.dynsyms, &elf.dynstrtab)];
        for (symbols, strings) in tables {
            for symbol in symbols.iter() {
                let Some(kind) = kind(symbol.st_type()) else { continue };
                // Undefined here: another module's. (The first thread-local variable is at zero.)
                if symbol.st_shndx == 0 {
                    continue;
                }
                let Some(name) = strings.get_at(symbol.st_name).filter(|name| !name.is_empty()) else {
                    continue;
                };
                let section_end = elf
                    .section_headers
                    .get(symbol.st_shndx)
                    .map_or(symbol.st_value, |section| section.sh_addr.saturating_add(section.sh_size));
                let end = match symbol.st_size {
                    0 if kind == SymbolKind::Function => section_end,
                    size => symbol.st_value.saturating_add(size),
                };
                let underscores =
                    name.bytes().take(MOST_UNDERSCORES).take_while(|&byte| byte == b'_').count();
                let rank =
                    underscores as u8 + if symbol.st_bind() == sym::STB_LOCAL { LOCAL_RANK } else { 0 };
                self.entries.push(Entry { start: symbol.st_value, end, kind, name: name.to_owned(), rank });
            }
        }
    }

    /// Makes lookups possible, after all symbols were added.
    pub(crate) fn finish(&mut self) {
        self.entries.sort_by(|a, b| (a.start, a.rank, &a.name).cmp(&(b.start, b.rank, &b.name)));
        let starts: Vec<u64> = self.entries.iter().map(|entry| entry.start).collect();
        for entry in &mut self.entries {
            let next = starts.partition_point(|&start| start <= entry.start);
            if let Some(&next) = starts.get(next) {
                // Only symbols without a size reach beyond the next one's start.
                entry.end = if entry.kind == SymbolKind::Function {
                    entry.end.min(next.max(entry.start))
                } else {
                    entry.end
                };
            }
            self.longest = self.longest.max(entry.end.saturating_sub(entry.start));
        }
    }

    /// Where the symbol of this name, as the linker knows it, begins.
    pub(crate) fn address(&self, linkage_name: &str) -> Option<u64> {
        self.entries.iter().find(|entry| entry.name == linkage_name).map(|entry| entry.start)
    }

    /// The symbol that covers `address`.
    pub(crate) fn find(&self, address: u64) -> Option<NamedSymbol> {
        let after = self.entries.partition_point(|entry| entry.start <= address);
        let mut best: Option<&Entry> = None;
        for entry in self.entries[..after].iter().rev() {
            if address - entry.start > self.longest || best.is_some_and(|best| best.start != entry.start) {
                break;
            }
            if address < entry.end {
                best = Some(entry);
            }
        }
        best.map(|entry| NamedSymbol {
            kind: entry.kind,
            name: demangle(&entry.name),
            linkage_name: entry.name.clone(),
            offset: address - entry.start,
            size: entry.end - entry.start,
        })
    }
}

/// A C++ or Rust name as its source has it.
#[must_use]
pub fn demangle(name: &str) -> String {
    // A symbol version is no part of the name.
    let name = name.split('@').next().unwrap_or(name);
    // A C function may have any other name, also one like `f`, which is a mangled `float` to a demangler.
    if !name.starts_with("_Z") && !name.starts_with("_R") {
        return name.to_owned();
    }
    let demangled = addr2line::demangle_auto(name.into(), None);
    let is_left = demangled.starts_with("_Z");
    let named = is_left.then(|| find_function_name(name)).flatten();
    // What the demangler writes for an empty pack.
    named.as_deref().unwrap_or(&demangled).replace(", >", ">")
}

/// The function's own name from a mangled one whose return type or parameters the demangler does not understand
/// (`sr` of the Itanium C++ ABI 5.1.6, as in `std::make_shared`): the longest part that is a whole name.
fn find_function_name(mangled: &str) -> Option<String> {
    let ends = mangled.char_indices().filter(|&(_, letter)| letter == 'E').map(|(at, _)| at + 1);
    let mut ends: Vec<_> = ends.collect();
    ends.reverse();
    ends.into_iter().find_map(|end| {
        // Returning nothing, taking nothing.
        let completed = format!("{}vv", &mangled[..end]);
        let demangled = addr2line::demangle_auto(completed.as_str().into(), None);
        let name = demangled.rsplit_once('(').map_or(&*demangled, |(name, _)| name);
        (!demangled.starts_with("_Z")).then(|| name.strip_prefix("void ").unwrap_or(name).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u64, u64, &str, u8)]) -> SymbolTable {
        let mut table = SymbolTable::default();
        for &(start, end, name, rank) in entries {
            table.entries.push(Entry { start, end, kind: SymbolKind::Function, name: name.into(), rank });
        }
        table.finish();
        table
    }

    #[test]
    fn only_addresses_inside_a_symbol_have_its_name() {
        let table = table(&[(10, 20, "f", 0), (30, 40, "g", 0)]);
        let name = |address| table.find(address).map(|symbol| (symbol.name, symbol.offset));
        assert_eq!(name(10), Some(("f".into(), 0)));
        assert_eq!(name(19), Some(("f".into(), 9)));
        assert_eq!(name(20), None);
        assert_eq!(name(9), None);
        assert_eq!(name(35), Some(("g".into(), 5)));
    }

    #[test]
    fn of_several_names_the_public_one_without_underscores_is_given() {
        let table = table(&[(10, 20, "__f", 2), (10, 20, "f", 0), (10, 20, "local_f", 8)]);
        assert_eq!(table.find(12).unwrap().name, "f");
    }

    #[test]
    fn a_function_without_a_size_ends_where_the_next_begins() {
        let table = table(&[(10, 100, "start", 0), (50, 60, "next", 0)]);
        assert_eq!(table.find(49).unwrap().name, "start");
        assert_eq!(table.find(55).unwrap().name, "next");
        assert_eq!(table.find(70), None);
    }

    #[test]
    fn names_are_demangled_and_lose_their_version() {
        assert_eq!(demangle("_ZN3foo3barEi"), "foo::bar(int)");
        assert_eq!(demangle("memcpy@@GLIBC_2.14"), "memcpy");
        // g++ 12's std::make_shared<N>(): its return type is more than the demangler knows.
        let shared = "_ZSt11make_sharedI1NJEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES4_E4typeEEDpOT0_";
        assert_eq!(demangle(shared), "std::make_shared<N>");
        assert_eq!(
            demangle("_ZNK1XclIiEENSt9enable_ifIXsrSt7is_sameIT_iE5valueEvE4typeEPS2_"),
            "X::operator()<int>"
        );
        assert_eq!(demangle("_ZEEEE"), "_ZEEEE");
        assert_eq!((demangle("main"), demangle("f")), ("main".into(), "f".into()));
    }
}
