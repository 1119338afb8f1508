//! Valgrind's words for an error, line by line, without the prefix of the lines.
//!
//! In: the event, and the finding that was made of it. Out: lines as `valgrind --tool=memcheck` prints them, which
//! tools look for with regular expressions.

use memcheck_model::{AccessKind, BlockState, Detail, ErrorEvent, ErrorKind, Function, LeakKind, Pc, Place};
use memcheck_report::{Finding, Frame};

use crate::{demand::Loss, findings::Occurrence};

/// A number with commas between its thousands.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How frames are written.
#[derive(Clone, Debug)]
pub struct Frames {
    /// What is cut from the front of full paths; none: base names only.
    pub full_paths: Vec<String>,
    /// How many a stack has at most.
    pub most: usize,
}

impl Frames {
    fn path<'a>(&self, file: &'a str) -> &'a str {
        if self.full_paths.is_empty() {
            return file.rsplit('/').next().unwrap_or(file);
        }
        let cut = |prefix: &String| {
            (!prefix.is_empty())
                .then(|| file.find(prefix.as_str()).map(|at| &file[at + prefix.len()..]))
                .flatten()
        };
        self.full_paths.iter().find_map(cut).unwrap_or(file)
    }

    fn describe(&self, frame: &Frame, at: u64) -> String {
        let function = frame.function.as_deref().unwrap_or("???");
        let place = match (&frame.file, frame.line, &frame.module) {
            (Some(file), Some(line), _) => format!(" ({}:{line})", self.path(file)),
            (_, _, Some(module)) => format!(" (in {module})"),
            _ => String::new(),
        };
        format!("0x{at:X}: {function}{place}")
    }

    /// A stack, below the function that was called.
    pub fn stack(&self, function: Option<&Frame>, frames: &[Frame]) -> Vec<String> {
        let mut top = None;
        function
            .into_iter()
            .chain(frames)
            .take(self.most)
            .map(|frame| {
                // Callers by the last byte of their calls; what is inlined in the first frame lies there.
                let is_top = *top.get_or_insert(frame.pc) == frame.pc;
                let at = if is_top { frame.pc.0 } else { Pc(frame.pc.0).call_site().0 };
                (at, frame)
            })
            .enumerate()
            .map(|(index, (at, frame))| {
                format!("   {} {}", if index == 0 { "at" } else { "by" }, self.describe(frame, at))
            })
            .collect()
    }

    /// An error.
    pub fn error(&self, finding: &Finding, occurrence: &Occurrence<'_>) -> Vec<String> {
        let event = occurrence.event;
        if event.kind == ErrorKind::FatalSignal {
            return self.fatal_signal(event, finding);
        }
        if matches!(event.kind, ErrorKind::FdDoubleClose | ErrorKind::FdUseAfterClose) {
            return self.closed_descriptor(event, finding);
        }
        let mut lines = vec![headline(event, finding)];
        lines.extend(self.stack(find(occurrence, event.function), &finding.stack));
        let has_address = !matches!(
            event.kind,
            ErrorKind::ParamOverlap
                | ErrorKind::BadSize
                | ErrorKind::BadAlignment
                | ErrorKind::UseOfUninitialised
        );
        if has_address {
            self.address(&mut lines, finding, occurrence);
        }
        if matches!(event.detail, Detail::Late(_)) {
            lines.push(" Found late, by what the write left behind".to_owned());
        }
        if matches!(event.detail, Detail::Signal { .. }) {
            lines.push(String::new());
            lines.extend(self.fatal_signal(event, finding));
        }
        lines
    }

    fn address(&self, lines: &mut Vec<String>, finding: &Finding, occurrence: &Occurrence<'_>) {
        let event = occurrence.event;
        let address = match (event.access, event.detail) {
            (Some(access), Detail::Syscall { offset, .. }) => access.addr.0.wrapping_add(offset),
            // A check tells the first bad byte, an access its own first.
            _ if event.kind == ErrorKind::ClientCheck => event.address.0,
            (Some(access), _) => access.addr.0,
            (None, _) => event.address.0,
        };
        let start = format!(" Address 0x{address:x} is");
        match event.place {
            Place::Block(block) => {
                let (base, size) = (block.start.0, block.size.0);
                // What is found late is where the damage is, not where the block was given.
                let address = match event.detail {
                    Detail::Late(damage) => base.wrapping_add_signed(damage.first),
                    _ => address,
                };
                let (distance, relation) = match address {
                    _ if address < base => (base - address, "before"),
                    _ if address - base >= size && (address != base || size == 0) => {
                        (address - base - size, "after")
                    }
                    _ => (address - base, "inside"),
                };
                let what = match (block.state, block.allocated_by) {
                    (BlockState::Freed, _) => "free'd",
                    (_, Function::MempoolAlloc | Function::CreateBlock) => "client-defined",
                    _ => "alloc'd",
                };
                lines.push(format!(
                    " Address 0x{address:x} is {} bytes {relation} a block of size {} {what}",
                    number(distance),
                    number(size)
                ));
                if block.state == BlockState::Freed {
                    lines.extend(self.stack(find(occurrence, block.freed_by), &finding.freed));
                    lines.push(" Block was alloc'd at".to_owned());
                }
                lines.extend(self.stack(find(occurrence, Some(block.allocated_by)), &finding.allocated));
            }
            Place::Stack(_) => lines.push(format!("{start} on thread 1's stack")),
            Place::Module => lines.push(match occurrence.named {
                Some(named) => {
                    format!("{start} {} bytes inside data symbol \"{}\"", number(named.offset), named.name)
                }
                None => format!("{start} in a mapped file"),
            }),
            _ => lines.push(format!("{start} not stack'd, malloc'd or (recently) free'd")),
        }
    }

    fn fatal_signal(&self, event: &ErrorEvent<'_>, finding: &Finding) -> Vec<String> {
        let Detail::Signal { number, code } = event.detail else { return vec![finding.message.clone()] };
        let name = nix::sys::signal::Signal::try_from(number).map_or("unknown", |signal| signal.as_str());
        let mut lines = vec![
            String::new(),
            format!("Process terminating with default action of signal {number} ({name})"),
        ];
        match (number, code) {
            (libc::SIGSEGV, 1) => {
                lines.push(format!(" Access not within mapped region at address 0x{:X}", event.address.0));
            }
            (libc::SIGSEGV, 2) => {
                lines.push(format!(" Bad permissions for mapped region at address 0x{:X}", event.address.0));
            }
            (libc::SIGSEGV, 0x80) => lines.push(" General Protection Fault".to_owned()),
            (libc::SIGBUS, _) => {
                lines.push(format!(" Non-existent physical address at address 0x{:X}", event.address.0))
            }
            (libc::SIGFPE, 1) => {
                lines.push(format!(" Integer divide by zero at address 0x{:X}", event.address.0))
            }
            (libc::SIGILL, _) => lines.push(format!(" Illegal opcode at address 0x{:X}", event.address.0)),
            _ => {}
        }
        lines.extend(self.stack(None, &finding.stack));
        lines
    }

    /// A descriptor that is used or closed after it was closed, in the words of later Valgrinds.
    fn closed_descriptor(&self, event: &ErrorEvent<'_>, finding: &Finding) -> Vec<String> {
        let number = event.address.0;
        let what = match event.kind {
            ErrorKind::FdDoubleClose => "is already closed",
            _ => "was closed already",
        };
        let mut lines = vec![format!("File descriptor {number}: {what}")];
        lines.extend(self.stack(None, &finding.stack));
        lines.push(" Previously closed".to_owned());
        lines.extend(self.stack(None, &finding.freed));
        if !finding.allocated.is_empty() {
            lines.push(" Originally opened".to_owned());
            lines.extend(self.stack(None, &finding.allocated));
        }
        lines
    }

    /// A descriptor left open, and an empty line.
    pub fn descriptor(&self, event: &ErrorEvent<'_>, finding: &Finding) -> Vec<String> {
        let number = event.address.0;
        let name = match event.detail {
            Detail::File(name) => String::from_utf8_lossy(name.as_bytes()).replace(char::is_control, "?"),
            _ => String::new(),
        };
        let headline = if name.starts_with('/') && !name.starts_with("/memfd:") {
            format!("Open file descriptor {number}: {name}")
        } else if name.starts_with("socket:") {
            format!("Open socket {number}:")
        } else {
            format!("Open file descriptor {number}:")
        };
        let mut lines = vec![headline];
        if event.kind == ErrorKind::FdInherited {
            lines.push("   <inherited from parent>".to_owned());
        } else {
            lines.extend(self.stack(None, &finding.stack));
        }
        lines.push(String::new());
        lines
    }

    /// A loss record, beside the search before if that is wanted.
    pub fn leak(&self, loss: &Loss, compares: bool) -> Vec<String> {
        let (leak, before) = (&loss.record, compares.then_some(&loss.before));
        let count = |now: u64, before: Option<u64>| format!("{}{}", number(now), change(now, before));
        let direct = count(leak.bytes, before.map(|before| before.bytes));
        let indirect = count(leak.indirect_bytes, before.map(|before| before.indirect_bytes));
        let all =
            count(leak.all_bytes(), before.map(|before| before.bytes.saturating_add(before.indirect_bytes)));
        let parts = if leak.indirect_blocks > 0 {
            format!(" ({direct} direct, {indirect} indirect)")
        } else {
            String::new()
        };
        let what = match leak.kind {
            LeakKind::Definite => "definitely lost",
            LeakKind::Indirect => "indirectly lost",
            LeakKind::Possible => "possibly lost",
            LeakKind::Reachable => "still reachable",
        };
        // The blocks of the record itself.
        let blocks = count(leak.blocks, before.map(|before| before.blocks));
        let (at, of) = loss.number;
        let mut lines = vec![format!(
            "{all}{parts} bytes in {blocks} blocks are {what} in loss record {} of {}",
            number(at.into()),
            number(of.into())
        )];
        lines.extend(self.stack(loss.function.as_ref(), &leak.stack));
        lines
    }
}

/// ` (+12)`: how a number differs from the one before.
pub fn change(now: u64, before: Option<u64>) -> String {
    match before {
        None => String::new(),
        Some(before) if now >= before => format!(" (+{})", number(now - before)),
        Some(before) => format!(" (-{})", number(before - now)),
    }
}

/// The frame of a function that the event names.
fn find<'a>(occurrence: &Occurrence<'a>, function: Option<Function>) -> Option<&'a Frame> {
    occurrence.functions.get(function?.name())
}

fn headline(event: &ErrorEvent<'_>, finding: &Finding) -> String {
    use ErrorKind as E;
    let name = event.function.map_or("malloc", Function::name);
    match (event.kind, event.detail) {
        (E::DoubleFree | E::BadFree | E::BadRealloc, _) => {
            "Invalid free() / delete / delete[] / realloc()".to_owned()
        }
        (E::AllocDeallocMismatch, _) => "Mismatched free() / delete / delete []".to_owned(),
        (E::ParamOverlap, Detail::Overlap { destination, source, size }) => {
            let takes_size = !matches!(
                name.trim_end_matches("_chk").trim_start_matches("__"),
                "strcpy" | "strcat" | "stpcpy"
            );
            let size = if takes_size { format!(", {size}") } else { String::new() };
            format!("Source and destination overlap in {name}(0x{destination:x}, 0x{source:x}{size})")
        }
        (E::BadSize, Detail::Sizes([size, _])) => format!(
            "Argument 'size' of function {name} has a fishy (possibly negative) value: {}",
            size.cast_signed()
        ),
        (E::BadAlignment, Detail::Alignment(alignment)) => {
            format!("Invalid alignment value: {alignment} (should be power of 2)")
        }
        (E::ReallocZero, _) => "realloc() with size 0".to_owned(),
        (E::ClientCheck, _) => "Unaddressable byte(s) found during client check request".to_owned(),
        (E::BadMempool, _) => "Illegal memory pool address".to_owned(),
        (E::HeapBufferOverflow | E::HeapUseAfterFree, Detail::Late(damage)) => {
            format!("Invalid write of size {}", damage.changed.0.max(1))
        }
        (E::SyscallParam, _) => match memcheck_report::syscall_parameter(event) {
            Some(parameter) => format!("Syscall param {parameter} points to unaddressable byte(s)"),
            None => finding.message.clone(),
        },
        (E::NullDereference | E::WildAccess, _) if event.access.is_none() => {
            "Jump to the invalid address stated on the next line".to_owned()
        }
        _ => match event.access {
            Some(access) if access.size.0 > 0 => {
                let operation = if access.kind == AccessKind::Read { "read" } else { "write" };
                format!("Invalid {operation} of size {}", access.size.0)
            }
            _ => finding.message.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_have_commas() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number).join(" "), "0 999 1,000 1,234,567");
    }

    #[test]
    fn paths_are_base_names_unless_asked_for() {
        let frames = |paths: &[&str]| Frames {
            full_paths: paths.iter().map(|&path| path.to_owned()).collect(),
            most: 1,
        };
        let file = "/home/joe/proj/src/a.c";
        assert_eq!(frames(&[]).path(file), "a.c");
        assert_eq!(frames(&[""]).path(file), file);
        assert_eq!(frames(&["/x/", "joe/proj/"]).path(file), "src/a.c");
    }
}
