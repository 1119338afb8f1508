//! From addresses in a watched process to frames with names.

use memcheck_model::{Addr, Function, Pc};
use memcheck_report::{Frame, NamedAddress, PathMap, Symbol};
use memcheck_suppress::FrameNames;
use memcheck_symbolize::{Location, ModuleFile, NamedSymbol, SymbolKind, Symbolizer, demangle};

use crate::{
    progress::Spinner,
    tree::{MappedModule, Watched},
};

/// Whether the first address of a stack is the instruction itself or a return address, as the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// The instruction that erred.
    Exact,
    /// A return address.
    Return,
}

/// A frame, and the name that the linker knows its function by: suppressions may use either.
#[derive(Clone, Debug, Default)]
pub struct NamedFrame {
    /// The frame.
    pub frame: Frame,
    /// The linker's name.
    pub linkage_name: Option<String>,
}

impl NamedFrame {
    /// What suppressions are held against.
    pub fn names(&self) -> FrameNames<'_> {
        FrameNames {
            function: self.frame.function.as_deref(),
            linkage_name: self.linkage_name.as_deref(),
            object: self.frame.module.as_deref(),
            file: self.frame.file.as_deref(),
            line: self.frame.line,
        }
    }
}

/// How frames are shown.
#[derive(Clone, Debug)]
pub struct NameStyle {
    /// Names of C++ as the source has them, not as the linker has them.
    pub demangled: bool,
    /// Inlined calls as frames of their own.
    pub inlined: bool,
    /// Where source files are.
    pub path_maps: Vec<PathMap>,
}

/// Looks names up.
pub struct Names {
    symbolizer: Symbolizer,
    style: NameStyle,
}

/// The function that the code is in, at the place that it comes from.
fn merge_inlined(mut locations: Vec<Location>) -> Option<Location> {
    let outer = locations.pop()?;
    Some(match locations.into_iter().next() {
        Some(inner) => Location { file: inner.file, line: inner.line, column: inner.column, ..outer },
        None => outer,
    })
}

/// The module's file, to the symbolizer.
fn file(module: &MappedModule) -> ModuleFile<'_> {
    ModuleFile { path: &module.path, build_id: &module.build_id }
}

impl Names {
    /// Nothing looked up yet.
    pub fn new(style: NameStyle) -> Self {
        Self { symbolizer: Symbolizer::default(), style }
    }

    /// The frames as they are shown.
    pub fn shown(&self, stack: &[NamedFrame]) -> Vec<Frame> {
        let shown = |named: &NamedFrame| {
            let mut frame = named.frame.clone();
            if !self.style.demangled && named.linkage_name.is_some() {
                frame.function.clone_from(&named.linkage_name);
            }
            frame
        };
        stack.iter().map(shown).collect()
    }

    /// The frames of a stack: one for each address, more where calls were inlined.
    pub fn frames(&mut self, process: &Watched, stack: &[Pc], top: Top) -> Vec<NamedFrame> {
        let _progress = Spinner::start("looking up names");
        let mut frames = Vec::new();
        for (index, &pc) in stack.iter().enumerate() {
            let is_exact = index == 0 && top == Top::Exact;
            let lookup = if is_exact { pc } else { pc.call_site() };
            let Some(module) = process.find_module_of(lookup) else {
                let frame = Frame { pc: Addr(pc.0), ..Frame::default() };
                frames.push(NamedFrame { frame, linkage_name: None });
                continue;
            };
            let bare = Frame {
                pc: pc.addr(),
                module: Some(module.path.to_string_lossy().into_owned()),
                offset: Some(pc.addr().0.wrapping_sub(module.bias)),
                ..Frame::default()
            };
            let offset = lookup.addr().0.wrapping_sub(module.bias);
            let mut locations = self.symbolizer.locations(file(module), offset);
            if locations.is_empty() {
                frames.push(NamedFrame { frame: bare, linkage_name: None });
                continue;
            }
            if !self.style.inlined {
                locations = merge_inlined(locations).into_iter().collect();
            }
            for file in locations.iter_mut().filter_map(|location| location.file.as_mut()) {
                PathMap::apply(&self.style.path_maps, file);
            }
            frames.extend(locations.into_iter().map(|location| NamedFrame {
                frame: Frame {
                    function: location.function,
                    file: location.file,
                    line: location.line,
                    column: location.column,
                    inlined: location.inlined,
                    ..bare.clone()
                },
                linkage_name: location.linkage_name,
            }));
        }
        frames
    }

    /// The frame of a function that the program called and that reports about: ours, or the C library's.
    pub fn function(&mut self, process: &Watched, function: Function) -> Frame {
        let name = function.linkage_name();
        let mut modules: Vec<&MappedModule> =
            process.modules.iter().filter(|module| module.is_mapped && module.can_hold_functions()).collect();
        modules.sort_by_key(|module| !module.is_shim());
        let found = modules
            .into_iter()
            .find_map(|module| Some((module, self.symbolizer.address(file(module), name)?)));
        let shown = if self.style.demangled { demangle(name) } else { name.to_owned() };
        let bare = Frame { function: Some(shown), ..Frame::default() };
        match found {
            Some((module, offset)) => Frame {
                pc: Addr(module.bias.wrapping_add(offset)),
                module: Some(module.path.to_string_lossy().into_owned()),
                offset: Some(offset),
                ..bare
            },
            None => bare,
        }
    }

    /// Whether the module that the return address lies in has C++'s allocation functions of its own.
    pub fn has_own_operators(&mut self, process: &Watched, pc: Pc) -> bool {
        let module = process.find_module_of(pc.call_site());
        module.is_some_and(|module| !module.is_shim() && self.symbolizer.has_own_operators(file(module)))
    }

    /// The variable or function that an address of a module belongs to.
    pub fn named(&mut self, process: &Watched, address: Addr) -> Option<NamedAddress> {
        let module = process.find_module(address)?;
        let named = self.symbolizer.named(file(module), address.0.wrapping_sub(module.bias))?;
        Some(named_in(module, named))
    }

    /// The thread-local variable that a root of that kind stands in (see `memcheck_model::Root`).
    pub fn thread_local(&mut self, process: &Watched, address: Addr) -> Option<NamedAddress> {
        let module = process.find_module(address)?;
        let named = self.symbolizer.thread_local(file(module), address.0 - module.start.0)?;
        Some(named_in(module, named))
    }
}

fn named_in(module: &MappedModule, named: NamedSymbol) -> NamedAddress {
    NamedAddress {
        symbol: match named.kind {
            SymbolKind::Function => Symbol::Function,
            SymbolKind::Variable => Symbol::Variable,
        },
        name: named.name,
        offset: named.offset,
        size: named.size,
        module: module.path.to_string_lossy().into_owned(),
    }
}
