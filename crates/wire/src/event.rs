//! What an error's record says, to and from words: the part of a record behind its context.

use memcheck_model::{
    Access, AccessKind, Addr, Block, BlockState, Damage, Detail, ErrorEvent, ErrorKind, FileName, Function,
    MAX_FRAMES, ParameterName, Pc, Place, Size, ThreadId,
};

use crate::words::{Malformed, Reader, Writer, cut};

fn access_kind(code: u8) -> Option<AccessKind> {
    AccessKind::ALL.into_iter().find(|&kind| kind as u8 == code)
}

fn optional_function(code: u8) -> Option<Option<Function>> {
    if code == 0 { Some(None) } else { Function::from_code(code).map(Some) }
}

/// Writes an event.
pub(crate) fn encode(to: &mut Writer<'_>, event: &ErrorEvent<'_>) {
    to.word(event.kind as u64);
    to.word(event.tid.0);
    to.word(event.function.map_or(0, |function| function as u64));
    to.word(event.access.is_some());
    if let Some(access) = event.access {
        to.word(access.kind as u64);
        to.word(access.addr.0);
        to.word(access.size.0);
    }
    to.word(event.address.0);
    encode_place(to, &event.place);
    encode_detail(to, &event.detail);
    to.word(event.exact_top);
    to.stack(event.stack, MAX_FRAMES);
    to.stack(event.allocated, MAX_FRAMES);
    to.stack(event.freed, MAX_FRAMES);
}

/// Reads one, into the memory for its stacks.
pub(crate) fn decode<'a>(
    from: &mut Reader<'_>,
    stacks: &'a mut [[Pc; MAX_FRAMES]; 3],
) -> Result<ErrorEvent<'a>, Malformed> {
    let [stack, allocated, freed] = stacks;
    Ok(ErrorEvent {
        kind: from.choice("error kind", ErrorKind::from_code)?,
        tid: ThreadId(from.narrow("tid")?),
        function: from.choice("function", optional_function)?,
        access: if from.flag("access")? {
            Some(Access {
                kind: from.choice("access kind", access_kind)?,
                addr: Addr(from.word()?),
                size: Size(from.word()?),
            })
        } else {
            None
        },
        address: Addr(from.word()?),
        place: decode_place(from)?,
        detail: decode_detail(from)?,
        exact_top: from.flag("exact top")?,
        stack: from.stack_in("stack", stack)?,
        allocated: from.stack_in("allocation stack", allocated)?,
        freed: from.stack_in("free stack", freed)?,
    })
}

fn encode_place(to: &mut Writer<'_>, place: &Place) {
    match place {
        Place::None => to.word(0u8),
        Place::NullPage => to.word(1u8),
        Place::Block(block) => {
            to.word(2u8);
            to.word(block.start.0);
            to.word(block.size.0);
            to.word(block.state as u64);
            to.word(block.allocated_by as u64);
            to.word(block.freed_by.map_or(0, |function| function as u64));
            to.word(block.alloc_tid.0);
            to.word(block.free_tid.0);
        }
        Place::HeapUnused => to.word(3u8),
        Place::Stack(tid) => {
            to.word(4u8);
            to.word(tid.0);
        }
        Place::Module => to.word(5u8),
        Place::Mapped => to.word(6u8),
        Place::Unmapped => to.word(7u8),
    }
}

fn decode_place(from: &mut Reader<'_>) -> Result<Place, Malformed> {
    Ok(match from.word()? {
        0 => Place::None,
        1 => Place::NullPage,
        2 => Place::Block(Block {
            start: Addr(from.word()?),
            size: Size(from.word()?),
            state: from.choice("block state", |code| match code {
                1 => Some(BlockState::Live),
                2 => Some(BlockState::Freed),
                _ => None,
            })?,
            allocated_by: from.choice("function", Function::from_code)?,
            freed_by: from.choice("function", optional_function)?,
            alloc_tid: ThreadId(from.narrow("tid")?),
            free_tid: ThreadId(from.narrow("tid")?),
        }),
        3 => Place::HeapUnused,
        4 => Place::Stack(ThreadId(from.narrow("tid")?)),
        5 => Place::Module,
        6 => Place::Mapped,
        7 => Place::Unmapped,
        value => return Err(Malformed::Field { name: "place", value }),
    })
}

fn encode_detail(to: &mut Writer<'_>, detail: &Detail) {
    match detail {
        Detail::None => to.word(0u8),
        Detail::Late(damage) => {
            to.word(1u8);
            to.signed(damage.first);
            to.signed(damage.last);
            to.word(damage.changed.0);
            to.bytes(cut(&damage.content, damage.content_len.into()));
        }
        Detail::Sizes([first, second]) => {
            to.word(2u8);
            to.word(*first);
            to.word(*second);
        }
        Detail::Alignment(align) => {
            to.word(3u8);
            to.word(*align);
        }
        Detail::SizedDelete { size, align, block_align } => {
            to.word(4u8);
            to.word(*size);
            to.word(*align);
            to.word(*block_align);
        }
        Detail::Signal { number, code } => {
            to.word(5u8);
            to.signed((*number).into());
            to.signed((*code).into());
        }
        Detail::Overlap { destination, source, size } => {
            to.word(6u8);
            to.word(*destination);
            to.word(*source);
            to.word(*size);
        }
        Detail::File(name) => {
            to.word(8u8);
            to.bytes(name.as_bytes());
        }
        Detail::Syscall { number, parameter, offset } => {
            to.word(7u8);
            to.word(*number);
            to.bytes(parameter.as_str().as_bytes());
            to.word(*offset);
        }
    }
}

fn decode_detail(from: &mut Reader<'_>) -> Result<Detail, Malformed> {
    let signed = |from: &mut Reader<'_>, name| {
        let value = from.signed()?;
        i32::try_from(value).map_err(|_| Malformed::Field { name, value: value.cast_unsigned() })
    };
    Ok(match from.word()? {
        0 => Detail::None,
        1 => {
            let (first, last, changed) = (from.signed()?, from.signed()?, Size(from.word()?));
            let mut content = [0; 16];
            let content_len = from.bytes_in("content", &mut content)?.len() as u8;
            Detail::Late(Damage { first, last, changed, content, content_len })
        }
        2 => Detail::Sizes([from.word()?, from.word()?]),
        3 => Detail::Alignment(from.word()?),
        4 => Detail::SizedDelete { size: from.word()?, align: from.word()?, block_align: from.word()? },
        5 => Detail::Signal { number: signed(from, "signal")?, code: signed(from, "signal code")? },
        6 => Detail::Overlap { destination: from.word()?, source: from.word()?, size: from.word()? },
        7 => {
            let number = from.narrow("system call")?;
            let mut name = [0; ParameterName::MAX_BYTES];
            let name = from.bytes_in("parameter", &mut name)?;
            let parameter = ParameterName::find_in(name)
                .ok_or(Malformed::Field { name: "parameter", value: name.len() as u64 })?;
            Detail::Syscall { number, parameter, offset: from.word()? }
        }
        8 => {
            let mut name = [0; FileName::MAX_BYTES];
            Detail::File(FileName::new(from.bytes_in("file name", &mut name)?))
        }
        value => return Err(Malformed::Field { name: "detail", value }),
    })
}
