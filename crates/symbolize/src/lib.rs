//! Names for addresses: from a module's file and an address stated in it to functions, inlined calls, source
//! lines and variables.
//!
//! In: a [`ModuleFile`] and an address as the file states it (the caller takes the load bias away). Out:
//! [`Location`]s, innermost first, or a [`NamedSymbol`]. DWARF is read by `addr2line` and `gimli` (split DWARF, packages,
//! supplementary files, compressed sections), ELF by `goblin`; what is ours is where debug files are looked for,
//! and which symbol covers an address.
//!
//! Invariant: a file that is missing, replaced, truncated or broken costs names, never more. Each is opened once.
#![forbid(unsafe_code)]

mod debug_file;
mod symbol_table;
mod symbolizer;

pub use symbol_table::{NamedSymbol, SymbolKind, demangle};
pub use symbolizer::{Location, ModuleFile, Symbolizer};
