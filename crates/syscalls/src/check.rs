//! Looking at what a call's parameters lead to.

use core::fmt::Arguments;

use memcheck_model::{AccessKind, Addr, AddrRange, ParameterName, Size};

use crate::{Length, Memory, Parameter, Parameters, Shape, find_call};

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Request {
    /// The number in rax.
    pub number: u64,
    /// rdi, rsi, rdx, r10, r8, r9.
    pub arguments: [u64; 6],
}

/// A parameter that leads to memory that must not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub parameter: ParameterName,
    /// What the kernel does with it.
    pub kind: AccessKind,
    /// All that it would touch.
    pub range: AddrRange,
    /// The first byte that it must not.
    pub bad: Addr,
}

/// Whether a call's parameters are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// They were looked at.
    Yes,
    /// The call is none of the table, or what it does is not described there.
    No,
}

/// `UIO_MAXIOV`: with more vectors or messages the kernel looks at none.
const MOST_VECTORS: u64 = 1024;
/// `sizeof(struct sockaddr_storage)`: no address is longer.
const LONGEST_ADDRESS: u64 = 128;
/// `MAX_ARG_STRLEN`: the kernel takes no longer argument.
const LONGEST_ARGUMENT: u32 = 32 * 4096;
/// `sizeof(struct msghdr)`.
const MESSAGE_BYTES: u64 = 56;
/// `sizeof(struct mmsghdr)`.
const COUNTED_MESSAGE_BYTES: u64 = 64;
/// `_LINUX_CAPABILITY_VERSION_1` to `_3`.
const FIRST_CAPABILITIES: u32 = 0x1998_0330;
const SECOND_CAPABILITIES: u32 = 0x2007_1026;
const THIRD_CAPABILITIES: u32 = 0x2008_0522;
/// `sizeof(struct iovec)`.
const VECTOR_BYTES: u64 = 16;
/// No argument list is longer (`MAX_ARG_STRINGS` is far beyond what fits the address space of one).
const MOST_STRINGS: u64 = 1 << 24;

/// Tells each parameter of `request` that leads to memory that must not be touched.
pub fn check(request: &Request, memory: &impl Memory, each: &mut dyn FnMut(&Finding)) -> Known {
    find_call(request.number).map_or(Known::No, |call| check_as(&call.parameters, request, memory, each))
}

/// The same for a function that takes its own parameters and makes the call with others.
pub fn check_as(
    parameters: &Parameters,
    request: &Request,
    memory: &impl Memory,
    each: &mut dyn FnMut(&Finding),
) -> Known {
    let mut look = Look { memory, each };
    match *parameters {
        Parameters::Always(list) => look.parameters(list, &request.arguments),
        Parameters::Unknown => return Known::No,
        Parameters::Chosen { by, mask, always, cases, is_complete } => {
            look.parameters(always, &request.arguments);
            let value = request.arguments[usize::from(by)] as u32 & mask;
            match cases.iter().find(|(of, _)| *of == value) {
                Some((_, list)) => look.parameters(list, &request.arguments),
                None if is_complete => {}
                None => return Known::No,
            }
        }
    }
    Known::Yes
}

struct Look<'a, M> {
    memory: &'a M,
    each: &'a mut dyn FnMut(&Finding),
}

impl<M: Memory> Look<'_, M> {
    fn parameters(&mut self, list: &[Parameter], arguments: &[u64; 6]) {
        for parameter in list {
            let at = arguments[usize::from(parameter.argument)];
            if at != 0 {
                self.parameter(parameter, Addr(at), arguments);
            }
        }
    }

    fn parameter(&mut self, parameter: &Parameter, at: Addr, arguments: &[u64; 6]) {
        let name = parameter.name;
        let argument = |index: u8| arguments[usize::from(index)];
        match parameter.shape {
            Shape::Bytes(kind, length) => {
                if self.memory.is_watched(at) {
                    let bytes = self.length(length, at, arguments);
                    self.bytes(kind, at, bytes, format_args!("{name}"));
                }
            }
            Shape::String(most) => self.string(at, most, format_args!("{name}")),
            Shape::Strings => self.strings(at, name),
            Shape::Vectors(kind, count) => self.vectors(kind, at, argument(count), format_args!("{name}")),
            Shape::Message(kind) => self.message(kind, at, format_args!("{name}")),
            Shape::Messages(kind, count) => {
                let count = u64::from(argument(count) as u32).min(MOST_VECTORS);
                for index in 0..count {
                    let Some(message) = element(at, index, COUNTED_MESSAGE_BYTES) else { return };
                    let size = COUNTED_MESSAGE_BYTES;
                    if !self.bytes(AccessKind::Write, message, size, format_args!("{name}[{index}]")) {
                        return;
                    }
                    self.message(kind, message, format_args!("{name}[{index}].msg_hdr"));
                }
            }
            Shape::Interfaces => {
                if self.bytes(AccessKind::Write, at, 16, format_args!("{name}"))
                    && let (Some(bytes), Some(list)) = (self.memory.find_int(at), self.word(at, 8))
                {
                    let bytes = u64::try_from(bytes.cast_signed()).unwrap_or(0);
                    self.bytes(AccessKind::Write, Addr(list), bytes, format_args!("{name}.ifc_buf"));
                }
            }
            Shape::SignalSet => {
                if self.bytes(AccessKind::Read, at, 16, format_args!("{name}"))
                    && let (Some(set), Some(size)) = (self.word(at, 0), self.word(at, 8))
                {
                    self.bytes(AccessKind::Read, Addr(set), size, format_args!("{name}.ss"));
                }
            }
        }
    }

    /// How many bytes from `at` on count.
    fn length(&self, length: Length, at: Addr, arguments: &[u64; 6]) -> u64 {
        let argument = |index: u8| arguments[usize::from(index)];
        let int = |index: u8| u64::try_from(argument(index) as u32 as i32).unwrap_or(0);
        let int_at = |place: u64| {
            u64::try_from(self.memory.find_int(Addr(place)).unwrap_or(0).cast_signed()).unwrap_or(0)
        };
        match length {
            Length::Fixed(bytes) => bytes.into(),
            Length::Size(index) => argument(index),
            Length::Items(index, size) => int(index).saturating_mul(size.into()),
            Length::Address(index) => Some(int(index)).filter(|&bytes| bytes <= LONGEST_ADDRESS).unwrap_or(0),
            Length::AddressAt(index) => int_at(argument(index)).min(LONGEST_ADDRESS),
            Length::SizeAt(index) => int_at(argument(index)),
            Length::Bits(index) => int(index) / 8,
            Length::Pages(index) => argument(index).div_ceil(4096),
            Length::After(bytes, index) => u64::from(bytes).saturating_add(argument(index)),
            Length::Prefixed(bytes) => u64::from(bytes) + int_at(at.0),
            Length::Stated { at: offset, least } => {
                int_at(at.0.saturating_add(offset.into())).max(least.into())
            }
            Length::Nodes(index) => argument(index).saturating_sub(1).div_ceil(64).saturating_mul(8),
            Length::Capabilities(index) => match self.memory.find_int(Addr(argument(index))) {
                Some(FIRST_CAPABILITIES) => 12,
                Some(SECOND_CAPABILITIES | THIRD_CAPABILITIES) => 24,
                _ => 0,
            },
            Length::Semaphores(index) => {
                self.memory.count_semaphores(argument(index) as u32).saturating_mul(2)
            }
        }
    }

    /// Whether all of the range may be touched. What does not begin in watched memory may be.
    fn bytes(&mut self, kind: AccessKind, at: Addr, bytes: u64, name: Arguments<'_>) -> bool {
        if bytes == 0 || !self.memory.is_watched(at) {
            return true;
        }
        let Some(range) = AddrRange::new(at, Size(bytes)) else { return true };
        let Some(bad) = self.memory.find_bad(range) else { return true };
        (self.each)(&Finding { parameter: ParameterName::new(name), kind, range, bad });
        false
    }

    fn string(&mut self, at: Addr, most: u32, name: Arguments<'_>) {
        if !self.memory.is_watched(at) {
            return;
        }
        let mut place = at;
        let end = Addr(at.0.saturating_add(most.into()));
        while place < end {
            let granule = self.memory.granule(Addr(place.0 & !7));
            let (first, leading) = ((place.0 & 7) as usize, usize::from(granule.leading));
            if granule.bytes.get(first..leading).is_some_and(|bytes| bytes.contains(&0)) {
                return;
            }
            if leading < 8 {
                let bad = Addr((place.0 & !7) + leading.max(first) as u64);
                if bad >= end {
                    return;
                }
                // As far as it must be read to see that it does not end before.
                let Some(range) = AddrRange::between(at, Addr(bad.0 + 1)) else { return };
                let parameter = ParameterName::new(name);
                (self.each)(&Finding { parameter, kind: AccessKind::Read, range, bad });
                return;
            }
            place = Addr((place.0 & !7) + 8);
        }
    }

    fn strings(&mut self, at: Addr, name: &str) {
        for index in 0..MOST_STRINGS {
            let Some(place) = element(at, index, 8) else { return };
            if !self.bytes(AccessKind::Read, place, 8, format_args!("{name}")) {
                return;
            }
            match self.memory.find_word(place) {
                None | Some(0) => return,
                Some(string) => self.string(Addr(string), LONGEST_ARGUMENT, format_args!("{name}[{index}]")),
            }
        }
    }

    fn vectors(&mut self, kind: AccessKind, at: Addr, count: u64, name: Arguments<'_>) {
        if count > MOST_VECTORS || !self.bytes(AccessKind::Read, at, count * VECTOR_BYTES, name) {
            return;
        }
        for index in 0..count {
            let Some(vector) = element(at, index, VECTOR_BYTES) else { return };
            let (Some(start), Some(size)) = (self.word(vector, 0), self.word(vector, 8)) else { return };
            if size.cast_signed() < 0 {
                return;
            }
            self.bytes(kind, Addr(start), size, format_args!("{name}[{index}]"));
        }
    }

    /// ```text
    ///  0 msg_name   8 msg_namelen (32)   16 msg_iov   24 msg_iovlen   32 msg_control   40 msg_controllen
    /// ```
    fn message(&mut self, kind: AccessKind, at: Addr, name: Arguments<'_>) {
        if !self.bytes(kind, at, MESSAGE_BYTES, name) {
            return;
        }
        let words = [0, 8, 16, 24, 32, 40].map(|offset| self.word(at, offset));
        let [
            Some(address),
            Some(address_bytes),
            Some(vectors),
            Some(count),
            Some(control),
            Some(control_bytes),
        ] = words
        else {
            return;
        };
        if let Ok(address_bytes) = u64::try_from(address_bytes as u32 as i32) {
            self.bytes(
                kind,
                Addr(address),
                address_bytes.min(LONGEST_ADDRESS),
                format_args!("{name}.msg_name"),
            );
        }
        self.vectors(kind, Addr(vectors), count, format_args!("{name}.msg_iov"));
        if i32::try_from(control_bytes).is_ok() {
            self.bytes(kind, Addr(control), control_bytes, format_args!("{name}.msg_control"));
        }
    }

    fn word(&self, at: Addr, offset: u64) -> Option<u64> {
        self.memory.find_word(at.checked_add(Size(offset))?)
    }
}

/// Where element `index` of an array lies.
fn element(array: Addr, index: u64, bytes: u64) -> Option<Addr> {
    array.checked_add(Size(index * bytes))
}
