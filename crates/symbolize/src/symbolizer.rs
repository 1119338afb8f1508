//! Modules by file, each opened once, and the answers they give.

use std::{
    cell::OnceCell,
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use addr2line::Loader;
use goblin::elf::Elf;

use crate::{
    NamedSymbol, SymbolKind, debug_file,
    symbol_table::{SymbolTable, demangle},
};

/// The file that a module was loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleFile<'a> {
    /// Its path.
    pub path: &'a OsStr,
    /// The build-id that the loaded module bears, or nothing.
    pub build_id: &'a [u8],
}

/// One place in the source, of a call or of a call that was inlined there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The function, demangled.
    pub function: Option<String>,
    /// The function as the linker knows it.
    pub linkage_name: Option<String>,
    /// The path of the source file.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
    /// Whether this was inlined into the next location's function.
    pub inlined: bool,
}

/// `std::bad_alloc`'s name in its type information (Itanium C++ ABI, 2.9.5), which is defined where its code is.
const BAD_ALLOC: &[u8] = b"\0St9bad_alloc\0";

#[derive(Default)]
struct Module {
    dwarf: Option<Loader>,
    symbols: SymbolTable,
    thread_locals: SymbolTable,
    has_own_operators: OnceCell<bool>,
}

/// Answers for all modules of a run.
#[derive(Default)]
pub struct Symbolizer {
    modules: HashMap<(OsString, Vec<u8>), Module>,
}

impl Symbolizer {
    /// The locations of the instruction at `address` (as the file states it), innermost first; the last is not
    /// inlined. Empty when nothing is known.
    pub fn locations(&mut self, file: ModuleFile<'_>, address: u64) -> Vec<Location> {
        self.module(file).locations(address)
    }

    /// The function or variable that `address` (as the file states it) lies in.
    pub fn named(&mut self, file: ModuleFile<'_>, address: u64) -> Option<NamedSymbol> {
        self.module(file).symbols.find(address)
    }

    /// The thread-local variable that lies so many bytes from the start of the file's thread-local storage.
    pub fn thread_local(&mut self, file: ModuleFile<'_>, offset: u64) -> Option<NamedSymbol> {
        self.module(file).thread_locals.find(offset)
    }

    /// Where the function or variable of this name, as the linker knows it, begins in the file.
    pub fn address(&mut self, file: ModuleFile<'_>, linkage_name: &str) -> Option<u64> {
        self.module(file).symbols.address(linkage_name)
    }

    /// Whether the file has C++'s `operator new` or `operator delete` of its own: by their names, or, stripped, by the
    /// name of the exception that `operator new` throws, which comes with a C++ library that is linked in.
    pub fn has_own_operators(&mut self, file: ModuleFile<'_>) -> bool {
        let module = self.module(file);
        let has_library = || {
            let bytes = fs::read(Path::new(file.path)).unwrap_or_default();
            bytes.windows(BAD_ALLOC.len()).any(|window| window == BAD_ALLOC)
        };
        let is_defined = |name| module.symbols.address(name).is_some();
        *module
            .has_own_operators
            .get_or_init(|| ["_Znwm", "_ZdlPv"].into_iter().any(is_defined) || has_library())
    }

    /// Whether the program or library at this path has source lines, in the file itself or in its debug file.
    #[must_use]
    pub fn has_lines(path: &Path) -> bool {
        let lines = |bytes: &[u8]| {
            Elf::parse(bytes).is_ok_and(|elf| {
                let mut names =
                    elf.section_headers.iter().filter_map(|header| elf.shdr_strtab.get_at(header.sh_name));
                names.any(|name| matches!(name, ".debug_line" | ".zdebug_line"))
            })
        };
        let Ok(bytes) = fs::read(path) else { return false };
        let separate = Elf::parse(&bytes).ok().and_then(|elf| debug_file::find(path, &elf, &bytes));
        lines(&bytes) || separate.and_then(|path| fs::read(path).ok()).is_some_and(|bytes| lines(&bytes))
    }

    fn module(&mut self, file: ModuleFile<'_>) -> &Module {
        self.modules
            .entry((file.path.to_owned(), file.build_id.to_vec()))
            .or_insert_with(|| Module::open(Path::new(file.path), file.build_id))
    }
}

impl Module {
    /// What can be had of the module's file and its debug files; nothing when the file is another one by now.
    fn open(path: &Path, build_id: &[u8]) -> Self {
        Self::try_open(path, build_id).unwrap_or_default()
    }

    fn try_open(path: &Path, loaded_id: &[u8]) -> Option<Self> {
        // A path of the kernel's (the vdso) or of a deleted file names none.
        let bytes =
            fs::metadata(path).ok().filter(fs::Metadata::is_file).and_then(|_| fs::read(path).ok())?;
        let elf = Elf::parse(&bytes).ok()?;
        if debug_file::build_id(&elf, &bytes).is_some_and(|id| !loaded_id.is_empty() && id != loaded_id) {
            return None;
        }
        let (mut symbols, mut thread_locals) = (SymbolTable::default(), SymbolTable::default());
        symbols.add(&elf);
        thread_locals.add_thread_locals(&elf);
        let separate = debug_file::find(path, &elf, &bytes);
        let dwarf = match &separate {
            None => load(path, &elf, &bytes),
            Some(path) => fs::read(path).ok().and_then(|bytes| {
                let elf = Elf::parse(&bytes).ok()?;
                symbols.add(&elf);
                thread_locals.add_thread_locals(&elf);
                load(path, &elf, &bytes)
            }),
        };
        symbols.finish();
        thread_locals.finish();
        Some(Self { dwarf, symbols, thread_locals, has_own_operators: OnceCell::new() })
    }

    fn locations(&self, address: u64) -> Vec<Location> {
        let mut locations = self.dwarf_locations(address);
        let symbol = || self.symbols.find(address).filter(|symbol| symbol.kind == SymbolKind::Function);
        if locations.is_empty() {
            locations.extend(symbol().map(|_| Location::default()));
        }
        // Debugging information may have a library's inner name, such as `__GI___libc_write`.
        let is_inner = |name: &String| name.starts_with('_');
        if let Some(last) = locations.last_mut()
            && last.function.as_ref().is_none_or(is_inner)
            && let Some(symbol) = symbol()
            && (last.function.is_none() || !is_inner(&symbol.name))
        {
            last.function = Some(symbol.name);
            last.linkage_name = Some(symbol.linkage_name);
        }
        locations
    }

    fn dwarf_locations(&self, address: u64) -> Vec<Location> {
        let mut locations = Vec::new();
        let Some(mut frames) = self.dwarf.as_ref().and_then(|dwarf| dwarf.find_frames(address).ok()) else {
            return locations;
        };
        // A broken entry ends the list; what came before stands.
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            let raw_name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
            locations.push(Location {
                function: raw_name.as_deref().map(demangle),
                linkage_name: raw_name.map(|name| name.into_owned()),
                file: location.and_then(|location| location.file).map(str::to_owned),
                line: location.and_then(|location| location.line).filter(|&line| line > 0),
                column: location.and_then(|location| location.column).filter(|&column| column > 0),
                inlined: true,
            });
        }
        if let Some(last) = locations.last_mut() {
            last.inlined = false;
        }
        locations
            .retain(|location| location.function.is_some() || location.file.is_some() || !location.inlined);
        locations
    }
}

fn load(path: &Path, elf: &Elf<'_>, bytes: &[u8]) -> Option<Loader> {
    Loader::new_with_sup(path, debug_file::find_supplement(path, elf, bytes)).ok()
}
