//! Landing pads: where a function goes on when an exception passes through it, as the call-site table of its
//! language-specific data area says. GCC and LLVM write the same for C++, for cleanups in C, for Rust, D, Ada and
//! Objective-C (Itanium C++ ABI: Exception Handling Tables; GCC's `eh_personality.cc`, `parse_lsda_header`).

use gimli::{EndianSlice, LittleEndian, Pointer, Reader, constants};

use crate::UnwindInfo;

impl UnwindInfo<'_> {
    /// Calls `each` with the address of every landing pad of the function that is entered at `start`. `bytes_from`
    /// gives what lies from an address to the end of its segment. `None` if there may be more of them: the table is of
    /// another kind, or broken.
    pub fn for_each_landing_pad<'m>(
        &self,
        start: u64,
        bytes_from: impl Fn(u64) -> Option<&'m [u8]>,
        each: impl FnMut(u64),
    ) -> Option<()> {
        let Some((function, table)) = self.find_exception_table(start)? else { return Some(()) };
        let mut bytes = EndianSlice::new(bytes_from(table)?, LittleEndian);
        let base = match constants::DwEhPe(bytes.read_u8().ok()?) {
            constants::DW_EH_PE_omit => function,
            encoding => read_number(&mut bytes, encoding)?,
        };
        if constants::DwEhPe(bytes.read_u8().ok()?) != constants::DW_EH_PE_omit {
            // How far it is to the types that are caught.
            bytes.read_uleb128().ok()?;
        }
        let encoding = constants::DwEhPe(bytes.read_u8().ok()?);
        let len = usize::try_from(bytes.read_uleb128().ok()?).ok()?;
        for_each_in(bytes.split(len).ok()?, encoding, base, each)
    }

    /// The start of the function that holds `pc`, and the address of its language-specific data area; an inner `None`
    /// where it has none.
    fn find_exception_table(&self, pc: u64) -> Option<Option<(u64, u64)>> {
        // Through what no entry covers no exception passes.
        let Some(fde) = self.find_entry(pc)? else { return Some(None) };
        let at = match fde.lsda() {
            None => return Some(None),
            Some(Pointer::Direct(at)) => at,
            Some(Pointer::Indirect(_)) => return None,
        };
        // Zero means that there is none, whatever it is relative to: then it leads into the entry itself.
        let entry = self.frames_addr + fde.offset() as u64;
        let is_none = at == 0 || (entry..=entry + fde.entry_len() as u64 + 4).contains(&at);
        Some((!is_none).then(|| (fde.initial_address(), at)))
    }
}

/// The landing pads in a call-site table; places count from `base`.
fn for_each_in(
    mut table: EndianSlice<'_, LittleEndian>,
    encoding: constants::DwEhPe,
    base: u64,
    mut each: impl FnMut(u64),
) -> Option<()> {
    while !table.is_empty() {
        let [_start, _len, pad] = [(); 3].map(|()| read_number(&mut table, encoding));
        let _action = table.read_uleb128().ok()?;
        match pad? {
            0 => {}
            pad => each(base.wrapping_add(pad)),
        }
    }
    Some(())
}

/// A number that is relative to nothing.
fn read_number(bytes: &mut EndianSlice<'_, LittleEndian>, encoding: constants::DwEhPe) -> Option<u64> {
    match encoding {
        constants::DW_EH_PE_absptr | constants::DW_EH_PE_udata8 | constants::DW_EH_PE_sdata8 => {
            bytes.read_u64().ok()
        }
        constants::DW_EH_PE_uleb128 => bytes.read_uleb128().ok(),
        constants::DW_EH_PE_udata4 => bytes.read_u32().ok().map(u64::from),
        constants::DW_EH_PE_udata2 => bytes.read_u16().ok().map(u64::from),
        _ => None,
    }
}
