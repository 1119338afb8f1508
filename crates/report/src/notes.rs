//! What else is worth knowing of a finding, a line each.

use memcheck_model::{AccessKind, BlockState, Detail, ErrorEvent, ErrorKind, Place};

use crate::frame::NamedAddress;
use crate::signal;
use crate::words::{Relation, block_phrase, bytes, dump, named_phrase};

/// The notes of one event in the process `pid`.
#[must_use]
pub(crate) fn notes(event: &ErrorEvent<'_>, pid: u32, named: Option<&NamedAddress>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(place) = place(event, named) {
        notes.push(place);
    }
    match event.detail {
        Detail::Late(damage) => {
            let content = &damage.content[..usize::from(damage.content_len).min(damage.content.len())];
            if !content.is_empty() {
                notes.push(format!("there now: {}", dump(content)));
            }
            notes.push(
                "found late, by what the write left behind: the stack is where it was noticed, not where it \
                 happened"
                    .to_owned(),
            );
        }
        Detail::Signal { number, code } if event.kind != ErrorKind::FatalSignal => {
            let name = signal::name(number).unwrap_or("a signal");
            notes.push(format!("{name} ended the program: {}", signal::reason(number, code)));
        }
        Detail::Syscall { parameter, offset, .. } if offset != 0 => {
            notes.push(format!("the first {offset} bytes that {parameter} leads to are in order"));
        }
        _ => {}
    }
    if let Place::Block(block) = event.place {
        let thread =
            |tid: u32| if tid == pid { "the main thread".to_owned() } else { format!("thread {tid}") };
        let (alloc, free) = (block.alloc_tid.0, block.free_tid.0);
        if alloc != 0 && alloc != event.tid.0 {
            notes.push(format!("the block was allocated by {}", thread(alloc)));
        }
        if block.state == BlockState::Freed && free != 0 && free != event.tid.0 {
            notes.push(format!("the block was freed by {}", thread(free)));
        }
    }
    notes
}

/// What the address is, where the message does not say it.
fn place(event: &ErrorEvent<'_>, named: Option<&NamedAddress>) -> Option<String> {
    match event.place {
        Place::Block(block) => {
            let addr = event.access.map_or(event.address, |access| access.addr);
            let size = event.access.map_or(0, |access| access.size.0);
            match event.detail {
                Detail::Late(_) => None,
                _ => {
                    let phrase = match Relation::of(addr, size, &block) {
                        // The message counts the bytes past the end; this tells where the access begins.
                        Relation::Into { offset, .. } => {
                            format!("{} into {}", bytes(offset), block_phrase(&block))
                        }
                        relation => relation.phrase(&block),
                    };
                    Some(format!("{addr} is {phrase} at {}", block.start))
                }
            }
        }
        Place::Stack(_) if is_overflow(event) => {
            Some("the stack has no room left: very deep recursion, or very large local variables".to_owned())
        }
        Place::Module => named.map(|named| format!("{} is {}", event.address, named_phrase(named))),
        Place::Mapped if event.access.is_some_and(|access| access.kind == AccessKind::Write) => {
            Some(format!("{} is in mapped memory that is no part of the heap", event.address))
        }
        _ => None,
    }
}

/// Whether the event is a stack that grew out of its bounds: the shim says so by the place.
#[must_use]
pub(crate) fn is_overflow(event: &ErrorEvent<'_>) -> bool {
    event.kind == ErrorKind::FatalSignal
        && matches!(event.place, Place::Stack(_))
        && matches!(event.detail, Detail::Signal { number: 11, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::{Addr, Block, Damage, Function, Pc, Size, ThreadId};

    fn event(place: Place, detail: Detail) -> ErrorEvent<'static> {
        ErrorEvent {
            kind: ErrorKind::HeapBufferOverflow,
            tid: ThreadId(7),
            function: None,
            access: None,
            address: Addr(0x1028),
            place,
            detail,
            exact_top: true,
            stack: &[Pc(1)],
            allocated: &[],
            freed: &[],
        }
    }

    #[test]
    fn late_findings_say_so_and_what_was_written() {
        let mut content = [0; 16];
        content[..4].copy_from_slice(b"AAAA");
        let damage = Damage { first: 40, last: 43, changed: Size(4), content, content_len: 4 };
        let notes = notes(&event(Place::None, Detail::Late(damage)), 7, None);
        assert_eq!(notes[0], "there now: 41 41 41 41 (\"AAAA\")");
        assert!(notes[1].starts_with("found late"));
    }

    #[test]
    fn the_block_and_other_threads_are_named() {
        let block = Block {
            start: Addr(0x1000),
            size: Size(40),
            state: BlockState::Live,
            allocated_by: Function::Malloc,
            freed_by: None,
            alloc_tid: ThreadId(9),
            free_tid: ThreadId(0),
        };
        assert_eq!(
            notes(&event(Place::Block(block), Detail::None), 7, None),
            [
                "0x1028 is 0 bytes past the end of a 40-byte block at 0x1000",
                "the block was allocated by thread 9"
            ]
        );
    }
}
