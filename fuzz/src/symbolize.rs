//! Any file as a module whose addresses are to be named.
//!
//! Oracle: a place is only the last of its list when it is not inlined; a symbol covers the address, and its name stands
//! in the file. Time and memory are bounded by who runs this.

use std::{ffi::OsStr, io::Write};

use memcheck_symbolize::{ModuleFile, Symbolizer};

use crate::fixture::{library, with_section};

/// The whole input is the file.
pub fn run(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("room for a file");
    let module = ModuleFile { path: OsStr::new(file.path()), build_id: &[] };
    let mut symbolizer = Symbolizer::default();
    let entry = data.get(24..32).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let places = (0..0x80).map(|at| 0x280 + at * 12).chain([0, entry, 0x4008, i64::MAX as u64, u64::MAX]);
    for address in places {
        let places = symbolizer.locations(module, address);
        if let Some((last, inlined)) = places.split_last() {
            assert!(!last.inlined && inlined.iter().all(|place| place.inlined), "{places:?}");
        }
        assert!(places.iter().all(|place| place.line != Some(0) && place.column != Some(0)), "{places:?}");
        if let Some(symbol) = symbolizer.named(module, address) {
            assert!(symbol.offset < symbol.size, "{symbol:?}");
            let name = symbol.linkage_name.as_bytes();
            assert!(data.windows(name.len()).any(|window| window == name), "{symbol:?}");
            let start = symbolizer.address(module, &symbol.linkage_name);
            assert!(start.is_some(), "{symbol:?}");
        }
    }
    let _ = Symbolizer::has_lines(file.path());
}

/// A library in each way that debug information is kept in it.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let ways: [&[&str]; 5] = [
        &["-g", "-O1"],
        &["-gdwarf-4", "-O2", "-fno-asynchronous-unwind-tables"],
        &["-g", "-O1", "-gz"],
        &["-O1", "-Wl,--build-id"],
        &["-g", "-O1", "-fdebug-types-section", "-gdwarf-4"],
    ];
    let mut seeds: Vec<Vec<u8>> = ways.iter().map(|options| library(options)).collect();
    // A device as the debug file: reading it never ends.
    let link = [b"../../../../../../../../dev/zero\0\0\0\0".as_slice(), &[1; 4]].concat();
    seeds.push(with_section(&library(&["-s", "-Wl,--build-id=none"]), ".gnu_debuglink", &link));
    seeds
}
