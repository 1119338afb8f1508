//! How the table describes a call: its parameters, what each points to, and how much of that counts.

use memcheck_model::AccessKind;

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: u16,
    /// Its name.
    pub name: &'static str,
    /// What its arguments point to.
    pub parameters: Parameters,
}

/// The parameters that lead to memory.
#[derive(Clone, Copy, Debug)]
pub enum Parameters {
    /// Always these.
    Always(&'static [Parameter]),
    /// Some always, others by the value of an argument.
    Chosen {
        /// That argument, a number of 32 bits.
        by: u8,
        /// The bits of it that count.
        mask: u32,
        /// Those that are there whatever the value is.
        always: &'static [Parameter],
        /// Those of each value.
        cases: &'static [(u32, &'static [Parameter])],
        /// Whether other values have no further parameters. Otherwise it is not known what they have.
        is_complete: bool,
    },
    /// Not known, or not looked at: the call passes.
    Unknown,
}

/// An argument that is a pointer.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Which argument, from 0.
    pub argument: u8,
    /// Its name.
    pub name: &'static str,
    /// What it points to.
    pub shape: Shape,
}

/// What a pointer points to.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Bytes. What is both read and written is told as written.
    Bytes(AccessKind, Length),
    /// A path or another string up to its zero byte, of which the kernel reads so many bytes at most.
    String(u32),
    /// Pointers to strings, up to a null pointer.
    Strings,
    /// As many `struct iovec` as the argument says, and what they point to.
    Vectors(AccessKind, u8),
    /// A `struct msghdr` and what it points to.
    Message(AccessKind),
    /// As many `struct mmsghdr` as the argument says, and what they point to.
    Messages(AccessKind, u8),
    /// A pointer to a signal set and its size (pselect6).
    SignalSet,
    /// A `struct ifconf` and the room for network interfaces that it points to.
    Interfaces,
}

/// How many bytes.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// So many.
    Fixed(u32),
    /// As many as the argument, a `size_t`, says.
    Size(u8),
    /// As many of so many bytes each as the argument, an `int`, says.
    Items(u8, u32),
    /// A socket address as long as the argument says.
    Address(u8),
    /// As much of a socket address as there is room for by the `socklen_t` that the argument points to.
    AddressAt(u8),
    /// As many as the `socklen_t` that the argument points to says.
    SizeAt(u8),
    /// A bit for each of as many descriptors as the argument says.
    Bits(u8),
    /// A byte for each page of as many bytes as the argument says.
    Pages(u8),
    /// So many, and as many more as the argument, a `size_t`, says.
    After(u32, u8),
    /// So many, and as many more as their first 32 bits say.
    Prefixed(u32),
    /// As many as the 32 bits at an offset in them say, and at least so many.
    Stated {
        /// The offset.
        at: u8,
        /// The fewest.
        least: u32,
    },
    /// A bit for each memory node below the argument, in whole words; the kernel takes one off (`get_nodes` in
    /// mm/mempolicy.c).
    Nodes(u8),
    /// As many sets of capabilities as the version has that the argument points to (capget(2)).
    Capabilities(u8),
    /// 16 bits for each semaphore of the set whose id the argument is.
    Semaphores(u8),
}

/// What a call's parameters need of whoever is about to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attention {
    /// Nothing: there are none that lead to memory.
    None = 0,
    /// A look at the arguments themselves: where none is watched, nothing is wrong.
    Direct = 1,
    /// A look at what they point to as well; or the call is not known.
    Full = 2,
}

/// What the call with these parameters needs.
#[must_use]
pub const fn attention_of(parameters: &Parameters) -> Attention {
    match parameters {
        Parameters::Unknown | Parameters::Chosen { is_complete: false, .. } => Attention::Full,
        Parameters::Always(list) => attention_of_list(list),
        Parameters::Chosen { always, cases, .. } => {
            let mut most = attention_of_list(always);
            let mut index = 0;
            while index < cases.len() {
                let other = attention_of_list(cases[index].1);
                if other as u8 > most as u8 {
                    most = other;
                }
                index += 1;
            }
            most
        }
    }
}

const fn attention_of_list(list: &[Parameter]) -> Attention {
    let mut most = Attention::None;
    let mut index = 0;
    while index < list.len() {
        match list[index].shape {
            Shape::Bytes(..) | Shape::String(_) => {
                if matches!(most, Attention::None) {
                    most = Attention::Direct;
                }
            }
            _ => most = Attention::Full,
        }
        index += 1;
    }
    most
}
