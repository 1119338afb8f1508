//! What a system call that was made does to the process' descriptors.
//!
//! In: the call and its result. Out: an [`Effect`]. Calls that give descriptors in rarer ways (`ioctl`, `bpf`, a pidfd
//! of `clone`) are not known: what they open is unseen.

use memcheck_model::Addr;

use crate::Request;

const EBADF: u64 = 9u64.wrapping_neg();
const CLOSE: u64 = 3;
const PIPE: u64 = 22;
const SENDFILE: u64 = 40;
const RECVMSG: u64 = 47;
const SOCKETPAIR: u64 = 53;
const FCNTL: u64 = 72;
const MMAP: u64 = 9;
const EPOLL_CTL: u64 = 233;
const SPLICE: u64 = 275;
const TEE: u64 = 276;
const PIPE2: u64 = 293;
const COPY_FILE_RANGE: u64 = 326;
const CLOSE_RANGE: u64 = 436;
/// `CLOSE_RANGE_CLOEXEC`: nothing is closed now.
const CLOSE_RANGE_CLOEXEC: u64 = 4;

/// Calls whose result is a descriptor: open, dup, dup2, socket, accept, creat, epoll_create, mq_open, inotify_init,
/// openat, signalfd, timerfd_create, eventfd, accept4, signalfd4, eventfd2, epoll_create1, dup3, inotify_init1,
/// perf_event_open, fanotify_init, open_by_handle_at, memfd_create, userfaultfd, io_uring_setup, open_tree, fsopen,
/// fsmount, fspick, pidfd_open, openat2, pidfd_getfd, landlock_create_ruleset, memfd_secret.
const OPENING: &[u64] = &[
    2, 32, 33, 41, 43, 85, 213, 240, 253, 257, 282, 283, 284, 288, 289, 290, 291, 292, 294, 298, 300, 304,
    319, 323, 425, 428, 430, 432, 433, 434, 437, 438, 444, 447,
];

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that matters.
    None,
    /// This descriptor is open now; one of the same number is closed.
    Opened(i32),
    /// The two descriptors that stand here are open now.
    OpenedPair(Addr),
    /// Those that the ancillary data of the `struct msghdr` here name are open now.
    Received(Addr),
    /// This one is closed.
    Closed(i32),
    /// All from the first to the last are closed.
    ClosedRange(u32, u32),
    /// One that is not open was to be closed.
    NotClosed(i32),
    /// One of these is not open and was to be used.
    NotOpen([i32; 2]),
}

/// What the call did, that gave this result.
#[must_use]
pub fn effect_of(request: &Request, result: u64) -> Effect {
    let argument = |index: usize| request.arguments[index] as i32;
    let number = request.number;
    if result == EBADF {
        return match number {
            CLOSE => Effect::NotClosed(argument(0)),
            MMAP => Effect::NotOpen([argument(4); 2]),
            SENDFILE | TEE => Effect::NotOpen([argument(0), argument(1)]),
            SPLICE | COPY_FILE_RANGE | EPOLL_CTL => Effect::NotOpen([argument(0), argument(2)]),
            _ => Effect::NotOpen([argument(0); 2]),
        };
    }
    // Linux closes the descriptor whatever else goes wrong (close(2)).
    if number == CLOSE {
        return Effect::Closed(argument(0));
    }
    if result > i64::MAX.cast_unsigned() {
        return Effect::None;
    }
    let is_copy = matches!(request.arguments[1] as u32, 0 | 1030); // F_DUPFD, F_DUPFD_CLOEXEC
    match number {
        FCNTL if is_copy => Effect::Opened(result as i32),
        PIPE | PIPE2 => Effect::OpenedPair(Addr(request.arguments[0])),
        SOCKETPAIR => Effect::OpenedPair(Addr(request.arguments[3])),
        RECVMSG => Effect::Received(Addr(request.arguments[1])),
        CLOSE_RANGE if request.arguments[2] & CLOSE_RANGE_CLOEXEC == 0 => {
            Effect::ClosedRange(argument(0).cast_unsigned(), argument(1).cast_unsigned())
        }
        _ if OPENING.contains(&number) => Effect::Opened(result as i32),
        _ => Effect::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(number: u64, arguments: [u64; 6], result: i64) -> Effect {
        effect_of(&Request { number, arguments }, result.cast_unsigned())
    }

    #[test]
    fn calls_open_and_close_what_they_say() {
        assert_eq!(effect(257, [0; 6], 5), Effect::Opened(5));
        assert_eq!(effect(257, [0; 6], -2), Effect::None);
        assert_eq!(effect(3, [5, 0, 0, 0, 0, 0], 0), Effect::Closed(5));
        assert_eq!(effect(3, [5, 0, 0, 0, 0, 0], -4), Effect::Closed(5));
        assert_eq!(effect(53, [1, 1, 0, 64, 0, 0], 0), Effect::OpenedPair(Addr(64)));
        assert_eq!(effect(72, [5, 1030, 10, 0, 0, 0], 10), Effect::Opened(10));
        assert_eq!(effect(72, [5, 1, 0, 0, 0, 0], 1), Effect::None);
        assert_eq!(effect(436, [3, u64::from(u32::MAX), 0, 0, 0, 0], 0), Effect::ClosedRange(3, u32::MAX));
        assert_eq!(effect(436, [3, 9, 4, 0, 0, 0], 0), Effect::None);
    }

    #[test]
    fn what_is_not_open_is_named_by_the_arguments_that_hold_it() {
        assert_eq!(effect(3, [5, 0, 0, 0, 0, 0], -9), Effect::NotClosed(5));
        assert_eq!(effect(1, [5, 0, 0, 0, 0, 0], -9), Effect::NotOpen([5, 5]));
        assert_eq!(effect(9, [0, 4096, 1, 2, 7, 0], -9), Effect::NotOpen([7, 7]));
        assert_eq!(effect(40, [5, 6, 0, 0, 0, 0], -9), Effect::NotOpen([5, 6]));
    }

    #[test]
    fn opening_calls_are_in_the_table_by_their_names() {
        let names =
            ["open", "socket", "accept4", "memfd_create", "timerfd_create", "pidfd_open", "userfaultfd"];
        for name in names {
            let call = crate::CALLS.iter().find(|call| call.name == name).unwrap();
            assert!(OPENING.contains(&call.number.into()), "{name}");
        }
    }
}
