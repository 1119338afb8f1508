//! How the process begins, forks, becomes another program, and ends; and the signals that end it.
//!
//! In: calls of libc's `_exit`, `execve`, `fork` handlers, `sigaction`, `sigaltstack` that were led here, and the
//! kernel's signals. Out: the process' last work done exactly once, and then the very end that the target would
//! have had without us.
//!
//! Each file here says which entry of libc it stands for. Their entries are overwritten, not interposed, so that
//! libc's own calls come here too.

pub mod alt_stack;
pub mod arguments;
pub mod check_fault;
pub mod end;
pub mod exec;
pub mod fatal;
pub mod faulting;
pub mod fork;
pub mod libc_entries;
pub mod parts;
pub mod program_file;
pub mod signals;
pub mod work_stack;

use arguments::Looked;
use memcheck_model::{Addr, Pc};

use crate::{channel, detour, engine::install, exports, heap, leaks, libc_symbols};

/// Leads libc's entries here and takes the ending signals. Call it once, in the process' only thread, before
/// code of the target runs.
pub fn begin() {
    if !channel::is_watched() {
        return;
    }
    exec::begin();
    if let Some(libc) = libc_symbols::find_libc() {
        if let Some(location) = libc.find(b"__errno_location") {
            libc_entries::set_errno_location(location.start);
        }
        let lead = |name: &[u8], handler: u64| {
            libc.find(name).is_some_and(|entry| {
                install::redirect(Pc(entry.start), Addr(handler))
                    // SAFETY: each handler below has the signature of the function by this name and stands for it.
                    || unsafe { detour::install(entry, handler) }.is_ok()
            })
        };
        lead(b"_exit", end::exit_entry as *const () as u64);
        lead(b"_Exit", end::exit_entry as *const () as u64);
        let lead_looked = |name: &[u8], looked: &Looked| {
            libc.find(name).is_some_and(|entry| lead(name, looked.entry_for(entry.start)))
        };
        lead_looked(b"execve", &arguments::EXECVE);
        lead_looked(b"execveat", &arguments::EXECVEAT);
        lead_looked(b"fexecve", &arguments::FEXECVE);
        if !install::is_on() {
            // Copies are looked at where they make the call.
            lead(b"prctl", libc_entries::prctl as *const () as u64);
            lead(b"syscall", libc_entries::syscall as *const () as u64);
        }
        let signals_are_led = lead_looked(b"__libc_sigaction", &arguments::SIGACTION)
            || lead_looked(b"sigaction", &arguments::PUBLIC_SIGACTION);
        if signals_are_led && lead_looked(b"sigaltstack", &arguments::SIGALTSTACK) {
            signals::begin();
            leaks::begin();
            alt_stack::prepare_thread();
        }
        // Modules loaded with RTLD_DEEPBIND bind to libc's own allocator, past the shim's.
        if heap::get().is_some() {
            for (name, handler) in exports::libc_allocator() {
                lead(name, handler);
            }
        }
        if let Some(register) = libc.find(b"__register_atfork") {
            // SAFETY: libc's function by this name takes three handlers and the module they belong to.
            let register: extern "C" fn(extern "C" fn(), extern "C" fn(), extern "C" fn(), u64) -> i32 =
                unsafe { core::mem::transmute(register.start) };
            register(fork::before, fork::after_in_parent, fork::after_in_child, 0);
        }
    }
}
