//! What the C and C++ runtime libraries keep for themselves: where their variables lie, and whether a block was
//! allocated by them.
//!
//! libc's buffers of standard streams, its locales, its resolver's state, the loader's lists, libstdc++'s pool for
//! exceptions: a program cannot free these, so they are counted apart. The list of open streams is taken as the
//! program's: a `FILE` that only this list holds was opened and never closed.

use alloc::vec::Vec;

use memcheck_model::{Addr, AddrRange, Pc, Size};

use crate::{glib::Conventions, libc_symbols, modules};

const FILES: [&[u8]; 3] = [b"libc.so.6", b"ld-linux-x86-64.so.2", b"libstdc++.so.6"];

/// The runtime libraries in this process.
pub struct RuntimeLibraries {
    /// From each library's first byte to its last, the program's copy of `environ` if it has one, and what threads
    /// have of the libraries' thread-local variables.
    pub ranges: Vec<AddrRange>,
    /// The variable that holds the list of open streams.
    pub open_streams: Option<AddrRange>,
    /// The function that makes the nodes of search trees: it points to them with a colour in the lowest bit.
    pub tree_maker: Option<AddrRange>,
    /// How GLib points to its blocks, if it is there.
    pub glib: Option<Conventions>,
    /// The functions whose blocks are their caller's.
    givers: Vec<AddrRange>,
    /// The functions that run what is to be run at exit, and do not return.
    pub exits: Vec<AddrRange>,
}

/// What the nodes of search trees take: a key and two children (misc/tsearch.c).
pub const TREE_NODE: Size = Size(24);

impl RuntimeLibraries {
    /// Finds them by the names of their files.
    pub fn find() -> Self {
        let loader = libc_symbols::find_loader();
        let linked = loader.into_iter().flat_map(libc_symbols::Loader::modules);
        let linked = linked.filter(|linked| FILES.contains(&linked.file()));
        let ranges = linked.filter_map(|linked| modules::find(linked.dynamic)).map(|module| module.range);
        let ranges = ranges.chain(loader.and_then(copied_environ)).collect();
        let libc = libc_symbols::find_libc();
        let streams = libc.as_ref().and_then(|libc| libc.find(b"_IO_list_all"));
        let open_streams = streams.and_then(|entry| AddrRange::new(Addr(entry.start), Size(8)));
        let function = |name: &&[u8]| {
            let entry = libc.as_ref()?.find(name)?;
            AddrRange::new(Addr(entry.start), Size(entry.size))
        };
        let functions = |names: &[&[u8]]| names.iter().filter_map(function).collect();
        Self {
            ranges,
            open_streams,
            tree_maker: function(&&b"tsearch"[..]),
            glib: Conventions::find(),
            givers: functions(&[b"strdup", b"strndup"]),
            exits: functions(&[b"exit", b"quick_exit"]),
        }
    }

    /// Whether a block with this allocation stack is one that a runtime library made for itself.
    pub fn made(&self, stack: &[Pc]) -> bool {
        let contain = |pc: &Pc| self.contain(Addr(pc.0));
        match stack {
            // It was allocated before the shim began: by constructors of libraries, who then hold it.
            [] => true,
            [giver, callers @ ..] if self.givers.iter().any(|range| range.contains(Addr(giver.0))) => {
                callers.first().is_some_and(contain)
            }
            [maker, ..] => contain(maker),
        }
    }

    /// Whether `addr` lies in one of them.
    pub fn contain(&self, addr: Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(addr))
    }

    /// Gives `range` to `library` where it lies in one of them, and else to `program`.
    pub fn split(
        &self,
        range: AddrRange,
        program: &mut impl FnMut(AddrRange),
        library: &mut impl FnMut(AddrRange),
    ) {
        let mut from = range.start();
        let mut give = |to: Addr, take: &mut dyn FnMut(AddrRange)| {
            if let Some(part) = AddrRange::between(from, to).filter(|part| !part.is_empty()) {
                take(part);
            }
            from = from.max(to);
        };
        let mut inside: Vec<&AddrRange> = self
            .ranges
            .iter()
            .filter(|library| library.start() < range.end() && range.start() < library.end())
            .collect();
        inside.sort_unstable_by_key(|library| library.start());
        for part in inside {
            give(part.start(), program);
            let end = part.end().min(range.end());
            if let Some(streams) = self.open_streams.filter(|streams| part.contains(streams.start())) {
                give(streams.start().min(end), library);
                give(streams.end().min(end), program);
            }
            give(end, library);
        }
        give(range.end(), program);
    }
}

/// The variable `environ` in the program, which the loader puts in the place of libc's where the program names it.
fn copied_environ(loader: libc_symbols::Loader) -> Option<AddrRange> {
    let program = loader.modules().next()?;
    let symbols = libc_symbols::Symbols::read(program.bias, program.dynamic)?;
    let entry = [&b"environ"[..], b"__environ", b"_environ"].iter().find_map(|name| symbols.find(name))?;
    AddrRange::new(Addr(entry.start), Size(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> AddrRange {
        AddrRange::between(Addr(start), Addr(end)).unwrap()
    }

    fn libraries() -> RuntimeLibraries {
        RuntimeLibraries {
            ranges: [range(0x1000, 0x3000)].into(),
            open_streams: Some(range(0x2008, 0x2010)),
            tree_maker: None,
            glib: None,
            givers: [range(0x1100, 0x1200)].into(),
            exits: Vec::new(),
        }
    }

    #[test]
    fn what_strdup_gives_is_its_callers() {
        let made = |stack: &[u64]| libraries().made(&stack.iter().map(|&pc| Pc(pc)).collect::<Vec<_>>());
        assert!(made(&[]) && made(&[0x1000]) && made(&[0x1000, 0x5000]) && made(&[0x1100, 0x1000, 0x5000]));
        assert!(!made(&[0x5000]) && !made(&[0x1100, 0x5000]) && !made(&[0x1100]));
    }

    #[test]
    fn the_list_of_open_streams_is_the_programs() {
        let libraries = libraries();
        let split = |whole| {
            let (mut program, mut library) = (Vec::new(), Vec::new());
            libraries.split(whole, &mut |part| program.push(part), &mut |part| library.push(part));
            (program, library)
        };
        assert_eq!(
            split(range(0x2000, 0x4000)),
            (
                [range(0x2008, 0x2010), range(0x3000, 0x4000)].into(),
                [range(0x2000, 0x2008), range(0x2010, 0x3000)].into()
            )
        );
        assert_eq!(split(range(0x3000, 0x4000)), ([range(0x3000, 0x4000)].into(), Vec::new()));
        assert_eq!(split(range(0x1000, 0x2000)), (Vec::new(), [range(0x1000, 0x2000)].into()));
    }
}
