//! What system calls and their parameters are called.

use memcheck_model::{Detail, ErrorEvent};

/// The name, or the number in words.
#[must_use]
pub(crate) fn name(number: u32) -> String {
    memcheck_syscalls::find_call(number.into())
        .map_or_else(|| format!("system call {number}"), |call| call.name.to_owned())
}

/// The parameter of a system call that the event is about, as suppressions name it: `write(buf)`.
#[must_use]
pub fn parameter(event: &ErrorEvent<'_>) -> Option<String> {
    match event.detail {
        Detail::Syscall { number, parameter, .. } => Some(format!("{}({parameter})", name(number))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_names() {
        assert_eq!(name(0), "read");
        assert_eq!(name(59), "execve");
        assert_eq!(name(99_999), "system call 99999");
    }
}
