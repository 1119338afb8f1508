//! What the C and C++ runtime libraries keep for themselves: where their variables lie, and whether a block was
//! allocated by them.
//!
//! libc's buffers of standard streams, its locales, its resolver's state, the loader's lists, libstdc++'s pool for
//! exceptions: a program cannot free these, so they are counted apart. The list of open streams is taken as the
//! program's: a `FILE` that only this list holds was opened and never closed.

use alloc::vec::Vec;

use memcheck_model::{Addr, AddrRange, Size};

use crate::{libc_symbols, modules};

const FILES: [&[u8]; 3] = [b"libc.so.6", b"ld-linux-x86-64.so.2", b"libstdc++.so.6"];

/// The runtime libraries in this process.
pub struct RuntimeLibraries {
    /// From each library's first byte to its last.
    pub ranges: Vec<AddrRange>,
    /// The variable that holds the list of open streams.
    pub open_streams: Option<AddrRange>,
    /// The function that makes the nodes of search trees: it points to them with a colour in the lowest bit.
    pub tree_maker: Option<AddrRange>,
}

/// What the nodes of search trees take: a key and two children (misc/tsearch.c).
pub const TREE_NODE: Size = Size(24);

impl RuntimeLibraries {
    /// Finds them by the names of their files.
    pub fn find() -> Self {
        let loader = libc_symbols::find_loader();
        let linked = loader.into_iter().flat_map(libc_symbols::Loader::modules).filter(|linked| {
            FILES.contains(&linked.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default())
        });
        let ranges =
            linked.filter_map(|linked| modules::find(linked.dynamic)).map(|module| module.range).collect();
        let libc = libc_symbols::find_libc();
        let streams = libc.as_ref().and_then(|libc| libc.find(b"_IO_list_all"));
        let open_streams = streams.and_then(|entry| AddrRange::new(Addr(entry.start), Size(8)));
        let tree_maker = libc.as_ref().and_then(|libc| libc.find(b"tsearch"));
        let tree_maker = tree_maker.and_then(|entry| AddrRange::new(Addr(entry.start), Size(entry.size)));
        Self { ranges, open_streams, tree_maker }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_open_streams_is_the_programs() {
        let range = |start, end| AddrRange::between(Addr(start), Addr(end)).unwrap();
        let libraries = RuntimeLibraries {
            ranges: [range(0x1000, 0x3000)].into(),
            open_streams: Some(range(0x2008, 0x2010)),
            tree_maker: None,
        };
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
