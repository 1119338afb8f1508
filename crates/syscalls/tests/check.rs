//! Calls against a small made-up memory: a heap that is watched, and a stack that is not.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use memcheck_model::{AccessKind, Addr, AddrRange};
use memcheck_syscalls::{
    Attention, CALLS, Finding, Granule, Known, Memory, Request, attention_of, check, find_call,
};

const HEAP: std::ops::Range<u64> = 0x1_0000..0x2_0000;
/// What is mapped outside the heap.
const STACK: std::ops::Range<u64> = 0x8_0000..0x9_0000;

/// The id of a set of three.
const SEMAPHORES: u32 = 7;

/// Blocks by address, each with its size; all else in the heap must not be touched.
#[derive(Default)]
struct Fake {
    blocks: BTreeMap<u64, u64>,
    bytes: RefCell<BTreeMap<u64, u8>>,
}

impl Fake {
    fn with_block(start: u64, size: u64) -> Self {
        Self::default().and_block(start, size)
    }

    fn and_block(mut self, start: u64, size: u64) -> Self {
        self.blocks.insert(start, size);
        self
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let mut own = self.bytes.borrow_mut();
        own.extend((at..).zip(bytes.iter().copied()));
    }

    fn put_words(&self, at: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            self.put(at + 8 * index as u64, &word.to_le_bytes());
        }
    }

    fn may_be_touched(&self, at: u64) -> bool {
        let block = self.blocks.range(..=at).next_back();
        !HEAP.contains(&at) || block.is_some_and(|(start, size)| at < start + size)
    }

    fn find<const N: usize>(&self, at: Addr) -> Option<[u8; N]> {
        let mut found = [0; N];
        for (byte, place) in found.iter_mut().zip(at.0..) {
            let is_there = STACK.contains(&place) || HEAP.contains(&place) && self.may_be_touched(place);
            *byte = is_there.then(|| self.bytes.borrow().get(&place).copied().unwrap_or(0))?;
        }
        Some(found)
    }
}

impl Memory for Fake {
    fn is_watched(&self, addr: Addr) -> bool {
        HEAP.contains(&addr.0)
    }

    fn find_bad(&self, range: AddrRange) -> Option<Addr> {
        (range.start().0..range.end().0).find(|&at| !self.may_be_touched(at)).map(Addr)
    }

    fn granule(&self, start: Addr) -> Granule {
        assert!(self.is_watched(start) && start.is_aligned(8));
        let leading = (start.0..start.0 + 8).take_while(|&at| self.may_be_touched(at)).count() as u8;
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7]
            .map(|at| self.bytes.borrow().get(&(start.0 + at)).copied().unwrap_or(b'x'));
        Granule { leading, bytes }
    }

    fn find_word(&self, at: Addr) -> Option<u64> {
        self.find(at).map(u64::from_le_bytes)
    }

    fn find_int(&self, at: Addr) -> Option<u32> {
        self.find(at).map(u32::from_le_bytes)
    }

    fn count_semaphores(&self, id: u32) -> u64 {
        if id == SEMAPHORES { 3 } else { 0 }
    }
}

fn number_of(name: &str) -> u64 {
    CALLS.iter().find(|call| call.name == name).unwrap_or_else(|| panic!("no {name}")).number.into()
}

fn findings(memory: &Fake, name: &str, arguments: &[u64]) -> Vec<Finding> {
    let mut request = Request { number: number_of(name), arguments: [0; 6] };
    request.arguments[..arguments.len()].copy_from_slice(arguments);
    let mut found = Vec::new();
    check(&request, memory, &mut |finding| found.push(*finding));
    found
}

/// Each finding as `name+offset of the first bad byte`, with `r` or `w`.
fn told(memory: &Fake, name: &str, arguments: &[u64]) -> Vec<String> {
    let tell = |finding: &Finding| {
        let kind = if finding.kind == AccessKind::Read { 'r' } else { 'w' };
        format!("{kind} {}+{}", finding.parameter, finding.bad.offset_from(finding.range.start()))
    };
    findings(memory, name, arguments).iter().map(tell).collect()
}

const BLOCK: u64 = HEAP.start + 0x100;
const OTHER: u64 = HEAP.start + 0x800;

#[test]
fn a_buffer_must_hold_as_many_bytes_as_the_call_is_told() {
    let memory = Fake::with_block(BLOCK, 10);
    assert!(told(&memory, "read", &[0, BLOCK, 10]).is_empty());
    assert_eq!(told(&memory, "read", &[0, BLOCK, 11]), ["w buf+10"]);
    assert_eq!(told(&memory, "write", &[1, BLOCK + 2, 9]), ["r buf+8"]);
    assert_eq!(told(&memory, "pwrite64", &[1, BLOCK - 1, 1, 0]), ["r buf+0"]);
    let found = findings(&memory, "getrandom", &[BLOCK, 100]);
    assert_eq!((found[0].range.start().0, found[0].range.size().0), (BLOCK, 100));
}

#[test]
fn nothing_is_said_of_no_bytes_or_of_memory_outside_the_heap() {
    let memory = Fake::default();
    assert!(told(&memory, "write", &[1, BLOCK, 0]).is_empty());
    assert!(told(&memory, "read", &[0, STACK.start, 100]).is_empty());
    assert!(told(&memory, "read", &[0, 0xdead_0000_0000, 100]).is_empty());
    assert!(told(&memory, "stat", &[0, 0]).is_empty());
    assert!(told(&memory, "read", &[0, BLOCK.wrapping_sub(1 << 63), u64::MAX]).is_empty());
}

#[test]
fn a_path_must_end_within_its_block() {
    let memory = Fake::with_block(BLOCK, 4).and_block(OTHER, 8);
    memory.put(BLOCK, b"/x/y");
    assert_eq!(told(&memory, "open", &[BLOCK, 0]), ["r filename+4"]);
    memory.put(BLOCK, b"/x/\0");
    assert!(told(&memory, "openat", &[0, BLOCK, 0]).is_empty());
    memory.put(OTHER + 3, b"abcd\0");
    assert!(told(&memory, "chdir", &[OTHER + 3]).is_empty());
    memory.put(OTHER + 3, b"abcde");
    assert_eq!(told(&memory, "chdir", &[OTHER + 3]), ["r path+5"]);
    assert_eq!(told(&memory, "rename", &[OTHER + 3, BLOCK + 4]), ["r oldpath+5", "r newpath+0"]);
}

#[test]
fn a_path_is_not_read_beyond_the_longest_path() {
    let memory = Fake::with_block(HEAP.start, 5000);
    assert!(told(&memory, "unlink", &[HEAP.start]).is_empty());
    assert_eq!(told(&memory, "unlink", &[HEAP.start + 1000]), ["r pathname+4000"]);
}

#[test]
fn each_vector_is_looked_at() {
    let memory = Fake::with_block(BLOCK, 10);
    memory.put_words(STACK.start, &[BLOCK, 10, BLOCK, 12, STACK.start, 8]);
    assert_eq!(told(&memory, "writev", &[1, STACK.start, 3]), ["r vector[1]+10"]);
    assert_eq!(told(&memory, "preadv2", &[1, STACK.start, 3]), ["w vector[1]+10"]);
    assert_eq!(
        told(&memory, "readv", &[1, BLOCK, 1]),
        ["r vector+10"],
        "the vectors are in a block that is too small"
    );
    assert!(told(&memory, "writev", &[1, STACK.start, 1025]).is_empty(), "the kernel refuses so many");
    assert!(told(&memory, "writev", &[1, 0x7777_0000, 2]).is_empty(), "the kernel finds none there");
}

#[test]
fn a_message_leads_to_its_parts() {
    let memory = Fake::with_block(BLOCK, 10);
    let (message, vectors) = (STACK.start + 0x100, STACK.start);
    memory.put_words(vectors, &[STACK.start, 8, BLOCK, 11]);
    memory.put_words(message, &[BLOCK, 16, vectors, 2, BLOCK + 8, 3, 0]);
    let parts = ["r msg.msg_name+10", "r msg.msg_iov[1]+10", "r msg.msg_control+2"];
    assert_eq!(told(&memory, "sendmsg", &[3, message, 0]), parts);
    memory.put_words(message + 64, &[0, 0, vectors, 1, 0, 0, 0]);
    memory.put_words(message + 128, &[0, 0, vectors, 2, 0, 0, 0]);
    assert_eq!(told(&memory, "recvmmsg", &[3, message + 64, 2, 0, 0]), ["w mmsg[1].msg_hdr.msg_iov[1]+10"]);
    assert_eq!(told(&memory, "recvmsg", &[3, BLOCK, 0]), ["w msg+10"]);
}

#[test]
fn an_address_counts_as_far_as_its_length_says() {
    let memory = Fake::with_block(BLOCK, 16);
    assert_eq!(told(&memory, "bind", &[3, BLOCK, 28]), ["r my_addr+16"]);
    assert!(told(&memory, "bind", &[3, BLOCK, 16]).is_empty());
    assert!(told(&memory, "connect", &[3, BLOCK, 129]).is_empty(), "the kernel refuses longer ones unread");
    assert!(told(&memory, "connect", &[3, BLOCK, u64::from(-1i32 as u32)]).is_empty());
    memory.put(STACK.start, &28u32.to_le_bytes());
    assert_eq!(told(&memory, "accept", &[3, BLOCK, STACK.start]), ["w addr+16"]);
    assert_eq!(told(&memory, "getsockname", &[3, STACK.start, BLOCK + 14]), ["w namelen+2"]);
    memory.put(STACK.start, &4u32.to_le_bytes());
    assert!(told(&memory, "getsockopt", &[3, 1, 4, BLOCK, STACK.start]).is_empty());
}

#[test]
fn counts_are_of_the_width_that_the_kernel_takes() {
    let memory = Fake::with_block(BLOCK, 24);
    let garbage_above = |count: u64| 0xdead_beef_0000_0000 | count;
    assert!(told(&memory, "epoll_wait", &[3, BLOCK, garbage_above(2), 0]).is_empty());
    assert_eq!(told(&memory, "epoll_wait", &[3, BLOCK, garbage_above(3), 0]), ["w events+24"]);
    assert_eq!(told(&memory, "poll", &[BLOCK, 4, 0]), ["w ufds+24"]);
    assert_eq!(told(&memory, "select", &[200, BLOCK, 0, 0, 0]), ["w readfds+24"]);
    assert!(told(&memory, "select", &[192, BLOCK, 0, 0, 0]).is_empty());
    assert_eq!(told(&memory, "mincore", &[0, 25 * 4096, BLOCK]), ["w vec+24"]);
}

#[test]
fn requests_decide_what_an_argument_is() {
    let memory = Fake::with_block(BLOCK, 8);
    assert_eq!(told(&memory, "ioctl", &[0, 0x5401, BLOCK]), ["w arg+8"], "TCGETS");
    assert!(told(&memory, "ioctl", &[0, 0x5413, BLOCK]).is_empty(), "TIOCGWINSZ");
    assert_eq!(told(&memory, "fcntl", &[0, 6, BLOCK]), ["r arg+8"], "F_SETLK");
    assert!(told(&memory, "fcntl", &[0, 1, BLOCK + 8]).is_empty(), "F_GETFD");
    assert_eq!(told(&memory, "epoll_ctl", &[3, 1, 4, BLOCK]), ["r event+8"], "EPOLL_CTL_ADD");
    assert!(told(&memory, "epoll_ctl", &[3, 2, 4, BLOCK]).is_empty(), "EPOLL_CTL_DEL");
}

#[test]
fn a_wake_may_name_a_word_that_is_gone() {
    let memory = Fake::default();
    for private in [0, 128] {
        assert!(told(&memory, "futex", &[BLOCK, 1 | private, 1]).is_empty());
        assert_eq!(told(&memory, "futex", &[BLOCK, private, 1]), ["r futex+0"]);
    }
}

#[test]
fn arguments_of_a_program_are_strings() {
    let memory = Fake::with_block(BLOCK, 3);
    memory.put(BLOCK, b"abc");
    memory.put_words(STACK.start, &[STACK.start, BLOCK, 0]);
    assert_eq!(told(&memory, "execve", &[STACK.start, STACK.start, 0]), ["r argv[1]+3"]);
    assert_eq!(told(&memory, "execve", &[BLOCK, 0, BLOCK]), ["r filename+3", "r envp+3"]);
}

#[test]
fn a_signal_set_lies_behind_a_pointer_in_pselect6() {
    let memory = Fake::with_block(BLOCK, 4);
    memory.put_words(STACK.start, &[BLOCK, 8]);
    assert_eq!(told(&memory, "pselect6", &[0, 0, 0, 0, 0, STACK.start]), ["r sig.ss+4"]);
}

#[test]
fn what_is_not_known_is_said_to_be() {
    let memory = Fake::default();
    let ask = |number: u64, arguments: [u64; 6]| check(&Request { number, arguments }, &memory, &mut |_| ());
    for number in [451, 452, 335, 423, 9999, u64::MAX, 1 << 32] {
        assert_eq!(ask(number, [BLOCK; 6]), Known::No, "{number}");
    }
    assert_eq!(ask(number_of("io_uring_enter"), [BLOCK; 6]), Known::No);
    assert_eq!(ask(number_of("ioctl"), [0, 0xabcd_ef01, BLOCK, 0, 0, 0]), Known::No);
    assert_eq!(ask(number_of("close"), [3; 6]), Known::Yes);
}

#[test]
fn quick_looks_suffice_where_no_pointer_leads_on() {
    let attention = |name: &str| attention_of(&find_call(number_of(name)).unwrap().parameters);
    for name in ["getpid", "close", "munmap", "clone", "vfork", "rt_sigreturn", "exit_group"] {
        assert_eq!(attention(name), Attention::None, "{name}");
    }
    for name in ["read", "openat", "futex", "poll", "recvfrom", "clock_nanosleep"] {
        assert_eq!(attention(name), Attention::Direct, "{name}");
    }
    for name in ["writev", "sendmsg", "execve", "ioctl", "pselect6", "io_uring_enter"] {
        assert_eq!(attention(name), Attention::Full, "{name}");
    }
}

#[test]
fn the_table_ascends_and_each_call_is_found() {
    assert!(CALLS.windows(2).all(|pair| pair[0].number < pair[1].number));
    for call in CALLS {
        assert_eq!(find_call(call.number.into()).map(|found| found.name), Some(call.name));
    }
}

#[test]
fn a_structure_states_its_own_size() {
    let memory = Fake::with_block(BLOCK, 100);
    memory.put(BLOCK + 4, &100u32.to_le_bytes());
    assert!(told(&memory, "perf_event_open", &[BLOCK]).is_empty());
    memory.put(BLOCK + 4, &101u32.to_le_bytes());
    assert_eq!(told(&memory, "perf_event_open", &[BLOCK]), ["r attr+100"]);
    // Without a size it is that of the first version.
    assert_eq!(told(&Fake::with_block(BLOCK, 63), "perf_event_open", &[BLOCK]), ["r attr+63"]);
}

#[test]
fn capabilities_are_as_many_as_their_version_has() {
    let memory = Fake::with_block(BLOCK, 8).and_block(OTHER, 23);
    for (version, expected) in [
        (0x1998_0330_u32, None),
        (0x2007_1026, Some("w data+23")),
        (0x2008_0522, Some("w data+23")),
        (1, None),
    ] {
        memory.put(BLOCK, &version.to_le_bytes());
        assert_eq!(told(&memory, "capget", &[BLOCK, OTHER]), Vec::from_iter(expected), "{version:#x}");
    }
    assert_eq!(told(&memory, "capset", &[BLOCK + 4, 0]), ["r header+4"]);
}

#[test]
fn masks_of_nodes_are_whole_words() {
    let memory = Fake::with_block(BLOCK, 8);
    assert!(told(&memory, "set_mempolicy", &[2, BLOCK, 65]).is_empty());
    assert_eq!(told(&memory, "set_mempolicy", &[2, BLOCK, 66]), ["r nodemask+8"]);
    assert!(told(&memory, "get_mempolicy", &[0, BLOCK + 8, 0]).is_empty());
    assert_eq!(told(&memory, "get_mempolicy", &[BLOCK + 6, BLOCK + 4, 2]), ["w policy+2", "w nodemask+4"]);
}

#[test]
fn a_set_of_semaphores_has_a_value_for_each() {
    let (get_all, set_all) = (13, 17);
    let memory = Fake::with_block(BLOCK, 5);
    assert_eq!(told(&memory, "semctl", &[SEMAPHORES.into(), 0, get_all, BLOCK]), ["w arg.array+5"]);
    assert_eq!(told(&memory, "semctl", &[SEMAPHORES.into(), 0, set_all, BLOCK]), ["r arg.array+5"]);
    assert!(told(&memory, "semctl", &[1, 0, set_all, BLOCK]).is_empty());
}
