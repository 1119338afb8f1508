//! A short hash that names a defect across runs, machines and small edits of the source.
//!
//! It covers the finding's id and, of the top frames, the functions' names and the modules' file names; not
//! addresses, lines, columns, paths, sizes or counts, which change when the defect does not.

use crate::Frame;

/// Frames that count. More would tell apart the many callers of one faulty function.
const TOP_FRAMES: usize = 5;

/// FNV-1a, 64 bits: stable by definition, unlike the standard library's hasher.
struct Fnv(u64);

impl Fnv {
    fn text(&mut self, text: &str) {
        for &byte in text.as_bytes().iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// The fingerprint of a finding with this id and stack.
#[must_use]
pub(crate) fn fingerprint(id: &str, stack: &[Frame]) -> String {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.text(id);
    for frame in stack.iter().take(TOP_FRAMES) {
        hash.text(frame.function.as_deref().unwrap_or(""));
        hash.text(frame.module_name().unwrap_or(""));
    }
    format!("{:016x}", hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::Addr;

    fn frame(function: &str, module: &str, line: u32) -> Frame {
        Frame {
            pc: Addr(u64::from(line) * 7),
            function: Some(function.into()),
            module: Some(module.into()),
            line: Some(line),
            ..Frame::default()
        }
    }

    #[test]
    fn shifted_lines_addresses_and_directories_keep_the_fingerprint() {
        let one = fingerprint("double-free", &[frame("f", "/a/prog", 3), frame("main", "/a/prog", 9)]);
        let two = fingerprint("double-free", &[frame("f", "/b/prog", 4), frame("main", "/b/prog", 10)]);
        assert_eq!(one, two);
        assert_eq!(one.len(), 16);
    }

    #[test]
    fn another_id_function_or_module_changes_it() {
        let one = fingerprint("double-free", &[frame("f", "prog", 3)]);
        assert_ne!(one, fingerprint("bad-free", &[frame("f", "prog", 3)]));
        assert_ne!(one, fingerprint("double-free", &[frame("g", "prog", 3)]));
        assert_ne!(one, fingerprint("double-free", &[frame("f", "other", 3)]));
    }

    #[test]
    fn frames_far_down_do_not_count() {
        let stack = |bottom| {
            let mut frames = vec![frame("f", "prog", 1); TOP_FRAMES];
            frames.push(frame(bottom, "prog", 1));
            frames
        };
        assert_eq!(fingerprint("bad-free", &stack("a")), fingerprint("bad-free", &stack("b")));
    }
}
