//! The sizes of the table against those of libc's declarations, where the kernel's structure is the same.
#![forbid(unsafe_code)]

use memcheck_syscalls::{CALLS, Length, Parameter, Parameters, Shape};

fn parameters_of(name: &str) -> Vec<&'static Parameter> {
    let call = CALLS.iter().find(|call| call.name == name).unwrap_or_else(|| panic!("no {name}"));
    match call.parameters {
        Parameters::Always(list) => list.iter().collect(),
        Parameters::Chosen { always, cases, .. } => {
            always.iter().chain(cases.iter().flat_map(|(_, list)| list.iter())).collect()
        }
        Parameters::Unknown => panic!("{name} is not known"),
    }
}

#[track_caller]
fn assert_size<T>(call: &str, parameter: &str) {
    let found = parameters_of(call).into_iter().find(|known| known.name == parameter);
    match found.unwrap_or_else(|| panic!("{call} has no {parameter}")).shape {
        Shape::Bytes(_, Length::Fixed(bytes) | Length::Items(_, bytes)) => {
            assert_eq!(bytes as usize, size_of::<T>(), "{call}({parameter})");
        }
        shape => panic!("{call}({parameter}) is {shape:?}"),
    }
}

#[test]
fn fixed_sizes_are_those_of_the_structures() {
    for call in ["stat", "fstat", "lstat", "newfstatat"] {
        assert_size::<libc::stat>(call, "buf");
    }
    assert_size::<libc::statx>("statx", "buf");
    assert_size::<libc::statfs>("statfs", "buf");
    assert_size::<libc::statfs>("fstatfs", "buf");
    assert_size::<libc::rusage>("getrusage", "usage");
    assert_size::<libc::rusage>("wait4", "rusage");
    assert_size::<libc::siginfo_t>("waitid", "infop");
    assert_size::<libc::timespec>("clock_gettime", "tp");
    assert_size::<libc::timespec>("nanosleep", "req");
    assert_size::<libc::timeval>("gettimeofday", "tv");
    assert_size::<libc::itimerspec>("timerfd_settime", "value");
    assert_size::<libc::itimerval>("setitimer", "value");
    assert_size::<libc::sysinfo>("sysinfo", "info");
    assert_size::<libc::tms>("times", "buf");
    assert_size::<libc::utsname>("uname", "buf");
    assert_size::<libc::rlimit>("prlimit64", "new_rlim");
    assert_size::<libc::sigevent>("timer_create", "evp");
    assert_size::<libc::mq_attr>("mq_open", "attr");
    assert_size::<libc::timex>("adjtimex", "txc");
    assert_size::<libc::utimbuf>("utime", "buf");
    assert_size::<[libc::timespec; 2]>("utimensat", "utimes");
    assert_size::<libc::stack_t>("sigaltstack", "ss");
    assert_size::<libc::off_t>("sendfile", "offset");
    assert_size::<[libc::c_int; 2]>("pipe2", "filedes");
    assert_size::<libc::socklen_t>("accept", "addrlen");
    assert_size::<libc::shmid_ds>("shmctl", "buf");
    assert_size::<libc::msqid_ds>("msgctl", "buf");
    assert_size::<libc::semid_ds>("semctl", "arg.buf");
    assert_size::<libc::flock>("fcntl", "arg");
    assert_size::<libc::epoll_event>("epoll_ctl", "event");
}

#[test]
fn elements_have_the_sizes_of_the_structures() {
    assert_size::<libc::pollfd>("poll", "ufds");
    assert_size::<libc::epoll_event>("epoll_wait", "events");
    assert_size::<libc::sembuf>("semop", "sops");
    assert_size::<libc::gid_t>("getgroups", "list");
}

#[test]
fn requests_of_ioctl_have_the_sizes_of_their_structures() {
    let call = CALLS.iter().find(|call| call.name == "ioctl").unwrap();
    let Parameters::Chosen { cases, .. } = call.parameters else { panic!("ioctl has requests") };
    let size = |request: libc::c_ulong| {
        let case = cases.iter().find(|(known, _)| libc::c_ulong::from(*known) == request);
        match case.unwrap_or_else(|| panic!("{request:#x} is not known")).1 {
            [] => 0,
            [Parameter { shape: Shape::Bytes(_, Length::Fixed(bytes)), .. }] => *bytes as usize,
            other => panic!("{request:#x} has {other:?}"),
        }
    };
    assert_eq!(size(libc::TIOCGWINSZ), size_of::<libc::winsize>());
    assert_eq!(size(libc::TIOCSWINSZ), size_of::<libc::winsize>());
    assert_eq!(size(libc::FIONREAD), size_of::<libc::c_int>());
    assert_eq!(size(libc::TIOCGPGRP), size_of::<libc::pid_t>());
    assert_eq!(size(libc::SIOCGIFADDR), size_of::<libc::ifreq>());
    assert_eq!(size(libc::TCGETS2), size_of::<libc::termios2>());
    assert_eq!(size(libc::FICLONERANGE), size_of::<libc::file_clone_range>());
    assert_eq!(size(libc::FIOCLEX), 0);
    // libc's termios has room for more characters than the kernel's.
    assert_eq!(size(libc::TCGETS), 4 * size_of::<libc::tcflag_t>() + 1 + 19);
}
