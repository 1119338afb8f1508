//! Any file as the program to be started.
//!
//! Oracle: who is let through has what the check is for (64-bit x86, glibc's loader, segments inside the file); bytes
//! behind the end change nothing about that; a file that is told to be too short says for which length it is not.

use std::{fs::File, io::Write, os::unix::fs::FileExt};

use memcheck_cli::elf::{ElfRefusal, check};

/// Longer files are not made, whatever the headers say.
const MOST_BYTES: u64 = 1 << 24;

fn file(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(data).expect("room for a file");
    file
}

/// The whole input is the file.
pub fn run(data: &[u8]) {
    let (file, len) = (file(data), data.len() as u64);
    match check(&file, len) {
        Ok(()) => {
            assert_eq!((&data[..6], &data[18..20]), (&b"\x7fELF\x02\x01"[..], &[62, 0][..]));
            assert!(data.windows(8).any(|window| window == b"ld-linux"));
            file.write_all_at(&[0; 100], len).expect("room for a file");
            assert_eq!(check(&file, len + 100), Ok(()), "what follows the file's end is no part of it");
        }
        Err(ElfRefusal::Truncated { len: told, expected }) => {
            assert!(told == len && expected > len, "{told} {expected} {len}");
            if expected <= MOST_BYTES {
                file.set_len(expected).expect("room for a file");
                let again = check(&file, expected);
                let is_same =
                    matches!(again, Err(ElfRefusal::Truncated { expected: other, .. }) if other <= expected);
                assert!(!is_same, "{again:?}");
            }
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(!text.is_empty() && text.len() < 1000 + data.len() * 3, "{text}");
        }
    }
}

/// A program, and the same with a symbol table.
///
/// # Panics
/// When there is no shell.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let program = |options: &[&str]| {
        let interpreter = "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2";
        crate::fixture::library(&[&["-Wl,-e,outer", interpreter][..], options].concat())
    };
    vec![program(&["-s"]), program(&[])]
}
