//! Calls whose parameters depend on a request: `ioctl`, `fcntl`, `prctl`, `futex` and others.
//!
//! Source: ioctl_tty(2), ioctl_list(2), socket(7), netdevice(7), fcntl(2), prctl(2), futex(2), and the kernel's
//! headers of the same names for the numbers.

use memcheck_model::AccessKind::{self, Read, Write};

use crate::{
    Length::{Fixed, Semaphores, Size},
    Parameter, Parameters, Shape,
    table::{FLOCK, TIMESPEC, other, reads, string, writes},
};

type Case = (u32, &'static [Parameter]);

const NOTHING: &[Parameter] = &[];

/// The third argument of `ioctl` and `fcntl`, of so many bytes.
const fn argument(kind: AccessKind, bytes: u32) -> [Parameter; 1] {
    [Parameter { argument: 2, name: "arg", shape: Shape::Bytes(kind, Fixed(bytes)) }]
}

const READS_1: &[Parameter] = &argument(Read, 1);
const READS_INT: &[Parameter] = &argument(Read, 4);
const WRITES_INT: &[Parameter] = &argument(Write, 4);
const READS_LONG: &[Parameter] = &argument(Read, 8);
const WRITES_LONG: &[Parameter] = &argument(Write, 8);
const READS_TERMIOS: &[Parameter] = &argument(Read, 36);
const WRITES_TERMIOS: &[Parameter] = &argument(Write, 36);
const READS_TERMIOS2: &[Parameter] = &argument(Read, 44);
const WRITES_TERMIOS2: &[Parameter] = &argument(Write, 44);
const READS_TERMIO: &[Parameter] = &argument(Read, 18);
const WRITES_TERMIO: &[Parameter] = &argument(Write, 18);
const READS_WINDOW_SIZE: &[Parameter] = &argument(Read, 8);
const WRITES_WINDOW_SIZE: &[Parameter] = &argument(Write, 8);
/// `struct ifreq`: the kernel copies it out and in whole.
const INTERFACE: &[Parameter] = &argument(Write, 40);
const INTERFACES: &[Parameter] = &[other(2, "arg", Shape::Interfaces)];
const READS_CLONE_RANGE: &[Parameter] = &argument(Read, 32);
const READS_LOCK: &[Parameter] = &argument(Read, FLOCK);
const WRITES_LOCK: &[Parameter] = &argument(Write, FLOCK);

const IOCTLS: &[Case] = &[
    (0x0001, WRITES_INT),             // FIBMAP
    (0x0002, WRITES_INT),             // FIGETBSZ
    (0x125e, WRITES_INT),             // BLKROGET
    (0x1260, WRITES_LONG),            // BLKGETSIZE
    (0x1268, WRITES_INT),             // BLKSSZGET
    (0x5401, WRITES_TERMIOS),         // TCGETS
    (0x5402, READS_TERMIOS),          // TCSETS
    (0x5403, READS_TERMIOS),          // TCSETSW
    (0x5404, READS_TERMIOS),          // TCSETSF
    (0x5405, WRITES_TERMIO),          // TCGETA
    (0x5406, READS_TERMIO),           // TCSETA
    (0x5407, READS_TERMIO),           // TCSETAW
    (0x5408, READS_TERMIO),           // TCSETAF
    (0x5409, NOTHING),                // TCSBRK
    (0x540a, NOTHING),                // TCXONC
    (0x540b, NOTHING),                // TCFLSH
    (0x540c, NOTHING),                // TIOCEXCL
    (0x540d, NOTHING),                // TIOCNXCL
    (0x540e, NOTHING),                // TIOCSCTTY
    (0x540f, WRITES_INT),             // TIOCGPGRP
    (0x5410, READS_INT),              // TIOCSPGRP
    (0x5411, WRITES_INT),             // TIOCOUTQ
    (0x5412, READS_1),                // TIOCSTI
    (0x5413, WRITES_WINDOW_SIZE),     // TIOCGWINSZ
    (0x5414, READS_WINDOW_SIZE),      // TIOCSWINSZ
    (0x5415, WRITES_INT),             // TIOCMGET
    (0x5416, READS_INT),              // TIOCMBIS
    (0x5417, READS_INT),              // TIOCMBIC
    (0x5418, READS_INT),              // TIOCMSET
    (0x5419, WRITES_INT),             // TIOCGSOFTCAR
    (0x541a, READS_INT),              // TIOCSSOFTCAR
    (0x541b, WRITES_INT),             // FIONREAD
    (0x5420, READS_INT),              // TIOCPKT
    (0x5421, READS_INT),              // FIONBIO
    (0x5422, NOTHING),                // TIOCNOTTY
    (0x5423, READS_INT),              // TIOCSETD
    (0x5424, WRITES_INT),             // TIOCGETD
    (0x5425, NOTHING),                // TCSBRKP
    (0x5427, NOTHING),                // TIOCSBRK
    (0x5428, NOTHING),                // TIOCCBRK
    (0x5429, WRITES_INT),             // TIOCGSID
    (0x5441, NOTHING),                // TIOCGPTPEER
    (0x5450, NOTHING),                // FIONCLEX
    (0x5451, NOTHING),                // FIOCLEX
    (0x5452, READS_INT),              // FIOASYNC
    (0x8901, READS_INT),              // FIOSETOWN
    (0x8902, READS_INT),              // SIOCSPGRP
    (0x8903, WRITES_INT),             // FIOGETOWN
    (0x8904, WRITES_INT),             // SIOCGPGRP
    (0x8905, WRITES_INT),             // SIOCATMARK
    (0x8910, INTERFACE),              // SIOCGIFNAME
    (0x8912, INTERFACES),             // SIOCGIFCONF
    (0x8913, INTERFACE),              // SIOCGIFFLAGS
    (0x8915, INTERFACE),              // SIOCGIFADDR
    (0x8917, INTERFACE),              // SIOCGIFDSTADDR
    (0x8919, INTERFACE),              // SIOCGIFBRDADDR
    (0x891b, INTERFACE),              // SIOCGIFNETMASK
    (0x891d, INTERFACE),              // SIOCGIFMETRIC
    (0x8921, INTERFACE),              // SIOCGIFMTU
    (0x8927, INTERFACE),              // SIOCGIFHWADDR
    (0x8933, INTERFACE),              // SIOCGIFINDEX
    (0x4004_5431, READS_INT),         // TIOCSPTLCK
    (0x4004_9409, NOTHING),           // FICLONE
    (0x4008_6602, READS_INT),         // FS_IOC_SETFLAGS, which says long and takes int
    (0x4020_940d, READS_CLONE_RANGE), // FICLONERANGE
    (0x402c_542b, READS_TERMIOS2),    // TCSETS2
    (0x402c_542c, READS_TERMIOS2),    // TCSETSW2
    (0x402c_542d, READS_TERMIOS2),    // TCSETSF2
    (0x8004_5430, WRITES_INT),        // TIOCGPTN
    (0x8004_5438, WRITES_INT),        // TIOCGPKT
    (0x8004_5439, WRITES_INT),        // TIOCGPTLCK
    (0x8008_1272, WRITES_LONG),       // BLKGETSIZE64
    (0x8008_6601, WRITES_INT),        // FS_IOC_GETFLAGS
    (0x802c_542a, WRITES_TERMIOS2),   // TCGETS2
];

pub(crate) const IOCTL: Parameters =
    Parameters::Chosen { by: 1, mask: u32::MAX, always: NOTHING, cases: IOCTLS, is_complete: false };

pub(crate) const FCNTL: Parameters = Parameters::Chosen {
    by: 1,
    mask: u32::MAX,
    always: NOTHING,
    cases: &[
        (5, WRITES_LOCK),    // F_GETLK
        (6, READS_LOCK),     // F_SETLK
        (7, READS_LOCK),     // F_SETLKW
        (15, READS_LONG),    // F_SETOWN_EX
        (16, WRITES_LONG),   // F_GETOWN_EX
        (36, WRITES_LOCK),   // F_OFD_GETLK
        (37, READS_LOCK),    // F_OFD_SETLK
        (38, READS_LOCK),    // F_OFD_SETLKW
        (1035, WRITES_LONG), // F_GET_RW_HINT
        (1036, READS_LONG),  // F_SET_RW_HINT
        (1037, WRITES_LONG), // F_GET_FILE_RW_HINT
        (1038, READS_LONG),  // F_SET_FILE_RW_HINT
    ],
    is_complete: true,
};

/// The name of a thread: the kernel reads `TASK_COMM_LEN - 1` bytes at most.
const NAME: Parameter = other(1, "arg2", Shape::String(15));

pub(crate) const PRCTL: Parameters = Parameters::Chosen {
    by: 0,
    mask: u32::MAX,
    always: NOTHING,
    cases: &[
        (2, &[writes(1, "arg2", Fixed(4))]),   // PR_GET_PDEATHSIG
        (5, &[writes(1, "arg2", Fixed(4))]),   // PR_GET_UNALIGN
        (9, &[writes(1, "arg2", Fixed(4))]),   // PR_GET_FPEMU
        (11, &[writes(1, "arg2", Fixed(4))]),  // PR_GET_FPEXC
        (15, &[NAME]),                         // PR_SET_NAME
        (16, &[writes(1, "arg2", Fixed(16))]), // PR_GET_NAME
        (19, &[writes(1, "arg2", Fixed(4))]),  // PR_GET_ENDIAN
        (25, &[writes(1, "arg2", Fixed(4))]),  // PR_GET_TSC
        (37, &[writes(1, "arg2", Fixed(4))]),  // PR_GET_CHILD_SUBREAPER
        (40, &[writes(1, "arg2", Fixed(8))]),  // PR_GET_TID_ADDRESS
    ],
    is_complete: true,
};

/// A wake reads nothing: the word is only a name, and its memory may be gone (futex(2), "Robust and spurious": the
/// mutex that is unlocked may be freed by who takes it next).
pub(crate) const FUTEX: Parameters = {
    const WORD: Parameter = reads(0, "futex", Fixed(4));
    const SECOND: Parameter = reads(4, "futex2", Fixed(4));
    const TIMEOUT: Parameter = reads(3, "timeout", TIMESPEC);
    Parameters::Chosen {
        by: 1,
        mask: 127,
        always: NOTHING,
        cases: &[
            (0, &[WORD, TIMEOUT]),          // FUTEX_WAIT
            (4, &[WORD]),                   // FUTEX_CMP_REQUEUE
            (5, &[SECOND]),                 // FUTEX_WAKE_OP
            (6, &[WORD, TIMEOUT]),          // FUTEX_LOCK_PI
            (7, &[WORD]),                   // FUTEX_UNLOCK_PI
            (8, &[WORD]),                   // FUTEX_TRYLOCK_PI
            (9, &[WORD, TIMEOUT]),          // FUTEX_WAIT_BITSET
            (11, &[WORD, SECOND, TIMEOUT]), // FUTEX_WAIT_REQUEUE_PI
            (12, &[WORD, SECOND]),          // FUTEX_CMP_REQUEUE_PI
            (13, &[WORD, TIMEOUT]),         // FUTEX_LOCK_PI2
        ],
        is_complete: true,
    }
};

pub(crate) const EPOLL_CTL: Parameters = {
    const EVENT: &[Parameter] = &[reads(3, "event", Fixed(12))];
    // EPOLL_CTL_ADD, EPOLL_CTL_MOD; EPOLL_CTL_DEL reads none.
    Parameters::Chosen {
        by: 1,
        mask: u32::MAX,
        always: NOTHING,
        cases: &[(1, EVENT), (3, EVENT)],
        is_complete: true,
    }
};

pub(crate) const ARCH_PRCTL: Parameters = {
    const ADDRESS: &[Parameter] = &[writes(1, "addr", Fixed(8))];
    // ARCH_GET_FS, ARCH_GET_GS
    Parameters::Chosen {
        by: 0,
        mask: u32::MAX,
        always: NOTHING,
        cases: &[(0x1003, ADDRESS), (0x1004, ADDRESS)],
        is_complete: true,
    }
};

pub(crate) const SYSLOG: Parameters = {
    const BUFFER: &[Parameter] = &[writes(1, "bufp", Size(2))];
    Parameters::Chosen {
        by: 0,
        mask: u32::MAX,
        always: NOTHING,
        cases: &[(2, BUFFER), (3, BUFFER), (4, BUFFER)],
        is_complete: true,
    }
};

/// `IPC_STAT` (2) writes and `IPC_SET` (1) reads a structure; what other commands do with their argument is not
/// looked at.
const fn ipc_control(cases: &'static [Case], by: u8) -> Parameters {
    Parameters::Chosen { by, mask: 0xff, always: NOTHING, cases, is_complete: false }
}

pub(crate) const SHMCTL: Parameters = ipc_control(
    &[
        (0, NOTHING),
        (1, &[reads(2, "buf", Fixed(112))]),
        (2, &[writes(2, "buf", Fixed(112))]),
        (11, NOTHING),
        (12, NOTHING),
    ],
    1,
);
pub(crate) const MSGCTL: Parameters = ipc_control(
    &[(0, NOTHING), (1, &[reads(2, "buf", Fixed(120))]), (2, &[writes(2, "buf", Fixed(120))])],
    1,
);
pub(crate) const SEMCTL: Parameters = ipc_control(
    &[
        (0, NOTHING),
        (1, &[reads(3, "arg.buf", Fixed(104))]),
        (2, &[writes(3, "arg.buf", Fixed(104))]),
        (11, NOTHING),                                  // GETPID
        (12, NOTHING),                                  // GETVAL
        (13, &[writes(3, "arg.array", Semaphores(0))]), // GETALL
        (14, NOTHING),                                  // GETNCNT
        (15, NOTHING),                                  // GETZCNT
        (16, NOTHING),                                  // SETVAL
        (17, &[reads(3, "arg.array", Semaphores(0))]),  // SETALL
    ],
    2,
);

pub(crate) const QUOTACTL: Parameters =
    Parameters::Chosen { by: 0, mask: 0, always: &[string(1, "special")], cases: &[], is_complete: false };

/// What a command's attributes point to is not looked at.
pub(crate) const BPF: Parameters = Parameters::Chosen {
    by: 0,
    mask: 0,
    always: &[reads(1, "attr", Size(2))],
    cases: &[],
    is_complete: false,
};
