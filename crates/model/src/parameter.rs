//! What a parameter of a system call is called in a report.
//!
//! Invariant: a name is at most [`ParameterName::MAX_BYTES`] letters, digits and `_ . [ ]`.

use core::fmt;

/// A parameter, or the part of one that a pointer in it leads to: `buf`, `msg.msg_iov[1]`. Cut when it is too long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParameterName {
    bytes: [u8; Self::MAX_BYTES],
    len: u8,
}

impl ParameterName {
    /// As long as the longest name that the table of system calls can make.
    pub const MAX_BYTES: usize = 47;

    const EMPTY: Self = Self { bytes: [0; Self::MAX_BYTES], len: 0 };

    /// The name with this text, as far as it fits.
    #[must_use]
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut name = Self::EMPTY;
        let _ = fmt::write(&mut name, text);
        name
    }

    /// The name as another process told it, unless it cannot be one.
    #[must_use]
    pub fn find_in(bytes: &[u8]) -> Option<Self> {
        let mut name = Self::EMPTY;
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        name.len = bytes.len() as u8;
        bytes.iter().all(|&byte| is_allowed(byte)).then_some(name)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.[]".contains(&byte)
}

impl fmt::Write for ParameterName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|&byte| is_allowed(byte)) {
            if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
                *place = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_name_is_cut_and_holds_nothing_but_a_name() {
        assert_eq!(ParameterName::new(format_args!("{}[{}]", "iov", 12)).to_string(), "iov[12]");
        let long = ParameterName::new(format_args!("{:060}", 1));
        assert_eq!(long.as_str().len(), ParameterName::MAX_BYTES);
        assert_eq!(
            ParameterName::find_in(b"msg.msg_name").map(|name| name.to_string()).as_deref(),
            Some("msg.msg_name")
        );
        assert_eq!(ParameterName::find_in(b"\x1b[2J"), None);
        assert_eq!(ParameterName::find_in(&[b'a'; 60]), None);
    }
}
